"""The rows of a replay buffer, column by column, and which of them changed since they were captured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64, Changed, RowSet

_FIRST_ROWS = 1024

Column = NDArray[Any]


class RowStore:
    """Columns of `height` rows in use. Memory grows by doubling up to `limit` rows; `limit` may be set at any time.

    A row that was erased is a hole: its slot stays, so that the law by which slots are filled stays what it is, but it
    holds nothing and is in no draw. It is a row again when it is written to.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.height = 0
        self.columns: dict[str, Column] = {}  # each of at least `height` rows
        self._holes = np.empty(0, np.int64)  # ascending
        self._live: I64 | None = None  # rows that are no holes, found when asked for
        self._written = RowSet()  # since the last capture, in every column
        self._updated: dict[str, RowSet] = {}  # since the last capture, in this column alone

    def __len__(self) -> int:
        """Rows in use that are no holes."""
        return self.height - len(self._holes)

    @property
    def size_bytes(self) -> int:
        """Memory of all columns, what they have grown ahead included."""
        return sum(column.nbytes for column in self.columns.values())

    def live(self) -> I64 | None:
        """Rows that can be drawn; None = all of them."""
        if not len(self._holes):
            return None
        if self._live is None:
            self._live = np.setdiff1d(np.arange(self.height), self._holes, assume_unique=True)
        return self._live

    def put(self, slots: I64, values: Mapping[str, Column]) -> None:
        """Writes rows, `slots` [k] each once; the rows up to the highest are in use afterwards."""
        if not len(slots):
            return
        self._grow(int(slots.max()) + 1, values)
        for name, column in self.columns.items():
            column[slots] = values[name]
        self._written.add(slots)
        self._fill(slots)

    def update(self, name: str, rows: I64, values: Column) -> None:
        """Changes one column of rows, `rows` [k] each once."""
        self.columns[name][rows] = values
        self._updated.setdefault(name, RowSet()).add(rows)

    def move(self, sources: I64, targets: I64) -> None:
        """Copies rows over others, all at once; a hole goes with them."""
        if not len(sources):
            return
        were_holes = np.isin(sources, self._holes)
        self.put(targets, {name: column[sources] for name, column in self.columns.items()})
        self._dig(targets[were_holes])

    def cut(self, height: int) -> None:
        """Lets go of the rows from `height` on."""
        self.height = height
        self._holes, self._live = self._holes[self._holes < height], None

    def close_up(self, gone: I64) -> None:
        """Lets go of the rows `gone`, each once; rows from the end move into their places."""
        left = self.height - len(gone)
        tail = np.ones(self.height - left, bool)
        tail[gone[gone >= left] - left] = False
        self.move(left + np.flatnonzero(tail), np.sort(gone[gone < left]))
        self.cut(left)

    def erase(self, rows: I64) -> None:
        """Makes holes of rows, `rows` [k] each once: 0 in every column."""
        for column in self.columns.values():
            column[rows] = 0
        self._written.add(rows)
        self._dig(rows)

    def take(self, name: str, rows: I64) -> Column:
        """A copy of a column's rows."""
        return self.columns[name].take(rows, axis=0, mode="clip")

    def capture(self) -> dict[str, Any]:
        """The whole state. `changes` counts from here."""
        self._captured()
        columns = {name: column[: self.height].copy() for name, column in self.columns.items()}
        return {"columns": columns, "holes": self._holes.copy()}

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the rows written since the last of either, or since `restore`."""
        columns = {name: self._changed(name) for name in self.columns}
        self._captured()
        return {"columns": columns, "holes": self._holes.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        self._captured()
        self.columns = {name: column.copy() for name, column in state["columns"].items()}
        self.height = len(next(iter(self.columns.values()))) if self.columns else 0
        self._holes, self._live = state["holes"].astype(np.int64), None

    def _changed(self, name: str) -> Changed:
        rows = self._written.rows()
        if name in self._updated:
            rows = np.union1d(rows, self._updated[name].rows())
        rows = rows[rows < self.height]
        return Changed(rows, self.take(name, rows), self.height)

    def _captured(self) -> None:
        self._written.take()
        self._updated.clear()

    def _grow(self, height: int, like: Mapping[str, Column]) -> None:
        held = len(next(iter(self.columns.values()))) if self.columns else 0
        if held < height:
            rows = min(self.limit, max(height, 2 * held, _FIRST_ROWS))
            for name, values in like.items():
                grown = np.zeros((rows, *values.shape[1:]), values.dtype)
                if held:
                    grown[:held] = self.columns[name]
                self.columns[name] = grown
        if height > self.height:
            self.height, self._live = height, None

    def _fill(self, slots: I64) -> None:
        if len(self._holes):
            self._holes, self._live = np.setdiff1d(self._holes, slots), None

    def _dig(self, rows: I64) -> None:
        if len(rows):
            self._holes, self._live = np.union1d(self._holes, rows), None

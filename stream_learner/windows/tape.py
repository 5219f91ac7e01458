"""Columns that grow at the back and are dropped at the front: what arrived, in order, until it is no longer needed.

A position is absolute: the first row ever appended is 0, and a row keeps its number for life. Rows live in blocks
of fixed size, so that appending never copies what is there and dropping gives memory back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
Block = dict[str, NDArray[Any]]

BLOCK_ROWS = 65_536  # a few MB per column: small against what is held, large against the cost of one more block


class Tape:
    """Named columns of equal length; their dtypes and trailing shapes are those of the first append."""

    def __init__(self, block_rows: int = BLOCK_ROWS) -> None:
        self._block_rows = block_rows
        self._blocks: list[Block] = []
        self._empty: Block | None = None
        self.start = 0  # position of the first row still held
        self.stop = 0  # position after the last row

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def shaped(self) -> bool:
        """Whether the columns are known: after the first append."""
        return self._empty is not None

    def append(self, **columns: NDArray[Any]) -> None:
        """Adds rows at the back; every column has shape [n, ...]."""
        if self._empty is None:
            self._empty = {name: column[:0].copy() for name, column in columns.items()}
        rows = len(next(iter(columns.values())))
        taken = 0
        while taken < rows:
            block, offset = self._place(self.stop)
            if block == len(self._blocks):
                self._blocks.append(self._new_block())
            step = min(rows - taken, self._block_rows - offset)
            for name, column in self._blocks[block].items():
                column[offset : offset + step] = columns[name][taken : taken + step]
            taken += step
            self.stop += step

    def read(self, start: int, stop: int, names: Sequence[str] | None = None) -> Block:
        """A copy of the rows `start <= position < stop`, all of which must be held; of all columns, or those named."""
        empty = {name: column for name, column in (self._empty or {}).items() if names is None or name in names}
        parts = []
        while start < stop:
            block, offset = self._place(start)
            step = min(stop - start, self._block_rows - offset)
            parts.append({name: self._blocks[block][name][offset : offset + step] for name in empty})
            start += step
        return {name: np.concatenate([column, *(part[name] for part in parts)]) for name, column in empty.items()}

    def take(self, positions: I64, names: Sequence[str] | None = None) -> Block:
        """A copy of the rows at these positions, all of which must be held, in that order."""
        columns = {name: column for name, column in (self._empty or {}).items() if names is None or name in names}
        out = {name: np.empty((len(positions), *column.shape[1:]), column.dtype) for name, column in columns.items()}
        for block, rows, offsets in self._by_block(positions):
            for name, column in out.items():
                column[rows] = block[name][offsets]
        return out

    def put(self, column: str, positions: I64, values: NDArray[Any]) -> None:
        """Writes `values` at those distinct positions."""
        for block, rows, offsets in self._by_block(positions):
            block[column][offsets] = values[rows]

    def at(self, column: str, position: int) -> Any:
        """One value of a one-dimensional column."""
        block, offset = self._place(position)
        return self._blocks[block][column][offset]

    def first_at_least(self, column: str, value: int, start: int) -> int:
        """The first position >= `start` whose value is >= `value`, or `stop`; the column must never fall."""
        while start < self.stop:
            block, offset = self._place(start)
            end = min(self._block_rows, offset + self.stop - start)
            found = int(np.searchsorted(self._blocks[block][column][offset:end], value))
            start += found
            if found < end - offset:
                return start
        return start

    def replace(self, column: str, old: int, positions: I64, values: NDArray[Any]) -> I64:
        """Writes `values` at those distinct positions where the column still holds `old`; returns those."""
        replaced = []
        for block, rows, offsets in self._by_block(positions):
            stale = block[column][offsets] == old
            block[column][offsets[stale]] = values[rows[stale]]
            replaced.append(positions[rows[stale]])
        return np.concatenate(replaced) if replaced else positions[:0]

    def blocks(self) -> list[Block]:
        """The columns themselves, block by block, to be changed in place (rows outside the tape included)."""
        return self._blocks

    def drop(self, upto: int) -> None:
        """Gives up all rows before position `upto`."""
        if upto <= self.start:
            return
        whole = upto // self._block_rows - self.start // self._block_rows
        self._blocks = self._blocks[whole:]
        self.start = upto

    def erase(self, positions: I64) -> None:
        """Takes out the rows at these positions, all of which must be held: those behind them move up."""
        stay = np.ones(len(self), bool)
        stay[positions - self.start] = False
        columns = self.read(self.start, self.stop)
        self.restore({"start": self.start, "columns": {name: column[stay] for name, column in columns.items()}})

    def capture(self) -> dict[str, Any]:
        return {"start": self.start, "columns": self.read(self.start, self.stop)}

    def restore(self, state: dict[str, Any]) -> None:
        self._blocks, self._empty = [], None
        self.start = self.stop = int(state["start"])
        if state["columns"]:
            self.append(**state["columns"])

    def _by_block(self, positions: I64) -> Iterator[tuple[Block, I64, I64]]:
        """Block after block: it, which of `positions` lie in it, and at which of its rows."""
        order = np.argsort(positions, kind="stable")
        block_of = positions[order] // self._block_rows
        cuts = np.flatnonzero(np.diff(block_of)) + 1
        for rows in np.split(order, cuts):
            if len(rows):
                yield self._blocks[self._place(int(positions[rows[0]]))[0]], rows, positions[rows] % self._block_rows

    def _place(self, position: int) -> tuple[int, int]:
        return position // self._block_rows - self.start // self._block_rows, position % self._block_rows

    def _new_block(self) -> Block:
        columns = (self._empty or {}).items()
        # Zeros, not empty: `blocks` shows rows not yet written too, and they must hold valid values.
        return {name: np.zeros((self._block_rows, *column.shape[1:]), column.dtype) for name, column in columns}

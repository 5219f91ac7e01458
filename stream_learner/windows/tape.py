"""Columns that grow at the back and are dropped at the front: what arrived, in order, until it is no longer needed.

A position is absolute: the first row ever appended is 0, and a row keeps its number for life. Rows live in blocks
of fixed size, so that appending never copies what is there and dropping gives memory back. In a state each column is a
ring, the row of position p at p % its length: what came and what was rewritten since are then the only rows that differ
from one snapshot to the next, however much is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import Changed

I64 = NDArray[np.int64]
Block = dict[str, NDArray[Any]]

BLOCK_ROWS = 65_536  # a few MB per column: small against what is held, large against the cost of one more block


_SLACK = 4  # a ring has room for a quarter more than is held, and is made anew when four times too large


@dataclass(frozen=True, slots=True)
class _Told:
    """What the last capture holds."""

    capacity: int  # rows of its rings
    stop: int  # position after its last row


class Tape:
    """Named columns of equal length; their dtypes and trailing shapes are those of the first append."""

    def __init__(self, block_rows: int = BLOCK_ROWS) -> None:
        self._block_rows = block_rows
        self._blocks: list[Block] = []
        self._empty: Block | None = None
        self.start = 0  # position of the first row still held
        self.stop = 0  # position after the last row
        self._told: _Told | None = None  # None: what changed since cannot be told
        self._rewritten: dict[str, list[I64]] = {}  # per column the positions written to in place since then

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
        self._rewritten.setdefault(column, []).append(positions)
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
        written = np.concatenate(replaced) if replaced else positions[:0]
        self._rewritten.setdefault(column, []).append(written)
        return written

    def blocks(self) -> list[Block]:
        """The columns themselves, block by block, to be changed in place (rows outside the tape included). What is
        changed in them cannot be told: the next capture is whole."""
        self._told = None
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
        self._begin(self.start, {name: column[stay] for name, column in columns.items()})

    def capture(self) -> dict[str, Any]:
        """The whole state. `changes` counts from here."""
        capacity = len(self) + len(self) // _SLACK + 1
        columns = {}
        for name, column in (self._empty or {}).items():
            columns[name] = np.zeros((capacity, *column.shape[1:]), column.dtype)
            _around(columns[name], self.start, self.read(self.start, self.stop, (name,))[name])
        return self._state(capacity, columns)

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the rows appended or rewritten since the last of either, or since `restore`; whole
        where the rings no longer fit what is held."""
        told = self._told
        if told is None or not len(self) <= told.capacity <= 2 * _SLACK * len(self) + 1:
            return self.capture()
        came = _ascending(np.arange(max(self.start, told.stop), self.stop), told.capacity)
        came_rows = came % told.capacity
        values = self.take(came, [name for name in self._empty or {} if name not in self._rewritten])
        columns = {name: Changed(came_rows, column, told.capacity) for name, column in values.items()}
        for name, written in self._rewritten.items():
            before = np.unique(np.concatenate(written))
            both = np.concatenate([before[(before >= self.start) & (before < told.stop)], np.sort(came)])
            positions = _ascending(both, told.capacity)
            column = self.take(positions, (name,))[name]
            columns[name] = Changed(positions % told.capacity, column, told.capacity)
        return self._state(told.capacity, columns)

    def restore(self, state: dict[str, Any]) -> None:
        start, stop = int(state["start"]), int(state["stop"])
        columns = {name: _from(ring, start, stop) for name, ring in state["columns"].items()}
        self._begin(start, columns)
        self.stop = stop
        self._told = _Told(len(next(iter(state["columns"].values()))), stop) if columns else None

    def _begin(self, start: int, columns: Block) -> None:
        """With these rows alone, the first at `start`."""
        self._blocks, self._empty, self._told, self._rewritten = [], None, None, {}
        self.start = self.stop = start
        if columns:
            self.append(**columns)

    def _state(self, capacity: int, columns: dict[str, Any]) -> dict[str, Any]:
        self._told, self._rewritten = _Told(capacity, self.stop) if columns else None, {}
        return {"start": self.start, "stop": self.stop, "columns": columns}

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


def _around(ring: NDArray[Any], start: int, values: NDArray[Any]) -> None:
    """Writes the rows from position `start` on into their ring, which has room for them."""
    at = start % len(ring)
    ring[at : at + len(values)] = values[: len(ring) - at]
    ring[: max(0, at + len(values) - len(ring))] = values[len(ring) - at :]


def _from(ring: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    """The rows of the positions `start` to `stop`, in order."""
    at = start % len(ring)
    return np.concatenate([ring[at : at + stop - start], ring[: max(0, at + stop - start - len(ring))]])


def _ascending(positions: I64, capacity: int) -> I64:
    """Ascending positions, none as far as `capacity` from another, in the order of their rows in a ring."""
    if not len(positions):
        return positions
    wrap = np.searchsorted(positions, (positions[0] // capacity + 1) * capacity)
    return np.concatenate([positions[wrap:], positions[:wrap]])

"""What changed of a large array since it was captured last: told by whoever changed it, never found by looking."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]

_FIRST_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Changed:
    """An array, by the rows that differ from the capture before; a leaf of a state, as an array is.

    `rows`: int64 [k], ascending, each once; `values`: [k, ...], what they hold now; `height`: rows of the array now.
    Rows from the former height on must all be among them, so `rows` of 0..height-1 are an array that is new.
    """

    rows: I64
    values: NDArray[Any]
    height: int

    @property
    def whole(self) -> bool:
        """Whether `values` are the array, and nothing of before is needed."""
        return len(self.rows) == self.height

    def onto(self, before: NDArray[Any]) -> NDArray[Any]:
        """The array as it is now, given what it was; `before` may be written to."""
        array = resized(before, self.height)
        array[self.rows] = self.values
        return array


def resized(array: NDArray[Any], height: int) -> NDArray[Any]:
    """The array itself when it has so many rows, else a copy; rows that it did not have hold anything."""
    if len(array) == height:
        return array
    out = np.empty((height, *array.shape[1:]), array.dtype)
    out[: len(array)] = array[:height]
    return out


class Buffers:
    """Memory for copies of rows, used again when nobody holds what was put there before.

    A fresh array of some MB costs a page fault for every 4 KB of it, which is more than the copying; the arrays given
    out here are handed to the writer, and free as soon as it has let go of them. Whether it has, Python's own count of
    references tells: every view of a buffer holds it.
    """

    def __init__(self) -> None:
        self._held: list[NDArray[np.uint8]] = []

    def take(self, array: NDArray[Any], rows: I64) -> NDArray[Any]:
        """Copies of rows of an array [n, ...]: [len(rows), ...]."""
        shape = (len(rows), *array.shape[1:])
        size = math.prod(shape) * array.itemsize
        if not size:
            return np.empty(shape, array.dtype)
        out: NDArray[Any] = self._room(size)[:size].view(array.dtype).reshape(shape)
        return np.take(array, rows, axis=0, out=out, mode="clip")  # other modes go through a copy of `out`

    def _room(self, size: int) -> NDArray[np.uint8]:
        free = [i for i in range(len(self._held)) if _holders(self._held, i) == _ALONE]
        fitting = [i for i in free if len(self._held[i]) >= size]
        if fitting:
            return self._held[min(fitting, key=lambda i: len(self._held[i]))]
        if free:
            del self._held[max(free, key=lambda i: len(self._held[i]))]
        self._held.append(np.empty(size + size // 4, np.uint8))
        return self._held[-1]


def _holders(buffers: list[NDArray[np.uint8]], index: int) -> int:
    return sys.getrefcount(buffers[index])


_ALONE = _holders([np.empty(0, np.uint8)], 0)


class RowSet:
    """A set of row numbers. What an operation costs depends on the rows it is given, not on the height of the array."""

    def __init__(self) -> None:
        self._held = np.zeros(0, bool)
        self._added: list[I64] = []
        self._count = 0
        self._ascending = True  # what was added is one array, in order

    def __len__(self) -> int:
        return self._count

    def add(self, rows: I64) -> None:
        """`rows`: int64 [k], no negative ones, each once."""
        if not len(rows):
            return
        needed = int(rows.max()) + 1
        if needed > len(self._held):
            grown = np.zeros(max(needed, 2 * len(self._held), _FIRST_ROWS), bool)
            grown[: len(self._held)] = self._held
            self._held = grown
        new = rows[~self._held[rows]]
        self._held[new] = True
        self._added.append(new)
        self._ascending = False
        self._count += len(new)

    def rows(self) -> I64:
        """The rows held, ascending."""
        joined = np.concatenate([np.empty(0, np.int64), *self._added])
        if not self._ascending:
            joined.sort()
        self._added, self._ascending = ([joined] if len(joined) else []), True
        return joined

    def take(self) -> I64:
        """The rows held, ascending; none are afterwards."""
        rows = self.rows()
        self._held[rows] = False
        self._added, self._count, self._ascending = [], 0, True
        return rows

    def packed(self) -> NDArray[np.uint8]:
        """The set as bits, for a snapshot."""
        return np.packbits(self._held)

    @classmethod
    def of(cls, rows: I64) -> RowSet:
        made = cls()
        made.add(rows)
        return made

    @classmethod
    def unpacked(cls, bits: NDArray[np.uint8]) -> RowSet:
        return cls.of(np.flatnonzero(np.unpackbits(bits)))


class Touched:
    """The rows of some arrays of equal height, which may grow, that were written to since they were captured last: a
    byte a row. Telling them costs a look at all of these."""

    def __init__(self) -> None:
        self.height = 0
        self._held = np.zeros(0, bool)

    def reach(self, height: int) -> None:
        """The arrays have at least so many rows now; the new ones are written."""
        if height > len(self._held):
            grown = np.zeros(max(height, 2 * len(self._held), _FIRST_ROWS), bool)
            grown[: len(self._held)] = self._held
            self._held = grown
        self._held[self.height : height] = True
        self.height = max(self.height, height)

    def add(self, rows: I64) -> None:
        """`rows`: int64 [k], below the height."""
        self._held[rows] = True

    def whole(self, **arrays: NDArray[Any]) -> dict[str, Any]:
        """Copies of all rows; `changes` counts from here."""
        self._held[:] = False
        return {name: array[: self.height].copy() for name, array in arrays.items()}

    def changes(self, **arrays: NDArray[Any]) -> dict[str, Any]:
        """The rows written since the last of either."""
        rows = np.flatnonzero(self._held)
        self._held[rows] = False
        return {name: Changed(rows, array[rows], self.height) for name, array in arrays.items()}

    def restored(self, height: int) -> None:
        self._held, self.height = np.zeros(height, bool), height


def differing(one: NDArray[Any], other: NDArray[Any]) -> I64:
    """The rows in which two arrays of equal shape and type [n, d] differ in any bit (so -0.0 is not 0.0), ascending."""
    bits = np.dtype(f"u{one.dtype.itemsize}")
    return np.flatnonzero((one.view(bits) != other.view(bits)).any(axis=1))

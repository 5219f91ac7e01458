"""Dense rows for 64-bit keys: the one index behind aggregates, baselines and exact id tables.

Lookups and inserts work on whole columns. A sorted main run answers most lookups; new keys collect in a small
sorted run that is merged when it outgrows a share of the main one, so an insert costs amortised
O(new * log(keys)) and never a copy of everything per slide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import Touched

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_FEW = 4096  # keys that are looked up as they come: sorting them first would cost more than it saves
_MERGE_SHARE = 8  # the young run is merged when it holds more than 1/8 of the main run


def mix(*columns: U64) -> U64:
    """One 64-bit key per row from several (splitmix64 finaliser, order matters; Steele et al., OOPSLA 2014)."""
    out = np.zeros_like(columns[0])
    with np.errstate(over="ignore"):
        for column in columns:
            z = (out ^ column) + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            out = z ^ (z >> np.uint64(31))
    return out


class KeyIndex:
    """Maps uint64 keys to rows 0..capacity-1; freed rows are reused, lowest first.

    Rows are handed out in the order in which new keys are given, so equal inputs give equal rows.
    """

    def __init__(self) -> None:
        self._main: tuple[U64, I64] = (np.empty(0, np.uint64), np.empty(0, np.int64))
        self._young: tuple[U64, I64] = (np.empty(0, np.uint64), np.empty(0, np.int64))
        self._free = np.empty(0, np.int64)  # sorted ascending
        self._next_row = 0
        self._touched = Touched()  # rows handed out or freed

    def __len__(self) -> int:
        return len(self._main[0]) + len(self._young[0])

    @property
    def row_limit(self) -> int:
        """One more than the highest row ever handed out: arrays held per row need this length."""
        return self._next_row

    def find(self, keys: U64) -> I64:
        """Rows of `keys` (shape [n]); -1 where unknown."""
        rows = _search(self._main, keys)
        if len(self._young[0]):
            missing = np.flatnonzero(rows < 0)
            if len(missing):
                rows[missing] = _search(self._young, keys[missing])
        return rows

    def find_or_add(self, keys: U64) -> tuple[I64, U64]:
        """Rows of `keys`, unknown ones added in order of first appearance; and the keys that were new."""
        rows = self.find(keys)
        unknown = np.flatnonzero(rows < 0)
        if not len(unknown):
            return rows, np.empty(0, np.uint64)
        unique, first, inverse = np.unique(keys[unknown], return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        new_rows = np.empty(len(unique), np.int64)
        new_rows[order] = self._allot(len(unique))
        self._touched.reach(self._next_row)
        self._touched.add(new_rows)
        rows[unknown] = new_rows[inverse]
        self._young = _merge(self._young, (unique, new_rows))
        if len(self._young[0]) * _MERGE_SHARE > len(self._main[0]):
            self._main, self._young = _merge(self._main, self._young), (np.empty(0, np.uint64), np.empty(0, np.int64))
        return rows, unique[order]

    def remove_rows(self, rows: I64) -> None:
        """Forgets the keys of these rows and frees the rows."""
        gone = np.zeros(self._next_row, bool)
        gone[rows] = True
        self._main = _keep(self._main, gone)
        self._young = _keep(self._young, gone)
        self._free = np.union1d(self._free, rows)
        self._touched.add(rows)

    def items(self) -> tuple[U64, I64]:
        """All keys, sorted ascending, and their rows."""
        return _merge(self._main, self._young)

    def capture(self) -> dict[str, Any]:
        """The key of each row, and which rows have none."""
        return {**self._touched.whole(keys=self._by_row()), "free": self._free.copy()}

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the rows handed out or freed since the last of either, or since `restore`."""
        return {**self._touched.changes(keys=self._by_row()), "free": self._free.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        keys, self._free = state["keys"], state["free"].astype(np.int64)
        held = np.ones(len(keys), bool)
        held[self._free] = False
        rows = np.flatnonzero(held)
        rows = rows[np.argsort(keys[rows])]
        self._main = (keys[rows].astype(np.uint64), rows)
        self._young = (np.empty(0, np.uint64), np.empty(0, np.int64))
        self._next_row = len(keys)
        self._touched.restored(self._next_row)

    def _by_row(self) -> U64:
        keys = np.zeros(self._next_row, np.uint64)
        for held, rows in (self._main, self._young):
            keys[rows] = held
        return keys

    def _allot(self, count: int) -> I64:
        reused = self._free[:count]
        self._free = self._free[count:]
        fresh = np.arange(self._next_row, self._next_row + count - len(reused), dtype=np.int64)
        self._next_row += len(fresh)
        return np.concatenate([reused, fresh])


def _search(run: tuple[U64, I64], keys: U64) -> I64:
    sorted_keys, rows = run
    if not len(sorted_keys):
        return np.full(len(keys), -1, np.int64)
    if len(keys) > _FEW and not (keys[1:] >= keys[:-1]).all():  # in order, searches share most of their way
        order = np.argsort(keys)
        out = np.empty(len(keys), np.int64)
        out[order] = _search(run, keys[order])
        return out
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[at] == keys, rows[at], -1)


def _merge(a: tuple[U64, I64], b: tuple[U64, I64]) -> tuple[U64, I64]:
    if not len(b[0]):
        return a
    at = np.searchsorted(a[0], b[0])
    return np.insert(a[0], at, b[0]), np.insert(a[1], at, b[1])


def _keep(run: tuple[U64, I64], gone: NDArray[np.bool_]) -> tuple[U64, I64]:
    stay = ~gone[run[1]]
    return run[0][stay], run[1][stay]

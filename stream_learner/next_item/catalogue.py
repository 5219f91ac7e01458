"""The items that can be recommended: who gets a row, for how long, and how popular each is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.events import MISSING_ID
from stream_learner.keys import KeyIndex

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

NO_ROW = 0  # of items that are unknown, missing or not admitted


class Catalogue:
    """Counts every item seen; those seen `admit_after` times get a row from 1 to `capacity`, lowest free one first.

    An item without an event for `expire_after` is forgotten, and its row is free again. Of those without a row
    `waiting` are counted at most: those longest without an event are forgotten.

    Where the network has features, an item that carries one takes a row that nobody needs at its first event. Until it
    was seen `admit_after` times it is *cold*: it has no vector of its own, and gives its row up to an item that is due.
    """

    def __init__(self, config: settings.NextItem) -> None:
        self._capacity = config.catalogue.capacity
        self._admit_after = config.catalogue.admit_after
        self._expire_after = config.catalogue.expire_after
        self._most_waiting = config.catalogue.waiting
        self._half_life = float(config.popularity.half_life)
        self._feature_rows = config.network.feature_rows
        self._seen = KeyIndex()
        self._rows = KeyIndex()  # of admitted items; row r of the tables is r + 1 here
        self._count: I64 = np.empty(0, np.int64)  # events, by row of `_seen`
        self._first: I64 = np.empty(0, np.int64)  # end of the slide it first came in, us
        self._last: I64 = np.empty(0, np.int64)  # time of the latest, us
        self._weight: F64 = np.empty(0, np.float64)  # decayed count of events, as of `_last`
        self._features: U64 = np.empty(
            (0, len(config.network.features)), np.uint64
        )  # latest of each, by row of `_seen`
        self.expired = 0  # items let go, ever
        self.forgotten = 0  # items without a row whose count there was no room for, ever

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def seen(self) -> int:
        """Items that are counted, admitted or not."""
        return len(self._seen)

    @property
    def waiting(self) -> int:
        """Items seen often enough that find no room."""
        keys, rows = self._seen.items()
        return int(np.count_nonzero((self._count[rows] >= self._admit_after) & (self._rows.find(keys) < 0)))

    def new(self, items: U64, since: int) -> NDArray[np.bool_]:
        """Whether items [n] were not seen before `since` (us)."""
        rows = self._seen.find(items)
        return (rows < 0) | (self._first[rows] > since if len(self._first) else True)

    def rows(self, items: U64) -> I64:
        """Table rows of items (any shape); NO_ROW where an item is not admitted."""
        return self._rows.find(items.ravel()).reshape(items.shape) + 1

    def step(self, items: U64, times: I64, slide_end: int, features: U64 | None = None) -> tuple[I64, I64]:
        """Counts a slide's events (in log order), lets items go and in: rows freed, and rows given out, ascending.
        `features`: fingerprints [n, features] of what the network is to know of each event's item."""
        rows, new = self._seen.find_or_add(items)
        self._grow()
        if features is not None:
            told, column = np.nonzero(features != MISSING_ID)
            self._features[rows[told], column] = features[told, column]  # of several the latest
        self._first[self._seen.find(new)] = slide_end
        np.add.at(self._count, rows, 1)
        latest = self._last.copy()
        np.maximum.at(latest, rows, times)
        self._weight *= np.exp2((self._last - latest) / self._half_life)
        np.add.at(self._weight, rows, np.exp2((times - latest[rows]) / self._half_life))
        self._last = latest
        freed = self._expire(slide_end)
        moved, given = self._admit(items)
        self._make_room()
        return np.union1d(freed, moved), given

    def _grow(self) -> None:
        size = self._seen.row_limit
        if size > len(self._count):
            more = max(size, 2 * len(self._count)) - len(self._count)
            self._count = np.concatenate([self._count, np.zeros(more, np.int64)])
            self._first = np.concatenate([self._first, np.zeros(more, np.int64)])
            self._last = np.concatenate([self._last, np.zeros(more, np.int64)])
            self._weight = np.concatenate([self._weight, np.zeros(more)])
            self._features = np.concatenate([self._features, np.zeros((more, self._features.shape[1]), np.uint64)])

    def _expire(self, slide_end: int) -> I64:
        if self._expire_after is None:
            return np.empty(0, np.int64)
        keys, rows = self._seen.items()
        old = self._last[rows] < slide_end - self._expire_after
        if not old.any():
            return np.empty(0, np.int64)
        freed = self._rows.find(keys[old])
        freed = np.sort(freed[freed >= 0])
        self._rows.remove_rows(freed)
        self._forget(rows[old])
        self.expired += len(freed)
        return freed + 1

    def _make_room(self) -> None:
        if len(self._seen) - len(self._rows) <= self._most_waiting:
            return
        keys, rows = self._seen.items()
        rows = rows[self._rows.find(keys) < 0]
        oldest = rows[np.argsort(self._last[rows], kind="stable")]  # of equals the smaller fingerprint
        gone = oldest[: len(rows) - self._most_waiting]
        self._forget(gone)
        self.forgotten += len(gone)

    def _forget(self, rows: I64) -> None:
        self._seen.remove_rows(rows)
        for column in (self._count, self._last, self._weight, self._features):
            column[rows] = 0

    def _admit(self, items: U64) -> tuple[I64, I64]:
        """Only items of this slide can have become due, or have waited and come again. Rows taken from cold items, and
        rows given out, ascending."""
        found = self._seen.find(items)  # the slide itself may have been older than `expire_after`
        without = (found >= 0) & (self._rows.find(items) < 0)
        often = self._count[found] >= self._admit_after
        due = _by_first_event(items[without & often])
        moved = self._take_from_cold(len(due) - (self._capacity - len(self._rows)))
        told = (self._features[found] != MISSING_ID).any(axis=1)
        cold = _by_first_event(items[without & ~often & told])
        chosen = np.concatenate([due, cold])[: self._capacity - len(self._rows)]
        rows, _ = self._rows.find_or_add(chosen)
        return moved, np.sort(rows) + 1

    def _take_from_cold(self, wanted: int) -> I64:
        """So many rows of cold items, of those longest without an event, are free again."""
        if wanted <= 0 or not self._features.shape[1]:
            return np.empty(0, np.int64)
        keys, rows = self._rows.items()
        at = self._seen.find(keys)
        cold = np.flatnonzero(self._count[at] < self._admit_after)
        gone = np.sort(rows[cold[np.argsort(self._last[at[cold]], kind="stable")[:wanted]]])
        self._rows.remove_rows(gone)
        return gone + 1

    def admitted(self) -> tuple[U64, I64]:
        """All admitted items, sorted ascending by fingerprint, and their table rows."""
        keys, rows = self._rows.items()
        return keys, rows + 1

    def known(self) -> U64:
        """All items counted, sorted ascending."""
        return self._seen.items()[0]

    def shares(self, now: int) -> F32:
        """Popularity by table row, decayed to `now` (us), as shares that sum to 1; -1 in rows without an item.
        [capacity + 1]"""
        keys, rows = self._rows.items()
        at = self._seen.find(keys)
        weight = self._weight[at] * np.exp2((self._last[at] - now) / self._half_life)
        out = np.full(self._capacity + 1, -1.0, np.float32)
        out[rows + 1] = weight / max(weight.sum(), 1e-300)
        return out

    def own(self) -> NDArray[np.bool_]:
        """By table row, whether its item was seen `admit_after` times; others are cold, or nothing. [capacity + 1]"""
        keys, rows = self._rows.items()
        out = np.zeros(self._capacity + 1, bool)
        out[rows + 1] = self._count[self._seen.find(keys)] >= self._admit_after
        return out

    def features(self) -> NDArray[np.int32]:
        """By table row, the rows of its features in their hashed table, 0 = missing. [capacity + 1, features]"""
        keys, rows = self._rows.items()
        held = self._features[self._seen.find(keys)]
        out = np.zeros((self._capacity + 1, self._features.shape[1]), np.int32)
        out[rows + 1] = np.where(held == MISSING_ID, 0, 1 + held % np.uint64(self._feature_rows))
        return out

    def capture(self) -> dict[str, Any]:
        size = self._seen.row_limit
        return {
            "seen": self._seen.capture(),
            "rows": self._rows.capture(),
            "count": self._count[:size].copy(),
            "first": self._first[:size].copy(),
            "last": self._last[:size].copy(),
            "weight": self._weight[:size].copy(),
            "features": self._features[:size].copy(),
            "expired": self.expired,
            "forgotten": self.forgotten,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._seen.restore(state["seen"])
        self._rows.restore(state["rows"])
        self._count, self._weight = state["count"].copy(), state["weight"].copy()
        self._first, self._last = state["first"].copy(), state["last"].copy()
        self._features = state["features"].copy()
        self.expired, self.forgotten = int(state["expired"]), int(state["forgotten"])


def _by_first_event(items: U64) -> U64:
    """Each item once, in the order they came."""
    unique, first = np.unique(items, return_index=True)
    return unique[np.argsort(first, kind="stable")]

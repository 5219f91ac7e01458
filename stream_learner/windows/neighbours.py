"""What a user's labels on similar items say of this one: item-based collaborative filtering, incrementally.

Two items agree as far as their users' labels on both lie on the same side of those users' own rates. A user's recent
labels, each weighted by its item's agreement with the item in question, vote on it (Sarwar, Karypis, Konstan, Riedl,
WWW 2001, with adjusted labels). All of it is of matured labels, so an example sees what was known as its slide began.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.events import EventSchema
from stream_learner.keys import I64, U64, KeyIndex
from stream_learner.windows.panes import grown

F32 = NDArray[np.float32]
COLUMNS = ("mean", "sum")

_PIECE = 4096  # labels worked at once: bounds memory
_FEWEST = 3.0  # users two items must share before they say anything of each other
_SHRINK = 10.0  # shared users that weigh as much as the data, with agreement 0
_SHRINK_VOTE = 0.3  # the same of a vote, in agreement


class Neighbours:
    """Agreements of up to `items` items (first come), the last `recent` labels of every user, and their votes."""

    def __init__(self, wanted: settings.Neighbours, schema: EventSchema, max_keys: int) -> None:
        self._key, self._of = schema.id_column(wanted.key), schema.id_column(wanted.of)
        self._user = schema.id_column("user")
        self._items, self._depth, self._max_users = wanted.items, wanted.recent, max_keys
        self._item_index, self._user_index = KeyIndex(), KeyIndex()
        self._agreement = np.zeros((0, 0), np.float32)  # [items, items] sums of products of centred labels
        self._shared = np.zeros((0, 0), np.float32)  # [items, items] users with a label on both
        self._recent = np.zeros((0, self._depth), np.int64)  # [users, depth] item row * 2 + label, newest first; -1
        self._totals = np.zeros((0, 2))  # [users] labels, positives among them
        self._seen = np.zeros(0, np.int64)  # [users] number of the batch they last had a label in
        self._batches = 0

    def read(self, ids: U64) -> F32:
        """The votes on rows of ids [n, ids of the schema]: float32 [n, 2], their mean and their sum; NaN where an id is
        missing, 0 where nobody votes."""
        users, items = self._user_index.find(ids[:, self._key]), self._item_index.find(ids[:, self._of])
        out = np.zeros((len(ids), len(COLUMNS)), np.float32)
        out[(ids[:, self._key] == 0) | (ids[:, self._of] == 0)] = np.nan
        known = np.flatnonzero((users >= 0) & (items >= 0))
        for start in range(0, len(known), _PIECE):
            rows = known[start : start + _PIECE]
            out[rows] = self._votes(items[rows], self._recent[users[rows]])
        return out

    def take_in(self, ids: U64, positive: NDArray[np.bool_]) -> None:
        """Matured labels, in order: ids [n, ids of the schema]. Labels on items beyond `items` are left out."""
        present = np.flatnonzero((ids[:, self._key] != 0) & (ids[:, self._of] != 0))
        for start in range(0, len(present), _PIECE):
            rows = present[start : start + _PIECE]
            self._take_in(ids[rows, self._key], ids[rows, self._of], positive[rows])

    def _votes(self, items: I64, recent: I64) -> F32:
        """By item [n] and its user's recent labels [n, depth]: [n, 2]."""
        others, sides = np.maximum(recent, 0) >> 1, np.where(recent & 1, 1.0, -1.0)
        shared = self._shared[items[:, None], others]
        weight = self._agreement[items[:, None], others] / (shared + _SHRINK)
        weight = np.where((recent >= 0) & (shared >= _FEWEST), weight, 0)
        total = (weight * sides).sum(axis=1)
        return np.stack([2 * total / (np.abs(weight).sum(axis=1) + _SHRINK_VOTE), total], axis=1).astype(np.float32)

    def _take_in(self, users: U64, items: U64, positive: NDArray[np.bool_]) -> None:
        self._batches += 1
        rows = self._item_rows(items)
        fits = rows >= 0
        if not fits.any():
            return
        order = np.argsort(users[fits], kind="stable")  # user by user, in order of the labels
        said = rows[fits][order] * 2 + positive[fits][order]
        people, start, count = np.unique(users[fits][order], return_index=True, return_counts=True)
        place = self._user_rows(people)
        group = np.repeat(np.arange(len(people)), count)
        tapes = _Tapes(self._recent[place], said, group, count)
        rate = self._rates(place, (said & 1).astype(np.float64), group, start)
        self._agree(said, tapes.before, rate)
        self._recent[place] = tapes.newest
        self._seen[place] = self._batches
        self._forget_beyond_limit()

    def _rates(self, users: I64, positive: NDArray[np.float64], group: I64, start: I64) -> NDArray[np.float64]:
        """Each user's share of positives up to and with each label [n]; takes the labels into the totals."""
        number = np.arange(len(group)) - start[group] + 1
        summed = np.cumsum(positive)
        within = summed - (summed[start] - positive[start])[group]
        before = self._totals[users][group]
        rate: NDArray[np.float64] = (before[:, 1] + within) / (before[:, 0] + number)
        last = np.append(start[1:], len(group)) - 1
        self._totals[users] += np.stack([number[last], within[last]], axis=1)
        return rate

    def _agree(self, said: I64, before: I64, rate: NDArray[np.float64]) -> None:
        """Adds what each label [n] and those of its user before it [n, depth] (-1 = none) tell of their items."""
        row, back = np.nonzero(before >= 0)
        mine, theirs = said[row], before[row, back]
        product = (4 * ((mine & 1) - rate[row]) * ((theirs & 1) - rate[row])).astype(np.float32)
        for one, other in ((mine >> 1, theirs >> 1), (theirs >> 1, mine >> 1)):
            np.add.at(self._agreement, (one, other), product)
            np.add.at(self._shared, (one, other), np.float32(1))

    def _item_rows(self, items: U64) -> I64:
        rows = self._item_index.find(items)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown) and (room := self._items - len(self._item_index)) > 0:
            unique, first = np.unique(items[unknown], return_index=True)
            self._item_index.find_or_add(unique[np.argsort(first, kind="stable")][:room])
            rows = self._item_index.find(items)
            self._agreement = _squared(self._agreement, self._item_index.row_limit, self._items)
            self._shared = _squared(self._shared, self._item_index.row_limit, self._items)
        return rows

    def _user_rows(self, users: U64) -> I64:
        rows, _ = self._user_index.find_or_add(users)
        limit = self._user_index.row_limit
        self._recent, self._totals = grown(self._recent, limit, -1), grown(self._totals, limit, 0)
        self._seen = grown(self._seen, limit, 0)
        return rows

    def _forget_beyond_limit(self) -> None:
        """Where there are too many users the longest silent go (ties by key), a sixteenth more than must."""
        if len(self._user_index) <= self._max_users:
            return
        keys, rows = self._user_index.items()
        oldest = np.lexsort((keys, self._seen[rows]))
        self._let_go(rows[oldest[: len(keys) - self._max_users + self._max_users // 16]])

    def _let_go(self, rows: I64) -> None:
        self._user_index.remove_rows(rows)
        self._recent[rows], self._totals[rows], self._seen[rows] = -1, 0, 0

    def erase(self, users: U64) -> int:
        """Forgets the labels of users, by fingerprint; returns how many users went. What they said of items' agreement
        stays in those sums."""
        gone = 0
        if self._key == self._user:
            rows = self._user_index.find(np.unique(users[users != 0]))
            self._let_go(rows[rows >= 0])
            gone += int(np.count_nonzero(rows >= 0))
        if self._of == self._user:
            gone += self._erase_items(self._item_index.find(np.unique(users[users != 0])))
        return gone

    def _erase_items(self, rows: I64) -> int:
        rows = rows[rows >= 0]
        for sums in (self._agreement, self._shared):
            sums[rows], sums[:, rows] = 0, 0
        self._recent[np.isin(self._recent >> 1, rows)] = -1
        self._item_index.remove_rows(rows)
        return len(rows)

    def capture(self) -> dict[str, Any]:
        items, users = self._item_index.row_limit, self._user_index.row_limit
        return {
            "items": self._item_index.capture(),
            "users": self._user_index.capture(),
            "agreement": self._agreement[:items, :items].copy(),
            "shared": self._shared[:items, :items].copy(),
            "recent": self._recent[:users].copy(),
            "totals": self._totals[:users].copy(),
            "seen": self._seen[:users].copy(),
            "batches": self._batches,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._item_index.restore(state["items"])
        self._user_index.restore(state["users"])
        self._agreement, self._shared = state["agreement"].copy(), state["shared"].copy()
        self._recent, self._totals = state["recent"].copy(), state["totals"].copy()
        self._seen, self._batches = state["seen"].copy(), int(state["batches"])


class _Tapes:
    """New labels behind what each user said before, one user after the other."""

    def __init__(self, recent: I64, said: I64, group: I64, count: I64) -> None:
        """`recent` [u, depth] newest first, -1 = none; `said` [n] by `group` [n] (ascending), `count` [u] of each."""
        depth = recent.shape[1]
        begin = np.cumsum(depth + count) - (depth + count)  # of each user's tape: `depth` old places, then the new
        tape = np.full(int((depth + count).sum()), -1, np.int64)
        tape[begin[:, None] + np.arange(depth)] = recent[:, ::-1]
        at = begin[group] + depth + np.arange(len(said)) - (np.cumsum(count) - count)[group]
        tape[at] = said
        back = np.arange(1, depth + 1)
        self.before: I64 = tape[at[:, None] - back]  # [n, depth] newest first
        self.newest: I64 = tape[(begin + depth + count)[:, None] - back]  # [u, depth]


def _squared(matrix: F32, rows: int, limit: int) -> F32:
    """Room for `rows` x `rows`, by doubling up to the limit."""
    if len(matrix) >= rows:
        return matrix
    size = min(limit, max(rows, 2 * len(matrix), 64))
    out = np.zeros((size, size), np.float32)
    out[: len(matrix), : len(matrix)] = matrix
    return out

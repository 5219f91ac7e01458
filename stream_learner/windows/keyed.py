"""The state of one entry of `aggregates.keys`, and what is kept between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import Touched
from stream_learner.events import EventSchema
from stream_learner.keys import I64, U64, KeyIndex, mix
from stream_learner.windows.decayed import DecayedCounts
from stream_learner.windows.grouping import NEVER, Groups
from stream_learner.windows.panes import I32, PaneCounts, grown


@dataclass(frozen=True, slots=True)
class Spans:
    """What a key's events are counted over, in microseconds; None = for ever."""

    windows: Sequence[int | None]
    panes: Sequence[int]  # one per window
    half_lives: Sequence[int] = ()
    labels: Sequence[int | None] = field(default=())  # half-lives of the counts of matured labels


class KeyTable:
    """Counts by window and by half-life, and the time of the last event of each type, for every key held."""

    def __init__(self, name: str, schema: EventSchema, spans: Spans, types: int) -> None:
        self.name = name
        self._parts = [schema.id_column(part) for part in name.split("*")]
        self._types = types
        self._user = user if (user := schema.id_column("user")) in self._parts else None
        self.index = KeyIndex()
        self.counts = PaneCounts(spans.windows, spans.panes, types)
        self.decayed = DecayedCounts(spans.half_lives, types)
        self.labels = DecayedCounts(spans.labels, 2)  # matured examples, positives among them
        self.last: I64 = np.empty((0, types), np.int64)  # [rows, types] us, NEVER where there was none
        self._users: U64 = np.empty(0, np.uint64)  # [rows] fingerprint, where a pair's key does not tell whose it is
        self._touched = Touched()  # rows of `last` and `_users`

    def keys_of(self, ids: U64) -> U64:
        """Keys of rows of ids (shape [n, ids of the schema]); 0 where an id is missing."""
        columns = [ids[:, part] for part in self._parts]
        if len(columns) == 1:
            return columns[0]
        present = np.logical_and.reduce([column != 0 for column in columns])
        return np.where(present, mix(*columns), np.uint64(0))

    def enter(self, ids: U64) -> Visit:
        """Groups a slide's entries (`ids`: [e, ids of the schema]) by key and gives new keys a row; counts nothing
        yet."""
        groups = Groups(self.keys_of(ids))
        rows, _ = self.index.find_or_add(groups.keys)
        if self._of_pairs_with_users:
            self._users = grown(self._users, self.index.row_limit, 0)
            self._users[rows] = ids[groups.firsts, self._user]
        for counts in (self.counts, self.decayed, self.labels):
            counts.reserve(self.index.row_limit)
        self.last = grown(self.last, self.index.row_limit, NEVER)
        self._touched.reach(self.index.row_limit)
        self._touched.add(rows)
        return Visit(groups, rows)

    def take_in(self, visit: Visit, types: I64, times: I64) -> I32:
        """Counts a slide's entries (shapes [e]); returns int32[u, types], what each row of the visit gained."""
        self.see(visit, types, times)
        types, times = types[visit.groups.order], times[visit.groups.order]
        self.decayed.add(visit.rows, visit.groups.group, types, times)
        return self.counts.add(visit.rows, visit.groups.group, types, times)

    def see(self, visit: Visit, types: I64, times: I64) -> None:
        """Notes when a slide's entries (shapes [e]) were, without counting them."""
        groups = visit.groups
        cells = visit.rows[groups.group] * self._types + types[groups.order]
        np.maximum.at(self.last.reshape(-1), cells, times[groups.order])

    def take_in_labels(self, keys: U64, positive: NDArray[np.bool_], now: int) -> None:
        """Counts matured examples ([n]) under their `keys`, as of `now` (us); keys not held are left out."""
        rows = self.index.find(keys)
        held = np.flatnonzero((keys != 0) & (rows >= 0))
        unique, group = np.unique(rows[held], return_inverse=True)
        at = np.full(len(held), now)
        self.labels.add(unique, group, np.zeros(len(held), np.int64), at)
        good = positive[held]
        self.labels.add(unique, group[good], np.ones(int(good.sum()), np.int64), at[good])

    @property
    def _of_pairs_with_users(self) -> bool:
        return self._user is not None and len(self._parts) > 1

    def of_users(self, users: U64) -> I64:
        """Rows of these users, and of the pairs they are part of. Looks at all keys: for rare sweeps."""
        users = users[users != 0]
        if self._of_pairs_with_users:
            rows = self.index.items()[1]
            return rows[np.isin(self._users[rows], users)]
        rows = self.index.find(users) if self._user is not None else np.empty(0, np.int64)
        return rows[rows >= 0]

    def last_seen(self, rows: I64) -> I64:
        latest: I64 = self.last[rows].max(axis=1)
        return latest

    def unseen_since(self, time: int) -> I64:
        """Rows of the keys last seen at or before `time`. Looks at all keys: for rare sweeps."""
        rows = self.index.items()[1]
        return rows[self.last_seen(rows) <= time]

    def beyond(self, limit: int) -> I64:
        """Where more than `limit` keys are held: the rows of the longest unseen (ties by key), a sixteenth of the
        limit more than must go, so that a full index is not sorted for every slide."""
        if len(self.index) <= limit:
            return np.empty(0, np.int64)
        keys, rows = self.index.items()
        oldest = np.lexsort((keys, self.last_seen(rows)))
        return rows[oldest[: len(keys) - limit + limit // 16]]

    def remove(self, rows: I64) -> None:
        self.index.remove_rows(rows)
        for counts in (self.counts, self.decayed, self.labels):
            counts.clear(rows)
        self.last[rows] = NEVER
        self._touched.add(rows)
        if self._of_pairs_with_users:
            self._users[rows] = 0

    def most_recent(self, capacity: int) -> tuple[U64, I64]:
        """The `capacity` keys seen last (ties: the lower key), ascending, and their rows."""
        keys, rows = self.index.items()
        chosen = np.sort(np.lexsort((keys, -self.last_seen(rows)))[:capacity])
        return keys[chosen], rows[chosen]

    def capture(self) -> dict[str, Any]:
        own = self._touched.whole(**self._columns())
        return {**{name: part.capture() for name, part in self._parts_by_name().items()}, **own}

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the rows of keys met, uncounted or gone since the last of either, or `restore`."""
        own = self._touched.changes(**self._columns())
        return {**{name: part.changes() for name, part in self._parts_by_name().items()}, **own}

    def _parts_by_name(self) -> dict[str, KeyIndex | PaneCounts | DecayedCounts]:
        return {"index": self.index, "counts": self.counts, "decayed": self.decayed, "labels": self.labels}

    def _columns(self) -> dict[str, NDArray[Any]]:
        return {"last": self.last, **({"users": self._users} if self._of_pairs_with_users else {})}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts_by_name().items():
            part.restore(state[name])
        self.last = state["last"].astype(np.int64)
        self._touched.restored(len(self.last))
        if self._of_pairs_with_users:
            self._users = state["users"].astype(np.uint64)


@dataclass(frozen=True, slots=True)
class Visit:
    """A slide's entries as one key table sees them."""

    groups: Groups
    rows: I64  # [u] row of each group


class Owners:
    """Which row of `holder` each pair is of. No pair outlives its holder."""

    def __init__(self, holder: KeyTable, pairs: KeyTable) -> None:
        self.holder = holder
        self.pairs = pairs
        self._owner: I64 = np.empty(0, np.int64)  # [pair rows] holder's row
        self._touched = Touched()

    def link(self, holder: Visit, pairs: Visit) -> None:
        """Notes who owns the pairs of a slide."""
        self._owner = grown(self._owner, self.pairs.index.row_limit, -1)
        self._touched.reach(self.pairs.index.row_limit)
        self._touched.add(pairs.rows)
        if len(pairs.rows):
            entry = pairs.groups.order  # an entry with a pair has a holder too
            self._owner[pairs.rows[pairs.groups.group]] = holder.rows[holder.groups.group_of(entry)]

    def of(self, pair_rows: I64) -> I64:
        """Holders' rows of these pairs."""
        return self._owner[pair_rows]

    def pairs_of(self, holder_rows: I64) -> I64:
        """Rows of all pairs of these holders. Looks at all pairs: for rare sweeps."""
        gone = np.zeros(self.holder.index.row_limit, bool)
        gone[holder_rows] = True
        rows = self.pairs.index.items()[1]
        return rows[gone[self._owner[rows]]]

    def forget(self, pair_rows: I64) -> None:
        """Before rows are removed from the pairs' table."""
        self._owner[pair_rows] = -1
        self._touched.add(pair_rows)

    def capture(self) -> dict[str, Any]:
        return self._touched.whole(owner=self._owner)

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the pairs met or forgotten since the last of either, or since `restore`."""
        return self._touched.changes(owner=self._owner)

    def restore(self, state: dict[str, Any]) -> None:
        self._owner = state["owner"].astype(np.int64)
        self._touched.restored(len(self._owner))


class DistinctCounts:
    """For each holder and each window: how many of its pairs count at least one event of the watched type.

    Kept by the pairs' steps from 0 to 1 and back. A pair that is forgotten no longer counts, so the number is always
    that of the pairs held.
    """

    def __init__(self, owners: Owners, windows: int, watched: int) -> None:
        self.owners = owners
        self._windows = windows
        self._watched = watched
        self.values: I32 = np.zeros((0, windows), np.int32)  # [holder rows, windows]
        self._touched = Touched()

    def reserve(self) -> None:
        self.values = grown(self.values, self.owners.holder.index.row_limit, 0)
        self._touched.reach(self.owners.holder.index.row_limit)

    def first_marks(self, pairs: Visit, watched: NDArray[np.bool_]) -> I32:
        """int32[e, windows]: 1 where an entry brings a pair from 0 to 1; `watched` (bool[e]): entries of that type."""
        marks = np.zeros((len(watched), self._windows), np.int32)
        entries = pairs.groups.first_marked(watched)
        rows = pairs.rows[pairs.groups.group_of(entries)]
        marks[entries] = self.owners.pairs.counts.values[rows, :, self._watched] == 0
        return marks

    def taken_in(self, pairs: Visit, gained: I32) -> None:
        """After the pairs counted a slide; `gained`: int32[u, types] as `take_in` gave it."""
        gain = gained[:, self._watched]
        held = self.owners.pairs.counts.values[pairs.rows, :, self._watched]
        group, window = np.nonzero((gain > 0)[:, None] & (held == gain[:, None]))
        self._change(self.owners.of(pairs.rows[group]), window, 1)

    def emptied(self, window: int, pair_rows: I64) -> None:
        """Pairs whose watched count fell to 0 in a window."""
        self._change(self.owners.of(pair_rows), np.full(len(pair_rows), window), -1)

    def forget(self, holder_rows: I64, pair_rows: I64) -> None:
        """Before rows are removed from either table; the pairs of a holder that goes must be among `pair_rows`."""
        group, window = np.nonzero(self.owners.pairs.counts.values[pair_rows, :, self._watched])
        self._change(self.owners.of(pair_rows[group]), window, -1)
        self.values[holder_rows] = 0
        self._touched.add(holder_rows)

    def capture(self) -> dict[str, Any]:
        return self._touched.whole(values=self.values)

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the holders whose number changed since the last of either, or since `restore`."""
        return self._touched.changes(values=self.values)

    def restore(self, state: dict[str, Any]) -> None:
        self.values = state["values"].astype(np.int32)
        self._touched.restored(len(self.values))

    def _change(self, holder_rows: I64, window: I64, by: int) -> None:
        np.add.at(self.values.reshape(-1), holder_rows * self._windows + window, np.int32(by))
        self._touched.add(holder_rows)

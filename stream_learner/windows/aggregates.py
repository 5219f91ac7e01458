"""Sliding-window aggregates by key, point in time: what was known of a user, an item or a pair at click time.

Per event type, `aggregates.as_of` says what an example may see of it: `event` what came before the example's own
event in the log, `slide_start` what was known when the slide began, `slide_end` the whole slide. The leading edge of
every window is exact; its trailing edge is that of the panes (see `panes.py`) that end at or before edge - span,
where the edge is the slide's start for the first two and its end for the third, and never moves back. Decayed counts
are as of the example's own time, the slide's start and the slide's end; label counts and ranks as of the slide's
start, ranks as of its end where the examples' type is seen so.

A slide with an outage in it is a gap in every window: nothing of it is counted, in rates neither above nor below the
line, so that clicks whose purchases were lost are not taken for clicks that did not convert, nor purchases whose
clicks were lost for conversions of others. What its purchases would have added to earlier clicks is what later
purchases add to its own, in expectation. When a key was last seen is no count and is noted all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.events import EventBatch, EventSchema, ExampleBatch
from stream_learner.keys import I64, U64
from stream_learner.windows.columns import (
    Entries,
    Share,
    TrackedTypes,
    aggregate_columns,
    pair_of,
    shares_of,
)
from stream_learner.windows.grouping import NEVER
from stream_learner.windows.keyed import DistinctCounts, KeyTable, Owners, Spans, Visit
from stream_learner.windows.neighbours import Neighbours
from stream_learner.windows.ranks import Ranks

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Expected positives and examples before any came, in the overall rate: weak, and gone after some thousand examples.
_PRIOR_POSITIVES = 1
_PRIOR_EXAMPLES = 100


@dataclass(frozen=True, slots=True)
class Seen:
    """What h rows of a key table may see; changed in place while a slide is gone through."""

    counts: NDArray[np.int32]  # [h, windows, types]
    last: I64  # [h, types] us, NEVER
    distinct: NDArray[np.int32]  # [h, distincts of the key, windows]
    decayed: F64  # [h, half-lives, types]
    labels: F64  # [h, label spans, 2] matured examples, positives among them
    ranks: F64  # [h, ranks of the key, half-lives]


class Aggregates:
    """All keys, windows and types of the config.

    A key unseen (by any tracked type) for `expire_after` is forgotten: looked for once per pane of
    max(slide, expire_after / panes), at the start of the first slide in it. When more than `max_keys` are held at the
    end of a slide, the longest unseen go, down to 15/16 of the limit. A key that goes takes along the pairs whose
    distinct counts it holds.
    """

    def __init__(self, config: settings.Config, schema: EventSchema) -> None:
        """Raises ConfigError where keys, types or distincts do not fit the schema."""
        self.columns = aggregate_columns(config, schema)
        self._config = config.aggregates
        self._types = TrackedTypes(config, schema)
        slide = 1 if config.slides.by_count else int(config.slides.slide)
        spans: list[int | None] = [int(span) for span in self._config.windows]
        panes = [max(slide, int(span) // self._config.panes) for span in self._config.windows]
        if self._config.ever:
            spans, panes = [*spans, None], [*panes, slide]
        half_lives = [int(half_life) for half_life in self._config.half_lives]
        labels = [*half_lives, None] if self._config.label_rates else []
        kept = Spans(spans, panes, half_lives, labels)
        self._tables = {key: KeyTable(key, schema, kept, len(self._types.names)) for key in self._config.keys}
        self._owners: dict[tuple[str, str], Owners] = {}  # by (key, its pair)
        self._distincts = [
            DistinctCounts(self._owners_of(distinct), len(spans), self._types.example)
            for distinct in self._config.distinct
        ]
        self._ranks = [Ranks(self._owners_of(within), self._types.example) for within in self._config.ranks]
        self._kept: list[DistinctCounts | Ranks] = [*self._distincts, *self._ranks]
        self._shares = [(self._owners_of(w), shares_of(config, w, self.columns)) for w in self._config.shares]
        room = self._config.max_keys
        self._neighbours = [Neighbours(wanted, schema, room) for wanted in self._config.neighbours]
        self._sweep_pane = max(slide, int(self._config.expire_after) // self._config.panes)
        self._swept = 0  # edge, in sweep panes, up to which expired keys were looked for
        self._positives = 0
        self._examples = 0
        self._matured = np.zeros(2, np.int64)  # matured examples, positives among them
        self.evicted = 0  # keys forgotten for want of room
        self.expired = 0  # keys forgotten after `expire_after`

    def step(self, events: EventBatch, rows: I64, slide_start: int, slide_end: int, *, whole: bool = True) -> F32:
        """Features of the examples at `rows` (shape [m]) as of their time, then takes in the slide: all of it where it
        is `whole`, else only when its keys were seen.

        `events` is the whole slide in log order, no event before `slide_start`. Returns float32[m, columns]; counts
        are exact, recency in seconds, NaN where the key is missing or (recency) nothing has happened.
        """
        self._forget_expired(slide_start)
        self._expire_panes(slide_start)
        votes = [neighbours.read(events.ids[rows]) for neighbours in self._neighbours]
        entries = self._types.entries(events, rows)
        visits = self._enter(events.ids[entries.source], entries)
        present = {key: visit.groups.with_key(entries.example_at) for key, visit in visits.items()}
        seen = {key: self._at_events(key, visits, entries, present[key], slide_start) for key in visits}
        overall = self._overall_rate()

        if whole:
            self._take_in(visits, entries)
        else:
            for key, table in self._tables.items():
                table.see(visits[key], entries.type, entries.time)
        self._expire_panes(slide_end)

        for key, visit in visits.items():
            at = entries.example_at[present[key]]
            self._see_end(seen[key], key, visit.rows[visit.groups.group_of(at)], slide_end)
        times = events.time[rows]
        blocks = {key: self._features(key, seen[key], times, present[key], overall) for key in self._tables}
        for owners, shares in self._shares:
            _fill_shares(shares, blocks[owners.pairs.name], blocks[owners.holder.name])
        self._forget_beyond_limit()
        return np.concatenate([*blocks.values(), *votes, np.empty((len(rows), 0), np.float32)], axis=1)

    def take_in_labels(self, examples: ExampleBatch, now: int) -> None:
        """Counts matured examples, labels 0 or 1, as known from `now` (us) on."""
        positive = examples.label == 1
        for neighbours in self._neighbours:
            neighbours.take_in(examples.ids, positive)
        if not self._config.label_rates:
            return
        for table in self._tables.values():
            table.take_in_labels(table.keys_of(examples.ids), positive, now)
        self._matured += np.array([len(examples), np.count_nonzero(positive)])

    def table(self, key: str, capacity: int, now: int) -> tuple[U64, F32]:
        """The `capacity` most recently seen keys (ties: the lower key), ascending, and their values as of `now`, the
        end of the last slide: uint64[k], float32[k, columns of that key]. Changes nothing."""
        keys, rows = self._tables[key].most_recent(capacity)
        block = self._whole(key, rows, now)
        for owners, shares in self._shares:
            if owners.pairs.name == key:
                _fill_shares(shares, block, self._whole(owners.holder.name, owners.of(rows), now))
        return keys, block

    def erase(self, users: U64) -> int:
        """Forgets users by fingerprint, and the pairs they are part of; returns how many keys went. What they added to
        the counts of items and other keys stays in those sums."""
        gone = self._forget({key: np.unique(table.of_users(users)) for key, table in self._tables.items()})
        return gone + sum(neighbours.erase(users) for neighbours in self._neighbours)

    def sizes(self) -> dict[str, int]:
        """Keys held, by entry of `aggregates.keys`."""
        return {key: len(table.index) for key, table in self._tables.items()}

    def capture(self) -> dict[str, Any]:
        parts = self._parts().items()
        return {kind: {name: part.capture() for name, part in named.items()} for kind, named in parts} | self._rest()

    def changes(self) -> dict[str, Any]:
        """As `capture`, but of what is kept by key only the rows that changed since the last of either, or since
        `restore`."""
        parts = self._parts().items()
        return {kind: {name: part.changes() for name, part in named.items()} for kind, named in parts} | self._rest()

    def _parts(self) -> dict[str, Mapping[str, KeyTable | Owners | DistinctCounts | Ranks]]:
        return {
            "tables": self._tables,
            "owners": {"/".join(names): owners for names, owners in self._owners.items()},
            "distincts": {str(n): distinct for n, distinct in enumerate(self._distincts)},
            "ranks": {str(n): ranks for n, ranks in enumerate(self._ranks)},
        }

    def _rest(self) -> dict[str, Any]:
        return {
            "neighbours": {str(n): neighbours.capture() for n, neighbours in enumerate(self._neighbours)},
            "matured": self._matured.copy(),
            "swept": self._swept * self._sweep_pane,  # us: `expire_after` may be another when it is restored
            "positives": self._positives,
            "examples": self._examples,
            "evicted": self.evicted,
            "expired": self.expired,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for kind, named in self._parts().items():
            for name, part in named.items():
                part.restore(state[kind][name])
        for n, neighbours in enumerate(self._neighbours):
            neighbours.restore(state["neighbours"][str(n)])
        self._matured = state["matured"].astype(np.int64)
        self._swept = int(state["swept"]) // self._sweep_pane
        self._positives, self._examples = int(state["positives"]), int(state["examples"])
        self.evicted, self.expired = int(state["evicted"]), int(state["expired"])

    # the slide, in the order of `step`

    def _expire_panes(self, edge: int) -> None:
        for key, table in self._tables.items():
            for window, rows in table.counts.expire(edge, self._types.example):
                for distinct in self._distincts_of_pairs(key):
                    distinct.emptied(window, rows)

    def _enter(self, ids: U64, entries: Entries) -> dict[str, Visit]:
        visits = {key: table.enter(ids) for key, table in self._tables.items()}
        for owners in self._owners.values():
            owners.link(visits[owners.holder.name], visits[owners.pairs.name])
        for kept in self._kept:
            kept.reserve()
        return visits

    def _at_events(self, key: str, visits: dict[str, Visit], entries: Entries, present: I64, start: int) -> Seen:
        """What the examples `present` (with an id for `key`) may see before the slide is taken in."""
        groups = visits[key].groups
        at = entries.example_at[present]
        rows = visits[key].rows[groups.group_of(at)]
        seen = self._read(key, rows, start)
        types = np.flatnonzero(self._types.as_of_event)
        marks = (entries.type[:, None] == types).astype(np.int32)
        if len(types) and self._config.half_lives:
            decayed = self._tables[key].decayed
            own = decayed.read(rows, entries.time[at])
            seen.decayed[:, :, types] = own[:, :, types] + decayed.before(groups, marks, entries.time, at)
        seen.counts[:, :, types] += groups.count_before(marks, at)[:, None, :]
        if self._config.recency:
            latest = groups.latest_before(marks, entries.time, at)
            seen.last[:, types] = np.maximum(seen.last[:, types], latest)
        if self._types.as_of_event[self._types.example]:
            examples = entries.type == self._types.example
            for n, distinct in enumerate(self._distincts_of_holder(key)):
                marks = distinct.first_marks(visits[distinct.owners.pairs.name], examples)
                seen.distinct[:, n] += groups.count_before(marks, at)
        return seen

    def _take_in(self, visits: dict[str, Visit], entries: Entries) -> None:
        for key, table in self._tables.items():
            gained = table.take_in(visits[key], entries.type, entries.time)
            for kept in self._kept:
                if kept.owners.pairs.name == key:
                    kept.taken_in(visits[key], gained)
        self._positives += int(np.count_nonzero(entries.type == self._types.positive))
        self._examples += int(np.count_nonzero(entries.type == self._types.example))

    def _see_end(self, seen: Seen, key: str, rows: I64, end_time: int) -> None:
        """Replaces what is seen as of the slide's end; `rows` of the table, as `seen` was read."""
        types = np.flatnonzero(self._types.as_of_end)
        if not len(types):
            return
        end = self._read(key, rows, end_time)
        seen.counts[:, :, types] = end.counts[:, :, types]
        seen.decayed[:, :, types] = end.decayed[:, :, types]
        seen.last[:, types] = end.last[:, types]
        if self._types.as_of_end[self._types.example]:
            seen.distinct[:] = end.distinct
            seen.ranks[:] = end.ranks

    def _features(self, key: str, seen: Seen, times: I64, present: I64, overall: float) -> F32:
        """float32[len(times), columns of the key]; `seen` holds the rows `present`, the others are NaN.

        Shares, the last columns, are left at 0 for `_fill_shares`.
        """
        counted = self._types.counted
        parts: list[NDArray[Any]] = [_flat(seen.counts[:, :, :counted])]
        if self._config.rates:
            parts.append(self._rates(seen.counts, overall))
        if self._config.recency:
            last = seen.last[:, :counted]
            # An event as of the slide's end may come after the example: then nothing has passed since.
            passed = np.maximum(times[present, None] - np.where(last == NEVER, 0, last), 0) / 1e6
            parts.append(np.where(last == NEVER, np.nan, passed))
        parts += [_flat(seen.distinct), _flat(seen.decayed[:, :, :counted])]
        if self._config.rates:
            parts.append(self._rates(seen.decayed, overall))
        parts += [seen.labels[:, :, 0], self._smoothed(seen.labels[:, :, 1], seen.labels[:, :, 0], self._label_rate())]
        parts.append(_flat(seen.ranks))
        joined = np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")
        out = np.full((len(times), sum(column.key == key for column in self.columns)), np.nan, np.float32)
        out[present, : joined.shape[1]] = joined
        out[present, joined.shape[1] :] = 0
        return out

    def _rates(self, counts: NDArray[Any], overall: float) -> NDArray[Any]:
        return self._smoothed(counts[:, :, self._types.positive], counts[:, :, self._types.example], overall)

    def _smoothed(self, positives: NDArray[Any], examples: NDArray[Any], overall: float) -> NDArray[Any]:
        smoothing = self._config.smoothing
        rates: NDArray[Any] = (positives + smoothing * overall) / (examples + smoothing)
        return rates

    def _whole(self, key: str, rows: I64, now: int) -> F32:
        """The features of `rows` of a key's table as of `now`, shares at 0."""
        everyone = np.arange(len(rows))
        return self._features(key, self._read(key, rows, now), np.full(len(rows), now), everyone, self._overall_rate())

    def _read(self, key: str, rows: I64, now: int) -> Seen:
        table = self._tables[key]
        windows, half_lives = table.counts.values.shape[1], len(self._config.half_lives)
        distinct = np.empty((len(rows), 0, windows), np.int32)
        if distincts := [distinct.values[rows] for distinct in self._distincts_of_holder(key)]:
            distinct = np.stack(distincts, axis=1)
        ranks = np.empty((len(rows), 0, half_lives))
        if ranked := [ranks.of(rows, now) for ranks in self._ranks_of_pairs(key)]:
            ranks = np.stack(ranked, axis=1)
        decayed, labels = table.decayed.read(rows, now), table.labels.read(rows, now)
        return Seen(table.counts.values[rows], table.last[rows], distinct, decayed, labels, ranks)

    def _label_rate(self) -> float:
        """Positives per matured example so far."""
        return float((self._matured[1] + _PRIOR_POSITIVES) / (self._matured[0] + _PRIOR_EXAMPLES))

    def _overall_rate(self) -> float:
        """Positives per example so far."""
        return (self._positives + _PRIOR_POSITIVES) / (self._examples + _PRIOR_EXAMPLES)

    # forgetting

    def _forget_expired(self, edge: int) -> None:
        pane = edge // self._sweep_pane
        if pane <= self._swept:
            return
        self._swept = pane
        limit = pane * self._sweep_pane - int(self._config.expire_after)
        self.expired += self._forget({key: table.unseen_since(limit) for key, table in self._tables.items()})

    def _forget_beyond_limit(self) -> None:
        limit = self._config.max_keys
        self.evicted += self._forget({key: table.beyond(limit) for key, table in self._tables.items()})

    def _forget(self, rows: dict[str, I64]) -> int:
        """Forgets these rows and what cannot be without them; returns how many keys went."""
        for owners in self._owners.values():
            holder, pairs = owners.holder.name, owners.pairs.name
            if len(rows[holder]):
                rows[pairs] = np.union1d(rows[pairs], owners.pairs_of(rows[holder]))
        for kept in self._kept:
            if any(len(rows[name]) for name in (kept.owners.holder.name, kept.owners.pairs.name)):
                kept.forget(rows[kept.owners.holder.name], rows[kept.owners.pairs.name])
        for owners in self._owners.values():
            owners.forget(rows[owners.pairs.name])
        for key, gone in rows.items():
            if len(gone):
                self._tables[key].remove(gone)
        return sum(len(gone) for gone in rows.values())

    # wiring

    def _owners_of(self, between: settings.Between) -> Owners:
        pair = pair_of(between, self._config.keys)
        if pair is None:  # refused with the columns already
            raise KeyError(between.of)
        if (between.key, pair) not in self._owners:
            self._owners[between.key, pair] = Owners(self._tables[between.key], self._tables[pair])
        return self._owners[between.key, pair]

    def _distincts_of_holder(self, key: str) -> list[DistinctCounts]:
        return [distinct for distinct in self._distincts if distinct.owners.holder.name == key]

    def _distincts_of_pairs(self, key: str) -> list[DistinctCounts]:
        return [distinct for distinct in self._distincts if distinct.owners.pairs.name == key]

    def _ranks_of_pairs(self, key: str) -> list[Ranks]:
        return [ranks for ranks in self._ranks if ranks.owners.pairs.name == key]


def _fill_shares(shares: list[Share], pairs: F32, holders: F32) -> None:
    """Sets the shares in `pairs` ([n, columns of the pair]); `holders` ([n, columns of its key]) row by row."""
    for share in shares:
        part, whole = pairs[:, share.pair], holders[:, share.whole]
        some = whole > 0
        pairs[some, share.column] = part[some] / whole[some]


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """[n, a, b] as [n, a * b], whatever is 0."""
    return array.reshape(len(array), array.shape[1] * array.shape[2])

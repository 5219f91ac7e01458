"""Ids that live and die: which id has which row of an exact table, from when on, and for how long.

An id is admitted when it has been seen `admit_after` times in examples learned from, and while the table has room. One
that was in no example for `expire_after` of event time gives its row back; what the row had learned goes with it, for
the next id starts as any new one does. Ids that wait for admission are counted, at most `max_waiting` of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.learning.encoder import Encoder
from stream_learner.learning.features import IdColumn
from stream_learner.learning.tables import I32, I64, PADDING, UNKNOWN_ROW, first_vectors, free_rows, no_ids
from stream_learner.learning.training import Trainer


class IdTable:
    """The ids of one exact table. All arrays of ids are sorted as signed numbers; times in us."""

    def __init__(self, column: IdColumn) -> None:
        self._column = column
        self._now = np.iinfo(np.int64).min  # time of the newest example seen
        self.ids = np.empty(0, np.int64)  # that have a row
        self.rows = np.empty(0, np.int32)
        self._seen = np.empty(0, np.int64)  # when each was seen last; kept only where ids expire
        self._waiting = np.empty(0, np.int64)
        self._sightings = np.empty(0, np.int64)
        self._waiting_seen = np.empty(0, np.int64)
        self.admitted = self.expired = 0  # ever

    @property
    def waiting(self) -> int:
        """Ids counted that have no row yet."""
        return len(self._waiting)

    def padded(self) -> tuple[I64, I32]:
        """Ids and their rows as an encoder holds them, [rows] each."""
        ids, rows = no_ids(self._column.rows)
        ids[: len(self.ids)], rows[: len(self.ids)] = self.ids, self.rows
        return ids, rows

    def take_in(self, ids: I64, time: I64) -> tuple[bool, I32]:
        """Sightings of a slide, [n] each, in order; 0 = missing. Whether ids or rows changed, and the rows given back,
        which may have been given to other ids at once."""
        full = len(self.ids) == self._column.rows
        if not len(ids) or (full and self._column.expire_after is None):  # there will never be room again
            return False, np.empty(0, np.int32)
        self._now = max(self._now, int(time.max()))
        unique, first, inverse, count = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
        latest = np.full(len(unique), np.iinfo(np.int64).min)
        np.maximum.at(latest, inverse.reshape(-1), time)
        known = _among(self.ids, unique)
        if self._column.expire_after is not None:
            at = np.searchsorted(self.ids, unique[known])
            self._seen[at] = np.maximum(self._seen[at], latest[known])
        freed = self._expire()
        strange = ~known & (unique != 0) & (unique != PADDING)
        let_in = self._count(unique[strange], first[strange], count[strange], latest[strange])
        self._admit(let_in)
        return bool(len(freed) or len(let_in)), freed

    def erase(self, ids: I64) -> I32:
        """Forgets these ids, waiting ones too; returns the rows they give back."""
        gone = np.isin(self.ids, ids)
        freed = self.rows[gone]
        if self._column.expire_after is not None:
            self._seen = self._seen[~gone]
        self.ids, self.rows = self.ids[~gone], self.rows[~gone]
        self._keep_waiting(~np.isin(self._waiting, ids))
        return freed

    def begin_from(self, ids: I64, rows: I32) -> I32:
        """Goes on with the rows of another model: ids that are known to both have its rows, the rest of ours get free
        ones, and ids it alone knows are let go; their rows are returned. `ids`, `rows`: as of `padded`."""
        held = rows > UNKNOWN_ROW
        ids, rows = ids[held], rows[held]
        ours = _among(self.ids, ids)
        at = np.searchsorted(self.ids, ids[ours])
        fresh = np.ones(len(self.ids), bool)
        fresh[at] = False
        placed = np.empty(len(self.ids), np.int32)
        placed[at] = rows[ours]
        placed[fresh] = free_rows(rows[ours], self._column.rows)[: int(fresh.sum())]
        self.rows = placed
        return rows[~ours]

    def capture(self) -> dict[str, Any]:
        """Everything but ids and rows, which are the encoder's variables."""
        state = {"now": int(self._now), "admitted": self.admitted, "expired": self.expired, "seen": self._seen.copy()}
        waiting = (self._waiting, self._sightings, self._waiting_seen)
        return {**state, "waiting": np.stack(waiting)}

    def restore(self, state: Mapping[str, Any], ids: I64, rows: I32) -> None:
        """`ids`, `rows`: as of `padded`."""
        held = rows > UNKNOWN_ROW
        self.ids, self.rows = ids[held], rows[held]
        self._now, self.admitted, self.expired = int(state["now"]), int(state["admitted"]), int(state["expired"])
        self._seen = state["seen"].copy()
        self._waiting, self._sightings, self._waiting_seen = state["waiting"].copy()

    def _expire(self) -> I32:
        if self._column.expire_after is None:
            return np.empty(0, np.int32)
        limit = self._now - self._column.expire_after
        gone = self._seen < limit
        self._keep_waiting(self._waiting_seen >= limit)
        freed = self.rows[gone]
        self.ids, self.rows, self._seen = self.ids[~gone], self.rows[~gone], self._seen[~gone]
        self.expired += len(freed)
        return freed

    def _count(self, ids: I64, first: I64, count: I64, latest: I64) -> tuple[I64, I64] | tuple[()]:
        """Adds sightings of ids without a row, and takes out those to be admitted: (ids, last seen), in order of their
        first appearance in the slide, as many as there is room for."""
        at = np.searchsorted(self._waiting, ids)
        before = np.zeros(len(ids), np.int64)
        again = _among(self._waiting, ids)
        before[again] = self._sightings[at[again]]
        total = before + count
        ready = np.flatnonzero(total >= self._column.admit_after)
        ready = ready[np.argsort(first[ready], kind="stable")][: self._column.rows - len(self.ids)]
        let_in = np.zeros(len(ids), bool)
        let_in[ready] = True
        self._wait(ids[~let_in], total[~let_in], latest[~let_in], gone=ids)
        return (ids[ready], latest[ready]) if len(ready) else ()

    def _wait(self, ids: I64, sightings: I64, latest: I64, gone: I64) -> None:
        """These wait from here on, with these counts; of those that did, `gone` no longer do as they did."""
        if self._column.admit_after == 1 and self._column.expire_after is None:
            return  # there will never be room again
        self._keep_waiting(~_among(gone, self._waiting))
        at = np.searchsorted(self._waiting, ids)
        self._waiting = np.insert(self._waiting, at, ids)
        self._sightings = np.insert(self._sightings, at, sightings)
        self._waiting_seen = np.insert(self._waiting_seen, at, latest)
        if len(self._waiting) > self._column.max_waiting:
            longest_unseen = np.lexsort((self._waiting, self._waiting_seen))
            stay = np.ones(len(self._waiting), bool)
            stay[longest_unseen[: len(self._waiting) - self._column.max_waiting]] = False
            self._keep_waiting(stay)

    def _keep_waiting(self, stay: NDArray[np.bool_]) -> None:
        self._waiting, self._sightings = self._waiting[stay], self._sightings[stay]
        self._waiting_seen = self._waiting_seen[stay]

    def _admit(self, let_in: tuple[I64, I64] | tuple[()]) -> None:
        """The lowest free rows, in the order given."""
        if not let_in:
            return
        ids, latest = let_in
        rows = free_rows(self.rows, self._column.rows)[: len(ids)]
        order = np.argsort(ids)
        at = np.searchsorted(self.ids, ids[order])
        self.ids, self.rows = np.insert(self.ids, at, ids[order]), np.insert(self.rows, at, rows[order])
        if self._column.expire_after is not None:
            self._seen = np.insert(self._seen, at, latest[order])
        self.admitted += len(ids)


def _among(known: I64, ids: I64) -> NDArray[np.bool_]:
    """Which of the ids are among those known; both sorted, each once."""
    at = np.searchsorted(known, ids)
    found = at < len(known)
    found[found] = known[at[found]] == ids[found]
    return found


class IdTables:
    """All exact tables of the candidate, kept in step with its encoder, its vectors and their slots."""

    def __init__(self, encoder: Encoder, trainer: Trainer, seed: int) -> None:
        self._encoder = encoder
        self._trainer = trainer
        self._seed = seed
        self._columns = list(encoder.features.ids)
        self.tables = {column.name: IdTable(column) for column in self._columns if column.table == "exact"}

    def take_in(self, ids: I64, time: I64, slide: int) -> None:
        """The examples of a slide: [n, ids used] bitcast fingerprints, and their times."""
        for index, column in self._exact():
            table = self.tables[column.name]
            changed, freed = table.take_in(ids[:, index], time)
            if changed:
                self._encoder.set_ids(column.name, *table.padded())
            self._renew(index, column, freed, slide)

    def erase(self, source: int, ids: I64, slide: int) -> int:
        """Forgets ids of the features that come from a column `source` of the schema's ids; returns how many rows they
        had. Their vectors and slots begin anew."""
        erased = 0
        for index, column in self._exact():
            if column.column == source:
                freed = self.tables[column.name].erase(ids)
                self._encoder.set_ids(column.name, *self.tables[column.name].padded())
                self._renew(index, column, freed, slide)
                erased += len(freed)
        return erased

    def restarted(self, slide: int) -> None:
        """The candidate has become a copy of another model, its id tables with it."""
        for index, column in self._exact():
            table = self.tables[column.name]
            freed = table.begin_from(*self._encoder.ids_of(column.name))
            self._encoder.set_ids(column.name, *table.padded())
            self._renew(index, column, freed, slide)

    def capture(self) -> dict[str, Any]:
        return {name: table.capture() for name, table in self.tables.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """After the encoder's variables."""
        for name, table in self.tables.items():
            table.restore(state[name], *self._encoder.ids_of(name))

    def _exact(self) -> list[tuple[int, IdColumn]]:
        return [(index, column) for index, column in enumerate(self._columns) if column.table == "exact"]

    def _renew(self, index: int, column: IdColumn, rows: I32, slide: int) -> None:
        """Vectors and slots of rows as they are before anything is learned."""
        if len(rows):
            vectors = first_vectors(column, self._seed, index, len(rows), slide)
            self._trainer.renew(column.name, np.sort(rows).astype(np.int64), vectors)

"""Sessions: what happened together, in order; and the examples they are made into.

An example is an event of a session that has begun before: its *context*, the events before it, and its *target*, the
item it is of. Sessions are found by the mapped session id, by the user where there is none, and end with a pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.events import MISSING_ID, Columns, EventBatch, EventSchema

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
F32 = NDArray[np.float32]

LONGEST = 200  # events after which a session begins anew: no robot becomes everybody's neighbour


@dataclass(frozen=True, slots=True)
class Asked:
    """Sessions as a ranking is asked about them."""

    recent: U64  # [n, recent] fingerprints of items, latest first; MISSING_ID beyond the session's beginning
    user: U64  # [n] whose they are; MISSING_ID = nobody that is known

    def __len__(self) -> int:
        return len(self.recent)

    def take(self, rows: I64 | slice) -> Asked:
        return Asked(self.recent[rows], self.user[rows])

    @classmethod
    def by_nobody(cls, recent: U64) -> Asked:
        return cls(recent, np.full(len(recent), MISSING_ID, np.uint64))

    def capture(self) -> dict[str, Any]:
        return {"recent": self.recent.copy(), "user": self.user.copy()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Asked:
        return cls(state["recent"].copy(), state["user"].copy())


@dataclass(frozen=True, slots=True)
class NextItems(Columns):
    """Examples, in the order of their slide's events. All [n] unless given."""

    time: I64  # us, of the target
    user: U64  # fingerprint, MISSING_ID where the event has none
    context: U64  # [n, recent] fingerprints of items, latest first; MISSING_ID beyond the session's beginning
    target: U64  # fingerprint of the item
    weight: F32  # of the target's event type

    @property
    def asked(self) -> Asked:
        return Asked(self.context, self.user)

    @property
    def length(self) -> I64:
        """Recent items there are, [n]."""
        return np.asarray(np.count_nonzero(self.context, axis=1), np.int64)


@dataclass(frozen=True, slots=True)
class Touched:
    """The sessions that a slide's events belong to: rows of the store, and how many of their events are older."""

    rows: I64  # [k]
    older: I64  # [k]


class SessionStore:
    """The latest sessions, as flat columns: those of session s are `starts[s]` to `starts[s + 1]`.

    Sessions stand in the order of their first events; beyond `sessions.capacity` events the first ones go.
    """

    def __init__(self, config: settings.NextItem, schema: EventSchema) -> None:
        self._gap = int(config.sessions.gap)
        self._recent = config.sessions.recent
        self._capacity = config.sessions.capacity
        self._columns = {name: schema.id_column(name) for name in ("user", "item", "session")}
        weights = [config.events.get(kind, 0.0) for kind in schema.kinds]
        self._weights = np.array(weights, np.float32)
        self.keys: U64 = np.empty(0, np.uint64)  # [sessions] what identifies each
        self.users: U64 = np.empty(
            0, np.uint64
        )  # [sessions] whose each is, as its latest event says that does; 0 = unknown
        self.last: I64 = np.empty(0, np.int64)  # [sessions] time of the latest event, us
        self.starts: I64 = np.zeros(1, np.int64)  # [sessions + 1]
        self.items: U64 = np.empty(0, np.uint64)  # [events]
        self.weights: F32 = np.empty(0, np.float32)  # [events]

    def __len__(self) -> int:
        return len(self.keys)

    def wanted(self, events: EventBatch) -> EventBatch:
        """The events that make up sessions."""
        return events.take(self._weights[events.kind] > 0)

    def step(self, events: EventBatch) -> tuple[NextItems, Touched]:
        """Takes in a slide's events (as of `wanted`, in log order): its examples, and the sessions they are of."""
        ids, users = events.ids[:, self._columns["session"]], events.ids[:, self._columns["user"]]
        keys = np.where(ids == MISSING_ID, users, ids)
        order = np.argsort(keys, kind="stable")
        session = np.empty(len(events), np.int64)
        session[order] = self._assigned(keys[order], events.time[order], order)
        held = np.repeat(np.arange(len(self)), np.diff(self.starts))
        count, joined = int(session.max(initial=len(self) - 1)) + 1, np.concatenate([held, session])
        placed = np.argsort(joined, kind="stable")
        at = np.empty(len(joined), np.int64)
        at[placed] = np.arange(len(joined))
        older = np.zeros(count, np.int64)
        older[: len(self)] = np.diff(self.starts)
        self._grow(count, keys, events.time, session)
        self.users = np.concatenate([self.users, np.zeros(count - len(self.users), np.uint64)])
        known = users != MISSING_ID  # an event that names nobody takes nothing away
        self.users[session[known]] = users[known]
        item = events.ids[:, self._columns["item"]]
        weight = self._weights[events.kind]
        self.items = np.concatenate([self.items, item])[placed]
        self.weights = np.concatenate([self.weights, weight])[placed]
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(joined, minlength=count))]).astype(np.int64)
        examples = self._examples(events, item, weight, at[len(held) :], self.starts[session])
        rows = np.unique(session)
        gone = self._evict()
        kept = rows >= gone
        return examples, Touched(rows[kept] - gone, older[rows[kept]])

    def _assigned(self, keys: U64, times: I64, order: I64) -> I64:
        """The session of each event, [n]; events sorted by key, then time. New ones are numbered by first event."""
        if not len(keys):
            return np.empty(0, np.int64)
        begins = np.concatenate([[True], keys[1:] != keys[:-1]])
        known = self._open(keys[begins], int(times.min()))
        before = np.concatenate([[0], times[:-1]])
        before[begins] = np.where(known >= 0, self.last[known] if len(self) else 0, np.iinfo(np.int64).min // 2)
        fresh = times - before > self._gap
        piece = np.cumsum(fresh | begins) - 1
        first = np.flatnonzero(fresh | begins)
        held = np.full(len(first), -1, np.int64)
        held[piece[begins]] = np.where(fresh[begins], -1, known)
        lengths = np.where(held >= 0, np.diff(self.starts)[held] if len(self) else 0, 0)
        part = (lengths[piece] + np.arange(len(keys)) - first[piece]) // LONGEST
        split = np.concatenate([[True], (piece[1:] != piece[:-1]) | (part[1:] != part[:-1])])
        run, starts = np.cumsum(split) - 1, np.flatnonzero(split)
        session = np.where(part[starts] == 0, held[piece[starts]], -1)
        new = np.flatnonzero(session < 0)
        session[new[np.argsort(order[starts[new]], kind="stable")]] = len(self) + np.arange(len(new))
        return np.asarray(session[run], np.int64)

    def _open(self, keys: U64, earliest: int) -> I64:
        """The latest session of each key that can still go on, -1 where there is none; `keys` ascending, unique."""
        rows = np.flatnonzero(self.last >= earliest - self._gap)
        if not len(rows):
            return np.full(len(keys), -1, np.int64)
        rows = rows[np.argsort(self.keys[rows], kind="stable")]
        at = np.searchsorted(self.keys[rows], keys, side="right") - 1
        found = rows[np.maximum(at, 0)]
        return np.where((at >= 0) & (self.keys[found] == keys), found, -1)

    def _grow(self, count: int, keys: U64, times: I64, session: I64) -> None:
        grown_keys, grown_last = np.zeros(count, np.uint64), np.full(count, np.iinfo(np.int64).min, np.int64)
        grown_keys[: len(self)], grown_last[: len(self)] = self.keys, self.last
        grown_keys[session] = keys
        np.maximum.at(grown_last, session, times)
        self.keys, self.last = grown_keys, grown_last

    def _examples(self, events: EventBatch, item: U64, weight: F32, at: I64, start: I64) -> NextItems:
        """`at`: where each event stands in `items`; `start`: where its session begins."""
        earlier = at[:, None] - 1 - np.arange(self._recent)
        inside = earlier >= start[:, None]
        context = np.full(earlier.shape, MISSING_ID, np.uint64)
        context[inside] = self.items[earlier[inside]]
        rows = np.flatnonzero(at > start)
        user = events.ids[rows, self._columns["user"]]
        return NextItems(events.time[rows], user, context[rows], item[rows], weight[rows])

    def _evict(self) -> int:
        """Lets the first sessions go while there are too many events; returns how many."""
        gone = int(np.searchsorted(self.starts, self.starts[-1] - self._capacity))
        if gone:
            cut = self.starts[gone]
            self.items, self.weights = self.items[cut:].copy(), self.weights[cut:].copy()
            self.keys, self.users, self.last = (
                self.keys[gone:].copy(),
                self.users[gone:].copy(),
                self.last[gone:].copy(),
            )
            self.starts = self.starts[gone:] - cut
        return gone

    def erase(self, users: U64) -> int:
        """Forgets the sessions of these users, by fingerprint; returns how many."""
        wanted = users[users != MISSING_ID]
        stay = ~(np.isin(self.keys, wanted) | np.isin(self.users, wanted))
        lengths = np.diff(self.starts)
        events = np.repeat(stay, lengths)
        self.items, self.weights = self.items[events], self.weights[events]
        self.keys, self.users, self.last = self.keys[stay], self.users[stay], self.last[stay]
        self.starts = np.concatenate([[0], np.cumsum(lengths[stay])]).astype(np.int64)
        return int(np.count_nonzero(~stay))

    def capture(self) -> dict[str, Any]:
        names = ("keys", "users", "last", "starts", "items", "weights")
        return {name: getattr(self, name).copy() for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        self.keys, self.users, self.last, self.starts = (state[n] for n in ("keys", "users", "last", "starts"))
        self.items, self.weights = state["items"], state["weights"]

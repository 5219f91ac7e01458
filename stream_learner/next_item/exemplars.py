"""Sessions as the network learns them, and the earlier ones that it is reminded of."""

from __future__ import annotations

import numpy as np

from stream_learner.next_item.network import padded_sequences
from stream_learner.next_item.sessions import F32, I64, SessionStore
from stream_learner.next_item.training import Sequences


def sequences(store: SessionStore, rows: I64, sessions: I64, older: I64, recent: int) -> Sequences:
    """Sessions as the network learns them; targets are events from place `older` on whose items are admitted. Sessions
    without any are left out. `rows`: table row of each event of the store."""
    starts, lengths = store.starts[sessions], np.diff(store.starts)[sessions]
    items = padded_sequences(rows, starts, lengths - 1, recent)
    targets = padded_sequences(rows, starts + 1, lengths - 1, recent)
    place = lengths[:, None] - recent + np.arange(recent)
    targets = np.where((place >= np.maximum(older, 1)[:, None]) & (items > 0), targets, 0).astype(np.int32)
    last = starts[:, None] + place
    weights = store.weights[np.clip(last, 0, max(len(store.weights) - 1, 0))] if len(store.weights) else last
    kept = np.flatnonzero(targets.any(axis=1))
    counted = np.where(targets > 0, weights, 0.0).astype(np.float32)
    return Sequences(items[kept], targets[kept], counted[kept], store.users[sessions[kept]])


class Exemplars:
    """Earlier sessions to be reminded of: drawn uniformly, or so that every item is the target equally often."""

    def __init__(self, store: SessionStore, rows: I64, sessions: I64, shares: F32, recent: int, by: str) -> None:
        self._store, self._rows, self._recent = store, rows, recent
        lengths = np.diff(store.starts)
        self._sessions = sessions[lengths[sessions] > 1]
        self._by_item = by == "item"
        if self._by_item:
            inside = np.zeros(len(store), bool)
            inside[self._sessions] = True
            whole = np.repeat(np.arange(len(store)), lengths)
            later = np.arange(len(rows)) > store.starts[whole]
            self._events = np.flatnonzero(inside[whole] & later & (rows > 0))
            self._session = whole[self._events]
            often = np.bincount(rows[self._events], minlength=len(shares))
            self._cumulated = np.cumsum(1.0 / np.maximum(often[rows[self._events]], 1))

    def draw(self, count: int, random: np.random.Generator) -> Sequences:
        """`count` sequences with replacement; by item, each ends in one target drawn for its item."""
        nothing = np.empty(0, np.int64)
        if not count or not len(self._sessions) or (self._by_item and not len(self._events)):
            return sequences(self._store, self._rows, nothing, nothing, self._recent)
        if not self._by_item:
            chosen = self._sessions[random.integers(0, len(self._sessions), count)]
            return sequences(self._store, self._rows, chosen, np.zeros(count, np.int64), self._recent)
        drawn = random.random(count) * self._cumulated[-1]
        at = np.minimum(np.searchsorted(self._cumulated, drawn, side="right"), len(self._events) - 1)
        return self._ending(self._events[at], self._session[at])

    def _ending(self, events: I64, sessions: I64) -> Sequences:
        starts = self._store.starts[sessions]
        items = padded_sequences(self._rows, starts, events - starts, self._recent)
        targets, weights = np.zeros_like(items), np.zeros(items.shape, np.float32)
        targets[:, -1], weights[:, -1] = self._rows[events], self._store.weights[events]
        return Sequences(items, targets, weights, self._store.users[sessions])

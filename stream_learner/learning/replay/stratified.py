"""The stratified reservoir: rare classes, or rare values of a feature, keep as many rows as frequent ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64
from stream_learner.learning.replay.make_up import by_label, by_value, held
from stream_learner.learning.replay.policy import F32, Arrived, Random, uniformly
from stream_learner.learning.replay.store import Column, RowStore

MOST_STRATA = 4096  # values seen after so many others share the last stratum

U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]


class Stratified:
    """A uniform sample of every stratum, of min(seen, L) rows with the largest L that the capacity allows (the balance
    of Chrysakis and Moens' class-balancing reservoir, ICML 2020).

    Each example gets a random key, and a stratum holds those of the smallest keys: a uniform sample without
    replacement, whatever the order and the slides. A drawn row weighs (its stratum's share of the stream / its share of
    the buffer)^correction, so with `correction` 1 draws stand for the stream without bias.
    """

    def __init__(self, column: int | None, correction: float, names: Mapping[int, str] | None = None) -> None:
        """`column` of `ExampleBatch.ids`; None = the label. `names`: what fingerprints in it stand for, where known."""
        self._column = column
        self._correction = correction
        self._names = names or {}
        self._values = np.empty(0, np.uint64)  # of each stratum, in order of appearance
        self._seen = np.empty(0, np.int64)
        self._limit = np.empty(0, np.float64)  # keys from here on were let go, or never taken
        self._weights: F64 | None = None  # by stratum, until the rows held change

    def kept(self, arrived: Arrived) -> dict[str, Column]:
        return {"stratum": np.empty(0, np.int32), "key": np.empty(0, np.float64)}

    def begin(self) -> None:
        return

    def admit(self, store: RowStore, arrived: Arrived, random: Random) -> None:
        stratum = self._strata(arrived)
        keys = random.random(len(arrived))
        self._seen += np.bincount(stratum, minlength=len(self._seen))
        taken = np.flatnonzero(keys < self._limit[stratum])
        self._place(store, arrived, taken, stratum[taken].astype(np.int32), keys[taken])

    def pick(self, store: RowStore, count: int, random: Random) -> tuple[I64, F32]:
        rows = uniformly(store, count, random)
        if self._weights is None:
            held = np.bincount(store.columns["stratum"][: store.height], minlength=len(self._seen))
            in_stream, in_buffer = self._seen / self._seen.sum(), np.maximum(held, 1) / max(store.height, 1)
            self._weights = (in_stream / in_buffer) ** self._correction
        return rows, self._weights[store.take("stratum", rows)].astype(np.float32)

    def learned(self, store: RowStore, rows: I64, losses: F32) -> None:
        return

    def shrink(self, store: RowStore, random: Random) -> None:
        store.close_up(
            self._outside(store.columns["stratum"][: store.height], store.columns["key"][: store.height], store.limit)
        )
        self._weights = None

    def strata(self, store: RowStore) -> dict[str, int]:
        if self._column is None:
            return by_label(store)
        return by_value(np.bincount(held(store, "stratum"), minlength=len(self._values)), self._values, self._names)

    def capture(self) -> dict[str, Any]:
        return {"values": self._values.copy(), "seen": self._seen.copy(), "limit": self._limit.copy()}

    def restore(self, state: dict[str, Any], store: RowStore) -> None:
        """A buffer that has become larger holds no more of what it let go, and more of what follows only where a
        stratum is still whole."""
        self._values, self._seen, self._limit = (state[name].copy() for name in ("values", "seen", "limit"))
        self._weights = None

    def _strata(self, arrived: Arrived) -> I64:
        """The stratum of each example; new values get the next numbers, in order of appearance."""
        of = (
            arrived.columns["label"].astype(np.uint64)
            if self._column is None
            else arrived.columns["ids"][:, self._column]
        )
        unique, first, inverse = np.unique(of, return_index=True, return_inverse=True)
        new = unique[~np.isin(unique, self._values)]
        if len(new):
            room = MOST_STRATA - len(self._values)
            new = new[np.argsort(first[np.isin(unique, new)], kind="stable")][:room]
            self._values = np.concatenate([self._values, new])
            self._seen = np.concatenate([self._seen, np.zeros(len(new), np.int64)])
            self._limit = np.concatenate([self._limit, np.full(len(new), np.inf)])
        order = np.argsort(self._values, kind="stable")
        at = np.minimum(np.searchsorted(self._values, unique, sorter=order), len(order) - 1)
        number = np.where(self._values[order[at]] == unique, order[at], len(order) - 1)
        found: I64 = number[inverse.reshape(-1)]
        return found

    def _place(self, store: RowStore, arrived: Arrived, taken: I64, stratum: NDArray[np.int32], keys: F64) -> None:
        """Lets go of what no longer has room, held or new, and puts the rest of the new rows into the places."""
        held = store.height
        if held:
            all_strata = np.concatenate([store.columns["stratum"][:held], stratum])
            all_keys = np.concatenate([store.columns["key"][:held], keys])
        else:
            all_strata, all_keys = stratum, keys
        gone = self._outside(all_strata, all_keys, store.limit)
        left, stay = gone[gone < held], np.ones(len(taken), bool)
        stay[gone[gone >= held] - held] = False
        new = np.flatnonzero(stay)
        places = np.concatenate([left, held + np.arange(max(0, len(new) - len(left)))])[: len(new)]
        store.put(places, arrived.rows(taken[new], stratum=stratum[new], key=keys[new]))
        store.close_up(left[len(new) :])
        self._weights = None

    def _outside(self, stratum: NDArray[np.int32], keys: F64, capacity: int) -> I64:
        """The rows of the largest keys beyond each stratum's share of the capacity, ascending."""
        counts = np.bincount(stratum, minlength=len(self._seen))
        excess = np.maximum(counts - _level(counts, capacity), 0)
        if not excess.any():
            return np.empty(0, np.int64)
        rows = np.flatnonzero(excess[stratum] > 0)
        rows = rows[np.lexsort((-keys[rows], stratum[rows]))]  # by stratum, the largest key first
        of = stratum[rows]
        rank = np.arange(len(rows)) - np.searchsorted(of, of, side="left")
        gone = rows[rank < excess[of]]
        np.minimum.at(self._limit, stratum[gone], keys[gone])
        return np.sort(gone)


def _level(counts: I64, capacity: int) -> int:
    """The largest L with sum(min(count, L)) <= capacity."""
    if counts.sum() <= capacity:
        return int(counts.max(initial=0))
    ascending = np.sort(counts)
    below = np.concatenate([[0], np.cumsum(ascending)[:-1]])
    levels = (capacity - below) // np.arange(len(counts), 0, -1)  # were the strata from here on all cut to L
    fits = np.flatnonzero(levels < ascending)
    return int(levels[fits[0]])

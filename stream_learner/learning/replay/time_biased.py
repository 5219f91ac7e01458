"""The time-biased reservoir: an example's chance of being held falls by half with every half-life of its age."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stream_learner.changes import I64
from stream_learner.learning.replay.make_up import by_label
from stream_learner.learning.replay.policy import F32, Arrived, Random, ones, uniformly
from stream_learner.learning.replay.store import Column, RowStore


class TimeBiased:
    """R-TBS: bounded reservoir sampling with exponential decay (Hentschel, Haas, Tian: EDBT 2018, TODS 2019).

    With W the total of the decayed weights of all examples seen, and C = min(capacity, W), an example of age a is in
    the sample with probability C / W * 2^(-a / half_life). Age is event time, told by the newest example seen. The
    sample is latent: floor(C) full rows, and one more (the last) that is in it with probability C - floor(C).
    """

    def __init__(self, half_life_us: int) -> None:
        self._half_life = half_life_us
        self._now: int | None = None  # time of the newest example seen, us
        self.weight = 0.0  # W
        self.size = 0.0  # C

    def kept(self, arrived: Arrived) -> dict[str, Column]:
        return {}

    def begin(self) -> None:
        return

    def admit(self, store: RowStore, arrived: Arrived, random: Random) -> None:
        aged = self.weight * self._decay(arrived)
        count, capacity = len(arrived), float(store.limit)
        if self.weight >= capacity and aged + count >= capacity:
            self.weight = aged + count
            self._replace(store, arrived, random)
        else:
            self._downsample(store, aged, random)
            self.weight = aged + count
            self._append(store, arrived, random)

    def pick(self, store: RowStore, count: int, random: Random) -> tuple[I64, F32]:
        full = math.floor(self.size)
        partial = random.random() < self.size - full
        return uniformly(store, count, random, store.height if partial or not full else full), ones(count)

    def learned(self, store: RowStore, rows: I64, losses: F32) -> None:
        return

    def shrink(self, store: RowStore, random: Random) -> None:
        self._downsample(store, float(store.limit), random)

    def strata(self, store: RowStore) -> dict[str, int]:
        return by_label(store)

    def capture(self) -> dict[str, Any]:
        return {"now": self._now, "weight": self.weight, "size": self.size}

    def restore(self, state: dict[str, Any], store: RowStore) -> None:
        """A buffer that has become larger takes the sample for all it has seen."""
        self._now, self.weight, self.size = state["now"], float(state["weight"]), float(state["size"])
        if self.size < min(self.weight, store.limit):
            self.weight = self.size

    def _decay(self, arrived: Arrived) -> float:
        newest = int(arrived.columns["time"].max())
        before = newest if self._now is None else self._now
        self._now = max(before, newest)
        return float(0.5 ** ((self._now - before) / self._half_life))

    def _replace(self, store: RowStore, arrived: Arrived, random: Random) -> None:
        """A full reservoir stays full: new rows take the places of random ones."""
        wanted = len(arrived) * store.limit / self.weight
        count = math.floor(wanted) + (random.random() < wanted - math.floor(wanted))
        slots = np.sort(random.choice(store.limit, count, replace=False))
        store.put(slots, arrived.rows(random.choice(len(arrived), count, replace=False)))

    def _append(self, store: RowStore, arrived: Arrived, random: Random) -> None:
        """A reservoir with room takes in all; one that overflows is brought down to a sample that fills it."""
        full, partial = math.floor(self.size), self.size - math.floor(self.size)
        count = len(arrived)
        if full + count + partial <= store.limit:
            if partial:
                store.move(np.array([full]), np.array([full + count]))
            store.put(full + np.arange(count), arrived.rows(np.arange(count)))
            self.size += count
            store.cut(math.ceil(self.size))  # a partial row so small that the sum has lost it
            return
        whole = random.random() < store.limit / (self.size + count) * partial  # the partial row becomes a full one
        chosen = np.sort(random.choice(full + count, store.limit - whole, replace=False))
        kept, new = chosen[chosen < full], chosen[chosen >= full] - full
        if whole:
            kept = np.append(kept, full)
        gone = np.setdiff1d(np.arange(store.height), kept, assume_unique=True)
        store.close_up(gone)
        store.put(store.height + np.arange(len(new)), arrived.rows(new))
        self.size = float(store.limit)

    def _downsample(self, store: RowStore, size: float, random: Random) -> None:
        """Algorithm 3 of the paper: every row's probability of being in the sample times size / C."""
        if not size < self.size:
            return
        full, left = math.floor(self.size), math.floor(size)
        partial, share = self.size - full, size / self.size
        draw = random.random()
        if left == 0:
            if draw >= partial / self.size:
                self._swap(store, full, random)
            store.move(np.array([store.height - 1]), np.array([0]))
        elif left == full:
            if draw > (1 - share * partial) / (1 - (size - left)):
                self._swap(store, full, random)
        elif draw < share * partial:
            self._thin(store, full, left, random)
            self._swap(store, left, random)
        else:
            self._thin(store, full, left + 1, random)
            _exchange(store, int(random.integers(0, left + 1)), left)
        store.cut(left + (size > left))
        self.size = size

    def _swap(self, store: RowStore, full: int, random: Random) -> None:
        """Exchanges a random full row with the partial one behind them; where there is none, with the last."""
        if full:
            _exchange(store, int(random.integers(0, full)), store.height - 1)

    def _thin(self, store: RowStore, full: int, left: int, random: Random) -> None:
        """`left` random ones of the `full` rows at the beginning, and the partial one behind them, if there is one."""
        gone = np.sort(random.choice(full, full - left, replace=False))
        stays = np.ones(store.height - left, bool)
        stays[gone[gone >= left] - left] = False
        sources = left + np.flatnonzero(stays)  # the partial one last
        behind = np.arange(left, left + store.height - full)
        store.move(sources, np.concatenate([gone[gone < left], behind]))
        store.cut(left + store.height - full)


def _exchange(store: RowStore, one: int, other: int) -> None:
    if one != other:
        store.move(np.array([one, other]), np.array([other, one]))

"""The uniform reservoir: every example ever seen is held with the same probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64
from stream_learner.learning.replay.make_up import by_label
from stream_learner.learning.replay.policy import F32, Arrived, Random, keep_some, ones, uniformly
from stream_learner.learning.replay.store import Column, RowStore


class Uniform:
    """Vitter's algorithm R (ACM TOMS 1985): after n examples each is held with probability min(1, capacity / n)."""

    def __init__(self) -> None:
        self.seen = 0

    def kept(self, arrived: Arrived) -> dict[str, Column]:
        return {}

    def begin(self) -> None:
        return

    def admit(self, store: RowStore, arrived: Arrived, random: Random) -> None:
        slots, rows = self._places(store, len(arrived), random)
        store.put(slots, arrived.rows(rows, **self._beside(arrived, rows)))

    def pick(self, store: RowStore, count: int, random: Random) -> tuple[I64, F32]:
        return uniformly(store, count, random), ones(count)

    def learned(self, store: RowStore, rows: I64, losses: F32) -> None:
        return

    def shrink(self, store: RowStore, random: Random) -> None:
        keep_some(store, random)

    def strata(self, store: RowStore) -> dict[str, int]:
        return by_label(store)

    def capture(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: dict[str, Any], store: RowStore) -> None:
        """A buffer that has become larger counts what it held as all it has seen, and leans towards what follows until
        it is full."""
        self.seen = int(state["seen"])
        if store.height < min(self.seen, store.limit):
            self.seen = store.height

    def _beside(self, arrived: Arrived, rows: I64) -> dict[str, Column]:
        return {}

    def _places(self, store: RowStore, count: int, random: Random) -> tuple[I64, I64]:
        """Slots, and the arrived rows that end up in them."""
        number = self.seen + np.arange(count, dtype=np.int64)  # of each example among all ever seen, from 0
        drawn = random.integers(0, number + 1)
        slots = np.where(number < store.limit, number, drawn)
        rows = np.flatnonzero(slots < store.limit)
        self.seen += count
        return _last_of_each(slots[rows], rows)


class Dark(Uniform):
    """The uniform reservoir with the logits the model had when it learned an example: dark experience replay (DER++,
    Buzzega et al., NeurIPS 2020). A drawn row is learned from its label, weighing `beta`, and held to those logits.

    The paper draws one batch for either; here a drawn row serves both, for half of the rows."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self._beta = beta

    def kept(self, arrived: Arrived) -> dict[str, Column]:
        return {"logits": arrived.logits[:0]}

    def pick(self, store: RowStore, count: int, random: Random) -> tuple[I64, F32]:
        return uniformly(store, count, random), np.full(count, self._beta, np.float32)

    def _beside(self, arrived: Arrived, rows: I64) -> dict[str, Column]:
        return {"logits": arrived.logits[rows]}


def _last_of_each(slots: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Without the pairs whose slot is taken again by a later one, as if they were put in one after the other."""
    unique, last = np.unique(slots[::-1], return_index=True)
    return unique, rows[::-1][last]

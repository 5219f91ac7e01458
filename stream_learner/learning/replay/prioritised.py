"""Loss-prioritised replay: what the model gets wrong is drawn more often, and weighs less in return."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64
from stream_learner.learning.replay.policy import F32, Arrived, Random
from stream_learner.learning.replay.store import Column, RowStore
from stream_learner.learning.replay.uniform import Uniform

LEAST = np.float32(0.01)  # nats: a row that is right is still drawn now and then, and no weight grows without bound
_UNKNOWN = np.float32(np.log(2))  # loss of a row that was never learned from: that of a coin


class Prioritised(Uniform):
    """Proportional prioritised experience replay (Schaul et al., ICLR 2016) over a uniform reservoir.

    P(i) = p_i^exponent / sum, p_i = the log loss the row last had + 0.01. A drawn row weighs
    (rows * P(i))^-correction, so with `correction` 1 draws stand for the reservoir without bias. Priorities take
    effect at the next slide: one cumulative sum a slide, and a binary search per drawn row.
    """

    def __init__(self, exponent: float, correction: float) -> None:
        super().__init__()
        self._exponent, self._correction = exponent, correction
        self._reach: NDArray[np.float64] | None = None  # cumulative p^exponent by row, as of the slide's first draw

    def kept(self, arrived: Arrived) -> dict[str, Column]:
        return {"priority": np.empty(0, np.float32)}

    def begin(self) -> None:
        self._reach = None

    def admit(self, store: RowStore, arrived: Arrived, random: Random) -> None:
        super().admit(store, arrived, random)
        self._reach = None

    def pick(self, store: RowStore, count: int, random: Random) -> tuple[I64, F32]:
        if self._reach is None:
            priorities = store.columns["priority"][: store.height].astype(np.float64)  # 0 in a hole
            self._reach = np.cumsum(priorities**self._exponent)
        reach, total = self._reach, self._reach[-1]
        # Ascending, so that neighbours in the search are neighbours in memory; the order of a batch means nothing.
        rows = np.searchsorted(reach, np.sort(random.random(count)) * total, side="right")
        rows = np.minimum(rows, len(reach) - 1).astype(np.int64)
        chance = (reach[rows] - np.where(rows > 0, reach[rows - 1], 0.0)) / total
        return rows, ((len(store) * chance) ** -self._correction).astype(np.float32)

    def learned(self, store: RowStore, rows: I64, losses: F32) -> None:
        unique, at = np.unique(rows, return_index=True)
        store.update("priority", unique, losses[at] + LEAST)

    def _beside(self, arrived: Arrived, rows: I64) -> dict[str, Column]:
        losses = arrived.losses()[rows]
        return {"priority": np.where(np.isnan(losses), _UNKNOWN, losses) + LEAST}

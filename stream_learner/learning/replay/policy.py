"""The seam of the replay policies: which examples stay, which are drawn, and what a drawn one weighs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64
from stream_learner.learning.replay.store import Column, RowStore

F32 = NDArray[np.float32]
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Arrived:
    """A slide's examples as they are offered to a buffer, in order."""

    columns: dict[str, Column]  # what is learned from, as of `ExampleBatch`
    logits: F32  # [n, members], the candidate's just before it learned from each; NaN where it did not

    def __len__(self) -> int:
        return len(self.logits)

    def losses(self) -> F32:
        """Log loss per row, the mean over the members of an ensemble, [n]; NaN where the candidate did not learn."""
        return log_losses(self.logits, self.columns["label"])

    def rows(self, rows: I64, **more: Column) -> dict[str, Column]:
        """What a store holds of the rows; `more`: what a policy keeps beside, already of these rows."""
        return {**{name: column[rows] for name, column in self.columns.items()}, **more}


class Policy(Protocol):
    """Fills a store and draws from it. All that is random comes from the generator given, made of seed and slide."""

    def kept(self, arrived: Arrived) -> dict[str, Column]:
        """Columns beside the examples' that a row needs, of no rows: name -> [0, ...]."""

    def begin(self) -> None:
        """The first draw of a slide is next."""

    def admit(self, store: RowStore, arrived: Arrived, random: Random) -> None:
        """Takes in the examples of a slide, once per slide; at least one."""

    def pick(self, store: RowStore, count: int, random: Random) -> tuple[I64, F32]:
        """Rows of the store, with replacement, and what each weighs: both [count]. The store holds at least one."""

    def learned(self, store: RowStore, rows: I64, losses: F32) -> None:
        """The log losses, [n], that drawn rows had just before the step that they were learned in."""

    def shrink(self, store: RowStore, random: Random) -> None:
        """Brings a store that holds more than its limit down to it."""

    def strata(self, store: RowStore) -> dict[str, int]:
        """Examples held by stratum, for people; by label where the policy knows no other. The store holds one."""

    def capture(self) -> dict[str, Any]:
        """What the store does not hold."""

    def restore(self, state: dict[str, Any], store: RowStore) -> None:
        """`store`: as it is after its own restore."""


def log_losses(logits: F32, labels: F32) -> F32:
    """[n, members] log-odds and [n] labels -> [n], the members' mean."""
    losses: F32 = (np.logaddexp(np.float32(0), logits) - labels[:, None] * logits).mean(axis=1)
    return losses


def uniformly(store: RowStore, count: int, random: Random, height: int | None = None) -> I64:
    """Rows drawn with replacement among those below `height`, holes left out."""
    live = store.live()
    if live is None:
        return random.integers(0, store.height if height is None else height, count)
    if height is not None and np.any(live < height):
        live = live[live < height]
    return live[random.integers(0, len(live), count)]


def ones(count: int) -> F32:
    """Weights of rows that stand for themselves."""
    return np.ones(count, np.float32)


def keep_some(store: RowStore, random: Random) -> None:
    """A uniform sample of as many rows as the limit allows, in their order."""
    kept = np.sort(random.choice(store.height, store.limit, replace=False))
    store.move(kept, np.arange(len(kept)))
    store.cut(len(kept))

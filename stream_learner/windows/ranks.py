"""Where a pair stands among the recent pairs of its holder: the item's rank among what the user clicked lately."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import Touched
from stream_learner.keys import I64
from stream_learner.windows.keyed import Owners, Visit
from stream_learner.windows.panes import grown

DEPTH = 32  # pairs remembered per holder: what stands lower is of no more use than "far down"
_EQUAL = 1 + 1e-9  # decayed counts nearer to each other than this differ by rounding alone


class Ranks:
    """For each holder the `DEPTH` pairs last met with an event of the watched type.

    A pair's rank is one more than the number of those that have a larger decayed count of that type, per half-life.
    """

    def __init__(self, owners: Owners, watched: int) -> None:
        self.owners = owners
        self._watched = watched
        self._recent: I64 = np.empty((0, DEPTH), np.int64)  # [holder rows, DEPTH] pair rows, -1 = none
        self._touched = Touched()

    def reserve(self) -> None:
        self._recent = grown(self._recent, self.owners.holder.index.row_limit, -1)
        self._touched.reach(self.owners.holder.index.row_limit)

    def of(self, pair_rows: I64, now: int) -> NDArray[np.float64]:
        """float64[n, half_lives], of `pair_rows` ([n]) as of `now` (us); those without any count come last."""
        decayed = self.owners.pairs.decayed
        others = self._recent[self.owners.of(pair_rows)]
        mine = decayed.read(pair_rows, now)[:, None, :, self._watched]
        theirs = decayed.read(np.maximum(others, 0).ravel(), now)[:, :, self._watched]
        ahead = theirs.reshape(len(others), DEPTH, mine.shape[2]) > mine * _EQUAL
        ahead &= ((others >= 0) & (others != pair_rows[:, None]))[:, :, None]
        ranks: NDArray[np.float64] = ahead.sum(axis=1) + 1.0
        return ranks

    def taken_in(self, pairs: Visit, gained: NDArray[np.int32]) -> None:
        """After the pairs counted a slide; `gained`: int32[u, types] as `take_in` gave it."""
        fresh = pairs.rows[gained[:, self._watched] > 0]
        if not len(fresh):
            return
        holders, place = np.unique(self.owners.of(fresh), return_inverse=True)
        held = self._recent[holders]
        stay = (held >= 0) & ~np.isin(held, fresh)
        rows = np.concatenate([fresh, held[stay]])
        group = np.concatenate([place, np.nonzero(stay)[0]])
        latest = self.owners.pairs.last[rows, self._watched]
        order = np.lexsort((rows, -latest, group))
        group, rows = group[order], rows[order]
        position = np.arange(len(group)) - np.searchsorted(group, group)
        kept = position < DEPTH
        self._recent[holders] = -1
        self._recent[holders[group[kept]], position[kept]] = rows[kept]
        self._touched.add(holders)

    def forget(self, holder_rows: I64, pair_rows: I64) -> None:
        """Before rows are removed from either table. Looks at all holders: for rare sweeps."""
        self._recent[holder_rows] = -1
        gone = np.zeros(self.owners.pairs.index.row_limit + 1, bool)  # the last one stands for -1
        gone[pair_rows] = True
        hit = gone[self._recent]
        self._recent[hit] = -1
        self._touched.add(holder_rows)
        self._touched.add(np.flatnonzero(hit.any(axis=1)))

    def capture(self) -> dict[str, Any]:
        return self._touched.whole(recent=self._recent)

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the holders whose pairs changed since the last of either, or since `restore`."""
        return self._touched.changes(recent=self._recent)

    def restore(self, state: dict[str, Any]) -> None:
        self._recent = state["recent"].astype(np.int64)
        self._touched.restored(len(self._recent))

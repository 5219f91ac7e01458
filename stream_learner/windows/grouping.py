"""One slide's entries grouped by key, with what came before each of them inside its group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.keys import I64, U64

I32 = NDArray[np.int32]

NEVER = int(np.iinfo(np.int64).min)  # the time of what has not happened


class Groups:
    """Entries with a key (not MISSING_ID), ordered by key and, within a key, as they came."""

    def __init__(self, keys: U64) -> None:
        """`keys`: [e], one per entry, in log order."""
        present = np.flatnonzero(keys)
        self.order: I64 = present[np.argsort(keys[present], kind="stable")]
        ordered = keys[self.order]
        first = np.ones(len(ordered), bool)
        first[1:] = ordered[1:] != ordered[:-1]
        self.group: I64 = np.cumsum(first) - 1  # of each ordered entry
        self._starts = np.flatnonzero(first)
        self.keys: U64 = ordered[self._starts]  # [u] distinct, ascending
        self._place = np.full(len(keys), -1, np.int64)
        self._place[self.order] = np.arange(len(ordered))

    @property
    def firsts(self) -> I64:
        """The first entry of each group, [u]."""
        return self.order[self._starts]

    def with_key(self, entries: I64) -> I64:
        """Which of `entries` have a key, as indices into `entries`."""
        return np.flatnonzero(self._place[entries] >= 0)

    def group_of(self, entries: I64) -> I64:
        """Groups of entries that have a key."""
        return self.group[self._place[entries]]

    def count_before(self, marks: NDArray[Any], entries: I64) -> I32:
        """For each of `entries`, the sums of `marks` (int32[e, c]) over earlier entries of its group: int32[n, c]."""
        ordered = marks[self.order]
        running = np.cumsum(ordered, axis=0, dtype=np.int32) - ordered
        at = self._place[entries]
        counts: I32 = running[at] - running[self._starts[self.group[at]]]
        return counts

    def decayed_before(
        self, marks: NDArray[Any], times: I64, entries: I64, rates: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """For each of `entries` the sums of `marks` ([e, c]) over earlier entries of its group, each mark m halved
        `rates` times per microsecond since: float64[n, rates, c].

        A segmented scan by doubling (Hillis, Steele: CACM 1986): a sum over 2^k entries is made of two over 2^(k-1).
        Unlike differences of running sums it cannot lose a small count beside a large one, whatever the times.
        """
        ordered, at = times[self.order], self._place[entries]
        place = np.arange(len(ordered)) - self._starts[self.group] if len(ordered) else ordered
        sums = np.repeat(marks[self.order][:, None, :].astype(np.float64), len(rates), axis=1)
        width = 1
        while len(reached := np.flatnonzero(place >= width)):
            passed = (ordered[reached] - ordered[reached - width]).astype(np.float64)
            sums[reached] += sums[reached - width] * np.exp2(-np.multiply.outer(passed, rates))[:, :, None]
            width *= 2
        if not len(entries):
            return sums[:0]
        first = place[at] == 0
        passed = np.where(first, 0, ordered[at] - ordered[at - 1]).astype(np.float64)
        carried = sums[at - 1] * np.exp2(-np.multiply.outer(passed, rates))[:, :, None]
        return np.where(first[:, None, None], 0.0, carried)

    def latest_before(self, marks: NDArray[Any], times: I64, entries: I64) -> I64:
        """int64[n, c]: per entry and column of `marks` ([e, c]) the time of its group's last marked entry, or NEVER."""
        if not len(entries):
            return np.empty((0, marks.shape[1]), np.int64)
        number = np.arange(len(self.order))[:, None]
        last = np.maximum.accumulate(np.where(marks[self.order] > 0, number, -1), axis=0)
        at = self._place[entries]
        previous = np.where((at > 0)[:, None], last[at - 1], -1)
        inside = previous >= self._starts[self.group[at]][:, None]
        return np.where(inside, times[self.order][previous], NEVER)

    def first_marked(self, mark: NDArray[np.bool_]) -> I64:
        """The first entry with `mark` (bool[e]) of each group that has one."""
        marked = np.flatnonzero(mark[self.order])
        group = self.group[marked]
        first = np.ones(len(marked), bool)
        first[1:] = group[1:] != group[:-1]
        return self.order[marked[first]]

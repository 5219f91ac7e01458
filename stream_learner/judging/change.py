"""Change detectors for a stream of numbers, fed with whole columns: ADWIN and the two-sided Page-Hinkley test."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

_CHUNK = 4096  # values between two rescalings of the forgetting factor's powers


class Adwin:
    """Adaptive windowing (Bifet and Gavalda, SDM 2007) on values within [0, 1] or any span of length 1.

    The window is an exponential histogram: up to `per_row` buckets of each size 1, 2, 4, ... Every `clock` values all
    cuts between buckets are tried at once; while one shows two different means, the oldest bucket is dropped. After an
    alarm the window that remains is kept, as in the paper. `clock` is the only loop; `spread` multiplies the variance
    where values are not independent.
    """

    def __init__(
        self, delta: float = 0.002, clock: int = 32, per_row: int = 5, least: int = 5, grace: int = 10
    ) -> None:
        self.delta = delta
        self.spread = 1.0
        self.clock = clock
        self._per_row, self._least, self._grace = per_row, least, grace
        self._rows: list[F64] = []  # by size 2**row: [buckets, 2] sums and sums of squares, oldest first
        self._seen = 0

    @property
    def width(self) -> int:
        """Values in the window."""
        return sum(len(row) << size for size, row in enumerate(self._rows))

    @property
    def mean(self) -> float:
        """Mean of the window; NaN when empty."""
        return float(sum(row[:, 0].sum() for row in self._rows)) / self.width if self.width else math.nan

    def update(self, values: F64) -> list[int]:
        """Takes in values [n], in order; the indices at which a change was found."""
        alarms = []
        start = 0
        while start < len(values):
            stop = min(start + self.clock - self._seen % self.clock, len(values))
            self._insert(values[start:stop])
            self._seen += stop - start
            if self._seen % self.clock == 0 and self.width > self._grace and self._shrink():
                alarms.append(stop - 1)
            start = stop
        return alarms

    def _insert(self, values: F64) -> None:
        fresh = np.stack([values, values**2], axis=1)
        size = 0
        while len(fresh):
            if size == len(self._rows):
                self._rows.append(np.empty((0, 2)))
            row = np.concatenate([self._rows[size], fresh])
            merges = max(0, (len(row) - self._per_row + 1) // 2)  # two oldest, whenever there is one too many
            self._rows[size], fresh = row[2 * merges :], row[0 : 2 * merges : 2] + row[1 : 2 * merges : 2]
            size += 1

    def _shrink(self) -> bool:
        found = False
        while self._cut():
            found = True
            top = len(self._rows) - 1
            self._rows[top] = self._rows[top][1:]
            while self._rows and not len(self._rows[-1]):
                self._rows.pop()
        return found

    def _cut(self) -> bool:
        """Whether some cut has two different means, by the paper's bound with the variance in it."""
        rows = list(enumerate(self._rows))[::-1]
        sizes = np.concatenate([np.full(len(row), 1 << size) for size, row in rows]) if rows else np.empty(0)
        if len(sizes) < 2:
            return False
        sums = np.concatenate([row for _, row in rows])
        width, (total, squares) = float(sizes.sum()), sums.sum(axis=0)
        old, old_sum = np.cumsum(sizes)[:-1], np.cumsum(sums[:, 0])[:-1]
        new = width - old
        enough = (old >= self._least) & (new >= self._least)
        old, new, old_sum = old[enough], new[enough], old_sum[enough]
        variance = max(squares / width - (total / width) ** 2, 0.0) * self.spread
        inverse = 1.0 / (old - self._least + 1) + 1.0 / (new - self._least + 1)
        confidence = math.log(2.0 * math.log(width) / self.delta)
        bound = np.sqrt(2.0 * inverse * variance * confidence) + 2.0 / 3.0 * confidence * inverse
        return bool((np.abs(old_sum / old - (total - old_sum) / new) > bound).any())

    def capture(self) -> dict[str, Any]:
        rows = np.concatenate([np.empty((0, 2)), *self._rows])
        return {"buckets": rows, "sizes": np.array([len(row) for row in self._rows], np.int64), "seen": self._seen}

    def restore(self, state: dict[str, Any]) -> None:
        cuts = np.cumsum(state["sizes"])[:-1]
        self._rows = [row.copy() for row in np.split(state["buckets"], cuts)] if len(state["sizes"]) else []
        self._seen = int(state["seen"])


class PageHinkley:
    """Page's test for a rise or a fall of the mean above its own running mean (Page, Biometrika 1954).

    With d = x - mean so far: rise = alpha * rise + d - delta, and an alarm where it exceeds its minimum by
    `threshold`; a fall likewise. `delta` may be a column, an allowance for each value. An alarm starts it afresh.
    """

    def __init__(self, threshold: float = 50.0, alpha: float = 1 - 1e-4, least: int = 30) -> None:
        self.threshold = threshold
        self._alpha, self._least = alpha, least
        self._reset()

    def _reset(self) -> None:
        self._count, self._mean = 0, 0.0
        self._rise, self._fall = 0.0, 0.0
        self._lowest, self._highest = math.inf, -1.0

    def update(self, values: F64, delta: float | F64 = 0.005) -> list[int]:
        """Takes in values [n], in order; the indices at which a change was found."""
        allowance = np.broadcast_to(np.asarray(delta, np.float64), values.shape)
        alarms: list[int] = []
        start = 0
        while start < len(values):
            stop = min(start + _CHUNK, len(values))
            found = self._take(values[start:stop], allowance[start:stop])
            if found is None:
                start = stop
                continue
            alarms.append(start + found)
            self._reset()
            start += found + 1
        return alarms

    def _take(self, values: F64, delta: F64) -> int | None:
        """Goes on to the end, or to the first alarm, whose index it returns."""
        count = self._count + np.arange(1, len(values) + 1)
        means = (self._count * self._mean + np.cumsum(values)) / count
        powers = self._alpha ** np.arange(1, len(values) + 1)
        rise = powers * (self._rise + np.cumsum((values - means - delta) / powers))
        fall = powers * (self._fall + np.cumsum((values - means + delta) / powers))
        lowest = np.minimum(np.minimum.accumulate(rise), self._lowest)
        highest = np.maximum(np.maximum.accumulate(fall), self._highest)
        over = (rise - lowest > self.threshold) | (highest - fall > self.threshold)
        alarms = np.flatnonzero(over & (count >= self._least))
        if len(alarms):
            return int(alarms[0])
        self._count, self._mean = int(count[-1]), float(means[-1])
        self._rise, self._fall = float(rise[-1]), float(fall[-1])
        self._lowest, self._highest = float(lowest[-1]), float(highest[-1])
        return None

    def capture(self) -> dict[str, Any]:
        return {"at": np.array([self._count, self._mean, self._rise, self._fall, self._lowest, self._highest])}

    def restore(self, state: dict[str, Any]) -> None:
        count, self._mean, self._rise, self._fall, self._lowest, self._highest = state["at"].tolist()
        self._count = int(count)

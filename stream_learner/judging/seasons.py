"""What a slide should bring, by the last hours and by the same hour of earlier days and weeks.

Counts are pooled in blocks of an hour (a slide, where slides are longer). What is expected is the least of three
medians, each over blocks that were whole: the last blocks, the same time of the last days, the same time of the last
weeks. So a night, a quiet Sunday, the morning after a holiday and a shop that shrinks are all expected; a level that
breaks off in the middle of what the last hours and every earlier day had is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_HOUR, _DAY = 3_600_000_000, 86_400_000_000
_WEEK = 7 * _DAY
_LAST_BLOCKS = 3  # enough for a median, and few enough to follow the hours of a day
_LAST_DAYS = 7  # where blocks are days, a whole week, or the weekend would be expected of a Monday
_DAYS, _WEEKS = 7, 4
_LEAST_BLOCKS = 5  # whole blocks before their spread is believed
_SPREAD = (0.1, 0.5)  # least relative deviation from the season ever assumed, and what is assumed without evidence
_MAD_TO_SIGMA = 1.4826  # of a normal distribution

_COLUMNS = ("seen", "exposure", "expected")


class Seasons:
    """Per measure (there are `measures`): what was seen of how much exposure, block by block."""

    def __init__(self, slide: int, measures: int) -> None:
        """`slide` in us."""
        self.width = max(slide, _HOUR)
        self._last = _LAST_DAYS if self.width >= _DAY else _LAST_BLOCKS
        self._kept = max(_WEEKS * _WEEK // self.width + 1, self._last + 1)
        self._measures = measures
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._blocks: I64 = np.empty(0, np.int64)  # [b] ascending
        self._sums: dict[str, F64] = {name: np.empty((0, self._measures)) for name in _COLUMNS}

    def rates(self, time: int) -> F64:
        """Seen per exposure to expect at `time` (us), [measures]; NaN where nothing is known."""
        seen, exposure = self._sums["seen"], self._sums["exposure"]
        block_rates = np.divide(seen, exposure, out=np.full(seen.shape, np.nan), where=exposure > 0)
        medians = [_median(block_rates[-self._last :])]
        if self.width < _DAY:
            medians.append(_median(block_rates[self._at(time, _DAY, _DAYS)]))
        if self.width < _WEEK:
            medians.append(_median(block_rates[self._at(time, _WEEK, _WEEKS)]))
        least: F64 = np.fmin.reduce(medians)
        return least

    def spread(self) -> F64:
        """How far blocks lie from what was expected of them beyond chance: a relative standard deviation, [measures].

        From the median absolute deviation of seen / expected, less what Poisson counts would have.
        """
        low, unknown = _SPREAD
        seen, expected = self._sums["seen"][:-1], self._sums["expected"][:-1]  # the last block may not be whole yet
        ratio = np.divide(seen, expected, out=np.full(seen.shape, np.nan), where=expected > 0)
        deviation = _MAD_TO_SIGMA * _median(np.abs(ratio - _median(ratio)))
        chance = 1 / _median(np.where(expected > 0, expected, np.nan))
        beyond = np.sqrt(np.maximum(deviation**2 - chance, low**2))
        known = np.count_nonzero(expected > 0, axis=0) >= _LEAST_BLOCKS
        out: F64 = np.where(known & np.isfinite(beyond), beyond, unknown)
        return out

    def add(self, time: int, seen: F64, exposure: F64, expected: F64) -> None:
        """Takes in [measures] of a slide, or of several together, that began at `time` (us)."""
        block = time // self.width
        at = int(np.searchsorted(self._blocks, block))
        if at == len(self._blocks) or self._blocks[at] != block:
            self._blocks = np.insert(self._blocks, at, block)
            self._sums = {name: np.insert(sums, at, 0.0, axis=0) for name, sums in self._sums.items()}
        for name, values in zip(_COLUMNS, (seen, exposure, expected), strict=True):
            self._sums[name][at] += values
        self._drop_old()

    def _drop_old(self) -> None:
        """Keeps what the medians look back on."""
        old = int(np.searchsorted(self._blocks, self._blocks[-1] - self._kept))
        old = min(old, max(len(self._blocks) - self._last, 0))
        if old:
            self._blocks = self._blocks[old:]
            self._sums = {name: sums[old:] for name, sums in self._sums.items()}

    def _at(self, time: int, step: int, times: int) -> I64:
        """Rows of the blocks 1, 2, ... `times` steps before `time`, where there are such."""
        wanted = (time - step * np.arange(1, times + 1)) // self.width
        rows = np.minimum(np.searchsorted(self._blocks, wanted), max(len(self._blocks) - 1, 0))
        return rows[self._blocks[rows] == wanted] if len(self._blocks) else np.empty(0, np.int64)

    def capture(self) -> dict[str, Any]:
        return {"blocks": self._blocks.copy(), **{name: sums.copy() for name, sums in self._sums.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        self._blocks = state["blocks"].copy()
        self._sums = {name: state[name].copy() for name in _COLUMNS}


def _median(values: F64) -> F64:
    """Median of each column of [n, m] without NaN; NaN where there is nothing."""
    ordered = np.sort(values, axis=0)  # NaN last
    count = np.count_nonzero(~np.isnan(values), axis=0)
    if not len(values):
        return np.full(values.shape[1], np.nan)
    low, high = np.maximum(count - 1, 0) // 2, np.maximum(count // 2, 0)
    high = np.minimum(high, np.maximum(count - 1, 0))
    columns = np.arange(values.shape[1])
    out: F64 = (ordered[low, columns] + ordered[high, columns]) / 2
    return out

"""Streaming mean and standard deviation of every number, as of what has been learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.learning.features import FeatureSchema

# Floors of the standard deviation: a column that never changed stays near 0 instead of going to infinity, and what
# float32 rounds away (1e-7 of the mean) is never blown up to look like a signal.
_FLOOR = 1e-6
_FLOOR_OF_MEAN = 1e-5
_ROWS = 1024  # taken in at once: they stay in the processor's cache


class Normaliser:
    """Moments per column in float64, merged batch by batch (Chan, Golub, LeVeque: COMPSTAT 1982). NaN is left out."""

    def __init__(self, features: FeatureSchema) -> None:
        width = len(features.numbers)
        self._count = np.zeros(width, np.int64)
        self._mean = np.zeros(width, np.float64)
        self._moment = np.zeros(width, np.float64)  # sum of squared deviations

    def update(self, scaled: NDArray[np.float32]) -> None:
        """Takes in values as `features.transformed` gives them, [n, numbers used]."""
        for start in range(0, len(scaled), _ROWS):
            part = scaled[start : start + _ROWS]
            absent = np.isnan(part)
            near = self._mean if self._count.all() else _rough_mean(part, absent)
            with np.errstate(over="ignore"):
                sums = _sums(part - near.astype(np.float32), absent)
            if not np.isfinite(sums).all():
                sums = _sums(part - near.astype(np.float32).astype(np.float64), absent)
            self._merge(len(part) - absent.sum(axis=0), near.astype(np.float32), *sums)

    def _merge(self, count: NDArray[np.int64], near: Any, first: NDArray[Any], second: NDArray[Any]) -> None:
        """`first` and `second`: sums of the distances from `near`, and of their squares."""
        known = np.maximum(count, 1)
        mean, moment = near + first / known, second - np.square(first) / known
        total = self._count + count
        share = count / np.maximum(total, 1)
        step = np.where(count, mean - self._mean, 0)
        self._moment += np.maximum(moment, 0) + np.square(step) * self._count * share
        self._mean += step * share
        self._count = total

    def standardised(self, scaled: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the encoder makes of such values before it clips them, [n, numbers used]."""
        out: NDArray[np.float64] = (scaled - self._mean) / self.deviation()
        return out

    def mean(self) -> NDArray[np.float32]:
        return self._mean.astype(np.float32)

    def deviation(self) -> NDArray[np.float32]:
        """1 where fewer than two values have been seen; never below the floors."""
        spread = np.sqrt(self._moment / np.maximum(self._count, 1))
        floor = np.maximum(_FLOOR, _FLOOR_OF_MEAN * np.abs(self._mean))
        return np.where(self._count > 1, np.maximum(spread, floor), 1.0).astype(np.float32)

    def capture(self) -> dict[str, Any]:
        return {"count": self._count.copy(), "mean": self._mean.copy(), "moment": self._moment.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        self._count = state["count"].astype(np.int64)
        self._mean = state["mean"].astype(np.float64)
        self._moment = state["moment"].astype(np.float64)


def _sums(distances: NDArray[Any], absent: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of the columns and of their squares, [2, columns]; few enough rows for float32 to lose nothing that counts: what
    is lost of the squares is small against the square of the step that the mean takes."""
    np.copyto(distances, 0, where=absent)
    first = distances.sum(axis=0)
    return np.stack([first, np.square(distances, out=distances).sum(axis=0)]).astype(np.float64)


def _rough_mean(values: NDArray[np.float32], absent: NDArray[np.bool_]) -> NDArray[np.float64]:
    """0 where nothing is present."""
    known = np.where(absent, 0.0, values.astype(np.float64))
    mean: NDArray[np.float64] = known.sum(axis=0) / np.maximum((~absent).sum(axis=0), 1)
    return mean

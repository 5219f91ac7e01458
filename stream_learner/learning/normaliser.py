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


class Normaliser:
    """Moments per column in float64, merged batch by batch (Chan, Golub, LeVeque: COMPSTAT 1982). NaN is left out."""

    def __init__(self, features: FeatureSchema) -> None:
        width = len(features.numbers)
        self._logged = np.array([column.transform == "log1p" for column in features.numbers], bool)
        self._count = np.zeros(width, np.int64)
        self._mean = np.zeros(width, np.float64)
        self._moment = np.zeros(width, np.float64)  # sum of squared deviations

    def update(self, numbers: NDArray[np.float32]) -> None:
        """Takes in raw values, [n, numbers used]."""
        values = transformed(numbers, self._logged)
        present = ~np.isnan(values)
        count = present.sum(axis=0)
        mean = np.where(present, values, 0.0).sum(axis=0) / np.maximum(count, 1)
        moment = np.where(present, np.square(values - mean), 0.0).sum(axis=0)
        total = self._count + count
        share = count / np.maximum(total, 1)
        step = mean - self._mean
        self._moment += moment + np.square(step) * self._count * share
        self._mean += step * share
        self._count = total

    def standardised(self, numbers: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the encoder makes of raw values before it clips them, [n, numbers used]."""
        out: NDArray[np.float64] = (transformed(numbers, self._logged) - self._mean) / self.deviation()
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


def transformed(numbers: NDArray[np.float32], logged: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[n, columns] raw -> sign(x) log(1 + |x|) in the `logged` columns, the others as they are."""
    values = numbers.astype(np.float64)
    values[:, logged] = np.sign(values[:, logged]) * np.log1p(np.abs(values[:, logged]))
    return values

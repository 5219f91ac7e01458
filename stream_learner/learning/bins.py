"""Quantile bins for the piecewise-linear encoding, as of what has been learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.learning.features import FeatureSchema, transformed

_GROWTH = 1.25  # bins are fitted anew when there are so many times more rows, so that all fits cost a few sorts


class Bins:
    """Edges of `bins` quantile bins for every piecewise-linear column, of the first `rows` rows learned from.

    They move while those rows come in and are frozen then: a network's weights belong to edges. NaN is left out.
    """

    def __init__(self, features: FeatureSchema, bins: int, rows: int) -> None:
        self._columns = features.binned()
        self._logged = np.array([features.numbers[i].transform == "log1p" for i in self._columns], bool)
        self._wanted = rows
        self._fitted = 0  # rows the edges were fitted on
        self._rows = np.empty((0, len(self._columns)), np.float32)  # raw values kept until the edges are frozen
        self._grid = np.linspace(0, 1, bins + 1)
        self.edges = np.zeros((len(self._columns), bins + 1), np.float32)

    def update(self, numbers: NDArray[np.float32]) -> bool:
        """Takes in raw values, [n, numbers used]; whether the edges have moved."""
        if not self._columns or self._fitted >= self._wanted or not len(numbers):
            return False
        room = self._wanted - len(self._rows)
        self._rows = np.concatenate([self._rows, numbers[:room, self._columns]])
        if len(self._rows) < min(self._wanted, _GROWTH * self._fitted):
            return False
        self._fit()
        return True

    def capture(self) -> dict[str, Any]:
        return {"rows": self._rows.copy(), "fitted": self._fitted, "edges": self.edges.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        self._rows, self._fitted, self.edges = state["rows"], int(state["fitted"]), state["edges"]

    def _fit(self) -> None:
        values = transformed(self._rows.astype(np.float64), self._logged)
        for column in range(values.shape[1]):
            known = values[~np.isnan(values[:, column]), column]
            if len(known):
                self.edges[column] = np.quantile(known, self._grid)
        self._fitted = len(self._rows)
        if self._fitted >= self._wanted:
            self._rows = self._rows[:0]

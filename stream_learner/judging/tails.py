"""Tail probabilities without a library for them, and the false discovery rate over many tests at once."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def normal_tail(z: float) -> float:
    """P(Z > z) of a standard normal."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def f_tail(value: float, above: float, below: float) -> float:
    """P(F > value) with `above` and `below` degrees of freedom, by Paulson's normal approximation (Annals of
    Mathematical Statistics 1942): within a quarter of p down to 1e-4. `below` may be infinite,
    which is the chi-square law of `above` x value."""
    if above <= 0 or not value > 0:
        return 1.0
    root, a, b = value ** (1 / 3), 2 / (9 * above), 2 / (9 * below)
    return normal_tail(((1 - b) * root - (1 - a)) / math.sqrt(a + b * root * root))


def discoveries(chances: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
    """Which of the p-values [m] stand at this false discovery rate (Benjamini and Hochberg, JRSS B 1995).

    Where nothing has changed at all, the chance of any discovery is at most `level`, however many tests there are.
    """
    order = np.argsort(chances, kind="stable")
    passed = np.flatnonzero(chances[order] <= level * np.arange(1, len(chances) + 1) / max(len(chances), 1))
    found = np.zeros(len(chances), bool)
    if len(passed):
        found[order[: passed[-1] + 1]] = True
    return found

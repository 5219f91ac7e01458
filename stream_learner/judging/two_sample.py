"""The classifier two-sample test: are two samples of examples told apart by a model that sees all columns together?

A ridge classifier on the columns and on random Fourier features of them (Rahimi and Recht, NIPS 2007), so that a
change of how columns go together is seen though none changes alone. Cross-fitted in two halves (Lopez-Paz and Oquab,
ICLR 2017), divided by user, so that nobody is recognised; the p-value is the rank test's, with the users' clustering
in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging import metrics
from stream_learner.judging.tails import normal_tail
from stream_learner.keys import mix

F64 = NDArray[np.float64]

_WAVES = 64
_RIDGE = 10.0  # examples that say nothing
_STAGE = 7303  # stage constant of the random features


@dataclass(frozen=True, slots=True)
class Separation:
    auc: float  # out of fold; 1/2 = not told apart
    chance: float  # p-value, one-sided


def separation(now: F64, then: F64, users_now: NDArray[np.uint64], users_then: NDArray[np.uint64]) -> Separation:
    """How well a classifier tells rows [n, d] from rows [m, d]. Columns must be finite and of about unit scale."""
    rows, users = np.concatenate([now, then]), np.concatenate([users_now, users_then])
    recent = np.arange(len(rows)) < len(now)
    half = mix(users) % np.uint64(2) == 0
    waves = _waves(rows)
    scores = np.zeros(len(rows))
    for fold in (half, ~half):
        weights = _ridge(waves[~fold], np.where(recent[~fold], 1.0, -1.0))
        scores[fold] = np.round(waves[fold] @ weights, 9)
    aucs = [(metrics.auc(scores[fold], recent[fold]), *_pairs(recent[fold])) for fold in (half, ~half)]
    aucs = [entry for entry in aucs if not math.isnan(entry[0])]
    if not aucs:
        return Separation(math.nan, 1.0)
    mass = sum(n * m for _, n, m in aucs)
    auc = sum(value * n * m for value, n, m in aucs) / mass
    variance = sum((n * m / mass) ** 2 * (n + m + 1) / (12 * n * m) for _, n, m in aucs)
    spread = max(_clustering(users_now), _clustering(users_then))
    return Separation(auc, normal_tail((auc - 0.5) / math.sqrt(variance * spread)))


def _waves(rows: F64) -> F64:
    """The columns, random Fourier features of them, and one."""
    width = rows.shape[1]
    rng = np.random.default_rng([_STAGE, width])
    angles = rows @ rng.normal(0.0, 1.0 / math.sqrt(max(width, 1)), (width, _WAVES))
    return np.concatenate([rows, math.sqrt(2.0 / _WAVES) * np.cos(angles + rng.uniform(0, 2 * np.pi, _WAVES)),
                           np.ones((len(rows), 1))], axis=1)  # fmt: skip


def _ridge(rows: F64, target: F64) -> F64:
    """Least squares with the two samples weighing the same."""
    weight = np.where(target > 0, 1.0 / max((target > 0).sum(), 1), 1.0 / max((target < 0).sum(), 1)) * len(rows) / 2
    normal = (rows * weight[:, None]).T @ rows + _RIDGE * np.eye(rows.shape[1])
    solved: F64 = np.linalg.solve(normal, rows.T @ (weight * target))
    return solved


def _pairs(recent: NDArray[np.bool_]) -> tuple[int, int]:
    return int(recent.sum()), int((~recent).sum())


def _clustering(users: NDArray[np.uint64]) -> float:
    """Examples of the user of a random example (Kish's design effect at full correlation); at least 1."""
    counts = np.unique(users, return_counts=True)[1].astype(np.float64)
    return float((counts**2).sum() / counts.sum()) if len(counts) else 1.0

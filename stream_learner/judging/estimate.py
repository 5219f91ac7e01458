"""How well a model is doing before labels come, estimated from its own confidence.

Confidence-based performance estimation: were the recalibrated probabilities true, an example with probability c would
be a positive of weight c and a negative of weight 1 - c, and every metric follows. Recalibrated on what has matured
(Platt 1999). It sees a change of the inputs; it cannot see that the relation itself has changed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging import metrics
from stream_learner.judging.metrics import Sums

F64 = NDArray[np.float64]

_NEWTON_STEPS = 12
_PRIOR = 1e-6  # keeps one class, or one score, from making the curvature vanish


def recalibration(logits: NDArray[np.float32], labels: NDArray[np.float32]) -> tuple[float, float]:
    """Offset a and slope b with P(y) = sigmoid(a + b z) of greatest likelihood; (0, 1) without both classes."""
    positives = float((labels > 0.5).sum())
    if not 0 < positives < len(labels):
        return 0.0, 1.0
    z, y = logits.astype(np.float64), (labels > 0.5).astype(np.float64)
    columns = np.stack([np.ones(len(z)), z])
    at = np.array([0.0, 1.0])
    for _ in range(_NEWTON_STEPS):
        chances = metrics.probabilities(at @ columns)
        curvature = (columns * (chances * (1 - chances))) @ columns.T + _PRIOR * np.eye(2)
        at += np.clip(np.linalg.solve(curvature, columns @ (y - chances)), -2.0, 2.0)
    return float(at[0]), float(at[1])


def recalibrated(logits: NDArray[np.float32], offset: float, slope: float) -> F64:
    """The chances of a positive, [n]."""
    return metrics.probabilities(offset + slope * logits.astype(np.float64))


def estimated(logits: NDArray[np.float32], chances: F64, weights: F64) -> dict[str, float]:
    """What `metrics.summary_of` would probably show of these scores [n] once the labels were known, each being positive
    with its chance [n]."""
    own, if_positive = metrics.chances_and_losses(logits, np.ones(len(logits)))
    if_negative = metrics.losses(logits, np.zeros(len(logits)))
    sums = Sums(
        n=float(weights.sum()),
        positives=float((weights * chances).sum()),
        loss=float((weights * (chances * if_positive + (1 - chances) * if_negative)).sum()),
        predicted=float((weights * own).sum()),
    )
    levels, at = np.unique(logits, return_inverse=True)
    positives: F64 = np.bincount(at, weights * chances, minlength=len(levels)).astype(np.float64)
    negatives: F64 = np.bincount(at, weights * (1 - chances), minlength=len(levels)).astype(np.float64)
    return metrics.summary_of(sums, negatives, positives)

"""Scores as counts on 65,536 levels of the logit in [-16, 16]: for ranks when rows are too many to keep.

Equal steps of the logit keep their resolution at low base rates; equal steps of the probability do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging import metrics
from stream_learner.judging.metrics import Sums

LEVELS = 65_536
_LOGIT_LIMIT = 16.0
_PER_LOGIT = LEVELS / (2 * _LOGIT_LIMIT)

Counts = NDArray[np.int64]  # [..., 2, LEVELS]: negatives, positives


@dataclass(frozen=True, slots=True)
class LevelledSlide:
    """One slide whose scores are kept as counts only."""

    levels: NDArray[np.uint16]  # [k] distinct and ascending within each model, model after model
    counts: NDArray[np.int64]  # [2, k] negatives, positives
    sizes: NDArray[np.int64]  # [models] levels of each

    @classmethod
    def of(cls, counts: Counts) -> LevelledSlide:
        """From counts [models, 2, LEVELS]."""
        used = [np.flatnonzero(model.any(axis=0)) for model in counts]
        kept = [model[:, levels] for model, levels in zip(counts, used, strict=True)]
        sizes = np.array([len(levels) for levels in used], np.int64)
        return cls(np.concatenate(used).astype(np.uint16), np.concatenate(kept, axis=1), sizes)

    def add_to(self, counts: NDArray[np.int64], model: int) -> None:
        """Adds one model's counts to `counts` [2, LEVELS]."""
        stop = int(self.sizes[: model + 1].sum())
        mine = slice(stop - int(self.sizes[model]), stop)
        counts[:, self.levels[mine]] += self.counts[:, mine]


def on_levels(logits: NDArray[np.float32], positive: NDArray[np.bool_]) -> Counts:
    """Both classes counted on the levels, [2, LEVELS]; NaN = not scored, not counted."""
    scored = ~np.isnan(logits)
    z = np.clip(logits[scored].astype(np.float64), -_LOGIT_LIMIT, _LOGIT_LIMIT)
    levels = np.minimum(((z + _LOGIT_LIMIT) * _PER_LOGIT).astype(np.int64), LEVELS - 1)
    return np.bincount(levels + LEVELS * positive[scored], minlength=2 * LEVELS).reshape(2, LEVELS)


def summary(sums: Sums, counts: Counts) -> dict[str, float]:
    """`metrics.summary` where only counts are left; ECE at the levels' middles (off by 0.025 % of p at the most)."""
    negatives, positives = counts.astype(np.float64)
    middles = (np.arange(LEVELS) + 0.5) / _PER_LOGIT - _LOGIT_LIMIT
    return {
        **metrics.summary_of(sums, negatives, positives),
        "ece": metrics.ece_of_counts(metrics.probabilities(middles), negatives, positives),
        "gauc": float("nan"),  # users are not kept
        "auc_error_bound": metrics.auc_error_bound(negatives, positives),
    }

"""Every metric against a definition written out pair by pair, on inputs that hypothesis makes hostile: ties, one class,
nothing at all, weights that are fractional, zero or far apart, logits at both ends of float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_learner.judging import metrics
from stream_learner.judging.metrics import Sums

LOGITS = st.one_of(
    st.sampled_from([-0.0, 0.0, 1.0, -1.0, 88.0, -88.0, 3e38, -3e38]),
    st.floats(-30, 30, width=32),
)
WEIGHTS = st.one_of(st.sampled_from([0.0, 1e-3, 1.0, 1e3]), st.floats(1e-3, 10))
ROWS = st.lists(st.tuples(LOGITS, st.sampled_from([0.0, 1.0]), WEIGHTS, st.integers(0, 3)), max_size=40)


def columns(rows: list[tuple[float, float, float, int]]) -> tuple[Any, Any, Any, Any]:
    """Logits, labels, weights and users."""
    made = [np.array([row[k] for row in rows]) for k in range(4)]
    return made[0].astype(np.float32), made[1].astype(np.float32), made[2].astype(np.float64), made[3].astype(np.uint64)


def ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def slow_auc(z: Any, y: Any, w: Any) -> float:
    """Weight of the pairs that are in order, ties one half."""
    pairs = [(a, b) for a in range(len(z)) for b in range(len(z)) if y[a] == 1 and y[b] == 0]
    total = math.fsum(w[a] * w[b] for a, b in pairs)
    return ratio(math.fsum(w[a] * w[b] * ((z[a] > z[b]) + 0.5 * (z[a] == z[b])) for a, b in pairs), total)


def slow_average_precision(z: Any, y: Any, w: Any) -> float:
    """Over the positives, the precision among all that score at least as high."""

    def precision(score: float) -> float:
        called = z >= score
        return ratio(math.fsum((w * y)[called]), math.fsum(w[called]))

    mine = [(float(weight), precision(score)) for score, label, weight in zip(z, y, w, strict=True) if label == 1]
    return ratio(math.fsum(weight * value for weight, value in mine if weight), math.fsum(weight for weight, _ in mine))


def slow_gauc(z: Any, y: Any, w: Any, users: Any) -> float:
    above, below = [], []
    for user in sorted(set(users.tolist())):
        mine = users == user
        own = slow_auc(z[mine], y[mine], w[mine])
        if not math.isnan(own):
            above.append(own * math.fsum(w[mine]))
            below.append(math.fsum(w[mine]))
    return ratio(math.fsum(above), math.fsum(below))


def slow_loss(z: float, y: float) -> float:
    """log(1 + exp(-z)) of a positive, log(1 + exp(z)) of a negative."""
    against = -z if y == 1 else z
    return against if against > 700 else math.log1p(math.exp(against))


def slow_chance(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


def close(wanted: float) -> Any:
    return pytest.approx(wanted, rel=1e-9, abs=1e-9, nan_ok=True)


@settings(deadline=None)
@given(ROWS)
def test_ranks_are_counts_of_pairs(rows: list[tuple[float, float, float, int]]) -> None:
    z, y, w, users = columns(rows)
    assert metrics.auc(z, y, w) == close(slow_auc(z, y, w))
    assert metrics.average_precision(z, y, w) == close(slow_average_precision(z, y, w))
    assert metrics.gauc(z, y, users, w) == close(slow_gauc(z, y, w, users))
    ones = np.ones(len(rows))
    assert metrics.auc(z, y) == close(slow_auc(z, y, ones))
    assert metrics.average_precision(z, y) == close(slow_average_precision(z, y, ones))
    assert metrics.gauc(z, y, users) == close(slow_gauc(z, y, ones, users))


@settings(deadline=None)
@given(ROWS)
def test_losses_are_sums_over_examples(rows: list[tuple[float, float, float, int]]) -> None:
    z, y, w, _ = columns(rows)
    mass, positives = math.fsum(w), math.fsum(w * y)
    loss = math.fsum(weight * slow_loss(float(a), b) for a, b, weight in zip(z, y, w, strict=True))
    predicted = math.fsum(weight * slow_chance(float(a)) for a, weight in zip(z, w, strict=True))
    sums = Sums.of(z, y, w)
    assert (sums.n, sums.positives) == (close(mass), close(positives))
    assert metrics.log_loss(z, y, w) == close(ratio(loss, mass))
    assert metrics.calibration(z, y, w) == close(ratio(predicted, positives))
    assert metrics.normalized_entropy(z, y, w) == close(
        ratio(ratio(loss, mass), metrics.entropy(ratio(positives, mass)))
    )

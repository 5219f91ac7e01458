"""Confidence-based estimates against sklearn and against what labels turn out to be."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from stream_learner.judging import metrics
from stream_learner.judging.estimate import estimated, recalibrated, recalibration
from tests.judging import car_loans


def scored(n=40_000, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 1.2, n).astype(np.float32)
    labels = (rng.random(n) < metrics.probabilities(0.3 + 0.7 * logits)).astype(np.float32)
    return logits, labels


def test_recalibration_is_sklearns_logistic_regression():
    logits, labels = scored()
    wanted = LogisticRegression(C=1e9, tol=1e-10, solver="newton-cholesky").fit(logits[:, None].astype(float), labels)
    assert recalibration(logits, labels) == pytest.approx((wanted.intercept_[0], wanted.coef_[0, 0]), abs=1e-5)


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_one_class_recalibrates_nothing(labels):
    labels = np.array(labels, np.float32)
    assert recalibration(labels, labels) == (0.0, 1.0)


def test_the_estimate_is_the_expectation_over_labels():
    logits = np.array([-2.0, -1.0, 0.5, 0.5], np.float32)
    seen = estimated(logits, recalibrated(logits, 0.2, 0.8), np.ones(4))
    chances = metrics.probabilities(0.2 + 0.8 * logits.astype(float))
    own = metrics.probabilities(logits)
    loss = -(chances * np.log(own) + (1 - chances) * np.log(1 - own)).mean()
    assert seen["log_loss"] == pytest.approx(loss, abs=1e-9)
    assert seen["calibration"] == pytest.approx(own.sum() / chances.sum(), abs=1e-9)
    pairs = [(a, b) for a in range(4) for b in range(4)]
    wins = {(a, b): (logits[a] > logits[b]) + 0.5 * (logits[a] == logits[b]) for a, b in pairs}
    won = sum(chances[a] * (1 - chances[b]) * win for (a, b), win in wins.items())
    assert seen["auc"] == pytest.approx(won / (chances.sum() * (1 - chances).sum()), abs=1e-9)


def test_it_is_near_what_labels_turn_out_to_be():
    logits, labels = scored()
    offset, slope = recalibration(*scored(seed=1))
    chances, wanted = recalibrated(logits, offset, slope), metrics.summary(logits, labels)
    seen = estimated(logits, chances, np.ones(len(logits)))
    assert seen["auc"] == pytest.approx(wanted["auc"], abs=0.01)
    for name in ("log_loss", "calibration", "normalized_entropy", "base_rate"):
        assert seen[name] == pytest.approx(wanted[name], rel=0.05)


def test_it_is_nannymls_where_recalibrated_as_there():
    """Its confidence-based estimate of the AUC of the car loans' first chunk, isotonic on the reference: 0.970744."""
    levels, reference = np.arange(101) / 100, np.array(car_loans.REFERENCE)
    isotonic = IsotonicRegression().fit(levels, np.array(car_loans.REPAID) / reference, sample_weight=reference)
    with np.errstate(divide="ignore"):
        logits = np.log(levels / (1 - levels)).astype(np.float32)
    seen = estimated(logits, isotonic.predict(levels), np.array(car_loans.CHUNK, float))
    assert seen["auc"] == pytest.approx(0.970744, abs=1e-6)

"""Metrics against sklearn, ties, one class and nothing included."""

import math

import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from stream_learner.judging import metrics
from stream_learner.judging.metrics import Sums

KINDS = ("smooth", "tied", "few levels", "rare", "shifted")


def scored(kind, n=3000, seed=0):
    """Logits and labels of which the logits know something."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    logits = rng.normal(-1.0, 1.5, n)
    if kind == "tied":
        logits = np.round(logits, 1)
    if kind == "few levels":
        logits = np.round(logits)
    if kind == "rare":
        logits -= 5
    labels = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    if kind == "shifted":
        logits += 2
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_ranks_equal_sklearn(kind, weighted):
    logits, labels = scored(kind)
    weights = np.random.default_rng(1).integers(1, 5, len(labels)).astype(float) if weighted else None
    wanted = oracle.roc_auc_score(labels, logits, sample_weight=weights)
    assert metrics.auc(logits, labels, weights) == pytest.approx(wanted, abs=1e-9)
    wanted = oracle.average_precision_score(labels, logits, sample_weight=weights)
    assert metrics.average_precision(logits, labels, weights) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_equal_sklearn(kind, weighted):
    logits, labels = scored(kind)
    weights = np.random.default_rng(1).integers(1, 5, len(labels)).astype(float) if weighted else np.ones(len(labels))
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    loss = oracle.log_loss(labels, p, sample_weight=weights)
    rate = np.average(labels.astype(float), weights=weights)
    base = oracle.log_loss(labels, np.full(len(labels), rate), sample_weight=weights)
    assert metrics.log_loss(logits, labels, weights) == pytest.approx(loss, abs=1e-9)
    assert metrics.normalized_entropy(logits, labels, weights) == pytest.approx(loss / base, abs=1e-9)
    wanted = (weights * p).sum() / (weights * labels).sum()
    assert metrics.calibration(logits, labels, weights) == pytest.approx(wanted, abs=1e-9)


def test_weights_are_repetitions():
    logits, labels = scored("tied", 200)
    times = np.random.default_rng(2).integers(0, 4, 200)
    again = np.repeat(logits, times), np.repeat(labels, times)
    for metric in (metrics.auc, metrics.average_precision, metrics.log_loss, metrics.calibration):
        assert metric(logits, labels, times) == pytest.approx(metric(*again), abs=1e-12)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_has_no_ranks(label):
    logits, labels = np.array([0.5, -1.0, 2.0], np.float32), np.full(3, label, np.float32)
    seen = metrics.summary(logits, labels)
    assert math.isnan(seen["auc"]) and math.isnan(seen["normalized_entropy"])
    assert seen["base_rate"] == label and seen["n"] == 3 and seen["n_pos"] == 3 * label
    assert math.isfinite(seen["log_loss"])
    assert math.isnan(seen["calibration"]) == (label == 0)
    assert math.isnan(seen["average_precision"]) == (label == 0)


def test_nothing_judged_is_nan_and_null_in_json():
    seen = metrics.summary(np.empty(0, np.float32), np.empty(0, np.float32))
    assert seen["n"] == 0 and seen["n_pos"] == 0
    assert all(math.isnan(value) for key, value in seen.items() if key not in ("n", "n_pos"))
    plain = metrics.finite_or_none(seen)
    assert plain["auc"] is None and plain["n"] == 0
    assert list(plain) == sorted(plain)


def test_finite_or_none_reaches_into_everything():
    given = {"b": [np.float32(1.5), math.inf, {"z": math.nan}], "a": (np.int64(3), True, None, "x")}
    assert metrics.finite_or_none(given) == {"a": [3, True, None, "x"], "b": [1.5, None, {"z": None}]}


def test_extreme_logits_stay_finite():
    logits, labels = np.array([-500, 500, -90, 90], np.float32), np.array([0, 1, 1, 0], np.float32)
    assert metrics.log_loss(logits, labels) == pytest.approx(45.0)
    assert metrics.probabilities(logits)[0] == pytest.approx(0.0, abs=1e-200)
    assert metrics.probabilities(np.array([-40.0]))[0] == pytest.approx(math.exp(-40), rel=1e-12)


def test_logits_and_probabilities_are_inverse():
    p = np.array([1e-6, 0.001, 0.3, 0.5, 0.999], np.float32)
    assert metrics.probabilities(metrics.to_logits(p)) == pytest.approx(p.astype(float), rel=1e-5)
    edge = metrics.to_logits(np.array([0.0, 1.0, np.nan], np.float32))
    assert np.isfinite(edge[:2]).all() and np.isnan(edge[2])


def test_sums_of_parts_add_up():
    logits, labels = scored("smooth", 100)
    parts = Sums.of(logits[:37], labels[:37]) + Sums.of(logits[37:], labels[37:])
    whole = Sums.of(logits, labels)
    assert (parts.n, parts.positives) == (whole.n, whole.positives)
    assert parts.loss == pytest.approx(whole.loss) and parts.predicted == pytest.approx(whole.predicted)
    assert metrics.entropy(0.0) == 0.0 and metrics.entropy(1.0) == 0.0
    assert metrics.entropy(0.5) == pytest.approx(math.log(2))


def test_levels_err_no_more_than_their_bound():
    logits, labels = scored("smooth", 5000)
    level = np.round(logits * 2).astype(int)
    level -= level.min()
    negatives = np.bincount(level, weights=1 - labels)
    positives = np.bincount(level, weights=labels)
    error = abs(metrics.auc_of_counts(negatives, positives) - metrics.auc(logits, labels))
    assert 0 < error <= metrics.auc_error_bound(negatives, positives) < 0.06


# ---- grouped AUC and calibration error ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_gauc_is_the_weighted_mean_of_every_users_auc(kind, weighted):
    logits, labels = scored(kind)
    rng = np.random.default_rng(7)
    users = rng.zipf(1.3, len(labels)).astype(np.uint64) % 500
    weights = rng.integers(1, 5, len(labels)).astype(float) if weighted else np.ones(len(labels))
    above = below = 0.0
    for user in np.unique(users):
        mine = users == user
        if len(set(labels[mine])) == 2:
            mass = weights[mine].sum()
            above += mass * oracle.roc_auc_score(labels[mine], logits[mine], sample_weight=weights[mine])
            below += mass
    seen = metrics.gauc(logits, labels, users, weights if weighted else None)
    assert below > 0 and seen == pytest.approx(above / below, abs=1e-9)


@pytest.mark.parametrize("labels", [[], [0, 0, 0], [1, 1, 1]])
def test_gauc_without_both_classes_in_any_group_is_not_defined(labels):
    labels = np.array(labels, np.float32)
    assert math.isnan(metrics.gauc(labels, labels, np.arange(len(labels), dtype=np.uint64)))


def test_gauc_of_one_group_is_the_auc():
    logits, labels = scored("tied")
    nobody = np.zeros(len(labels), np.uint64)
    assert metrics.gauc(logits, labels, nobody) == pytest.approx(metrics.auc(logits, labels), abs=1e-12)


def slow_ece(logits, labels, weights, bins):
    """Bin by bin over the distinct scores, each whole in the bin where its middle lies."""
    total, before, gaps = float(weights.sum()), 0.0, [0.0] * bins
    for score in sorted(set(logits.tolist())):
        tied = logits == score
        mass = float(weights[tied].sum())
        place = min(int((before + mass / 2) / total * bins), bins - 1)
        gaps[place] += mass / (1 + math.exp(-score)) - float((weights * labels)[tied].sum())
        before += mass
    return sum(abs(gap) for gap in gaps) / total


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_ece_equals_a_slow_one(kind, weighted):
    logits, labels = scored(kind, 1500)
    weights = np.random.default_rng(8).integers(1, 5, len(labels)).astype(float) if weighted else np.ones(len(labels))
    wanted = slow_ece(logits, labels.astype(float), weights, 15)
    assert metrics.ece(logits, labels, weights if weighted else None) == pytest.approx(wanted, abs=1e-9)


def test_ece_of_distinct_scores_is_sklearns_calibration_curve():
    rng = np.random.default_rng(9)
    logits = rng.normal(-1, 1.5, 1500)
    assert len(set(logits.tolist())) == len(logits)
    chances = metrics.probabilities(logits)
    labels = (rng.random(1500) < chances**2).astype(np.float32)
    true, called = calibration_curve(labels, chances, n_bins=15, strategy="quantile")
    assert metrics.ece(logits, labels) == pytest.approx(np.abs(true - called).mean(), abs=1e-9)
    assert math.isnan(metrics.ece(logits[:0], labels[:0]))


def test_sliding_auc_equals_rivers():
    river = pytest.importorskip("river.metrics")
    rng = np.random.default_rng(10)
    labels = rng.random(400) < 0.3
    scores = rng.normal(labels.astype(float), 1.0)  # without ties, which RollingROCAUC breaks by order of arrival
    rolling = river.RollingROCAUC(window_size=100)
    for at, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True)):
        rolling.update(label, score)
        if at >= 99:
            mine = metrics.auc(scores[at - 99 : at + 1], labels[at - 99 : at + 1])
            assert mine == pytest.approx(rolling.get(), abs=1e-9)


def test_reliability_cuts_equal_mass_and_never_tears_equal_scores_apart():
    logits = np.array([-3.0] * 50 + [0.0] * 30 + [2.0] * 20, np.float32)
    labels = np.array([0.0] * 50 + [1.0] * 15 + [0.0] * 15 + [1.0] * 20, np.float32)
    parts = metrics.reliability(logits, labels, bins=4)
    assert [part["n"] for part in parts] == [50, 30, 20]
    assert [part["observed"] for part in parts] == [0.0, 0.5, 1.0]
    assert [part["predicted"] for part in parts] == pytest.approx([1 / (1 + np.exp(3)), 0.5, 1 / (1 + np.exp(-2))])
    assert metrics.reliability(logits[:0], labels[:0]) == []

"""The confidence sequence: against its definition, its promise under luck, and what could break it."""

import numpy as np
import pytest

from stream_learner.judging.metrics import losses
from stream_learner.judging.sequence import BETS, PairedGains


def pairs(rng, shape, noise=0.3, rate=-3.0):
    """Two noisy views of the truth, exchangeable and so equally good, and labels."""
    truth = rng.normal(rate, 1.0, shape)
    labels = (rng.random(shape) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return *(np.float32(truth + rng.normal(0, noise, shape)) for _ in range(2)), labels


def mixture(gains, mean, alive):
    """The test process at a mean, by its definition: a weighted mean over bets of products over examples."""
    distance = np.abs(np.arange(len(BETS)) - 7)
    weights = (1.0 + distance) ** -2 / ((1.0 + distance) ** -2).sum()
    used = alive > BETS
    products = np.prod(1 + BETS[used, None] * gains, axis=1) * np.exp(-BETS[used] * len(gains) * mean)
    return float((weights[used] * products).sum())


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_bound_is_where_the_test_process_reaches_its_limit(alpha):
    a, b, labels = pairs(np.random.default_rng(1), 300, 0.8, -1.0)
    sums = PairedGains.of(a, b, labels)
    gains = losses(b, labels) - losses(a, labels)
    assert sums.total == pytest.approx(gains.sum()) and sums.squares == pytest.approx(np.square(gains).sum())
    for side, bound in ((gains, float(sums.lower(alpha))), (-gains, -float(sums.upper(alpha)))):
        worst = float(sums.worst[0 if side is gains else 1])
        assert worst >= -side.min()
        assert mixture(side, bound, 1 / worst) == pytest.approx(1 / alpha, rel=1e-6)
        assert mixture(side, bound + 1e-3, 1 / worst) < 1 / alpha


def test_sums_of_parts_are_the_whole_and_axes_are_separate():
    a, b, labels = pairs(np.random.default_rng(2), (5, 400))
    whole = PairedGains.of(a, b, labels)
    parts = PairedGains.none()
    for cut in (slice(0, 7), slice(7, 7), slice(7, 400)):
        parts += PairedGains.of(a[:, cut], b[:, cut], labels[:, cut])
    for row in range(5):
        alone = PairedGains.of(a[row], b[row], labels[row])
        assert float(alone.lower(0.05)) == pytest.approx(float(whole.lower(0.05)[row]), rel=1e-9)
        assert float(parts.upper(0.05)[row]) == pytest.approx(float(alone.upper(0.05)), rel=1e-9)


def test_models_that_change_places_change_sides():
    a, b, labels = pairs(np.random.default_rng(3), 500)
    one, other = PairedGains.of(a, b, labels), PairedGains.of(b, a, labels)
    assert float(one.lower(0.05)) == pytest.approx(-float(other.upper(0.05)))


@pytest.mark.parametrize(("rate", "noise"), [(-6.5, 0.4), (-3.5, 0.2), (-1.5, 0.5)])
def test_equal_models_are_proven_apart_less_often_than_promised(rate, noise):
    """300 streams of 40 looks; the bounds hold the truth at all of them together."""
    rng = np.random.default_rng(4)
    sums, wrong = PairedGains.none(), np.zeros(300, bool)
    for _ in range(40):
        sums += PairedGains.of(*pairs(rng, (300, 100), noise, rate))
        wrong |= sums.lower(0.05) > 0
    assert wrong.mean() < 0.05


def test_rare_large_losses_do_not_pass_for_luck():
    """One in 500 examples costs the candidate what it gains on the others: it looks better until the first comes."""
    rng = np.random.default_rng(5)
    champion = np.full((400, 100), -6.0, np.float32)
    candidate = np.full((400, 100), -7.0, np.float32)  # gains a little on each negative, loses 1 nat on each positive
    gain = losses(champion[0, :1], np.zeros(1)) - losses(candidate[0, :1], np.zeros(1))
    loss = losses(candidate[0, :1], np.ones(1)) - losses(champion[0, :1], np.ones(1))
    rate = float((gain / (gain + loss))[0])  # of positives at which the two are equally good
    sums, wrong = PairedGains.none(), np.zeros(400, bool)
    for _ in range(60):
        sums += PairedGains.of(candidate, champion, rng.random((400, 100)) < rate)
        wrong |= sums.lower(0.05) > 0
    assert wrong.mean() < 0.05


def test_a_real_gain_is_found():
    rng = np.random.default_rng(6)
    truth = rng.normal(-3, 1, 40_000)
    labels = rng.random(40_000) < 1 / (1 + np.exp(-truth))
    sums = PairedGains.of(truth, truth + rng.normal(0, 0.4, 40_000), labels)
    assert 0 < sums.lower(0.05) < sums.mean < sums.upper(0.05)


def test_hostile_scores_prove_nothing():
    wild = np.array([3e38, -3e38, 0.0, 50.0], np.float32)
    sums = PairedGains.of(wild, np.zeros(4, np.float32), np.array([1, 0, 1, 1], np.float32))
    assert sums.lower(0.05) == -np.inf and sums.upper(0.05) > 0
    nothing = PairedGains.none()
    assert nothing.lower(0.05) == -np.inf and np.isnan(nothing.mean)
    same = PairedGains.of(wild[2:], wild[2:], np.ones(2))
    assert -1 < same.lower(0.05) < 0 < same.upper(0.05) < 1


def test_a_restored_sequence_goes_on_bit_for_bit():
    rng = np.random.default_rng(7)
    before, after = pairs(rng, 300), pairs(rng, 300)
    sums = PairedGains.none() + PairedGains.of(*before)
    again = PairedGains.restored(sums.capture()) + PairedGains.of(*after)
    assert float(again.lower(0.05)) == float((sums + PairedGains.of(*after)).lower(0.05))

"""PSI by a hand formula, and every shape a column can take."""

import math

import numpy as np
import pytest

from stream_learner.events import ExampleBatch
from stream_learner.judging.drift import InputDrift
from stream_learner.settings import Drift, Duration

MINUTE = 60_000_000
SETTINGS = Drift(window=Duration.parse("1h"), bins=10, min_examples=100)
COLUMNS, IDS = {"price": 0, "clicks": 1}, {"category": 1}


def examples(numbers, ids=None):
    """A batch with these numbers [n, c]; ids [n, 2] default to one value."""
    numbers = np.asarray(numbers, np.float32)
    n = len(numbers)
    nothing = np.full(n, np.nan, np.float32)
    return ExampleBatch(
        time=np.zeros(n, np.int64),
        ids=np.full((n, 2), 7, np.uint64) if ids is None else np.asarray(ids, np.uint64),
        numbers=numbers,
        label=nothing,
        logit_candidate=nothing,
        logit_champion=nothing,
        logit_served=nothing,
        baseline=np.full((n, 4), np.nan, np.float32),
        judged=np.ones(n, bool),
        unseen=np.zeros((n, 2), bool),
    )


def psi_of(training, arriving, settings=SETTINGS, columns=None, ids=IDS):
    drift = InputDrift(COLUMNS if columns is None else columns, ids, settings, seed=3)
    drift.learned(training, 0, MINUTE)
    drift.rebase(MINUTE)
    drift.observe(arriving, 1, 2 * MINUTE)
    return drift.psi()


def one_column(training, arriving, settings=SETTINGS):
    pair = (examples(np.asarray(x, np.float32)[:, None]) for x in (training, arriving))
    return psi_of(*pair, settings, columns={"x": 0}, ids={})["x"]


def by_hand(shares_now, shares_then, smaller):
    """The definition, empty bins counting for half an example of the smaller side."""
    total = 0.0
    for now, then in zip(shares_now, shares_then, strict=True):
        now, then = max(now, 0.5 / smaller), max(then, 0.5 / smaller)
        total += (now - then) * math.log(now / then)
    return total


def test_psi_equals_the_hand_formula():
    training, arriving = (
        np.arange(1, 1001),
        np.concatenate([np.arange(1, 401), np.full(100, 950), np.full(100, np.nan)]),
    )
    then = [0.1] * 10 + [0.0]  # deciles of 1..1000, missing
    now = [1 / 6] * 4 + [0.0] * 5 + [1 / 6, 1 / 6]
    assert one_column(training, arriving) == pytest.approx(by_hand(now, then, 600), abs=1e-12)


def test_equal_samples_have_no_drift():
    rng = np.random.default_rng(0)
    values = rng.lognormal(0, 1, 2000)
    assert one_column(values, values[::-1]) == 0.0
    assert 0 <= one_column(values, rng.lognormal(0, 1, 2000)) < 0.03
    assert one_column(values, rng.lognormal(0.8, 1, 2000)) > 0.25


def test_zero_inflated_counts_have_a_bin_for_zero():
    training = np.concatenate([np.zeros(900), np.arange(1, 101)])
    arriving = np.concatenate([np.zeros(450), np.arange(1, 551)])
    then = [0.0, 0.9, 0.1]
    assert one_column(training, arriving) == pytest.approx(by_hand([0.0, 0.45, 0.55], then, 1000), abs=1e-12)


@pytest.mark.parametrize("value", [4.0, 6.0])
def test_a_constant_column_that_moves_either_way_is_seen(value):
    assert one_column(np.full(500, 5.0), np.full(500, 5.0)) == 0.0
    moved = one_column(np.full(500, 5.0), np.concatenate([np.full(250, 5.0), np.full(250, value)]))
    assert moved == pytest.approx(by_hand([0.5, 0.5], [1.0, 0.0], 500), abs=1e-12)


def test_missing_is_a_bin():
    values, absent = np.arange(500.0), np.full(500, np.nan)
    assert one_column(absent, absent) == 0.0
    assert one_column(values, absent) > 5
    assert one_column(absent, values) > 5
    half = np.where(np.arange(500) % 2, values, np.nan)
    assert one_column(half, half) == 0.0


def test_values_beyond_the_edges_and_infinities_are_counted():
    training = np.arange(1000.0)
    arriving = np.concatenate([np.full(500, -1e30), np.full(250, np.inf), np.full(250, 1e30)])
    assert one_column(training, arriving) == pytest.approx(by_hand([0.5] + [0] * 8 + [0.5], [0.1] * 10, 1000), abs=1e-9)
    assert math.isfinite(one_column(np.concatenate([training, np.full(900, np.inf)]), arriving))


@pytest.mark.parametrize("bins", [2, 3, 100])
def test_any_number_of_bins(bins):
    settings = Drift(window=Duration.parse("1h"), bins=bins, min_examples=10)
    rng = np.random.default_rng(1)
    training, arriving = rng.normal(0, 1, 5000), rng.normal(3, 1, 5000)
    assert one_column(training, arriving, settings) > 2
    assert one_column(training, rng.normal(0, 1, 5000), settings) < 0.06


def test_ids_are_judged_by_bucket():
    numbers = np.zeros((1600, 2))
    spread = np.stack([np.zeros(1600), np.arange(1600) % 16 + 16], axis=1)
    assert psi_of(examples(numbers, spread), examples(numbers, spread))["category"] == 0.0
    half = np.where(np.arange(1600) % 16 < 8, 0, spread[:, 1])  # 8 buckets gone missing
    moved = psi_of(examples(numbers, spread), examples(numbers, np.stack([spread[:, 0], half], axis=1)))["category"]
    wanted = by_hand([0.0] * 8 + [1 / 16] * 8 + [0.5], [1 / 16] * 16 + [0.0], 1600)
    assert moved == pytest.approx(wanted, abs=1e-12)


def test_too_few_examples_on_either_side_are_not_judged():
    many, few = examples(np.zeros((100, 2))), examples(np.zeros((99, 2)))
    assert psi_of(few, many) == {} == psi_of(many, few)
    assert set(psi_of(many, many)) == {"price", "clicks", "category"}
    assert InputDrift(COLUMNS, IDS, SETTINGS, 3).psi() == {}


def test_the_recent_window_slides():
    drift = InputDrift({"x": 0}, {}, SETTINGS, seed=3)
    drift.learned(examples(np.arange(1000)[:, None]), 0, MINUTE)
    drift.rebase(MINUTE)
    drift.observe(examples(np.full((1000, 1), 5)), 1, 2 * MINUTE)
    assert drift.psi()["x"] > 1
    drift.observe(examples(np.arange(1000)[:, None]), 2, 61 * MINUTE)
    assert drift.psi()["x"] > 0.1
    drift.observe(examples(np.empty((0, 1))), 3, 62 * MINUTE)  # the first has left: its slide ended an hour ago
    assert drift.psi()["x"] == 0.0


def test_the_reference_is_what_was_learned_since_the_version_before_and_at_least_the_window():
    drift = InputDrift({"x": 0}, {}, SETTINGS, seed=3)
    for number in range(1, 10):
        drift.learned(examples(np.full((100, 1), number)), number, number * 30 * MINUTE)
    drift.rebase(270 * MINUTE)
    assert drift.capture()["reference"]["x"]["rows"] == 900  # all before the first version
    drift.learned(examples(np.full((100, 1), 10)), 10, 300 * MINUTE)
    drift.rebase(300 * MINUTE)
    assert drift.capture()["reference"]["x"]["rows"] == 200  # the last hour: slides 9 and 10
    for number in range(11, 16):
        drift.learned(examples(np.full((100, 1), number)), number, number * 30 * MINUTE)
    drift.rebase(450 * MINUTE)
    assert drift.capture()["reference"]["x"]["rows"] == 500  # since the version before


def test_samples_are_bounded_and_fair():
    """Three quarters of the rows of slide 1 are 1.0, a quarter of slide 2 (a tenth the size): PSI sees the true mix."""
    drift = InputDrift({"x": 0}, {}, SETTINGS, seed=3)
    rng = np.random.default_rng(5)
    big = (rng.random((200_000, 1)) < 0.75).astype(np.float32)
    small = (rng.random((20_000, 1)) < 0.25).astype(np.float32)
    for number, numbers in enumerate([small, big, small, small]):
        drift.observe(examples(numbers), number, (number + 1) * MINUTE)
    rows, weights = drift._arrivals.columns()
    assert 10_000 < len(rows) <= 32_768
    assert weights.sum() == pytest.approx(260_000, rel=0.03)
    wanted = (big.sum() + 3 * small.sum()) / 260_000
    assert (rows[:, 0] * weights).sum() / weights.sum() == pytest.approx(wanted, abs=0.015)
    drift.observe(examples(small), 9, 62 * MINUTE)  # the big slide leaves, new rows are kept whole again
    drift.observe(examples(small[:100]), 10, 63 * MINUTE)
    assert drift._arrivals.columns()[1].min() == 1.0


@pytest.mark.parametrize("cut", [0, 3, 8])
def test_restored_drift_goes_on_bit_for_bit(cut):
    def run(drift, numbers):
        for number in numbers:
            rng = np.random.default_rng([9, number])
            batch = examples(rng.normal(number / 5, 1, (15_000, 2)), rng.integers(0, 50, (15_000, 2)))
            drift.learned(batch, number, (number + 1) * 20 * MINUTE)
            drift.observe(batch, number, (number + 1) * 20 * MINUTE)
            if number % 4 == 2:
                drift.rebase((number + 1) * 20 * MINUTE)
            yield drift.psi()

    whole, again = (InputDrift(COLUMNS, IDS, SETTINGS, seed=4) for _ in range(2))
    list(run(whole, range(cut)))
    again.restore(whole.capture())
    assert list(run(whole, range(cut, 12))) == list(run(again, range(cut, 12)))

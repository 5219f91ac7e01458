"""A change by feature that leaves every average alone is found and named; features beside bring no alarms."""

from dataclasses import replace

import numpy as np
import pytest

from stream_learner.events import ExampleBatch
from stream_learner.judging.drift import DriftWatch
from stream_learner.judging.drift_calibration import CalibrationDrift, _deviance
from stream_learner.judging.drift_inputs import InputColumns
from stream_learner.judging.metrics import probabilities
from stream_learner.settings import Drift, Duration
from tests.windows.streams import same_state

SLIDE = 10 * 60_000_000
PUBLISHED, CHANGED, SLIDES = 20, 60, 84
EFFECT = np.array([-0.6, -0.2, 0.2, 0.6])  # of each of four sources, on the log-odds


class Sources:
    """Clicks whose purchases follow a known model on price and source. `turned`: from slide CHANGED on the sources'
    effects are the other way round; `back`: until that slide."""

    columns = InputColumns({"price": 0}, {"source": 1}, (), 0)

    def __init__(self, seed=0, turned=False, back=SLIDES, noise=0, rows=1000):
        self.seed, self.turned, self.back, self.rows, self.noise = seed, turned, back, rows, noise
        self.watched = replace(self.columns, numbers={"price": 0} | {f"noise_{at}": at + 1 for at in range(noise)})

    def slide(self, number):
        rng, n = np.random.default_rng([self.seed, number]), self.rows
        price, source = rng.standard_normal(n), rng.integers(4, size=n)
        sign = -1 if self.turned and CHANGED <= number < self.back else 1
        logits = (-3.0 + price + EFFECT[source]).astype(np.float32)
        label = rng.random(n) < probabilities(-3.0 + price + sign * EFFECT[source])
        beside = np.random.default_rng([self.seed, number, 1]).standard_normal((n, self.noise))
        return ExampleBatch(
            time=np.full(n, number * SLIDE),
            ids=np.stack([rng.integers(1, 4000, n), source + 1], 1).astype(np.uint64),
            numbers=np.concatenate([price[:, None], beside], 1).astype(np.float32),
            label=label.astype(np.float32),
            logit_candidate=logits,
            logit_champion=logits,
            logit_served=logits,
            baseline=np.full((n, 4), 0.05, np.float32),
            judged=np.ones(n, bool),
            unseen=np.zeros((n, 2), bool),
        )


def heard(shop, watch=None, slides=range(SLIDES)):
    """(slide, finding) of every alarm."""
    watch = watch or DriftWatch(shop.watched, Drift(), 0)
    alarms = []
    for number in slides:
        examples, at = shop.slide(number), (number + 1) * SLIDE
        watch.arrived(examples, number, at)
        delays = np.full(len(examples), np.nan, np.float32)
        found = watch.matured(examples, delays, examples.logit_champion, number, (at - SLIDE, at))
        alarms += [(number, finding) for finding in found]
        if number == PUBLISHED:
            watch.published(at, lambda sample: sample.logit_champion)
    return alarms


@pytest.mark.parametrize("seed", [0, 1])
def test_effects_that_change_places_are_found_by_their_feature(seed):
    alarms = heard(Sources(seed, turned=True))
    assert {finding.kind for _, finding in alarms} == {"relation"}
    first, finding = alarms[0]
    assert CHANGED <= first <= CHANGED + 9
    assert (finding.subject, finding.measure) == ("source", "calibration")
    assert 0.2 < finding.value < 0.9  # the effects moved by .89 in the root mean square, in part of the span


def test_a_change_is_told_once_and_its_end_is_another():
    told = [number for number, finding in heard(Sources(turned=True, back=CHANGED + 12)) if finding.subject == "source"]
    assert len(told) == 2
    assert CHANGED <= told[0] < CHANGED + 12 <= told[1]


@pytest.mark.parametrize("rows", [100, 2500])
def test_no_change_no_alarms(rows):
    assert [heard(Sources(seed, rows=rows)) for seed in (1, 2)] == [[], []]


def test_features_beside_bring_no_alarms_and_hide_none():
    assert heard(Sources(3, noise=25), slides=range(60)) == []
    alarms = heard(Sources(turned=True, noise=25), slides=range(72))
    assert alarms and {finding.subject for _, finding in alarms} <= {"source", "prediction", "slope"}


def test_a_wrong_champion_is_not_drift():
    """The effect of the sources is left out of its scores; nothing changes."""

    class Ignorant(Sources):
        def slide(self, number):
            examples = super().slide(number)
            logits = examples.logit_champion - EFFECT[examples.ids[:, 1] - 1].astype(np.float32)
            return replace(examples, logit_champion=logits, logit_candidate=logits, logit_served=logits)

    found = [(number, finding.subject) for number, finding in heard(Ignorant())]
    assert [subject for _, subject in found if subject != "source"] == []
    assert len(found) <= 1 and all(number < CHANGED for number, _ in found)  # once, soon after it went into service


def test_frequent_looks_cost_no_more_memory():
    """A look a slide, slides of ten minutes, windows of two hours: the last 16 hours in at most eight steps each."""
    shop = Sources(rows=50)
    watch = CalibrationDrift(shop.watched, Drift(window=Duration.parse("2h")))
    watch.rebase(shop.slide(0), shop.slide(0).logit_champion)
    for number in range(200):
        examples = shop.slide(number)
        watch.matured(examples, examples.logit_champion)
        watch.tests((number + 1) * SLIDE)
    state = watch.capture()
    assert 8 * 4 <= len(state["steps"]) <= 8 * 8
    counted = state["before"] + sum(step["sums"] for step in state["steps"])
    assert counted[-1, :, 1].sum() == pytest.approx(
        sum(probabilities(shop.slide(n).logit_champion).sum() for n in range(200)), rel=1e-6
    )


@pytest.mark.parametrize("cut", [10, 63])
def test_a_restored_watch_goes_on_bit_for_bit(cut):
    shop = Sources(turned=True, rows=300)
    whole, again = (DriftWatch(shop.watched, Drift(), 0) for _ in range(2))
    heard(shop, whole, range(cut))
    again.restore(whole.capture())
    assert heard(shop, again, range(cut, SLIDES)) == heard(shop, whole, range(cut, SLIDES))
    assert same_state(again.capture(), whole.capture())


def test_the_deviance_is_that_of_the_binomial_and_the_poisson_distribution():
    trials, share, seen = 50.0, 0.3, np.array([0.0, 9.0, 15.0, 50.0])
    expected = np.full(4, trials * share)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = seen * np.log(seen / expected), (trials - seen) * np.log((trials - seen) / (trials - expected))
    assert np.allclose(_deviance(seen, expected, expected * (1 - share)), 2 * np.nansum(terms, axis=0))
    rare = 2 * (9 * np.log(9 / 4) - 5)
    assert np.allclose(_deviance(np.array([9.0]), np.array([4.0]), np.array([4.0])), rare, atol=1e-6)

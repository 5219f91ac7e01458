"""Seasons against medians taken one by one, the tail bound against exact sums, and the rule on made-up counts."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest
from outages import DAY, HOUR, WEEK, season

from stream_learner.judging.seasons import Seasons
from stream_learner.judging.shortfall import Shortfalls, log_tail_bound

RULE = (0.2, 1e-4)


def exact_log_tail(seen: int, mean: float, spread: float) -> float:
    """log P(X <= seen), X negative binomial, term by term."""
    size = spread**-2.0
    terms = [
        math.lgamma(k + size) - math.lgamma(size) - math.lgamma(k + 1)
        + size * math.log(size / (size + mean)) + k * math.log(mean / (size + mean))
        for k in range(seen + 1)
    ]  # fmt: skip
    return math.log(math.fsum(math.exp(term) for term in terms))


@pytest.mark.parametrize("spread", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("mean", [0.5, 5.0, 80.0])
def test_the_bound_lies_above_the_tail_and_not_far(mean: float, spread: float) -> None:
    for seen in range(int(mean) + 3):
        bound = float(log_tail_bound(np.array([float(seen)]), np.array([mean]), np.array([spread]))[0])
        exact = exact_log_tail(seen, mean, spread)
        assert exact <= bound + 1e-9
        assert bound <= 0
        if seen == 0:
            assert bound == pytest.approx(exact)  # of nothing at all, Chernoff's bound is the probability itself
    none = log_tail_bound(np.zeros(1), np.zeros(1), np.array([spread]))
    assert none.tolist() == [0.0]


class Oracle:
    """All blocks for ever, in dicts."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.blocks: dict[int, tuple[float, float]] = {}

    def add(self, time: int, seen: float, exposure: float) -> None:
        old = self.blocks.get(time // self.width, (0.0, 0.0))
        self.blocks[time // self.width] = (old[0] + seen, old[1] + exposure)

    def rate(self, time: int) -> float:
        last = sorted(self.blocks)[-(7 if self.width >= DAY else 3) :]
        groups = [last, [(time - k * WEEK) // self.width for k in range(1, 5)]]
        if self.width < DAY:
            groups.append([(time - k * DAY) // self.width for k in range(1, 8)])
        medians = []
        for group in groups:
            known = [self.blocks[b] for b in group if b in self.blocks]
            if rates := [seen / exposure for seen, exposure in known if exposure > 0]:
                medians.append(statistics.median(rates))
        return min(medians, default=math.nan)


@pytest.mark.parametrize("slide", [HOUR // 12, HOUR, 5 * HOUR, DAY])
def test_what_is_expected_is_the_least_of_three_medians(slide: int) -> None:
    rng = np.random.default_rng(slide % 97)
    seasons, oracles = Seasons(slide, 2), [Oracle(max(slide, HOUR)) for _ in range(2)]
    time = 0
    for _ in range(600):
        time += slide * int(rng.choice([1, 1, 1, 2, 40], p=[0.4, 0.3, 0.2, 0.08, 0.02]))
        expected = [oracle.rate(time) for oracle in oracles]
        np.testing.assert_allclose(seasons.rates(time), expected)
        seen, exposure = rng.poisson(6, 2).astype(float), rng.choice([0.0, 1.0, 3.0], 2)
        seen *= exposure > 0
        seasons.add(time, seen, exposure, exposure)
        for m, oracle in enumerate(oracles):
            oracle.add(time, seen[m], exposure[m])


def counts(rng: np.random.Generator, slide: int, days: int, per_slide: float, weekend: float) -> Any:
    """Slide starts, and counts whose level wanders by a fifth from hour to hour, with a burst now and then."""
    starts = np.arange(0, days * DAY, slide)
    mean = season(starts, weekend) * per_slide
    hours = starts // HOUR
    mean = mean * rng.gamma(25, 1 / 25, int(hours[-1]) + 1)[hours]
    for at in rng.integers(0, len(mean), days // 3):
        mean[at : at + HOUR // slide] *= 10
    return starts, rng.poisson(mean).astype(float)


@pytest.mark.parametrize(("slide", "per_slide"), [(HOUR // 12, 2.0), (HOUR // 12, 30.0), (HOUR, 1000.0)])
@pytest.mark.parametrize("weekend", [0.02, 1.0])
def test_seasons_quiet_weekends_and_bursts_are_no_shortfall_and_outages_are(
    slide: int, per_slide: float, weekend: float
) -> None:
    starts, seen = counts(np.random.default_rng(7), slide, 16, per_slide, weekend)
    outage = 15 * DAY + 12 * HOUR
    gone = (starts >= outage) & (starts < outage + 6 * HOUR)
    for lost in (False, True):
        test = Shortfalls(("all",), slide, *RULE)
        short = []
        for start, count in zip(starts.tolist(), np.where(gone & lost, 0.0, seen), strict=True):
            if start < WEEK:
                test.learn(start, np.array([count]), np.ones(1))
            elif found := test.look(start, np.array([count]), np.ones(1)):
                short.append((start, found[0].since))
        if not lost:
            assert short == []
            continue
        first, since = short[0]
        assert since >= outage - HOUR and first - outage <= (2 + 200 / per_slide) * slide  # as many as it takes
        during = [s for s in starts.tolist() if first <= s < outage + 6 * HOUR]
        assert [start for start, _ in short][: len(during)] == during
        assert short[-1][0] < outage + 7 * HOUR  # with two events in a slide, the next one may be empty by chance


def test_half_of_the_usual_is_drift() -> None:
    rng = np.random.default_rng(3)
    test = Shortfalls(("all",), HOUR, *RULE)
    for hour in range(24 * 28):
        level = 100.0 if hour < 24 * 14 else 45.0
        count = np.array([float(rng.poisson(level))])
        if hour < 24 * 7:
            test.learn(hour * HOUR, count, np.ones(1))
        else:
            assert test.look(hour * HOUR, count, np.ones(1)) == []


def test_a_run_teaches_the_season_only_when_it_ends_as_none() -> None:
    """Few events: empty slides are found out after some; had they gone on no longer, they would count."""
    one, busy, start = np.ones(1), np.array([20.0]), 24 * 8 * HOUR
    for fall in (1, 10):
        test = Shortfalls(("all",), HOUR // 12, *RULE)
        for n in range(12 * 24 * 8):
            test.learn(n * HOUR // 12, busy, one)
        found = [test.look(start + n * HOUR // 12, np.zeros(1), one) for n in range(fall)]
        assert found[0] == [] and (found[-1] != []) == (fall == 10)
        assert test.look(start + fall * HOUR // 12, busy, one) == []
        state = test.capture()["seasons"]
        mine = state["blocks"] == start // HOUR
        whole = 1 if fall == 10 else 2
        assert (state["exposure"][mine], state["seen"][mine]) == (whole, 20)

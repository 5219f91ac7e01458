"""Lateness, jumps and the minimum over partitions, against one event after the other."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stream_learner.ingest.source import Partition
from stream_learner.settings import CountSlides, Duration, Slides
from stream_learner.windows.watermark import ALWAYS, NEVER, Watermark

S = 1_000_000
P, Q, R = Partition("events", 0), Partition("events", 1), Partition("a:b", 0)
TIMED = Slides(slide=Duration(10 * S), allowed_lateness=Duration(3 * S), max_jump=Duration(100 * S))
COUNTED = Slides(by_count=CountSlides(size=7), allowed_lateness=Duration(3 * S), max_jump=Duration(100 * S))
Judged = tuple[list[bool], list[bool]]


def judge_one_by_one(settings: Slides, times: np.ndarray, timestamped: np.ndarray, floor: int) -> Judged:
    """The words of the design, in plain Python."""
    highest, late, ahead = None, [], []
    for time, stamped in zip(times.tolist(), timestamped.tolist(), strict=True):
        too_far = not stamped and highest is not None and time > highest + settings.max_jump
        ahead.append(too_far)
        if too_far:
            late.append(False)
            continue
        mark = NEVER if highest is None else highest - settings.allowed_lateness
        if settings.by_count is not None:
            late.append(time < mark or time < floor)
        else:
            start = time // settings.slide * settings.slide
            late.append(start + settings.slide <= mark or start < floor)
        highest = time if highest is None else max(highest, time)
    return late, ahead


def random_times(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Times around a rising line, with stragglers, leaps and many ties; some records with timestamps."""
    times = 1000 * S + np.arange(n) * S + (rng.normal(0, 4, n).round() * S).astype(np.int64)
    times -= np.where(rng.random(n) < 0.1, rng.integers(0, 60, n), 0) * S
    timestamped = rng.random(n) < 0.3
    times += np.where(~timestamped & (rng.random(n) < 0.2), rng.integers(80, 500, n), 0) * S
    return times.astype(np.int64), timestamped


def observe(watermark: Watermark, times: np.ndarray, timestamped: np.ndarray, cuts: list[int]) -> Judged:
    late: list[bool] = []
    ahead: list[bool] = []
    for begin, end in zip([0, *cuts], [*cuts, len(times)], strict=True):
        pair = watermark.observe(P, times[begin:end], timestamped[begin:end])
        late += pair[0].tolist()
        ahead += pair[1].tolist()
    return late, ahead


@pytest.mark.parametrize("settings", [TIMED, COUNTED], ids=["timed", "counted"])
@pytest.mark.parametrize("seed", range(8))
def test_masks_are_those_of_one_event_after_the_other_for_any_split(settings: Slides, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times, timestamped = random_times(rng, 300)
    floor = NEVER if seed % 2 else 1050 * S
    expected = judge_one_by_one(settings, times, timestamped, floor)
    assert sum(expected[0]) > 5
    assert sum(expected[1]) > 5
    highest = set()
    for cuts in ([], list(range(1, 300)), sorted(rng.choice(300, 12).tolist()), [0, 0, 300]):
        watermark = Watermark(settings)
        watermark.join(P, floor)
        assert observe(watermark, times, timestamped, cuts) == expected
        highest.add((watermark.highest(), watermark.value()))
    seen = times[~np.array(expected[1])].max()
    assert highest == {(seen, seen - 3 * S)}


def test_masks_have_their_types_and_may_be_empty() -> None:
    watermark = Watermark(TIMED)
    watermark.join(P)
    for n in (0, 3):
        late, ahead = watermark.observe(P, np.full(n, 5, np.int64), np.zeros(n, bool))
        assert late.dtype == ahead.dtype == bool
        assert late.shape == ahead.shape == (n,)
    assert type(watermark.highest()) is int


def one(watermark: Watermark, partition: Partition, second: float, *, stamped: bool = False) -> str:
    late, ahead = watermark.observe(partition, np.array([second * S], np.int64), np.array([stamped]))
    return "ahead" if ahead[0] else "late" if late[0] else "in time"


def test_late_is_what_ends_at_or_before_the_own_watermark() -> None:
    watermark = Watermark(TIMED)
    for partition in (P, Q):
        watermark.join(partition)
    assert one(watermark, P, 22.999999) == "in time"
    assert one(watermark, P, 0) == "late"  # [0, 10) ends before 19.999999
    assert one(watermark, P, 10) == "in time"  # [10, 20) does not
    assert one(watermark, P, 23) == "in time"
    assert one(watermark, P, 19.999999) == "late"  # now it does
    assert one(watermark, P, 20) == "in time"
    assert one(watermark, Q, 0) == "in time"  # another partition's watermark says nothing


def test_a_leap_counts_from_the_highest_time_so_far_and_moves_no_clock() -> None:
    watermark = Watermark(TIMED)
    watermark.join(P)
    assert one(watermark, P, 10_000) == "in time"  # the first sets the scale
    assert one(watermark, P, 10_100) == "in time"
    assert one(watermark, P, 10_200.000001) == "ahead"
    assert one(watermark, P, 10_200.000001) == "ahead"
    assert watermark.highest() == 10_100 * S
    assert one(watermark, P, 10_300, stamped=True) == "in time"  # was judged against its record's timestamp
    assert one(watermark, P, 10_400) == "in time"


def test_the_widest_limits_do_not_overflow() -> None:
    longest = Duration.parse("3650d")
    watermark = Watermark(Slides(allowed_lateness=longest, max_jump=longest))
    watermark.join(P)
    assert one(watermark, P, 7e9) == "in time"
    assert one(watermark, P, 1) == "late"
    assert watermark.value() == 7_000_000_000 * S - longest


def test_the_minimum_over_partitions_that_count() -> None:
    watermark = Watermark(TIMED)
    assert watermark.value() == NEVER
    watermark.join(P)
    watermark.join(Q)
    assert watermark.partitions() == (P, Q)
    one(watermark, P, 50)
    assert watermark.value() == NEVER  # the other has said nothing yet
    assert watermark.laggards() == {Q}
    one(watermark, Q, 40)
    assert watermark.value() == 37 * S
    assert watermark.laggards() == {Q}
    watermark.rest(Q)
    assert watermark.resting(Q)
    assert watermark.value() == 47 * S
    assert watermark.laggards() == {P, Q}  # one that rests must be read to wake
    watermark.wake(Q, 30 * S)
    assert not watermark.resting(Q)
    assert watermark.value() == 37 * S


def test_with_all_idle_nothing_is_complete_and_with_all_ended_everything_is() -> None:
    watermark = Watermark(TIMED)
    for partition in (P, Q, R):
        watermark.join(partition)
        one(watermark, partition, 50)
    for partition in (P, Q, R):
        watermark.rest(partition)
    assert watermark.value() == NEVER
    watermark.end([P])
    assert watermark.value() == NEVER  # those that are only idle may speak again
    assert watermark.laggards() == {P, Q, R}
    watermark.end([Q, R])
    assert watermark.value() == ALWAYS
    assert watermark.ended() == (R, P, Q)
    watermark.wake(P, NEVER)
    assert watermark.ended() == (R, Q)
    assert watermark.value() == 47 * S


def test_one_that_ended_holds_nothing_back() -> None:
    watermark = Watermark(TIMED)
    watermark.join(P)
    watermark.join(Q)
    watermark.end([Q])
    one(watermark, P, 50)
    assert watermark.value() == 47 * S
    assert watermark.resting(Q)
    assert watermark.laggards() == {P}


def test_what_woke_or_joined_is_late_below_its_floor() -> None:
    watermark = Watermark(TIMED)
    watermark.join(P, 30 * S)
    assert one(watermark, P, 29.999999) == "late"
    assert one(watermark, P, 30) == "in time"
    watermark.rest(P)
    watermark.wake(P, 60 * S)
    assert one(watermark, P, 59) == "late"
    assert one(watermark, P, 60) == "in time"
    watermark.wake(P, 20 * S)
    assert one(watermark, P, 59) == "late"  # a floor never falls


def test_a_restored_watermark_goes_on_the_same() -> None:
    rng = np.random.default_rng(1)
    times, timestamped = random_times(rng, 200)
    whole, first = Watermark(TIMED), Watermark(TIMED)
    for watermark in (whole, first):
        for partition in (P, Q, R):
            watermark.join(partition, 1020 * S)
        watermark.rest(Q)
        watermark.end([R])
        watermark.observe(P, times[:90], timestamped[:90])
    state = json.loads(json.dumps(first.capture()))
    second = Watermark(TIMED)
    second.restore(state)
    first.observe(P, times[90:95] + 500 * S, np.ones(5, bool))  # reaches no one else's state
    assert second.capture() == whole.capture() == state
    for partition in (P, Q, R):
        ours = second.observe(partition, times[90:], timestamped[90:])
        theirs = whole.observe(partition, times[90:], timestamped[90:])
        assert np.array_equal(ours, theirs)
    assert second.capture() == whole.capture()
    assert second.value() == whole.value()

"""Slides by time and by number of events, against a sort of everything."""

from __future__ import annotations

import copy
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from streams import SCHEMA, same_state

from stream_learner.events import EventBatch
from stream_learner.settings import CountSlides, Duration, Slides
from stream_learner.windows.slides import CountedSlides, OpenSlides, Slide, TimedSlides, open_slides
from stream_learner.windows.watermark import ALWAYS, NEVER

WIDTH = 10
Row = tuple[int, int, int, int]


def random_events(rng: np.random.Generator, n: int, span: int = 200) -> EventBatch:
    """Few distinct times, so that many are equal; places are unique."""
    offset = rng.permutation(n)
    return EventBatch(
        time=rng.integers(0, span, n),
        topic=rng.integers(0, 2, n).astype(np.int16),
        partition=rng.integers(0, 3, n).astype(np.int32),
        offset=offset.astype(np.int64),
        kind=np.zeros(n, np.int8),
        ids=rng.integers(0, 9, (n, 4)).astype(np.uint64),
        numbers=np.empty((n, 0), np.float32),
        label=rng.random(n).astype(np.float32),
        event_id=np.zeros(n, np.uint64),
    )


def rows(events: EventBatch) -> list[Row]:
    return list(
        zip(events.time.tolist(), events.topic.tolist(), events.partition.tolist(), events.offset.tolist(), strict=True)
    )


def add_in_parts(slides: OpenSlides, events: EventBatch, rng: np.random.Generator) -> None:
    order = rng.permutation(len(events))
    for part in np.array_split(order, int(rng.integers(1, 9))):
        slides.add(events.take(part))


def closed(slides: OpenSlides, watermark: int) -> list[Slide]:
    out = []
    while (slide := slides.close(watermark)) is not None:
        out.append(slide)
    return out


def kinds() -> list[OpenSlides]:
    return [TimedSlides(WIDTH, SCHEMA), CountedSlides(CountSlides(size="40/3", first=5), SCHEMA)]


def test_the_config_chooses() -> None:
    assert isinstance(open_slides(Slides(slide=Duration(5)), SCHEMA), TimedSlides)
    assert isinstance(open_slides(Slides(by_count=CountSlides(size=5)), SCHEMA), CountedSlides)


@pytest.mark.parametrize("seed", range(5))
def test_timed_slides_hold_their_interval_sorted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = random_events(rng, 120)
    slides = TimedSlides(WIDTH, SCHEMA)
    add_in_parts(slides, events, rng)
    assert len(slides) == 120
    expected = sorted(rows(events))
    got = []
    for number, slide in enumerate(closed(slides, ALWAYS)):
        assert slide.number == number
        assert slide.end == slide.start + WIDTH
        assert slide.start % WIDTH == 0
        assert rows(slide.events) == [row for row in expected if slide.start <= row[0] < slide.end]
        got += rows(slide.events)
    assert got == expected
    assert len(slides) == 0


def test_a_timed_slide_closes_when_the_watermark_reaches_its_end() -> None:
    rng = np.random.default_rng(0)
    slides = TimedSlides(WIDTH, SCHEMA)
    assert slides.close(ALWAYS) is None
    assert (slides.number, slides.floor) == (0, NEVER)
    slides.add(random_events(rng, 3, span=1))
    assert slides.close(NEVER) is None
    assert slides.close(WIDTH - 1) is None
    slide = slides.close(WIDTH)
    assert slide is not None
    assert (slide.start, slide.end, len(slide.events)) == (0, WIDTH, 3)
    assert (slides.number, slides.floor) == (1, WIDTH)


def test_empty_intervals_make_no_slide_and_no_number() -> None:
    rng = np.random.default_rng(0)
    slides = TimedSlides(WIDTH, SCHEMA)
    late = random_events(rng, 2, span=1)
    events = EventBatch.concat([late, late])
    events.time[2:] = 95
    slides.add(events)
    assert [(s.number, s.start) for s in closed(slides, 1000)] == [(0, 0), (1, 90)]
    assert slides.floor == 100


@pytest.mark.parametrize("count", [10, 50, 100, 1000])
def test_counted_cuts_are_those_of_linspace(count: int) -> None:
    """The cuts of a log of 100,000 events, the first 71,428 before the first cut, the rest in equal shares."""
    n = 100_000
    rng = np.random.default_rng(count)
    events = random_events(rng, n, span=n // 3)
    slides = CountedSlides(CountSlides(size=f"28572/{count}", first=71428), SCHEMA)
    slides.add(events)
    sizes = [len(slide.events) for slide in closed(slides, ALWAYS)]
    assert np.cumsum(sizes).tolist() == np.linspace(71428, n, count + 1).astype(int).tolist()


@pytest.mark.parametrize(
    ("first", "first_size", "edges"),
    [(50, 20, [20, 40, 50, 90, 130]), (50, "25/2", [12, 25, 37, 50, 90, 130]), (40, 0, [40, 80, 120, 130])],
)
def test_the_first_events_may_be_cut_by_a_size_of_their_own(
    first: int, first_size: int | str, edges: list[int]
) -> None:
    events = random_events(np.random.default_rng(1), 130, span=40)
    slides = CountedSlides(CountSlides(size=40, first=first, first_size=first_size), SCHEMA)
    slides.add(events)
    assert np.cumsum([len(slide.events) for slide in closed(slides, ALWAYS)]).tolist() == edges


@pytest.mark.parametrize(("size", "first"), [(7, 0), ("7", 3), ("40/3", 0), ("3.5", 1), (500, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_counted_slides_are_runs_of_the_sorted_log(size: str | int, first: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = random_events(rng, 130, span=40)
    slides = CountedSlides(CountSlides(size=size, first=first), SCHEMA)
    add_in_parts(slides, events, rng)
    step = Fraction(str(size))
    cuts = [int((first or int(step)) + k * step) for k in range(200)]
    edges = [0, *(cut for cut in cuts if cut < 130), 130]
    expected = sorted(rows(events))
    got = closed(slides, ALWAYS)
    assert [rows(s.events) for s in got] == [expected[a:b] for a, b in pairwise(edges)]
    assert [(s.number, s.start, s.end) for s in got] == [
        (k, expected[a][0], expected[b - 1][0]) for k, (a, b) in enumerate(pairwise(edges))
    ]
    assert slides.floor == expected[-1][0] + 1


def test_a_counted_slide_closes_when_nothing_can_come_before_its_last() -> None:
    rng = np.random.default_rng(0)
    slides = CountedSlides(CountSlides(size=3), SCHEMA)
    events = random_events(rng, 4, span=1)
    events.time[:] = [5, 6, 8, 8]
    slides.add(events)
    assert slides.close(NEVER) is None
    assert slides.close(8) is None  # another event at 8, of a partition that sorts before, may still come
    slide = slides.close(9)
    assert slide is not None
    assert slide.events.time.tolist() == [5, 6, 8]
    assert slides.close(1000) is None  # one left, three are needed
    slide = slides.close(ALWAYS)
    assert slide is not None
    assert slide.events.time.tolist() == [8]
    assert slides.close(ALWAYS) is None


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("seed", range(6))
def test_slides_do_not_depend_on_how_events_came_or_when_it_was_asked(which: int, seed: int) -> None:
    """Events arrive in any order that their watermark allows; closing is tried after each part, or once at the end."""
    rng = np.random.default_rng(seed)
    events = random_events(rng, 150).in_log_order()
    expected = kinds()[which]
    expected.add(events)
    whole = [(s.number, s.start, s.end, rows(s.events)) for s in closed(expected, ALWAYS)]
    slides = kinds()[which]
    got = []
    shuffled = np.argsort(events.time + rng.integers(0, 25, 150), kind="stable")
    for part in np.array_split(shuffled, 30):
        slides.add(events.take(part))
        left = np.setdiff1d(shuffled[np.flatnonzero(shuffled == part[-1])[0] + 1 :], [])
        watermark = int(events.time[left].min()) if len(left) else 200
        got += closed(slides, watermark)
    got += closed(slides, ALWAYS)
    assert [(s.number, s.start, s.end, rows(s.events)) for s in got] == whole


@pytest.mark.parametrize("which", [0, 1])
def test_a_restored_state_goes_on_the_same(which: int) -> None:
    rng = np.random.default_rng(3)
    events, more = random_events(rng, 100), random_events(rng, 60)
    more.time[:] += 90
    more.offset[:] += 100
    original, restored = kinds()[which], kinds()[which]
    add_in_parts(original, events, rng)
    first = original.close(60)
    assert first is not None
    state = original.capture()
    kept = copy.deepcopy(state)
    restored.restore(state)
    assert same_state(restored.capture(), state) or which == 1  # counted: sorted on the way
    assert len(restored) == len(original) == 100 - len(first.events)
    results = []
    for slides in (original, restored):
        slides.add(more.take(slice(0, 30)))
        results.append([*closed(slides, 120)])
        slides.add(more.take(slice(30, None)))
        results[-1] += closed(slides, ALWAYS)
    ours, theirs = results
    assert len(ours) > 3
    for a, b in zip(ours, theirs, strict=True):
        assert (a.number, a.start, a.end) == (b.number, b.start, b.end)
        assert same_state(a.events.capture(), b.events.capture())
    assert same_state(state, kept)


@pytest.mark.parametrize("which", [0, 1])
def test_a_state_without_events_can_be_restored(which: int) -> None:
    slides = kinds()[which]
    state = slides.capture()
    slides.restore(state)
    assert (len(slides), slides.number, slides.floor) == (0, 0, NEVER)
    assert state["events"]["ids"].shape == (0, 4)

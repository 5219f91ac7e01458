"""Cancellations against a loop over every event; what the early-learning modes are told, and what it adds up to."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from streams import SCHEMA, Slide, by_time, events_at, examples_of, random_events, same_state

from stream_learner import settings
from stream_learner.settings import Config, Duration, LabelMode
from stream_learner.windows.attribution import Attribution, Matured, select_examples
from stream_learner.windows.grouping import NEVER

CLICK, CART, PURCHASE = range(3)  # a cart cancels here
ONES = np.ones((4, 4))
EARLY_MODES: tuple[LabelMode, ...] = ("duplicate", "fnw", "fnc", "es_dfm")


def config_of(
    mode: LabelMode = "wait", source: Any = "at_once", horizon: int = 25, elapsed: int = 6, match: Any = "item"
) -> Config:
    labels = settings.Labels(
        mode=mode,
        source=source,
        horizon=Duration(horizon),
        elapsed=Duration(elapsed),
        cancel="cart",
        match=match,
    )
    return Config(labels=labels)


def stream_of(seed: int) -> list[Slide]:
    events = random_events(np.random.default_rng(seed), 300, 200, users=3 + 6 * (seed % 2), items=2, missing=0.05)
    slides = by_time(events, 10)
    end = slides[-1].end
    return [*slides, Slide(events.take(slice(0, 0)), end, end + 1000)]


def run(attribution: Attribution, slide: Slide, config: Config, *, early: bool = False) -> Matured:
    rows = select_examples(slide.events, SCHEMA, config)
    return attribution.step(slide.events, rows, examples_of(slide.events, rows), slide.end, early=early)


def first_positives(slides: list[Slide], config: Config) -> list[int]:
    """Of every click in order: the first purchase that no cancellation follows, event by event."""
    examples: list[list[Any]] = []
    width = 2 if config.labels.match == "item" else 1
    for number, slide in enumerate(slides):
        for row in range(len(slide.events)):
            time, ids = int(slide.events.time[row]), slide.events.ids[row].tolist()[:width]
            kind = slide.events.kind[row]
            for example in examples:
                if example[1] != ids or 0 in ids or time > example[0] + config.labels.horizon:
                    continue
                if config.labels.source == "next_slide" and example[3] == number:
                    continue
                if kind == PURCHASE and example[2] == NEVER:
                    example[2] = time
                if kind == CART:
                    example[2] = NEVER
            if kind == CLICK:
                examples.append([time, ids, NEVER, number])
    return [example[2] for example in examples]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("match", ["item", "any"])
@pytest.mark.parametrize("source", ["at_once", "next_slide"])
def test_a_cancellation_takes_back_what_came_before_it(source: str, match: str, seed: int) -> None:
    config = config_of(source=source, match=match, horizon=[7, 25, 60, 25][seed % 4])
    attribution, slides = Attribution(config, SCHEMA), stream_of(seed)
    got = [run(attribution, slide, config) for slide in slides]
    assert [time for matured in got for time in matured.positive_time.tolist()] == first_positives(slides, config)
    assert all((m.examples.label == (m.positive_time != NEVER)).all() for m in got)


def test_a_cancellation_reaches_as_far_back_as_a_purchase_does() -> None:
    """Clicks at 1 and 14 of a pair, a purchase at 15, cancelled at 27: too late for the first, due at 26."""
    config = config_of(horizon=25)
    attribution = Attribution(config, SCHEMA)
    run(
        attribution,
        Slide(events_at(np.array([1, 14, 15]), np.array([CLICK, CLICK, PURCHASE]), ONES[:3]), 0, 20),
        config,
    )
    later = run(attribution, Slide(events_at(np.array([27]), np.array([CART]), ONES[:1]), 20, 30), config)
    assert later.cancelled == 1
    last = run(attribution, Slide(events_at(np.array([38]), np.array([PURCHASE]), ONES[:1]), 30, 50), config)
    assert later.positive_time.tolist() == [15] and last.positive_time.tolist() == [38]


def key_of(examples: Any, row: int) -> tuple[int, ...]:
    """What tells an example of `streams` from any other."""
    return (int(examples.time[row]), *examples.numbers[row].astype(int).tolist(), *examples.ids[row].tolist())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mode", EARLY_MODES)
def test_what_was_told_adds_up_to_the_label(mode: LabelMode, seed: int) -> None:
    """All that was told of an example by the time it matures: as often positive as its label says, and one negative;
    none where it was positive when first told, and stayed so."""
    config = config_of(mode, horizon=[25, 60][seed % 2])
    attribution = Attribution(config, SCHEMA)
    told: dict[tuple[int, ...], list[tuple[float, float, bool]]] = defaultdict(list)
    waited = 0
    for number, slide in enumerate(stream_of(seed)):
        matured = run(attribution, slide, config, early=number > 2)
        assert matured.told is not None
        for row in range(len(matured.told)):
            says = matured.told
            told[key_of(says.examples, row)].append(
                (float(says.positive[row]), float(says.negative[row]), bool(says.first[row]))
            )
        for row, label in enumerate(matured.examples.label.tolist()):
            words = told.pop(key_of(matured.examples, row), [])
            assert bool(words) != matured.waited[row]
            waited += bool(matured.waited[row])
            if not words:
                continue
            assert [first for _, _, first in words] == [True] + [False] * (len(words) - 1)
            assert sum(positive for positive, _, _ in words) == label
            never_negative = words[0][0] == 1 and all(positive >= 0 for positive, _, _ in words)
            assert never_negative <= (mode == "es_dfm")
            assert sum(negative for _, negative, _ in words) == (0 if never_negative else 1)
    assert not told
    assert 0 < waited < 100  # those that came before anything had been learned


@pytest.mark.parametrize("mode", EARLY_MODES)
def test_told_in_the_order_in_which_it_became_known(mode: LabelMode) -> None:
    """Clicks at 1 and 2, a purchase of the first at 4: es_dfm tells what they are at 7 and 8, the others at once."""
    config = config_of(mode)
    attribution = Attribution(config, SCHEMA)
    events = events_at(
        np.array([1, 2, 4]), np.array([CLICK, CLICK, PURCHASE]), np.array([[1, 1, 1, 1], [2, 2, 1, 1], [1, 1, 1, 1]])
    )
    first = run(attribution, Slide(events, 0, 5), config, early=True).told
    empty = Slide(events.take(slice(0, 0)), 5, 10)
    second = run(attribution, empty, config, early=True).told
    assert first is not None and second is not None
    if mode == "es_dfm":
        assert len(first) == 0
        assert second.examples.time.tolist() == [1, 2]
        assert (second.positive.tolist(), second.negative.tolist()) == ([1, 0], [0, 1])
    else:
        assert len(second) == 0
        assert first.examples.time.tolist() == [1, 2, 1]
        assert (first.positive.tolist(), first.negative.tolist()) == ([0, 0, 1], [1, 1, 0])
        assert first.first.tolist() == [True, True, False]


def test_the_oracle_tells_the_label_to_come_and_never_again() -> None:
    config = config_of("oracle")
    attribution = Attribution(config, SCHEMA)
    events = events_at(np.array([1, 2, 4]), np.array([CLICK, CLICK, PURCHASE]), np.ones((3, 4)))
    rows = np.array([0, 1])
    examples = examples_of(events, rows)
    examples.label[:] = [1, 0]
    told = attribution.step(events, rows, examples, 5, early=True).told
    assert told is not None
    assert (told.positive.tolist(), told.negative.tolist()) == ([1, 0], [0, 1])
    later = run(attribution, Slide(events.take(slice(0, 0)), 40, 50), config, early=True)
    assert later.told is not None and len(later.told) == 0
    assert later.examples.label.tolist() == [1, 1] and not later.waited.any()


@pytest.mark.parametrize("mode", EARLY_MODES)
def test_a_model_that_forgot_is_told_at_maturity(mode: LabelMode) -> None:
    config = config_of(mode)
    attribution = Attribution(config, SCHEMA)
    clicks = events_at(np.array([1, 3]), np.array([CLICK, CLICK]), np.ones((2, 4)))
    run(attribution, Slide(clicks, 0, 10), config, early=True)
    attribution.forget(since=2)
    bought = events_at(np.array([12]), np.array([PURCHASE]), np.ones((1, 4)))
    told = run(attribution, Slide(bought, 10, 20), config, early=True).told
    assert told is not None and told.examples.time.tolist() == [1]
    assert run(attribution, Slide(bought.take(slice(0, 0)), 40, 50), config).waited.tolist() == [False, True]


@pytest.mark.parametrize("mode", ["wait", *EARLY_MODES])
def test_restored_it_tells_the_same(mode: LabelMode) -> None:
    config = config_of(mode)
    straight, broken = Attribution(config, SCHEMA), Attribution(config, SCHEMA)
    for slide in stream_of(1):
        state = broken.capture()
        run(broken, slide, config, early=True)  # lost in the crash
        broken = Attribution(config, SCHEMA)
        broken.restore(state)
        a, b = run(straight, slide, config, early=True), run(broken, slide, config, early=True)
        assert same_state(a.examples.capture(), b.examples.capture())
        assert a.waited.tolist() == b.waited.tolist()
        if a.told is not None and b.told is not None:
            assert same_state(a.told.examples.capture(), b.told.examples.capture())
            assert (a.told.positive.tolist(), a.told.first.tolist()) == (
                b.told.positive.tolist(),
                b.told.first.tolist(),
            )
        assert same_state(straight.capture(), broken.capture())

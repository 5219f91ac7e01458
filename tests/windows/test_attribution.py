"""Attribution against a loop over every click and every purchase; the tape it lies on against a list."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from streams import (
    SCHEMA,
    Slide,
    by_count,
    by_time,
    events_at,
    examples_of,
    random_events,
    same_state,
)

from stream_learner import settings
from stream_learner.errors import DataError
from stream_learner.settings import Config, Duration
from stream_learner.windows.attribution import Attribution, Matured, select_examples
from stream_learner.windows.grouping import NEVER
from stream_learner.windows.tape import Tape

CLICK, CART, PURCHASE = range(3)
SOURCES = ("at_once", "next_slide", "field")


def config_of(
    source: Any = "at_once",
    match: Literal["item", "any"] = "item",
    per: Literal["event", "slide"] = "event",
    horizon: int = 25,
    positive: str = "purchase",
) -> Config:
    return Config(
        examples=settings.Examples(per=per),
        labels=settings.Labels(source=source, match=match, horizon=Duration(horizon), positive=positive),
    )


def choose(slide: Slide, config: Config) -> list[int]:
    """select_examples, event by event."""
    rows, pairs = [], set()
    for row in range(len(slide.events)):
        if slide.events.kind[row] != CLICK:
            continue
        if config.labels.source == "field" and np.isnan(slide.events.label[row]):
            continue
        pair = tuple(slide.events.ids[row][:2].tolist())
        if config.examples.per == "event" or pair not in pairs:
            rows.append(row)
        pairs.add(pair)
    return rows


class Oracle:
    """Waits with a list of (slide, row, time, ids, first positive)."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.waiting: list[list[Any]] = []
        self.slides = 0

    def step(self, slide: Slide) -> tuple[list[tuple[int, int, float, int]], int, int]:
        """[(slide, row, label, first positive)] of what matured, purchases, unmatched."""
        purchases = unmatched = 0
        rows = choose(slide, self.config)
        if self.config.labels.source == "field":
            purchases = int(np.sum(slide.events.kind == PURCHASE))
            matured = []
            for row in rows:
                label = float(slide.events.label[row])
                matured.append((self.slides, row, label, int(slide.events.time[row]) if label else NEVER))
            self.slides += 1
            return matured, purchases, 0
        fresh: list[list[Any]] = []
        for row in range(len(slide.events)):
            time, ids = int(slide.events.time[row]), slide.events.ids[row].tolist()
            if slide.events.kind[row] == PURCHASE:
                purchases += 1
                candidates = self.waiting + (fresh if self.config.labels.source == "at_once" else [])
                unmatched += not self.credit(candidates, time, ids)
            if row in rows:
                fresh.append([self.slides, row, time, ids, NEVER])
        self.waiting += fresh
        horizon = int(self.config.labels.horizon)
        mature = [e for e in self.waiting if slide.end > e[2] + horizon]
        self.waiting = [e for e in self.waiting if slide.end <= e[2] + horizon]
        self.slides += 1
        return [(s, r, float(first != NEVER), first) for s, r, _, _, first in mature], purchases, unmatched

    def credit(self, candidates: list[list[Any]], time: int, ids: list[int]) -> bool:
        width = 2 if self.config.labels.match == "item" else 1
        matched = False
        for example in candidates:
            same = example[3][:width] == ids[:width] and 0 not in ids[:width]
            if same and example[2] <= time <= example[2] + int(self.config.labels.horizon):
                matched = True
                if example[4] == NEVER:
                    example[4] = time
        return matched


def run(attribution: Attribution, slide: Slide, config: Config) -> Matured:
    rows = select_examples(slide.events, SCHEMA, config)
    matched = attribution.matched(slide.events, rows)
    out = attribution.step(slide.events, rows, examples_of(slide.events, rows), slide.end)
    assert (len(matched), np.count_nonzero(~matched)) == (out.purchases, out.unmatched)
    return out


def stream_of(seed: int, span: int = 200) -> list[Slide]:
    rng = np.random.default_rng(seed)
    events = random_events(rng, 250, span, users=4 + 8 * (seed % 2), items=3, missing=0.05)
    return by_count(events, 13) if seed % 3 == 2 else by_time(events, 10)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("per", ["event", "slide"])
@pytest.mark.parametrize("match", ["item", "any"])
@pytest.mark.parametrize("source", SOURCES)
def test_equals_the_definition(source: str, match: Any, per: Any, seed: int) -> None:
    config = config_of(source, match, per, horizon=[0, 7, 25, 60, 25, 10][seed])
    attribution, oracle = Attribution(config, SCHEMA), Oracle(config)
    slides = stream_of(seed)
    end = slides[-1].end
    slides.append(Slide(slides[-1].events.take(slice(0, 0)), end, end + 1000))  # all is mature in the end
    positives = 0
    for slide in slides:
        assert select_examples(slide.events, SCHEMA, config).tolist() == choose(slide, config)
        matured, purchases, unmatched = oracle.step(slide)
        got = run(attribution, slide, config)
        rows = got.examples.numbers[:, 0].astype(int).tolist()
        labels, firsts = got.examples.label.tolist(), got.positive_time.tolist()
        assert list(zip(got.arrived_slide.tolist(), rows, labels, firsts, strict=True)) == matured
        assert (got.purchases, got.unmatched) == (purchases, unmatched)
        assert got.positives == sum(label == 1 for label in labels)
        assert len(attribution) == len(oracle.waiting)
        assert attribution.oldest_time() == (oracle.waiting[0][2] if oracle.waiting else None)
        assert attribution.pending().time.tolist() == [e[2] for e in oracle.waiting]
        positives += got.positives
    assert positives > 0 or (source == "next_slide" and config.labels.horizon == 0)
    assert len(attribution) == 0


@pytest.mark.parametrize("source", SOURCES)
def test_restoring_changes_nothing(source: str) -> None:
    config = config_of(source, horizon=35)
    straight, broken = Attribution(config, SCHEMA), Attribution(config, SCHEMA)
    for slide in stream_of(3):
        state = broken.capture()
        run(broken, slide, config)  # lost in the crash
        broken = Attribution(config, SCHEMA)
        broken.restore(state)
        a, b = run(straight, slide, config), run(broken, slide, config)
        assert same_state(a.examples.capture(), b.examples.capture())
        assert (a.positives, a.purchases, a.unmatched) == (b.positives, b.purchases, b.unmatched)
        assert a.positive_time.tolist() == b.positive_time.tolist()
        assert same_state(straight.capture(), broken.capture())


def slide_of(start: int, end: int, *events: tuple[int, int], user: int = 1, item: int = 1) -> Slide:
    """Events (time, kind) of one user and item."""
    times, kinds = zip(*events, strict=True) if events else ((), ())
    return Slide(events_at(np.array(times), np.array(kinds), np.full((len(events), 4), [user, item, 0, 0])), start, end)


def labels_of(config: Config, *slides: Slide) -> list[list[float]]:
    attribution = Attribution(config, SCHEMA)
    return [run(attribution, slide, config).examples.label.tolist() for slide in slides]


def test_the_last_instant_of_the_horizon_counts_and_the_next_does_not() -> None:
    config = config_of(horizon=20)
    click, empty = slide_of(0, 10, (5, CLICK)), slide_of(30, 40)
    assert labels_of(config, click, slide_of(20, 30, (25, PURCHASE)), empty) == [[], [1.0], []]
    assert labels_of(config, click, slide_of(20, 30, (26, PURCHASE)), empty) == [[], [0.0], []]


def test_an_example_matures_only_when_its_last_instant_has_been_seen() -> None:
    """time + horizon = 30: the slide [20, 30) does not hold that instant, [30, 40) does."""
    config = config_of(horizon=25)
    click = slide_of(0, 10, (5, CLICK))
    assert labels_of(config, click, slide_of(20, 30), slide_of(30, 40, (30, PURCHASE))) == [[], [], [1.0]]


def test_equal_times_are_told_apart_by_the_log_order() -> None:
    """Purchase, click, purchase and click in one instant: only the first click is followed."""
    config = config_of(horizon=3)
    instant = slide_of(0, 10, (5, PURCHASE), (5, CLICK), (5, PURCHASE), (5, CLICK))
    assert labels_of(config, instant) == [[1.0, 0.0]]
    assert labels_of(config_of("next_slide", horizon=3), instant) == [[0.0, 0.0]]


def test_a_purchase_of_the_same_slide_waits_for_no_one_in_next_slide() -> None:
    config = config_of("next_slide", horizon=20)
    first = slide_of(0, 10, (1, CLICK), (2, PURCHASE))
    second = slide_of(10, 20, (12, PURCHASE))
    assert labels_of(config, first, second, slide_of(20, 30)) == [[], [], [1.0]]
    assert labels_of(config, first, slide_of(20, 30)) == [[], [0.0]]


def test_every_pending_click_of_the_pair_becomes_positive_and_none_of_another() -> None:
    config = config_of(horizon=50)
    attribution = Attribution(config, SCHEMA)
    run(attribution, slide_of(0, 10, (1, CLICK), (2, CLICK)), config)
    run(attribution, slide_of(10, 20, (11, CLICK), item=2), config)
    got = run(attribution, slide_of(20, 30, (21, CLICK), (22, PURCHASE)), config)
    assert (got.purchases, got.unmatched, len(got.examples)) == (1, 0, 0)
    got = run(attribution, slide_of(90, 100), config)
    assert got.examples.label.tolist() == [1, 1, 0, 1]
    assert got.positive_time.tolist() == [22, 22, NEVER, 22]
    assert got.arrived_slide.tolist() == [0, 0, 1, 2]


def test_a_type_that_can_be_both_does_not_follow_itself() -> None:
    config = config_of(positive="click", horizon=20)
    assert labels_of(config, slide_of(0, 10, (1, CLICK)), slide_of(30, 40)) == [[], [0.0]]
    assert labels_of(config, slide_of(0, 10, (1, CLICK), (1, CLICK)), slide_of(30, 40)) == [[], [1.0, 0.0]]


def test_without_a_positive_type_all_examples_are_negative() -> None:
    config = config_of(positive="subscription", horizon=5)
    assert labels_of(config, slide_of(0, 10, (1, CLICK), (2, PURCHASE)), slide_of(30, 40)) == [[0.0], []]


def test_a_hot_pair_over_many_slides_and_its_index_stays_small() -> None:
    """40,000 clicks of one pair, a purchase in every slide: each click is settled once, matured ones leave the runs."""
    config = config_of(horizon=100)
    attribution = Attribution(config, SCHEMA)
    total = 0
    for k in range(200):
        times = np.full(201, 10 * k + 5)
        kinds = np.append(np.full(200, CLICK), PURCHASE)
        got = run(attribution, Slide(events_at(times, kinds, np.ones((201, 4))), 10 * k, 10 * k + 10), config)
        assert (got.unmatched, got.positives) == (0, len(got.examples))
        total += got.positives
    assert total + len(attribution) == 40_000
    runs = attribution._pending._runs
    assert sum(len(run) for run in runs) <= 4 * len(attribution)
    assert len(runs) <= 8


def test_matured_examples_are_those_that_came_in_apart_from_the_label() -> None:
    config = config_of(horizon=15)
    attribution = Attribution(config, SCHEMA)
    came, went = [], []
    for slide in stream_of(1):
        rows = select_examples(slide.events, SCHEMA, config)
        came.append(examples_of(slide.events, rows))
        went.append(attribution.step(slide.events, rows, came[-1], slide.end).examples)
    went.append(attribution.pending())
    a, b = came[0].concat(came).capture(), went[0].concat(went).capture()
    a.pop("label"), b.pop("label")
    assert same_state(a, b)


def test_before_the_first_slide_nothing_is_pending() -> None:
    attribution = Attribution(config_of(), SCHEMA)
    assert len(attribution) == len(attribution.pending()) == 0
    assert attribution.oldest_time() is None
    attribution.restore(attribution.capture())
    assert len(attribution) == 0


@pytest.mark.parametrize("seed", range(5))
def test_tape_equals_a_list(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tape, rows, start = Tape(block_rows=7), [], 0
    for _ in range(80):
        n = int(rng.integers(0, 12))
        values = np.arange(len(rows), len(rows) + n) // 3
        tape.append(a=values, b=np.stack([values, -values], 1).astype(np.float32))
        rows += [[int(value), 0] for value in values]
        if rng.random() < 0.4:
            start = int(rng.integers(start, len(rows) + 1))
            tape.drop(start)
        if rng.random() < 0.3:
            state = tape.capture()
            tape.append(a=values, b=np.stack([values, -values], 1).astype(np.float32))
            tape = Tape(block_rows=7)
            tape.restore(state)
        assert (tape.start, tape.stop, len(tape)) == (start, len(rows), len(rows) - start)
        held = [row[0] for row in rows[start:]]
        low, high = sorted(rng.integers(start, len(rows) + 1, 2).tolist())
        read = tape.read(low, high)
        assert read["a"].tolist() == [row[0] for row in rows[low:high]]
        assert read["b"].shape == (high - low, 2)
        value = int(rng.integers(0, len(rows) // 3 + 2))
        assert tape.first_at_least("a", value, low) == next(
            (p for p in range(low, len(rows)) if rows[p][0] >= value), len(rows)
        )
        assert list(tape.read(start, len(rows), ("b",))["b"][:, 0]) == held


def test_tape_replaces_only_what_still_holds_the_old_value() -> None:
    tape = Tape(block_rows=4)
    tape.append(first=np.array([9, 0, 0, 0, 0, 5, 0, 0, 0, 0]))
    tape.drop(1)
    tape.replace("first", 0, np.array([8, 1, 5, 4]), np.array([80, 10, 50, 40]))
    assert tape.read(1, 10)["first"].tolist() == [10, 0, 0, 40, 5, 0, 0, 80, 0]
    tape.replace("first", 0, np.empty(0, np.int64), np.empty(0, np.int64))


def test_more_pending_examples_than_allowed_stop_the_worker_and_name_the_key() -> None:
    config = config_of(horizon=1000)
    few = msgspec.structs.replace(config, labels=msgspec.structs.replace(config.labels, max_pending=3))
    attribution = Attribution(few, SCHEMA)
    events = events_at(np.arange(4), np.full(4, CLICK), np.ones((4, len(SCHEMA.ids))))
    rows = np.arange(4)
    with pytest.raises(DataError, match=r"4 examples wait for their label, more than labels\.max_pending 3"):
        attribution.step(events, rows, examples_of(events, rows), 10)

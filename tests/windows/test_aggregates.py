"""Aggregates against dictionaries and loops that follow the definitions event by event."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from streams import SCHEMA, Slide, by_count, by_time, events_at, examples_of, onto, random_events, same_state

from stream_learner import settings
from stream_learner.errors import ConfigError
from stream_learner.events import ExampleBatch
from stream_learner.keys import mix
from stream_learner.settings import Config, Distinct, Duration, Within
from stream_learner.windows.aggregates import Aggregates
from stream_learner.windows.columns import aggregate_columns

FOREVER = 10**15


def config_of(slide: int = 10, field: bool = False, count: int = 0, **aggregates: Any) -> Config:
    """Spans are plain microseconds."""
    aggregates["windows"] = [Duration(w) for w in aggregates.pop("windows", [30, 100])]
    aggregates["half_lives"] = [Duration(h) for h in aggregates.pop("half_lives", [])]
    aggregates["expire_after"] = Duration(aggregates.pop("expire_after", FOREVER))
    aggregates.setdefault("keys", ["user", "item", "user*item"])
    cut = settings.CountSlides(size=count) if count else None
    return Config(
        slides=settings.Slides(slide=Duration(slide), by_count=cut),
        aggregates=settings.Aggregates(**aggregates),
        labels=settings.Labels(source="field" if field else "at_once"),
    )


class Oracle:
    """Every event kept in a list by key; every number counted anew."""

    def __init__(self, config: Config) -> None:
        self.config, self.a = config, config.aggregates
        self.slide = 1 if config.slides.by_count else int(config.slides.slide)
        self.past: dict[str, dict[int, list[tuple[int, str]]]] = {key: {} for key in self.a.keys}
        self.mixed: dict[tuple[int, ...], int] = {}
        self.parts: dict[int, list[int]] = {}  # pair -> its ids
        self.labels: dict[str, dict[int, list[tuple[int, int]]]] = {key: {} for key in self.a.keys}
        self.matured = self.matured_positive = 0
        self.edge, self.swept, self.positives, self.examples = 0, 0, 0, 0
        self.expired = self.evicted = 0
        self.field = config.labels.source == "field"
        self.counted = list(SCHEMA.kinds if self.a.counts is None else self.a.counts)
        self.positive = "label" if self.field else "purchase"

    def as_of(self, kind: str) -> str:
        if kind == "label":
            mine = self.a.as_of.get("click", "event")
            return "slide_start" if mine == "slide_end" else mine
        return self.a.as_of.get(kind, "event")

    def key_of(self, key: str, ids: np.ndarray) -> int:
        """0 where an id is missing."""
        values = tuple(ids[SCHEMA.ids.index(part)] for part in key.split("*"))
        if values not in self.mixed:
            pair = mix(*[np.array([v]) for v in values])[0] if len(values) > 1 else values[0]
            self.mixed[values] = 0 if 0 in values else int(pair)
        return self.mixed[values]

    def entries(self, events: Any) -> list[tuple[int, int, str, np.ndarray]]:
        """(row, time, kind, ids), tracked kinds only, in log order."""
        out = []
        for row in range(len(events)):
            kind = SCHEMA.kinds[events.kind[row]]
            if kind in {*self.counted, "click", self.positive}:
                out.append((row, int(events.time[row]), kind, events.ids[row]))
            if self.field and kind == "click" and events.label[row] == 1:
                out.append((row, int(events.time[row]), "label", events.ids[row]))
        return out

    def alive(self, time: int, window: int | None, edge: int) -> bool:
        if window is None:
            return True
        pane = max(self.slide, window // self.a.panes)
        return (time // pane + 1) * pane > edge - window

    def step(self, slide: Slide, rows: list[int]) -> list[list[float]]:
        self.forget_expired(slide.start)
        start, end = max(self.edge, slide.start), max(self.edge, slide.start, slide.end)
        entries = self.entries(slide.events)
        overall = (self.positives + 1) / (self.examples + 100)
        self.slide_start, self.slide_end = slide.start, slide.end  # what decays is as of these, not of the edges
        out = [self.features(entries, row, slide.events, start, end, overall) for row in rows]
        for _, time, kind, ids in entries:
            for key in self.a.keys:
                if self.key_of(key, ids):
                    self.past[key].setdefault(self.key_of(key, ids), []).append((time, kind))
                    self.parts[self.key_of(key, ids)] = list(ids)
            self.positives += kind == self.positive
            self.examples += kind == "click"
        self.edge = end
        self.forget_beyond_limit()
        return out

    def features(self, entries: Any, row: int, events: Any, start: int, end: int, overall: float) -> list[float]:
        ids, now = events.ids[row], int(events.time[row])

        def visible(key: str, value: int, kind: str, window: int | None) -> list[int]:
            """Times of what may be seen: the past as of the edge, and what part of the slide as_of lets in."""
            as_of = self.as_of(kind)
            edge = end if as_of == "slide_end" else start
            times = [t for t, k in self.past[key].get(value, []) if k == kind and self.alive(t, window, edge)]
            if as_of != "slide_start":
                mine = [(r, t) for r, t, k, other in entries if k == kind and self.key_of(key, other) == value]
                if as_of == "event":
                    times += [t for r, t in mine if r < row]
                else:
                    times += [t for _, t in mine if self.alive(t, window, edge)]
            return times

        references = {"event": now, "slide_start": self.slide_start, "slide_end": self.slide_end}
        ends = self.as_of("click") == "slide_end"
        edge = self.slide_end if ends else self.slide_start

        def of_rank(pair: str, value: int) -> list[int]:
            """Times of the clicks that a rank is made of."""
            times = [t for t, k in self.past[pair].get(value, []) if k == "click"]
            if ends:
                times += [t for _, t, k, other in entries if k == "click" and self.key_of(pair, other) == value]
            return times

        self.reference = {kind: references[self.as_of(kind)] for kind in {*self.counted, "click", self.positive}}
        return self.values(visible, ids, now, overall, self.slide_start, lambda *pair: (of_rank(*pair), edge))

    def values(self, visible: Any, ids: np.ndarray, now: int, overall: float, start: int, of_rank: Any) -> list[float]:
        windows: list[int | None] = [int(w) for w in self.a.windows] + [None] * self.a.ever
        out: list[float] = []
        for key in self.a.keys:
            value = self.key_of(key, ids)
            block: list[float] = [len(visible(key, value, k, w)) for w in windows for k in self.counted]
            if self.a.rates:
                for w in windows:
                    positives = len(visible(key, value, self.positive, w))
                    examples = len(visible(key, value, "click", w))
                    block.append((positives + self.a.smoothing * overall) / (examples + self.a.smoothing))
            if self.a.recency:
                for k in self.counted:
                    times = visible(key, value, k, None)
                    block.append(max(0, now - max(times)) / 1e6 if times else math.nan)
            for of in [d.of for d in self.a.distinct if d.key == key]:
                pair = f"{key}*{of}" if f"{key}*{of}" in self.a.keys else f"{of}*{key}"
                for w in windows:
                    pairs = self.pairs_seen(key, ids, pair)
                    block.append(sum(bool(visible(pair, p, "click", w)) for p in pairs))
            block += self.decays(visible, key, value, overall, start)
            block += self.between(visible, key, ids, of_rank)
            out += [math.nan] * len(block) if value == 0 else block
        return out

    def decayed(self, visible: Any, key: str, value: int, kind: str, half_life: int) -> float:
        times = visible(key, value, kind, None)
        return sum(2.0 ** -(max(0, self.reference[kind] - t) / half_life) for t in times)

    def decays(self, visible: Any, key: str, value: int, overall: float, start: int) -> list[float]:
        s, halves = self.a.smoothing, [int(h) for h in self.a.half_lives]
        out = [self.decayed(visible, key, value, k, h) for h in halves for k in self.counted]
        if self.a.rates:
            for h in halves:
                positives = self.decayed(visible, key, value, self.positive, h)
                out.append((positives + s * overall) / (self.decayed(visible, key, value, "click", h) + s))
        if self.a.label_rates:
            known = self.labels[key].get(value, [])
            weights = [[2.0 ** -(max(0, start - t) / h) for t, _ in known] for h in halves] + [[1.0] * len(known)]
            totals = [sum(weight) for weight in weights]
            good = [sum(w * y for w, (_, y) in zip(weight, known, strict=True)) for weight in weights]
            rate = (self.matured_positive + 1) / (self.matured + 100)
            out += totals + [(p + s * rate) / (n + s) for p, n in zip(good, totals, strict=True)]
        return out

    def between(self, visible: Any, key: str, ids: np.ndarray, of_rank: Any) -> list[float]:
        halves = [int(h) for h in self.a.half_lives]
        out: list[float] = []
        value = self.key_of(key, ids)
        for within in [w for w in self.a.ranks if key in (f"{w.key}*{w.of}", f"{w.of}*{w.key}")]:

            def count(pair: int, half_life: int) -> float:
                times, edge = of_rank(key, pair)
                return sum(2.0 ** -(max(0, edge - t) / half_life) for t in times)

            others = self.pairs_seen(within.key, ids, key) - {value}
            out += [1 + sum(count(p, h) > count(value, h) * (1 + 1e-9) for p in others) for h in halves]
        for within in [w for w in self.a.shares if key in (f"{w.key}*{w.of}", f"{w.of}*{w.key}")]:
            whole = self.key_of(within.key, ids)
            spans = [*(int(w) for w in self.a.windows), *[None] * self.a.ever]
            parts = [(len(visible(key, value, "click", w)), len(visible(within.key, whole, "click", w))) for w in spans]
            for h in halves:
                keys = (key, value), (within.key, whole)
                parts.append(tuple(self.decayed(visible, k, v, "click", h) for k, v in keys))
            out += [part / total if total else 0.0 for part, total in parts]
        return out

    def learn_labels(self, examples: Any, now: int) -> None:
        for ids, label in zip(examples.ids, examples.label, strict=True):
            for key in self.a.keys:
                value = self.key_of(key, ids)
                if value in self.past[key]:
                    self.labels[key].setdefault(value, []).append((now, int(label)))
        self.matured += len(examples)
        self.matured_positive += int(examples.label.sum())

    def pairs_seen(self, key: str, ids: np.ndarray, pair: str) -> set[int]:
        """All pairs ever met with this key's id, held or not."""
        return self.known[pair, key, int(ids[SCHEMA.ids.index(key)])]

    def learn_pairs(self, events: Any) -> None:
        """Names every pair of the stream beforehand, so that `pairs_seen` finds those of the slide too."""
        self.known: dict[tuple[str, str, int], set[int]] = defaultdict(set)
        for ids in events.ids:
            for pair in [key for key in self.a.keys if "*" in key and self.key_of(key, ids)]:
                for part in pair.split("*"):
                    self.known[pair, part, int(ids[SCHEMA.ids.index(part)])].add(self.key_of(pair, ids))

    def last_seen(self, key: str, value: int) -> int:
        return max(t for t, _ in self.past[key][value])

    def forget(self, gone: dict[str, set[int]]) -> int:
        for d in [*self.a.distinct, *self.a.ranks, *self.a.shares]:
            pair = f"{d.key}*{d.of}" if f"{d.key}*{d.of}" in self.a.keys else f"{d.of}*{d.key}"
            column = SCHEMA.ids.index(d.key)
            gone[pair] |= {p for p in self.past[pair] if self.parts[p][column] in gone[d.key]}
        for key, values in gone.items():
            for value in values:
                del self.past[key][value]
                self.labels[key].pop(value, None)
        return sum(len(values) for values in gone.values())

    def forget_expired(self, edge: int) -> None:
        pane = max(self.slide, int(self.a.expire_after) // self.a.panes)
        if edge // pane <= self.swept:
            return
        self.swept = edge // pane
        limit = self.swept * pane - int(self.a.expire_after)
        self.expired += self.forget(
            {key: {v for v in held if self.last_seen(key, v) <= limit} for key, held in self.past.items()}
        )

    def forget_beyond_limit(self) -> None:
        gone = {}
        for key, held in self.past.items():
            order = sorted((self.last_seen(key, value), value) for value in held)
            most = self.a.max_keys
            going = len(held) - most + most // 16 if len(held) > most else 0
            gone[key] = {value for _, value in order[:going]}
        self.evicted += self.forget(gone)


BOTH = [Distinct(key="user", of="item"), Distinct(key="item", of="user")]
PAIRS = [Within(key="user", of="item"), Within(key="item", of="user")]
FADING: dict[str, Any] = {"half_lives": [3, 40], "label_rates": True, "shares": PAIRS, "ranks": PAIRS[:1]}
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "starts": {"as_of": {"click": "slide_start", "purchase": "slide_start", "cart": "slide_end"}, "distinct": BOTH},
    "ends": {"as_of": {"click": "slide_end", "purchase": "slide_start"}, "distinct": BOTH},
    "events": {"distinct": BOTH, "windows": [10, 45, 90], "panes": 3},
    "window = slide": {"windows": [10], "ever": False, "as_of": {"click": "slide_end", "cart": "slide_start"}},
    "only purchases counted": {"counts": ["purchase"], "distinct": BOTH[:1], "as_of": {"purchase": "slide_start"}},
    "one wide pane": {"panes": 1, "keys": ["user*item", "user", "category", "category*user"], "rates": False},
    "item first in the pair": {"keys": ["item*user", "item", "user"], "distinct": BOTH, "recency": False},
    "expiring": {"expire_after": 60, "distinct": BOTH, "panes": 5, "windows": [30, 500]},
    "expiring, slide ends": {"expire_after": 45, "distinct": BOTH, "as_of": {"click": "slide_end"}},
    "few keys": {"max_keys": 16, "distinct": BOTH, "windows": [30, 300]},
    "few keys, expiring": {"max_keys": 16, "expire_after": 80, "distinct": BOTH, "as_of": {"click": "slide_start"}},
    "explicit labels": {"field": True},
    "explicit labels, slide ends": {"field": True, "as_of": {"click": "slide_end"}, "counts": ["click"]},
    "ever alone": {"windows": [], "distinct": BOTH},
    "by count": {"count": 17, "distinct": BOTH, "panes": 7},
    "by count, long slides": {"count": 90, "distinct": BOTH, "as_of": {"click": "slide_end"}, "windows": [7, 33]},
    "fading": FADING,
    "fading, slide ends": {**FADING, "as_of": {"click": "slide_end", "purchase": "slide_start"}, "ranks": PAIRS},
    "fading, slide starts": {**FADING, "as_of": {"click": "slide_start"}, "windows": [10], "recency": False},
    "fading, expiring": {**FADING, "expire_after": 60, "distinct": BOTH, "rates": False, "ever": False},
    "fading, few keys": {**FADING, "max_keys": 16, "counts": ["click"], "ranks": PAIRS},
    "fading, by count": {**FADING, "count": 17, "distinct": BOTH[:1]},
    "fading, explicit labels": {**FADING, "field": True},
    "by count, expiring": {"count": 5, "distinct": BOTH, "expire_after": 50, "max_keys": 20, "panes": 2},
}


def stream_for(config: Config, seed: int) -> list[Slide]:
    rng = np.random.default_rng([seed, 7])
    busy = bool(seed % 2)
    events = random_events(rng, 220, 400, users=4 if busy else 25, items=6 if busy else 15, missing=0.08)
    if config.slides.by_count:
        return by_count(events, int(config.slides.by_count.size))
    return by_time(events, int(config.slides.slide))


def clicks(slide: Slide, rng: np.random.Generator) -> np.ndarray:
    rows = np.flatnonzero(slide.events.kind == 0)
    return rows[rng.random(len(rows)) < 0.8]  # an example need not be made of every click


def matured(slide: Slide, rng: np.random.Generator) -> ExampleBatch:
    """Some clicks with labels; which, and that they come from the slide itself, does not matter here."""
    rows = clicks(slide, rng)
    return replace(examples_of(slide.events, rows), label=(rng.random(len(rows)) < 0.3).astype(np.float32))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_equals_the_definitions(case: str, seed: int) -> None:
    config = config_of(**CASES[case])
    slides = stream_for(config, seed)
    aggregates, oracle = Aggregates(config, SCHEMA), Oracle(config)
    oracle.learn_pairs(slides[0].events.concat([slide.events for slide in slides]))
    rng = np.random.default_rng(seed)
    kinds = [column.kind for column in aggregates.columns]
    exact = [kind not in ("rate", "decayed", "share") for kind in kinds]
    for slide in slides:
        rows = clicks(slide, rng)
        got = aggregates.step(slide.events, rows, slide.start, slide.end)
        expected = np.array(oracle.step(slide, rows.tolist())).reshape(len(rows), len(kinds))
        labelled = matured(slide, rng)
        now = slide.end - bool(config.slides.by_count)  # the next slide may begin at the last event's time
        aggregates.take_in_labels(labelled, now)
        oracle.learn_labels(labelled, now)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got[:, exact], expected[:, exact].astype(np.float32))
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        assert aggregates.sizes() == {key: len(held) for key, held in oracle.past.items()}
        assert (aggregates.expired, aggregates.evicted) == (oracle.expired, oracle.evicted)
    if seed == 0:  # many ids: the rare branches were taken
        assert (aggregates.expired > 0) == ("expire_after" in CASES[case])
        assert (aggregates.evicted > 0) == ("max_keys" in CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_restoring_changes_nothing(case: str) -> None:
    config = config_of(**CASES[case])
    slides = stream_for(config, 2)
    rng = np.random.default_rng(5)
    straight, broken = Aggregates(config, SCHEMA), Aggregates(config, SCHEMA)
    for slide in slides:
        state = broken.capture()
        broken.step(slide.events, clicks(slide, rng), slide.start, slide.end)  # lost in the crash
        broken.take_in_labels(matured(slide, rng), slide.end)
        broken = Aggregates(config, SCHEMA)
        broken.restore(state)
        rows = np.flatnonzero(slide.events.kind == 0)
        a = straight.step(slide.events, rows, slide.start, slide.end)
        b = broken.step(slide.events, rows, slide.start, slide.end)
        labelled = matured(slide, rng)
        straight.take_in_labels(labelled, slide.end)
        broken.take_in_labels(labelled, slide.end)
        assert a.tobytes() == b.tobytes()
        assert same_state(straight.capture(), broken.capture())
        for key in config.aggregates.keys:
            for one, other in zip(straight.table(key, 5, slide.end), broken.table(key, 5, slide.end), strict=True):
                assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("case", CASES)
def test_what_changed_adds_up_to_the_whole(case: str) -> None:
    config = config_of(**CASES[case])
    rng, told = np.random.default_rng(9), 0
    straight, told_of = Aggregates(config, SCHEMA), Aggregates(config, SCHEMA)
    state = None
    for slide in stream_for(config, 2):
        rows, labelled, whole = clicks(slide, rng), matured(slide, rng), bool(rng.random() < 0.9)
        for aggregates in (straight, told_of):
            aggregates.step(slide.events, rows, slide.start, slide.end, whole=whole)
            aggregates.take_in_labels(labelled, slide.end)
        if rng.random() < 0.1:
            straight.erase(some := np.unique(slide.events.ids[:2, 0]))
            told_of.erase(some)
        if rng.random() < 0.5:
            state = onto(state, told_of.changes() if state is not None else told_of.capture())
            if rng.random() < 0.5:
                told_of = Aggregates(config, SCHEMA)
                told_of.restore(state)
            copy = Aggregates(config, SCHEMA)
            copy.restore(state)
            assert same_state(straight.capture(), copy.capture())
            told += 1
    assert told > 1


@pytest.mark.parametrize("case", ["events", "ends", "expiring", "few keys", "by count, long slides", "fading"])
def test_table_holds_what_an_example_at_the_end_would_see(case: str) -> None:
    config = config_of(**CASES[case])
    slides = stream_for(config, 1)
    aggregates, oracle = Aggregates(config, SCHEMA), Oracle(config)
    oracle.learn_pairs(slides[0].events.concat([slide.events for slide in slides]))
    none = np.empty(0, np.int64)
    own = [n for n, column in enumerate(aggregates.columns) if column.key == "item"]
    for slide in slides:
        aggregates.step(slide.events, none, slide.start, slide.end)
        oracle.step(slide, [])
        before = aggregates.capture()
        keys, values = aggregates.table("item", 4, slide.end)
        assert same_state(before, aggregates.capture())
        recent = sorted(oracle.past["item"], key=lambda item: (-oracle.last_seen("item", item), item))[:4]
        assert keys.tolist() == sorted(recent)

        def visible(key: str, value: int, kind: str, window: int | None) -> list[int]:
            past = oracle.past[key].get(value, [])
            return [t for t, k in past if k == kind and oracle.alive(t, window, oracle.edge)]

        overall = (oracle.positives + 1) / (oracle.examples + 100)
        for item, got in zip(keys.tolist(), values, strict=True):
            ids = np.array([0, item, 0, 0], np.uint64)
            oracle.reference = dict.fromkeys([*SCHEMA.kinds, "label"], slide.end)
            expected = np.array(oracle.values(visible, ids, slide.end, overall, slide.end, lambda *pair: ([], 0)))[own]
            np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_day_slide_sees_yesterday_or_today() -> None:
    """P1 of the protocols: purchases of the previous day exactly, clicks of this day exactly."""
    config = config_of(slide=10, windows=[10], as_of={"click": "slide_end", "purchase": "slide_start"}, ever=False)
    aggregates = Aggregates(config, SCHEMA)
    names = [column.name for column in aggregates.columns]
    days = {0: ["click", "purchase", "purchase"], 1: ["click", "click", "purchase"], 2: ["click"]}
    seen = []
    for day, kinds in days.items():
        n = len(kinds)
        kind = [SCHEMA.kinds.index(k) for k in kinds]
        events = events_at(np.full(n, day * 10 + 9), kind, np.ones((n, 4)))
        row = aggregates.step(events, np.array([0]), day * 10, day * 10 + 10)[0]
        seen.append((row[names.index("user_click_10us")], row[names.index("user_purchase_10us")]))
    assert seen == [(1, 0), (2, 2), (1, 1)]


def test_nothing_is_left_when_all_has_gone() -> None:
    config = config_of(windows=[30, 100], ever=False, distinct=BOTH, panes=4)
    aggregates = Aggregates(config, SCHEMA)
    for slide in stream_for(config, 3):
        aggregates.step(slide.events, np.empty(0, np.int64), slide.start, slide.end)
    far = 10**6
    nothing = slide.events.take(slice(0, 0))
    assert aggregates.step(nothing, np.empty(0, np.int64), far, far + 10).shape == (0, len(aggregates.columns))
    kinds = [c.kind for c in aggregates.columns if c.key == "user"]
    values = aggregates.table("user", 100, far + 10)[1]
    assert len(values) and not values[:, [k in ("count", "distinct") for k in kinds]].any()
    tables = aggregates.capture()["tables"]
    assert all(t["counts"]["cells"]["start"] == t["counts"]["cells"]["stop"] for t in tables.values())


def test_empty_slides_make_no_difference() -> None:
    config = config_of(expire_after=60, distinct=BOTH)
    slides = [s for n, s in enumerate(stream_for(config, 0)) if n % 7 < 2]
    every, busy = Aggregates(config, SCHEMA), Aggregates(config, SCHEMA)
    at = 0
    for slide in slides:
        while at < slide.start:
            every.step(slide.events.take(slice(0, 0)), np.empty(0, np.int64), at, at + 10)
            at += 10
        at = slide.end
        rows = np.flatnonzero(slide.events.kind == 0)
        a = every.step(slide.events, rows, slide.start, slide.end)
        assert a.tobytes() == busy.step(slide.events, rows, slide.start, slide.end).tobytes()


def test_columns_and_their_order() -> None:
    config = Config(aggregates=settings.Aggregates(keys=["user", "user*item"], counts=["click"], distinct=BOTH[:1]))
    columns = aggregate_columns(config, SCHEMA)
    spans = ["1h", "1d", "7d", "ever"]
    assert [c.name for c in columns] == [
        *[f"user_click_{s}" for s in spans],
        *[f"user_rate_{s}" for s in spans],
        "user_recency_click",
        *[f"user_distinct_item_{s}" for s in spans],
        *[f"user_item_click_{s}" for s in spans],
        *[f"user_item_rate_{s}" for s in spans],
        "user_item_recency_click",
    ]
    assert {c.kind: c.transform for c in columns} == {
        "count": "log1p",
        "rate": "none",
        "recency": "log1p",
        "distinct": "log1p",
    }
    assert {c.key for c in columns} == {"user", "user*item"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keys": ["user", "shop"]}, "'shop' is no id"),
        ({"keys": ["user", "user*shop"]}, "'shop' is no id"),
        ({"counts": ["click", "gift"]}, "'gift' is no event type"),
        ({"keys": ["user", "item"], "distinct": BOTH[:1]}, "'user\\*item'"),
        ({"keys": ["user*item"], "distinct": BOTH[:1]}, "'user'"),
        ({"windows": [Duration(100), Duration(100)]}, "two columns would be named"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Aggregates(config_of(**wrong), SCHEMA)


def test_a_slide_that_is_not_whole_is_a_gap_in_every_window_but_was_seen() -> None:
    """As if its events had never been, except for when a key was last seen."""
    config = config_of(distinct=BOTH, windows=[30, 100])
    gapped, spared, straight = (Aggregates(config, SCHEMA) for _ in range(3))
    counted = np.array([column.kind != "recency" for column in gapped.columns])
    broken = {3, 4, 9}
    for number, slide in enumerate(stream_for(config, 5)):
        rows = np.flatnonzero(slide.events.kind == 0)
        whole = number not in broken
        seen = gapped.step(slide.events, rows, slide.start, slide.end, whole=whole)
        known = straight.step(slide.events, rows, slide.start, slide.end)
        np.testing.assert_array_equal(seen[:, ~counted], known[:, ~counted])
        if whole:
            wanted = spared.step(slide.events, rows, slide.start, slide.end)
            np.testing.assert_array_equal(seen[:, counted], wanted[:, counted])
    assert number > max(broken)

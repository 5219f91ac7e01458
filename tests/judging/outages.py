"""A made-up source with seasons and bursts, cut into slides, from which any part can be taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import config as configs
from stream_learner.events import EventBatch, ExampleBatch
from stream_learner.judging.join_health import Broken, JoinHealth
from stream_learner.settings import Config
from stream_learner.windows.attribution import Attribution, select_examples
from stream_learner.windows.slides import Slide, TimedSlides

S = 1_000_000
HOUR, DAY, WEEK = 3600 * S, 86_400 * S, 7 * 86_400 * S
CLICK, PURCHASE = 0, 1

Loss = Callable[[EventBatch], NDArray[np.bool_]]


def config_of(slide: str = "30m", horizon: str = "2h", **quarantine: Any) -> Config:
    told = ", ".join(f"{key}: {value}" for key, value in {"warm_up": "3d", **quarantine}.items())
    return configs.parse(f"""
topics:
  events: {{types: {{click: click, purchase: purchase}}, numeric: {{price: price}}, categorical: {{source: source}}}}
slides: {{slide: {slide}}}
aggregates: {{windows: [1d], expire_after: 30d}}
labels: {{horizon: {horizon}}}
quarantine: {{{told}}}
""")


def season(times: NDArray[np.int64], weekend: float = 0.3) -> NDArray[np.float64]:
    """Traffic relative to its peak: quiet nights (a tenth), and weekends at a share of the week."""
    hour = times % DAY / HOUR
    day = 0.55 - 0.45 * np.cos(2 * np.pi * (hour - 3) / 24)
    return day * np.where(times // DAY % 7 >= 5, weekend, 1.0)


def stream(seed: int, days: float, per_hour: float, *, conversion: float = 0.1, bursts: int = 0) -> EventBatch:
    """Clicks, and purchases of the same item within the hour; `bursts` hours have five times the traffic."""
    rng = np.random.default_rng(seed)
    minutes = np.arange(round(days * 24 * 60)) * 60 * S
    rate = season(minutes) * per_hour / 60
    for at in rng.integers(0, len(rate), bursts):
        rate[at : at + 60] *= 5
    wander = np.repeat(rng.gamma(25, 1 / 25, len(rate) // 60 + 1), 60)[: len(rate)]  # a fifth, from hour to hour
    clicks = np.repeat(minutes, rng.poisson(rate * wander))
    clicks = clicks + rng.integers(0, 60 * S, len(clicks))
    bought = np.flatnonzero(rng.random(len(clicks)) < conversion)
    delay = rng.integers(1, 3600 * S, len(bought))
    owner = np.concatenate([np.arange(len(clicks)), bought])
    times = np.concatenate([clicks, clicks[bought] + delay])
    kinds = np.repeat([CLICK, PURCHASE], [len(clicks), len(bought)])
    order = np.argsort(times, kind="stable")
    order = order[times[order] < minutes[-1]]
    return _batch(times[order], kinds[order], owner[order] + 1)


def _batch(times: NDArray[np.int64], kinds: NDArray[Any], owner: NDArray[Any]) -> EventBatch:
    n = len(times)
    users, items = (owner.astype(np.uint64) * np.uint64(prime) % np.uint64(1 << 40) for prime in (2654435761, 40503))
    ids = np.stack([users, items, np.zeros(n, np.uint64), np.ones(n, np.uint64)], 1)
    return EventBatch(
        time=times,
        topic=np.zeros(n, np.int16),
        partition=np.zeros(n, np.int32),
        offset=np.arange(n),
        kind=kinds.astype(np.int8),
        ids=ids,
        numbers=np.ones((n, 1), np.float32),
        label=np.full(n, np.nan, np.float32),
        event_id=np.zeros(n, np.uint64),
    )


def within(start: int, end: int, kind: int | None = None) -> Loss:
    """What lies in a span of time, of one type or of all."""
    return lambda events: (events.time >= start) & (events.time < end) & ((events.kind == kind) | (kind is None))


def without(events: EventBatch, lost: Loss) -> EventBatch:
    return events.take(~lost(events))


def without_price(events: EventBatch, lost: Loss) -> EventBatch:
    return replace(events, numbers=np.where(lost(events)[:, None], np.float32(np.nan), events.numbers))


def rekeyed(events: EventBatch, lost: Loss) -> EventBatch:
    """Users known by another id."""
    ids = events.ids.copy()
    ids[lost(events), 0] += np.uint64(1 << 50)
    return replace(events, ids=ids)


def funnelled(events: EventBatch, lost: Loss) -> EventBatch:
    """All by the user, and of the item, of the last click before the span."""
    rows, ids = np.flatnonzero(lost(events)), events.ids.copy()
    ids[rows] = ids[np.flatnonzero(events.kind[: rows[0]] == CLICK)[-1]]
    return replace(events, ids=ids)


def slides_of(events: EventBatch, config: Config) -> Iterator[Slide]:
    cut = TimedSlides(int(config.slides.slide), configs.event_schema(config))
    cut.add(events)
    while (slide := cut.close(2**62)) is not None:
        yield slide


def examples_of(events: EventBatch, rows: NDArray[np.int64]) -> ExampleBatch:
    n, clicks = len(rows), events.take(rows)
    nothing = np.full(n, np.nan, np.float32)
    return ExampleBatch(
        time=clicks.time,
        ids=clicks.ids,
        numbers=clicks.numbers,
        label=nothing,
        logit_candidate=nothing,
        logit_champion=nothing,
        logit_served=nothing,
        baseline=np.zeros((n, 3), np.float32),
        judged=np.ones(n, bool),
        unseen=np.zeros((n, 2), bool),
    )


@dataclass
class Watched:
    """Join health and attribution of one stream, as the worker runs them."""

    config: Config

    def __post_init__(self) -> None:
        self.schema = configs.event_schema(self.config)
        self.health = JoinHealth(self.config, self.schema)
        self.attribution = Attribution(self.config, self.schema)
        self.found: list[Broken] = []

    def step(self, slide: Slide) -> list[Broken]:
        events = slide.events
        rows = select_examples(events, self.schema, self.config)
        matched = self.attribution.matched(events, rows)
        found = self.health.closed(slide, events, rows, int(matched.sum()), len(matched))
        self.found += found
        matured = self.attribution.step(events, rows, examples_of(events, rows), slide.end)
        trusted = matured.take(~touched(matured.examples.time, int(self.config.labels.horizon), self.found))
        more = self.health.matured(trusted.examples.time, trusted.arrived_slide, trusted.positives)
        self.found += more
        return found + more


def touched(times: NDArray[np.int64], horizon: int, broken: list[Broken]) -> NDArray[np.bool_]:
    """Which examples clicked at `times` have an attribution window that meets a broken slide, slide by slide."""
    out = np.zeros(len(times), bool)
    for slide in broken:
        out |= (times < slide.end) & (times + horizon >= slide.start)
    return out


def broken_in(events: EventBatch, config: Config) -> list[Broken]:
    watched = Watched(config)
    return [broken for slide in slides_of(events, config) for broken in watched.step(slide)]

"""Small random streams for the tests of this folder, already cut into slides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stream_learner.changes import Changed
from stream_learner.events import EventBatch, EventSchema, ExampleBatch

SCHEMA = EventSchema(
    topics=("events",), kinds=("click", "cart", "purchase"), ids=("user", "item", "session", "category"), numbers=()
)


@dataclass(frozen=True)
class Slide:
    events: EventBatch
    start: int
    end: int


def events_at(times: np.ndarray, kinds: np.ndarray, ids: np.ndarray, labels: np.ndarray | None = None) -> EventBatch:
    n = len(times)
    return EventBatch(
        time=np.asarray(times, np.int64),
        topic=np.zeros(n, np.int16),
        partition=np.zeros(n, np.int32),
        offset=np.arange(n, dtype=np.int64),
        kind=np.asarray(kinds, np.int8),
        ids=np.asarray(ids, np.uint64),
        numbers=np.empty((n, 0), np.float32),
        label=np.full(n, np.nan, np.float32) if labels is None else np.asarray(labels, np.float32),
        event_id=np.zeros(n, np.uint64),
    )


def random_events(rng: np.random.Generator, n: int, span: int, *, users: int, items: int, missing: float) -> EventBatch:
    """n events in log order; few distinct times, so that many are equal."""
    ids = np.stack(
        [rng.integers(1, users + 1, n), rng.integers(1, items + 1, n), rng.integers(0, 3, n), rng.integers(0, 4, n)], 1
    ).astype(np.uint64)
    ids[rng.random((n, 4)) < missing] = 0
    times = np.sort(rng.integers(0, span, n))
    labels = np.where(rng.random(n) < 0.2, np.nan, rng.random(n) < 0.4)
    return events_at(times, rng.choice(3, n, p=[0.6, 0.15, 0.25]), ids, labels)


def by_time(events: EventBatch, slide: int) -> list[Slide]:
    """Slides [k * slide, (k + 1) * slide), empty ones too."""
    last = int(events.time.max()) // slide
    edges = np.searchsorted(events.time, np.arange(last + 2) * slide)
    return [Slide(events.take(slice(edges[k], edges[k + 1])), k * slide, (k + 1) * slide) for k in range(last + 1)]


def by_count(events: EventBatch, size: int) -> list[Slide]:
    """Slides of `size` events, each from its first event's time to after its last."""
    parts = [events.take(slice(at, at + size)) for at in range(0, len(events), size)]
    return [Slide(part, int(part.time[0]), int(part.time[-1]) + 1) for part in parts]


def examples_of(events: EventBatch, rows: np.ndarray) -> ExampleBatch:
    """Examples as the worker makes them, with something of their own in every column."""
    n = len(rows)
    mark = rows.astype(np.float32)
    return ExampleBatch(
        time=events.time[rows],
        ids=events.ids[rows],
        numbers=np.stack([mark, events.offset[rows].astype(np.float32)], 1),
        label=np.full(n, np.nan, np.float32),
        logit_candidate=mark + 1,
        logit_champion=mark + 2,
        logit_served=mark + 3,
        baseline=np.stack([mark, mark, mark, mark], 1),
        judged=rows % 2 == 0,
        unseen=np.stack([rows % 3 == 0, rows % 5 == 0], 1),
    )


def onto(before: Any, now: Any) -> Any:
    """The state `now`, changes and all, as a snapshot puts it together again from what was captured `before`."""
    if isinstance(now, dict):
        return {name: onto((before or {}).get(name), value) for name, value in now.items()}
    if isinstance(now, Changed):
        return now.values if now.whole else now.onto(before.copy())
    return now


def same_state(a: object, b: object) -> bool:
    """Whether two captured states are equal, bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_state, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b

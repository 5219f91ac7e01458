"""One part of the worker's state in a process of its own: the bytes each thing in it takes, and what an event costs it.

    python -m benchmarks.growth.parts {ids,keys,pending,replay} COUNT

Prints one JSON object: `bytes_each`, resident memory with COUNT things in the part less that before, by their number;
`formula`, what README says; for `keys` also `cpu_s_per_million` events of such keys.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from benchmarks.growth.costs import Case, config
from stream_learner import config as configs
from stream_learner.events import EventBatch, EventSchema, ExampleBatch
from stream_learner.observing.metric_list import resident_bytes
from stream_learner.settings import Config

NUMBERS = 40  # of an example: numeric features and aggregates
DIM, SLOTS, MODELS = 16, 2, 3  # of the table; Adam's slots; candidate, champion and the canary's predecessor
_START_US, _SLIDE_US, _SLIDE_EVENTS = 1_767_225_600_000_000, 60_000_000, 65_536
_MEASURED_SLIDES = 12
_WARM_UP = 2 * _SLIDE_EVENTS
T = TypeVar("T")


def worker_config(rows: int = 1000, kinds: int = 4) -> Config:
    """Of `benchmarks.growth`, with a user table of so many rows, and so many kinds of keys."""
    keys = ["user", "item", "category", "user*item"][:kinds]
    tables = {name: {"table": "hashed", "rows": size, "dim": DIM} for name, size in (("user", rows), ("item", 1000))}
    changes = {"features": {"ids": tables}, "aggregates": {"keys": keys}, "export": {"aggregates": []}}
    return configs.parse(yaml.safe_dump(config(Path("events"), Case("", 0, changes))))


def ids(count: int) -> dict[str, float]:
    from stream_learner.learning.features import feature_schema
    from stream_learner.learning.learner import Learner
    from stream_learner.windows.aggregates import Aggregates

    def learner(rows: range) -> Learner:
        parsed = worker_config(len(rows))
        schema = configs.event_schema(parsed)
        made = Learner(parsed, feature_schema(parsed, schema, Aggregates(parsed, schema).columns))
        made.trace()
        return made

    each, _ = _bytes_each(learner, range(count))
    return {"bytes_each": each, "formula": 4 * DIM * (MODELS + SLOTS)}


def keys(count: int) -> dict[str, float]:
    """Users in three windows, so many new ones a slide; more slides then bring more events of them."""
    from stream_learner.windows.aggregates import Aggregates

    parsed = worker_config(kinds=1)
    schema = configs.event_schema(parsed)
    random = np.random.default_rng(0)
    fingerprints = random.integers(1, 2**63, count).astype(np.uint64)

    def step(aggregates: Aggregates, users: Any, slide: int, events: EventBatch | None = None) -> None:
        events, start = _events(schema, users, slide) if events is None else events, _START_US + slide * _SLIDE_US
        aggregates.step(events, np.flatnonzero(events.kind == 0), start, start + _SLIDE_US)

    def filled(users: Any) -> Aggregates:
        made = Aggregates(parsed, schema)
        for slide in range(-(-len(users) // _SLIDE_EVENTS)):
            step(made, users[slide * _SLIDE_EVENTS : (slide + 1) * _SLIDE_EVENTS], slide)
        return made

    each, aggregates = _bytes_each(filled, fingerprints)
    first = -(-count // _SLIDE_EVENTS)
    drawn = [random.choice(fingerprints, _SLIDE_EVENTS) for _ in range(_MEASURED_SLIDES)]
    slides = [_events(schema, users, first + number) for number, users in enumerate(drawn)]
    began_s = time.process_time()
    for number, events in enumerate(slides):
        step(aggregates, drawn[number], first + number, events)
    cpu_s = (time.process_time() - began_s) / (_MEASURED_SLIDES * _SLIDE_EVENTS) * 1e6
    windows, types = len(parsed.aggregates.windows), len(schema.kinds)
    formula = 49 + 4 * windows * types + 8 * types  # no half-lives here
    return {"bytes_each": each, "formula": formula, "cpu_s_per_million": cpu_s}


def pending(count: int) -> dict[str, float]:
    from stream_learner.windows.pending import Pending

    schema, random = configs.event_schema(worker_config()), np.random.default_rng(0)

    def filled(numbers: range) -> Pending:
        held = Pending(schema)
        for slide, examples in enumerate(_examples(schema, len(numbers))):
            matched = random.integers(1, 2**63, len(examples)).astype(np.uint64)
            held.add(examples, matched, np.full(len(examples), np.iinfo(np.int64).max), slide)
        return held

    each, _ = _bytes_each(filled, range(count))
    return {"bytes_each": each, "formula": 93 + 8 * len(schema.ids) + 4 * NUMBERS}


def replay(count: int) -> dict[str, float]:
    from stream_learner.learning.replay import Replay

    schema = configs.event_schema(worker_config())

    def filled(numbers: range) -> Replay:
        held = Replay(len(numbers), 0)
        for slide, examples in enumerate(_examples(schema, len(numbers))):
            held.add(examples, slide)
            held.changes()  # as for a snapshot
        return held

    each, _ = _bytes_each(filled, range(count))
    return {"bytes_each": each, "formula": 12 + 8 * len(schema.ids) + 4 * NUMBERS}


PARTS: dict[str, Callable[[int], dict[str, float]]] = {"ids": ids, "keys": keys, "pending": pending, "replay": replay}


def _bytes_each(make: Callable[[Any], T], things: Any) -> tuple[float, T]:
    """Resident memory that what `make` returns takes, by the number of things; what it needs to make any is taken
    before."""
    small = make(things[:_WARM_UP])
    gc.collect()
    before = resident_bytes()
    made = make(things)
    gc.collect()
    after = resident_bytes()
    del small
    return (after - before) / len(things), made


def _events(schema: EventSchema, users: Any, slide: int) -> EventBatch:
    """An event of each user, nine clicks in ten, evenly over the slide."""
    count = len(users)
    random = np.random.default_rng(slide)
    fingerprints = random.integers(1, 2**63, (count, len(schema.ids))).astype(np.uint64)
    fingerprints[:, schema.id_column("user")] = users
    spread = (np.arange(count) * (_SLIDE_US // 2) // count).astype(np.int64)
    return EventBatch(
        time=_START_US + slide * _SLIDE_US + spread,
        topic=np.zeros(count, np.int16),
        partition=np.zeros(count, np.int32),
        offset=np.arange(count),
        kind=(random.random(count) > 0.9).astype(np.int8),
        ids=fingerprints,
        numbers=np.ones((count, len(schema.numbers)), np.float32),
        label=np.full(count, np.nan, np.float32),
        event_id=np.zeros(count, np.uint64),
    )


def _examples(schema: EventSchema, count: int) -> Iterator[ExampleBatch]:
    """So many examples, a slide at a time."""
    random = np.random.default_rng(0)
    for start in range(0, count, _SLIDE_EVENTS):
        size = min(_SLIDE_EVENTS, count - start)
        yield ExampleBatch.unscored(
            time=_START_US + np.arange(start, start + size),
            ids=random.integers(1, 2**63, (size, len(schema.ids))).astype(np.uint64),
            numbers=random.random((size, NUMBERS), dtype=np.float32),
            label=np.zeros(size, np.float32),
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth.parts")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("count", type=int)
    args = parser.parse_args()
    print(json.dumps(PARTS[args.part](args.count)))


if __name__ == "__main__":
    main()

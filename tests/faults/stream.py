"""A seeded stream of a simulated shop, with everything in it that a worker may not learn from, and the brute-force
answer to what must become of each record."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stream_learner.simulate import Shop, ShopEvents, ShopSettings, encode, limited
from stream_learner.simulate.outputs import partition_of

PARTITIONS = 4
MINUTE_MS = 60_000
SLIDE_MS = 2 * MINUTE_MS
LATENESS_MS = 10_000
_REPEATED_WITHIN = 40  # records

ACCEPTED, DUPLICATE, LATE, DEAD, IGNORED = "accepted", "duplicate", "late", "dead", "ignored"

Record = tuple[int, bytes, int]
"""Partition, value, timestamp in ms."""
Place = tuple[int, int]
"""Partition and offset."""
Floors = dict[int, list[tuple[int, int]]]
"""By partition: from this offset on, events of slides that start before that time (ms) are late."""

CONFIG: dict[str, Any] = {
    "name": "shop",
    "seed": 3,
    "source": {"queue_records": 40},
    "topics": {
        "events": {
            "fields": {
                "user": "user_id",
                "item": "item_id",
                "time": "timestamp",
                "type": "event_type",
                "id": "event_id",
                "session": "session_id",
            },
            "time_format": "epoch_ms",
            "categorical": {"category": "category"},
            "numeric": {"price": "price"},
        }
    },
    "dedupe": {"window": "10m"},
    "dead_letters": {"max_rate": 1.0},
    "slides": {"slide": "2m", "allowed_lateness": "10s"},
    "aggregates": {"keys": ["user", "item"], "windows": ["10m", "30m"]},
    "labels": {"horizon": "6m"},
    "features": {
        "ids": {
            "user": {"table": "hashed", "rows": 512, "dim": 4},
            "item": {"table": "exact", "rows": 256, "dim": 4},
        },
        "numeric": {"price": {"transform": "log1p"}},
    },
    "learning": {"hidden": [8], "batch_size": 64, "dropout": 0.1, "learning_rate": 0.003, "threads": 1},
    "replay": {"capacity": 500},
    "export": {"aggregates": ["item"], "capacity": 200},
    "judging": {"windows": ["10m"]},
    "drift": {"window": "10m", "min_examples": 50},
    "gate": {"mode": "always", "interval": "6m", "min_interval": "6m"},
    "canary": {"duration": "10m", "min_examples": 50},
    "checkpoints": {"keep": 3},
    "snapshot": {"interval": "4m", "least_pause": "0s", "keep": 3},
    "observing": {"port": 0, "log_level": "info"},
}


@dataclass
class Stream:
    """Records in order of production, and their fates."""

    records: list[Record]
    floors: Floors = field(default_factory=dict)  # where partitions woke or were added, as the journal says
    fates: dict[Place, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values: dict[int, list[bytes]] = {}
        for partition, value, _ in self.records:
            values.setdefault(partition, []).append(value)
        for index, those in values.items():
            fates = _fates(those, self.floors.get(index, []))
            self.fates |= {(index, offset): fate for offset, fate in enumerate(fates)}

    def ends(self) -> dict[int, int]:
        """By partition, the offset behind its last record."""
        return dict(Counter(partition for partition, _, _ in self.records))

    @property
    def accepted(self) -> frozenset[Place]:
        return frozenset(place for place, fate in self.fates.items() if fate == ACCEPTED)

    @property
    def dead(self) -> frozenset[Place]:
        return frozenset(place for place, fate in self.fates.items() if fate == DEAD)

    def counts(self) -> Counter[str]:
        return Counter(self.fates.values())

    def write_files(self, folder: Path) -> None:
        """As JSON lines, a file per partition."""
        folder.mkdir(parents=True)
        for index in range(PARTITIONS):
            lines = [value + b"\n" for partition, value, _ in self.records if partition == index]
            (folder / f"{index}.jsonl").write_bytes(b"".join(lines))


def make_stream(seed: int, events: int) -> Stream:
    """The first `events` events of a shop and what spoils them: 3 % repeated within the next records of their
    partition, 3 % an hour late, 1 % garbage or incomplete, 1 % of a type that nobody asked for."""
    return Stream(list(records_of(seed, limited(Shop(shop_settings(seed)).chunks(), events), lambda: PARTITIONS)))


def shop_settings(seed: int) -> ShopSettings:
    return ShopSettings(seed=seed, users=200, items=60, events_per_hour=2400.0, conversion=0.15)


def records_of(seed: int, chunks: Iterable[ShopEvents], partitions: Callable[[], int]) -> Iterator[Record]:
    """Events of a shop and what spoils them; `partitions` there are, asked anew for each chunk."""
    rng = np.random.default_rng([seed, 71])
    before: deque[Record] = deque(maxlen=_REPEATED_WITHIN)
    for chunk in chunks:
        places = partition_of(chunk, partitions()).tolist()
        for partition, value, time_us in zip(places, encode(chunk, seed), chunk.time.tolist(), strict=True):
            before.append((partition, value, time_us // 1000))
            yield before[-1]
            for spoiled in list(_spoiled(rng, before)):
                before.append(spoiled)
                yield spoiled


def _spoiled(rng: np.random.Generator, before: deque[Record]) -> Iterator[Record]:
    """What follows a record: mostly nothing."""
    partition, _, now_ms = before[-1]
    draw = rng.random()
    if draw < 0.03:
        yield before[-1 - int(rng.integers(len(before)))]
    elif draw < 0.06:
        yield partition, _event(rng, now_ms - int(rng.integers(10, 60)) * MINUTE_MS), now_ms
    elif draw < 0.065:
        yield partition, b'{"torn": ', now_ms
    elif draw < 0.07:
        yield partition, _event(rng, now_ms, item_id=None), now_ms
    elif draw < 0.08:
        yield partition, _event(rng, now_ms, event_type="scroll"), now_ms


def _event(rng: np.random.Generator, time_ms: int, **changes: Any) -> bytes:
    number = int(rng.integers(2**40))
    event = {
        "event_id": f"x-{number}",
        "user_id": f"u{number % 200}",
        "item_id": f"i{number % 60}",
        "event_type": "click",
        "timestamp": time_ms,
        "category": "c1",
        "price": 10.0,
        "source": "ads",
        "session_id": f"x{number}",
    }
    return json.dumps({**event, **changes}).encode()


def _fates(values: list[bytes], floors: list[tuple[int, int]]) -> Iterator[str]:
    """What must become of a partition's records, one after the other; repeats never leave their partition."""
    highest, seen = 0, set()
    for offset, value in enumerate(values):
        floor = max((at for begin, at in floors if begin <= offset), default=0)
        try:
            event = json.loads(value)
        except ValueError:
            yield DEAD
            continue
        if event["event_type"] not in ("click", "purchase"):
            yield IGNORED
            continue
        if event["item_id"] is None:
            yield DEAD
            continue
        mark, highest = highest - LATENESS_MS, max(highest, event["timestamp"])
        start = event["timestamp"] // SLIDE_MS * SLIDE_MS
        if start + SLIDE_MS <= mark or start < floor:
            yield LATE
        elif event["event_id"] in seen:
            yield DUPLICATE
        else:
            seen.add(event["event_id"])
            yield ACCEPTED


def write_config(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def changed(config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The config with other values; a name such as gate.interval is a path."""
    out: dict[str, Any] = json.loads(json.dumps(config))
    for name, value in values.items():
        *sections, key = name.split(".")
        place = out
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return out

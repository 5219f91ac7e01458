"""The simulated shop that the end-to-end tests learn from, and its config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stream_learner.simulate import Shop, ShopEvents, ShopSettings, limited, write_jsonl
from stream_learner.simulate.world import Drift

SEED = 5
PARTITIONS = 4
MINUTE_US = 60_000_000
SLIDE_US = 5 * MINUTE_US
LATENESS_US = 30_000_000

FIELDS = {
    "user": "user_id",
    "item": "item_id",
    "time": "timestamp",
    "type": "event_type",
    "id": "event_id",
    "session": "session_id",
}

# Rules loose enough for a version in every gate interval: what is tested here is which, not how good.
CONFIG: dict[str, Any] = {
    "name": "shop",
    "seed": 3,
    "state": "never-used",
    "topics": {
        "events": {
            "fields": FIELDS,
            "time_format": "epoch_ms",
            "categorical": {"category": "category", "source": "source"},
            "numeric": {"price": "price"},
        }
    },
    "dedupe": {"window": "10m"},
    "slides": {"slide": "5m", "allowed_lateness": "30s"},
    "aggregates": {"keys": ["user", "item", "category", "user*item"], "windows": ["1h", "3h"]},
    "labels": {"horizon": "1h"},
    "features": {
        "ids": {
            "user": {"table": "hashed", "rows": 2048, "dim": 4},
            "item": {"table": "exact", "rows": 1024, "dim": 4},
            "category": {"table": "exact", "rows": 64, "dim": 2},
        },
        "numeric": {"price": {"transform": "log1p"}},
    },
    "learning": {"hidden": [16], "batch_size": 256, "dropout": 0.1, "learning_rate": 0.003},
    "replay": {"capacity": 3000},
    "export": {"aggregates": ["item", "category"], "capacity": 2000},
    "judging": {"windows": ["1h"]},
    "drift": {"window": "30m", "min_examples": 300},
    "gate": {
        "interval": "20m",
        "min_interval": "40m",
        "min_examples": 500,
        "min_positives": 10,
        "margin": 0.5,
        "max_ne": 5.0,
        "calibration": [0.01, 100.0],
        "max_psi": 100.0,
        "cool_down": "20m",
    },
    "canary": {"duration": "25m", "max_shift": 100.0},
    "checkpoints": {"keep": 50},
    "snapshot": {"interval": "15m", "least_pause": "0s"},
    "observing": {"port": 0},
}


def shop(**settings: Any) -> Shop:
    """A small shop; some prices are lost from the second hour on."""
    drift = (Drift.parse("missing_feature@1:0.3"),)
    wanted = {"seed": SEED, "users": 1500, "items": 400, "events_per_hour": 4000.0, "conversion": 0.06, "drift": drift}
    return Shop(ShopSettings(**{**wanted, **settings}))


def shop_events(events: int) -> ShopEvents:
    """The first `events` events of the shop, in order of arrival."""
    return ShopEvents.concat([part for part in limited(shop().chunks(), events) if len(part)])


def write_shop(folder: Path, events: int) -> Path:
    """The same as JSON lines, a file per partition."""
    write_jsonl(folder, limited(shop().chunks(), events), partitions=PARTITIONS, seed=SEED)
    return folder


def events_in(folder: Path) -> list[dict[str, Any]]:
    """All records of a folder of JSON lines, file by file."""
    return [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def last_closed_slide_end(folder: Path) -> int:
    """End (us) of the last slide that closes while the log may still go on; computed from the files alone."""
    times = [
        np.array([json.loads(line)["timestamp"] * 1000 for line in path.read_text().splitlines()])
        for path in sorted(folder.iterdir())
    ]
    watermark = min(int(part.max()) for part in times) - LATENESS_US
    ends = np.unique(np.concatenate(times) // SLIDE_US) * SLIDE_US + SLIDE_US
    return int(ends[ends <= watermark].max())


def grow(live: Path, whole: Path, begin: float, end: float) -> None:
    """Appends the lines of `whole` between two shares of each file."""
    live.mkdir(exist_ok=True)
    for source in sorted(whole.iterdir()):
        lines = source.read_bytes().splitlines(keepends=True)
        with (live / source.name).open("ab") as file:
            file.writelines(lines[int(begin * len(lines)) : int(end * len(lines))])

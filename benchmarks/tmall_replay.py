"""Replay on real data: protocol P1 (Tmall) by the project's learner on the peers' 51 features, with each policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from benchmarks.conversion import FIRST_DAY, HORIZON, JUDGED, ClickDays, click_days
from benchmarks.seasons import REPLAY
from stream_learner.config import event_schema, parse
from stream_learner.events import ExampleBatch
from stream_learner.judging.metrics import auc, normalized_entropy
from stream_learner.keys import mix
from stream_learner.learning.features import feature_schema
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import replay_buffer
from stream_learner.settings import Config

DAY_US = 86_400_000_000
RETRAINED_PASSES = 3
_COLUMNS = 51

CONFIG = """
aggregates: {keys: []}
export: {aggregates: []}
features: {ids: {}, day_of_week: false, hour_of_day: false}
learning: {hidden: [32], optimizer: adamw, learning_rate: 0.001, l2: 1.0, batch_size: 64}
"""


def config(method: str, seed: int) -> Config:
    numeric = ", ".join(f"x{i}: x{i}" for i in range(_COLUMNS))
    used = ", ".join(f"x{i}: {{transform: log1p}}" for i in range(_COLUMNS))
    replay: dict[str, Any] = {"capacity": 0}
    if method in REPLAY:
        replay = {"policy": method, **REPLAY[method], "capacity": 100_000, "ratio": 1.0}
        replay |= {"half_life": "14d"} if method == "time_biased" else {}
    text = f"seed: {seed}\ntopics: {{tmall: {{numeric: {{{numeric}}}}}}}\n{CONFIG}"
    text = text.replace("ids: {}", f"ids: {{}}, numeric: {{{used}}}")
    found = parse(text + f"replay: {{{', '.join(f'{k}: {v}' for k, v in replay.items())}}}\n")
    learning = {
        "dropout": {"dropout": 0.2},
        "none, twice": {"passes": 2},
        "retrained": {"passes": RETRAINED_PASSES},
    }.get(method, {})
    return structs.replace(found, learning=structs.replace(found.learning, **learning))


def examples(events: Path) -> tuple[ExampleBatch, ClickDays]:
    """All click days as examples, in the order of their days."""
    days = click_days(events)
    start = int(FIRST_DAY.timestamp()) * 1_000_000
    nobody = np.zeros(len(days.day), np.uint64)
    ids = [mix(column.astype(np.uint64) + np.uint64(1)) for column in (days.user, days.item)]
    batch = ExampleBatch.unscored(
        time=start + days.day * DAY_US, ids=np.stack([*ids, nobody], axis=1), numbers=days.x, label=days.label
    )
    return batch, days


def run(method: str, seed: int, batch: ExampleBatch, days: ClickDays) -> dict[str, float]:
    """Day by day: what became mature is learned, then the day's examples are scored. `retrained`: anew every 7 days, on
    everything mature, and not in between."""
    found = config(method, seed)
    schema = event_schema(found)
    features = feature_schema(found, schema, [])
    learner, replay = Learner(found, features), replay_buffer(found, schema)
    edges = np.searchsorted(days.day, np.arange(JUDGED.stop + 1))
    scores = np.full(len(batch), np.nan, np.float32)
    for day in range(JUDGED.stop):
        if method == "retrained":
            if day % 7 == 0 and day > HORIZON:
                learner = Learner(found, features)
                order = np.random.default_rng([seed, day]).permutation(edges[day - HORIZON])
                learner.learn(batch.take(order), replay, 0)
        elif day > HORIZON:
            learner.learn(batch.take(slice(edges[day - HORIZON - 1], edges[day - HORIZON])), replay, day)
        if day in JUDGED:
            rows = slice(edges[day], edges[day + 1])
            scores[rows] = learner.score(batch.take(rows))
    judged = np.isin(days.day, JUDGED)
    return {
        "auc": auc(scores[judged], days.label[judged]),
        "normalized_entropy": normalized_entropy(scores[judged], days.label[judged]),
        "calibration": float((1 / (1 + np.exp(-scores[judged].astype(np.float64)))).sum() / days.label[judged].sum()),
    }

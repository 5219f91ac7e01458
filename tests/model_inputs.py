"""What the tests of learning and export share: configs with every kind of input, and examples with a known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_learner.config import event_schema, parse
from stream_learner.events import EventSchema, ExampleBatch
from stream_learner.ingest.identity import fingerprints
from stream_learner.learning.features import FeatureSchema, feature_schema
from stream_learner.learning.runtime import configure_tensorflow
from stream_learner.settings import Config
from stream_learner.windows.columns import AggregateColumn, aggregate_columns

USERS, ITEMS, CATEGORIES = 400, 150, 5

EVERYTHING = """
seed: 7
topics: {events: {categorical: {category: c}, numeric: {price: p, rank: r}}}
aggregates: {keys: [user, item, user*item], windows: [1h, 1d], ever: true, counts: [click, purchase]}
features:
  ids: {user: {rows: 1000, dim: 4}, item: {table: exact, rows: 100, dim: 4}, category: {rows: 16, dim: 2}}
  numeric: {price: {transform: log1p}, rank: {}}
export: {aggregates: [item, user*item], capacity: 300}
"""


@dataclass(frozen=True)
class Setting:
    config: Config
    schema: EventSchema
    columns: tuple[AggregateColumn, ...]
    features: FeatureSchema


def setting(extra: str = "", base: str = EVERYTHING) -> Setting:
    """A parsed config and what follows from it; `extra` is YAML put below `base`."""
    config = parse(base + extra)
    configure_tensorflow(config)
    schema = event_schema(config)
    columns = aggregate_columns(config, schema)
    return Setting(config, schema, columns, feature_schema(config, schema, columns))


def texts(count: int, seed: int) -> dict[str, list[str]]:
    """Ids as callers write them; some are empty."""
    rng = np.random.default_rng([seed, 1])
    kinds = {"user": USERS, "item": ITEMS, "session": 50, "category": CATEGORIES}
    out = {}
    for name, size in kinds.items():
        numbers = rng.integers(0, size, count)
        gone = rng.random(count) < 0.05
        out[name] = ["" if empty else f"{name}-{number}" for number, empty in zip(numbers, gone, strict=True)]
    return out


def examples(made: Setting, count: int, seed: int, ids: dict[str, list[str]] | None = None) -> ExampleBatch:
    """Matured examples; the label follows the item's number and the price, and numbers go missing as they really do."""
    rng = np.random.default_rng([seed, 2])
    ids = texts(count, seed) if ids is None else ids
    prints = np.stack([fingerprints(ids[name]) for name in made.schema.ids], axis=1)
    numbers = rng.poisson(3, (count, len(made.schema.numbers) + len(made.columns))).astype(np.float32)
    numbers[:, 0] = rng.lognormal(3, 1, count)
    numbers[rng.random(count) < 0.1, 1] = np.nan
    for offset, column in enumerate(made.columns, len(made.schema.numbers)):
        numbers[:, offset] *= 0.01 if column.kind == "rate" else 1
        if column.kind == "recency":
            numbers[rng.random(count) < 0.4, offset] = np.nan
        parts = [made.schema.id_column(part) for part in column.key.split("*")]
        numbers[(prints[:, parts] == 0).any(axis=1), offset] = np.nan
    taste = np.array([int(text.rpartition("-")[2] or 0) % 7 for text in ids["item"]])
    odds = -2.0 + 1.5 * (taste > 3) - 1.2 * (np.log1p(numbers[:, 0]) - 3)
    return ExampleBatch(
        time=np.sort(rng.integers(1_600_000_000, 1_600_600_000, count)) * 1_000_000,
        ids=prints,
        numbers=numbers,
        label=(rng.random(count) < 1 / (1 + np.exp(-odds))).astype(np.float32),
        logit_candidate=rng.standard_normal(count).astype(np.float32),
        logit_champion=np.full(count, np.nan, np.float32),
        logit_served=np.full(count, np.nan, np.float32),
        baseline=np.full((count, 4), 0.1, np.float32),
        judged=np.ones(count, bool),
        unseen=np.zeros((count, 2), bool),
    )

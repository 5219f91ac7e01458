"""What is aggregated: the event types that are tracked, and the columns that come of them.

Both follow from the config alone and never change for the life of a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.errors import ConfigError
from stream_learner.events import EventBatch, EventSchema

I64 = NDArray[np.int64]

EXPLICIT_POSITIVE = "labelled positive"  # stands for examples whose own label is 1, where labels come from a field


@dataclass(frozen=True, slots=True)
class AggregateColumn:
    """One number per key: user_item_click_7d, item_rate_1d, user_recency_click, user_distinct_item_ever."""

    name: str
    key: str  # entry of `aggregates.keys`
    transform: Literal["log1p", "none"]
    kind: Literal["count", "rate", "recency", "distinct"]


def aggregate_columns(config: settings.Config, schema: EventSchema) -> tuple[AggregateColumn, ...]:
    """Key by key: counts (window by window, then type), rates, recencies, distincts.

    Raises ConfigError for keys that cannot be built from the schema's ids.
    """
    aggregates = config.aggregates
    _check_keys(aggregates, schema)
    counted = counted_types(config, schema)
    windows = window_names(aggregates)
    columns: list[AggregateColumn] = []
    for key in aggregates.keys:
        stem = key.replace("*", "_")
        columns += [AggregateColumn(f"{stem}_{t}_{w}", key, "log1p", "count") for w in windows for t in counted]
        if aggregates.rates:
            columns += [AggregateColumn(f"{stem}_rate_{w}", key, "none", "rate") for w in windows]
        if aggregates.recency:
            columns += [AggregateColumn(f"{stem}_recency_{t}", key, "log1p", "recency") for t in counted]
        for of in [d.of for d in aggregates.distinct if d.key == key]:
            columns += [AggregateColumn(f"{stem}_distinct_{of}_{w}", key, "log1p", "distinct") for w in windows]
    names = [column.name for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"aggregates: two columns would be named {twice[0]!r}; give keys and windows once each")
    return tuple(columns)


def window_names(aggregates: settings.Aggregates) -> list[str]:
    return [str(span) for span in aggregates.windows] + ["ever"] * aggregates.ever


def counted_types(config: settings.Config, schema: EventSchema) -> tuple[str, ...]:
    """The event types with count and recency columns."""
    counts = config.aggregates.counts
    if counts is None:
        return schema.kinds
    for name in counts:
        if name not in schema.kinds:
            raise ConfigError(f"aggregates.counts: {name!r} is no event type; allowed: {', '.join(schema.kinds)}")
    return tuple(counts)


def pair_of(distinct: settings.Distinct, keys: Sequence[str]) -> str | None:
    """The entry of `keys` that pairs a distinct count's key with what is counted."""
    return next((k for k in (f"{distinct.key}*{distinct.of}", f"{distinct.of}*{distinct.key}") if k in keys), None)


def _check_keys(aggregates: settings.Aggregates, schema: EventSchema) -> None:
    for key in aggregates.keys:
        for part in key.split("*"):
            if part not in schema.ids:
                raise ConfigError(f"aggregates.keys: {key!r}: {part!r} is no id; allowed: {', '.join(schema.ids)}")
    for distinct in aggregates.distinct:
        if distinct.key not in aggregates.keys or pair_of(distinct, aggregates.keys) is None:
            pair = f"{distinct.key}*{distinct.of}"
            raise ConfigError(f"aggregates.distinct: needs both {distinct.key!r} and {pair!r} among aggregates.keys")


@dataclass(frozen=True, slots=True)
class Entries:
    """What one slide brings of the tracked types, in log order."""

    source: I64  # [e] row of the slide
    time: I64  # [e] us
    type: I64  # [e] index into TrackedTypes.names
    example_at: I64  # [m] the entry that is each example's own event


class TrackedTypes:
    """The event types counted inside, the ones with columns first.

    Where labels come from a field of the event, a positive is an example with label 1: a second entry right after
    the example's own, seen as the example's type is seen, but never as of the slide's end, for it holds the label.
    """

    def __init__(self, config: settings.Config, schema: EventSchema) -> None:
        names = list(counted_types(config, schema))
        self.counted = len(names)
        self._explicit = config.labels.source == "field"
        positive = EXPLICIT_POSITIVE if self._explicit else config.labels.positive
        names += [name for name in (config.examples.of, positive) if name not in names]
        self.names = tuple(names)
        self.example = names.index(config.examples.of)
        self.positive = names.index(positive)
        self._of_kind = np.array([names.index(k) if k in names else -1 for k in schema.kinds], np.int64)
        as_of = {name: config.aggregates.as_of.get(name, "event") for name in names}
        if self._explicit:
            mine = as_of[config.examples.of]
            as_of[EXPLICIT_POSITIVE] = "slide_start" if mine == "slide_end" else mine
        self.as_of_event = np.array([as_of[name] == "event" for name in names])
        self.as_of_end = np.array([as_of[name] == "slide_end" for name in names])

    def entries(self, events: EventBatch, rows: I64) -> Entries:
        """`rows` (shape [m]) are the slide's rows that are examples; they must be of the example type."""
        types = self._of_kind[events.kind]
        source = np.flatnonzero(types >= 0)
        types = types[source]
        if self._explicit:
            labelled = np.flatnonzero((types == self.example) & (events.label[source] == 1))
            source = np.insert(source, labelled + 1, source[labelled])
            types = np.insert(types, labelled + 1, self.positive)
        return Entries(source, events.time[source], types, np.searchsorted(source, rows))

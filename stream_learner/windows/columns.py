"""What is aggregated: the event types that are tracked, and the columns that come of them.

Both follow from the config alone and never change for the life of a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.errors import ConfigError
from stream_learner.events import EventBatch, EventSchema
from stream_learner.windows.neighbours import COLUMNS as VOTES

I64 = NDArray[np.int64]

EXPLICIT_POSITIVE = "labelled positive"  # stands for examples whose own label is 1, where labels come from a field


Kind = Literal["count", "rate", "recency", "distinct", "decayed", "rank", "share", "vote"]


@dataclass(frozen=True, slots=True)
class AggregateColumn:
    """One number per key: user_item_click_7d, item_rate_1d, user_recency_click, user_distinct_item_ever,
    item_click_half_7d (decayed), user_label_rate_ever, user_item_rank_in_user_half_7d, user_item_share_of_user_1d,
    user_item_neighbours_mean (vote)."""

    name: str
    key: str  # entry of `aggregates.keys`; of votes, key and thing voted on
    transform: Literal["log1p", "none"]
    kind: Kind


def aggregate_columns(config: settings.Config, schema: EventSchema) -> tuple[AggregateColumn, ...]:
    """Key by key: counts (window by window, then type), rates, recencies, distincts, decayed counts and rates,
    matured examples and label rates, ranks, shares; then votes.

    Raises ConfigError for keys that cannot be built from the schema's ids.
    """
    _check_keys(config, schema)
    columns = [column for key in config.aggregates.keys for column in _columns_of(config, schema, key)]
    for near in config.aggregates.neighbours:
        stem, group = f"{near.key}_{near.of}_neighbours", f"{near.key}'s neighbours of {near.of}"
        columns += [AggregateColumn(f"{stem}_{name}", group, "none", "vote") for name in VOTES]
    names = [column.name for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"aggregates: two columns would be named {twice[0]!r}; give keys and windows once each")
    return tuple(columns)


def _columns_of(config: settings.Config, schema: EventSchema, key: str) -> Iterator[AggregateColumn]:
    aggregates, counted = config.aggregates, counted_types(config, schema)
    windows, halves, labels = window_names(aggregates), half_names(aggregates), label_names(aggregates)
    distinct = [d.of for d in aggregates.distinct if d.key == key]
    ranked = [within.key for within in aggregates.ranks if pair_of(within, aggregates.keys) == key]
    shared = [within.key for within in aggregates.shares if pair_of(within, aggregates.keys) == key]
    groups: list[tuple[Kind, Iterable[str]]] = [
        ("count", (f"{t}_{w}" for w in windows for t in counted)),
        ("rate", (f"rate_{w}" for w in windows if aggregates.rates)),
        ("recency", (f"recency_{t}" for t in counted if aggregates.recency)),
        ("distinct", (f"distinct_{of}_{w}" for of in distinct for w in windows)),
        ("decayed", (f"{t}_{h}" for h in halves for t in counted)),
        ("rate", (f"rate_{h}" for h in halves if aggregates.rates)),
        ("decayed", (f"labels_{n}" for n in labels)),
        ("rate", (f"label_rate_{n}" for n in labels)),
        ("rank", (f"rank_in_{part}_{h}" for part in ranked for h in halves)),
        ("share", (f"share_of_{part}_{span}" for part in shared for span in [*windows, *halves])),
    ]
    stem = stem_of(key)
    for kind, names in groups:
        transform: Literal["log1p", "none"] = "none" if kind in ("rate", "share") else "log1p"
        yield from (AggregateColumn(f"{stem}_{name}", key, transform, kind) for name in names)


def stem_of(key: str) -> str:
    """How the names of a key's columns begin."""
    return key.replace("*", "_")


def half_names(aggregates: settings.Aggregates) -> list[str]:
    return [f"half_{half_life}" for half_life in aggregates.half_lives]


def label_names(aggregates: settings.Aggregates) -> list[str]:
    """What matured labels are counted over."""
    return [*half_names(aggregates), "ever"] if aggregates.label_rates else []


@dataclass(frozen=True, slots=True)
class Share:
    """A share's place among its pair's columns, and those of what is divided: the pair's and its key's count."""

    column: int
    pair: int
    whole: int


def shares_of(config: settings.Config, within: settings.Within, columns: Sequence[AggregateColumn]) -> list[Share]:
    """One per window and half-life; places count from the first column of the key in question."""
    aggregates, example = config.aggregates, config.examples.of
    pair = pair_of(within, aggregates.keys)
    names = {key: [column.name for column in columns if column.key == key] for key in (pair, within.key)}
    stem, whole = stem_of(pair or ""), stem_of(within.key)
    return [
        Share(
            column=names[pair].index(f"{stem}_share_of_{within.key}_{span}"),
            pair=names[pair].index(f"{stem}_{example}_{span}"),
            whole=names[within.key].index(f"{whole}_{example}_{span}"),
        )
        for span in [*window_names(aggregates), *half_names(aggregates)]
    ]


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


def pair_of(between: settings.Between, keys: Sequence[str]) -> str | None:
    """The entry of `keys` that pairs the key of a distinct count, rank or share with what it is of."""
    return next((k for k in (f"{between.key}*{between.of}", f"{between.of}*{between.key}") if k in keys), None)


def _check_keys(config: settings.Config, schema: EventSchema) -> None:
    aggregates = config.aggregates
    for key in aggregates.keys:
        for part in key.split("*"):
            if part not in schema.ids:
                raise ConfigError(f"aggregates.keys: {key!r}: {part!r} is no id; allowed: {', '.join(schema.ids)}")
    between: dict[str, Sequence[settings.Between]] = {
        "distinct": aggregates.distinct,
        "ranks": aggregates.ranks,
        "shares": aggregates.shares,
    }
    for name, entries in between.items():
        for entry in entries:
            if entry.key not in aggregates.keys or pair_of(entry, aggregates.keys) is None:
                pair = f"{entry.key}*{entry.of}"
                raise ConfigError(f"aggregates.{name}: needs both {entry.key!r} and {pair!r} among aggregates.keys")
    if aggregates.shares and config.examples.of not in counted_types(config, schema):
        raise ConfigError(f"aggregates.shares: needs {config.examples.of!r} among aggregates.counts")


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

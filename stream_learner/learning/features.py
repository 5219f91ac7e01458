"""Which columns the model sees, and where they lie in an `ExampleBatch`.

`ExampleBatch.numbers` holds the numeric features of the schema, then every aggregate column; the config chooses
among them. What a column turns into (a row of a table, a standardised input) is decided in `encoder.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream_learner.errors import ConfigError
from stream_learner.events import EventSchema
from stream_learner.settings import Config, Encoding

RECENCY = "recency"  # the kind of aggregate that is NaN for a key that is known


class Aggregate(Protocol):
    """What is needed of an aggregate column."""

    @property
    def name(self) -> str:
        """Unique among all columns, such as user_item_click_7d."""

    @property
    def key(self) -> str:
        """The entry of `aggregates.keys` it is kept for, such as user*item."""

    @property
    def kind(self) -> str:
        """count, rate, recency, distinct, decayed, rank or share."""

    @property
    def transform(self) -> Literal["none", "log1p"]:
        """What is applied before normalisation."""


@dataclass(frozen=True, slots=True)
class IdColumn:
    """An embedded id."""

    name: str
    column: int  # index into ExampleBatch.ids
    table: Literal["hashed", "exact"]
    rows: int  # ids that can have a row of their own; row 0 (missing) and, exact, row 1 (unknown) come on top
    dim: int
    admit_after: int = 1  # exact: sightings before an id gets a row
    expire_after: int | None = None  # exact: us without a sighting after which it loses it
    max_waiting: int = 1_000_000  # exact: ids counted that have no row yet


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A numeric feature or an aggregate."""

    name: str
    source: int  # index into ExampleBatch.numbers
    transform: Literal["none", "log1p"]
    group: str  # columns of a group are missing together: an aggregate's key, a numeric feature's own name
    aggregate: bool
    own_indicator: bool  # may be NaN while the rest of its group is known
    encoding: tuple[Encoding, ...] = ("log1p_z",)


@dataclass(frozen=True)
class FeatureSchema:
    """The model's inputs, in order. Fixed by the config for the life of a worker."""

    ids: tuple[IdColumn, ...]
    numbers: tuple[NumberColumn, ...]
    hour_of_day: bool
    day_of_week: bool
    bins: int = 8  # of a piecewise-linear encoding

    def take_ids(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """[n, len(schema.ids)] fingerprints -> the used columns [n, len(self.ids)], bitcast for TensorFlow."""
        return np.take(ids, [column.column for column in self.ids], axis=1).view(np.int64)

    def take_numbers(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, all numbers] -> the used columns [n, len(self.numbers)]: the array itself where it is all of them."""
        sources = [column.source for column in self.numbers]
        if sources == list(range(numbers.shape[1])):
            return numbers
        return np.take(numbers, sources, axis=1)

    def transformed(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, len(self.numbers)] raw -> a copy, sign(x) log(1 + |x|) in the columns that ask for it; NaN stays NaN."""
        return transformed(numbers, np.array([column.transform == "log1p" for column in self.numbers], bool))

    def groups(self) -> dict[str, list[int]]:
        """Group -> indices into `self.numbers`, in order of first appearance."""
        found: dict[str, list[int]] = {}
        for index, column in enumerate(self.numbers):
            found.setdefault(column.group, []).append(index)
        return found

    def standardised(self) -> list[int]:
        """Indices into `self.numbers` of the columns that are encoded as standardised values."""
        return [index for index, column in enumerate(self.numbers) if "log1p_z" in column.encoding]

    def binned(self) -> list[int]:
        """Indices into `self.numbers` of the columns that are encoded piecewise linearly."""
        return [index for index, column in enumerate(self.numbers) if "piecewise_linear" in column.encoding]

    def own_indicators(self) -> list[int]:
        """Indices into `self.numbers` of the columns with a missing-indicator of their own."""
        return [index for index, column in enumerate(self.numbers) if column.own_indicator]

    def dense_names(self) -> list[str]:
        """Names of the dense inputs, in the order in which the encoder makes them."""
        names = [self.numbers[index].name for index in self.standardised()]
        names += [f"{self.numbers[index].name} bin {bin}" for index in self.binned() for bin in range(self.bins)]
        names += [f"{group} missing" for group in self.groups()]
        names += [f"{self.numbers[index].name} missing" for index in self.own_indicators()]
        names += ["hour sine", "hour cosine"] if self.hour_of_day else []
        names += [f"day {day}" for day in range(7)] if self.day_of_week else []
        return names or ["nothing"]

    def dense_owners(self) -> list[int]:
        """Per dense input the index into `self.numbers` of the column it encodes; -1 where it tells of several."""
        owners = self.standardised() + [index for index in self.binned() for _ in range(self.bins)]
        rest = len(self.dense_names()) - len(owners)
        return owners + [-1] * rest

    def dense_groups(self) -> list[str | None]:
        """Per dense input the group whose columns it tells of; None for those of the time."""
        groups: list[str | None] = [self.numbers[index].group for index in self.standardised()]
        groups += [self.numbers[index].group for index in self.binned() for _ in range(self.bins)]
        groups += list(self.groups())
        groups += [self.numbers[index].group for index in self.own_indicators()]
        return groups + [None] * (len(self.dense_names()) - len(groups))


def feature_schema(config: Config, schema: EventSchema, aggregates: Sequence[Aggregate]) -> FeatureSchema:
    """The features that the config chooses.

    `aggregates`: every aggregate column, in the order in which they follow the numeric features in
    `ExampleBatch.numbers`. Raises ConfigError for a pattern that matches none, and when nothing at all is left.
    """
    ids = tuple(
        IdColumn(
            name,
            schema.id_column(name),
            feature.table,
            feature.rows,
            feature.dim,
            feature.admit_after,
            feature.expire_after,
            feature.max_waiting,
        )
        for name, feature in config.features.ids.items()
    )
    found = FeatureSchema(
        ids=ids,
        numbers=(*_numeric(config, schema), *_aggregates(config, len(schema.numbers), aggregates)),
        hour_of_day=config.features.hour_of_day,
        day_of_week=config.features.day_of_week,
        bins=config.features.bins,
    )
    if found.dense_names() == ["nothing"] and not ids:
        raise ConfigError("features: nothing for the model to see; name ids, numeric features or aggregates")
    return found


def _numeric(config: Config, schema: EventSchema) -> list[NumberColumn]:
    chosen = config.features.numeric
    return [
        NumberColumn(
            name=name,
            source=source,
            transform="none" if chosen is None else chosen[name].transform,
            group=name,
            aggregate=False,
            own_indicator=False,
            encoding=tuple((chosen and chosen[name].encoding) or config.features.encoding),
        )
        for source, name in enumerate(schema.numbers)
        if chosen is None or name in chosen
    ]


def _aggregates(config: Config, first: int, aggregates: Sequence[Aggregate]) -> list[NumberColumn]:
    names = [column.name for column in aggregates]
    patterns = config.features.aggregates
    chosen = set(names) if patterns is None else set().union(*(_matching(pattern, names) for pattern in patterns))
    return [
        NumberColumn(
            name=column.name,
            source=first + offset,
            transform=column.transform,
            group=column.key,
            aggregate=True,
            own_indicator=column.kind == RECENCY,
            encoding=tuple(config.features.encoding),
        )
        for offset, column in enumerate(aggregates)
        if column.name in chosen
    ]


def _matching(pattern: str, names: list[str]) -> set[str]:
    found = {name for name in names if re.fullmatch(pattern, name)}
    if not found:
        columns = ", ".join(names) or "none"
        raise ConfigError(f"features.aggregates: {pattern!r} matches no aggregate column; columns: {columns}")
    return found


F = TypeVar("F", NDArray[np.float32], NDArray[np.float64])


def transformed(numbers: F, logged: NDArray[np.bool_]) -> F:
    """[n, columns] raw -> sign(x) log(1 + |x|) in the `logged` columns, the others as they are."""
    values = np.abs(numbers)
    np.copysign(np.log1p(values, out=values), numbers, out=values)
    for column in np.flatnonzero(~logged):  # few; a copy of the others costs several times this
        values[:, column] = numbers[:, column]
    return values

"""The aggregates that travel in a version: which, as arrays of fixed size, and what they answer.

A published model has no windows of its own. For the entries of `export.aggregates` it carries each key's values as of
its slide. The numpy functions here and the lookup in `serving.py` are twins; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_learner.config import event_schema
from stream_learner.events import MISSING_ID, EventSchema, ExampleBatch
from stream_learner.keys import mix
from stream_learner.learning.features import Aggregate, FeatureSchema
from stream_learner.learning.tables import PADDING
from stream_learner.settings import Config

Tables = Mapping[str, tuple[NDArray[np.uint64], NDArray[np.float32]]]  # key -> keys [k], values [k, columns of the key]

# Kinds that are 0 for a key without events; the others are then missing.
_KNOWN_AS_NOTHING = ("count", "distinct", "decayed", "share")


@dataclass(frozen=True)
class Travelling:
    """One entry of `export.aggregates`, in every version as `capacity` rows."""

    key: str
    parts: tuple[str, ...]  # the ids the key is made of, in the order of mixing
    id_columns: tuple[int, ...]  # the same as indices into ExampleBatch.ids
    names: tuple[str, ...]  # its aggregate columns
    first: int  # index of the first of them in ExampleBatch.numbers
    absent: tuple[float, ...]  # values of a key that is not in the table
    capacity: int

    def padded(
        self, keys: NDArray[np.uint64], values: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Keys sorted as signed numbers [capacity] and their values [capacity, columns], padded with absent ones.

        A key that equals the padding is left out (one in 2^64).
        """
        signed = keys.view(np.int64)
        order = np.argsort(signed, kind="stable")
        order = order[signed[order] != PADDING]
        out_keys = np.full(self.capacity, PADDING, np.int64)
        out_values = np.tile(np.array(self.absent, np.float32), (self.capacity, 1))
        out_keys[: len(order)] = signed[order]
        out_values[: len(order)] = values[order]
        return out_keys, out_values

    def unpadded(
        self, keys: NDArray[np.int64], values: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """The inverse of `padded`: keys ascending as unsigned numbers."""
        held = np.flatnonzero(keys != PADDING)
        unsigned = keys.view(np.uint64)
        order = held[np.argsort(unsigned[held], kind="stable")]
        return unsigned[order], values[order]

    def look_up(
        self, ids: NDArray[np.uint64], keys: NDArray[np.uint64], values: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """float32 [n, columns] for rows of ExampleBatch.ids; all NaN where an id of the key is missing."""
        parts = [ids[:, column] for column in self.id_columns]
        wanted = mix(*parts) if len(parts) > 1 else parts[0]
        found = np.tile(np.array(self.absent, np.float32), (len(ids), 1))
        if len(keys):
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            known = keys[at] == wanted
            found[known] = values[at[known]]
        found[np.any([part == MISSING_ID for part in parts], axis=0)] = np.nan
        return found


def travelling(
    config: Config, schema: EventSchema, features: FeatureSchema, aggregates: Sequence[Aggregate]
) -> tuple[Travelling, ...]:
    """The entries of `export.aggregates` of which the model uses at least one column."""
    used = {column.name for column in features.numbers}
    entries = []
    for key in config.export.aggregates:
        at = [index for index, column in enumerate(aggregates) if column.key == key]
        if not any(aggregates[index].name in used for index in at):
            continue
        parts = tuple(key.split("*"))
        entries.append(
            Travelling(
                key=key,
                parts=parts,
                id_columns=tuple(schema.id_column(part) for part in parts),
                names=tuple(aggregates[index].name for index in at),
                first=len(schema.numbers) + at[0],
                absent=tuple(0.0 if aggregates[index].kind in _KNOWN_AS_NOTHING else np.nan for index in at),
                capacity=config.export.capacity,
            )
        )
    return tuple(entries)


def served_numbers(
    config: Config,
    features: FeatureSchema,
    aggregates: Sequence[Aggregate],
    examples: ExampleBatch,
    tables: Tables,
) -> NDArray[np.float32]:
    """`examples.numbers` as a version with these tables sees a caller who gives raw fields only: [n, all numbers].

    Aggregates that travel are replaced by the version's aged values, all others by NaN.
    """
    schema = event_schema(config)
    numbers = examples.numbers.copy()
    numbers[:, len(schema.numbers) :] = np.nan
    for entry in travelling(config, schema, features, aggregates):
        keys, values = tables[entry.key]
        columns = slice(entry.first, entry.first + len(entry.names))
        numbers[:, columns] = entry.look_up(examples.ids, keys, values)
    return numbers

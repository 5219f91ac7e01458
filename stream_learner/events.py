"""The column batches that stages hand forward, and the schema that names their columns.

Nothing here is ever looped over in Python: a batch is a struct of numpy arrays of equal length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

MISSING_ID = np.uint64(0)  # the fingerprint of an absent or empty id


@dataclass(frozen=True)
class EventSchema:
    """Names of the columns of an `EventBatch`, fixed by the config for the life of a worker."""

    topics: tuple[str, ...]
    kinds: tuple[str, ...]  # event types; `EventBatch.kind` indexes them
    ids: tuple[str, ...]  # "user", "item", "session", then the categorical features by name
    numbers: tuple[str, ...]  # numeric features by name

    def id_column(self, name: str) -> int:
        return self.ids.index(name)


class Columns:
    """What the batches share: all fields are arrays of the same length along axis 0."""

    time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: NDArray[Any] | slice) -> Self:
        """The rows named by an index array, a boolean mask or a slice, in that order."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})  # type: ignore[arg-type]

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of `parts`, in order. At least one part."""
        if len(parts) == 1:
            return parts[0]
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def capture(self) -> dict[str, Any]:
        """A copy of every column, for a snapshot."""
        return {f.name: getattr(self, f.name).copy() for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Self:
        return cls(**{f.name: state[f.name] for f in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class EventBatch(Columns):
    """Decoded, valid records.

    Shapes are [n] unless given. Times are microseconds since the epoch (a plain-integer time counts as seconds).
    """

    time: NDArray[np.int64]
    topic: NDArray[np.int16]  # index into EventSchema.topics
    partition: NDArray[np.int32]
    offset: NDArray[np.int64]
    kind: NDArray[np.int8]  # index into EventSchema.kinds
    ids: NDArray[np.uint64]  # [n, len(schema.ids)] fingerprints, MISSING_ID where absent
    numbers: NDArray[np.float32]  # [n, len(schema.numbers)], NaN where absent
    label: NDArray[np.float32]  # explicit label 0 or 1, NaN where the topic has none
    event_id: NDArray[np.uint64]  # fingerprint of the optional event id, MISSING_ID where absent

    @classmethod
    def empty(cls, schema: EventSchema) -> EventBatch:
        return cls(
            time=np.empty(0, np.int64),
            topic=np.empty(0, np.int16),
            partition=np.empty(0, np.int32),
            offset=np.empty(0, np.int64),
            kind=np.empty(0, np.int8),
            ids=np.empty((0, len(schema.ids)), np.uint64),
            numbers=np.empty((0, len(schema.numbers)), np.float32),
            label=np.empty(0, np.float32),
            event_id=np.empty(0, np.uint64),
        )

    def in_log_order(self) -> EventBatch:
        """Sorted by (time, topic, partition, offset): the order of a slide."""
        return self.take(np.lexsort((self.offset, self.partition, self.topic, self.time)))


@dataclass(frozen=True, slots=True)
class ExampleBatch(Columns):
    """Clicks with their features as they were at click time. Raw: ids are fingerprints, numbers not normalised.

    `logit_*` are the scores the models gave at arrival (log-odds); NaN where that model did not exist or was not
    asked. `label` is NaN until the example matures.
    """

    time: NDArray[np.int64]  # [n] click time, us
    ids: NDArray[np.uint64]  # [n, len(schema.ids)]
    numbers: NDArray[np.float32]  # [n, n_numbers]: numeric features, then aggregates; NaN = missing
    label: NDArray[np.float32]  # [n]
    logit_candidate: NDArray[np.float32]  # [n]
    logit_champion: NDArray[np.float32]  # [n]
    logit_served: NDArray[np.float32]  # [n] champion as exported: aggregates aged to its version
    baseline: NDArray[np.float32]  # [n, 4] probabilities of BASELINES at arrival
    judged: NDArray[np.bool_]  # [n] counts in the lifetime metrics (`judging.span`)
    unseen: NDArray[np.bool_]  # [n, 2] user, item: in no earlier example (where `judging.slices` asks, else False)

    @classmethod
    def unscored(cls, **columns: NDArray[Any]) -> Self:
        """Examples of the columns that are learned from; nobody has scored them, and they count in no metric."""
        count = len(columns["time"])
        nothing = np.full(count, np.nan, np.float32)
        return cls(
            logit_candidate=nothing,
            logit_champion=nothing,
            logit_served=nothing,
            baseline=np.full((count, 4), np.nan, np.float32),
            judged=np.zeros(count, bool),
            unseen=np.zeros((count, 2), bool),
            **columns,
        )

    def with_numbers(self, numbers: NDArray[np.float32]) -> ExampleBatch:
        """The same examples with other numbers."""
        return replace(self, numbers=numbers)

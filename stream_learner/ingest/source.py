"""The seam between the log and the worker: records by partition, in offset order.

`MemorySource` is the real in-memory twin; one contract suite (tests/ingest/test_source_contract.py) runs on every
implementation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, order=True, slots=True)
class Partition:
    """A partition of a topic; sorts by topic, then number."""

    topic: str
    index: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.index}"


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive records of one partition."""

    partition: Partition
    offsets: NDArray[np.int64]  # [n], ascending, not necessarily dense (compaction, transactions)
    timestamps: NDArray[np.int64]  # [n] the record's own timestamp in ms since the epoch; -1 = none
    values: Sequence[bytes | None]  # n payloads; None = tombstone
    next_offset: int  # where reading goes on after this batch

    @classmethod
    def empty(cls, partition: Partition, next_offset: int) -> RecordBatch:
        """No records: moves a position only."""
        nothing = np.empty(0, np.int64)
        return cls(partition, nothing, nothing, [], next_offset)

    def __len__(self) -> int:
        return len(self.offsets)

    def size_bytes(self) -> int:
        """Bytes of the payloads."""
        return sum(map(len, filter(None, self.values)))

    def split(self, offset: int) -> tuple[RecordBatch, RecordBatch]:
        """What lies before an offset, and the rest."""
        at = int(np.searchsorted(self.offsets, offset))
        rows = (slice(None, at), offset), (slice(at, None), self.next_offset)
        before, rest = (
            RecordBatch(self.partition, self.offsets[part], self.timestamps[part], self.values[part], following)
            for part, following in rows
        )
        return before, rest


class Source(Protocol):
    """Where records come from.

    Used from one thread, except `commit`, which any thread may call. Errors of the far side are retried inside, up
    to the configured deadline, and then raised as `UnavailableError`; a position that is no longer in the log is a
    `positions.GapError`, also while reading.
    """

    def start(
        self, positions: Mapping[Partition, int] | None, *, until_end: bool, topic_ids: Mapping[str, str] | None = None
    ) -> dict[Partition, int]:
        """Begins reading and returns the offset each partition starts at.

        `positions` (from a snapshot or a journal) win over the configured start; None = a new state. Partitions
        that exist but are not in `positions` are reported by `new_partitions` instead. With `until_end`, the ends
        of all partitions are fixed here; reading stops at them. A position outside [begin, end] of its partition, or
        in a topic whose id is no longer that of `topic_ids`, is a `positions.GapError` that names partition, position,
        begin and end, and the remedy. May be called again, after a `GapError` or to read from elsewhere: what waits
        is forgotten.
        """

    def topic_ids(self) -> dict[str, str]:
        """After `start`: what tells a topic from one of the same name made later; empty where nothing does."""

    def poll(self, wanted: Collection[Partition], timeout_s: float) -> RecordBatch | None:
        """The next records of one of the `wanted` partitions, the one with the fewest records taken so far first;
        None when none came within `timeout_s` (monotonic) or all wanted ones have ended."""

    def ended(self) -> frozenset[Partition]:
        """Partitions whose every record below its fixed end has been handed over. Always empty without `until_end`."""

    def idle_s(self, partition: Partition) -> float:
        """For how long (monotonic seconds) everything up to a freshly fetched high watermark has been handed over;
        0.0 while records are waiting or the broker does not answer."""

    def lag(self) -> dict[Partition, int]:
        """Records between what was handed over and the last known end, per partition; for metrics."""

    def waiting(self) -> tuple[int, int]:
        """Records fetched and not handed over, and bytes of their payloads; for metrics."""

    def new_partitions(self) -> dict[Partition, int]:
        """Partitions that appeared since `start` and are not read yet, with their first offset. Cheap."""

    def add(self, partition: Partition, offset: int) -> None:
        """Begins reading a partition reported by `new_partitions`."""

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Makes positions visible to lag tools. Best effort: a failure is logged and counted, never raised."""

    def close(self) -> None:
        """Stops threads and connections within a few seconds, whatever state the far side is in. Idempotent."""

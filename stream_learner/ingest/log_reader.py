"""The seam between a Kafka client and the thread that polls with it: what is asked, fetched, and how it fails.

Two clients stand behind it, `kafka_python.KafkaPythonReader` and `confluent.ConfluentReader`. Both give the same
records under the same offsets, so which one reads never reaches the model. Their own errors end here: a method raises

    OutOfRange        a position is not in the log; the reader goes on asking for it, the caller looks at the bounds
    Truncated         a new leader's log is shorter than what was read
    RetryableError    the broker may answer later
    a FatalError      ConfigError (refused), DataError (records fail their checksum), UnavailableError (the rest)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from stream_learner.errors import RetryableError
from stream_learner.ingest.source import Partition, RecordBatch


class OutOfRange(RetryableError):
    """The broker has no record at a position that was asked for."""


class Truncated(RetryableError):
    """By the leaders' epochs, the log is the one that was read up to `ends` only."""

    def __init__(self, message: str, ends: Mapping[Partition, int]) -> None:
        super().__init__(message)
        self.ends = dict(ends)


class LogReader(Protocol):
    """Partitions of some topics, read committed, from positions that are given and never reset.

    Used from one thread at a time, but for `partitions` and `topic_ids`, which tell what is known without asking. A
    question takes `ANSWER_S` at the most.
    """

    def ask_topics(self) -> None:
        """Asks the broker for partitions and ids of the topics."""

    def partitions(self) -> set[Partition]:
        """Of the topics, as known now; looked for again every `refresh_partitions` while polling."""

    def topic_ids(self) -> dict[str, str]:
        """Ids of the topics that have any, in the canonical form of a UUID. Not older than what `poll` gave last."""

    def beginnings(self, partitions: Collection[Partition]) -> dict[Partition, int]: ...

    def ends(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Behind the last stable record."""

    def at_time(self, partitions: Collection[Partition], time_ms: int) -> dict[Partition, int | None]:
        """The first record with that timestamp or a later one; None where there is none."""

    def add(self, positions: Mapping[Partition, int]) -> None:
        """Begins reading these partitions, beside those that are read already."""

    def pause(self, partitions: Iterable[Partition]) -> None: ...

    def resume(self, partitions: Iterable[Partition]) -> None: ...

    def poll(self, timeout_s: float) -> list[RecordBatch]:
        """What has come, at most `max_poll_records`. Batches without records move a position past transaction
        markers and records that are aborted or compacted. What was fetched before a failure is given first."""

    def high(self, partition: Partition) -> int:
        """The high watermark of the last fetch, behind open transactions too; 0 = not known."""

    def close(self) -> None:
        """Within a second, whatever state the broker is in."""


ANSWER_S = 2.5

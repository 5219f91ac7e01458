"""A log held in memory: the real twin of the other sources, for tests and simulations."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_learner.ingest.positions import (
    EARLIEST,
    LATEST,
    check_position,
    check_positions,
    check_present,
    check_topics,
    parse_start,
)
from stream_learner.ingest.source import Partition, RecordBatch

MemoryRecord = tuple[int, int, bytes | None]
"""Offset, record timestamp (ms since the epoch, -1 = none) and value (None = tombstone)."""


@dataclass(slots=True)
class _Log:
    records: list[MemoryRecord] = field(default_factory=list)
    begin: int = 0
    position: int | None = None  # None: not read (yet)
    fixed_end: int | None = None
    taken: int = 0
    quiet_since: float = 0.0

    @property
    def end(self) -> int:
        return self.records[-1][0] + 1 if self.records else self.begin

    def readable(self) -> slice:
        """Rows of `records` between the position and the fixed end."""
        first = bisect_left(self.records, (self.position or 0,))
        stop = len(self.records) if self.fixed_end is None else bisect_left(self.records, (self.fixed_end,))
        return slice(first, max(first, stop))


class MemorySource:
    """Serves `logs` as a broker would; may grow, shrink and fall silent while it is read.

    `batch_records` is the poll size; `start` as in `source.start`; `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        logs: Mapping[Partition, Sequence[MemoryRecord]],
        batch_records: int = 1000,
        *,
        start: str = EARLIEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.committed: dict[Partition, int] = {}
        self.answers = True  # False: a broker that has fallen silent
        self._batch_records = batch_records
        self._start = parse_start(start)
        self._clock = clock
        self._changed = threading.Condition()
        self._until_end = False
        self._logs: dict[Partition, _Log] = {}
        self._made = {partition.topic: 0 for partition in logs}  # how often each topic was created again
        for partition, records in logs.items():
            self.append(partition, *records)

    # The log's side.

    def append(self, partition: Partition, *records: MemoryRecord) -> None:
        """Adds records (offsets ascending) to a partition, which comes into being if it is new."""
        with self._changed:
            log = self._logs.setdefault(partition, _Log(begin=records[0][0] if records else 0))
            for record in records:
                if log.records and record[0] <= log.records[-1][0]:
                    raise ValueError(f"{partition}: offset {record[0]} after {log.records[-1][0]}")
                log.records.append(record)
            self._changed.notify_all()

    def drop_before(self, partition: Partition, offset: int) -> None:
        """Forgets the records below `offset`, as retention does."""
        with self._changed:
            log = self._logs[partition]
            log.begin = max(log.begin, min(offset, log.end))
            del log.records[: bisect_left(log.records, (offset,))]

    def drop_from(self, partition: Partition, offset: int) -> None:
        """Loses the records from `offset` on, as a replica that was behind does when it becomes the leader."""
        with self._changed:
            log = self._logs[partition]
            del log.records[bisect_left(log.records, (offset,)) :]

    def recreate(self, topic: str) -> None:
        """The topic is deleted and created again, with as many partitions, all empty."""
        with self._changed:
            self._made[topic] = self._made.get(topic, 0) + 1
            for partition, log in self._logs.items():
                if partition.topic == topic:
                    log.records, log.begin = [], 0

    # The reader's side: the `Source` protocol.

    def start(
        self, positions: Mapping[Partition, int] | None, *, until_end: bool, topic_ids: Mapping[str, str] | None = None
    ) -> dict[Partition, int]:
        if positions is None:
            positions = {partition: self._begin_at(log) for partition, log in self._logs.items()}
        check_present(positions, self._logs)
        bounds = {partition: (log.begin, log.end) for partition, log in self._logs.items()}
        check_topics(positions, bounds, topic_ids or {}, self.topic_ids())
        check_positions(positions, bounds)
        self._until_end = until_end
        for partition, log in self._logs.items():
            log.fixed_end = log.end if until_end else None
            log.position = None
            if partition in positions:
                self._begin_reading(partition, positions[partition])
        return dict(sorted(positions.items()))

    def topic_ids(self) -> dict[str, str]:
        return {topic: str(made) for topic, made in sorted(self._made.items())}

    def poll(self, wanted: Collection[Partition], timeout_s: float) -> RecordBatch | None:
        with self._changed:
            found = self._next(wanted)
            if found is None and not self.ended() >= set(wanted):
                self._changed.wait(timeout_s)
                found = self._next(wanted)
            return None if found is None else self._take(found)

    def ended(self) -> frozenset[Partition]:
        return frozenset(
            partition
            for partition, log in self._logs.items()
            if log.fixed_end is not None and log.position is not None and log.position >= log.fixed_end
        )

    def idle_s(self, partition: Partition) -> float:
        log = self._logs[partition]
        if not self.answers or log.position is None or log.position < log.end:
            return 0.0
        return self._clock() - log.quiet_since

    def lag(self) -> dict[Partition, int]:
        reading = {partition: log for partition, log in self._logs.items() if log.position is not None}
        return {partition: log.readable().stop - log.readable().start for partition, log in reading.items()}

    def waiting(self) -> tuple[int, int]:
        return 0, 0  # nothing is fetched before it is asked for

    def new_partitions(self) -> dict[Partition, int]:
        return {
            partition: log.begin
            for partition, log in sorted(self._logs.items())
            if log.position is None and not (self._until_end and log.fixed_end is None)
        }

    def add(self, partition: Partition, offset: int) -> None:
        check_present({partition: offset}, self._logs)
        check_position(partition, offset, self._logs[partition].begin, self._logs[partition].end)
        self._begin_reading(partition, offset)

    def commit(self, positions: Mapping[Partition, int]) -> None:
        self.committed.update(positions)

    def close(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _begin_at(self, log: _Log) -> int:
        if self._start == LATEST:
            return log.end
        if isinstance(self._start, int):
            return next((offset for offset, timestamp, _ in log.records if timestamp >= self._start), log.end)
        return log.begin

    def _begin_reading(self, partition: Partition, position: int) -> None:
        log = self._logs[partition]
        log.position = position
        log.quiet_since = self._clock()

    def _next(self, wanted: Collection[Partition]) -> Partition | None:
        waiting = [(self._logs[p].taken, p) for p in wanted if self._waits(p)]
        return min(waiting)[1] if waiting else None

    def _waits(self, partition: Partition) -> bool:
        log = self._logs.get(partition)
        if log is None or log.position is None:
            return False
        check_position(partition, log.position, log.begin, log.end)
        rows = log.readable()
        return self.answers and rows.start < rows.stop

    def _take(self, partition: Partition) -> RecordBatch:
        log = self._logs[partition]
        rows = log.readable()
        records = log.records[rows.start : min(rows.stop, rows.start + self._batch_records)]
        log.position = records[-1][0] + 1
        log.taken += len(records)
        log.quiet_since = self._clock()
        return RecordBatch(
            partition=partition,
            offsets=np.array([offset for offset, _, _ in records], np.int64),
            timestamps=np.array([timestamp for _, timestamp, _ in records], np.int64),
            values=[value for _, _, value in records],
            next_offset=log.position,
        )

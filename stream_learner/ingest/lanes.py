"""Bounded queues between the thread that polls a broker and the thread that runs slides.

One lane per partition. The polling thread puts, the worker takes; both go through one condition. What a lane knows
about its end is written by the polling thread only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from stream_learner.ingest.source import Partition, RecordBatch


@dataclass(slots=True)
class _Lane:
    position: int  # where fetching goes on: everything below is in the queue or handed over
    fixed_end: int | None  # reading stops here; None = goes on for ever
    known_end: int
    queue: deque[RecordBatch] = field(default_factory=deque)
    waiting: int = 0  # records in the queue
    waiting_bytes: int = 0  # of their values
    taken: int = 0  # records handed over so far
    quiet: tuple[float, float] | None = None  # first and last moment (monotonic s) it was seen read to its end
    paused: bool = False

    @property
    def complete(self) -> bool:
        return self.fixed_end is not None and self.position >= self.fixed_end


class Lanes:
    """The queues of all partitions read. A lane is full at `capacity` records, or at `capacity_bytes` of their values,
    and has room again below half of both; what is fetched at once may go beyond."""

    def __init__(self, capacity: int, capacity_bytes: int) -> None:
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._lanes: dict[Partition, _Lane] = {}
        self._changed = threading.Condition()
        self._failure: BaseException | None = None

    def open(self, partition: Partition, position: int, known_end: int, fixed_end: int | None) -> None:
        with self._changed:
            self._lanes[partition] = _Lane(position=position, fixed_end=fixed_end, known_end=known_end)

    # The polling thread's side.

    def put(self, batch: RecordBatch) -> None:
        """Queues what was fetched, cut at the fixed end.

        A batch without records moves the position only (past transaction markers, aborted or compacted records); it
        is joined to the batch before it where that still waits.
        """
        with self._changed:
            lane = self._lanes[batch.partition]
            lane.quiet = None
            batch = _cut(batch, lane.fixed_end)
            lane.position = batch.next_offset
            lane.known_end = max(lane.known_end, batch.next_offset)
            lane.waiting += len(batch)
            lane.waiting_bytes += batch.size_bytes()
            if not len(batch) and lane.queue:
                lane.queue[-1] = replace(lane.queue[-1], next_offset=batch.next_offset)
            else:
                lane.queue.append(batch)
            self._changed.notify_all()

    def seen_ends(self, ends: dict[Partition, int], at_s: float) -> None:
        """The broker has answered: `ends` were the ends of the partitions at `at_s` or later (monotonic)."""
        with self._changed:
            for partition, end in ends.items():
                lane = self._lanes[partition]
                lane.known_end = max(end, lane.position)
                at_rest = lane.position >= end and not lane.queue
                lane.quiet = (lane.quiet[0] if lane.quiet else at_s, at_s) if at_rest else None

    def silence(self) -> None:
        """The broker does not answer: nobody is idle."""
        with self._changed:
            for lane in self._lanes.values():
                lane.quiet = None

    def throttle(self) -> tuple[list[Partition], list[Partition]]:
        """Partitions to pause now (full or complete) and to resume now (drained below half)."""
        with self._changed:
            pause = [p for p, lane in self._lanes.items() if not lane.paused and self._is_full(lane)]
            resume = [p for p, lane in self._lanes.items() if lane.paused and self._has_room(lane)]
            for partition in (*pause, *resume):
                self._lanes[partition].paused = partition in pause
            return pause, resume

    def wait_for_room(self, timeout_s: float) -> bool:
        """True as soon as a lane wants records, False if none does for `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: any(self._wants(lane) for lane in self._lanes.values()), timeout_s)

    def fail(self, error: BaseException) -> None:
        """The first error stays; the worker meets it when it has taken what waits."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    # The worker's side.

    def take(self, wanted: Collection[Partition], timeout_s: float) -> RecordBatch | None:
        """The oldest batch of the wanted lane with the fewest records taken; None after `timeout_s` without any, or
        when all wanted lanes are complete. Raises what `fail` was given."""
        with self._changed:
            self._changed.wait_for(lambda: self._next(wanted) is not None or self._hopeless(wanted), timeout_s)
            partition = self._next(wanted)
            if partition is None:
                if self._failure is not None:
                    raise self._failure
                return None
            lane = self._lanes[partition]
            batch = lane.queue.popleft()
            lane.waiting -= len(batch)
            lane.waiting_bytes -= batch.size_bytes()
            lane.taken += len(batch)
            lane.quiet = None
            self._changed.notify_all()
            return batch

    def ended(self) -> frozenset[Partition]:
        with self._changed:
            return frozenset(p for p, lane in self._lanes.items() if lane.complete and not lane.queue)

    def quiet_s(self, partition: Partition) -> float:
        """Monotonic seconds between the first and the last look that found nothing left; 0.0 if the last found some."""
        with self._changed:
            quiet = self._lanes[partition].quiet
            return 0.0 if quiet is None else quiet[1] - quiet[0]

    def lag(self) -> dict[Partition, int]:
        with self._changed:
            return {p: lane.waiting + max(0, _end(lane) - lane.position) for p, lane in self._lanes.items()}

    def waiting(self) -> tuple[int, int]:
        """Records in all queues, and bytes of their values."""
        with self._changed:
            lanes = self._lanes.values()
            return sum(lane.waiting for lane in lanes), sum(lane.waiting_bytes for lane in lanes)

    def positions(self) -> dict[Partition, int]:
        """Where fetching goes on, per partition."""
        with self._changed:
            return {p: lane.position for p, lane in self._lanes.items()}

    def _next(self, wanted: Collection[Partition]) -> Partition | None:
        ready = [(self._lanes[p].taken, p) for p in wanted if p in self._lanes and self._lanes[p].queue]
        return min(ready)[1] if ready else None

    def _hopeless(self, wanted: Collection[Partition]) -> bool:
        lanes = [self._lanes[p] for p in wanted if p in self._lanes]
        return self._failure is not None or all(lane.complete for lane in lanes)

    def _is_full(self, lane: _Lane) -> bool:
        full = lane.waiting >= self._capacity or lane.waiting_bytes >= self._capacity_bytes
        return full or lane.complete

    def _has_room(self, lane: _Lane) -> bool:
        half = lane.waiting * 2 < self._capacity and lane.waiting_bytes * 2 < self._capacity_bytes
        return half and not lane.complete

    def _wants(self, lane: _Lane) -> bool:
        return self._has_room(lane) if lane.paused else not self._is_full(lane)


def _end(lane: _Lane) -> int:
    return lane.known_end if lane.fixed_end is None else lane.fixed_end


def _cut(batch: RecordBatch, end: int | None) -> RecordBatch:
    if end is None or batch.next_offset <= end:
        return batch
    keep = int(np.searchsorted(batch.offsets, end))
    return RecordBatch(batch.partition, batch.offsets[:keep], batch.timestamps[:keep], batch.values[:keep], end)

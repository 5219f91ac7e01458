"""The thread that polls Kafka all the time, however long a training step takes.

It alone uses the consumer. Each turn: take in new partitions, send off commits, pause full partitions and resume
drained ones, poll, and now and then ask the broker for the ends of the partitions. That question tells a quiet topic
from a broker that does not answer (a hung broker gives empty polls and no error), and finds logs that were cut back
or made anew, which kafka-python passes over in silence.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
from kafka.errors import LogTruncationError, OffsetOutOfRangeError

from stream_learner.errors import FatalError, RetryableError, UnavailableError
from stream_learner.ingest.kafka_client import (
    FOREIGN,
    Patience,
    clear_drained,
    cluster_of,
    native,
    ours,
    translated,
)
from stream_learner.ingest.kafka_group import Group
from stream_learner.ingest.lanes import Lanes
from stream_learner.ingest.positions import GapError, Missing, check_positions, check_topics
from stream_learner.ingest.source import Partition, RecordBatch

log = logging.getLogger(__name__)

ANSWER_MS = 2500  # how long one question to the broker may take
_ASK_EVERY_S = 1.0
_POLL_S = 0.1
_LOOKS_BEFORE_BEYOND = 2  # a new leader may for a moment know less than the old one told


class Poller(threading.Thread):
    """Fills `lanes` from an assigned `consumer` until `stopping` is set; closes the consumer when it ends."""

    def __init__(self, consumer: Any, lanes: Lanes, patience: Patience, group: Group) -> None:
        super().__init__(name="kafka-poller", daemon=True)
        self.stopping = threading.Event()
        self._consumer = consumer
        self._lanes = lanes
        self._patience = patience
        self._group = group
        self._mail = threading.Lock()
        self._to_commit: dict[Partition, int] = {}
        self._to_add: list[tuple[Partition, int]] = []
        self._ask_at = 0.0
        self._beyond: dict[Partition, int] = {}
        self._assigned = set(lanes.positions())
        self._topic_ids = self._ids(p.topic for p in self._assigned)

    # Mail from other threads.

    def commit(self, positions: Mapping[Partition, int]) -> None:
        with self._mail:
            self._to_commit.update(positions)

    def add(self, partition: Partition, offset: int) -> None:
        """The lane must be open already."""
        with self._mail:
            self._to_add.append((partition, offset))

    # The thread.

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self._turn()
            self._send_commits()
        except FatalError as error:
            self._lanes.fail(error)
        finally:
            self._lanes.fail(UnavailableError("the thread that polls Kafka has stopped; its error is in the log"))
            with contextlib.suppress(*FOREIGN):
                self._consumer.close(autocommit=False, timeout_ms=500)
            self._group.close()

    def _turn(self) -> None:
        self._take_in_partitions()
        self._send_commits()
        try:
            self._throttle()
            self._poll()
            self._ask_ends()
        except OffsetOutOfRangeError as error:
            self._out_of_range(error)
        except LogTruncationError as error:
            self._cut(error)
        except FOREIGN as error:
            self._trouble(error, "polling")

    def _take_in_partitions(self) -> None:
        with self._mail:
            added, self._to_add = self._to_add, []
        if added:
            self._assigned |= {partition for partition, _ in added}
            self._consumer.assign([native(p) for p in sorted(self._assigned)])
            for partition, offset in added:
                self._consumer.seek(native(partition), offset)

    def _throttle(self) -> None:
        pause, resume = self._lanes.throttle()
        self._consumer.pause(*(native(p) for p in pause))
        self._consumer.resume(*(native(p) for p in resume))

    def _poll(self) -> None:
        """One poll. With every lane full it only keeps the client alive, and waits for room instead of for records."""
        room = self._lanes.wait_for_room(_POLL_S)
        if not self._assigned:
            return
        clear_drained(self._consumer)
        # The first call may only set records of paused partitions aside; waiting in it would delay all others.
        fetched = self._consumer.poll(timeout_ms=0)
        if room and not fetched:
            fetched = self._consumer.poll(timeout_ms=int(_POLL_S * 1000))
        self._check_topic_ids()
        # The consumer has moved past these records: nothing may fail before they are in their lanes.
        for tp, records in fetched.items():
            self._lanes.put(_batch(Partition(tp.topic, tp.partition), records, records[-1].offset + 1))
        if fetched:
            self._patience.good()
        self._pass_gaps()

    def _pass_gaps(self) -> None:
        """Moves lanes past what the consumer has skipped: transaction markers, aborted and compacted records."""
        for partition, before in self._positions().items():
            position = self._consumer.position(native(partition), timeout_ms=0)
            if position is not None and position > before:
                self._lanes.put(_batch(partition, [], position))

    def _ask_ends(self) -> None:
        if time.monotonic() < self._ask_at:
            return
        asked_at = time.monotonic()
        positions = self._positions()
        partitions = [native(p) for p in positions]
        ends = ours(self._consumer.end_offsets(partitions, timeout_ms=ANSWER_MS))
        if self._patience.in_trouble:
            log.info("Kafka answers again")
            self._check_bounds()
        self._patience.good()
        self._check_beyond(positions, ends)
        self._lanes.seen_ends({p: max(end, self._high(p)) for p, end in ends.items()}, asked_at)
        self._ask_at = time.monotonic() + _ASK_EVERY_S

    def _high(self, partition: Partition) -> int:
        """The high watermark of the last fetch: records behind an open transaction keep a partition awake."""
        return self._consumer.highwater(native(partition)) or 0

    def _positions(self) -> dict[Partition, int]:
        """Of the partitions the consumer has; a lane may have been opened whose mail has not been read."""
        positions = self._lanes.positions()
        return {partition: positions[partition] for partition in sorted(self._assigned)}

    def _trouble(self, error: BaseException, doing: str) -> None:
        self._lanes.silence()
        wait_s = self._patience.wait_s(error, doing)
        self._ask_at = time.monotonic() + wait_s
        self.stopping.wait(min(wait_s, 1.0))

    # A log that is not what it was.

    def _out_of_range(self, error: OffsetOutOfRangeError) -> None:
        try:
            self._check_bounds()
        except FOREIGN as silent:
            self._trouble(silent, "asking for beginnings and ends")
        else:  # within the log after all: a leader that has yet to catch up
            self._trouble(RetryableError(f"Kafka: fetching: {error}"), "fetching")

    def _check_bounds(self) -> None:
        """After an outage: every position against the beginning and end of its partition."""
        positions = self._positions()
        partitions = [native(p) for p in positions]
        begins = ours(self._consumer.beginning_offsets(partitions, timeout_ms=ANSWER_MS))
        ends = ours(self._consumer.end_offsets(partitions, timeout_ms=ANSWER_MS))
        self._check_topic_ids()
        check_positions(positions, {partition: (begins[partition], None) for partition in positions})
        self._check_beyond(positions, ends)

    def _check_beyond(self, positions: dict[Partition, int], ends: dict[Partition, int]) -> None:
        looks = {p: self._beyond.get(p, 0) + 1 for p, end in ends.items() if positions[p] > end}
        self._beyond = looks
        for partition, count in looks.items():
            if count >= _LOOKS_BEFORE_BEYOND:
                check_positions({partition: positions[partition]}, {partition: (0, ends[partition])})

    def _check_topic_ids(self) -> None:
        now = self._ids(self._topic_ids)
        if now != self._topic_ids:
            positions = self._positions()
            check_topics(positions, dict.fromkeys(positions, (0, None)), self._topic_ids, now)

    def _ids(self, topics: Iterable[str]) -> dict[str, Any]:
        found = {topic: cluster_of(self._consumer).topic_id(topic) for topic in topics}
        return {topic: identity for topic, identity in found.items() if identity is not None}

    def _cut(self, error: LogTruncationError) -> None:
        """A new leader had less than we have read: by the epochs the log is ours up to a known offset only."""
        positions, lasts = self._positions(), ours(error.divergent_offsets)
        known = {partition: last.offset for partition, last in sorted(lasts.items()) if last is not None}
        if not known:
            raise translated(error, "fetching") from error
        raise GapError([Missing(p, positions[p], "beyond", 0, end) for p, end in known.items()]) from error

    def _send_commits(self) -> None:
        with self._mail:
            positions, self._to_commit = self._to_commit, {}
        if positions:
            self._group.commit(positions)
        else:
            self._group.look()


_OFFSET, _TIMESTAMP, _VALUE = attrgetter("offset"), attrgetter("timestamp"), attrgetter("value")


def _batch(partition: Partition, records: list[Any], position: int) -> RecordBatch:
    return RecordBatch(
        partition=partition,
        offsets=np.fromiter(map(_OFFSET, records), np.int64, len(records)),
        timestamps=np.fromiter(map(_TIMESTAMP, records), np.int64, len(records)),
        values=list(map(_VALUE, records)),
        next_offset=position,
    )

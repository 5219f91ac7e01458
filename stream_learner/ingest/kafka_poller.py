"""The thread that polls Kafka all the time, however long a training step takes.

It alone uses the reader. Each turn: take in new partitions, send off commits, pause full partitions and resume
drained ones, poll, and now and then ask the broker for the ends of the partitions. That question tells a quiet topic
from a broker that does not answer (a hung broker gives empty polls and no error), and finds logs that were cut back
or made anew, which clients pass over in silence.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from stream_learner.errors import FatalError, RetryableError, UnavailableError
from stream_learner.ingest.kafka_client import Patience
from stream_learner.ingest.kafka_group import Group
from stream_learner.ingest.lanes import Lanes
from stream_learner.ingest.log_reader import LogReader, OutOfRange, Truncated
from stream_learner.ingest.positions import GapError, Missing, check_positions, check_topics
from stream_learner.ingest.source import Partition

log = logging.getLogger(__name__)

_ASK_EVERY_S = 1.0
_POLL_S = 0.1
_LOOKS_BEFORE_BEYOND = 2  # a new leader may for a moment know less than the old one told


class Poller(threading.Thread):
    """Fills `lanes` from a `reader` that reads them already, until `stopping` is set; closes the reader at its end."""

    def __init__(self, reader: LogReader, lanes: Lanes, patience: Patience, group: Group) -> None:
        super().__init__(name="kafka-poller", daemon=True)
        self.stopping = threading.Event()
        self._reader = reader
        self._lanes = lanes
        self._patience = patience
        self._group = group
        self._mail = threading.Lock()
        self._to_commit: dict[Partition, int] = {}
        self._to_add: list[tuple[Partition, int]] = []
        self._ask_at = 0.0
        self._beyond: dict[Partition, int] = {}
        self._assigned = set(lanes.positions())
        self._topic_ids = reader.topic_ids()

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
            self._reader.close()
            self._group.close()

    def _turn(self) -> None:
        self._take_in_partitions()
        self._send_commits()
        try:
            self._throttle()
            self._poll()
            self._ask_ends()
        except OutOfRange as error:
            self._out_of_range(error)
        except Truncated as error:
            self._cut(error)
        except RetryableError as error:
            self._trouble(error, "polling")

    def _take_in_partitions(self) -> None:
        with self._mail:
            added, self._to_add = self._to_add, []
        if added:
            self._assigned |= {partition for partition, _ in added}
            self._reader.add(dict(added))

    def _throttle(self) -> None:
        pause, resume = self._lanes.throttle()
        self._reader.pause(pause)
        self._reader.resume(resume)

    def _poll(self) -> None:
        """One poll. With every lane full it only keeps the client alive, and waits for room instead of for records."""
        room = self._lanes.wait_for_room(_POLL_S)
        if not self._assigned:
            return
        fetched = self._reader.poll(_POLL_S if room else 0.0)
        self._check_topic_ids()
        # The reader has moved past these records: nothing may fail before they are in their lanes.
        for batch in fetched:
            self._lanes.put(batch)
        if any(map(len, fetched)):
            self._patience.good()

    def _ask_ends(self) -> None:
        if time.monotonic() < self._ask_at:
            return
        asked_at = time.monotonic()
        positions = self._positions()
        ends = self._reader.ends(list(positions))
        if self._patience.in_trouble:
            log.info("Kafka answers again")
            self._check_bounds()
        self._patience.good()
        self._check_beyond(positions, ends)
        # Records behind an open transaction keep a partition awake.
        self._lanes.seen_ends({p: max(end, self._reader.high(p)) for p, end in ends.items()}, asked_at)
        self._ask_at = time.monotonic() + _ASK_EVERY_S

    def _positions(self) -> dict[Partition, int]:
        """Of the partitions the reader has; a lane may have been opened whose mail has not been read."""
        positions = self._lanes.positions()
        return {partition: positions[partition] for partition in sorted(self._assigned)}

    def _trouble(self, error: RetryableError, doing: str) -> None:
        self._lanes.silence()
        wait_s = self._patience.wait_s(error, doing)
        self._ask_at = time.monotonic() + wait_s
        self.stopping.wait(min(wait_s, 1.0))

    # A log that is not what it was.

    def _out_of_range(self, error: OutOfRange) -> None:
        try:
            self._check_bounds()
        except RetryableError as silent:
            self._trouble(silent, "asking for beginnings and ends")
        else:  # within the log after all: a leader that has yet to catch up
            self._trouble(error, "fetching")

    def _check_bounds(self) -> None:
        """After an outage: every position against the beginning and end of its partition."""
        positions = self._positions()
        begins, ends = self._reader.beginnings(list(positions)), self._reader.ends(list(positions))
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
        now = {topic: known for topic, known in self._reader.topic_ids().items() if topic in self._topic_ids}
        if now != self._topic_ids:
            positions = self._positions()
            check_topics(positions, dict.fromkeys(positions, (0, None)), self._topic_ids, now)

    def _cut(self, error: Truncated) -> None:
        """A new leader had less than we have read."""
        positions = self._positions()
        raise GapError([Missing(p, positions[p], "beyond", 0, end) for p, end in sorted(error.ends.items())]) from error

    def _send_commits(self) -> None:
        with self._mail:
            positions, self._to_commit = self._to_commit, {}
        if positions:
            self._group.commit(positions)
        else:
            self._group.look()

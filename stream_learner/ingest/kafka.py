"""Records from Apache Kafka: partitions assigned, never rebalanced; read committed; positions checked, never reset."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import kafka

from stream_learner.errors import ConfigError, RetryableError
from stream_learner.ingest.kafka_client import Connector, Patience, cluster_of, native, ours, retry
from stream_learner.ingest.kafka_group import Group
from stream_learner.ingest.kafka_poller import ANSWER_MS, Poller
from stream_learner.ingest.lanes import Lanes
from stream_learner.ingest.positions import (
    EARLIEST,
    LATEST,
    check_positions,
    check_present,
    check_topics,
    parse_start,
)
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.settings import Source as SourceSettings

_CLOSE_S = 3.0
_SETTLE_S = 10.0  # a broker that has just started may not know its topics yet

Bounds = dict[Partition, tuple[int, int]]
"""Beginning and end offset (of the last stable record, as read_committed sees it) per partition."""


class KafkaSource:
    """The `Source` protocol over kafka-python. `close` may be called from any thread and ends a waiting `start`."""

    def __init__(self, config: SourceSettings, topics: Sequence[str]) -> None:
        self._config = config.kafka
        self._topics = list(topics)
        self._begin_at = parse_start(config.start)
        self._connector = Connector(config.kafka)
        self._patience = Patience(config.kafka.retry_timeout.seconds)
        self.group = Group(self._connector, config.kafka.group_id, config.kafka.refresh_partitions.seconds)
        self._capacity = config.queue_records, config.queue_bytes
        self._lanes = Lanes(*self._capacity)
        self._closing = threading.Event()
        self._consumer: Any = None
        self._poller: Poller | None = None
        self._until_end = False
        self._waiting: Bounds = {}  # partitions that exist and are not read (yet)
        self._reading: set[Partition] = set()
        self._look_at = 0.0
        self._unknown_since: float | None = None  # when the broker first said that it does not know a topic

    def start(
        self, positions: Mapping[Partition, int] | None, *, until_end: bool, topic_ids: Mapping[str, str] | None = None
    ) -> dict[Partition, int]:
        self._forget()
        self._patience.good()
        self._until_end = until_end
        self._consumer = self._ask(self._connect, f"connecting to {self._config.bootstrap_servers}")
        present = self._ask(lambda: self._partitions(positions or ()), "asking for the topics")
        bounds: Bounds = self._ask(lambda: self._bounds(present), "asking for beginnings and ends")
        if positions is None:
            positions = self._ask(lambda: self._starts(bounds), "looking up where to start")
        check_present(positions, bounds)
        check_topics(positions, bounds, topic_ids or {}, self.topic_ids())
        check_positions(positions, bounds)
        self._waiting = {p: span for p, span in bounds.items() if p not in positions}
        self._begin_reading(positions, bounds)
        return dict(sorted(positions.items()))

    def topic_ids(self) -> dict[str, str]:
        found = {topic: cluster_of(self._consumer).topic_id(topic) for topic in self._topics}
        return {topic: str(identity) for topic, identity in found.items() if identity is not None}

    def poll(self, wanted: Collection[Partition], timeout_s: float) -> RecordBatch | None:
        return self._lanes.take(wanted, timeout_s)

    def ended(self) -> frozenset[Partition]:
        return self._lanes.ended()

    def idle_s(self, partition: Partition) -> float:
        return self._lanes.quiet_s(partition)

    def lag(self) -> dict[Partition, int]:
        return self._lanes.lag()

    def waiting(self) -> tuple[int, int]:
        return self._lanes.waiting()

    def new_partitions(self) -> dict[Partition, int]:
        if not self._until_end and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + self._config.refresh_partitions.seconds
            # Partitions born after the start are read from offset 0: nothing written to them may be missed.
            born = self._known_partitions() - self._reading - set(self._waiting)
            self._waiting |= dict.fromkeys(born, (0, 0))
        return {p: begin for p, (begin, _) in sorted(self._waiting.items())}

    def add(self, partition: Partition, offset: int) -> None:
        check_present({partition: offset}, self._waiting)
        _, end = self._waiting.pop(partition)
        self._open_lane(partition, offset, end)
        if self._poller is not None:
            self._poller.add(partition, offset)

    def commit(self, positions: Mapping[Partition, int]) -> None:
        if self._poller is not None:
            self._poller.commit(positions)

    def close(self) -> None:
        self._closing.set()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._poller is not None:
            self._poller.stopping.set()
            self._poller.join(_CLOSE_S)  # a daemon: a broker that hangs can not hold up the exit
        elif self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=500)

    # Starting: in the caller's thread, before the polling thread exists.

    def _forget(self) -> None:
        """Ends an earlier reading, with what waits of it."""
        self._disconnect()
        self._poller = self._consumer = None
        self._lanes = Lanes(*self._capacity)
        self._reading = set()

    def _ask(self, what: Any, doing: str) -> Any:
        return retry(what, doing, self._patience, self._closing)

    def _connect(self) -> Any:
        return self._connector.open(
            kafka.KafkaConsumer,
            group_id=None,  # see Poller: reading must not depend on a group coordinator
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            max_poll_records=self._config.max_poll_records,
            max_partition_fetch_bytes=self._config.fetch_max_bytes,
            metadata_max_age_ms=max(100, int(self._config.refresh_partitions.seconds * 1000)),
            request_timeout_ms=10_000,
        )

    def _partitions(self, needed: Collection[Partition]) -> list[Partition]:
        """All partitions of the topics, sorted. Raises `ConfigError` for a topic that does not exist; while the broker
        may still be learning what there is, a `RetryableError` for that, and for a needed partition that is not there.
        """
        cluster = cluster_of(self._consumer)
        cluster.set_topics(self._topics)
        fresh = threading.Event()
        cluster.request_update().add_both(lambda _: fresh.set())
        if not fresh.wait(ANSWER_MS / 1000):
            raise RetryableError("Kafka: no answer to the question for the topics")
        missing = [topic for topic in self._topics if not cluster.partitions_for_topic(topic)]
        known = self._known_partitions()
        if (missing or not known.issuperset(needed)) and self._may_settle():
            raise RetryableError(f"Kafka: {', '.join(missing or self._topics)} not known to the broker in full yet")
        if missing:
            raise ConfigError(
                f"topics: {', '.join(missing)} not found on {self._config.bootstrap_servers} (or not allowed to this "
                "client): create the topic, or correct the name; the worker never creates topics"
            )
        return sorted(known)

    def _may_settle(self) -> bool:
        self._unknown_since = self._unknown_since or time.monotonic()
        patience_s = min(_SETTLE_S, self._config.retry_timeout.seconds / 2)
        return time.monotonic() - self._unknown_since < patience_s

    def _known_partitions(self) -> set[Partition]:
        cluster = cluster_of(self._consumer)
        return {
            Partition(topic, index) for topic in self._topics for index in cluster.partitions_for_topic(topic) or ()
        }

    def _bounds(self, partitions: list[Partition]) -> Bounds:
        asked = [native(p) for p in partitions]
        begins = self._consumer.beginning_offsets(asked, timeout_ms=ANSWER_MS)
        ends = self._consumer.end_offsets(asked, timeout_ms=ANSWER_MS)
        return ours({tp: (begins[tp], ends[tp]) for tp in asked})

    def _starts(self, bounds: Bounds) -> dict[Partition, int]:
        if self._begin_at in (EARLIEST, LATEST):
            return {p: span[self._begin_at == LATEST] for p, span in bounds.items()}
        times = {native(p): self._begin_at for p in bounds}
        found = self._consumer.offsets_for_times(times, timeout_ms=ANSWER_MS)
        return {p: _first(found[native(p)], span) for p, span in bounds.items()}

    def _begin_reading(self, positions: Mapping[Partition, int], bounds: Bounds) -> None:
        self._consumer.assign([native(p) for p in positions])
        for partition, position in positions.items():
            self._consumer.seek(native(partition), position)
            self._open_lane(partition, position, bounds[partition][1])
        self._poller = Poller(self._consumer, self._lanes, self._patience, self.group)
        self._poller.start()

    def _open_lane(self, partition: Partition, position: int, end: int) -> None:
        self._lanes.open(partition, position, end, end if self._until_end else None)
        self._reading.add(partition)


def _first(found: Any, span: tuple[int, int]) -> int:
    """The offset looked up by time, within the partition; its end where all records are older."""
    return span[1] if found is None else min(max(int(found.offset), span[0]), span[1])

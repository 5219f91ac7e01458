"""Records from Apache Kafka: partitions assigned, never rebalanced; read committed; positions checked, never reset."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from stream_learner.errors import ConfigError, RetryableError
from stream_learner.ingest.kafka_client import Connector, Patience, retry
from stream_learner.ingest.kafka_group import Group
from stream_learner.ingest.kafka_poller import Poller
from stream_learner.ingest.kafka_python import KafkaPythonReader
from stream_learner.ingest.lanes import Lanes
from stream_learner.ingest.log_reader import LogReader
from stream_learner.ingest.positions import (
    LATEST,
    check_positions,
    check_present,
    check_topics,
    parse_start,
)
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.settings import KafkaSource as KafkaSettings
from stream_learner.settings import Source as SourceSettings

T = TypeVar("T")

_CLOSE_S = 3.0
_SETTLE_S = 10.0  # a broker that has just started may not know its topics yet; one read before is waited for longer

Bounds = dict[Partition, tuple[int, int]]
"""Beginning and end offset (of the last stable record, as read_committed sees it) per partition."""


OpenReader = Callable[[], LogReader]


def reader_of(config: KafkaSettings, connector: Connector, topics: Sequence[str]) -> OpenReader:
    """What opens the client that `source.kafka.client` names. Raises `ConfigError` at once where it is not installed,
    or has no word for an option."""
    if config.client == "confluent":
        from stream_learner.ingest.confluent import ConfluentReader  # an extra, not installed everywhere
        from stream_learner.ingest.confluent_options import Options

        options = Options.of(config)
        return lambda: ConfluentReader(options, config, topics)
    return lambda: KafkaPythonReader(connector, config, topics)


class KafkaSource:
    """The `Source` protocol over a Kafka client. `close` may be called from any thread and ends a waiting `start`."""

    def __init__(self, config: SourceSettings, topics: Sequence[str]) -> None:
        self._config = config.kafka
        self._topics = list(topics)
        self._begin_at = parse_start(config.start)
        connector = Connector(config.kafka)
        self._open_reader = reader_of(config.kafka, connector, topics)
        self._patience = Patience(config.kafka.retry_timeout.seconds)
        self.group = Group(connector, config.kafka.group_id, config.kafka.refresh_partitions.seconds)
        self._capacity = config.queue_records, config.queue_bytes
        self._lanes = Lanes(*self._capacity)
        self._closing = threading.Event()
        self._reader: LogReader | None = None
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
        reader = self._reader = self._ask(self._open_reader, f"connecting to {self._config.bootstrap_servers}")
        present = self._ask(lambda: self._partitions(reader, positions or ()), "asking for the topics")
        bounds = self._ask(lambda: _bounds(reader, present), "asking for beginnings and ends")
        if positions is None:
            positions = self._ask(lambda: self._starts(reader, bounds), "looking up where to start")
        check_present(positions, bounds)
        check_topics(positions, bounds, topic_ids or {}, reader.topic_ids())
        check_positions(positions, bounds)
        self._waiting = {p: span for p, span in bounds.items() if p not in positions}
        self._begin_reading(reader, positions, bounds)
        return dict(sorted(positions.items()))

    def topic_ids(self) -> dict[str, str]:
        return {} if self._reader is None else self._reader.topic_ids()

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
        if self._reader is not None and not self._until_end and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + self._config.refresh_partitions.seconds
            # Partitions born after the start are read from offset 0: nothing written to them may be missed.
            born = self._reader.partitions() - self._reading - set(self._waiting)
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
        elif self._reader is not None:
            self._reader.close()

    # Starting: in the caller's thread, before the polling thread exists.

    def _forget(self) -> None:
        """Ends an earlier reading, with what waits of it."""
        self._disconnect()
        self._poller = self._reader = None
        self._lanes = Lanes(*self._capacity)
        self._reading = set()

    def _ask(self, what: Callable[[], T], doing: str) -> T:
        return retry(what, doing, self._patience, self._closing)

    def _partitions(self, reader: LogReader, needed: Collection[Partition]) -> list[Partition]:
        """All partitions of the topics, sorted. Raises `ConfigError` for a topic that does not exist; while the broker
        may still be learning what there is, a `RetryableError` for that, and for a needed partition that is not there.
        """
        reader.ask_topics()
        known = reader.partitions()
        missing = sorted(set(self._topics) - {partition.topic for partition in known})
        if (missing or not known.issuperset(needed)) and self._may_settle(read_before=bool(needed)):
            raise RetryableError(f"Kafka: {', '.join(missing or self._topics)} not known to the broker in full yet")
        if missing:
            raise ConfigError(
                f"topics: {', '.join(missing)} not found on {self._config.bootstrap_servers} (or not allowed to this "
                "client): create the topic, or correct the name; the worker never creates topics"
            )
        return sorted(known)

    def _may_settle(self, *, read_before: bool) -> bool:
        self._unknown_since = self._unknown_since or time.monotonic()
        longest_s = self._config.retry_timeout.seconds / 2
        patience_s = longest_s if read_before else min(_SETTLE_S, longest_s)
        return time.monotonic() - self._unknown_since < patience_s

    def _starts(self, reader: LogReader, bounds: Bounds) -> dict[Partition, int]:
        if isinstance(self._begin_at, str):
            return {p: span[self._begin_at == LATEST] for p, span in bounds.items()}
        found = reader.at_time(list(bounds), self._begin_at)
        return {p: _first(found[p], span) for p, span in bounds.items()}

    def _begin_reading(self, reader: LogReader, positions: Mapping[Partition, int], bounds: Bounds) -> None:
        reader.add(positions)
        for partition, position in positions.items():
            self._open_lane(partition, position, bounds[partition][1])
        self._poller = Poller(reader, self._lanes, self._patience, self.group)
        self._poller.start()

    def _open_lane(self, partition: Partition, position: int, end: int) -> None:
        self._lanes.open(partition, position, end, end if self._until_end else None)
        self._reading.add(partition)


def _bounds(reader: LogReader, partitions: list[Partition]) -> Bounds:
    begins, ends = reader.beginnings(partitions), reader.ends(partitions)
    return {partition: (begins[partition], ends[partition]) for partition in partitions}


def _first(found: int | None, span: tuple[int, int]) -> int:
    """The offset looked up by time, within the partition; its end where all records are older."""
    return span[1] if found is None else min(max(found, span[0]), span[1])

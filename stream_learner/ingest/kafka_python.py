"""`LogReader` over kafka-python."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import kafka
import numpy as np
from kafka.errors import LogTruncationError, OffsetOutOfRangeError

from stream_learner.errors import RetryableError
from stream_learner.ingest.kafka_client import FOREIGN, Connector, native, ours, translated
from stream_learner.ingest.log_reader import ANSWER_S, OutOfRange, Truncated
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.settings import KafkaSource as KafkaSettings

_ANSWER_MS = int(ANSWER_S * 1000)


class KafkaPythonReader:
    """Connects when it is made."""

    def __init__(self, connector: Connector, config: KafkaSettings, topics: Sequence[str]) -> None:
        self._topics = list(topics)
        self._positions: dict[Partition, int] = {}
        with _edge(f"connecting to {config.bootstrap_servers}"):
            self._consumer = connector.open(
                kafka.KafkaConsumer,
                group_id=None,  # reading must not depend on a group coordinator
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                allow_auto_create_topics=False,
                max_poll_records=config.max_poll_records,
                max_partition_fetch_bytes=config.fetch_max_bytes,
                metadata_max_age_ms=max(100, int(config.refresh_partitions.seconds * 1000)),
                request_timeout_ms=10_000,
            )
        self._cluster = self._consumer._cluster  # there is no public way to both partitions and ids of topics

    def ask_topics(self) -> None:
        self._cluster.set_topics(self._topics)
        fresh = threading.Event()
        self._cluster.request_update().add_both(lambda _: fresh.set())
        if not fresh.wait(ANSWER_S):
            raise RetryableError("Kafka: no answer to the question for the topics")

    def partitions(self) -> set[Partition]:
        known = {topic: self._cluster.partitions_for_topic(topic) or () for topic in self._topics}
        return {Partition(topic, index) for topic, indices in known.items() for index in indices}

    def topic_ids(self) -> dict[str, str]:
        found = {topic: self._cluster.topic_id(topic) for topic in self._topics}
        return {topic: str(identity) for topic, identity in found.items() if identity is not None}

    def beginnings(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        with _edge("asking for beginnings"):
            return ours(self._consumer.beginning_offsets([native(p) for p in partitions], timeout_ms=_ANSWER_MS))

    def ends(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        with _edge("asking for ends"):
            return ours(self._consumer.end_offsets([native(p) for p in partitions], timeout_ms=_ANSWER_MS))

    def at_time(self, partitions: Collection[Partition], time_ms: int) -> dict[Partition, int | None]:
        times = {native(p): time_ms for p in partitions}
        with _edge("looking up where to start"):
            found = ours(self._consumer.offsets_for_times(times, timeout_ms=_ANSWER_MS))
        return {partition: None if held is None else int(held.offset) for partition, held in found.items()}

    def add(self, positions: Mapping[Partition, int]) -> None:
        self._positions |= positions
        self._consumer.assign([native(p) for p in sorted(self._positions)])
        for partition, offset in positions.items():
            self._consumer.seek(native(partition), offset)

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._consumer.pause(*map(native, partitions))

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._consumer.resume(*map(native, partitions))

    def poll(self, timeout_s: float) -> list[RecordBatch]:
        self._clear_drained()
        with _edge("polling"):
            # The first call may only set records of paused partitions aside; waiting in it would delay all others.
            fetched = self._consumer.poll(timeout_ms=0)
            if timeout_s and not fetched:
                fetched = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        batches = [_batch(partition, records) for partition, records in ours(fetched).items()]
        self._positions |= {batch.partition: batch.next_offset for batch in batches}
        with contextlib.suppress(*FOREIGN):  # what was fetched must not be lost; the next poll looks again
            batches += self._passed()
        return batches

    def _passed(self) -> list[RecordBatch]:
        """Where the consumer has gone past what it does not hand out."""
        found = {p: self._consumer.position(native(p), timeout_ms=0) for p in self._positions}
        passed = {p: at for p, at in found.items() if at is not None and at > self._positions[p]}
        self._positions |= passed
        return [RecordBatch.empty(partition, at) for partition, at in passed.items()]

    def _clear_drained(self) -> None:
        """Frees the slot through which the consumer hands out fetched records, where a drained block still holds it.

        Up to 3.0.12 `Fetcher.fetched_records` brings back the records of a resumed partition only when that slot `is
        None`; a block that was drained stays in it until another fetch completes, and where all other partitions are
        paused none ever does: the resumed partition stands still for good. To be called before each poll.
        """
        fetcher = self._consumer._fetcher
        block = getattr(fetcher, "_next_partition_records", None)
        if block is not None and not block:
            fetcher._next_partition_records = None

    def high(self, partition: Partition) -> int:
        return self._consumer.highwater(native(partition)) or 0

    def close(self) -> None:
        with contextlib.suppress(*FOREIGN):
            self._consumer.close(autocommit=False, timeout_ms=500)


@contextlib.contextmanager
def _edge(doing: str) -> Iterator[None]:
    """kafka-python's errors become those of the seam."""
    try:
        yield
    except OffsetOutOfRangeError as error:
        raise OutOfRange(f"Kafka: {doing}: {error}") from error
    except LogTruncationError as error:
        lasts = {p: last.offset for p, last in ours(error.divergent_offsets).items() if last is not None}
        known = translated(error, doing)
        raise (Truncated(str(known), lasts) if lasts else known) from error
    except FOREIGN as error:
        raise translated(error, doing) from error


_OFFSET, _TIMESTAMP, _VALUE = attrgetter("offset"), attrgetter("timestamp"), attrgetter("value")


def _batch(partition: Partition, records: list[Any]) -> RecordBatch:
    return RecordBatch(
        partition=partition,
        offsets=np.fromiter(map(_OFFSET, records), np.int64, len(records)),
        timestamps=np.fromiter(map(_TIMESTAMP, records), np.int64, len(records)),
        values=list(map(_VALUE, records)),
        next_offset=records[-1].offset + 1,
    )

"""A shop that goes on for ever: its records sent to a topic at a steady rate, while the topic may grow."""

from __future__ import annotations

import threading
import time
from typing import Any

import kafka
from kafka.errors import KafkaError

from stream_learner.simulate import Shop

from .stream import PARTITIONS, Record, records_of, shop_settings

_FLUSHED_S = 60.0


class Steady(threading.Thread):
    """Produces until stopped. While the broker is away records wait, and are sent at the old rate afterwards."""

    def __init__(self, broker: Any, topic: str, seed: int, rate_per_s: float) -> None:
        super().__init__(name="producer", daemon=True)
        self.sent = 0
        self._broker, self._topic, self._rate_per_s = broker, topic, rate_per_s
        self._partitions = PARTITIONS
        self._records = records_of(seed, Shop(shop_settings(seed)).chunks(), lambda: self._partitions)
        self._stopping = threading.Event()

    def grow(self, partitions: int) -> None:
        """The topic has so many partitions from now on, and users move to the new ones with the next chunk."""
        self._broker.grow(self._topic, partitions)
        self._partitions = partitions

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        producer = self._broker.producer(linger_ms=5, metadata_max_age_ms=500, max_block_ms=120_000)
        try:
            due = time.monotonic()
            for partition, value, time_ms in self._records:
                if self._stopping.wait(max(due - time.monotonic(), 0.0)):
                    break
                due = max(due + 1 / self._rate_per_s, time.monotonic() - 1.0)
                self._send(producer, partition, value, time_ms)
            producer.flush(timeout=_FLUSHED_S)
        finally:
            producer.close(timeout=5)

    def _send(self, producer: Any, partition: int, value: bytes, time_ms: int) -> None:
        """One record; a partition that the producer has not heard of yet is waited for."""
        while not self._stopping.is_set():
            try:
                known = producer.partitions_for(self._topic) or ()
                if partition in known:
                    producer.send(self._topic, value=value, partition=partition, timestamp_ms=time_ms, key=b"k")
                    self.sent += 1
                    return
            except KafkaError:
                continue  # it has waited for a minute or two
            self._stopping.wait(0.1)


def read_back(broker: Any, topic: str) -> list[Record]:
    """All records of a topic, partition by partition: what was asked of a producer is not what reached the log."""
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    found: list[Record] = []
    try:
        partitions = [kafka.TopicPartition(topic, index) for index in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(place) < end for place, end in ends.items()):
            for place, records in consumer.poll(timeout_ms=500).items():
                found += [(place.partition, record.value, record.timestamp) for record in records]
    finally:
        consumer.close()
    return found

"""A Parquet file's rows as JSON records on a Kafka topic, keyed by user: a data set as a live log.

    python -m benchmarks.produce FILE --kafka localhost:9092 --topic taobao

A record is what the files source would read from the same row. Its key is the user, so a user's events keep their
order in one partition; its timestamp is the event's own time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

_ENCODER = msgspec.json.Encoder()
_ROWS = 8192
_ACKNOWLEDGED_S = 120.0


def produce(
    path: Path, bootstrap: str, topic: str, *, partitions: int = 4, user: str = "user", time: str = "ts"
) -> int:
    """Makes the topic, sends every row in the order of the file and returns how many there were.

    `user` and `time` name columns; times are naive, in UTC. Raises what the client raises, for a topic that exists
    already too: two data sets in one topic would be one log.
    """
    from kafka import KafkaProducer

    make_topic(bootstrap, topic, partitions)
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=20, batch_size=262_144)
    failures: list[BaseException] = []
    sent = 0
    try:
        for row in rows(path):
            at_ms = epoch_ms(row[time])
            future = producer.send(topic, _ENCODER.encode(row), key=str(row[user]).encode(), timestamp_ms=at_ms)
            future.add_errback(failures.append)
            sent += 1
        producer.flush(timeout=_ACKNOWLEDGED_S)
    finally:
        producer.close(timeout=5)
    if failures:
        raise failures[0]
    return sent


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as dicts, in order."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS):
            yield from batch.to_pylist()


def epoch_ms(time: datetime) -> int:
    """A naive UTC time in milliseconds since the epoch, rounded down."""
    since = time.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def make_topic(bootstrap: str, topic: str, partitions: int, config: dict[str, str] | None = None) -> None:
    """A topic that keeps its records however old their timestamps are."""
    from kafka import KafkaAdminClient
    from kafka.admin import NewTopic

    admin: Any = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        keep = {"retention.ms": "-1"} | (config or {})
        admin.create_topics(
            [NewTopic(topic, partitions, replication_factor=-1, topic_configs=keep)], wait_for_metadata=True
        )
    finally:
        admin.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.produce", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--kafka", required=True, metavar="BOOTSTRAP")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--user", default="user", help="column of the user (default: %(default)s)")
    parser.add_argument("--time", default="ts", help="column of the event time (default: %(default)s)")
    args = parser.parse_args()
    sent = produce(args.file, args.kafka, args.topic, partitions=args.partitions, user=args.user, time=args.time)
    print(f"{sent} records sent to {args.topic}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

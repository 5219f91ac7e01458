"""Clicks that bring their label with them, written as fast as the clock says, or all at once.

python -m benchmarks.freshness.events --kafka BOOTSTRAP --topic TOPIC --per-second N    # until its input closes
"""

from __future__ import annotations

import argparse
import select
import sys
import time
from collections.abc import Iterator

import numpy as np
from confluent_kafka import Producer  # a tenth of the CPU of kafka-python's, which would be the worker's here

from benchmarks.throughput.stream import CATEGORIES, PARTITIONS, zipf

USERS, ITEMS, POSITIVE = 500_000, 100_000, 0.04
_TICK_S = 0.02
_CHUNK = 100_000


def records(seed: int) -> Iterator[tuple[int, str]]:
    """(partition, JSON but for its time and closing brace) of one event after the other, without end."""
    rng = np.random.default_rng(seed)
    price = rng.lognormal(3, 1, ITEMS).round(2)
    while True:
        user, item = zipf(rng, USERS, 0.8, _CHUNK), zipf(rng, ITEMS, 1.0, _CHUNK)
        label = (rng.random(_CHUNK) < POSITIVE).astype(int)
        for u, i, y, p in zip(user.tolist(), item.tolist(), label.tolist(), price[item].tolist(), strict=True):
            category = i * 7919 % CATEGORIES
            yield u % PARTITIONS, f'{{"user":"u{u}","item":"i{i}","category":"c{category}","price":{p},"label":{y}'


def write_backlog(bootstrap: str, topic: str, slides: int, slide_s: float, per_second: float, start_ms: int) -> int:
    """So many slides of event time, and one event a partition that closes the last of them; how many there are."""
    producer, count = _producer(bootstrap), round(slides * slide_s * per_second)
    times = start_ms + np.arange(count) * 1000 / per_second
    events = records(1)
    for time_ms, (partition, begun) in zip(times.astype(np.int64).tolist(), events, strict=False):
        _send(producer, topic, partition, begun, time_ms)
    for partition in range(PARTITIONS):
        _send(producer, topic, partition, next(events)[1], start_ms + int((slides + 1) * slide_s * 1000))
    producer.flush()
    return count + PARTITIONS


def write_live(bootstrap: str, topic: str, per_second: float) -> None:
    """At the rate, each stamped with the moment at which it is sent, until standard input closes."""
    producer, events = _producer(bootstrap), records(2)
    began_s, sent = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], _TICK_S)[0]:
        due, now_ms = int((time.monotonic() - began_s) * per_second), int(time.time() * 1000)
        for _ in range(due - sent):
            partition, begun = next(events)
            _send(producer, topic, partition, begun, now_ms)
        sent = max(sent, due)
    producer.flush()


def _producer(bootstrap: str) -> Producer:
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "acks": "all", "compression.type": "lz4"})


def _send(producer: Producer, topic: str, partition: int, begun: str, time_ms: int) -> None:
    value = f'{begun},"time":{time_ms}}}'.encode()
    while True:
        try:
            return producer.produce(topic, value, partition=partition)
        except BufferError:
            producer.poll(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.freshness.events")
    parser.add_argument("--kafka", required=True, metavar="BOOTSTRAP")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--per-second", type=float, required=True)
    args = parser.parse_args()
    write_live(args.kafka, args.topic, args.per_second)


if __name__ == "__main__":
    main()

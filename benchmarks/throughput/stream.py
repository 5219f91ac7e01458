"""The one synthetic stream: a shop's clicks, carts and purchases on four partitions of a Kafka topic.

Users and items follow Zipf's law; a purchase follows a click of the same user on the same item within a few minutes.
The stream ends with one event a partition beyond the horizon, so that every click has matured when it is over and a
million events means a million learned from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.produce import make_topic

PARTITIONS = 4
CATEGORIES = 1000
HORIZON_S = 600
SLIDE_S = 60
_START_MS = 1_767_225_600_000  # 2026-01-01
_KINDS = ("click", "cart", "purchase")
_SHARES = (0.90, 0.06, 0.04)
_LONGEST_WAIT = 0.9  # of the horizon, between a click and its purchase
_CHUNK = 100_000
_FLUSHED_S = 120.0

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """How large it is. `per_second` events of event time."""

    events: int
    per_second: float
    users: int = 500_000
    items: int = 100_000
    seed: int = 6

    def records(self) -> Iterator[tuple[int, int, bytes]]:
        """(partition, timestamp in ms, JSON) of every event in order of time."""
        rng = np.random.default_rng(self.seed)
        kind = rng.choice(len(_KINDS), self.events, p=_SHARES)
        user, item = zipf(rng, self.users, 0.8, self.events), zipf(rng, self.items, 1.0, self.events)
        self._follow_clicks(rng, kind, user, item)
        category, price = item * 7919 % CATEGORIES, rng.lognormal(3, 1, self.items).round(2)[item]
        time = _START_MS + (np.sort(rng.random(self.events)) * self.events / self.per_second * 1000).astype(np.int64)
        for start in range(0, self.events, _CHUNK):
            part = slice(start, start + _CHUNK)
            columns = (c[part].tolist() for c in (user, item, kind, category, price, time))
            for u, i, k, c, p, t in zip(*columns, strict=True):
                yield u % PARTITIONS, t, _json(u, i, _KINDS[k], c, p, t)
        end = int(time[-1]) + 1000 * (HORIZON_S + SLIDE_S)
        for partition in range(PARTITIONS):
            yield partition, end, _json(partition, 0, "cart", 0, 1.0, end)

    def _follow_clicks(self, rng: np.random.Generator, kind: I64, user: I64, item: I64) -> None:
        """Gives every purchase user and item of an earlier click, where there is one at the drawn distance."""
        bought = np.flatnonzero(kind == _KINDS.index("purchase"))
        farthest = max(2, int(self.per_second * HORIZON_S * _LONGEST_WAIT))
        before = bought - rng.integers(1, farthest, len(bought))
        good = (before >= 0) & (kind[np.maximum(before, 0)] == 0)
        user[bought[good]], item[bought[good]] = user[before[good]], item[before[good]]

    def produce(self, bootstrap: str, topic: str) -> int:
        """Makes the topic, sends every record, lz4, and returns how many there were."""
        from kafka import KafkaProducer

        make_topic(bootstrap, topic, PARTITIONS)
        producer: Any = KafkaProducer(
            bootstrap_servers=bootstrap, acks="all", linger_ms=50, batch_size=524_288, compression_type="lz4"
        )
        failures: list[BaseException] = []
        sent = 0
        try:
            for partition, time_ms, value in self.records():
                future = producer.send(topic, value, partition=partition, timestamp_ms=time_ms)
                future.add_errback(failures.append)
                sent += 1
            producer.flush(timeout=_FLUSHED_S)
        finally:
            producer.close(timeout=5)
        if failures:
            raise failures[0]
        return sent


def zipf(rng: np.random.Generator, size: int, exponent: float, count: int) -> I64:
    """`count` draws of 0..size-1, number n with weight (n + 1)^-exponent."""
    sums = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -exponent)
    return np.searchsorted(sums, rng.random(count) * sums[-1]).astype(np.int64)


def _json(user: int, item: int, kind: str, category: int, price: float, time_ms: int) -> bytes:
    return (
        f'{{"user":"u{user}","item":"i{item}","type":"{kind}","category":"c{category}","price":{price},"time":{time_ms}}}'
    ).encode()

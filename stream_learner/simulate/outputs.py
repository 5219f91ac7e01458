"""Where simulated events go: JSON lines in a file per partition, a Kafka topic, and the truth beside them.

An event is one JSON object:

    {"event_id":"0-17","user_id":"u42","item_id":"i7","event_type":"click","timestamp":1704067200123,
     "category":"c3","price":12.5,"source":"search","session_id":"s5"}

`timestamp` is in milliseconds since the epoch, `price` null where it was lost. A click has `"converts": true` or false
besides where the shop reveals what is to come. A user's events all go to one partition, by a hash of the user alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_learner.durable import make_folder, storage_errors
from stream_learner.errors import ConfigError, UnavailableError
from stream_learner.keys import mix
from stream_learner.simulate.shop import CLICK, KINDS, PURCHASE, ShopEvents
from stream_learner.simulate.world import SOURCES

_PACES_PER_S = 20  # how finely a rate is kept
_KAFKA_TIMEOUT_S = 60.0
_CONNECT_TIMEOUT_MS = 10_000


class _EventJson(msgspec.Struct):
    event_id: str
    user_id: str
    item_id: str
    event_type: str
    timestamp: int
    category: str
    price: float | None
    source: str
    session_id: str
    converts: bool | msgspec.UnsetType = msgspec.UNSET


class _TruthJson(msgspec.Struct):
    event_id: str
    probability: float


_ENCODER = msgspec.json.Encoder()


def event_ids(events: ShopEvents, seed: int) -> list[str]:
    return [f"{seed}-{n}" for n in events.number.tolist()]


def partition_of(events: ShopEvents, partitions: int) -> NDArray[np.int64]:
    """The partition of each event's user, 0 to partitions - 1."""
    return (mix(events.user.astype(np.uint64)) % np.uint64(partitions)).astype(np.int64)


def encode(events: ShopEvents, seed: int) -> list[bytes]:
    """One JSON object per event, without line ends."""
    columns = zip(
        event_ids(events, seed),
        [f"u{n}" for n in events.user.tolist()],
        [f"i{n}" for n in events.item.tolist()],
        [KINDS[k] for k in events.kind.tolist()],
        (events.time // 1000).tolist(),
        [f"c{n}" for n in events.category.tolist()],
        np.where(np.isnan(events.price), None, events.price).tolist(),  # type: ignore[call-overload]
        [SOURCES[s] for s in events.source.tolist()],
        [f"s{n}" for n in events.session.tolist()],
        [msgspec.UNSET if math.isnan(value) else value == 1 for value in events.converts.tolist()],
        strict=True,
    )
    return [_ENCODER.encode(_EventJson(*row)) for row in columns]


class Output(Protocol):
    """Takes events in order of arrival."""

    def add(self, events: ShopEvents) -> None:
        """May wait for the far side."""

    def close(self) -> None:
        """Returns when everything added has arrived, or raises."""


class JsonlFiles:
    """`<folder>/<partition>.jsonl`; numbers are zero-padded to equal width, so that names sort as numbers do.

    Files already there are a `ConfigError`: two runs in one folder would make one log of both. A failed disk is a
    `RetryableError`.
    """

    def __init__(self, folder: Path, partitions: int, seed: int) -> None:
        self._seed = seed
        make_folder(folder)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: name a new folder, or remove what is there")
        width = len(str(partitions - 1))
        self._paths = [folder / f"{p:0{width}d}.jsonl" for p in range(partitions)]
        with storage_errors(folder, "write"):
            self._files: list[BinaryIO] = [path.open("wb") for path in self._paths]

    def add(self, events: ShopEvents) -> None:
        lines = np.empty(len(events), object)
        lines[:] = encode(events, self._seed)
        partition = partition_of(events, len(self._files))
        for number, (path, file) in enumerate(zip(self._paths, self._files, strict=True)):
            mine = lines[partition == number].tolist()
            with storage_errors(path, "write"):
                file.write(b"".join([line + b"\n" for line in mine]))
                file.flush()

    def close(self) -> None:
        for path, file in zip(self._paths, self._files, strict=True):
            with storage_errors(path, "write"):
                file.close()


class TruthFile:
    """JSON lines {"event_id", "probability"}, one per click: the true probability that a purchase follows."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._seed = seed
        make_folder(path.parent)
        with storage_errors(path, "write"):
            self._file: BinaryIO = path.open("wb")

    def add(self, events: ShopEvents) -> None:
        clicks = events.take(events.kind == CLICK)
        rows = zip(event_ids(clicks, self._seed), clicks.probability.tolist(), strict=True)
        with storage_errors(self._path, "write"):
            self._file.write(b"".join([_ENCODER.encode(_TruthJson(*row)) + b"\n" for row in rows]))

    def close(self) -> None:
        with storage_errors(self._path, "write"):
            self._file.close()


class KafkaTopic:
    """A topic, made with `partitions` partitions where it does not exist. Key = user, record timestamp = event time.

    A topic with another number of partitions is a `ConfigError`; a broker that does not take the records within a
    minute an `UnavailableError`.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int, seed: int) -> None:
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        self._seed, self._topic, self._partitions = seed, topic, partitions
        self._bootstrap, self._kafka_error = bootstrap, KafkaError
        self._failures: list[BaseException] = []
        try:
            _ensure_topic(bootstrap, topic, partitions)
            self._producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=20, batch_size=262_144)
        except KafkaError as error:
            raise self._unavailable(error) from error

    def add(self, events: ShopEvents) -> None:
        users = [b"u%d" % n for n in events.user.tolist()]
        partition = partition_of(events, self._partitions).tolist()
        times = (events.time // 1000).tolist()
        try:
            for key, index, time_ms, value in zip(users, partition, times, encode(events, self._seed), strict=True):
                future = self._producer.send(self._topic, value, key=key, partition=index, timestamp_ms=time_ms)
                future.add_errback(self._failures.append)
            self._producer.flush(timeout=_KAFKA_TIMEOUT_S)  # the client's own memory has no bound
        except self._kafka_error as error:
            raise self._unavailable(error) from error
        self._raise_failure()

    def close(self) -> None:
        self._producer.close(timeout=5)

    def _raise_failure(self) -> None:
        if self._failures:
            raise self._unavailable(self._failures[0])

    def _unavailable(self, error: BaseException) -> UnavailableError:
        return UnavailableError(
            f"{self._bootstrap} does not take records of {self._topic}: {error!r}; check the broker"
        )


def _ensure_topic(bootstrap: str, topic: str, partitions: int) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import NewTopic
    from kafka.errors import TopicAlreadyExistsError

    admin: Any = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=_CONNECT_TIMEOUT_MS)
    try:
        try:
            # Event times may lie years back: retention by time would delete the topic as it is written.
            keep = {"retention.ms": "-1"}
            admin.create_topics(
                [NewTopic(topic, partitions, replication_factor=-1, topic_configs=keep)], wait_for_metadata=True
            )
        except TopicAlreadyExistsError:
            found = len(admin.describe_topics([topic])[0]["partitions"])
            if found != partitions:
                raise ConfigError(
                    f"topic {topic} has {found} partitions, not {partitions}: say --partitions {found}"
                ) from None
    finally:
        admin.close()


def paced(chunks: Iterable[ShopEvents], rate: float) -> Iterator[ShopEvents]:
    """The same events in pieces, no faster than `rate` events per second."""
    size = max(int(rate / _PACES_PER_S), 1)
    begin, sent = time.monotonic(), 0
    for chunk in chunks:
        for first in range(0, len(chunk), size):
            piece = chunk.take(slice(first, first + size))
            time.sleep(max(begin + sent / rate - time.monotonic(), 0.0))
            sent += len(piece)
            yield piece


def deliver(chunks: Iterable[ShopEvents], outputs: Sequence[Output]) -> dict[str, int]:
    """Gives every event to every output and closes them; counts {"events", "clicks", "purchases"}."""
    clicks = events = purchases = 0
    with ExitStack() as stack:
        for output in outputs:
            stack.callback(output.close)
        for chunk in chunks:
            for output in outputs:
                output.add(chunk)
            events += len(chunk)
            clicks += int(np.count_nonzero(chunk.kind == CLICK))
            purchases += int(np.count_nonzero(chunk.kind == PURCHASE))
    return {"events": events, "clicks": clicks, "purchases": purchases}


def write_jsonl(
    folder: Path, chunks: Iterable[ShopEvents], *, partitions: int = 1, seed: int = 0, truth: Path | None = None
) -> dict[str, int]:
    """All events into `folder`, the truth of the clicks into `truth`; the counts of `deliver`."""
    outputs: list[Output] = [JsonlFiles(folder, partitions, seed)]
    if truth is not None:
        outputs.append(TruthFile(truth, seed))
    return deliver(chunks, outputs)


def produce_kafka(
    bootstrap: str,
    topic: str,
    chunks: Iterable[ShopEvents],
    *,
    partitions: int = 4,
    seed: int = 0,
    rate: float | None = None,
) -> dict[str, int]:
    """All events into a topic, at `rate` events per second or flat out; the counts of `deliver`."""
    return deliver(chunks if rate is None else paced(chunks, rate), [KafkaTopic(bootstrap, topic, partitions, seed)])

"""Where trials take place: the seeded stream in files, or on a topic of a real broker."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kafka

from . import stream as streams
from .driver import Driver, Order
from .plans import POLL
from .proxy import Proxy
from .stream import CONFIG, PARTITIONS, Stream, changed, write_config

EVENTS = 2000
_POLL_RECORDS = 15  # fewer than a slide's records of a partition, so that positions move with the slides


@dataclass(frozen=True)
class World:
    """What all trials of a run share: the log, the config, the journal, and the worker that nobody interrupted."""

    folder: Path
    driver: Driver
    stream: Stream
    config: dict[str, Any]
    mutation: str | None = None
    kafka: Any = None  # a `KafkaBroker`, where the log is a topic
    proxy: Any = None  # a `Proxy` before it, where it can be stopped, killed and started too
    outages: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))  # starts the broker anew
    outage: threading.Lock = field(default_factory=threading.Lock)  # one at a time

    @property
    def server(self) -> Any:
        """The broker, where trials may do with it what they like; else None."""
        return None if self.proxy is None else self.kafka.server

    @property
    def journal(self) -> Path:
        """What an earlier run of the log was told: start offsets and operator commands."""
        return self.folder / "given.jsonl"

    def order(self, folder: Path, settings: dict[str, Any], *, name: str = "", **how: Any) -> Order:
        """A life in this folder; one beside another there has a name."""
        folder.mkdir(parents=True, exist_ok=True)
        poll = settings.get(POLL, _POLL_RECORDS)
        values = {key: value for key, value in settings.items() if key != POLL}
        values["source.kafka.max_poll_records"] = poll
        config = write_config(folder / f"{name}config.yaml", changed(self.config, values))
        paths = {part: str(folder / part) for part in ("state", "report", "ledger", "fsyncs")}
        own = folder / "state" / "journal.jsonl"
        adopt = self.journal.exists() and not (own.exists() and own.stat().st_size)
        how = {"journal": str(self.journal) if adopt else None, "mutation": self.mutation, **how}
        return Order(config=str(config), output=str(folder / f"{name}output"), poll=poll, **paths, **how)

    def close(self) -> None:
        if self.proxy is not None:
            self.proxy.close()
        self.outages.shutdown()


def make_stream(seed: int) -> Stream:
    """Some fifty minutes of a shop: 25 slides, 7 versions."""
    return streams.make_stream(seed, EVENTS)


def files_world(folder: Path, driver: Driver, stream: Stream, mutation: str | None = None) -> World:
    stream.write_files(folder / "events")
    source = {"source.kind": "files", "source.files.path": str(folder / "events")}
    return World(folder, driver, stream, changed(CONFIG, source), mutation)


def kafka_world(folder: Path, driver: Driver, stream: Stream, broker: Any, *, hurt: bool = False) -> World:
    """`broker` is a `KafkaBroker`, `hurt` whether trials may stop and kill it; versions are announced to a topic."""
    topic = broker.topic(PARTITIONS)
    broker.produce(topic, stream.records)
    proxy = None
    if hurt and hasattr(broker.server, "behind_proxy"):
        proxy = Proxy(broker.server.proxied_bootstrap, broker.server.behind_proxy)
    return World(folder, driver, stream, topic_config(broker, topic), None, broker, proxy)


def topic_config(broker: Any, topic: str) -> dict[str, Any]:
    """The config of workers that read this topic, and announce to a new one."""
    config = changed(CONFIG, {"topics": {topic: CONFIG["topics"]["events"]}, "announce.topic": broker.topic(1)})
    return changed(config, {"source.kind": "kafka", "source.kafka.bootstrap_servers": broker.bootstrap})


def announced(world: World) -> set[tuple[str, int]]:
    """Folder and number of every version that somebody was told of."""
    topic = world.config["announce"]["topic"]
    return {(message["path"], message["version"]) for message in _messages(world, topic)}


def _messages(world: World, topic: str) -> Iterator[dict[str, Any]]:
    """Everything in partition 0."""
    place = kafka.TopicPartition(topic, 0)
    servers = world.config["source"]["kafka"]["bootstrap_servers"]
    consumer = kafka.KafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        consumer.assign([place])
        end = consumer.end_offsets([place])[place]
        while consumer.position(place) < end:
            for records in consumer.poll(timeout_ms=500).values():
                yield from (json.loads(record.value) for record in records)
    finally:
        consumer.close()

"""Where trials take place: the seeded stream in files, or on a topic of a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kafka

from . import stream as streams
from .driver import Driver
from .stream import CONFIG, PARTITIONS, Stream, changed
from .trials import Reference, Result, World

EVENTS = 2000


def make_stream(seed: int) -> Stream:
    """Some fifty minutes of a shop: 25 slides, 7 versions."""
    return streams.make_stream(seed, EVENTS)


def files_world(folder: Path, driver: Driver, stream: Stream, mutation: str | None = None) -> World:
    stream.write_files(folder / "events")
    source = {"source.kind": "files", "source.files.path": str(folder / "events")}
    return World(folder, driver, stream, changed(CONFIG, source), mutation)


def kafka_world(folder: Path, driver: Driver, stream: Stream, broker: Any, mutation: str | None = None) -> World:
    """`broker` is a `KafkaBroker`; versions are announced to a topic of their own."""
    topic, announced = broker.topic(PARTITIONS), broker.topic(1)
    broker.produce(topic, stream.records)
    config = changed(CONFIG, {"topics": {topic: CONFIG["topics"]["events"]}, "announce.topic": announced})
    source = {"source.kind": "kafka", "source.kafka.bootstrap_servers": broker.bootstrap}
    server = broker.server if hasattr(broker.server, "stop") else None
    return World(folder, driver, stream, changed(config, source), mutation, server)


def missing_announcements(world: World, reference: Reference, results: Sequence[Result]) -> list[str]:
    """Versions of equal trials that nobody was told of. Announcements come at least once, so repeats are right."""
    topic = world.config.get("announce", {}).get("topic")
    if topic is None:
        return []
    told = {(message["path"], message["version"]) for message in _messages(world, topic)}
    versions = reference.outcome.report["versions"]
    places = [(r.folder / "state" / "checkpoints" / "shop", n) for r in results if r.verdict.equal for n in versions]
    return [f"{folder}: version {n} was not announced" for folder, n in places if (str(folder / str(n)), n) not in told]


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

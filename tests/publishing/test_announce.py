"""Announcements and dead letters reach Kafka, acknowledged, or say that they did not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from broker import ApacheKafka, KafkaBroker

from stream_learner import settings
from stream_learner.errors import ConfigError, RetryableError, StreamLearnerError
from stream_learner.ingest.dead_letters import DeadLetter, DeadLetterSink, FileDeadLetters, from_json
from stream_learner.ingest.kafka_letters import KafkaDeadLetters
from stream_learner.publishing.announce import Announcer, KafkaAnnouncer, MemoryAnnouncer, NoAnnouncer


def broker_settings(bootstrap: str, **options: Any) -> settings.KafkaSource:
    return settings.KafkaSource(bootstrap_servers=bootstrap, options=options)


def letter(offset: int, value: bytes | None = b"\xff broken", topic: str = "clicks") -> DeadLetter:
    return DeadLetter("not_json", f"row {offset}", topic, 3, offset, 1_700_000_000_000, value)


def message(version: int) -> dict[str, object]:
    return {"model": "conversion", "version": version, "metrics": {"auc": 0.75, "ne": float("nan")}, "text": "käse"}


# Announcers.


def test_no_one_and_memory() -> None:
    memory = MemoryAnnouncer()
    announcers: list[Announcer] = [NoAnnouncer(), memory]
    for announcer in announcers:
        announcer.announce({"model": "m", "version": 1})
        announcer.close()
        announcer.close()
    assert memory.messages == [{"model": "m", "version": 1}]


@pytest.mark.kafka
def test_versions_arrive_in_order_under_the_models_name(kafka: KafkaBroker) -> None:
    topic = kafka.topic()
    announcer = KafkaAnnouncer(broker_settings(kafka.bootstrap), topic)
    for version in (100, 200, 200):
        announcer.announce(message(version))
    found = kafka.consume(topic, 3)  # before close: announce returns when the broker has it
    announcer.close()
    announcer.close()
    assert [record.key for record in found] == [b"conversion"] * 3
    assert [json.loads(record.value)["version"] for record in found] == [100, 200, 200]
    assert json.loads(found[0].value) == message(100) | {"metrics": {"auc": 0.75, "ne": None}}


@pytest.mark.kafka
def test_a_topic_that_does_not_exist_is_not_created(apache_kafka: KafkaBroker) -> None:
    announcer = KafkaAnnouncer(broker_settings(apache_kafka.bootstrap), "no-such-announcements")
    with pytest.raises(StreamLearnerError, match="no-such-announcements"):
        announcer.announce(message(1))
    with apache_kafka.admin() as admin:
        assert "no-such-announcements" not in admin.list_topics()


def test_no_broker_is_retryable() -> None:
    announcer = KafkaAnnouncer(broker_settings("127.0.0.1:1"), "versions")
    with pytest.raises(RetryableError, match="topic versions"):
        announcer.announce(message(1))
    announcer.close()


def test_bad_options_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="no_such_option"):
        KafkaAnnouncer(broker_settings("127.0.0.1:1", no_such_option=1), "versions")


@pytest.mark.kafka
def test_options_of_the_consumer_are_no_trouble_to_a_producer(kafka: KafkaBroker) -> None:
    topic = kafka.topic()
    announcer = KafkaAnnouncer(broker_settings(kafka.bootstrap, fetch_min_bytes=1, linger_ms=1), topic)
    announcer.announce(message(1))
    announcer.close()


# Dead letters.


@pytest.mark.kafka
def test_letters_are_in_the_topic_when_flush_returns(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka.topic()
    letters = [letter(0), letter(1, None), letter(2, b"")]
    sink: DeadLetterSink = KafkaDeadLetters(broker_settings(kafka.bootstrap), topic)
    sink.add(letters[:2])
    sink.add(letters[2:])
    sink.flush()
    found = kafka.consume(topic, 3)
    sink.flush()
    sink.close()
    sink.close()
    assert [record.key for record in found] == [b"clicks/3/0", b"clicks/3/1", b"clicks/3/2"]
    assert [from_json(record.value) for record in found] == letters
    file = FileDeadLetters(tmp_path / "letters.jsonl")
    file.add(letters)
    file.close()
    assert [record.value for record in found] == (tmp_path / "letters.jsonl").read_bytes().splitlines()


@pytest.mark.kafka
def test_many_letters_are_sent_without_being_asked(kafka: KafkaBroker) -> None:
    topic = kafka.topic()
    sink = KafkaDeadLetters(broker_settings(kafka.bootstrap), topic)
    sink.add([letter(n) for n in range(1000)])
    assert len(kafka.consume(topic, 1000)) == 1000
    sink.close()


@pytest.mark.kafka
def test_a_letter_too_large_for_the_topic_goes_without_its_bytes(kafka: KafkaBroker) -> None:
    topic = kafka.topic(1, {"max.message.bytes": "100000"})
    sink = KafkaDeadLetters(broker_settings(kafka.bootstrap), topic)
    sink.add([letter(0), letter(1, b"x" * 1_000_000), letter(2)])
    sink.flush()
    last = {}
    deadline = time.monotonic() + 10
    while len(last) < 3 and time.monotonic() < deadline:
        last = {found.offset: found for found in (from_json(r.value) for r in kafka.consume(topic, 3, 2.0))}
    sink.close()
    assert last[0] == letter(0)
    assert last[2] == letter(2)
    assert last[1].value is None
    assert "1000000 bytes left out" in last[1].detail


@pytest.mark.kafka
def test_letters_wait_out_an_outage(own_kafka: KafkaBroker) -> None:
    assert isinstance(own_kafka.server, ApacheKafka)
    topic = own_kafka.topic()
    sink = KafkaDeadLetters(broker_settings(own_kafka.bootstrap), topic)
    sink.add([letter(0)])
    sink.flush()
    own_kafka.server.stop()
    sink.add([letter(1)])
    with pytest.raises(RetryableError):
        sink.flush()
    own_kafka.server.start()
    sink.flush()
    found = [from_json(record.value) for record in own_kafka.consume(topic, 2)]
    sink.close()
    assert found[0] == letter(0)
    assert letter(1) in found[1:]

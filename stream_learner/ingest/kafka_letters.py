"""Dead letters into a Kafka topic, and the acknowledged sending that announcements use too."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import kafka
from kafka.errors import MessageSizeTooLargeError, RecordListTooLargeError

from stream_learner.errors import UnavailableError
from stream_learner.ingest.dead_letters import DeadLetter, to_json
from stream_learner.ingest.kafka_client import FOREIGN, Connector, translated
from stream_learner.settings import KafkaSource as KafkaSettings

_ACK_S = 10.0  # how long one round of sending may take before it counts as failed
_CLOSE_S = 2.0
_BUFFERED = 1_000  # letters, as in the file sink
_MESSAGE_BYTES = 16 * 1024 * 1024  # a dead letter may be larger than any sound record; the topic may still refuse it

Message = tuple[bytes, bytes]
"""Key and value."""


class OversizeError(UnavailableError):
    """The topic does not take a message of this size."""


class AckedSender:
    """Sends messages to one topic and returns when all in-sync replicas have them (acks=all, idempotent).

    Connects at the first sending, so that a broker that is away at the start is met like one that is away later.
    """

    def __init__(self, config: KafkaSettings, topic: str) -> None:
        self._topic = topic
        self._connector = Connector(config)
        self._producer: Any = None

    def send(self, messages: Sequence[Message]) -> None:
        """At least once, in order. Raises `RetryableError` when a message was not acknowledged within 10 s (all may
        be sent again then), `OversizeError` when one is larger than the topic allows, and `ConfigError` or
        `UnavailableError` where else trying again can not help."""
        try:
            if self._producer is None:
                self._producer = self._open()
            sent = [self._producer.send(self._topic, key=key, value=value) for key, value in messages]
            self._producer.flush(timeout=_ACK_S)
            for future in sent:
                future.get(timeout=_ACK_S)
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            self.close()  # an idempotent producer is dead after that
            raise OversizeError(f"topic {self._topic}: {error}") from error
        except FOREIGN as error:
            self.close()  # a producer that has failed may hold back or reorder what comes next
            raise translated(error, f"sending to topic {self._topic}") from error

    def close(self) -> None:
        """Gives up the connection; what has not been acknowledged may be lost. Idempotent."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(*FOREIGN):
                producer.close(timeout=_CLOSE_S)

    def _open(self) -> Any:
        return self._connector.open(
            kafka.KafkaProducer,
            acks="all",
            enable_idempotence=True,
            allow_auto_create_topics=False,
            delivery_timeout_ms=int(_ACK_S * 1000),
            request_timeout_ms=int(_ACK_S * 500),
            max_block_ms=int(_ACK_S * 1000),
            max_request_size=_MESSAGE_BYTES,
        )


class KafkaDeadLetters:
    """The `DeadLetterSink` protocol over a topic: key `topic/partition/offset`, value as in the file sink.

    Letters stay in memory until the broker has acknowledged them; from 1,000 on they are sent without being asked.
    """

    def __init__(self, config: KafkaSettings, topic: str) -> None:
        self._sender = AckedSender(config, topic)
        self._lock = threading.Lock()
        self._waiting: list[DeadLetter] = []

    def add(self, letters: Sequence[DeadLetter]) -> None:
        with self._lock:
            self._waiting.extend(letters)
            if len(self._waiting) >= _BUFFERED:
                self._send()

    def flush(self) -> None:
        with self._lock:
            self._send()

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._sender.close()

    def _send(self) -> None:
        if not self._waiting:
            return
        try:
            self._sender.send([_message(letter) for letter in self._waiting])
        except OversizeError:
            for letter in self._waiting:
                self._send_shortened(letter)
        self._waiting.clear()

    def _send_shortened(self, letter: DeadLetter) -> None:
        """A record that is bad because it is huge must not stop the worker: its place is kept, its bytes are not."""
        try:
            self._sender.send([_message(letter)])
        except OversizeError:
            detail = f"{letter.detail} (value of {len(letter.value or b'')} bytes left out: too large for the topic)"
            self._sender.send([_message(replace(letter, detail=detail, value=None))])


def _message(letter: DeadLetter) -> Message:
    return f"{letter.topic}/{letter.partition}/{letter.offset}".encode(), to_json(letter)

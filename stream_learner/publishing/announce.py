"""Telling the world of a version: a message per publication, at least once."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from stream_learner.ingest.kafka_letters import AckedSender
from stream_learner.settings import KafkaSource as KafkaSettings

_ENCODER = msgspec.json.Encoder(order="sorted")


class Announcer(Protocol):
    """Who is told. A restart may announce a version again, so readers go by `version`, which never goes back."""

    def announce(self, message: dict[str, Any]) -> None:
        """Tells of one version and returns when that is safe. `message` is JSON-serialisable and holds at least
        `model` and `version`. Raises `RetryableError` (nothing or all was told), `ConfigError`, `UnavailableError`."""

    def close(self) -> None:
        """Frees what it holds. Idempotent."""


class NoAnnouncer:
    """Nobody is to be told."""

    def announce(self, message: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class MemoryAnnouncer:
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def announce(self, message: dict[str, Any]) -> None:
        self.messages.append(dict(message))

    def close(self) -> None:
        pass


class KafkaAnnouncer:
    """A JSON message per version to a topic, keyed by the model's name, so that one model's versions keep their order
    and a compacted topic holds the newest."""

    def __init__(self, config: KafkaSettings, topic: str) -> None:
        self._sender = AckedSender(config, topic)

    def announce(self, message: dict[str, Any]) -> None:
        self._sender.send([(str(message["model"]).encode(), _ENCODER.encode(message))])

    def close(self) -> None:
        self._sender.close()

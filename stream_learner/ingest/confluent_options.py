"""`source.kafka`, in the words of librdkafka.

The keys of `source.kafka.options` are those of kafka-python whichever client reads: dead letters, announcements and
committed offsets go by kafka-python in any case. Here each that concerns reading gets its counterpart; one that has
none is a `ConfigError` which says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kafka

from stream_learner.errors import ConfigError
from stream_learner.settings import KafkaSource as KafkaSettings
from stream_learner.settings import Secret

Properties = dict[str, Any]
"""Names and values of librdkafka."""

_CONNECTION = {
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "sasl_kerberos_service_name": "sasl.kerberos.service.name",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
    "ssl_crlfile": "ssl.crl.location",
    "ssl_ciphers": "ssl.cipher.suites",
    "ssl_check_hostname": "ssl.endpoint.identification.algorithm",
    "request_timeout_ms": "socket.timeout.ms",
    "connections_max_idle_ms": "connections.max.idle.ms",
    "reconnect_backoff_ms": "reconnect.backoff.ms",
    "reconnect_backoff_max_ms": "reconnect.backoff.max.ms",
    "retry_backoff_ms": "retry.backoff.ms",
    "metadata_max_age_ms": "metadata.max.age.ms",
    "receive_buffer_bytes": "socket.receive.buffer.bytes",
    "send_buffer_bytes": "socket.send.buffer.bytes",
    "receive_message_max_bytes": "receive.message.max.bytes",
    "max_in_flight_requests_per_connection": "max.in.flight.requests.per.connection",
    "client_dns_lookup": "client.dns.lookup",
    "client_rack": "client.rack",
}
_READING = {
    "fetch_min_bytes": "fetch.min.bytes",
    "fetch_max_bytes": "fetch.max.bytes",
    "fetch_max_wait_ms": "fetch.wait.max.ms",
    "max_partition_fetch_bytes": "max.partition.fetch.bytes",
    "check_crcs": "check.crcs",
    "max_poll_interval_ms": "max.poll.interval.ms",
    "session_timeout_ms": "session.timeout.ms",
    "heartbeat_interval_ms": "heartbeat.interval.ms",
}
_NAMES = _CONNECTION | _READING
_INSTEAD = {"bootstrap_timeout_ms", "metrics_enabled", "metrics_num_samples", "metrics_sample_window_ms"}
"""Options of kafka-python's own making: its other clients obey them, and reading does not need them."""
_BACKOFF_MS = 10  # between looks at a queue that had enough; by default a resumed partition stands still for a second
_WAIT_MS = 50  # the broker's, for records of partitions read to their ends; resumed ones get their turn after it
_FILES = {"ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile"}
_ENDPOINT = {True: "https", False: "none"}


@dataclass(frozen=True)
class Options:
    """What the two handles of a reader are made with."""

    asking: Properties
    reading: Properties

    @classmethod
    def of(cls, config: KafkaSettings) -> Options:
        """Raises `ConfigError` for an option without a counterpart."""
        given = {name: _plain(value) for name, value in config.options.items() if name in _OPTIONS - _INSTEAD}
        for name in given.keys() - _NAMES.keys():
            raise ConfigError(
                f"source.kafka.options.{name}: confluent-kafka has no counterpart of this option; leave it out, or "
                "read with source.kafka.client: kafka-python"
            )
        for name in _FILES & given.keys():
            if given[name] is not None and not Path(given[name]).is_file():  # the client would not say which, or why
                raise ConfigError(f"source.kafka.options.{name}: No such file: {given[name]}")
        connection = {
            "bootstrap.servers": config.bootstrap_servers,
            "client.id": config.client_id,
            "reconnect.backoff.max.ms": 1000,
            "metadata.max.age.ms": max(100, int(config.refresh_partitions.seconds * 1000)),
            "log.connection.close": False,
            "allow.auto.create.topics": False,
        } | _renamed(given, _CONNECTION)
        reading = {
            "group.id": config.group_id,  # never joined: the client does not go without
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "check.crcs": True,
            "max.partition.fetch.bytes": config.fetch_max_bytes,
            "fetch.queue.backoff.ms": _BACKOFF_MS,
            "fetch.wait.max.ms": _WAIT_MS,
            "queued.min.messages": config.max_poll_records,  # what is fetched ahead is lost when a partition pauses
        } | _renamed(given, _READING)
        return cls(asking={k: v for k, v in connection.items() if k != "client.rack"}, reading=connection | reading)

    def in_our_words(self, message: str) -> str:
        """A complaint of librdkafka with the names that the config has for things."""
        for ours, theirs in _NAMES.items():
            message = message.replace(f"`{theirs}`", ours)
            message = message.replace(f'"{theirs}"', ours)
        return message


_OPTIONS = set(kafka.KafkaConsumer.DEFAULT_CONFIG)


def _renamed(given: Properties, names: dict[str, str]) -> Properties:
    return {names[name]: _worded(name, value) for name, value in given.items() if name in names and value is not None}


def _worded(name: str, value: Any) -> Any:
    if name == "ssl_check_hostname":
        return _ENDPOINT[bool(value)]
    return str(value).lower() if isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    return value.reveal() if isinstance(value, Secret) else value

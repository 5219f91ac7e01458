"""kafka-python at the edge: options in, clients out, foreign errors translated once.

    KafkaConfigurationError, failed authentication or authorisation      -> ConfigError
    anything the broker says may pass, timeouts, lost connections        -> RetryableError
    records that fail their checksum, a log shorter than our position    -> DataError
    the rest (a protocol the broker does not speak, ...)                 -> UnavailableError

A broker that hangs raises nothing at all in kafka-python, so health is always taken from progress: `Patience` runs
out when nothing has been answered for `source.kafka.retry_timeout`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from threading import Event
from typing import Any, TypeVar
from weakref import WeakSet

import kafka
from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from stream_learner.errors import ConfigError, DataError, RetryableError, StreamLearnerError, UnavailableError
from stream_learner.ingest.source import Partition
from stream_learner.settings import KafkaSource as KafkaSettings
from stream_learner.settings import Secret

log = logging.getLogger(__name__)

T = TypeVar("T")

_BOOTSTRAP_MS = 3000  # one attempt; the next is made while patience lasts
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_OURS = {
    "acks", "allow_auto_create_topics", "api_version", "auto_offset_reset", "bootstrap_servers", "client_id",
    "enable_auto_commit", "group_id", "isolation_level", "kafka_client", "key_deserializer", "key_serializer",
    "max_poll_records", "transactional_id", "value_deserializer", "value_serializer",
}  # fmt: skip
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_REFUSED = (
    errors.KafkaConfigurationError,
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
    errors.AuthorizationError,
    errors.InvalidTopicError,
    FileNotFoundError,  # of certificates and keys: nothing else is opened by name
    PermissionError,
)
_LOG_BROKEN = (errors.CorruptRecordError, errors.LogTruncationError)
_MAY_PASS = (errors.RetriableError, OSError, TimeoutError, CancelledError)
FOREIGN = (errors.KafkaError, OSError, CancelledError)
"""What kafka-python raises when the far side fails."""
_UNANSWERED = (errors.KafkaConnectionError, errors.KafkaTimeoutError, errors.RequestTimedOutError)


def translated(error: BaseException, doing: str) -> StreamLearnerError:
    """The error of our own tree for one of `FOREIGN` (table in the module docstring)."""
    text = f"Kafka: {doing}: {error or type(error).__name__}"
    if isinstance(error, _REFUSED):
        return ConfigError(f"{text} (see source.kafka.options)")
    if isinstance(error, _LOG_BROKEN):
        return DataError(text)
    if isinstance(error, _MAY_PASS) or getattr(error, "retriable", False):
        return RetryableError(text)
    return UnavailableError(text)


class Patience:
    """Bounded exponential backoff with full jitter, until nothing has gone well for `limit_s` (monotonic)."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._failures = 0
        self._last_good = time.monotonic()

    @property
    def in_trouble(self) -> bool:
        return self._failures > 0

    def good(self) -> None:
        """The far side has answered."""
        self._failures = 0
        self._last_good = time.monotonic()

    def wait_s(self, error: BaseException, doing: str) -> float:
        """How long to wait before the next try. Raises what can not pass, and `UnavailableError` at the end."""
        known = error if isinstance(error, StreamLearnerError) else translated(error, doing)
        if not isinstance(known, RetryableError):
            raise known from error
        silent_s = time.monotonic() - self._last_good
        if silent_s > self._limit_s:
            raise UnavailableError(
                f"{known} (no answer for {silent_s:.0f} s, source.kafka.retry_timeout is {self._limit_s:g} s)"
            ) from error
        self._failures += 1
        if self._failures == 1:
            log.warning("%s; trying again for up to %.0f s", known, self._limit_s - silent_s)
        ceiling = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(self._failures, 16))
        return random.uniform(ceiling / 2, ceiling)  # jitter in time only: no event is ordered by it


class _WatchedConnections(KafkaConnectionManager):  # type: ignore[misc]
    """Remembers why a connection was lost, refusals above all: the client only says that bootstrapping timed out."""

    def __init__(self, *args: Any, **configs: Any) -> None:
        self.lost: BaseException | None = None
        self._watched: WeakSet[Any] = WeakSet()
        super().__init__(*args, **configs)

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        connection = super().get_connection(*args, **kwargs)
        if connection not in self._watched:
            self._watched.add(connection)
            connection.close_future.add_errback(self._remember)
        return connection

    def _remember(self, error: BaseException) -> None:
        if not isinstance(self.lost, _REFUSED):
            self.lost = error


class Connector:
    """Makes clients that share the options of one `source.kafka` section.

    Raises `ConfigError` at once for an option that no client has or that the worker sets itself.
    """

    def __init__(self, config: KafkaSettings) -> None:
        known = set(kafka.KafkaConsumer.DEFAULT_CONFIG) | set(kafka.KafkaProducer.DEFAULT_CONFIG)
        for name in config.options:
            if name in _OURS:
                raise ConfigError(f"source.kafka.options.{name}: set by the worker itself, not allowed here")
            if name not in known:
                raise ConfigError(f"source.kafka.options.{name}: not an option of kafka-python {kafka.__version__}")
        protocol = _plain(config.options.get("security_protocol", _PROTOCOLS[0]))
        if protocol not in _PROTOCOLS:  # the client itself takes any other word for PLAINTEXT
            raise ConfigError(
                f"source.kafka.options.security_protocol: {protocol!r} is none of {', '.join(_PROTOCOLS)}"
            )
        self._config = config

    def open(self, kind: Callable[..., Any], **settings: Any) -> Any:
        """A connected client of class `kind`; `settings` are ours, the config's options win over the rest.

        One attempt of a few seconds. Raises one of `FOREIGN` or `ConfigError`, and leaves nothing running then.
        """
        made: list[KafkaNetClient] = []

        def watched(**configs: Any) -> KafkaNetClient:
            selector = NetworkSelector(**configs)
            made.append(KafkaNetClient(selector, _WatchedConnections(selector, **configs), **configs))
            return made[-1]

        client = None
        try:
            client = kind(**self._options(kind, settings), kafka_client=watched)
        except FOREIGN as error:
            raise self._reason(made, error) from error
        except (AssertionError, TypeError, ValueError, ImportError) as error:
            raise ConfigError(f"source.kafka.options: refused by the client: {error}") from error
        finally:
            if client is None:
                for half_open in made:
                    half_open.close()
        return client

    def _reason(self, made: list[KafkaNetClient], error: BaseException) -> BaseException:
        """What kept the client from connecting: the last loss it saw, where it saw one."""
        lost = made[-1]._manager.lost if made else None
        reason: BaseException = lost if isinstance(lost, FOREIGN) else error
        logs_in = str(_plain(self._config.options.get("security_protocol", ""))).startswith("SASL")
        if logs_in and isinstance(reason, _UNANSWERED):
            # A broker that refuses a login may hang up so fast that the client never reads its answer.
            hint = "check source.kafka.options: sasl_mechanism, user and password"
            reason = errors.KafkaConnectionError(f"{reason}, before the login: {hint}")
        return reason

    def _options(self, kind: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
        known = kind.DEFAULT_CONFIG  # type: ignore[attr-defined]
        options = {
            "bootstrap_servers": [server.strip() for server in self._config.bootstrap_servers.split(",")],
            "client_id": self._config.client_id,
            "bootstrap_timeout_ms": _BOOTSTRAP_MS,
            "reconnect_backoff_max_ms": 1000,
            "metrics_enabled": False,
            **settings,
        }
        for name, value in self._config.options.items():
            if name in known:
                options[name] = _plain(value)
        return {name: value for name, value in options.items() if name in known}


def native(partition: Partition) -> kafka.TopicPartition:
    """kafka-python's name for a partition."""
    return kafka.TopicPartition(partition.topic, partition.index)


def ours(offsets: Mapping[kafka.TopicPartition, Any]) -> dict[Partition, Any]:
    """What kafka-python answers per partition, under our names."""
    return {Partition(tp.topic, tp.partition): value for tp, value in offsets.items()}


def retry(what: Callable[[], T], doing: str, patience: Patience, stop: Event) -> T:
    """`what()`, tried again while patience lasts; `stop` (set from another thread) ends the waiting.

    Raises `UnavailableError`, or at once what no waiting cures.
    """
    while True:
        if stop.is_set():
            raise UnavailableError(f"Kafka: {doing}: closed meanwhile")
        try:
            result = what()
        except (RetryableError, *FOREIGN) as error:
            stop.wait(patience.wait_s(error, doing))
        else:
            patience.good()
            return result


def _plain(value: Any) -> Any:
    """An option as the client needs it: what came from the environment is revealed to it alone."""
    return value.reveal() if isinstance(value, Secret) else value

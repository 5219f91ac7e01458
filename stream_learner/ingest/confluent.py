"""`LogReader` over confluent-kafka (librdkafka), the `fast` extra.

    `_AUTHENTICATION`, authorisation, what the client refuses to be made with   -> ConfigError
    `_AUTO_OFFSET_RESET`                                                        -> OutOfRange
    `_LOG_TRUNCATION`                                                           -> Truncated, DataError without an end
    `_BAD_MSG`, `_BAD_COMPRESSION`                                              -> DataError
    versions and features the far side lacks                                    -> UnavailableError
    the rest                                                                    -> RetryableError

librdkafka reads on in silence when a topic was deleted and made again under its name, so what a poll took is handed
over only when the topics' ids, asked for after it, are still the same. It has no question for ids on a consumer:
there is a second handle that asks.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from stream_learner.errors import ConfigError, DataError, RetryableError, StreamLearnerError, UnavailableError
from stream_learner.ingest.confluent_options import Options
from stream_learner.ingest.log_reader import ANSWER_S, OutOfRange, Truncated
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.settings import KafkaSource as KafkaSettings

try:
    import confluent_kafka
    from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
    from confluent_kafka.admin import AdminClient
except ImportError as _error:
    raise ConfigError(
        "source.kafka.client: confluent needs confluent-kafka: pip install 'stream-learner[fast]'"
    ) from _error

_NATIVE_LOG = logging.getLogger("librdkafka")
_LINGER_S = 0.05  # how long a poll waits for more to come; with less, a slow topic costs a question each record
_AT_LATEST, _AT_EARLIEST = -1, -2  # in place of a timestamp: the end (of what is stable) and the beginning
_REFUSED = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION,
}
_LOG_BROKEN = {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION}
_NEVER = {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE, KafkaError._UNKNOWN_PROTOCOL}
_NO_FAILURE = {
    KafkaError._PARTITION_EOF,
    KafkaError.GROUP_AUTHORIZATION_FAILED,  # the group is for lag tools: reading goes on without
    KafkaError._WAIT_COORD,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
}
_UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED}
_REMAINS = re.compile(r"broker end offset is (\d+)")
_NO_ID = uuid.UUID(int=0)


@dataclass(frozen=True)
class _Failure:
    """What came in place of a record."""

    partition: Partition
    offset: int
    error: KafkaError

    @classmethod
    def of(cls, message: Message) -> _Failure:
        return cls(Partition(message.topic() or "", message.partition() or 0), message.offset() or 0, message.error())

    @property
    def code(self) -> int:
        return int(self.error.code())


class ConfluentReader:
    """Makes both handles; nothing is connected before the first question."""

    def __init__(self, options: Options, config: KafkaSettings, topics: Sequence[str]) -> None:
        self._options = options
        self._topics = list(topics)
        self._most = config.max_poll_records
        self._refresh_s = config.refresh_partitions.seconds
        self._refused: KafkaError | None = None  # why the broker turned us away, as it was told in passing
        self._looked_at = 0.0
        self._known: set[Partition] = set()
        self._ids: dict[str, str] = {}
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._held: list[RecordBatch] = []  # taken, and waiting for the topics' ids
        self._failed: list[_Failure] = []  # what went wrong in the last poll, told by the next one
        try:
            told = {"error_cb": self._told, "logger": _NATIVE_LOG}
            self._asking = AdminClient(options.asking | told)
            self._consumer = confluent_kafka.Consumer(options.reading | told)
        except KafkaException as error:
            raise ConfigError(
                f"source.kafka.options: refused by confluent-kafka {confluent_kafka.version()}: "
                f"{options.in_our_words(error.args[0].str())}"
            ) from error

    # Questions.

    def ask_topics(self) -> None:
        asked = self._asking.describe_topics(confluent_kafka.TopicCollection(self._topics), request_timeout=ANSWER_S)
        known: set[Partition] = set()
        ids: dict[str, str] = {}
        for topic, answer in asked.items():
            try:
                described = answer.result(ANSWER_S + 1)
            except KafkaException as error:
                if error.args[0].code() not in _UNKNOWN:
                    raise self._reason(error.args[0], "asking for the topics") from error
            else:
                known |= {Partition(topic, one.id) for one in described.partitions}
                ids |= _named(topic, described.topic_id)
        self._known, self._ids, self._looked_at = known, ids, time.monotonic()

    def partitions(self) -> set[Partition]:
        return self._known

    def topic_ids(self) -> dict[str, str]:
        return self._ids

    def beginnings(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        return self._offsets(partitions, _AT_EARLIEST, "asking for beginnings")

    def ends(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        return self._offsets(partitions, _AT_LATEST, "asking for ends")

    def at_time(self, partitions: Collection[Partition], time_ms: int) -> dict[Partition, int | None]:
        found = self._offsets(partitions, time_ms, "looking up where to start")
        return {partition: None if offset < 0 else offset for partition, offset in found.items()}

    def _offsets(self, partitions: Collection[Partition], time_ms: int, doing: str) -> dict[Partition, int]:
        asked = [_native(partition, time_ms) for partition in partitions]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=ANSWER_S) if asked else []
        except KafkaException as error:
            raise self._reason(error.args[0], doing) from error
        except RuntimeError as error:
            raise _closed(doing, error) from error
        for answer in found:
            if answer.error is not None:
                raise _translated(answer.error, doing)
        return {Partition(answer.topic, answer.partition): answer.offset for answer in found}

    def high(self, partition: Partition) -> int:
        known = self._consumer.get_watermark_offsets(_native(partition), cached=True)
        return max(0, known[1]) if known is not None else 0

    # Reading.

    def add(self, positions: Mapping[Partition, int]) -> None:
        self._positions |= positions
        self._consumer.incremental_assign([_native(p, offset) for p, offset in sorted(positions.items())])

    def pause(self, partitions: Iterable[Partition]) -> None:
        paused = set(partitions)
        self._paused |= paused
        self._consumer.pause([_native(p) for p in sorted(paused)])

    def resume(self, partitions: Iterable[Partition]) -> None:
        resumed = sorted(partitions)
        self._paused.difference_update(resumed)
        self._consumer.resume([_native(p) for p in resumed])
        with contextlib.suppress(RetryableError):
            # The thread of a broker that has nothing to fetch sleeps for up to a second, and a question wakes it.
            self._offsets(resumed, _AT_LATEST, "resuming")

    def poll(self, timeout_s: float) -> list[RecordBatch]:
        if self._held:
            return self._confirmed()
        self._raise_failed()
        try:
            messages = self._consumer.consume(self._most, min(timeout_s, _LINGER_S))
        except KafkaException as error:
            raise self._reason(error.args[0], "polling") from error
        except RuntimeError as error:
            raise _closed("polling", error) from error
        failed = [_Failure.of(message) for message in messages if message.error() is not None]
        if failed:
            _refuse_damage(failed)
            messages = [message for message in messages if message.error() is None]
        # Read to its end, past whatever is never handed out.
        ended = [
            RecordBatch.empty(one.partition, one.offset) for one in failed if one.code == KafkaError._PARTITION_EOF
        ]
        self._failed = [one for one in failed if one.code not in _NO_FAILURE]
        self._held = self._moved([*_runs(messages), *ended])
        return self._confirmed()

    def _moved(self, batches: list[RecordBatch]) -> list[RecordBatch]:
        """Those that lead on from where reading is."""
        kept = []
        for batch in batches:
            if batch.next_offset > self._positions[batch.partition]:
                self._positions[batch.partition] = batch.next_offset
                kept.append(batch)
        return kept

    def _confirmed(self) -> list[RecordBatch]:
        """What is held, with the topics looked at since it was taken."""
        if any(map(len, self._held)) or time.monotonic() - self._looked_at >= self._refresh_s:
            self.ask_topics()
        held, self._held = self._held, []
        return held

    def _raise_failed(self) -> None:
        failed, self._failed = self._failed, []
        for one in failed:
            text = f"Kafka: fetching {one.partition}: {one.error.str()}"
            if one.code == KafkaError._AUTO_OFFSET_RESET:
                self._assign_again(one.partition)
                raise OutOfRange(text)
            if one.code == KafkaError._LOG_TRUNCATION:
                found = _REMAINS.search(text)
                raise Truncated(text, {one.partition: int(found[1])}) if found else DataError(text)
            raise self._reason(one.error, "fetching")

    def _assign_again(self, partition: Partition) -> None:
        """librdkafka has given the partition up; it goes on asking from the same position."""
        self._consumer.incremental_unassign([_native(partition)])
        self._consumer.incremental_assign([_native(partition, self._positions[partition])])
        if partition in self._paused:
            self._consumer.pause([_native(partition)])

    # Failures.

    def _told(self, error: KafkaError) -> None:
        """What librdkafka says beside the answers; only there does it tell of a refused login."""
        if error.code() in _REFUSED or error.code() == KafkaError._SSL:
            self._refused = error

    def _reason(self, error: KafkaError, doing: str) -> StreamLearnerError:
        self._asking.poll(0)  # calls `_told`
        told, self._refused = self._refused, None
        return _translated(error if told is None else told, doing)

    def close(self) -> None:
        # Closed before, or in the middle of a question of another thread, which then is the last one.
        with contextlib.suppress(RuntimeError, KafkaException):
            self._consumer.close()


def _translated(error: KafkaError, doing: str) -> StreamLearnerError:
    text = f"Kafka: {doing}: {error.str()}"
    if error.code() in _REFUSED:
        return ConfigError(f"{text} (see source.kafka.options)")
    if error.code() in _LOG_BROKEN:
        return DataError(text)
    if error.code() in _NEVER or error.fatal():
        return UnavailableError(text)
    return RetryableError(text)


def _closed(doing: str, error: RuntimeError) -> RetryableError:
    """librdkafka's word for a handle that was closed, from another thread, by whoever wants an end."""
    return RetryableError(f"Kafka: {doing}: {error}")


def _refuse_damage(failed: Iterable[_Failure]) -> None:
    """A damaged batch of records stops the reading before anything behind it is taken."""
    for one in failed:
        if one.code in _LOG_BROKEN:
            raise _translated(one.error, f"fetching {one.partition}")


def _native(partition: Partition, offset: int = confluent_kafka.OFFSET_INVALID) -> TopicPartition:
    return TopicPartition(partition.topic, partition.index, offset)


def _named(topic: str, identity: confluent_kafka.Uuid) -> dict[str, str]:
    """As kafka-python writes ids, so that a state may change clients."""
    found = uuid.UUID(bytes=base64.urlsafe_b64decode(f"{identity}=="))
    return {} if found == _NO_ID else {topic: str(found)}


def _runs(messages: list[Message]) -> list[RecordBatch]:
    """A batch for each run of records of one partition, in order."""
    if not messages:
        return []
    count = len(messages)
    indices = np.fromiter(map(Message.partition, messages), np.int64, count)
    topics = list(map(Message.topic, messages))
    new = np.fromiter((a is not b and a != b for a, b in pairwise(topics)), np.bool_, count - 1)
    starts = [0, *(np.flatnonzero(new | (np.diff(indices) != 0)) + 1).tolist(), count]
    offsets = np.fromiter(map(Message.offset, messages), np.int64, count)
    timestamps = np.fromiter(map(itemgetter(1), map(Message.timestamp, messages)), np.int64, count)
    values: list[Any] = list(map(Message.value, messages))
    return [
        RecordBatch(
            Partition(topics[a] or "", int(indices[a])),
            offsets[a:b],
            timestamps[a:b],
            values[a:b],
            int(offsets[b - 1]) + 1,
        )
        for a, b in pairwise(starts)
    ]

"""The sections of records and their sources: mappings, Kafka, files, identities, dead letters."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Duration, Secret, Section, op, section, span


class Fields(Section, frozen=True):
    """Dotted paths into a record's JSON object."""

    user: Annotated[str, Meta(description="path of the user id", min_length=1)] = "user"
    item: Annotated[str, Meta(description="path of the item id", min_length=1)] = "item"
    time: Annotated[str, Meta(description="path of the event time", min_length=1)] = "time"
    type: Annotated[str | None, Meta(description="path of the event type; null where `constant_type` says it")] = "type"
    id: Annotated[str | None, Meta(description="path of a unique event id, for `dedupe`")] = None
    session: Annotated[str | None, Meta(description="path of a session id")] = None
    label: Annotated[str | None, Meta(description="path of an explicit label, 0 or 1, for `labels.from: field`")] = None


class LabelRule(Section, frozen=True):
    """Turns a number in `fields.label` into a label: 1 where value >= at_least."""

    at_least: Annotated[float, Meta(description="smallest value that counts as positive")]


class Topic(Section, frozen=True):
    """How one topic's records become events."""

    fields: Annotated[Fields, Meta(description="where to find what")] = section(Fields)
    time_format: Annotated[
        Literal["iso8601", "epoch_s", "epoch_ms", "epoch_us", "integer"],
        Meta(description="iso8601 (naive = UTC), epoch_s / epoch_ms / epoch_us (numbers), integer (one unit = 1 s)"),
    ] = "epoch_ms"
    types: Annotated[
        dict[str, str],
        Meta(description="source type -> our type; any name may be given, unlisted source types are ignored, counted"),
    ] = msgspec.field(default_factory=lambda: {t: t for t in ("click", "cart", "favourite", "purchase")})
    constant_type: Annotated[str | None, Meta(description="our type of every record, where there is no type field")] = (
        None
    )
    categorical: Annotated[dict[str, str], Meta(description="categorical feature name -> path")] = msgspec.field(
        default_factory=dict
    )
    numeric: Annotated[dict[str, str], Meta(description="numeric feature name -> path")] = msgspec.field(
        default_factory=dict
    )
    label: Annotated[LabelRule | None, Meta(description="null: fields.label holds 0/1 or true/false already")] = None


class KafkaSource(Section, frozen=True):
    bootstrap_servers: Annotated[str, op("comma-separated host:port list")] = "localhost:9092"
    group_id: Annotated[str, op("consumer group under which offsets are committed, for lag tools only")] = (
        "stream-learner"
    )
    client_id: Annotated[str, op("name shown to the broker")] = "stream-learner"
    client: Annotated[
        Literal["kafka-python", "confluent"],
        op("who reads: kafka-python, or confluent-kafka (extra fast) for a third of its CPU; the model is the same"),
    ] = "kafka-python"
    max_poll_records: Annotated[int, op("records per poll", ge=1, le=1_000_000)] = 5000
    fetch_max_bytes: Annotated[int, op("bytes per fetch and partition", ge=1024)] = 4_194_304
    refresh_partitions: Annotated[Duration, op("how often new partitions are looked for")] = span("30s")
    retry_timeout: Annotated[Duration, op("how long broker errors are retried before the worker stops (exit 6)")] = (
        span("5m")
    )
    options: Annotated[
        dict[str, str | int | float | bool | None],
        op("passed to the client as they are: security_protocol, sasl_mechanism, ssl_cafile, ..."),
    ] = msgspec.field(default_factory=dict)


class FilesSource(Section, frozen=True):
    path: Annotated[
        str, op("a file, or a folder with one file or sub-folder per partition; .jsonl, .jsonl.gz, .parquet")
    ] = "events"
    follow: Annotated[bool, op("keep reading as plain JSON-lines files grow")] = False
    poll_interval: Annotated[Duration, op("how often a followed file is looked at")] = span("500ms")


class Source(Section, frozen=True):
    kind: Annotated[Literal["files", "kafka"], op("where records come from")] = "files"
    start: Annotated[
        str, op("where a new state starts: earliest, latest, or an ISO 8601 time (the first record at or after it)")
    ] = "earliest"
    queue_records: Annotated[int, op("records waiting per partition before it is paused", ge=1)] = 20_000
    queue_bytes: Annotated[int, op("bytes of them (values only) at which it is paused too", ge=1024)] = 67_108_864
    kafka: Annotated[KafkaSource, Meta(description="for kind: kafka")] = section(KafkaSource)
    files: Annotated[FilesSource, Meta(description="for kind: files")] = section(FilesSource)


class Privacy(Section, frozen=True):
    pseudonymise: Annotated[
        bool, Meta(description="replace user ids by keyed pseudonyms before anything sees them")
    ] = False
    key: Annotated[Secret | None, Meta(description="key of the pseudonyms, as ${ENV_VAR}; at least 16 characters")] = (
        None
    )


class Dedupe(Section, frozen=True):
    window: Annotated[
        Duration | None, Meta(description="events whose id was seen in this span of event time are dropped; null = off")
    ] = None
    max_ids: Annotated[int, op("ids remembered beyond which the worker stops (exit 3); 16 bytes each", ge=1000)] = (
        100_000_000
    )


class DeadLetters(Section, frozen=True):
    kind: Annotated[Literal["file", "kafka"], op("sink: dead_letters.jsonl in the state folder, or a Kafka topic")] = (
        "file"
    )
    topic: Annotated[str, op("topic for kind: kafka", min_length=1)] = "dead-letters"
    max_rate: Annotated[
        float, op("share of the last `rate_records` records beyond which the worker stops", ge=0, le=1)
    ] = 0.05
    rate_records: Annotated[int, op("records over which the rate is taken", ge=100)] = 10_000
    max_record_bytes: Annotated[int, Meta(description="larger records are dead letters, in bytes", ge=64)] = 1_048_576
    late: Annotated[Literal["drop", "dead_letter"], op("late events: only counted, or written to the sink too")] = (
        "drop"
    )

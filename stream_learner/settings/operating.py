"""The sections of versions, snapshots, the lease and what the outside sees."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Duration, Secret, Section, op, span


class Export(Section, frozen=True):
    aggregates: Annotated[
        list[str], Meta(description="entries of `aggregates.keys` whose values travel in a version, as of its slide")
    ] = msgspec.field(default_factory=lambda: ["item"])
    capacity: Annotated[int, Meta(description="keys per travelling entry; the most recently seen are taken", ge=1)] = (
        100_000
    )


class Checkpoints(Section, frozen=True):
    root: Annotated[
        str | None,
        op(
            "folder or fsspec URL (s3://bucket/folder, gs://, az://) of the published versions; null = checkpoints/ in "
            "the state folder"
        ),
    ] = None
    options: Annotated[
        dict[str, Any],
        op("passed to the file system of a URL as they are: key, secret, client_kwargs, ...; secrets as ${ENV_VAR}"),
    ] = msgspec.field(default_factory=dict)
    keep: Annotated[int, op("versions kept beside the champion, its parent and pinned ones", ge=2)] = 5
    max_delta_share: Annotated[
        float,
        op(
            "beside a version lies what differs from the one before, for those who follow, unless it takes more than "
            "this share of the bytes of the whole; 0 = never",
            ge=0,
        ),
    ] = 0.5


class Announce(Section, frozen=True):
    topic: Annotated[
        str | None, op("Kafka topic told of each version; null = none (sources other than Kafka: always none)")
    ] = None


class Snapshot(Section, frozen=True):
    interval: Annotated[Duration, op("event time between two snapshots (one is always made when publishing)")] = span(
        "10m"
    )
    least_pause: Annotated[
        Duration, op("real time between two snapshots that are not made for a version; spares a back-test most of them")
    ] = span("2s")
    keep: Annotated[int, op("snapshots kept", ge=2)] = 3
    max_increments: Annotated[
        int,
        op(
            "snapshots of what changed in embedding tables and replay buffer that may build on one whole snapshot of "
            "them; the next one merges all, on the writer thread. 0 = every snapshot is whole",
            ge=0,
            le=1000,
        ),
    ] = 24
    max_increment_share: Annotated[
        float, op("they are merged earlier when they take more than this share of the bytes they build on", gt=0)
    ] = 0.5
    on_config_change: Annotated[
        Literal["refuse", "migrate"],
        op(
            "a snapshot made under other model keys: refuse (exit 4), or carry it over where that is safe (journaled); "
            "the README lists the keys"
        ),
    ] = "refuse"
    max_waiting: Annotated[int, op("captures that may wait to be written before learning waits", ge=1, le=16)] = 2


class Lease(Section, frozen=True):
    timeout: Annotated[
        Duration,
        op(
            "a lease not renewed for so long may be taken by another worker; its holder then stops (exit 4). Waits of "
            "the disk that are longer stop a worker"
        ),
    ] = span("30s")
    heartbeat: Annotated[Duration, op("how often the holder renews; at most a third of `timeout`")] = span("5s")
    standby: Annotated[
        bool, op("wait while another worker holds the lease, and take over from it; false = refuse to start (exit 4)")
    ] = True


class Storage(Section, frozen=True):
    retry_timeout: Annotated[Duration, op("how long failing writes are retried before the worker stops (exit 6)")] = (
        span("2m")
    )


class Shutdown(Section, frozen=True):
    timeout: Annotated[Duration, op("time to finish the slide and write the snapshot after SIGTERM")] = span("25s")


class Observing(Section, frozen=True):
    host: Annotated[str, op("address of /dashboard, /metrics, /healthz and /readyz")] = "127.0.0.1"
    port: Annotated[int, op("port; 0 = any free one, logged at start", ge=0, le=65535)] = 9109
    token: Annotated[
        Secret | None,
        op("what the dashboard asks for before a rollback or pin, as ${ENV_VAR}; null = no commands from there"),
    ] = None
    stuck_after: Annotated[Duration, op("/healthz fails when the loop has not moved for this long")] = span("5m")
    traces: Annotated[
        str | None,
        op("OTLP/HTTP address that traces of slides go to, http://HOST:4318/v1/traces; null = none (extra `otel`)"),
    ] = None
    log_format: Annotated[Literal["json", "text"], op("structured JSON lines, or text")] = "text"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], op("least severity logged")] = "info"

"""One log, laid down in every form a source can read: what the contract suite runs on."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from broker import KafkaBroker

from stream_learner import settings
from stream_learner.ingest.files import FilesSource
from stream_learner.ingest.kafka import KafkaSource
from stream_learner.ingest.memory import MemorySource
from stream_learner.ingest.source import Partition, Source
from stream_learner.settings import Duration

FIRST_MS = 1_700_000_000_000

Values = list[bytes | None]


def row(n: int) -> bytes:
    """A record that every form can hold."""
    return msgspec.json.encode({"n": n, "text": f"käse {n}"})


def timestamp(offset: int) -> int:
    """The record timestamps of the worlds that have any, in ms: 1 s apart."""
    return FIRST_MS + 1000 * offset


class World(Protocol):
    """A log and the source that reads it. Offsets are 0, 1, 2, ..."""

    topic: str
    tombstones: bool  # can hold a record without a value
    timestamps: bool
    grows: bool  # can get records while it is read

    def lay(self, logs: dict[int, Values]) -> None:
        """Writes the partitions, before anything reads."""

    def append(self, partition: int, values: Values) -> None:
        """Adds records, to a new partition too."""

    def open(self, start: str = "earliest") -> Source: ...


class InMemory:
    tombstones = timestamps = grows = True

    def __init__(self, batch_records: int = 7) -> None:
        self.topic = "events"
        self._batch_records = batch_records
        self._logs: dict[Partition, list[tuple[int, int, bytes | None]]] = {}
        self._open: list[MemorySource] = []

    def lay(self, logs: dict[int, Values]) -> None:
        for partition, values in logs.items():
            self._logs[Partition(self.topic, partition)] = []
            self.append(partition, values)

    def append(self, partition: int, values: Values) -> None:
        log = self._logs.setdefault(Partition(self.topic, partition), [])
        records = [(len(log) + n, timestamp(len(log) + n), value) for n, value in enumerate(values)]
        log.extend(records)
        for source in self._open:
            source.append(Partition(self.topic, partition), *records)

    def open(self, start: str = "earliest") -> Source:
        self._open.append(MemorySource(self._logs, self._batch_records, start=start))
        return self._open[-1]


class InFiles:
    """Files of one form: jsonl, jsonl.gz or parquet; `archived` in the archive's form."""

    def __init__(self, folder: Path, form: str, *, archived: bool = False, follow: bool = False) -> None:
        self.topic = "events"
        self.tombstones = self.timestamps = archived
        self.grows = follow
        self._folder = folder
        self._form = form
        self._archived = archived
        self._lengths: dict[int, int] = {}
        folder.mkdir(exist_ok=True)

    def lay(self, logs: dict[int, Values]) -> None:
        for partition, values in logs.items():
            self._lengths[partition] = len(values)
            path = self._folder / f"{partition}.{self._form}"
            if self._form == "parquet":
                self._lay_parquet(path, partition, values)
                continue
            lines = b"".join(line + b"\n" for line in self._lines(partition, values))
            path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)

    def append(self, partition: int, values: Values) -> None:
        with (self._folder / f"{partition}.jsonl").open("ab") as file:
            file.write(b"".join(value + b"\n" for value in values if value is not None))

    def open(self, start: str = "earliest") -> Source:
        files = settings.FilesSource(path=str(self._folder), follow=self.grows, poll_interval=Duration(20_000))
        return FilesSource(settings.Source(start=start, files=files), [self.topic], batch_rows=7)

    def _rows(self, partition: int, values: Values) -> list[dict[str, Any]]:
        return [
            {"topic": self.topic, "partition": partition, "offset": n, "timestamp": timestamp(n), "value": value}
            for n, value in enumerate(values)
        ]

    def _lines(self, partition: int, values: Values) -> list[bytes]:
        if not self._archived:
            return [value for value in values if value is not None]
        rows = self._rows(partition, values)
        for one in rows:
            one["value"] = None if one["value"] is None else base64.b64encode(one["value"]).decode()
        return [msgspec.json.encode(one) for one in rows]

    def _lay_parquet(self, path: Path, partition: int, values: Values) -> None:
        if self._archived:
            types = [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64())]
            schema = pa.schema([*types, ("timestamp", pa.int64()), ("value", pa.binary())])
            rows = self._rows(partition, values)
        else:
            schema = pa.schema([("n", pa.int64()), ("text", pa.large_string())])
            rows = [msgspec.json.decode(value) for value in values if value is not None]
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=10)


class InKafka:
    tombstones = timestamps = grows = True

    def __init__(self, broker: KafkaBroker, **options: Any) -> None:
        self._broker = broker
        self._options = {"max_poll_records": 7} | options
        self._lengths: dict[int, int] = {}

    def lay(self, logs: dict[int, Values]) -> None:
        self.topic = self._broker.topic(max(logs) + 1)
        for partition, values in logs.items():
            self.append(partition, values)

    def append(self, partition: int, values: Values) -> None:
        if partition not in self._lengths:
            self._lengths[partition] = 0
            if partition > 0:
                self._broker.grow(self.topic, partition + 1)
        first = self._lengths[partition]
        self._broker.produce(self.topic, [(partition, v, timestamp(first + n)) for n, v in enumerate(values)])
        self._lengths[partition] += len(values)

    def open(self, start: str = "earliest") -> Source:
        return KafkaSource(kafka_settings(self._broker.bootstrap, start, **self._options), [self.topic])


def kafka_settings(
    bootstrap: str, start: str = "earliest", queue_records: int = 1000, **options: Any
) -> settings.Source:
    """Settings with short waits."""
    defaults = {"refresh_partitions": Duration(200_000), "retry_timeout": Duration(20_000_000)}
    broker = settings.KafkaSource(bootstrap_servers=bootstrap, **(defaults | options))
    return settings.Source(kind="kafka", start=start, queue_records=queue_records, kafka=broker)

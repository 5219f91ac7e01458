"""Writes the topics of a config out as files that replay like the topics themselves.

    <out>/<topic>/<partition>.jsonl.gz (or .parquet)    rows {topic, partition, offset, timestamp, value}
    <out>/archive.json                                  where each partition began and ended; written last

`value` is the record's bytes, base64 in JSON lines; null for a tombstone. Equal records give equal bytes on disk.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import msgspec

from stream_learner.durable import TEMPORARY, canonical_json, fsync_path, make_folder, storage_errors, write_file
from stream_learner.errors import ConfigError
from stream_learner.ingest.file_layout import INDEX_NAME, ArchiveIndex, Span
from stream_learner.ingest.file_rows import ArchivedRow
from stream_learner.ingest.opening import open_source
from stream_learner.ingest.source import Partition, RecordBatch, Source
from stream_learner.settings import Config

log = logging.getLogger(__name__)

_POLL_S = 1.0
_LINES = msgspec.json.Encoder()


class _Writer(Protocol):
    """One partition's file under its temporary name."""

    def write(self, batch: RecordBatch) -> None: ...

    def close(self) -> None: ...


class _LinesWriter:
    def __init__(self, path: Path) -> None:
        self._raw = path.open("wb")
        # No name and no time in the header: equal archives are equal files.
        self._file = gzip.GzipFile(filename="", fileobj=cast(BinaryIO, self._raw), mode="wb", compresslevel=6, mtime=0)

    def write(self, batch: RecordBatch) -> None:
        topic, index = batch.partition.topic, batch.partition.index
        rows = zip(batch.offsets.tolist(), batch.timestamps.tolist(), batch.values, strict=True)
        self._file.write(
            _LINES.encode_lines([ArchivedRow(topic, index, offset, at, value) for offset, at, value in rows])
        )

    def close(self) -> None:
        self._file.close()
        self._raw.close()


class _ParquetWriter:
    def __init__(self, path: Path) -> None:
        from stream_learner.ingest.parquet_rows import archive_writer

        self._file, self._table = archive_writer(path)

    def write(self, batch: RecordBatch) -> None:
        self._file.write_table(self._table(batch))

    def close(self) -> None:
        self._file.close()


def archive(
    config: Config,
    out: Path,
    *,
    parquet: bool = False,
    source: Source | None = None,
    progress: Callable[[int, int], None] = lambda done, left: None,
) -> dict[Partition, int]:
    """Reads every configured topic from `source.start` to the end fixed now; returns records per partition.

    `source` defaults to the config's; `progress` is told the records done and left. Raises `ConfigError` when `out`
    holds anything already, and what the source raises; an archive without `archive.json` is not whole.
    """
    make_folder(out)
    if any(out.iterdir()):
        raise ConfigError(f"{out} is not empty: archives are written to a new folder")
    source = open_source(config) if source is None else source
    try:
        begin = source.start(None, until_end=True)
        files = {p: _paths(out, p, ".parquet" if parquet else ".jsonl.gz") for p in begin}
        spans = _copy(source, begin, files, _ParquetWriter if parquet else _LinesWriter, progress)
    finally:
        source.close()
    for temporary, final in files.values():
        fsync_path(temporary)
        with storage_errors(final, "rename to"):
            temporary.rename(final)
        fsync_path(final.parent)
    write_file(out / INDEX_NAME, _index(spans))
    log.info("archived %d records of %d partitions to %s", sum(s.records for s in spans.values()), len(spans), out)
    return {partition: span.records for partition, span in spans.items()}


def _copy(
    source: Source,
    begin: dict[Partition, int],
    files: dict[Partition, tuple[Path, Path]],
    writer: Callable[[Path], _Writer],
    progress: Callable[[int, int], None],
) -> dict[Partition, Span]:
    spans = {partition: Span(offset, offset, 0) for partition, offset in begin.items()}
    with storage_errors(next(iter(files.values()))[0].parent, "write to"):
        writers = {partition: writer(temporary) for partition, (temporary, _) in files.items()}
        try:
            while source.ended() < set(begin):
                batch = source.poll(set(begin) - source.ended(), _POLL_S)
                if batch is None:
                    continue
                span = spans[batch.partition]
                spans[batch.partition] = Span(span.begin, batch.next_offset, span.records + len(batch))
                if len(batch):
                    writers[batch.partition].write(batch)
                progress(sum(s.records for s in spans.values()), sum(source.lag().values()))
        finally:
            for open_writer in writers.values():
                open_writer.close()
    return spans


def _paths(out: Path, partition: Partition, suffix: str) -> tuple[Path, Path]:
    folder = out / partition.topic
    make_folder(folder)
    return folder / f"{TEMPORARY}{partition.index}", folder / f"{partition.index}{suffix}"


def _index(spans: dict[Partition, Span]) -> bytes:
    topics: dict[str, dict[str, Any]] = {}
    for partition, span in sorted(spans.items()):
        topics.setdefault(partition.topic, {})[str(partition.index)] = msgspec.to_builtins(span)
    return canonical_json(msgspec.to_builtins(ArchiveIndex(topics=topics))) + b"\n"

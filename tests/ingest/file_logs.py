"""Writing small files and reading them whole, for the tests of file sources."""

from __future__ import annotations

import gzip
from pathlib import Path

from stream_learner import settings
from stream_learner.ingest.files import FilesSource
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.settings import Duration


def source(path: Path, *topics: str, follow: bool = False, start: str = "earliest") -> FilesSource:
    files = settings.FilesSource(path=str(path), follow=follow, poll_interval=Duration(5_000))
    return FilesSource(settings.Source(start=start, files=files), topics or ("events",), batch_rows=100)


def read(opened: FilesSource, positions: dict[Partition, int] | None = None) -> dict[str, list[RecordBatch]]:
    """All batches to the end, by partition as text."""
    begin = opened.start(positions, until_end=True)
    found: dict[str, list[RecordBatch]] = {str(p): [] for p in begin}
    while (batch := opened.poll(set(begin), 1.0)) is not None:
        found[str(batch.partition)].append(batch)
    assert opened.ended() == set(begin)
    return found


def values(batches: list[RecordBatch]) -> list[bytes | None]:
    return [value for batch in batches for value in batch.values]


def offsets(batches: list[RecordBatch]) -> list[int]:
    return [offset for batch in batches for offset in batch.offsets.tolist()]


def write_lines(path: Path, *lines: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)

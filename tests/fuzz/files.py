"""Files of records: plain and gzip lines, Parquet, archives; read in order as far as they can be, or refused."""

from __future__ import annotations

import gzip
import io
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stream_learner import settings
from stream_learner.ingest.file_rows import ArchivedRow
from stream_learner.ingest.files import FilesSource
from stream_learner.ingest.source import Partition

from .cases import Case, Check, refusable
from .records import valid as valid_records

_TOPIC = "events"
_OFFSETS = (4, 5, 9, 12)


def _rows() -> list[ArchivedRow]:
    records = zip(_OFFSETS, valid_records(), strict=False)
    return [ArchivedRow(_TOPIC, 3, offset, 1000 + offset, record.content) for offset, record in records]


def valid_lines() -> list[Case]:
    plain = b"".join(case.content + b"\n" for case in valid_records())
    archived = msgspec.json.Encoder().encode_lines([*_rows(), ArchivedRow(_TOPIC, 3, 13, -1, None)])
    span = b'{"topics":{"events":{"3":{"begin":4,"end":20,"records":5}}}}\n'
    return [
        Case("0.jsonl", plain),
        Case("3.jsonl", archived),
        Case("0.jsonl.gz", gzip.compress(plain, 1, mtime=0)),
        Case("3.jsonl.gz", gzip.compress(archived, 1, mtime=0)),
        Case("archive.json", span),
    ]


def mend_lines(rng: Random, case: Case) -> Case:
    """Damaged lines in a sound gzip file."""
    if not case.place.endswith(".gz"):
        return case
    return Case(case.place, gzip.compress(rng.choice((case.content, case.content * 3, b"\0" * 3_000_000)), 1, mtime=0))


def valid_parquet() -> list[Case]:
    rows = _rows()
    own = {"user": ["a", None, "b", "c"], "item": [1, 2, 3, None], "price": [1.5, None, float("nan"), 2],
           "time": pa.array([1, 2, 3, 4], pa.timestamp("us", "UTC")), "tags": [["x"], [], None, ["y", "z"]],
           "kind": pa.array(["click"] * 4).dictionary_encode(), "raw": [b"\xff", b"", None, b"a"]}  # fmt: skip
    archived = {
        "topic": [row.topic for row in rows],
        "partition": pa.array([row.partition for row in rows], pa.int32()),
        "offset": [row.offset for row in rows],
        "timestamp": [row.timestamp for row in rows],
        "value": pa.array([row.value for row in rows], pa.large_binary()),
    }
    options = ((own, "none"), (own, "snappy"), (archived, "zstd"), (archived, "none"))
    return [Case(f"{n}.parquet", _parquet(pa.table(table), how)) for n, (table, how) in enumerate(options)]


def _parquet(table: pa.Table, compression: str) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression=compression, row_group_size=2)
    return out.getvalue()


def open_files(folder: Path) -> Check:
    """One file in a folder by itself; an index beside a sound archive of partition 3."""
    root = folder / "log"
    archived = next(case for case in valid_lines() if case.place == "3.jsonl")

    def check(case: Case) -> None:
        shutil.rmtree(root, ignore_errors=True)
        (root / _TOPIC).mkdir(parents=True)
        if case.place == "archive.json":
            (root / _TOPIC / archived.place).write_bytes(archived.content)
            (root / case.place).write_bytes(case.content)
        else:
            (root / _TOPIC / case.place).write_bytes(case.content)
        begin = ("earliest", "earliest", "latest", "1970-01-01T00:00:01.006Z")[zlib.crc32(case.content) % 4]
        with refusable(root, f"{_TOPIC}/"):
            for _ in read_all(root, begin):
                pass

    return check


def read_all(root: Path, start: str) -> Iterator[tuple[Partition, int]]:
    """(partition, offset) of every record to the end, checked for order on the way."""
    source = FilesSource(settings.Source(start=start, files=settings.FilesSource(path=str(root))), [_TOPIC])
    positions = source.start(None, until_end=True)
    try:
        while (batch := source.poll(list(positions), 0.0)) is not None:
            assert len(batch.offsets) == len(batch.timestamps) == len(batch.values)
            assert all(value is None or type(value) is bytes for value in batch.values)
            at = [positions[batch.partition], *batch.offsets.tolist(), batch.next_offset]
            assert at[0] <= at[1] and (np.diff(batch.offsets) > 0).all() and at[-2] <= at[-1], at
            positions[batch.partition] = batch.next_offset
            yield from ((batch.partition, offset) for offset in batch.offsets.tolist())
        assert source.ended() == set(positions)
    finally:
        source.close()

"""Rows of files, block by block: JSON lines (plain or gzip) and Parquet, as they are or in the archive's form.

An archived row carries its own topic, partition, offset and timestamp, and the record's bytes as `value`. Any other
row is a record by itself: its offset is its row number in the partition, it has no timestamp (-1), and its value is
the line's bytes (JSON lines) or the row as a JSON object (Parquet). Nothing here holds more than a block in memory.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_learner.durable import BAD_JSON
from stream_learner.errors import DataError
from stream_learner.ingest.source import Partition

I64 = NDArray[np.int64]

LINE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
PARQUET_SUFFIX = ".parquet"
BLOCK_BYTES = 512 * 1024
MAX_LINE_BYTES = 64 << 20  # far beyond any record; a file without line ends must not fill the memory
_FOREIGN = (
    *(OSError, EOFError, MemoryError, RecursionError, zlib.error),
    *(ValueError, TypeError, OverflowError, LookupError, NotImplementedError),
)


class Rows(NamedTuple):
    """A block of records of one partition. A block without records moves `next_offset` only."""

    offsets: I64  # [n] ascending
    timestamps: I64  # [n] ms since the epoch, -1 = none
    values: list[bytes | None]
    next_offset: int


Index = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Offset = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Timestamp = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class ArchivedRow(msgspec.Struct):
    """One record in the archive's form; `value` is base64 in JSON lines and binary in Parquet, null for a tombstone."""

    topic: str
    partition: Index
    offset: Offset
    timestamp: Timestamp
    value: bytes | None


class _Place(msgspec.Struct):
    """What a scan needs of an archived row."""

    topic: str
    partition: Index
    offset: Offset
    timestamp: Timestamp


ARCHIVE_COLUMNS = ArchivedRow.__struct_fields__
_ROW = msgspec.json.Decoder(ArchivedRow)
_PLACE = msgspec.json.Decoder(_Place)


@dataclass(slots=True)
class Extent:
    """How far a plain or gzip file is, or may be, read (bytes on disk)."""

    limit: int | None = None  # reading stops here; None = at the end of the file
    may_grow: Callable[[], bool] = lambda: False  # asked before each read at the end
    keep_partial: bool = True  # whether a last line without a line end is a record
    read: int = 0
    total: int = 0


@contextmanager
def reading(path: Path, row: int | None = None) -> Iterator[None]:
    """What goes wrong while reading, as `DataError` naming the file."""
    try:
        yield
    except (*_FOREIGN, msgspec.MsgspecError) as error:
        where = str(path) if row is None else f"{path}, row {row}"
        raise DataError(f"{where} cannot be read: {error or type(error).__name__}") from error


def own_rows(path: Path, base: int, position: int, extent: Extent) -> Iterator[Rows | None]:
    """Records of a file whose rows are records, from offset `position` on; the file's first row has offset `base`.

    None = nothing more for now (only a file that may grow). Skipped rows come as blocks without records.
    """
    if path.name.endswith(PARQUET_SUFFIX):
        from stream_learner.ingest.parquet_rows import parquet_own_rows

        yield from parquet_own_rows(path, base, position)
        return
    for lines in _lines(path, extent):
        if lines is None:
            yield None
            continue
        first, base = base, base + len(lines)
        skipped = min(max(position - first, 0), len(lines))
        yield _numbered(lines[skipped:], first + skipped)


def archived_rows(path: Path, partition: Partition, position: int, extent: Extent) -> Iterator[Rows | None]:
    """Records of one partition in an archived file, from offset `position` on, in the file's order."""
    if path.name.endswith(PARQUET_SUFFIX):
        from stream_learner.ingest.parquet_rows import parquet_archived_rows

        yield from parquet_archived_rows(path, partition, position)
        return
    row = 0
    for lines in _lines(path, extent):
        if lines is None:
            yield None
            continue
        with reading(path, row):
            found = [_ROW.decode(line) for line in lines if line.strip()]
        row += len(lines)
        mine = [
            r for r in found if r.offset >= position and (r.topic, r.partition) == (partition.topic, partition.index)
        ]
        if mine:
            offsets = np.array([r.offset for r in mine], np.int64)
            timestamps = np.array([r.timestamp for r in mine], np.int64)
            yield Rows(offsets, timestamps, [r.value for r in mine], int(offsets[-1]) + 1)


def is_archived(path: Path) -> bool:
    """Whether the rows have all of the archive's columns. A file without rows or columns has not."""
    if path.name.endswith(PARQUET_SUFFIX):
        from stream_learner.ingest.parquet_rows import parquet_columns

        return set(ARCHIVE_COLUMNS) <= set(parquet_columns(path))
    with reading(path), _opened(path) as file:
        lines = iter(lambda: file.readline(MAX_LINE_BYTES), b"")
        line = next((line for line in lines if line.strip()), None)
    if line is None:
        return False
    try:
        _ROW.decode(line)
    except BAD_JSON:
        return False
    return True


def scan_archived(path: Path) -> Iterator[tuple[Partition, I64, I64]]:
    """Every block of an archived file as (partition, its offsets, its timestamps), in the file's order."""
    if path.name.endswith(PARQUET_SUFFIX):
        from stream_learner.ingest.parquet_rows import parquet_scan

        yield from parquet_scan(path)
        return
    for lines in _lines(path, Extent()):
        with reading(path):
            places = [_PLACE.decode(line) for line in lines or () if line.strip()]
        of: dict[Partition, list[_Place]] = {}
        for place in places:
            of.setdefault(Partition(place.topic, place.partition), []).append(place)
        for partition, mine in of.items():
            offsets = np.array([place.offset for place in mine], np.int64)
            yield partition, offsets, np.array([place.timestamp for place in mine], np.int64)


def rows_known(path: Path) -> int | None:
    """Number of rows where the file tells it without being read; None for lines."""
    if not path.name.endswith(PARQUET_SUFFIX):
        return None
    from stream_learner.ingest.parquet_rows import parquet_row_count

    return parquet_row_count(path)


def _lines(path: Path, extent: Extent) -> Iterator[list[bytes] | None]:
    """Whole lines without their ends, a block at a time; None = nothing more for now."""
    with reading(path):
        extent.total = path.stat().st_size
        with path.open("rb") as raw, _opened(path, raw) as file:
            carry: list[bytes] = []  # the parts of a line whose end has not been read
            while True:
                grows = extent.may_grow()
                block = file.read(BLOCK_BYTES if extent.limit is None else min(BLOCK_BYTES, extent.limit - raw.tell()))
                extent.read = raw.tell()
                if block:
                    first, *rest = block.split(b"\n")
                    carry.append(first)
                    if rest:
                        yield [b"".join(carry), *rest[:-1]]
                        carry = rest[-1:]
                    if sum(map(len, carry)) > MAX_LINE_BYTES:
                        raise DataError(f"{path} has a line of more than {MAX_LINE_BYTES} bytes: it is no JSON lines")
                elif grows:
                    extent.total = _size(path, extent.read)
                    yield None
                else:
                    break
            complete = extent.limit is None or path.stat().st_size <= extent.limit
            if any(carry) and extent.keep_partial and complete:
                yield [b"".join(carry)]


def _opened(path: Path, raw: BinaryIO | None = None) -> BinaryIO:
    if path.name.endswith(".gz"):
        return cast(BinaryIO, gzip.GzipFile(path, "rb", fileobj=raw))
    return path.open("rb") if raw is None else raw


def _size(path: Path, read: int) -> int:
    size = path.stat().st_size
    if size < read:
        raise DataError(
            f"{path} has {size} bytes where {read} were read already: it was cut or replaced while followed"
        )
    return size


def _numbered(lines: list[bytes], first: int) -> Rows:
    """Lines as records numbered from `first`; blank ones are left out, and counted."""
    offsets = np.arange(first, first + len(lines), dtype=np.int64)
    end = first + len(lines)
    values: list[Any] = [line.removesuffix(b"\r") for line in lines] if lines and lines[0].endswith(b"\r") else lines
    if not all(map(bytes.strip, lines)):
        full = np.array([bool(line.strip()) for line in lines])
        offsets, values = offsets[full], [line for line, keep in zip(values, full, strict=True) if keep]
    return Rows(offsets, np.full(len(offsets), -1, np.int64), values, end)

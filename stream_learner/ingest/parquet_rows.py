"""Rows of Parquet files by pyarrow (the `parquet` extra), row groups streamed, never a whole file in memory."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stream_learner.errors import ConfigError
from stream_learner.ingest.file_rows import ARCHIVE_COLUMNS, I64, Index, Offset, Rows, reading
from stream_learner.ingest.source import Partition, RecordBatch

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError as _error:
    raise ConfigError("reading or writing Parquet needs pyarrow: pip install 'stream-learner[parquet]'") from _error

_BATCH_ROWS = 8192


def _number(value: Any) -> Any:
    """Hook for what JSON has no word for. Decimals are written as numbers by the encoder itself."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} cannot be said in JSON")


_ENCODER = msgspec.json.Encoder(decimal_format="number", enc_hook=_number)


def parquet_columns(path: Path) -> list[str]:
    with reading(path), pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


def parquet_row_count(path: Path) -> int:
    with reading(path), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def parquet_own_rows(path: Path, base: int, position: int) -> Iterator[Rows]:
    """Rows as JSON objects, offsets from `base`. Row groups that end before `position` are passed over unread."""
    with reading(path), pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if base + size <= position:
                base += size
                yield _nothing(base)
                continue
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group]):
                first, base = base, base + len(batch)
                skipped = min(max(position - first, 0), len(batch))
                yield _as_json(batch.slice(skipped), first + skipped, base)


def parquet_archived_rows(path: Path, partition: Partition, position: int) -> Iterator[Rows]:
    for batch in _archived(path, ARCHIVE_COLUMNS):
        with reading(path):
            offsets = _within(_integers(batch, "offset"), Offset)
            mine = np.flatnonzero(_of(batch, partition) & (offsets >= position))
            values = batch.column("value").cast(pa.large_binary()).take(pa.array(mine)).to_pylist()
            timestamps = _integers(batch, "timestamp")[mine]
        if len(mine):
            yield Rows(offsets[mine], timestamps, values, int(offsets[mine[-1]]) + 1)


def parquet_scan(path: Path) -> Iterator[tuple[Partition, I64, I64]]:
    for batch in _archived(path, ("topic", "partition", "offset", "timestamp")):
        with reading(path):
            offsets, timestamps = _within(_integers(batch, "offset"), Offset), _integers(batch, "timestamp")
            topics, indexes = _topics(batch), _within(_integers(batch, "partition"), Index)
            partitions = [
                Partition(topic, index)
                for topic in sorted(set(topics.tolist()))
                for index in np.unique(indexes[topics == topic]).tolist()
            ]
        for partition in partitions:
            mine = _of(batch, partition)
            yield partition, offsets[mine], timestamps[mine]


def _archived(path: Path, columns: tuple[str, ...]) -> Iterator[Any]:
    with reading(path), pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(_BATCH_ROWS, columns=list(columns))


def _of(batch: Any, partition: Partition) -> Any:
    return (_topics(batch) == partition.topic) & (_integers(batch, "partition") == partition.index)


def _topics(batch: Any) -> Any:
    return np.array(batch.column("topic").cast(pa.string()).to_pylist(), dtype=object)


def _integers(batch: Any, name: str) -> I64:
    """A column of whole numbers (or timestamps, as ms since the epoch); null is -1."""
    column = batch.column(name)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", column.type.tz), safe=False)
    return np.asarray(column.cast(pa.int64()).fill_null(-1), np.int64)


def _within(column: I64, kind: Any) -> I64:
    """The column, all of it of the archive's kind of number; ValueError otherwise."""
    for bound in (column.min(initial=0), column.max(initial=0)):
        msgspec.convert(int(bound), kind)
    return column


def _nothing(next_offset: int) -> Rows:
    return Rows(np.empty(0, np.int64), np.empty(0, np.int64), [], next_offset)


def _as_json(batch: Any, first: int, end: int) -> Rows:
    """One JSON object a row: times as ISO 8601, decimals as numbers, NaN and infinities as null, binary as base64."""
    if not len(batch):
        return _nothing(end)
    names = batch.schema.names
    columns = [_python(column) for column in batch.columns]
    values: list[bytes | None] = [
        _ENCODER.encode(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)
    ]
    return Rows(np.arange(first, end, dtype=np.int64), np.full(len(values), -1, np.int64), values, end)


def _python(column: Any) -> list[Any]:
    """A column as Python values that msgspec can say."""
    target = _sayable(column.type)
    if target != column.type:
        column = column.cast(target, safe=False)
    if column.null_count == 0 and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return column.to_numpy().tolist()  # type: ignore[no-any-return]
    values = column.to_pylist()
    if pa.types.is_decimal(column.type):
        return [None if value is None or not value.is_finite() else _plain(value) for value in values]
    return values  # type: ignore[no-any-return]


def _plain(value: Decimal) -> Decimal | int:
    """Whole decimals as integers, so that an id kept as decimal(18, 0) reads like one kept as int64."""
    return int(value) if value == value.to_integral_value() and value.as_tuple().exponent == 0 else value


def _sayable(kind: Any) -> Any:
    """The nearest type whose Python values JSON can say: time in us and UTC, dictionaries unfolded, halves widened."""
    types = pa.types
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_dictionary(kind):
        return _sayable(kind.value_type)
    if types.is_float16(kind):
        return pa.float32()
    if types.is_time(kind):
        return pa.time64("us")
    if types.is_duration(kind):
        return pa.duration("us")
    if types.is_large_list(kind) or types.is_list(kind) or types.is_fixed_size_list(kind):
        return pa.large_list(_sayable(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_sayable(field.type)) for field in kind])
    return kind


def archive_writer(path: Path) -> tuple[Any, Any]:
    """An open Parquet writer for the archive's rows, and what makes a table of a `RecordBatch`."""
    schema = pa.schema(
        [
            pa.field("topic", pa.string(), nullable=False),
            pa.field("partition", pa.int32(), nullable=False),
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("timestamp", pa.int64(), nullable=False),
            pa.field("value", pa.large_binary()),
        ]
    )

    def table(batch: RecordBatch) -> Any:
        n = len(batch)
        columns = [
            [batch.partition.topic] * n,
            [batch.partition.index] * n,
            batch.offsets,
            batch.timestamps,
            batch.values,
        ]
        return pa.table([pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)], schema=schema)

    return pq.ParquetWriter(path, schema, compression="zstd"), table

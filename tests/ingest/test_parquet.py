"""Parquet files of any columns, as records and as archives."""

from __future__ import annotations

import datetime
import decimal
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_logs import offsets, read, source, values

from stream_learner.errors import ConfigError
from stream_learner.ingest.source import Partition

_MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 15, 250_000)
_TYPES: list[tuple[str, pa.DataType, list[Any], list[Any]]] = [
    ("int64", pa.int64(), [2**53 + 1, None], [2**53 + 1, None]),
    ("uint64", pa.uint64(), [2**64 - 1, 0], [2**64 - 1, 0]),
    ("uint8", pa.uint8(), [255, None], [255, None]),
    ("float", pa.float64(), [1.5, float("nan")], [1.5, None]),
    ("float with nulls", pa.float64(), [None, float("inf")], [None, None]),
    ("half", pa.float16(), [np.float16(0.5), np.float16(2)], [0.5, 2.0]),
    ("bool", pa.bool_(), [True, None], [True, None]),
    ("string", pa.string(), ["käse", ""], ["käse", ""]),
    ("large_string", pa.large_string(), ["a", None], ["a", None]),
    ("dictionary", pa.dictionary(pa.int32(), pa.large_string()), ["x", "y"], ["x", "y"]),
    ("decimal", pa.decimal128(12, 2), [decimal.Decimal("19.90"), None], [19.9, None]),
    ("whole decimal", pa.decimal128(18, 0), [decimal.Decimal(12345678901), None], [12345678901, None]),
    ("date", pa.date32(), [datetime.date(2024, 2, 29), None], ["2024-02-29", None]),
    ("timestamp s", pa.timestamp("s"), [_MOMENT.replace(microsecond=0), None], ["2024-02-29T12:30:15", None]),
    ("timestamp ms", pa.timestamp("ms"), [_MOMENT, None], ["2024-02-29T12:30:15.250000", None]),
    ("timestamp ns", pa.timestamp("ns"), [_MOMENT, None], ["2024-02-29T12:30:15.250000", None]),
    (
        "timestamp with zone",
        pa.timestamp("us", "Europe/Berlin"),
        [_MOMENT.replace(tzinfo=datetime.UTC), None],
        ["2024-02-29T12:30:15.250000Z", None],
    ),
    ("list", pa.list_(pa.int32()), [[1, 2], None], [[1, 2], None]),
    ("struct", pa.struct([("a", pa.int8()), ("t", pa.timestamp("ns"))]), [{"a": 1, "t": _MOMENT}, None], [
        {"a": 1, "t": "2024-02-29T12:30:15.250000"}, None]),
    ("list of structs", pa.list_(pa.struct([("d", pa.dictionary(pa.int8(), pa.string()))])), [[{"d": "x"}], []], [
        [{"d": "x"}], []]),
    ("binary", pa.binary(), [b"\x00\xff", None], ["AP8=", None]),
    ("null", pa.null(), [None, None], [None, None]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "column", "expected"), [t[1:] for t in _TYPES], ids=[t[0] for t in _TYPES])
def test_parquet_columns_of_every_type_json_can_say(
    tmp_path: Path, kind: pa.DataType, column: list[Any], expected: list[Any]
) -> None:
    pq.write_table(pa.table({"id": [1, 2], "x": pa.array(column, kind)}), tmp_path / "a.parquet")
    found = values(read(source(tmp_path / "a.parquet"))["events/0"])
    assert [msgspec.json.decode(value or b"") for value in found] == [
        {"id": n, "x": value} for n, value in zip((1, 2), expected, strict=True)
    ]


@pytest.mark.parametrize("position", [0, 1, 99, 100, 101, 250, 999, 1000])
def test_parquet_rows_are_numbered_whatever_the_row_groups(tmp_path: Path, position: int) -> None:
    pq.write_table(pa.table({"n": np.arange(1000)}), tmp_path / "a.parquet", row_group_size=100)
    found = read(source(tmp_path / "a.parquet"), {Partition("events", 0): position})["events/0"]
    assert offsets(found) == list(range(position, 1000))
    assert values(found) == [b'{"n":%d}' % n for n in range(position, 1000)]
    assert all((batch.timestamps == -1).all() for batch in found)


def test_parquet_in_the_archive_form_with_other_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "value": pa.array(['{"a":1}', None], pa.string()),
            "topic": pa.array(["events", "events"]).dictionary_encode(),
            "partition": pa.array([3, 3], pa.int64()),
            "offset": pa.array([7, 9], pa.int32()),
            "timestamp": pa.array([1500, None], pa.timestamp("us")),
            "key": ["k", "k"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (batch,) = read(source(tmp_path / "a.parquet"))["events/3"]
    assert list(batch.values) == [b'{"a":1}', None]
    assert batch.offsets.tolist() == [7, 9]
    assert batch.timestamps.tolist() == [1, -1]


def test_the_real_data_sets_read_as_they_are() -> None:
    path = Path(__file__).parents[2].parent / "shared" / "data" / "taobao_ub_2h" / "events.parquet"
    if not path.exists():
        pytest.skip("the data set is not here")
    found = read(source(path))["events/0"]
    first = msgspec.json.decode(values(found)[0] or b"")
    assert set(first) == {"ts", "user", "item", "event", "category"}
    assert len(offsets(found)) == pq.ParquetFile(path).metadata.num_rows


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "stream_learner.ingest.parquet_rows", raising=False)
    with pytest.raises(ConfigError, match=r"stream-learner\[parquet\]"):
        source(tmp_path / "a.parquet").start(None, until_end=True)

"""FilesSource beyond the contract: layouts, forms, types, and files that are broken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_logs import offsets, read, source, values, write_lines

from stream_learner.errors import ConfigError, DataError
from stream_learner.ingest.source import Partition


def archived(topic: str, partition: int, offset: int, value: str | None = "eA==", timestamp: int = 5) -> bytes:
    row = {"topic": topic, "partition": partition, "offset": offset, "timestamp": timestamp, "value": value}
    return json.dumps(row).encode()


# Layouts.


def test_one_file_is_partition_0_of_the_only_topic(tmp_path: Path) -> None:
    write_lines(tmp_path / "anything.jsonl", b'{"a":1}', b'{"a":2}')
    found = read(source(tmp_path / "anything.jsonl", "clicks"))
    assert values(found["clicks/0"]) == [b'{"a":1}', b'{"a":2}']


def test_files_of_a_folder_are_partitions_in_name_order(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", b"1")
    write_lines(tmp_path / "a.jsonl.gz", b"0")
    write_lines(tmp_path / "c.ndjson", b"2")
    for ignored in ("README.md", ".hidden.jsonl", "_SUCCESS", "half.jsonl.tmp"):
        (tmp_path / ignored).write_text("not a log")
    found = read(source(tmp_path))
    assert {name: values(batches) for name, batches in found.items()} == {
        "events/0": [b"0"],
        "events/1": [b"1"],
        "events/2": [b"2"],
    }


def test_names_that_are_numbers_are_partition_numbers(tmp_path: Path) -> None:
    write_lines(tmp_path / "10.jsonl", b"ten")
    write_lines(tmp_path / "2.jsonl", b"two")
    assert {n: values(b) for n, b in read(source(tmp_path)).items()} == {"events/2": [b"two"], "events/10": [b"ten"]}


def test_a_sub_folder_is_one_log_of_its_files_in_name_order(tmp_path: Path) -> None:
    write_lines(tmp_path / "0" / "2024-01-02.jsonl", b"3", b"", b"4")
    write_lines(tmp_path / "0" / "2024-01-01.jsonl.gz", b"1", b"2")
    pq.write_table(pa.table({"n": [5, 6]}), tmp_path / "0" / "2024-01-03.parquet")
    write_lines(tmp_path / "1" / "x.jsonl", b"other")
    found = read(source(tmp_path))
    assert values(found["events/0"]) == [b"1", b"2", b"3", b"4", b'{"n":5}', b'{"n":6}']
    assert offsets(found["events/0"]) == [0, 1, 2, 4, 5, 6]
    assert values(found["events/1"]) == [b"other"]


@pytest.mark.parametrize("position", range(8))
def test_a_restart_anywhere_in_a_log_of_several_files(tmp_path: Path, position: int) -> None:
    write_lines(tmp_path / "0" / "a.jsonl", b"0", b"1", b"")
    write_lines(tmp_path / "0" / "b.jsonl.gz", b"3", b"4")
    pq.write_table(pa.table({"n": [5, 6]}), tmp_path / "0" / "c.parquet", row_group_size=1)
    found = read(source(tmp_path), {Partition("events", 0): position})
    assert offsets(found["events/0"]) == [n for n in (0, 1, 3, 4, 5, 6) if n >= position][:7]
    with pytest.raises(DataError, match=r"lies beyond the log, \[0, 7\]"):
        source(tmp_path).start({Partition("events", 0): 8}, until_end=True)


def test_sub_folders_named_like_topics_are_topics(tmp_path: Path) -> None:
    write_lines(tmp_path / "clicks" / "0.jsonl", b"c0")
    write_lines(tmp_path / "clicks" / "1.jsonl", b"c1")
    write_lines(tmp_path / "buys" / "p" / "x.jsonl", b"b0")
    found = read(source(tmp_path, "clicks", "buys"))
    assert {n: values(b) for n, b in found.items()} == {"clicks/0": [b"c0"], "clicks/1": [b"c1"], "buys/0": [b"b0"]}


@pytest.mark.parametrize(
    ("files", "topics", "message"),
    [
        ({}, ("events",), "does not exist"),
        ({"x/readme.txt": b""}, ("events",), "holds no partition of events"),
        ({"x/a.jsonl": b"1\n"}, ("one", "two"), "does not say which topic"),
        ({"x/one/a.jsonl": b"1\n"}, ("one", "two"), "none for two"),
        ({"x/0.jsonl": b"1\n", "x/0.parquet": b""}, ("events",), "same partition number"),
        ({"x/0.jsonl": b"1\n", "x/archive.json": b"{"}, ("events",), "archive.json is not the index"),
        ({"x/0.jsonl": archived("other", 0, 0) + b"\n"}, ("events",), "holds no partition of events"),
    ],
)
def test_layouts_that_say_nothing(
    tmp_path: Path, files: dict[str, bytes], topics: tuple[str, ...], message: str
) -> None:
    for name, body in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(body)
    with pytest.raises(ConfigError, match=message):
        source(tmp_path / "x", *topics).start(None, until_end=True)


def test_a_file_of_no_known_kind(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("a,b")
    with pytest.raises(ConfigError, match=r"events\.csv is none of \.jsonl"):
        source(tmp_path / "events.csv").start(None, until_end=True)


# Lines.


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b'{"last":1}'])
def test_lines_unchanged_blank_ones_counted(tmp_path: Path, end: bytes, last: bytes) -> None:
    lines = [b'{"a": "k\xc3\xa4se"}', b"", b"not json \xff", b"   ", b"[1]"]
    (tmp_path / "a.jsonl").write_bytes(end.join([*lines, last]))
    found = read(source(tmp_path / "a.jsonl"))["events/0"]
    assert values(found) == [line for line in (*lines, last) if line.strip()]
    assert offsets(found) == [0, 2, 4] + ([5] if last else [])


def test_lines_longer_than_a_block(tmp_path: Path) -> None:
    lines = [b"x" * n for n in (1, 3_000_000, 7, 600_000, 600_000)]
    write_lines(tmp_path / "a.jsonl", *lines)
    assert values(read(source(tmp_path / "a.jsonl"))["events/0"]) == lines


def test_random_files_against_splitlines(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for trial in range(5):
        lines = [bytes(rng.integers(33, 127, rng.integers(0, 400), dtype=np.uint8)) for _ in range(4000)]
        write_lines(tmp_path / f"{trial}.jsonl", *lines)
        expected = {n: line for n, line in enumerate(lines) if line}
        position = int(rng.integers(0, 4000))
        found = read(source(tmp_path / f"{trial}.jsonl"), {Partition("events", 0): position})["events/0"]
        assert dict(zip(offsets(found), values(found), strict=True)) == {
            n: line for n, line in expected.items() if n >= position
        }


# Followed files.


def test_a_partial_line_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n":0}\n{"n"')
    opened = source(path, follow=True)
    begin = opened.start(None, until_end=False)
    batch = opened.poll(set(begin), 1.0)
    assert batch is not None
    assert list(batch.values) == [b'{"n":0}']
    assert opened.poll(set(begin), 0.05) is None
    with path.open("ab") as file:
        file.write(b":1}\n")
    batch = opened.poll(set(begin), 1.0)
    assert batch is not None
    assert list(batch.values) == [b'{"n":1}']
    assert batch.offsets.tolist() == [1]


def test_a_bounded_run_on_a_followed_file_leaves_the_partial_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"0\n1\n2")
    assert values(read(source(tmp_path / "a.jsonl", follow=True))["events/0"]) == [b"0", b"1"]
    assert values(read(source(tmp_path / "a.jsonl"))["events/0"]) == [b"0", b"1", b"2"]


def test_a_followed_folder_goes_on_in_its_next_file(tmp_path: Path) -> None:
    write_lines(tmp_path / "0" / "a.jsonl", b"0")
    opened = source(tmp_path, follow=True)
    begin = opened.start(None, until_end=False)
    assert opened.poll(set(begin), 1.0) is not None
    write_lines(tmp_path / "0" / "b.jsonl", b"1", b"2")
    batch = opened.poll(set(begin), 1.0)
    assert batch is not None
    assert batch.offsets.tolist() == [1, 2]


def test_a_followed_file_that_is_cut_is_an_error(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", b"0", b"1")
    opened = source(tmp_path / "a.jsonl", follow=True)
    begin = opened.start(None, until_end=False)
    assert opened.poll(set(begin), 1.0) is not None
    (tmp_path / "a.jsonl").write_bytes(b"0\n")
    with pytest.raises(DataError, match="cut or replaced"):
        opened.poll(set(begin), 1.0)


def test_a_new_file_that_would_renumber_the_others_is_an_error(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", b"0")
    opened = source(tmp_path, follow=True)
    opened.start(None, until_end=False)
    write_lines(tmp_path / "a.jsonl", b"0")
    with pytest.raises(DataError, match="must sort after"):
        while not opened.new_partitions():
            pass


# The archive's form.


def test_an_archived_file_with_many_partitions(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    order = rng.permutation(np.repeat(np.arange(4), 200))
    counts = np.zeros(4, int)
    lines = []
    expected: dict[str, list[int]] = {f"events/{p}": [] for p in range(4)}
    for partition in order.tolist():
        offset = 10 + 3 * int(counts[partition])  # not from 0, not dense
        counts[partition] += 1
        lines.append(archived("events", partition, offset))
        expected[f"events/{partition}"].append(offset)
    write_lines(tmp_path / "all.jsonl.gz", *lines, archived("another", 0, 0))
    opened = source(tmp_path / "all.jsonl.gz")
    assert opened.start(None, until_end=True) == {Partition("events", p): 10 for p in range(4)}
    assert {n: offsets(b) for n, b in read(source(tmp_path)).items()} == expected
    found = read(source(tmp_path), {Partition("events", p): 310 for p in range(4)})
    assert {n: offsets(b) for n, b in found.items()} == {n: [o for o in e if o >= 310] for n, e in expected.items()}


def test_an_archived_partition_in_several_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "part-1.jsonl", archived("events", 0, 5), archived("events", 1, 7))
    write_lines(tmp_path / "part-0.jsonl", archived("events", 0, 1), archived("events", 0, 2))
    found = read(source(tmp_path))
    assert {n: offsets(b) for n, b in found.items()} == {"events/0": [1, 2, 5], "events/1": [7]}


def test_two_topics_in_one_archived_file(tmp_path: Path) -> None:
    write_lines(tmp_path / "all.jsonl", archived("a", 0, 1), archived("b", 0, 2), archived("c", 0, 3))
    assert {n: offsets(b) for n, b in read(source(tmp_path, "a", "b")).items()} == {"a/0": [1], "b/0": [2]}


def test_archived_offsets_that_do_not_ascend_are_an_error(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", archived("events", 0, 5), archived("events", 0, 4))
    with pytest.raises(DataError, match="do not ascend"):
        read(source(tmp_path))


def test_a_broken_row_in_an_archived_file_names_file_and_place(tmp_path: Path) -> None:
    write_lines(tmp_path / "events" / "0.jsonl", archived("events", 0, 0), b'{"topic": 5}')
    with pytest.raises(DataError, match=r"0\.jsonl.* cannot be read"):
        read(source(tmp_path))


def test_the_index_keeps_where_a_partition_began_and_ended(tmp_path: Path) -> None:
    write_lines(tmp_path / "events" / "0.jsonl", archived("events", 0, 12))
    write_lines(tmp_path / "events" / "3.jsonl")
    spans = {"0": {"begin": 10, "end": 15, "records": 1}, "3": {"begin": 4, "end": 4, "records": 0}}
    (tmp_path / "archive.json").write_text(json.dumps({"topics": {"events": spans}}))
    opened = source(tmp_path)
    assert opened.start(None, until_end=True) == {Partition("events", 0): 10, Partition("events", 3): 4}
    found = read(source(tmp_path))
    assert offsets(found["events/0"]) == [12]
    assert found["events/0"][-1].next_offset == 15
    with pytest.raises(DataError, match=r"before the log, \[10, 15\]"):
        source(tmp_path).start({Partition("events", 0): 9}, until_end=True)


# Broken files.


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("a.jsonl.gz", b"this is not gzip\n"),
        ("a.jsonl.gz", gzip.compress(b"0\n" * 100_000)[:-20]),
        ("a.parquet", b"PAR1 not really PAR1"),
        ("a.parquet", b""),
    ],
    ids=["no gzip", "cut gzip", "no parquet", "empty parquet"],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, body: bytes) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(DataError, match=rf"{name} cannot be read"):
        read(source(tmp_path))


def test_a_bad_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\.start: 'yesterday'"):
        source(tmp_path, start="yesterday")

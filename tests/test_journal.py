"""One contract for the journal in a file and in memory; damage to the file shows."""

from __future__ import annotations

import json
import logging
import zlib
from pathlib import Path

import pytest

from stream_learner.errors import StateError
from stream_learner.ingest.source import Partition
from stream_learner.journal import (
    AnyEntry,
    Command,
    ConfigChange,
    End,
    FileJournal,
    Gap,
    Journal,
    MemoryJournal,
    PartitionAdded,
    PartitionIdle,
    PartitionWoken,
    Position,
    Requeue,
    Start,
    read_journal,
)

AT = Position("events", 3, 2**40)
EVERY_KIND: list[AnyEntry] = [
    Start(slide=0, partitions=(Position("events", 0, 17), AT)),
    PartitionIdle(slide=4, partition=AT),
    PartitionWoken(slide=5, partition=AT),
    PartitionAdded(slide=5, partition=Position("events", 4, 0)),
    Gap(slide=6, partition=AT, until=2**40 + 5),
    Command(slide=7, id="00000001-ab", name="rollback", arguments={"version": 1_700_000_000}),
    Command(slide=7, id="00000002-ab", name="erase", arguments={"users": "00000000000000ff ffffffffffffffff"}),
    ConfigChange(slide=8, before="aa", after="bb", keys={"gate.margin": (0.0, 0.5), "judging.windows": (["1h"], [])}),
    Requeue(slide=9, records=(AT,)),
    End(slide=11, partitions=(Position("events", 0, 99),)),
]


@pytest.fixture(params=["memory", "file"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return MemoryJournal() if request.param == "memory" else FileJournal(tmp_path / "journal.jsonl")


def _filled(path: Path) -> list[bytes]:
    journal = FileJournal(path)
    for entry in EVERY_KIND:
        journal.append(entry)
    journal.close()
    return path.read_bytes().splitlines(keepends=True)


def test_entries_come_back_in_order(journal: Journal) -> None:
    assert (journal.length, journal.last_slide, journal.entries) == (0, -1, ())
    for entry in EVERY_KIND:
        journal.append(entry)
    assert journal.entries == tuple(EVERY_KIND)
    assert journal.length == len(EVERY_KIND)
    assert journal.last_slide == 11
    assert journal.from_position(0) == tuple(EVERY_KIND)
    assert journal.from_position(7) == tuple(EVERY_KIND[7:])
    assert journal.from_position(len(EVERY_KIND)) == ()
    journal.close()
    journal.close()


def test_a_position_beyond_the_end_is_another_journals(journal: Journal) -> None:
    with pytest.raises(StateError, match="saw 1 journal entries, the journal holds 0"):
        journal.from_position(1)
    journal.close()


def test_the_past_cannot_be_changed(journal: Journal) -> None:
    journal.append(PartitionIdle(slide=5, partition=AT))
    with pytest.raises(StateError, match="slide 4 comes after one for slide 5"):
        journal.append(PartitionWoken(slide=4, partition=AT))
    journal.append(PartitionWoken(slide=5, partition=AT))
    assert journal.length == 2
    journal.close()


def test_the_file_survives_reopening_and_going_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for entry in EVERY_KIND:
        journal = FileJournal(path)
        journal.append(entry)
        journal.close()
    assert FileJournal(path).entries == tuple(EVERY_KIND) == read_journal(path)
    assert AT.partition == Partition("events", 3)
    assert Position.of(Partition("events", 3), 2**40) == AT


def test_lines_are_flat_json(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in _filled(tmp_path / "j")]
    assert [line["kind"] for line in lines] == [
        "start", "partition_idle", "partition_woken", "partition_added", "gap",
        "command", "command", "config_change", "requeue", "end",
    ]  # fmt: skip
    assert lines[0]["partitions"][0] == {"topic": "events", "index": 0, "offset": 17}
    assert all(set(line) >= {"slide", "kind", "crc32"} for line in lines)


def test_equal_entries_give_equal_bytes(tmp_path: Path) -> None:
    one = Command(slide=1, id="x", name="n", arguments={"a": 1, "b": 2})
    two = Command(slide=1, id="x", name="n", arguments={"b": 2, "a": 1})
    for name, entry in (("one", one), ("two", two)):
        FileJournal(tmp_path / name).append(entry)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_last_line_cut_anywhere_is_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "j"
    lines = _filled(path)
    whole, last = b"".join(lines[:-1]), lines[-1]
    for kept in range(1, len(last)):
        path.write_bytes(whole + last[:kept])
        assert read_journal(path) == tuple(EVERY_KIND[:-1])
        assert path.read_bytes() == whole + last[:kept]  # reading changes nothing
        with caplog.at_level(logging.WARNING):
            journal = FileJournal(path)
        assert "unfinished last line" in caplog.text
        caplog.clear()
        assert journal.entries == tuple(EVERY_KIND[:-1])
        journal.append(EVERY_KIND[-1])
        journal.close()
        assert path.read_bytes() == whole + last


def test_blocks_that_never_reached_the_disk_are_an_unfinished_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    lines = _filled(path)
    path.write_bytes(b"".join(lines[:-1]) + bytes(20) + lines[-1][20:])
    assert FileJournal(path).entries == tuple(EVERY_KIND[:-1])


def test_every_flipped_bit_of_a_finished_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    lines = _filled(path)[:2]
    content = b"".join(lines)
    for at in range(len(content) - 1):  # without its line end the last line is unfinished
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        if flipped[at] in b"\0":
            continue
        path.write_bytes(flipped)
        with pytest.raises(StateError, match=r"line \d"):
            FileJournal(path)


def test_edited_removed_and_foreign_lines_name_their_number(tmp_path: Path) -> None:
    path = tmp_path / "j"
    lines = _filled(path)
    path.write_bytes(b"".join([lines[0], lines[1].replace(b'"slide":4', b'"slide":3'), *lines[2:]]))
    with pytest.raises(StateError, match=r"line 2: its checksum"):
        FileJournal(path)
    path.write_bytes(b"".join([*lines[:3], lines[1]]))
    with pytest.raises(StateError, match=r"line 4: its slide is before"):
        FileJournal(path)
    body = b'{"kind":"from_the_future","slide":1}'
    path.write_bytes(body[:-1] + b',"crc32":%d}\n' % zlib.crc32(body))
    with pytest.raises(StateError, match=r"line 1: it was written by another release"):
        FileJournal(path)


def test_a_badly_typed_entry_is_not_taken(journal: Journal) -> None:
    with pytest.raises(TypeError, match="cannot be journaled"):
        journal.append(Command(slide=0, id="x", name="n", arguments={"a": [1]}))  # type: ignore[dict-item]
    assert journal.length == 0
    journal.close()

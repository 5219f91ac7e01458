"""Files of lines that only grow: journal, verdicts, dead letters. A torn end is cut off, anything else is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from random import Random

import msgspec

from stream_learner.ingest.dead_letters import DeadLetter, FileDeadLetters, read_dead_letters, to_json
from stream_learner.journal import (
    AnyEntry,
    Command,
    ConfigChange,
    End,
    FileJournal,
    Gap,
    PartitionAdded,
    PartitionIdle,
    PartitionWoken,
    Position,
    Requeue,
    Start,
    read_journal,
)
from stream_learner.publishing.verdict_log import VerdictLog, read_verdicts

from .cases import Case, Check, refusable

_PLACE = Position("events", 0, 17)
_ENTRIES: tuple[AnyEntry, ...] = (
    Start(slide=0, partitions=(_PLACE, Position("events", 1, 0))),
    PartitionIdle(slide=3, partition=_PLACE),
    PartitionWoken(slide=4, partition=_PLACE),
    PartitionAdded(slide=4, partition=Position("events", 2, 5)),
    Gap(slide=5, partition=_PLACE, until=40),
    Command(slide=6, id="00000001-abcdef01", name="rollback", arguments={"version": 1704067200}),
    ConfigChange(slide=7, before="cafe", after="beef", keys={"gate.margin": (0.0, 0.5)}),
    Requeue(slide=8, records=(_PLACE,)),
    End(slide=10, partitions=(_PLACE,)),
)
_CRC = b',"crc32":'
_LETTERS = (
    DeadLetter("not_json", "malformed", "events", 0, 4, -1, b"\xffxx"),
    DeadLetter("empty", "no value", "events", 1, 9, 1_700_000_000_000, None),
    DeadLetter("missing_field", "user: absent, null or empty", "clicks", 0, 2, 5, b'{"item":1}'),
)


def _line(entry: AnyEntry) -> bytes:
    return _sealed(msgspec.json.Encoder(order="deterministic").encode(entry))


def _sealed(body: bytes) -> bytes:
    return body[:-1] + _CRC + str(zlib.crc32(body)).encode() + b"}"


def valid_journals() -> list[Case]:
    lines = [_line(entry) for entry in _ENTRIES]
    wholes = [lines[:1], lines[:4], lines[4:8], lines[6:], lines]
    return [Case("journal.jsonl", b"\n".join(whole) + b"\n") for whole in wholes]


def mend_journal(_: Random, case: Case) -> Case:
    """Every line with the checksum that its damaged body asks for."""
    lines = [line.rpartition(_CRC)[0] + b"}" if _CRC in line else line for line in case.content.split(b"\n")]
    return Case(case.place, b"\n".join(_sealed(line) if line.endswith(b"}") else line for line in lines))


def open_journal(folder: Path) -> Check:
    path = folder / "journal.jsonl"

    def check(case: Case) -> None:
        path.write_bytes(case.content)
        with refusable(path):
            read_journal(path)
        assert path.read_bytes() == case.content, "reading changed the journal"
        with refusable(path):
            journal = FileJournal(path)
            journal.append(Requeue(slide=max(journal.last_slide, 0), records=(_PLACE,)))
            journal.close()
            kept = path.read_bytes()
            assert case.content.startswith(kept[: kept[:-1].rfind(b"\n") + 1]), "opening changed finished lines"
            assert read_journal(path) == journal.entries

    return check


def valid_verdicts() -> list[Case]:
    verdicts = [{"slide": n, "passed": n % 2 == 0, "rules": [{"name": "margin", "ne": 0.91 + n}]} for n in range(5)]
    lines = [json.dumps(verdict).encode() + b"\n" for verdict in verdicts]
    return [Case("verdicts.jsonl", b"".join(lines[:n])) for n in (1, 3, 5)]


def open_verdicts(folder: Path) -> Check:
    path = folder / "verdicts.jsonl"

    def check(case: Case) -> None:
        path.write_bytes(case.content)
        with refusable(path):
            assert all(isinstance(verdict, dict) for verdict in read_verdicts(path))
        log = VerdictLog(path)
        with refusable(path):
            log.cut(zlib.crc32(case.content) % (len(case.content) + 9))
            kept = path.read_bytes()
            assert case.content.startswith(kept) and (not kept or kept.endswith(b"\n"))
            log.append({"slide": 9})
            assert path.read_bytes() == kept + b'{"slide":9}\n'
        log.close()

    return check


def valid_letters() -> list[Case]:
    lines = [to_json(letter) + b"\n" for letter in _LETTERS]
    return [Case("dead_letters.jsonl", b"".join(lines[:n])) for n in (1, 2, 3)]


def open_letters(folder: Path) -> Check:
    """Torn or foreign lines are passed over; what is added afterwards is always read back."""
    path = folder / "dead_letters.jsonl"
    mine = DeadLetter("late", "closed", "fuzz", 7, 2**40, 1, b"x")

    def check(case: Case) -> None:
        path.write_bytes(case.content)
        before = read_dead_letters(path)
        sink = FileDeadLetters(path)
        sink.add([mine])
        sink.close()
        after = read_dead_letters(path)
        assert after[: len(before)] == before and mine in after

    return check

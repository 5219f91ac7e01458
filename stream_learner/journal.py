"""The journal: the few things that decide the model and are neither in the log nor in the config.

One JSON object per line, oldest first:

    {"kind":"start","slide":0,"partitions":[{"topic":"events","index":0,"offset":17}],"crc32":1234567890}

`slide` is the number of the slide before which the entry takes effect; it never falls from one line to the next.
`crc32` is taken over the line without it. An entry takes effect only after `append` has returned, which is after
the fsync; so a last line cut short never took effect and is cut off on opening.

Kinds: start, partition_idle, partition_woken, partition_added, end, gap, rewound, command, config_change, requeue.
"""

from __future__ import annotations

import logging
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import msgspec

from stream_learner.durable import BAD_JSON, AppendFile, Fence, unfenced
from stream_learner.errors import StateError, StreamLearnerError
from stream_learner.ingest.source import Partition

log = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """What all kinds share. The kind is the class."""

    slide: int  # takes effect before the slide of this number


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place in a partition."""

    topic: str
    index: int
    offset: int

    @property
    def partition(self) -> Partition:
        return Partition(self.topic, self.index)

    @classmethod
    def of(cls, partition: Partition, offset: int) -> Position:
        return cls(partition.topic, partition.index, int(offset))


class Start(Entry, frozen=True, tag="start"):
    """Where a new state begins: earliest, latest or a time, resolved to offsets."""

    partitions: tuple[Position, ...]


class PartitionIdle(Entry, frozen=True, tag="partition_idle"):
    """From this slide on the partition no longer holds back the watermark; its position then."""

    partition: Position


class PartitionWoken(Entry, frozen=True, tag="partition_woken"):
    """An idle partition counts again; what it holds for earlier slides is late. Its position then."""

    partition: Position


class PartitionAdded(Entry, frozen=True, tag="partition_added"):
    """A partition appeared in a topic; its first offset. What it holds for earlier slides is late."""

    partition: Position


class End(Entry, frozen=True, tag="end"):
    """Partitions of a bounded log have ended, some of them or all: the offset one past the last record of each."""

    partitions: tuple[Position, ...]


class Gap(Entry, frozen=True, tag="gap"):
    """Offsets lost to the log and skipped by an operator's decision: from `partition.offset` up to `until`."""

    partition: Position
    until: int  # first offset read again


class Rewound(Entry, frozen=True, tag="rewound"):
    """Partitions whose log is another from here on, by an operator's decision: a topic deleted and created again, or a
    log cut back behind what was read. `old` says where each had been read to, `new` where reading goes on."""

    old: tuple[Position, ...]
    new: tuple[Position, ...]


class Command(Entry, frozen=True, tag="command"):
    """An operator command, taken from the inbox (`publishing.commands`)."""

    id: str
    name: str
    arguments: dict[str, int | str | bool | None]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name} {value}" for name, value in self.arguments.items())])


class ConfigChange(Entry, frozen=True, tag="config_change"):
    """Model keys of the config changed by an operator's decision; hashes before and after, and per key the old and the
    new value."""

    before: str
    after: str
    keys: dict[str, tuple[Any, Any]]


class Requeue(Entry, frozen=True, tag="requeue"):
    """Dead letters put back to be decoded again, by their places in the log."""

    records: tuple[Position, ...]


AnyEntry = (
    Start | PartitionIdle | PartitionWoken | PartitionAdded | End | Gap | Rewound | Command | ConfigChange | Requeue
)

_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER: msgspec.json.Decoder[AnyEntry] = msgspec.json.Decoder(AnyEntry)
_CRC = b',"crc32":'


class Journal(ABC):
    """The interface: entries in the order in which they were appended, counted from 0."""

    def __init__(self, entries: list[AnyEntry]) -> None:
        self._entries = entries

    def append(self, entry: AnyEntry) -> None:
        """Makes an entry durable; it may take effect when this returns.

        An entry for a slide before that of the last entry is a `StateError`: the past cannot be changed. While the
        slides up to `last_slide` are worked again after a restore, only what the journal holds may take effect.
        """
        if entry.slide < self.last_slide:
            raise StateError(
                f"a journal entry for slide {entry.slide} comes after one for slide {self.last_slide}: "
                "two workers share this journal, or the snapshot is older than it should be; stop both and restore"
            )
        line = _to_line(entry)
        self._persist(line)
        self._entries.append(entry)

    @property
    def entries(self) -> tuple[AnyEntry, ...]:
        return tuple(self._entries)

    @property
    def length(self) -> int:
        """Number of entries; what a snapshot records as its position."""
        return len(self._entries)

    @property
    def last_slide(self) -> int:
        """The slide of the last entry; -1 when there is none."""
        return self._entries[-1].slide if self._entries else -1

    def from_position(self, position: int) -> tuple[AnyEntry, ...]:
        """Entries appended after the first `position`. A position beyond the end is a `StateError`."""
        if not 0 <= position <= self.length:
            raise StateError(
                f"the snapshot saw {position} journal entries, the journal holds {self.length}: "
                "put the journal back that belongs to this snapshot"
            )
        return tuple(self._entries[position:])

    @abstractmethod
    def _persist(self, line: bytes) -> None:
        """Durable when it returns; raises otherwise."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""


class MemoryJournal(Journal):
    """The in-memory twin: as long-lived as the object."""

    def __init__(self, entries: tuple[AnyEntry, ...] = ()) -> None:
        super().__init__(list(entries))

    def _persist(self, line: bytes) -> None:
        return

    def close(self) -> None:
        return


class FileJournal(Journal):
    """The journal in a file. Opened by one process at a time (the holder of the lease)."""

    def __init__(self, path: Path, fence: Fence = unfenced) -> None:
        self._file = AppendFile(path, fence)
        try:
            content = self._file.read()
            whole = _whole_bytes(content)
            if whole < len(content):
                log.warning("cut off the unfinished last line of %s (%d bytes)", path, len(content) - whole)
                self._file.cut(whole)
            super().__init__(_read_lines(content[:whole], path))
        except StreamLearnerError:
            self._file.close()
            raise

    def _persist(self, line: bytes) -> None:
        self._file.append(line)

    def close(self) -> None:
        self._file.close()


def read_journal(path: Path) -> tuple[AnyEntry, ...]:
    """The entries of a journal that may be in use; an unfinished last line is left out. `StateError` as on opening."""
    content = path.read_bytes() if path.exists() else b""
    return tuple(_read_lines(content[: _whole_bytes(content)], path))


def _to_line(entry: AnyEntry) -> bytes:
    """The line of an entry; what could not be read back is a TypeError, before anything is written."""
    body = _ENCODER.encode(entry)
    try:
        _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise TypeError(f"{entry!r} cannot be journaled: {error}") from error
    return body[:-1] + _CRC + str(zlib.crc32(body)).encode() + b"}\n"


def _whole_bytes(content: bytes) -> int:
    """Length up to the end of the last finished line.

    A last line with NUL bytes is unfinished too: its blocks reached the disk in another order than written. Any
    other damage to a finished line is no torn write, and is left for `_read_lines` to refuse.
    """
    end = content.rfind(b"\n") + 1
    last = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
    return last if b"\0" in content[last:end] else end


def _read_lines(content: bytes, path: Path) -> list[AnyEntry]:
    entries: list[AnyEntry] = []
    for number, line in enumerate(content.splitlines(), start=1):
        body, _, crc = line.rpartition(_CRC)
        body += b"}"
        if crc != str(zlib.crc32(body)).encode() + b"}":
            raise _damaged(path, number, "its checksum does not hold")
        try:
            entry = _DECODER.decode(body)
        except BAD_JSON as error:
            raise _damaged(path, number, f"it was written by another release: {error}") from error
        if entries and entry.slide < entries[-1].slide:
            raise _damaged(path, number, "its slide is before that of the line above")
        entries.append(entry)
    return entries


def _damaged(path: Path, number: int, why: str) -> StateError:
    return StateError(
        f"{path}, line {number}: {why}. The journal decides the model and must never be edited: "
        "restore it from a backup, or start a new state folder"
    )

"""Which files make up which partition.

    events.jsonl                 one file: partition 0 of the only topic
    folder/a.jsonl  b.jsonl      a partition a file, numbered by its name where all names are numbers (0.jsonl,
                                 1.jsonl), else in name order
    folder/0/  folder/1/         a partition a sub-folder, its files read in name order as one log
    folder/<topic>/...           where sub-folders are named like configured topics: one of the above in each

Archived files say themselves which partitions they hold; `archive.json`, which the archive command leaves, spares
looking for them and keeps where each partition began and ended in the original log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from stream_learner.durable import BAD_JSON
from stream_learner.errors import ConfigError, DataError
from stream_learner.ingest.file_rows import (
    LINE_SUFFIXES,
    PARQUET_SUFFIX,
    Offset,
    is_archived,
    rows_known,
    scan_archived,
)
from stream_learner.ingest.source import Partition

INDEX_NAME = "archive.json"
_SUFFIXES = (*LINE_SUFFIXES, PARQUET_SUFFIX)


class Span(msgspec.Struct, frozen=True):
    """Where an archived partition began and ended in its log, and how many records are kept of it."""

    begin: Offset
    end: Offset
    records: Offset


class ArchiveIndex(msgspec.Struct, frozen=True):
    """Contents of `archive.json`: topic -> partition number -> span."""

    topics: dict[str, dict[str, Span]]


@dataclass(frozen=True, slots=True)
class FileLog:
    """The files of one partition, in reading order."""

    partition: Partition
    paths: tuple[Path, ...]
    folder: Path | None  # a sub-folder that is this partition, and may get more files
    archived: bool
    begin: int
    end: int | None  # None = not known before it is read


@dataclass(frozen=True, slots=True)
class _Slot:
    """A file or sub-folder that stands where a partition does."""

    topic: str | None
    number: int
    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        return files_in(self.path) if self.path.is_dir() else (self.path,)


def find_logs(root: Path, topics: Sequence[str]) -> dict[Partition, FileLog]:
    """All partitions of `topics` under `root`, sorted. Raises `ConfigError` where path and topics do not fit."""
    if not root.exists():
        raise ConfigError(f"source.files.path: {root} does not exist")
    index = _index(root / INDEX_NAME)
    logs: dict[Partition, FileLog] = {}
    for slot in _slots(root, topics):
        for log in _logs_of(slot, index, root):
            known = logs.get(log.partition)
            logs[log.partition] = log if known is None else _joined(known, log)
    found = {partition: log for partition, log in sorted(logs.items()) if partition.topic in topics}
    if not found:
        raise ConfigError(
            f"source.files.path: {root} holds no partition of {', '.join(topics)}; looked for {', '.join(_SUFFIXES)}"
        )
    return found


def files_in(folder: Path) -> tuple[Path, ...]:
    """Readable files of a folder in name order; hidden and temporary ones are not looked at."""
    return tuple(path for path in _children(folder) if path.is_file())


def _children(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    return [path for path in paths if path.is_dir() or (path.name.endswith(_SUFFIXES) and path.name != INDEX_NAME)]


def _slots(root: Path, topics: Sequence[str]) -> list[_Slot]:
    only = topics[0] if len(topics) == 1 else None
    if root.is_file():
        if not root.name.endswith(_SUFFIXES):
            raise ConfigError(f"source.files.path: {root} is none of {', '.join(_SUFFIXES)}")
        return [_Slot(only, 0, root)]
    named = [topic for topic in topics if (root / topic).is_dir()]
    if not named:
        return _numbered(root, only)
    missing = sorted(set(topics) - set(named))
    if missing:
        raise ConfigError(f"source.files.path: {root} has a folder for {named[0]}, but none for {', '.join(missing)}")
    return [slot for topic in named for slot in _numbered(root / topic, topic)]


def _numbered(folder: Path, topic: str | None) -> list[_Slot]:
    children = _children(folder)
    stems = [path.name.split(".")[0] for path in children]
    if all(stem.isascii() and stem.isdigit() and int(stem) < 2**31 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) < len(numbers):
            raise ConfigError(f"source.files.path: two entries of {folder} have the same partition number")
        return [_Slot(topic, number, path) for number, path in sorted(zip(numbers, children, strict=True))]
    return [_Slot(topic, number, path) for number, path in enumerate(children)]


def _logs_of(slot: _Slot, index: ArchiveIndex | None, root: Path) -> list[FileLog]:
    span = _indexed(slot, index)
    if span is not None:
        partition = Partition(str(slot.topic), slot.number)
        return [FileLog(partition, slot.paths, None, True, span.begin, span.end)]
    if any(is_archived(path) for path in slot.paths):
        return _archived_logs(slot.paths) or _empty(slot)
    if slot.topic is None:
        raise ConfigError(
            f"source.files.path: {slot.path} does not say which topic its rows belong to: make a sub-folder of {root} "
            "for each topic, named like it"
        )
    counts = [rows_known(path) for path in slot.paths]
    end = None if None in counts else sum(count or 0 for count in counts)
    folder = slot.path if slot.path.is_dir() else None
    return [FileLog(Partition(slot.topic, slot.number), slot.paths, folder, False, 0, end)]


def _archived_logs(paths: Sequence[Path]) -> list[FileLog]:
    logs: dict[Partition, FileLog] = {}
    for path in paths:
        spans: dict[Partition, tuple[int, int]] = {}
        for partition, offsets, _ in scan_archived(path):
            begin, end = spans.get(partition, (int(offsets[0]), int(offsets[0])))
            if offsets[0] < end or (np.diff(offsets) <= 0).any():
                raise DataError(f"{partition}: offsets do not ascend in {path}")
            spans[partition] = (begin, int(offsets[-1]) + 1)
        for partition, (begin, end) in spans.items():
            log = FileLog(partition, (path,), None, True, begin, end)
            logs[partition] = _joined(logs[partition], log) if partition in logs else log
    return list(logs.values())


def _empty(slot: _Slot) -> list[FileLog]:
    """An archived file without rows is a partition without records, where its place says which."""
    if slot.topic is None:
        return []
    return [FileLog(Partition(slot.topic, slot.number), slot.paths, None, True, 0, 0)]


def _joined(first: FileLog, second: FileLog) -> FileLog:
    """One log over the files of both: an archived partition may lie in several."""
    if not (first.archived and second.archived):
        raise ConfigError(f"source.files.path: {first.partition} is in {first.paths[0]} and in {second.paths[0]}")
    if first.end is not None and second.begin < first.end:
        raise DataError(
            f"{first.partition}: offsets do not ascend from {first.paths[-1]} to {second.paths[0]}: "
            "files of one partition are read in name order"
        )
    return FileLog(first.partition, (*first.paths, *second.paths), None, True, first.begin, second.end)


def _indexed(slot: _Slot, index: ArchiveIndex | None) -> Span | None:
    if index is None or slot.topic is None:
        return None
    return index.topics.get(slot.topic, {}).get(str(slot.number))


def _index(path: Path) -> ArchiveIndex | None:
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=ArchiveIndex)
    except (OSError, *BAD_JSON) as error:
        raise ConfigError(f"{path} is not the index of an archive: {error}") from error

"""Quarantined examples on disk: a file per broken slide that only grows, as long as the snapshot says.

    <folder>/slide-000000000008.examples       frames of (length, CRC-32, the columns as .npy one after the other)
    <folder>/slide-000000000008.1.examples     the same without what was erased since: its next edition

A restore cuts every file to the length its snapshot recorded, and a slide worked again appends the same bytes again.
A file given up stays until no kept snapshot names it, so that a restore from any of them finds what it needs.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stream_learner.durable import AppendFile, Fence, make_folder, storage_errors, unfenced
from stream_learner.errors import StateError
from stream_learner.events import ExampleBatch

_FRAME = struct.Struct("<QI")
_NAME = re.compile(r"slide-(\d{12,})(?:\.(\d+))?\.examples")
_OPEN_FILES = 8  # examples mature in order of their clicks, so that few files grow at a time
_COLUMNS = tuple(field.name for field in fields(ExampleBatch))


class Kept(NamedTuple):
    """Names a file."""

    slide: int  # number
    edition: int = 0


class KeptExamples:
    """The files. `append` and `read` are for the slide thread, `prune` is for the writer's."""

    def __init__(self, folder: Path, snapshots: int, fence: Fence = unfenced) -> None:
        """`snapshots`: how many are kept."""
        self._folder = folder
        self._fence = fence
        self._open: dict[Kept, AppendFile] = {}
        self._named: deque[frozenset[Kept]] = deque(maxlen=snapshots)  # by each kept snapshot, as far as known
        make_folder(folder)

    def append(self, which: Kept, examples: ExampleBatch) -> int:
        """Puts examples behind those of the slide; the file's length in bytes, on the disk."""
        file = self._file(which)
        file.append(_framed(examples))
        return file.size_bytes

    def frame_bytes(self, examples: ExampleBatch) -> int:
        """What `append` would add to a file."""
        return len(_framed(examples))

    def read(self, which: Kept, size_bytes: int) -> ExampleBatch:
        """All examples in the first `size_bytes` of a slide's file. StateError where they are not as written."""
        return read_examples(kept_path(self._folder, which), size_bytes)

    def finish(self, which: Kept) -> None:
        """Nothing more will be appended to this file."""
        if (file := self._open.pop(which, None)) is not None:
            file.close()

    def restore(self, growing: Mapping[Kept, int], finished: Iterable[Kept]) -> None:
        """Back to a snapshot: files that may grow on are cut to their length in bytes, those it does not know go."""
        self.close()
        known = {*growing, *finished}
        for which, path in self._paths().items():
            if which not in known or growing.get(which) == 0:
                self._remove(path)
        for which, size_bytes in growing.items():
            if size_bytes:
                self._file(which).cut(size_bytes)
        self._named.clear()
        self._named.append(frozenset(self._paths()))

    def prune(self, named: Iterable[Kept]) -> list[str]:
        """A snapshot that names these files was written: removes those that no kept one names any more. Returns what
        failed."""
        gone = self._named[0] if len(self._named) == self._named.maxlen else frozenset()
        self._named.append(frozenset(named))
        failures = []
        for path in (kept_path(self._folder, which) for which in sorted(gone.difference(*self._named))):
            try:
                self._fence()
                path.unlink(missing_ok=True)
            except OSError as error:
                failures.append(f"cannot remove {path}: {error.strerror}")
        return failures

    def close(self) -> None:
        for which in list(self._open):
            self.finish(which)

    def _file(self, which: Kept) -> AppendFile:
        if which not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self.finish(min(self._open))
            self._open[which] = AppendFile(kept_path(self._folder, which), self._fence)
        return self._open[which]

    def _paths(self) -> dict[Kept, Path]:
        with storage_errors(self._folder, "list"):
            named = [(_NAME.fullmatch(path.name), path) for path in self._folder.iterdir()]
        return {Kept(int(match[1]), int(match[2] or 0)): path for match, path in named if match is not None}

    def _remove(self, path: Path) -> None:
        self._fence()
        with storage_errors(path, "remove"):
            path.unlink()


def kept_path(folder: Path, which: Kept) -> Path:
    edition = f".{which.edition}" if which.edition else ""
    return folder / f"slide-{which.slide:012d}{edition}.examples"


def read_examples(path: Path, size_bytes: int) -> ExampleBatch:
    """All examples in the first `size_bytes` of a file. StateError where they are not as written."""
    try:
        with path.open("rb") as file:
            content = file.read(size_bytes)
        if len(content) != size_bytes or not size_bytes:
            raise ValueError(f"it has {len(content)} of {size_bytes} bytes")
        return ExampleBatch.concat(list(_unframed(content)))
    except (OSError, ValueError, struct.error) as error:
        raise StateError(
            f"{path} is not as it was written ({error}): put the right file back, or restore the whole state folder "
            "from one backup"
        ) from error


def _framed(examples: ExampleBatch) -> bytes:
    body = io.BytesIO()
    for name in _COLUMNS:
        np.save(body, getattr(examples, name), allow_pickle=False)
    content = body.getvalue()
    return _FRAME.pack(len(content), zlib.crc32(content)) + content


def _unframed(content: bytes) -> Iterable[ExampleBatch]:
    at = 0
    while at < len(content):
        length, crc = _FRAME.unpack_from(content, at)
        body = content[at + _FRAME.size : at + _FRAME.size + length]
        if len(body) != length or zlib.crc32(body) != crc:
            raise ValueError(f"the frame at byte {at} does not match its checksum")
        stream = io.BytesIO(body)
        yield ExampleBatch(**{name: np.load(stream, allow_pickle=False) for name in _COLUMNS})
        at += _FRAME.size + length

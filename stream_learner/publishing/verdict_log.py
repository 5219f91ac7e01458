"""`verdicts.jsonl`: every answer of the gate, with the numbers it used, and every slide that went into quarantine or
was requeued; a JSON object per line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from stream_learner.durable import BAD_JSON, AppendFile, Fence, canonical_json, unfenced
from stream_learner.errors import StateError
from stream_learner.publishing.manifest import Manifest

_TAIL_BYTES = 4 << 20
OF_SLIDES = ("quarantined", "requeued")  # what a line's `verdict` says that is of a slide, not of the gate


class _Answer(msgspec.Struct):
    """What is told of a verdict beside the list of versions."""

    kind: str
    slide_end: int
    passed: bool
    reason: str
    model: str | None = None


class VerdictLog:
    """Appends are on the disk when they return. A restore cuts the log to the length its snapshot recorded, so that
    the slides worked again do not appear twice."""

    def __init__(self, path: Path, fence: Fence = unfenced) -> None:
        self._file = AppendFile(path, fence)

    def append(self, verdict: dict[str, Any]) -> None:
        """One verdict; finite numbers only (ValueError otherwise). A failed disk is a `RetryableError`."""
        self._file.append(canonical_json(verdict) + b"\n")

    @property
    def length(self) -> int:
        """In bytes."""
        return self._file.size_bytes

    def cut(self, length: int) -> None:
        """Drops what lies beyond `length` bytes. A shorter log, or no line ending there, is a `StateError`."""
        if 0 < length <= self.length and self._file.read()[length - 1 : length] != b"\n":
            raise StateError(f"{self._file.path} has no line that ends at byte {length}: put the right file back")
        self._file.cut(length)

    def close(self) -> None:
        self._file.close()


def rolled_back(slide: int, slide_end: int, served: Manifest) -> dict[str, Any]:
    """The line that tells of an operator's rollback; `served`: the older version under its new number."""
    reason = f"rolled back: version {served.rollback_of} is served again, as version {served.version}, by an operator"
    return {"kind": "rollback", "slide": slide, "slide_end": slide_end, "reason": reason, "parent": served.parent}


def pinned(slide: int, slide_end: int, version: int, *, kept: bool) -> dict[str, Any]:
    """The line that tells that an operator pinned a version, or let it go again."""
    kind, what = ("pin", "is never pruned") if kept else ("unpin", "may be pruned again")
    told = {"kind": kind, "slide": slide, "slide_end": slide_end, "version": version}
    return {**told, "reason": f"{kind}ned: version {version} {what}"}


def read_verdicts(path: Path) -> list[dict[str, Any]]:
    """The gate's verdicts in a log that may be in use, as `read_log`."""
    return [line for line in read_log(path) if line.get("verdict") not in OF_SLIDES]


def newest_verdict(path: Path, model: str, first: str) -> dict[str, Any] | None:
    """Of the gate's newest answer about a model slide_end (us), passed and reason; None = there is none in the last 4
    MiB of the log, which may be in use. What is no verdict is passed over: versions are listed whatever the log is.
    `first`: the model of the first task, whose lines name none."""
    if not path.exists():
        return None
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(size - _TAIL_BYTES, 0))
        finished = log.read().split(b"\n")[:-1]
    for line in reversed(finished):
        try:
            told = msgspec.json.decode(line, type=_Answer)
        except BAD_JSON:
            continue
        if told.kind == "verdict" and (told.model or first) == model:
            return {"slide_end": told.slide_end, "passed": told.passed, "reason": told.reason}
    return None


def read_log(path: Path) -> list[dict[str, Any]]:
    """All finished lines of a log that may be in use, oldest first; an unfinished last line is left out.

    A finished line that is no verdict is a `StateError`.
    """
    content = path.read_bytes() if path.exists() else b""
    finished = content[: content.rfind(b"\n") + 1]
    return [_verdict(line, path, number) for number, line in enumerate(finished.split(b"\n")[:-1], start=1)]


def _verdict(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        verdict = json.loads(line)
    except BAD_JSON as error:
        raise StateError(f"{path}, line {number}: no verdict ({error}); put the right file back") from error
    if not isinstance(verdict, dict):
        raise StateError(f"{path}, line {number}: no verdict, but {line[:40]!r}; put the right file back")
    return verdict

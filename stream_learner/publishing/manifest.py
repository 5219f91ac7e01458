"""What a version says about itself: `manifest.json`, and the champion pointer.

Both are functions of log, journal, config, seed and machine: no clock is read, so a replay writes the same bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

FORMAT = 1


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a stored file."""


class LearnedRange(_Stored, frozen=True, kw_only=True):
    """First and last offset of a partition in the slides up to this version, since the state began, both included."""

    topic: str
    index: int
    first: int
    last: int


class Machine(_Stored, frozen=True, kw_only=True):
    """What equal checksums depend on beside the libraries."""

    cpu_features: list[str]
    threads: int


class FileSum(_Stored, frozen=True, kw_only=True):
    """One file of a version; `size` in bytes."""

    sha256: str
    size: int


class DeltaOf(_Stored, frozen=True, kw_only=True):
    """What `delta.npz` leads from: the version before, by number and content. Its own checksum is among `files`."""

    parent: int
    content_sha256: str


class Manifest(_Stored, frozen=True, kw_only=True):
    """A published version. Times in microseconds since the epoch."""

    model: str
    version: int
    parent: int | None  # the champion it followed; None for the first
    rollback_of: int | None = None  # the older version whose files these are
    challenger: str | None = None  # whose model it is, of the config's `challengers`; None = the config's own
    slide: int  # number of the slide after which it was taken
    slide_end_us: int
    event_time_span: tuple[int, int] | None  # first and last event time of those slides
    offsets: list[LearnedRange]
    gaps: list[dict[str, Any]] = []  # where the log had lost records (`Tally.lost`), since the state began
    quarantined: list[dict[str, Any]] = []  # slides found broken since the last version, with span and reason
    metrics: dict[str, Any]  # auc, normalized_entropy, calibration, ... of the gate's evidence; nested for more
    verdict: dict[str, Any]
    config_hash: str  # of the model keys
    seed: int
    content_sha256: str  # of variables and tables, before they were written
    signature: dict[str, Any]  # inputs and outputs of the served signature
    libraries: dict[str, str]
    machine: Machine
    delta: DeltaOf | None = None  # None: whoever follows reads the variables whole
    files: dict[str, FileSum] = {}  # by path relative to the version; filled in by `Checkpoints.publish`
    format: int = FORMAT


class Pointer(_Stored, frozen=True, kw_only=True):
    """`champion.json`: the version in service."""

    version: int
    content_sha256: str


_ENCODER = msgspec.json.Encoder(order="deterministic")


def to_json(stored: Manifest | Pointer) -> bytes:
    """Indented JSON with the keys of dicts sorted. A NaN becomes null."""
    return msgspec.json.format(_ENCODER.encode(stored), indent=2) + b"\n"


def manifest_from(content: bytes) -> Manifest:
    """The manifest in a file; one of `durable.BAD_JSON` when it is none, or of another format."""
    manifest = msgspec.json.decode(content, type=Manifest)
    if manifest.format != FORMAT:
        raise ValueError(f"manifest format {manifest.format}, this release reads {FORMAT}")
    return manifest


def pointer_from(content: bytes) -> Pointer:
    """The pointer in a file; one of `durable.BAD_JSON` when it is none."""
    return msgspec.json.decode(content, type=Pointer)

"""The files of one snapshot, and the arrays in them.

    arrays.bin      every array captured whole, raw little-endian, C order, 64-byte aligned
    rows.bin        of arrays captured by their changes: the rows and what they hold; or, merged, all of the array
    link-000.bin    and so on: rows.bin (or arrays.bin) of earlier snapshots, as hard links: what the changes build on,
                    oldest first
    state.json      the nested dict, with {"__array__": n} where an array was
    manifest.json   format, slide, token, head, SHA-256 and size of every file, the pieces of each array

An array is made of pieces: the first covers it from its first row on, each later one replaces rows or adds some. The
manifest carries its own SHA-256 and must be spelled exactly as it was written, so a flipped bit anywhere shows. That
envelope ({"format", ..., "sha256"} in canonical JSON) is the same in every format version.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64, Changed, resized
from stream_learner.durable import canonical_json, sha256_file, storage_errors
from stream_learner.errors import StateError
from stream_learner.snapshot_tree import from_dtype, to_dtype

FORMAT = 2

ARRAYS, ROWS, STATE, MANIFEST = "arrays.bin", "rows.bin", "state.json", "manifest.json"
FOREIGN = (ValueError, TypeError, LookupError, AttributeError, SyntaxError, OverflowError, RecursionError)

_ALIGNMENT_BYTES = 64

Sums = dict[str, dict[str, Any]]  # file -> {"sha256", "size"}


class NotWholeError(Exception):
    """The files are not those that were written."""


@dataclass(frozen=True)
class Piece:
    """Rows of an array in one file: `count` of them at `offset`, their numbers (int64) at `rows`; None = 0, 1, ..."""

    file: str
    offset: int
    count: int
    rows: int | None = None


@dataclass(frozen=True)
class Stored:
    """An array in the files of a snapshot. `name` is its place in the state, `shape` the shape it has now."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    def row_bytes(self) -> int:
        return to_dtype(self.dtype).itemsize * math.prod(self.shape[1:])

    def size_bytes(self, piece: Piece) -> int:
        """What a piece takes in its file, the numbers of its rows included."""
        return piece.count * (self.row_bytes() + (0 if piece.rows is None else 8))

    def to_json(self) -> dict[str, Any]:
        pieces = [[p.file, p.offset, p.count, p.rows] for p in self.pieces]
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "pieces": pieces}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Stored:
        pieces = tuple(Piece(str(f), int(o), int(c), None if r is None else int(r)) for f, o, c, r in value["pieces"])
        return cls(value["name"], value["dtype"], tuple(int(n) for n in value["shape"]), pieces)


class ArrayFile:
    """A file of arrays, written from its start to its end."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._offset = 0
        self._numbers: dict[int, tuple[I64, int]] = {}  # row numbers that stand in the file, by identity

    def put(self, name: str, array: NDArray[Any]) -> Stored:
        """A whole array."""
        piece = Piece(self._name, self._write(array), len(array) if array.ndim else 1)
        return Stored(name, from_dtype(array.dtype), array.shape, (piece,))

    def put_changes(self, name: str, changed: Changed, before: Stored) -> Stored:
        """What changed of an array that stood at `before`."""
        shape = (changed.height, *changed.values.shape[1:])
        if (before.dtype, before.shape[1:]) != (from_dtype(changed.values.dtype), shape[1:]):
            raise TypeError(f"state at {name}: {changed.values.dtype} {shape}, before {before.dtype} {before.shape}")
        if not len(changed.rows):
            return replace(before, shape=shape)
        if id(changed.rows) not in self._numbers:  # a table and its slots share them
            self._numbers[id(changed.rows)] = changed.rows, self._write(changed.rows)
        rows = self._numbers[id(changed.rows)][1]
        piece = Piece(self._name, self._write(changed.values), len(changed.rows), rows)
        return replace(before, shape=shape, pieces=(*before.pieces, piece))

    def close(self) -> dict[str, Any]:
        self._file.close()
        return {"sha256": self._digest.hexdigest(), "size": self._offset}

    def _write(self, array: NDArray[Any]) -> int:
        """Where it was put."""
        at = self._offset
        raw = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
        for part in (raw, bytes(-len(raw) % _ALIGNMENT_BYTES)):
            self._file.write(part)
            self._digest.update(part)
            self._offset += len(part)
        return at


@contextmanager
def array_file(path: Path, sums: Sums) -> Iterator[ArrayFile]:
    """An `ArrayFile` that notes its checksum in `sums` when it is done."""
    file = ArrayFile(path)
    try:
        yield file
    finally:
        sums[path.name] = file.close()


def read_array(folder: Path, stored: Stored) -> NDArray[Any]:
    """Puts an array together again. `NotWholeError` when the pieces do not lie in their files or leave rows open."""
    dtype, shape = to_dtype(stored.dtype), stored.shape
    height = shape[0] if shape else 1
    if not stored.pieces or stored.pieces[0].rows is not None or sum(p.count for p in stored.pieces) < height:
        raise NotWholeError(f"{stored.name} has rows that are in none of the files")
    for piece in stored.pieces:
        _require_inside(folder, piece, stored, piece.offset, stored.row_bytes())
        if piece.rows is not None:
            _require_inside(folder, piece, stored, piece.rows, 8)
    array = _read_rows(folder, stored.pieces[0], dtype, shape[1:])
    held = min(len(array), height)  # rows that hold something
    array = resized(array, height)
    for piece in stored.pieces[1:]:
        if piece.rows is None:
            raise NotWholeError(f"{stored.name} begins twice")
        values = _read_rows(folder, piece, dtype, shape[1:])
        numbers = np.fromfile(folder / piece.file, np.int64, count=piece.count, offset=piece.rows)
        values, numbers = values[numbers < height], numbers[numbers < height]
        held = _covered(numbers, held, stored)
        array[numbers] = values
    if held < height:
        raise NotWholeError(f"{stored.name} has rows that are in none of the files")
    return array.reshape(shape)


def _require_inside(folder: Path, piece: Piece, stored: Stored, offset: int, row_bytes: int) -> None:
    """Before memory is asked for it."""
    if min(offset, piece.count) < 0 or offset + piece.count * row_bytes > (folder / piece.file).stat().st_size:
        raise NotWholeError(f"{piece.file} ends within {stored.name}")


def _read_rows(folder: Path, piece: Piece, dtype: np.dtype[Any], row: tuple[int, ...]) -> NDArray[Any]:
    count = piece.count * dtype.itemsize * math.prod(row)
    raw = np.fromfile(folder / piece.file, np.uint8, count=count, offset=piece.offset)
    return raw.view(dtype).reshape(piece.count, *row) if count else np.empty((piece.count, *row), dtype)


def _covered(rows: I64, held: int, stored: Stored) -> int:
    """Up to where rows are held after `rows` (ascending) were written: those beyond must follow without a gap."""
    if len(rows) and (rows[0] < 0 or (np.diff(rows) <= 0).any()):
        raise NotWholeError(f"{stored.name} has rows out of order")
    beyond = rows[rows >= held]
    if len(beyond) and beyond[-1] != held + len(beyond) - 1:
        raise NotWholeError(f"{stored.name} has rows that are in none of the files")
    return held + len(beyond)


def write_manifest(folder: Path, content: dict[str, Any]) -> int:
    """Adds format and checksum. Returns the size in bytes."""
    content = {"format": FORMAT, **content}
    spelled = canonical_json({**content, "sha256": hashlib.sha256(canonical_json(content)).hexdigest()})
    (folder / MANIFEST).write_bytes(spelled)
    return len(spelled)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Checked against its own checksum. Another format is a `StateError`."""
    path = folder / MANIFEST
    if not path.is_file():
        raise NotWholeError(f"{path.name} is missing")
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        manifest = json.loads(content)
        claimed = manifest.pop("sha256")
        whole = hashlib.sha256(canonical_json(manifest)).hexdigest() == claimed
        if not whole or canonical_json({**manifest, "sha256": claimed}) != content:
            raise NotWholeError(f"{path.name} does not match its checksum")
        written_as = manifest["format"]
    except FOREIGN as error:
        raise NotWholeError(f"{path.name} is not readable: {error}") from error
    if written_as != FORMAT:
        raise StateError(
            f"{folder} has snapshot format {written_as}, this release reads {FORMAT}: run the release "
            "that wrote it, or start a new state folder"
        )
    return dict(manifest)


def verify(path: Path, expected: dict[str, Any]) -> None:
    """`NotWholeError` unless the file is there with that size and checksum."""
    if not path.is_file():
        raise NotWholeError(f"{path.name} is missing")
    size = path.stat().st_size
    if size != expected["size"]:
        raise NotWholeError(f"{path.name} has {size} bytes instead of {expected['size']}")
    if sha256_file(path) != expected["sha256"]:
        raise NotWholeError(f"{path.name} does not match its checksum")

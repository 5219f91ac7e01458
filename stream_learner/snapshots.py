"""Snapshots: the worker's whole recovery state, atomic and checked.

    <folder>/slide-000000000123-000007/arrays.bin   every numpy leaf, raw little-endian, C order, 64-byte aligned
                                       state.json   the nested dict, with {"__array__": n} where a numpy leaf was
                                       manifest.json  format, slide, token, head, SHA-256 and size of both files,
                                                      place of each array

The name holds the slide and the token of the lease under which it was written; newer is what has the higher token,
then the higher slide, so what an earlier holder of the lease may still write is never taken for the newest.

The folder is written under a temporary name, fsynced, manifest last, then renamed and its parent fsynced. The
manifest carries its own SHA-256 and must be spelled exactly as it was written, so a flipped bit anywhere shows. That
envelope ({"format", ..., "sha256"} in canonical JSON) is the same in every format version.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stream_learner.durable import (
    DOOMED,
    TEMPORARY,
    Fence,
    canonical_json,
    fsync_tree,
    make_folder,
    recover_folder,
    remove,
    rename_dir,
    sha256_file,
    storage_errors,
    unfenced,
)
from stream_learner.errors import RetryableError, StateError

FORMAT = 1

_ARRAY = "__array__"
_ALIGNMENT_BYTES = 64
_NAME = re.compile(r"slide-(\d{12})-(\d{6,18})")
_FILES = ("arrays.bin", "state.json")
_FOREIGN = (ValueError, TypeError, LookupError, AttributeError, SyntaxError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as read back. `state` holds fresh, writable arrays."""

    slide: int
    head: dict[str, Any]
    state: dict[str, Any]
    path: Path


@dataclass(frozen=True)
class SnapshotInfo:
    """A snapshot as written."""

    slide: int
    path: Path
    size_bytes: int


@dataclass(frozen=True)
class Rejected:
    """A snapshot that is not whole, and why."""

    path: Path
    reason: str


class Snapshots:
    """The snapshots of one state folder, oldest to newest by token and slide number.

    Made only by the holder of the lease, whose token and fence are given: what an earlier writer left unfinished is
    cleared at once.
    """

    def __init__(self, folder: Path, keep: int, *, token: int = 0, fence: Fence = unfenced) -> None:
        self._folder = folder
        self._keep = keep
        self._token = token
        self._fence = fence
        self.rejected: list[Rejected] = []
        make_folder(folder)
        recover_folder(folder, fence)

    def write(self, slide: int, state: dict[str, Any], head: dict[str, Any]) -> SnapshotInfo:
        """Makes `state` durable under the number of the slide it stands after; an older one of that number goes.

        Leaves may be numpy arrays (any dtype but object), numpy scalars, int, float, str, bool, None, lists and
        nested dicts with string keys; anything else is a TypeError that names its place. `head` is JSON. A disk
        that fails is a `RetryableError` and leaves nothing behind.
        """
        final = self._folder / f"slide-{slide:012d}-{self._token:06d}"
        temporary = self._folder / f"{TEMPORARY}{final.name}"
        arrays: list[tuple[str, NDArray[Any]]] = []
        tree = _split(state, "", arrays)
        with storage_errors(final, "write"):
            try:
                remove(temporary)  # of an attempt whose cleaning failed too
                temporary.mkdir()
                size_bytes = _write_files(temporary, (slide, self._token), head, tree, arrays)
                fsync_tree(temporary)
                self._fence()
                rename_dir(temporary, final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        self.rejected = [r for r in self.rejected if r.path != final]
        return SnapshotInfo(slide, final, size_bytes)

    def latest(self) -> Snapshot | None:
        """The newest whole snapshot; None when there is none at all. Newer ones that are not whole: `rejected`.

        Snapshots that exist but are all damaged are a `StateError` (starting afresh unasked would look like a
        restore), and so is one of another format version. An unreadable disk is a `RetryableError`.
        """
        self.rejected = []
        for path in reversed(self._paths()):
            try:
                return _read(path)
            except _NotWholeError as error:
                self.rejected.append(Rejected(path, str(error)))
        if self.rejected:
            reasons = "; ".join(f"{r.path.name}: {r.reason}" for r in self.rejected)
            raise StateError(
                f"no snapshot in {self._folder} is whole ({reasons}): restore the folder from a backup, or remove it "
                "and keep the journal, to learn again from the start of the log"
            )
        return None

    def prune(self) -> list[str]:
        """Keeps the newest `keep` whole snapshots and removes the rest, rejected ones too. Returns what failed."""
        rejected = {r.path for r in self.rejected}
        whole = [path for path in self._paths() if path not in rejected]
        if not whole:
            return []
        failures = []
        for path in [*sorted(rejected), *whole[: -self._keep]]:
            try:
                # Under its own name a half-removed snapshot would count as a damaged one at the next start.
                self._fence()
                doomed = path.rename(path.with_name(f"{DOOMED}{path.name}"))
                shutil.rmtree(doomed)
            except OSError as error:
                failures.append(f"cannot remove {path}: {error.strerror}")
            except RetryableError as error:
                failures.append(str(error))
        self.rejected = [r for r in self.rejected if r.path.exists()]
        return failures

    def _paths(self) -> list[Path]:
        with storage_errors(self._folder, "list"):
            named = [(_place(path), path) for path in self._folder.iterdir() if path.is_dir()]
        return [path for _, path in sorted((place, path) for place, path in named if place is not None)]


def newest_token(folder: Path) -> int:
    """The highest token of any snapshot in the folder; 0 when there is none."""
    with storage_errors(folder, "list"):
        places = [_place(path) for path in folder.iterdir()] if folder.is_dir() else []
    return max((place[0] for place in places if place is not None), default=0)


def _place(path: Path) -> tuple[int, int] | None:
    """Token and slide of a snapshot by its name; None for any other name."""
    match = _NAME.fullmatch(path.name)
    return None if match is None else (int(match[2]), int(match[1]))


class _NotWholeError(Exception):
    """The files are not those that were written."""


def _split(value: Any, place: str, arrays: list[tuple[str, NDArray[Any]]]) -> Any:
    """The JSON form of a state; its arrays are appended to `arrays` with their place ("learner/table/user")."""
    if isinstance(value, np.ndarray):
        arrays.append((place, _storable(value, place)))
        return {_ARRAY: len(arrays) - 1}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
        return value
    if isinstance(value, (int, float)):  # Duration and the like come back as plain numbers
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, list):
        return [_split(inner, f"{place}/{i}", arrays) for i, inner in enumerate(value)]
    if isinstance(value, dict):
        if not all(isinstance(key, str) and key != _ARRAY for key in value):
            raise TypeError(f"state at {place or '/'}: keys must be strings other than {_ARRAY!r}: {list(value)[:5]}")
        return {key: _split(inner, f"{place}/{key}".lstrip("/"), arrays) for key, inner in value.items()}
    raise TypeError(f"state at {place or '/'}: a {type(value).__name__} cannot be stored")


def _join(value: Any, arrays: list[NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_join(inner, arrays) for inner in value]
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        return {key: _join(inner, arrays) for key, inner in value.items()}
    return value


def _storable(array: NDArray[Any], place: str) -> NDArray[Any]:
    """C order, little-endian; a dtype that its own description does not give back (object, bfloat16) is refused."""
    little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    if little.dtype.hasobject or _to_dtype(_from_dtype(little.dtype)) != little.dtype:
        raise TypeError(f"state at {place}: arrays of dtype {array.dtype} cannot be stored")
    return little


def _from_dtype(dtype: np.dtype[Any]) -> str:
    return repr(np.lib.format.dtype_to_descr(dtype))


def _to_dtype(text: str) -> np.dtype[Any]:
    return np.lib.format.descr_to_dtype(ast.literal_eval(text))


def _write_files(
    folder: Path,
    place: tuple[int, int],
    head: dict[str, Any],
    tree: Any,
    arrays: list[tuple[str, NDArray[Any]]],
) -> int:
    """All three files, unsynced. Returns their size in bytes."""
    with (folder / "arrays.bin").open("wb") as file:
        places, arrays_sum = _write_arrays(file, arrays)
    state = json.dumps(tree, separators=(",", ":")).encode()  # NaN and Infinity are spelled so; floats by repr
    (folder / "state.json").write_bytes(state)
    files = {"arrays.bin": arrays_sum, "state.json": {"sha256": hashlib.sha256(state).hexdigest(), "size": len(state)}}
    slide, token = place
    manifest = {"format": FORMAT, "slide": slide, "token": token, "head": head, "files": files, "arrays": places}
    manifest["sha256"] = hashlib.sha256(canonical_json(manifest)).hexdigest()
    content = canonical_json(manifest)
    (folder / "manifest.json").write_bytes(content)
    return int(arrays_sum["size"]) + len(state) + len(content)


def _write_arrays(
    file: BinaryIO, arrays: list[tuple[str, NDArray[Any]]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    digest, offset, places = hashlib.sha256(), 0, []
    for name, array in arrays:
        places.append({"name": name, "dtype": _from_dtype(array.dtype), "shape": list(array.shape), "offset": offset})
        raw = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
        padding = bytes(-len(raw) % _ALIGNMENT_BYTES)
        for part in (raw, padding):
            file.write(part)
            digest.update(part)
        offset += len(raw) + len(padding)
    return places, {"sha256": digest.hexdigest(), "size": offset}


def _read(path: Path) -> Snapshot:
    """A verified snapshot; `_NotWholeError` says which file is damaged."""
    manifest = _read_manifest(path / "manifest.json")
    if _place(path) != (manifest.get("token"), manifest.get("slide")):
        raise _NotWholeError("manifest.json is of another snapshot")
    try:
        for name in _FILES:
            _verify(path / name, manifest["files"][name])
        with storage_errors(path, "read"):
            tree = json.loads((path / "state.json").read_bytes())
            arrays = [_read_array(path / "arrays.bin", place) for place in manifest["arrays"]]
        return Snapshot(manifest["slide"], manifest["head"], _join(tree, arrays), path)
    except _FOREIGN as error:
        raise _NotWholeError(f"it was not written by this program: {type(error).__name__}: {error}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise _NotWholeError(f"{path.name} is missing")
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        manifest = json.loads(content)
        claimed = manifest.pop("sha256")
        whole = hashlib.sha256(canonical_json(manifest)).hexdigest() == claimed
        if not whole or canonical_json({**manifest, "sha256": claimed}) != content:
            raise _NotWholeError(f"{path.name} does not match its checksum")
        written_as = manifest["format"]
    except _FOREIGN as error:
        raise _NotWholeError(f"{path.name} is not readable: {error}") from error
    if written_as != FORMAT:
        raise StateError(
            f"{path.parent} has snapshot format {written_as}, this release reads {FORMAT}: run the release "
            "that wrote it, or start a new state folder"
        )
    return dict(manifest)


def _verify(path: Path, expected: dict[str, Any]) -> None:
    if not path.is_file():
        raise _NotWholeError(f"{path.name} is missing")
    size = path.stat().st_size
    if size != expected["size"]:
        raise _NotWholeError(f"{path.name} has {size} bytes instead of {expected['size']}")
    if sha256_file(path) != expected["sha256"]:
        raise _NotWholeError(f"{path.name} does not match its checksum")


def _read_array(path: Path, place: dict[str, Any]) -> NDArray[Any]:
    dtype, shape = _to_dtype(place["dtype"]), tuple(place["shape"])
    if place["offset"] + dtype.itemsize * math.prod(shape) > path.stat().st_size:  # before memory is asked for it
        raise _NotWholeError(f"{path.name} ends within {place['name']}")
    array: NDArray[Any] = np.empty(shape, dtype)
    if array.nbytes:
        raw = np.fromfile(path, np.uint8, count=array.nbytes, offset=place["offset"])
        array = raw.view(dtype).reshape(shape)
    return array

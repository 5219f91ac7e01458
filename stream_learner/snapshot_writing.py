"""Writing the files of a snapshot: whole arrays, what changed of others, and links to what that builds on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stream_learner.changes import Changed
from stream_learner.errors import StateError
from stream_learner.snapshot_files import (
    ARRAYS,
    ROWS,
    STATE,
    ArrayFile,
    NotWholeError,
    Stored,
    Sums,
    array_file,
    read_array,
    verify,
    write_manifest,
)
from stream_learner.snapshot_tree import Leaves

_LINK = "link-"
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


@dataclass(frozen=True)
class Standing:
    """A snapshot that stands on the disk: its folder, the checksums of its files, and what is in them by place."""

    folder: Path
    sums: Sums
    arrays: dict[str, Stored]
    manifest_bytes: int

    @property
    def links(self) -> int:
        """How many files of earlier snapshots its arrays build on."""
        return sum(name.startswith(_LINK) for name in self.sums)

    def size_bytes(self, *, links: bool = True) -> int:
        """With or without the files it shares with earlier snapshots."""
        return self.manifest_bytes + sum(
            int(s["size"]) for name, s in self.sums.items() if links or not name.startswith(_LINK)
        )


def write_files(
    folder: Path, manifest: dict[str, Any], tree: Any, leaves: Leaves, before: Standing | None, *, merge: bool
) -> Standing:
    """All files of a snapshot, unsynced. With `merge`, arrays that were told by their changes are written whole.

    `before` is the snapshot that the changes are against. Raises StateError when its files are not whole.
    """
    sums: Sums = {}
    building = [(place, leaf) for place, leaf in leaves if isinstance(leaf, Changed) and not leaf.whole]
    stood = {} if before is None else {place: before.arrays[place] for place, _ in building}
    if before is not None and merge:
        _require_whole(before, files_of(list(stood.values())))
    elif before is not None:
        stood = _linked(folder, before, stood, sums)
    arrays: list[Stored] = []
    with ExitStack() as stack:
        whole = stack.enter_context(array_file(folder / ARRAYS, sums))
        rows = whole
        if any(isinstance(leaf, Changed) for _, leaf in leaves):
            rows = stack.enter_context(array_file(folder / ROWS, sums))
        for place, leaf in leaves:
            if not isinstance(leaf, Changed):
                arrays.append(whole.put(place, leaf))
            elif place not in stood:
                arrays.append(rows.put(place, leaf.values))
            elif before is not None and merge:
                arrays.append(_merged(rows, place, leaf, stood[place], before.folder))
            else:
                arrays.append(rows.put_changes(place, leaf, stood[place]))
    state = json.dumps(tree, separators=(",", ":")).encode()  # NaN and Infinity are spelled so; floats by repr
    (folder / STATE).write_bytes(state)
    sums[STATE] = {"sha256": hashlib.sha256(state).hexdigest(), "size": len(state)}
    manifest_bytes = write_manifest(
        folder, {**manifest, "files": sums, "arrays": [array.to_json() for array in arrays]}
    )
    return Standing(folder, sums, {array.name: array for array in arrays}, manifest_bytes)


def _merged(file: ArrayFile, place: str, changed: Changed, stored: Stored, folder: Path) -> Stored:
    try:
        return file.put(place, changed.onto(read_array(folder, stored)))
    except NotWholeError as error:
        raise _damaged(folder, error) from error


def files_of(arrays: list[Stored]) -> list[str]:
    """Where the pieces of arrays lie, the oldest file first: links in their order, then a snapshot's own."""
    names = {piece.file for array in arrays for piece in array.pieces}
    return sorted(names, key=lambda name: (not name.startswith(_LINK), name))


def _linked(folder: Path, before: Standing, arrays: dict[str, Stored], sums: Sums) -> dict[str, Stored]:
    """The arrays as they lie in `folder`, after the files they need were linked into it."""
    renamed = {}
    for number, name in enumerate(files_of(list(arrays.values()))):
        renamed[name] = f"{_LINK}{number:03d}.bin"
        _link(before.folder / name, folder / renamed[name])
        sums[renamed[name]] = before.sums[name]
    return {
        place: replace(array, pieces=tuple(replace(piece, file=renamed[piece.file]) for piece in array.pieces))
        for place, array in arrays.items()
    }


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except FileNotFoundError as error:
        raise _damaged(file.parent, error) from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(file, name)


def _require_whole(before: Standing, names: list[str]) -> None:
    try:
        for name in names:
            verify(before.folder / name, before.sums[name])
    except NotWholeError as error:
        raise _damaged(before.folder, error) from error


def _damaged(folder: Path, reason: Exception) -> StateError:
    return StateError(
        f"snapshot {folder} was damaged while it was in use ({reason}): check the disk, then start again; the newest "
        "whole snapshot is taken, and what came after it is learned again"
    )

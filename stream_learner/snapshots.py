"""Snapshots: the worker's whole recovery state, atomic and checked.

    <folder>/slide-000000000123-000007/    its files: see snapshot_files.py

The name holds the slide and the token of the lease under which it was written; newer is what has the higher token,
then the higher slide, so what an earlier holder of the lease may still write is never taken for the newest.

The folder is written under a temporary name, fsynced, manifest last, then renamed and its parent fsynced.

Of large arrays a snapshot holds what changed since the one before, and hard links to the files that this builds on.
So each folder is complete in itself: none needs another, whoever wrote it; to remove one is to remove a folder, and
the file system counts who still needs a file. No file is written to again once it has its name. Where a file system
has no hard links, copies take their place.

Two snapshots may share a file, and share its damage. Therefore one that shares none with the newest always stands.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stream_learner.changes import Changed
from stream_learner.durable import (
    DOOMED,
    TEMPORARY,
    Fence,
    fsync_tree,
    make_folder,
    recover_folder,
    remove,
    rename_dir,
    storage_errors,
    unfenced,
)
from stream_learner.errors import RetryableError, StateError
from stream_learner.snapshot_files import FOREIGN, STATE, NotWholeError, Stored, read_array, read_manifest, verify
from stream_learner.snapshot_tree import Leaves, join, split
from stream_learner.snapshot_writing import Standing, files_of, write_files

_NAME = re.compile(r"slide-(\d{12})-(\d{6,18})")


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
    size_bytes: int  # of all its files
    written_bytes: int  # of those that are not links
    merged: bool  # whether earlier changes were merged in it
    increments: int  # files of earlier snapshots that its arrays build on


@dataclass(frozen=True)
class Chain:
    """How much may build on an array stored whole before all of it is merged."""

    max_increments: int = 24
    max_share: float = 0.5  # bytes of the increments against the bytes they build on


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

    def __init__(
        self, folder: Path, keep: int, *, chain: Chain | None = None, token: int = 0, fence: Fence = unfenced
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._chain = chain or Chain()
        self._token = token
        self._fence = fence
        self._before: Standing | None = None  # the last one written or read: what `Changed` leaves are against
        self.rejected: list[Rejected] = []
        make_folder(folder)
        recover_folder(folder, fence)

    def write(self, slide: int, state: dict[str, Any], head: dict[str, Any]) -> SnapshotInfo:
        """Makes `state` durable under the number of the slide it stands after; an older one of that number goes.

        Leaves as of `snapshot_tree.split`; a `Changed` one is what changed since the state that was written, or read
        by `latest`, before. `head` is JSON. A disk that fails is a `RetryableError` and leaves nothing behind; that
        earlier files are found damaged when changes are merged is a `StateError`.
        """
        final = self._folder / f"slide-{slide:012d}-{self._token:06d}"
        temporary = self._folder / f"{TEMPORARY}{final.name}"
        leaves: Leaves = []
        tree = split(state, "", leaves)
        merge = self._must_merge(leaves)
        with storage_errors(final, "write"):
            try:
                remove(temporary)  # of an attempt whose cleaning failed too
                temporary.mkdir()
                manifest = {"slide": slide, "token": self._token, "head": head}
                standing = write_files(temporary, manifest, tree, leaves, self._before, merge=merge)
                fsync_tree(temporary)
                self._fence()
                inode = temporary.stat().st_ino
                try:
                    rename_dir(temporary, final)
                finally:
                    # Also when only the fsync after it failed: writing is tried again, onto what stands there now.
                    if final.is_dir() and final.stat().st_ino == inode:
                        self._before = replace(standing, folder=final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        self.rejected = [r for r in self.rejected if r.path != final]
        size, written = standing.size_bytes(), standing.size_bytes(links=False)
        return SnapshotInfo(slide, final, size, written, merge, standing.links)

    def latest(self) -> Snapshot | None:
        """The newest whole snapshot; None when there is none at all. Newer ones that are not whole: `rejected`.

        Snapshots that exist but are all damaged are a `StateError` (starting afresh unasked would look like a
        restore), and so is one of another format version. An unreadable disk is a `RetryableError`.
        """
        self.rejected = []
        for path in reversed(self._paths()):
            try:
                snapshot, self._before = _read(path)
                return snapshot
            except NotWholeError as error:
                self.rejected.append(Rejected(path, str(error)))
        if self.rejected:
            reasons = "; ".join(f"{r.path.name}: {r.reason}" for r in self.rejected)
            raise StateError(
                f"no snapshot in {self._folder} is whole ({reasons}): restore the folder from a backup, or remove it "
                "and keep the journal, to learn again from the start of the log"
            )
        return None

    def prune(self) -> list[str]:
        """Removes rejected snapshots and all but the newest `keep` whole ones, and the newest that shares no file with
        the newest of all. Returns what failed."""
        rejected = {r.path for r in self.rejected}
        whole = [path for path in self._paths() if path not in rejected]
        if not whole:
            return []
        failures = []
        try:
            apart = self._newest_apart(whole[-1], whole)
        except RetryableError as error:
            return [str(error)]
        for path in [*sorted(rejected), *(path for path in whole[: -self._keep] if path != apart)]:
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

    def _must_merge(self, leaves: Leaves) -> bool:
        """Whether the changes among the leaves are to be written as whole arrays."""
        changed = {place: leaf for place, leaf in leaves if isinstance(leaf, Changed) and not leaf.whole}
        if not changed:
            return False
        if self._before is None:
            raise ValueError(f"what changed of {next(iter(changed))} was captured, but nothing stands before it")
        stored = [self._before.arrays[place] for place in changed]
        rows = sum(leaf.values.nbytes + leaf.rows.nbytes for leaf in changed.values())
        built_on = sum(array.size_bytes(array.pieces[0]) for array in stored)
        increments = rows + sum(array.size_bytes(piece) for array in stored for piece in array.pieces[1:])
        return (
            len(files_of(stored)) > self._chain.max_increments
            or increments > self._chain.max_share * built_on
            or self._newest_apart(self._before.folder, self._paths()) is None
        )

    def _newest_apart(self, path: Path, others: list[Path]) -> Path | None:
        """The newest of `others` that has no file in common with `path` and is not known to be damaged."""
        files, rejected = _inodes(path), {r.path for r in self.rejected}
        apart = (other for other in reversed(others) if other not in rejected and not files & _inodes(other))
        return next(apart, None)

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


def _inodes(path: Path) -> set[int]:
    with storage_errors(path, "list"):
        return {file.stat().st_ino for file in path.iterdir() if file.is_file()}


def _read(path: Path) -> tuple[Snapshot, Standing]:
    """A verified snapshot; `NotWholeError` says which file is damaged."""
    manifest = read_manifest(path)
    if _place(path) != (manifest.get("token"), manifest.get("slide")):
        raise NotWholeError("manifest.json is of another snapshot")
    try:
        for name, expected in manifest["files"].items():
            verify(path / name, expected)
        arrays = [Stored.from_json(value) for value in manifest["arrays"]]
        if any(piece.file not in manifest["files"] for array in arrays for piece in array.pieces):
            raise NotWholeError("an array lies in a file without a checksum")
        with storage_errors(path, "read"):
            tree = json.loads((path / STATE).read_bytes())
            state = join(tree, [read_array(path, array) for array in arrays])
        standing = Standing(path, manifest["files"], {array.name: array for array in arrays}, 0)
        return Snapshot(manifest["slide"], manifest["head"], state, path), standing
    except FOREIGN as error:
        raise NotWholeError(f"it was not written by this program: {type(error).__name__}: {error}") from error

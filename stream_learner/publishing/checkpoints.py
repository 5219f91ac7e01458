"""The published versions of a model, laid out as TensorFlow Serving reads them.

    <root>/<model>/champion.json                             the version in service, moved last
    <root>/<model>/<version>/saved_model.pb, variables/...   immutable once named
    <root>/<model>/<version>/manifest.json                   what it is, with a checksum of every file

TensorFlow Serving loads any folder with an integer name, whole or not, so a version is written under a name that is
none (`.tmp-<version>-<token>`) and renamed when it is fsynced and checked; it is removed the same way round.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from stream_learner.durable import (
    BAD_JSON,
    DOOMED,
    TEMPORARY,
    Fence,
    canonical_json,
    fsync_path,
    fsync_tree,
    make_folder,
    recover_folder,
    remove,
    rename_dir,
    sha256_file,
    storage_errors,
    unfenced,
    write_file,
)
from stream_learner.errors import ConfigError, RetryableError, StateError, StreamLearnerError
from stream_learner.publishing.manifest import (
    FileSum,
    Manifest,
    Pointer,
    manifest_from,
    pointer_from,
    to_json,
)

MANIFEST = "manifest.json"
POINTER = "champion.json"

FolderStep = Callable[[Path], None]


def next_version(slide_end_us: int, last: int) -> int:
    """The number after `last` (0 = none yet): the slide's end in epoch seconds, or one more. Numbers only grow."""
    return max(slide_end_us // 1_000_000, last + 1)


@dataclass(frozen=True)
class Scan:
    """What stands in a model's folder: readable versions ascending, and why the others are not."""

    manifests: list[Manifest]
    broken: dict[str, str]


@dataclass(frozen=True)
class Pruned:
    """What `Checkpoints.prune` did: versions removed, and why others could not be."""

    removed: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)


class Checkpoints:
    """One model's versions. Anyone may read; writing is for the holder of the lease: its token, its fence."""

    def __init__(self, root: Path, model_name: str, keep: int, *, token: int = 0, fence: Fence = unfenced) -> None:
        self.folder = root / model_name
        self._keep = keep
        self._token = token
        self._fence = fence

    def recover(self) -> list[str]:
        """Clears what a killed writer left. Once, at the start of a worker. Returns the names removed."""
        make_folder(self.folder)
        return recover_folder(self.folder, self._fence)

    def publish(self, version: int, write: FolderStep, manifest: Manifest, check: FolderStep) -> None:
        """Makes a version appear, whole and checked, under its number.

        1. A version of that number that is whole and has the same `content_sha256` is kept, and nothing is done; one
           with other content, or whose manifest cannot be read, is a `StateError`: versions never change.
        2. `write` puts the files into a temporary folder; their checksums go into the manifest, written last.
        3. All is fsynced; `check` loads it from there and raises what it finds.
        4. With the lease proved, the folder gets its number, in place of one with the same content but damaged files.

        A failed disk is a `RetryableError`. Whatever is raised, nothing of the attempt is left.
        """
        final = self.folder / str(version)
        if final.exists() and self._stands(final, manifest):
            fsync_path(self.folder)  # an attempt before this one may have failed right there
            return
        make_folder(self.folder)
        temporary = self.folder / f"{TEMPORARY}{version}-{self._token}"
        with storage_errors(final, "write"):
            try:
                remove(temporary)  # of an attempt whose cleaning failed too
                temporary.mkdir()
                write(temporary)
                write_file(temporary / MANIFEST, to_json(msgspec.structs.replace(manifest, files=_sums(temporary))))
                fsync_tree(temporary)
                check(temporary)
                self._fence()
                rename_dir(temporary, final)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def copier(self, version: int) -> FolderStep:
        """A `write` that copies the files of an older version: a rollback republishes them under a new number."""

        def copy(folder: Path) -> None:
            source = self.folder / str(version)
            for name in self.read(version).files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, folder / name)

        return copy

    def point(self, version: int) -> bool:
        """Makes `version` the champion for readers of the pointer; True when it moved.

        The pointer never moves back: an older version, as when slides are worked again after a restore, leaves it.
        """
        manifest = self.read(version)
        pointer = self.pointer()
        if pointer is not None and pointer.version >= version:
            return False
        wanted = Pointer(version=version, content_sha256=manifest.content_sha256)
        write_file(self.folder / POINTER, to_json(wanted), self._fence)
        return True

    def pointer(self) -> Pointer | None:
        """The champion; None before the first version. A damaged pointer is a `StateError`."""
        path = self.folder / POINTER
        try:
            with storage_errors(path, "read"):
                return pointer_from(path.read_bytes()) if path.exists() else None
        except BAD_JSON as error:
            raise StateError(
                f"{path} is damaged ({error}): write the champion's number and content_sha256 into it again"
            ) from error

    def scan(self) -> Scan:
        """Every folder with an integer name, by version; those without a readable manifest of their own as broken."""
        manifests, broken = [], {}
        for version in self._numbers():
            try:
                manifests.append(self.read(version))
            except StateError as error:
                broken[str(version)] = str(error)
        return Scan(manifests, broken)

    def versions(self) -> list[Manifest]:
        """The readable versions, ascending."""
        return self.scan().manifests

    def read(self, version: int) -> Manifest:
        """A version's manifest. Missing, unreadable, or of another number or model: `StateError`."""
        path = self.folder / str(version) / MANIFEST
        try:
            with storage_errors(path, "read"):
                content = path.read_bytes() if path.exists() else b""
            manifest = manifest_from(content)
        except BAD_JSON as error:
            raise StateError(
                f"{path} is missing or damaged ({error}): move that folder out of {self.folder}"
            ) from error
        if (manifest.version, manifest.model) != (version, self.folder.name):
            raise StateError(f"{path} is of {manifest.model} version {manifest.version}: move that folder away")
        return manifest

    def require(self, version: int) -> Manifest:
        """A version an operator named; `ConfigError` listing those there are."""
        manifests = {m.version: m for m in self.versions()}
        if version not in manifests:
            known = ", ".join(map(str, manifests)) or "none"
            raise ConfigError(
                f"there is no version {version} of {self.folder.name} in {self.folder}; versions: {known}"
            )
        return manifests[version]

    def verify(self, version: int) -> list[str]:
        """What is wrong with a version's files against its manifest; empty = whole."""
        folder, problems = self.folder / str(version), []
        expected = self.read(version).files
        for name, file_sum in sorted(expected.items()):
            path = folder / name
            with storage_errors(path, "verify"):
                if not path.is_file():
                    problems.append(f"{name} is missing")
                elif path.stat().st_size != file_sum.size or sha256_file(path) != file_sum.sha256:
                    problems.append(f"{name} does not match its checksum")
        present = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        problems += [f"{name} is not in the manifest" for name in sorted(present - {MANIFEST} - set(expected))]
        return problems

    def prune(self, protect: Iterable[int] = ()) -> Pruned:
        """Removes all but the champion, its parent, those in `protect` (pins) and the newest `keep` of the others.

        Never raises for what cannot be removed, read or listed: it is returned, for the log. A lost lease is raised.
        """
        pruned = Pruned()
        try:
            pointer = self.pointer()
            kept = set(protect)
            if pointer is not None:
                kept |= {pointer.version, self.read(pointer.version).parent or pointer.version}
            others = [v for v in self._numbers() if v not in kept]
        except (StreamLearnerError, OSError) as error:
            pruned.failed[0] = str(error)
            return pruned
        for version in others[: -self._keep]:
            try:
                self._fence()
                doomed = self.folder / f"{DOOMED}{version}-{self._token}"
                (self.folder / str(version)).rename(doomed)
                shutil.rmtree(doomed)
                pruned.removed.append(version)
            except OSError as error:
                pruned.failed[version] = f"cannot remove {self.folder / str(version)}: {error.strerror}"
            except RetryableError as error:
                pruned.failed[version] = str(error)
        return pruned

    def _stands(self, final: Path, manifest: Manifest) -> bool:
        """True when the version there is the wanted one, whole; False when it is the same, damaged."""
        old = self.read(manifest.version)
        if old.content_sha256 != manifest.content_sha256:
            raise StateError(
                f"{final} exists with other content ({old.content_sha256[:12]}, now {manifest.content_sha256[:12]}): "
                "the log, the journal, the libraries or the machine are not those it was made from. Use those, or "
                "start a new state and checkpoint folder"
            )
        return not self.verify(manifest.version)

    def _numbers(self) -> list[int]:
        with storage_errors(self.folder, "list"):
            names = [p.name for p in self.folder.iterdir() if p.is_dir()] if self.folder.is_dir() else []
        return sorted(int(name) for name in names if name.isascii() and name.isdigit() and str(int(name)) == name)


def diff(a: Manifest, b: Manifest) -> dict[str, Any]:
    """Where two versions differ, side by side: {part: {name: [in a, in b]}}; None where a name is missing."""
    left, right = _parts(a), _parts(b)
    return {part: _differences(left[part], right[part]) for part in left}


def _parts(manifest: Manifest) -> dict[str, dict[str, Any]]:
    facts: dict[str, Any] = json.loads(to_json(manifest))
    nested = {part: facts.pop(part) for part in ("metrics", "verdict", "signature", "libraries", "machine")}
    files = {name: s["sha256"] for name, s in facts.pop("files").items()}
    offsets = {f"{o['topic']}/{o['index']}": [o["first"], o["last"]] for o in facts.pop("offsets")}
    return {"facts": facts, "offsets": offsets, **{part: flat(value) for part, value in nested.items()}, "files": files}


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict with dotted names; lists stay whole."""
    out: dict[str, Any] = {}
    for name, inner in value.items():
        out |= flat(inner, f"{prefix}{name}.") if isinstance(inner, dict) else {f"{prefix}{name}": inner}
    return out


def _differences(left: dict[str, Any], right: dict[str, Any]) -> dict[str, list[Any]]:
    names = sorted(left.keys() | right.keys())
    pairs = {name: [left.get(name), right.get(name)] for name in names}
    return {name: pair for name, pair in pairs.items() if canonical_json(pair[0]) != canonical_json(pair[1])}


def _sums(folder: Path) -> dict[str, FileSum]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): FileSum(sha256=sha256_file(p), size=p.stat().st_size) for p in files}

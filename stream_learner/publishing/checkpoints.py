"""The published versions of a model, laid out as TensorFlow Serving reads them.

    <root>/<model>/champion.json                             the version in service, moved last
    <root>/<model>/<version>/saved_model.pb, variables/...   immutable once named
    <root>/<model>/<version>/delta.npz                       what differs from its parent, where that is little
    <root>/<model>/<version>/manifest.json                   what it is, with a checksum of every file

TensorFlow Serving loads any folder with an integer name, whole or not. So on a disk a version is written under a name
that is none (`.tmp-<version>-<token>`), fsynced, checked and renamed, and removed the same way round; what an object
store makes of that, which has no rename, is told in `remote.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from stream_learner.durable import BAD_JSON, canonical_json, fsync_tree, write_file
from stream_learner.errors import ConfigError, StateError, StreamLearnerError
from stream_learner.publishing import deltas
from stream_learner.publishing.deltas import Delta
from stream_learner.publishing.manifest import (
    FileSum,
    Manifest,
    Pointer,
    manifest_from,
    pointer_from,
    to_json,
)
from stream_learner.publishing.storage import MANIFEST, Storage, file_sum

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
    """One model's versions. Anyone may read; writing is for the holder of the lease, as the storage's fence has it."""

    def __init__(self, storage: Storage, model: str, keep: int) -> None:
        self._storage = storage
        self.model = model
        self._keep = keep

    def location(self, version: int) -> str:
        """The path or URL of a version."""
        return f"{self._storage.location}/{version}"

    def recover(self) -> list[str]:
        """Clears what a killed writer left. Once, at the start of a worker. Returns the names removed."""
        return self._storage.recover()

    def publish(self, version: int, write: FolderStep, manifest: Manifest, check: FolderStep) -> None:
        """Makes a version appear, whole and checked, under its number.

        1. A version of that number that is whole and has the same `content_sha256` is kept, and nothing is done; one
           with other content, or whose manifest cannot be read, is a `StateError`: versions never change.
        2. `write` puts the files into a temporary folder; their checksums go into the manifest, written last.
        3. All is fsynced; `check` loads it from there and raises what it finds.
        4. With the lease proved, it gets its number, in place of one with the same content but damaged files.

        A failed disk is a `RetryableError`. Whatever is raised, nothing that counts as a version is left.
        """
        if self._storage.occupied(version) and self._stands(manifest):
            return
        with self._storage.staging(version) as folder:
            write(folder)
            write_file(folder / MANIFEST, to_json(msgspec.structs.replace(manifest, files=_sums(folder))))
            fsync_tree(folder)
            check(folder)
            self._storage.publish(folder, version)

    def file(self, version: int, name: str) -> bytes | None:
        """One small file of a version as it lies there; None where there is none."""
        return self._storage.read(f"{version}/{name}")

    @contextmanager
    def files(self, version: int) -> Iterator[Path]:
        """A local folder with a version's files, whole: checked against the manifest. Damage is a `StateError`. Its
        delta is left out: a version is whole without it."""
        expected = {name: wanted for name, wanted in self.read(version).files.items() if name != deltas.FILE}
        with self._storage.local(version, expected) as folder:
            wrong = [name for name, wanted in expected.items() if _measured(folder / name) != wanted]
            if wrong:
                raise StateError(f"{self.location(version)} is damaged ({', '.join(wrong)}): restore it or remove it")
            yield folder

    def delta(self, version: int) -> Delta:
        """What differs between a version and the one its manifest names. StateError when it is missing or damaged."""
        wanted = self.read(version).files.get(deltas.FILE)
        content = self._storage.read(f"{version}/{deltas.FILE}") or b""
        if wanted != FileSum(sha256=hashlib.sha256(content).hexdigest(), size=len(content)):
            raise StateError(f"{self.location(version)}/{deltas.FILE} is damaged")
        return Delta.from_bytes(content)

    def point(self, version: int) -> bool:
        """Makes `version` the champion for readers of the pointer; True when it moved.

        The pointer never moves back: an older version, as when slides are worked again after a restore, leaves it.
        """
        manifest = self.read(version)
        content = self._storage.read(POINTER)
        pointer = self._decoded(content)
        if pointer is not None and pointer.version >= version:
            return False
        wanted = Pointer(version=version, content_sha256=manifest.content_sha256)
        self._storage.replace(POINTER, content, to_json(wanted))
        return True

    def pointer(self) -> Pointer | None:
        """The champion; None before the first version. A damaged pointer is a `StateError`."""
        return self._decoded(self._storage.read(POINTER))

    def _decoded(self, content: bytes | None) -> Pointer | None:
        try:
            return None if content is None else pointer_from(content)
        except BAD_JSON as error:
            raise StateError(
                f"{self._storage.location}/{POINTER} is damaged ({error}): write the champion's number and "
                "content_sha256 into it again"
            ) from error

    def scan(self) -> Scan:
        """Everything with an integer name, by version; those without a readable manifest of their own as broken."""
        manifests, broken = [], {}
        for version in self._storage.versions():
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
        path, place = f"{self.location(version)}/{MANIFEST}", self._storage.location
        try:
            manifest = manifest_from(self._storage.read(f"{version}/{MANIFEST}") or b"")
        except BAD_JSON as error:
            raise StateError(f"{path} is missing or damaged ({error}): move that folder out of {place}") from error
        if (manifest.version, manifest.model) != (version, self.model):
            raise StateError(f"{path} is of {manifest.model} version {manifest.version}: move that folder away")
        return manifest

    def require(self, version: int) -> Manifest:
        """A version an operator named; `ConfigError` listing those there are."""
        manifests = {m.version: m for m in self.versions()}
        if version not in manifests:
            known = ", ".join(map(str, manifests)) or "none"
            raise ConfigError(
                f"there is no version {version} of {self.model} in {self._storage.location}; versions: {known}"
            )
        return manifests[version]

    def verify(self, version: int) -> list[str]:
        """What is wrong with a version's files against its manifest; empty = whole."""
        problems, expected = [], self.read(version).files
        for name, wanted in sorted(expected.items()):
            found = self._storage.measure(version, name)
            if found is None:
                problems.append(f"{name} is missing")
            elif found != wanted:
                problems.append(f"{name} does not match its checksum")
        strays = self._storage.names(version) - {MANIFEST} - set(expected)
        return problems + [f"{name} is not in the manifest" for name in sorted(strays)]

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
            others = [v for v in self._storage.versions() if v not in kept]
        except StreamLearnerError as error:
            pruned.failed[0] = str(error)
            return pruned
        for version in others[: -self._keep]:
            try:
                self._storage.remove(version)
                pruned.removed.append(version)
            except StateError:
                raise
            except StreamLearnerError as error:
                pruned.failed[version] = str(error)
        return pruned

    def _stands(self, manifest: Manifest) -> bool:
        """True when the version there is the wanted one, whole; False when it is the same, damaged."""
        old = self.read(manifest.version)
        if old.content_sha256 != manifest.content_sha256:
            raise StateError(
                f"{self.location(manifest.version)} exists with other content ({old.content_sha256[:12]}, now "
                f"{manifest.content_sha256[:12]}): the log, the journal, the libraries or the machine are not those it "
                "was made from. Use those, or start a new state and checkpoint folder"
            )
        return not self.verify(manifest.version)


def diff(a: Manifest, b: Manifest) -> dict[str, Any]:
    """Where two versions differ, side by side: {part: {name: [in a, in b]}}; None where a name is missing."""
    left, right = _parts(a), _parts(b)
    return {part: _differences(left[part], right[part]) for part in left}


def _parts(manifest: Manifest) -> dict[str, dict[str, Any]]:
    facts: dict[str, Any] = json.loads(to_json(manifest))
    facts["delta"] = None if manifest.delta is None else manifest.delta.parent
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


def _measured(path: Path) -> FileSum | None:
    return file_sum(path) if path.is_file() else None


def _sums(folder: Path) -> dict[str, FileSum]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): file_sum(p) for p in files}

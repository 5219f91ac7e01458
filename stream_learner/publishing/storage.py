"""Where versions lie: the one seam between `Checkpoints` and a disk or an object store.

Everything else of a worker (journal, lease, snapshots, verdicts) needs a POSIX volume and does not come here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from stream_learner.durable import (
    DOOMED,
    TEMPORARY,
    Fence,
    fsync_path,
    make_folder,
    recover_folder,
    remove,
    rename_dir,
    sha256_file,
    storage_errors,
    unfenced,
    write_file,
)
from stream_learner.publishing.manifest import FileSum

MANIFEST = "manifest.json"
SAVED_MODEL = "saved_model.pb"


class Storage(Protocol):
    """The versions of one model. Names are relative to it: `champion.json`, `<version>/manifest.json`.

    Failures come out as `RetryableError` or, where somebody must act, `ConfigError`; both name place, action and
    remedy. A storage across a network waits out what may pass itself, then raises `UnavailableError`. Writing proves
    the fence before it gives anything its name.
    """

    @property
    def location(self) -> str:
        """A path or URL, for messages and announcements."""

    def recover(self) -> list[str]:
        """Clears what a killed writer left; returns what that was. Once, at the start of a worker."""

    def staging(self, version: int) -> AbstractContextManager[Path]:
        """An empty local folder to make a version in; it is gone afterwards."""

    def publish(self, staged: Path, version: int) -> None:
        """Makes a staged, fsynced folder appear as a version that counts: whole, or not at all. What stands there is
        of the same content, damaged, or a part of an attempt that failed; it is replaced."""

    def occupied(self, version: int) -> bool:
        """Whether something stands under that number for good, other than a part of an own attempt that failed."""

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""

    def replace(self, name: str, old: bytes | None, new: bytes) -> None:
        """Puts a small file in the place of `old`, in one step. A store that can tell refuses (`RetryableError`) when
        `old` is not what stands there any more."""

    def versions(self) -> list[int]:
        """The numbers under which anything stands, ascending."""

    def names(self, version: int) -> set[str]:
        """Paths of a version's files, relative to it."""

    def measure(self, version: int, name: str) -> FileSum | None:
        """Size and checksum of a file as it is read back; None where there is none."""

    def local(self, version: int, names: Iterable[str]) -> AbstractContextManager[Path]:
        """A local folder with these files of a version, to be read inside the block."""

    def remove(self, version: int) -> None:
        """Removes a version; a part of one is never taken for a version."""


class LocalStorage:
    """A folder on a POSIX volume: a version is written aside, fsynced and renamed."""

    def __init__(self, folder: Path, *, token: int = 0, fence: Fence = unfenced) -> None:
        self.folder = folder
        self._token = token
        self._fence = fence

    @property
    def location(self) -> str:
        return str(self.folder.resolve())

    def recover(self) -> list[str]:
        make_folder(self.folder)
        return recover_folder(self.folder, self._fence)

    def staging(self, version: int) -> AbstractContextManager[Path]:
        return scratch(self.folder, f"{version}-{self._token}", self.folder / str(version))

    def publish(self, staged: Path, version: int) -> None:
        self._fence()
        rename_dir(staged, self.folder / str(version))

    def occupied(self, version: int) -> bool:
        standing = (self.folder / str(version)).exists()
        if standing:
            fsync_path(self.folder)  # the attempt that gave it its name may have failed right there
        return standing

    def read(self, name: str) -> bytes | None:
        path = self.folder / name
        with storage_errors(path, "read"):
            return path.read_bytes() if path.exists() else None

    def replace(self, name: str, old: bytes | None, new: bytes) -> None:
        write_file(self.folder / name, new, self._fence)

    def versions(self) -> list[int]:
        with storage_errors(self.folder, "list"):
            return numbers(p.name for p in self.folder.iterdir() if p.is_dir()) if self.folder.is_dir() else []

    def names(self, version: int) -> set[str]:
        folder = self.folder / str(version)
        with storage_errors(folder, "list"):
            return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}

    def measure(self, version: int, name: str) -> FileSum | None:
        path = self.folder / str(version) / name
        with storage_errors(path, "verify"):
            return file_sum(path) if path.is_file() else None

    @contextmanager
    def local(self, version: int, names: Iterable[str]) -> Iterator[Path]:
        yield self.folder / str(version)

    def remove(self, version: int) -> None:
        self._fence()
        path, doomed = self.folder / str(version), self.folder / f"{DOOMED}{version}-{self._token}"
        with storage_errors(path, "remove"):
            path.rename(doomed)
            shutil.rmtree(doomed)


@contextmanager
def scratch(parent: Path, name: str, purpose: Path) -> Iterator[Path]:
    """An empty folder in `parent`, removed afterwards whatever happened. An OSError in the block is about `purpose`."""
    make_folder(parent)
    temporary = parent / f"{TEMPORARY}{name}"
    with storage_errors(purpose, "write"):
        try:
            remove(temporary)  # of an attempt whose cleaning failed too
            temporary.mkdir()
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def file_sum(path: Path) -> FileSum:
    """Size and checksum of a local file."""
    return FileSum(sha256=sha256_file(path), size=path.stat().st_size)


def numbers(names: Iterable[str]) -> list[int]:
    """Those of the names that TensorFlow Serving takes for versions, as numbers, ascending."""
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and str(int(name)) == name)

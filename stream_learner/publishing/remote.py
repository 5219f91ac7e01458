"""Versions on an object store, which has no rename: the order of the uploads takes its place.

    1 an intent in the state folder: until it is gone, what stands under that number is a part of a version, and ours
    2 variables/*, the largest object first, each read back and compared with its checksum
    3 saved_model.pb, read back: before it TensorFlow Serving refuses the version, after it all it loads is there
    4 manifest.json: from here on the version counts for everybody who asks `Checkpoints`
    5 the intent is removed

TensorFlow Serving knows no manifest. It takes a prefix with an integer name for a version as soon as it lists the first
object, and loads variables that are missing as uninitialised; without saved_model.pb it fails, keeps the version it
has and tries again (5 times, a minute apart, unless told otherwise). Hence 2 before 3. A kill before 3 leaves a part
that the next start removes. One between 3 and 4 leaves what may be in service already, whole and checked: it stays, and
is found equal, object by object, when the version is made again; if it is not, the next publication removes it.

The fence is proved before every put and delete. Objects are created, never overwritten (If-None-Match), so a worker
that wakes up after its lease was taken changes nothing that stands; where a store cannot do that, there is only the
fence.
Removal goes the other way round: intent, manifest, saved_model.pb, the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from stream_learner.durable import Fence, make_folder, recover_folder, remove, storage_errors, unfenced, write_file
from stream_learner.errors import RetryableError, StateError
from stream_learner.publishing.manifest import FileSum
from stream_learner.publishing.objects import Objects
from stream_learner.publishing.storage import MANIFEST, SAVED_MODEL, file_sum, numbers, scratch
from stream_learner.retry import retrying
from stream_learner.settings.base import Duration

log = logging.getLogger(__name__)
T = TypeVar("T")


class RemoteStorage:
    """A `Storage` on an object store. `uploads`: a folder of this worker's state, on a POSIX volume.

    Each request is repeated for `patience` where its failure may pass; then UnavailableError. Removing is not: what is
    left waits for the next prune.
    """

    def __init__(
        self, objects: Objects, uploads: Path, patience: Duration, *, token: int = 0, fence: Fence = unfenced
    ) -> None:
        self._objects = objects
        self._uploads = uploads
        self._patience = patience
        self._token = token
        self._fence = fence

    @property
    def location(self) -> str:
        return self._objects.url

    # ---- reading --------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes | None:
        return self._patiently(partial(self._objects.read, name))

    def versions(self) -> list[int]:
        return self._patiently(self._objects.numbers)

    def names(self, version: int) -> set[str]:
        return self._patiently(partial(self._objects.names, str(version)))

    def measure(self, version: int, name: str) -> FileSum | None:
        return self._patiently(partial(self._objects.measure, f"{version}/{name}"))

    def occupied(self, version: int) -> bool:
        if self.read(f"{version}/{MANIFEST}") is not None:
            return True
        return version not in self._intended() and bool(self.names(version))

    @contextmanager
    def local(self, version: int, names: Iterable[str]) -> Iterator[Path]:
        with self._scratch(f"fetched-{version}") as folder:
            for name in names:
                file = folder / name
                if not file.resolve().is_relative_to(folder.resolve()):
                    raise StateError(f"{self.location}/{version}/{MANIFEST} names a file outside: {name!r}")
                self._patiently(partial(self._objects.fetch, f"{version}/{name}", file))
            yield folder

    # ---- writing --------------------------------------------------------------------------------------------

    def recover(self) -> list[str]:
        """Also writes and deletes a small object, so that a wrong bucket or missing right is told before anything is
        learned."""
        make_folder(self._uploads)
        removed = recover_folder(self._uploads, self._fence)
        self._patiently(self._try_out)
        for version in self._intended():
            if self.read(f"{version}/{MANIFEST}") is not None:
                self._complete(version)
            elif (names := self.names(version)) and SAVED_MODEL not in names:
                self._patiently(partial(self._delete, version))  # the intent stays: a put of a zombie may still arrive
                removed.append(f"a part of {self.location}/{version}")
        return removed

    def staging(self, version: int) -> AbstractContextManager[Path]:
        return self._scratch(str(version))

    def publish(self, staged: Path, version: int) -> None:
        self._intend(version)
        names = upload_order(staged)
        self._patiently(partial(self._clear, version, names))
        for name in names:
            self._patiently(partial(self._place, version, name, staged / name))
        self._patiently(partial(self._seal, version, staged / MANIFEST))
        self._complete(version)
        self._tidy()

    def replace(self, name: str, old: bytes | None, new: bytes) -> None:
        self._fence()
        if not self._patiently(partial(self._objects.swap, name, old, new)):
            raise RetryableError(f"{self.location}/{name} has just been changed by another writer")

    def remove(self, version: int) -> None:
        self._intend(version)
        self._delete(version)
        self._complete(version)

    # ---- one step each --------------------------------------------------------------------------------------

    def _try_out(self) -> None:
        self._fence()
        self._objects.put(".trial", b"written and deleted by a worker at its start\n")
        self._objects.delete(".trial")

    def _clear(self, version: int, names: list[str]) -> None:
        """Makes way in the place of a damaged version or a part of one: what is no file of it goes; the others may be
        right already."""
        self._fence()
        if self._objects.read(f"{version}/{MANIFEST}") is not None:
            self._objects.delete(f"{version}/{MANIFEST}")
        for name in sorted(self._objects.names(str(version)) - {*names, MANIFEST}):
            self._fence()
            self._objects.delete(f"{version}/{name}")

    def _place(self, version: int, name: str, file: Path) -> None:
        """An object that reads as it was written; another one that stands there is a part of ours, and goes."""
        target = f"{version}/{name}"
        self._fence()
        self._objects.create(target, file)
        found = self._objects.measure(target)
        if found is None:
            raise RetryableError(f"{self.location}/{target} cannot be read yet")
        if found == file_sum(file):
            return
        self._fence()
        self._objects.delete(target)
        raise RetryableError(f"{self.location}/{target} does not read as it was written: deleted, to be put again")

    def _seal(self, version: int, file: Path) -> None:
        """The manifest, last of all."""
        target = f"{version}/{MANIFEST}"
        self._fence()
        self._objects.create(target, file)
        found = self._objects.read(target)
        if found is None:
            raise RetryableError(f"{self.location}/{target} cannot be read yet")
        if found != file.read_bytes():
            self._fence()
            raise StateError(
                f"{self.location}/{target} was put there by another writer meanwhile: two states publish to one place; "
                "give each its own checkpoints.root or name"
            )

    def _delete(self, version: int) -> None:
        self._fence()
        for name in (MANIFEST, SAVED_MODEL):
            self._objects.delete(f"{version}/{name}")
        self._objects.delete_below(str(version))

    # ---- what is under way ----------------------------------------------------------------------------------

    def _intent(self, version: int) -> Path:
        return self._uploads / str(version)

    def _intend(self, version: int) -> None:
        """Notes, before the first object is touched, that what stands under this number is ours and not whole."""
        make_folder(self._uploads)
        write_file(self._intent(version), self.location.encode(), self._fence)

    def _intended(self) -> list[int]:
        """Versions with an intent for this place; the root may have been another one when an older one was left."""
        with storage_errors(self._uploads, "list"):
            found = numbers(path.name for path in self._uploads.iterdir()) if self._uploads.is_dir() else []
            return [version for version in found if self._intent(version).read_bytes() == self.location.encode()]

    def _tidy(self) -> None:
        """With a version published, what older attempts and removals left is nobody's any more."""
        for version in self._intended():
            try:
                self._give_up(version)
            except RetryableError as error:
                log.warning("left for the next time: %s", error)

    def _give_up(self, version: int) -> None:
        """Deletes what an intent is about, unless it is a whole version."""
        if self._objects.read(f"{version}/{MANIFEST}") is None:
            self._delete(version)
        self._complete(version)

    def _complete(self, version: int) -> None:
        self._fence()
        with storage_errors(self._intent(version), "remove"):
            remove(self._intent(version))

    def _scratch(self, name: str) -> AbstractContextManager[Path]:
        return scratch(self._uploads, f"{name}-{self._token}", self._uploads / name)

    def _patiently(self, step: Callable[[], T]) -> T:
        return retrying(step, "checkpoints", self._patience)


def upload_order(staged: Path) -> list[str]:
    """A version's files but the manifest, as they are to appear: the largest first, the graph last of all."""
    sizes = {str(p.relative_to(staged)): p.stat().st_size for p in staged.rglob("*") if p.is_file()}
    names = sorted(sizes.keys() - {MANIFEST}, key=lambda name: (name == SAVED_MODEL, -sizes[name], name))
    return list(names)

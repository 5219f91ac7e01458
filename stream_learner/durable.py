"""Durable writes: what has been returned from here survives a kill and a power cut.

A file or folder is written under a temporary name, fsynced, renamed, and the folder that holds the name is fsynced
too; a reader sees the old state or the new one, never a mixture (Pillai et al., OSDI 2014, list what goes wrong
otherwise). Errors of the operating system are translated here, once: those that may pass (full disk, I/O error,
read-only remount, stale mount) become `RetryableError`, those that need somebody to act on permissions or paths
`ConfigError`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stream_learner.errors import ConfigError, RetryableError, StateError

TEMPORARY = ".tmp-"
REPLACED = ".replaced-"
DOOMED = f"{TEMPORARY}removed-"

BAD_JSON = (ValueError, RecursionError)
"""What msgspec and json raise for bytes that are not the JSON wanted: malformed, no UTF-8, or nested too deep."""

Fence = Callable[[], None]
"""Raises StateError when this process may write no more; asked between making a thing and giving it its name."""

_HASH_BLOCK_BYTES = 1 << 20
_REMEDIES = {
    errno.ENOSPC: "free some space on that file system",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EIO: "check the disk (dmesg, SMART)",
    errno.EROFS: "remount the file system writable",
    errno.ESTALE: "check the network mount",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_LASTING = {
    errno.EACCES: "give this user write permission there, or name another folder",
    errno.EPERM: "give this user write permission there, or name another folder",
    errno.EEXIST: "a file stands where a folder is needed: move it, or name another folder",
    errno.ENOTDIR: "a file stands where a folder is needed: move it, or name another folder",
    errno.EISDIR: "a folder stands where a file is needed: move it, or name another path",
    errno.ENAMETOOLONG: "choose a shorter path",
}


@contextmanager
def storage_errors(path: Path, action: str) -> Iterator[None]:
    """Turns an OSError inside the block into `RetryableError` or `ConfigError`, naming path, action and remedy."""
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        message = f"cannot {action} {path}: {error.strerror or error}"
        if code in _LASTING:
            raise ConfigError(f"{message}; {_LASTING[code]}") from error
        raise RetryableError(f"{message}; {_REMEDIES.get(code, 'check the disk and the mount')}") from error


def unfenced() -> None:
    """The fence of a writer that nobody can take the place of."""


def write_file(path: Path, content: bytes, fence: Fence = unfenced) -> None:
    """Puts `content` at `path` atomically and durably; an older file of that name stays whole until then."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    with storage_errors(path, "write"):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fence()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Flushes a file, or the names held by a folder, to the disk."""
    with storage_errors(path, "fsync"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flushes every file below `folder`, then every folder from the deepest up, `folder` itself last."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in sorted(names):
            fsync_path(Path(inner) / name)
        fsync_path(Path(inner))


def make_folder(folder: Path) -> None:
    """Makes `folder` and its parents; the new names are durable."""
    if folder.is_dir():
        return
    with storage_errors(folder, "make folder"):
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_path(folder.parent)


def rename_dir(temporary: Path, final: Path) -> None:
    """Gives a fully fsynced folder its final name; an older folder of that name is moved aside, then removed.

    A kill between moving aside and renaming leaves `.replaced-<name>`, which `recover_folder` puts back.
    """
    aside = final.with_name(f"{REPLACED}{final.name}")
    with storage_errors(final, "rename to"):
        if final.exists():
            if aside.exists():  # an earlier attempt got as far as this
                shutil.rmtree(aside)
            final.rename(aside)
        temporary.rename(final)
        fsync_path(final.parent)
        if aside.exists():
            shutil.rmtree(aside)


def recover_folder(parent: Path, fence: Fence = unfenced) -> list[str]:
    """Clears what an earlier writer left in `parent`: temporary names go, a folder moved aside comes back.

    Only for the holder of the lease. An earlier holder that still runs cannot rename what is gone, and what it
    renames first is seen under its final name. Returns the names removed.
    """
    removed = []
    with storage_errors(parent, "clean"):
        listed = sorted(parent.iterdir())
        fence()  # what was listed was there before anybody could follow this writer
        for path in listed:
            if path.name.startswith(REPLACED) and not path.with_name(path.name.removeprefix(REPLACED)).exists():
                path.rename(path.with_name(path.name.removeprefix(REPLACED)))
            elif path.name.startswith((REPLACED, TEMPORARY)) and remove(path):
                removed.append(path.name)
        fsync_path(parent)
    return removed


def remove(path: Path) -> bool:
    """Removes a file or folder; False when it is not there. A folder goes whole or not at all: it loses its name first,
    so that it is never seen, renamed or taken for another when half of it is left."""
    try:
        if not path.is_dir():
            path.unlink()
            return True
        doomed = path
        if not path.name.startswith(DOOMED):
            doomed = path.rename(path.with_name(f"{DOOMED}{path.name}-{secrets.token_hex(4)}"))
    except FileNotFoundError:
        return False
    shutil.rmtree(doomed)
    return True


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with storage_errors(path, "read"), path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: keys sorted, no blanks, no NaN (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


class AppendFile:
    """A file that only grows; what `append` was given is on the disk when it returns.

    A failed append leaves the file as it was, so that a retry does not write behind half a line. Opening puts a copy
    in the file's place: an earlier writer that still has it open writes from then on to a file without a name.
    """

    def __init__(self, path: Path, fence: Fence = unfenced) -> None:
        self.path = path
        self._fence = fence
        make_folder(path.parent)
        if path.exists():
            write_file(path, self.read(), fence)
        with storage_errors(path, "open"):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fsync_path(path.parent)
            self.size_bytes = os.fstat(self._descriptor).st_size

    def append(self, content: bytes) -> None:
        self._fence()
        with storage_errors(self.path, "append to"):
            try:
                written = 0
                while written < len(content):
                    written += os.pwrite(self._descriptor, content[written:], self.size_bytes + written)
                os.fsync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, self.size_bytes)
                raise
        self.size_bytes += len(content)

    def read(self) -> bytes:
        """The whole file."""
        with storage_errors(self.path, "read"):
            return self.path.read_bytes()

    def cut(self, size_bytes: int) -> None:
        """Drops everything from `size_bytes` on. A file already shorter is a `StateError`."""
        if size_bytes > self.size_bytes:
            raise StateError(
                f"{self.path} has {self.size_bytes} bytes where the snapshot saw {size_bytes}: it was cut or replaced; "
                "put the right file back, or restore the whole state folder from one backup"
            )
        if size_bytes == self.size_bytes:
            return
        with storage_errors(self.path, "cut"):
            os.ftruncate(self._descriptor, size_bytes)
            os.fsync(self._descriptor)
        self.size_bytes = size_bytes

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

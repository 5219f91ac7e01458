"""An object store through fsspec: single requests, each translated at this edge and none repeated here.

Nothing is cached, and nothing that was just put is looked for in a listing: some stores list late.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from stream_learner.errors import ConfigError
from stream_learner.publishing.manifest import FileSum
from stream_learner.publishing.remote_errors import foreign_errors, no_container, refused, remote_errors, unconditional
from stream_learner.publishing.storage import numbers
from stream_learner.settings.base import revealed, silenced

log = logging.getLogger(__name__)

_BLOCK_BYTES = 8 << 20
_S3 = ("s3", "s3a")
_S3_ONCE = {"retries": {"total_max_attempts": 1}}  # in botocore: s3fs repeats what it sends, and so does this project
_S3_PARTS = 3  # of a large object at a time, each of 50 MB in memory; s3fs would take 10


class Objects:
    """Everything below a URL. Names are relative to it, with slashes."""

    def __init__(self, root: str, model: str, options: dict[str, Any]) -> None:
        """Opens the file system; the network is asked with the first request. ConfigError when fsspec or what the URL
        needs is not installed, or an option is refused."""
        self.url = f"{root.rstrip('/')}/{model}"
        self._silenced = partial(silenced, value=options)
        self._fs, self._path = self._opened(revealed(options))
        self._is_s3 = root.partition("://")[0] in _S3
        self._conditional = True  # until the store says otherwise

    def _opened(self, options: dict[str, Any]) -> tuple[Any, str]:
        scheme = self.url.partition("://")[0]
        try:
            import fsspec
        except ImportError:
            raise ConfigError(
                f"checkpoints.root: {self.url} needs fsspec: pip install 'stream-learner[remote]', or name a folder"
            ) from None
        if scheme in _S3:
            config = {**_S3_ONCE, **options.get("config_kwargs", {})}
            options = {"max_concurrency": _S3_PARTS, **options, "config_kwargs": config}
        try:
            fs, path = fsspec.url_to_fs(self.url, use_listings_cache=False, skip_instance_cache=True, **options)
        except ImportError as error:
            raise ConfigError(f"checkpoints.root: {self.url} needs another package: {error}") from None
        except foreign_errors() as error:
            raise ConfigError(
                f"checkpoints.root: {self.url} cannot be opened: {self._silenced(str(error))}; correct it or "
                "checkpoints.options"
            ) from None
        return fs, path.rstrip("/")

    # ---- reading --------------------------------------------------------------------------------------------

    def read(self, name: str) -> bytes | None:
        """A small object; None where there is none."""
        with self._request("read", name):
            return self._read(name)

    def measure(self, name: str) -> FileSum | None:
        """Size and checksum of an object, read back block by block; None where there is none."""
        digest, size = hashlib.sha256(), 0
        with self._request("read back", name):
            try:
                with self._fs.open(self._at(name), "rb", block_size=_BLOCK_BYTES) as file:
                    while block := file.read(_BLOCK_BYTES):
                        digest.update(block)
                        size += len(block)
            except FileNotFoundError as error:
                self._require_container(error)
                return None
        return FileSum(sha256=digest.hexdigest(), size=size)

    def fetch(self, name: str, file: Path) -> None:
        """Copies an object to a local file; where there is none, nothing."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._request("fetch", name):
            try:
                self._fs.get_file(self._at(name), str(file))
            except FileNotFoundError as error:
                self._require_container(error)

    def numbers(self) -> list[int]:
        """Prefixes that are integers, ascending."""
        with self._request("list", ""):
            try:
                found = self._fs.ls(self._path, detail=True)
            except FileNotFoundError as error:
                self._require_container(error)
                found = []
            return numbers(entry["name"].rpartition("/")[2] for entry in found if entry["type"] == "directory")

    def names(self, prefix: str) -> set[str]:
        """Names of the objects below a prefix, relative to it."""
        base = f"{self._at(prefix)}/"
        with self._request("list", prefix):
            try:
                return {name.removeprefix(base) for name in self._fs.find(self._at(prefix))}
            except FileNotFoundError as error:
                self._require_container(error)
                return set()

    # ---- writing --------------------------------------------------------------------------------------------

    def create(self, name: str, source: Path) -> bool:
        """Puts a local file where nothing stands; False, and nothing done, where something does.

        One step where the store has conditional writes (S3: If-None-Match); else a look first.
        """
        with self._request("write", name):
            if self._conditional:
                try:
                    self._fs.put_file(str(source), self._at(name), mode="create")
                    return True
                except foreign_errors() as error:
                    if refused(error):
                        return False
                    self._require_unconditional(error)
            if self._etag(name) is not None:
                return False
            self._fs.put_file(str(source), self._at(name))
            return True

    def put(self, name: str, content: bytes) -> None:
        """Puts a small object, whatever stands there."""
        with self._request("write", name):
            self._fs.pipe_file(self._at(name), content)

    def swap(self, name: str, old: bytes | None, new: bytes) -> bool:
        """Puts a small object in the place of `old`; False when something else stands there.

        One step on S3 (If-None-Match, If-Match), and everywhere for the first; else a look first.
        """
        with self._request("replace", name):
            etag = self._etag(name)
            if self._read(name) != old:
                return False
            condition = {"mode": "create"} if old is None else {"IfMatch": etag} if self._is_s3 else {}
            try:
                self._fs.pipe_file(self._at(name), new, **(condition if self._conditional else {}))
            except foreign_errors() as error:
                if refused(error):
                    return False
                self._require_unconditional(error)
                self._fs.pipe_file(self._at(name), new)
            return True

    def delete(self, name: str) -> None:
        """Deletes an object. Idempotent."""
        with self._request("delete", name):
            try:
                self._fs.rm_file(self._at(name))
            except FileNotFoundError as error:
                self._require_container(error)

    def delete_below(self, prefix: str) -> None:
        """Deletes all objects below a prefix. Idempotent."""
        with self._request("delete", prefix):
            try:
                self._fs.rm(self._at(prefix), recursive=True)
            except FileNotFoundError as error:
                self._require_container(error)

    # ---- inside a request -----------------------------------------------------------------------------------

    def _request(self, action: str, name: str) -> AbstractContextManager[None]:
        return remote_errors(f"{self.url}/{name}".rstrip("/"), action, self._silenced)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _read(self, name: str) -> bytes | None:
        try:
            content: bytes = self._fs.cat_file(self._at(name))
        except FileNotFoundError as error:
            self._require_container(error)
            return None
        return content

    def _etag(self, name: str) -> str | None:
        """Names the content of an object; None where there is no object, empty where the store has no such thing."""
        try:
            return str(self._fs.info(self._at(name)).get("ETag", ""))
        except FileNotFoundError as error:
            self._require_container(error)
            return None

    def _require_container(self, error: FileNotFoundError) -> None:
        """Goes on raising when not an object is missing, but the whole bucket."""
        if no_container(error):
            raise error

    def _require_unconditional(self, error: BaseException) -> None:
        if not unconditional(error):
            raise error
        self._conditional = False
        log.warning("%s has no conditional writes: only the lease keeps a second writer out", self.url)

"""Made-up versions, and the places that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import fsspec
import msgspec
from s3_server import S3Server

from stream_learner.durable import Fence, unfenced
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.manifest import LearnedRange, Machine, Manifest, manifest_from
from stream_learner.publishing.objects import Objects
from stream_learner.publishing.opening import open_storage
from stream_learner.publishing.remote import RemoteStorage
from stream_learner.publishing.storage import Storage
from stream_learner.settings import Duration

MODEL = "conversion"


def manifest_of(version: int, content: str = "aa", **changes: Any) -> Manifest:
    manifest = Manifest(
        model=MODEL,
        version=version,
        parent=None,
        slide=12,
        slide_end_us=1_704_067_200_000_000,
        event_time_span=(1_704_060_000_000_000, 1_704_067_199_999_000),
        offsets=[LearnedRange(topic="events", index=0, first=5, last=99)],
        metrics={"auc": 0.75, "normalized_entropy": 0.9, "champion": {"auc": 0.74}},
        verdict={"passed": True, "rules": [{"name": "finite", "passed": True}]},
        config_hash="cafe",
        seed=3,
        content_sha256=content * 32,
        signature={"inputs": {"user": "string"}},
        libraries={"numpy": "2.4.0"},
        machine=Machine(cpu_features=["avx2"], threads=2),
    )
    return msgspec.structs.replace(manifest, **changes)


class Files:
    """Writes the files of a version and counts how often; `check` looks at what was written."""

    NAMES = ("saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index")

    def __init__(self, text: str = "graph") -> None:
        self.text = text
        self.written: list[Path] = []
        self.checked: list[Path] = []

    def write(self, folder: Path) -> None:
        self.written.append(folder)
        (folder / "variables").mkdir()
        (folder / "saved_model.pb").write_text(self.text)
        (folder / "variables" / "variables.index").write_text("index")
        (folder / "variables" / "variables.data-00000-of-00001").write_bytes(self.text.encode() * 1000)

    def check(self, folder: Path) -> None:
        self.checked.append(folder)
        assert (folder / "saved_model.pb").read_text() == self.text
        assert set(manifest_from((folder / "manifest.json").read_bytes()).files) == set(self.NAMES)


def publish(store: Checkpoints, version: int, **changes: Any) -> Files:
    files = Files(f"graph {version}")
    store.publish(version, files.write, manifest_of(version, **changes), files.check)
    return files


class Place(Protocol):
    """Where versions lie, as its owner sees it. Names are relative to the model's folder."""

    def storage(self, *, token: int = 7, fence: Fence = unfenced, patience: str = "60s") -> Storage:
        """As a worker with that token opens it."""

    def names(self) -> set[str]: ...

    def read(self, name: str) -> bytes: ...

    def put(self, name: str, content: bytes) -> None: ...

    def delete(self, name: str) -> None: ...


class Disk:
    def __init__(self, state: Path) -> None:
        self._root, self._state = state / "checkpoints", state

    def storage(self, *, token: int = 7, fence: Fence = unfenced, patience: str = "60s") -> Storage:
        wait = Duration.parse(patience)
        return open_storage(str(self._root), MODEL, {}, self._state, wait, token=token, fence=fence)

    def names(self) -> set[str]:
        folder = self._root / MODEL
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    def read(self, name: str) -> bytes:
        return (self._root / MODEL / name).read_bytes()

    def put(self, name: str, content: bytes) -> None:
        path = self._root / MODEL / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, name: str) -> None:
        (self._root / MODEL / name).unlink()


class Memory:
    """fsspec's file system in memory."""

    def __init__(self, state: Path) -> None:
        self._state, self._root = state, f"memory:/{state}"
        self._fs = fsspec.filesystem("memory")

    def storage(self, *, token: int = 7, fence: Fence = unfenced, patience: str = "60s") -> Storage:
        return open_storage(self._root, MODEL, {}, self._state, Duration.parse(patience), token=token, fence=fence)

    def _at(self, name: str) -> str:
        return f"{self._root}/{MODEL}/{name}"

    def names(self) -> set[str]:
        base = self._at("").removeprefix("memory:/")
        return {name.removeprefix(base) for name in self._fs.find(self._at(""))}

    def read(self, name: str) -> bytes:
        content: bytes = self._fs.cat_file(self._at(name))
        return content

    def put(self, name: str, content: bytes) -> None:
        self._fs.pipe_file(self._at(name), content)

    def delete(self, name: str) -> None:
        self._fs.rm_file(self._at(name))


class S3:
    """A bucket of a real server."""

    def __init__(self, state: Path, server: S3Server, **options: Any) -> None:
        self._state, self.server, self.bucket = state, server, server.bucket()
        self.root = f"s3://{self.bucket.name}/models"
        self._objects = Objects(self.root, MODEL, {**server.options, **options})  # a client costs a second to make

    def storage(self, *, token: int = 7, fence: Fence = unfenced, patience: str = "60s") -> Storage:
        uploads = self._state / "uploads"
        return RemoteStorage(self._objects, uploads, Duration.parse(patience), token=token, fence=fence)

    def names(self) -> set[str]:
        return {key.removeprefix(f"models/{MODEL}/") for key in self.bucket.listed()}

    def read(self, name: str) -> bytes:
        return self.bucket.read(f"models/{MODEL}/{name}")

    def put(self, name: str, content: bytes) -> None:
        self.bucket.put(f"models/{MODEL}/{name}", content)

    def delete(self, name: str) -> None:
        self.bucket.delete(f"models/{MODEL}/{name}")

"""A served model in your own process that keeps itself fresh.

    from stream_learner.serving import follow

    with follow("state/checkpoints/conversion") as model:
        model.predict(user=["u1"], item=["i7"], time=[1_767_225_600_000_000])["probability"]

The champion pointer is looked at every `every_s` seconds. What leads from the version that answers to the new one is
read beside the requests, in a thread of its own: the deltas of all versions in between, each checked against its
manifest, or, where one is missing, damaged or of another config, or they take more bytes than the whole, the new
version's own variables, one after the other. Requests then wait for as long as the rows that differ take to be written
in place. One request is answered by one version, never by parts of two, and no second version is ever in memory, unless
its graph is another one. What cannot be read is logged and tried again, and the version before answers on.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.errors import StateError, StreamLearnerError
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.deltas import FILE
from stream_learner.publishing.loaded import GRAPH, LoadedModel, Ready
from stream_learner.publishing.manifest import Manifest
from stream_learner.publishing.opening import open_storage
from stream_learner.settings import Duration

log = logging.getLogger(__name__)

_PATIENCE = "10s"  # with an object store that fails; then the next look tries again
_UNREADABLE = (StreamLearnerError, OSError, ValueError, KeyError, TypeError, tf.errors.OpError)


def follow(folder: str | Path, every_s: float = 1.0, options: dict[str, Any] | None = None) -> Follower:
    """The champion in a model's folder, `<root>/<model>`, and its successors. StateError when there is none yet.

    `folder` may be a URL of an object store (extra `remote`); `options` are then as `checkpoints.options`.
    """
    return Follower(str(folder), every_s, options or {})


class Follower:
    """Answers from any number of threads. Use in a `with`, or `close` it."""

    def __init__(self, folder: str, every_s: float, options: dict[str, Any]) -> None:
        self._fetched = tempfile.TemporaryDirectory(prefix="follow-")  # where files of an object store are put
        root, _, model = folder.rstrip("/").rpartition("/")
        storage = open_storage(root, model, options, Path(self._fetched.name), Duration.parse(_PATIENCE))
        self._checkpoints = Checkpoints(storage, model, keep=2)
        self._every_s = every_s
        self._turns = _Turns()
        pointer = self._checkpoints.pointer()
        if pointer is None:
            raise StateError(f"{folder}: no version has been published there yet")
        self.manifest = self._checkpoints.read(pointer.version)
        with self._checkpoints.files(pointer.version) as files:
            self._model = LoadedModel(files)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="follow", daemon=True)
        self._thread.start()

    @property
    def version(self) -> int:
        """The version that answers."""
        return self.manifest.version

    def predict(self, **inputs: Any) -> dict[str, NDArray[Any]]:
        """`probability` and `logit`, [B], of raw fields by name, [B] each; aggregates may be given too, then all."""
        with self._turns.shared():
            known = self._model.signatures["serving_default"].structured_input_signature[1]
            name = "serving_default" if inputs.keys() <= known.keys() else "with_aggregates"
            specs = self._model.signatures[name].structured_input_signature[1]
            given = {key: tf.constant(value, specs[key].dtype) for key, value in inputs.items()}
            return {key: value.numpy() for key, value in self._model.signatures[name](**given).items()}

    def refresh(self) -> bool:
        """Looks for a new champion now; whether there was one, which answers from here on. Not from two threads at a
        time. Raises StateError or RetryableError when it cannot be read."""
        pointer = self._checkpoints.pointer()
        if pointer is None or pointer.version == self.version:
            return False
        manifest = self._checkpoints.read(pointer.version)
        ready = self._along_deltas(manifest)
        if ready is not None:
            self._become(manifest, self._model, ready)
            return True
        with self._checkpoints.files(manifest.version) as files:
            if self._model.fits(files):
                self._become(manifest, self._model, self._model.whole(files))
            else:  # of another config
                self._become(manifest, LoadedModel(files), Ready())
        return True

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._fetched.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _become(self, manifest: Manifest, model: LoadedModel, ready: Ready) -> None:
        with self._turns.alone():
            model.become(ready)
            self._model, self.manifest = model, manifest

    def _along_deltas(self, newest: Manifest) -> Ready | None:
        """What the deltas from the version that answers to the newest make of it; None when they do not lead there."""
        try:
            steps = self._steps(newest)
            return None if steps is None else self._model.along([self._checkpoints.delta(step) for step in steps])
        except _UNREADABLE as error:
            log.warning("version %d is read whole: %s", newest.version, error)
            return None

    def _steps(self, newest: Manifest) -> list[int] | None:
        """The versions whose deltas lead to the newest, oldest first; None when there are none, or the whole is less
        to read."""
        steps: list[int] = []
        step, left = newest, sum(file.size for name, file in newest.files.items() if name != FILE)
        while step.delta is not None and step.files[GRAPH].sha256 == self._model.graph:
            left -= step.files[FILE].size
            steps.append(step.version)
            if left < 0:
                return None
            if step.delta.parent == self.version:
                return steps[::-1] if step.delta.content_sha256 == self.manifest.content_sha256 else None
            step = self._checkpoints.read(step.delta.parent)
        return None

    def _keep_looking(self) -> None:
        while not self._closing.wait(self._every_s):
            try:
                self.refresh()
            except _UNREADABLE as error:
                log.warning("version %d answers on: %s", self.version, error)


class _Turns:
    """Any number of requests at a time, or one exchange; a waiting exchange goes before requests that come after."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._requests = 0
        self._exchanging = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._exchanging)
            self._requests += 1
        try:
            yield
        finally:
            with self._changed:
                self._requests -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._exchanging = True
            self._changed.wait_for(lambda: self._requests == 0)
        try:
            yield
        finally:
            with self._changed:
                self._exchanging = False
                self._changed.notify_all()

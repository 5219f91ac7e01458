"""A served model in your own process that keeps itself fresh.

    from stream_learner.serving import follow

    with follow("state/checkpoints/conversion") as model:
        model.predict(user=["u1"], item=["i7"], time=[1_767_225_600_000_000])["probability"]

The champion pointer is looked at every `every_s` seconds. A new version's variables are read beside the requests, in a
thread of their own, and checked against the manifest; requests then wait for as long as a few references are exchanged.
One request is answered by one version, never by parts of two. While a version is read it takes memory beside the one
that answers; nothing does afterwards. What cannot be read is logged and tried again, and the version before answers on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.errors import RetryableError, StateError
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.loaded import LoadedModel
from stream_learner.publishing.storage import LocalStorage

log = logging.getLogger(__name__)

_UNREADABLE = (RetryableError, StateError, OSError, ValueError, KeyError, TypeError, tf.errors.OpError)


def follow(folder: str | Path, every_s: float = 1.0) -> Follower:
    """The champion in a model's folder, `<root>/<model>`, and its successors. StateError when there is none yet."""
    return Follower(Path(folder), every_s)


class Follower:
    """Answers from any number of threads. Use in a `with`, or `close` it."""

    def __init__(self, folder: Path, every_s: float) -> None:
        self._checkpoints = Checkpoints(LocalStorage(folder), folder.name, keep=2)
        self._every_s = every_s
        self._turns = _Turns()
        pointer = self._checkpoints.pointer()
        if pointer is None:
            raise StateError(f"{folder}: no version has been published there yet")
        self.version = pointer.version
        with self._checkpoints.files(pointer.version) as files:
            self._model = LoadedModel(files)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="follow", daemon=True)
        self._thread.start()

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
        with self._checkpoints.files(pointer.version) as files:
            if self._model.fits(files):
                values = self._model.read(files)
                with self._turns.alone():
                    self._model.exchange(values)
                    self.version = pointer.version
            else:  # of another config
                model = LoadedModel(files)
                with self._turns.alone():
                    self._model, self.version = model, pointer.version
        return True

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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

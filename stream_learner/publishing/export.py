"""Versions as SavedModels: the graph once, the variables each time.

    saved_model.pb                          the graph, equal bytes in every version of a config
    variables/variables.index, .data-...    every weight, id table and travelling aggregate; equal values, equal bytes

What the two have in common with the versions of other tasks stands in `artefact.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.config import event_schema
from stream_learner.errors import StateError
from stream_learner.events import ExampleBatch
from stream_learner.learning.features import Aggregate, FeatureSchema
from stream_learner.learning.learner import Learner
from stream_learner.learning.model import SCORE_ROWS
from stream_learner.learning.shapes import filled, rows_given
from stream_learner.publishing.artefact import Artefact, Variables
from stream_learner.publishing.loaded import LoadedModel
from stream_learner.publishing.serving import Serving
from stream_learner.publishing.travelling import Tables, Travelling, served_numbers, travelling
from stream_learner.settings import Config

__all__ = ["Exporter", "served_numbers"]

TOLERANCE = 1e-6  # largest difference of a probability that the check of a version lets pass


class Exporter:
    """Writes, checks and reads the files of versions.

    `folder` is where the graph is put down for a moment while it is made. `prepare` comes before `write` and
    `content_sha256`.
    """

    def __init__(self, config: Config, features: FeatureSchema, aggregates: Sequence[Aggregate], folder: Path) -> None:
        self.entries: tuple[Travelling, ...] = travelling(config, event_schema(config), features, aggregates)
        self._features = features
        self._artefact = Artefact(folder)
        self._checked: LoadedModel | None = None  # on the writer thread

    def prepare(self, learner: Learner) -> None:
        """Traces the graph that all versions of this config share. Raises RetryableError when it cannot be saved."""
        serving = Serving(learner.candidate, self.entries)
        self._artefact.prepare(serving.variables, serving.signatures())

    def padded(self, tables: Tables) -> Variables:
        """The travelling tables, with at least the keys of `entries`, by the names of `Serving.variables`."""
        arrays: Variables = {}
        for entry in self.entries:
            keys, values = entry.padded(*tables[entry.key])
            arrays[f"aggregates/{entry.key}/keys"] = keys
            arrays[f"aggregates/{entry.key}/values"] = values
        return arrays

    def write(self, folder: Path, arrays: Variables) -> None:
        """Puts `saved_model.pb` and `variables/` into `folder`; nothing is fsynced.

        `arrays`: those of `Learner.version_variables` and of `padded`. Raises RetryableError when the disk refuses.
        """
        self._artefact.write(folder, arrays)

    def signature(self) -> dict[str, Any]:
        """Signature -> {"inputs": {name: type}, "outputs": {name: type}}; every one is a column of B values, but
        `ids` and `numbers` of `from_fingerprints`, which are [B, features used]."""
        return self._artefact.signature

    def content_sha256(self, arrays: Variables) -> str:
        """SHA-256 of what a version says: its graph, then every array in name order; `arrays` as of `write`."""
        return self._artefact.content_sha256(arrays)

    def load(self, folder: Path) -> tuple[Variables, dict[str, tuple[NDArray[np.uint64], NDArray[np.float32]]]]:
        """What a version was made of: the model's variables, and the tables that `padded` was given.

        Raises StateError when the files are torn or of another config.
        """
        arrays = self._artefact.load(folder)
        tables = {}
        for entry in self.entries:
            pair = [arrays.pop(f"aggregates/{entry.key}/{part}", None) for part in ("keys", "values")]
            if pair[0] is None or pair[1] is None or pair[1].shape != (entry.capacity, len(entry.names)):
                raise StateError(f"{folder}: holds no aggregates of {entry.key!r} as this config has them")
            tables[entry.key] = entry.unpadded(pair[0], pair[1])
        return arrays, tables

    def check(self, folder: Path, examples: ExampleBatch, expected: NDArray[np.float32]) -> None:
        """Loads a version with TensorFlow and asks it: `examples` must get the worker's own scores.

        `expected`: the champion's logits [n] for `examples`. Raises StateError when the version does not load, a
        probability differs by more than `TOLERANCE`, or the default signature does not answer with a finite number.
        """
        try:
            loaded = self._loaded(folder)
            worst = self._largest_difference(loaded.signatures["from_fingerprints"], examples, expected)
            answer = self._default_answer(loaded.signatures["serving_default"])
        except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            raise StateError(f"{folder}: the version does not load or answer: {error}") from error
        if not worst <= TOLERANCE:
            raise StateError(f"{folder}: scores differ from the worker's by up to {worst:.3g}, allowed {TOLERANCE:g}")
        if not np.isfinite(answer).all():
            raise StateError(f"{folder}: serving_default answers {answer} for a row with nothing known")

    def _loaded(self, folder: Path) -> LoadedModel:
        """The version in memory; where an earlier one with the same graph was loaded, only its variables are read."""
        if self._checked is None or not self._checked.fits(folder):
            self._checked = LoadedModel(folder)
        else:
            self._checked.load(folder)
        return self._checked

    def _largest_difference(self, signature: Any, examples: ExampleBatch, expected: NDArray[np.float32]) -> float:
        ids = self._features.take_ids(examples.ids)
        numbers = self._features.take_numbers(examples.numbers)
        worst = 0.0
        for start in range(0, len(examples), SCORE_ROWS):
            part = slice(start, min(start + SCORE_ROWS, len(examples)))
            rows = rows_given(part.stop - start)
            columns: Mapping[str, NDArray[Any]] = {
                "ids": ids[part],
                "numbers": numbers[part],
                "time": examples.time[part],
            }
            answer = signature(**{name: tf.constant(filled(column, rows)) for name, column in columns.items()})
            logits = answer["logit"][: part.stop - start].numpy()
            difference = np.abs(_probability(logits) - _probability(expected[part]))
            worst = float(np.maximum(worst, np.max(difference)))  # unlike max, hands NaN on, which fails the check
        return worst

    def _default_answer(self, signature: Any) -> NDArray[np.float32]:
        """The probability for one row of unknown ids, no numbers, at the epoch."""
        fillers = {tf.string: "unknown", tf.float32: float("nan"), tf.int64: 0}
        specs = signature.structured_input_signature[1]
        inputs = {name: tf.constant([fillers[spec.dtype]], spec.dtype) for name, spec in specs.items()}
        answer: NDArray[np.float32] = signature(**inputs)["probability"].numpy()
        return answer


def _probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return out

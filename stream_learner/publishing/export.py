"""Versions as SavedModels: the graph once, the variables each time.

    saved_model.pb                          the graph, equal bytes in every version of a config
    variables/variables.index, .data-...    every weight, id table and travelling aggregate; equal values, equal bytes

The graph is traced and saved when the worker starts; a version is that file and one `SaveV2` of its arrays under the
graph's own checkpoint keys, which costs a sixth of a full export and reloads the same. Writing needs only numpy
arrays, so it can be done by another thread than the one that learns.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.config import event_schema
from stream_learner.errors import RetryableError, StateError
from stream_learner.events import ExampleBatch
from stream_learner.learning.features import Aggregate, FeatureSchema
from stream_learner.learning.learner import Learner
from stream_learner.learning.model import SCORE_ROWS
from stream_learner.publishing.graph_file import canonical
from stream_learner.publishing.loaded import GRAPH, PREFIX, LoadedModel, key, name_of
from stream_learner.publishing.serving import Serving
from stream_learner.publishing.travelling import Tables, Travelling, served_numbers, travelling
from stream_learner.settings import Config

__all__ = ["Exporter", "served_numbers"]

Variables = dict[str, NDArray[Any]]

TOLERANCE = 1e-6  # largest difference of a probability that the check of a version lets pass
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


class Exporter:
    """Writes, checks and reads the files of versions.

    `folder` is where the graph is put down for a moment while it is made. `prepare` comes before `write` and
    `content_sha256`.
    """

    def __init__(self, config: Config, features: FeatureSchema, aggregates: Sequence[Aggregate], folder: Path) -> None:
        self.entries: tuple[Travelling, ...] = travelling(config, event_schema(config), features, aggregates)
        self._features = features
        self._folder = folder
        self._graph = b""
        self._object_graph = b""
        self._keys: dict[str, str] = {}  # name of a variable -> its key in the variables file
        self._signature: dict[str, Any] = {}
        self._checked: LoadedModel | None = None  # on the writer thread

    def prepare(self, learner: Learner) -> None:
        """Traces the graph that all versions of this config share. Raises RetryableError when it cannot be saved."""
        serving = Serving(learner.candidate, self.entries)
        root, functions = tf.Module(), serving.signatures()
        root.state = serving.variables
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".graph-") as scratch:
                tf.saved_model.save(root, scratch, signatures=functions)
                self._graph = canonical((Path(scratch) / GRAPH).read_bytes())
                reader = tf.train.load_checkpoint(str(Path(scratch) / PREFIX))
                self._object_graph = reader.get_tensor(_OBJECT_GRAPH)
                known = set(reader.get_variable_to_shape_map()) - {_OBJECT_GRAPH}
        except (OSError, tf.errors.OpError) as error:
            raise RetryableError(f"{self._folder}: the graph of the model cannot be saved: {error}") from error
        self._signature = {name: _described(function) for name, function in functions.items()}
        self._keys = {name: key(name) for name in serving.variables}
        if set(self._keys.values()) != known:
            raise StateError(f"the saved graph holds {sorted(known)}, expected {sorted(self._keys.values())}")

    def write(self, folder: Path, variables: Variables, tables: Tables) -> None:
        """Puts `saved_model.pb` and `variables/` into `folder`; nothing is fsynced.

        `variables` as of `Learner.version_variables`, `tables` with at least the keys of `entries`. Raises
        RetryableError when the disk refuses.
        """
        arrays = self._arrays(variables, tables)
        names = [self._keys[name] for name in arrays]
        try:
            (folder / PREFIX).parent.mkdir(parents=True, exist_ok=True)
            (folder / GRAPH).write_bytes(self._graph)
            tf.raw_ops.SaveV2(
                prefix=str(folder / PREFIX),
                tensor_names=[*names, _OBJECT_GRAPH],
                shape_and_slices=[""] * (len(names) + 1),
                tensors=[*map(tf.constant, arrays.values()), tf.constant(self._object_graph)],
            )
        except (OSError, tf.errors.OpError) as error:
            raise RetryableError(f"{folder}: the version cannot be written: {error}") from error

    def signature(self) -> dict[str, Any]:
        """Signature -> {"inputs": {name: type}, "outputs": {name: type}}; every one is a column of B values, but
        `ids` and `numbers` of `from_fingerprints`, which are [B, features used]."""
        return self._signature

    def content_sha256(self, variables: Variables, tables: Tables) -> str:
        """SHA-256 of what a version says: its graph, then every array in name order."""
        digest = hashlib.sha256(self._graph)
        for name, value in sorted(self._arrays(variables, tables).items()):
            digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()

    def load(self, folder: Path) -> tuple[Variables, dict[str, tuple[NDArray[np.uint64], NDArray[np.float32]]]]:
        """What `write` was given: the model's variables and the travelling tables.

        Raises StateError when the files are torn or of another config.
        """
        try:
            reader = tf.train.load_checkpoint(str(folder / PREFIX))
            held = [one for one in reader.get_variable_to_shape_map() if one != _OBJECT_GRAPH]
            arrays = {name_of(one): np.asarray(reader.get_tensor(one)) for one in held}
        except (OSError, ValueError, IndexError, tf.errors.OpError) as error:
            raise StateError(
                f"{folder}: variables cannot be read: {error}; restore the version or remove it"
            ) from error
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
            self._checked.exchange(self._checked.read(folder))
        return self._checked

    def _largest_difference(self, signature: Any, examples: ExampleBatch, expected: NDArray[np.float32]) -> float:
        ids = self._features.take_ids(examples.ids)
        numbers = self._features.take_numbers(examples.numbers)
        worst = 0.0
        for start in range(0, len(examples), SCORE_ROWS):
            part = slice(start, start + SCORE_ROWS)
            columns = {"ids": ids[part], "numbers": numbers[part], "time": examples.time[part]}
            answer = signature(**{name: tf.constant(column) for name, column in columns.items()})
            difference = np.abs(_probability(answer["logit"].numpy()) - _probability(expected[part]))
            worst = float(np.maximum(worst, np.max(difference)))  # unlike max, hands NaN on, which fails the check
        return worst

    def _default_answer(self, signature: Any) -> NDArray[np.float32]:
        """The probability for one row of unknown ids, no numbers, at the epoch."""
        fillers = {tf.string: "unknown", tf.float32: float("nan"), tf.int64: 0}
        specs = signature.structured_input_signature[1]
        inputs = {name: tf.constant([fillers[spec.dtype]], spec.dtype) for name, spec in specs.items()}
        answer: NDArray[np.float32] = signature(**inputs)["probability"].numpy()
        return answer

    def _arrays(self, variables: Variables, tables: Tables) -> Variables:
        """Everything in the variables file, by the names of `Serving.variables`. Raises StateError on foreign names."""
        arrays = dict(variables)
        for entry in self.entries:
            keys, values = entry.padded(*tables[entry.key])
            arrays[f"aggregates/{entry.key}/keys"] = keys
            arrays[f"aggregates/{entry.key}/values"] = values
        if set(arrays) != set(self._keys):
            raise StateError(f"the graph does not hold {sorted(set(arrays) ^ set(self._keys))}; prepare it first")
        return arrays


def _described(function: Any) -> dict[str, dict[str, str]]:
    """Names and types of a concrete function's inputs and outputs."""
    sides = {"inputs": function.structured_input_signature[1], "outputs": function.structured_outputs}
    return {side: {name: str(spec.dtype.name) for name, spec in sorted(specs.items())} for side, specs in sides.items()}


def _probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return out

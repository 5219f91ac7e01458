"""A SavedModel whose graph is written once and whose variables are written each time.

The graph is traced and saved when the worker starts; a version is that file and one `SaveV2` of its arrays under the
graph's own checkpoint keys, which costs a sixth of a full export and reloads the same. Writing needs only numpy
arrays, so it can be done by another thread than the one that learns.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.errors import RetryableError, StateError
from stream_learner.publishing.graph_file import canonical
from stream_learner.publishing.loaded import GRAPH, PREFIX, key, name_of

Variables = dict[str, NDArray[Any]]

_LENT_BYTES = 1 << 20  # from here on a copy costs more than telling TensorFlow where the array lies
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


class Artefact:
    """Writes and reads the files of versions of one graph. `prepare` comes first.

    `folder` is where the graph is put down for a moment while it is made. Arrays are by the names of the graph's
    variables; texts are arrays of `bytes` objects.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._graph = b""
        self._object_graph = b""
        self._keys: dict[str, str] = {}  # name of a variable -> its key in the variables file
        self.signature: dict[str, Any] = {}  # name -> {"inputs": {name: type}, "outputs": {name: type}}

    def prepare(self, variables: Mapping[str, Any], functions: Mapping[str, Any]) -> None:
        """Saves the graph of concrete functions over variables. Raises RetryableError when it cannot be saved."""
        root = tf.Module()
        root.state = dict(variables)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".graph-") as scratch:
                tf.saved_model.save(root, scratch, signatures=dict(functions))
                self._graph = canonical((Path(scratch) / GRAPH).read_bytes())
                reader = tf.train.load_checkpoint(str(Path(scratch) / PREFIX))
                self._object_graph = reader.get_tensor(_OBJECT_GRAPH)
                known = set(reader.get_variable_to_shape_map()) - {_OBJECT_GRAPH}
        except (OSError, tf.errors.OpError) as error:
            raise RetryableError(f"{self._folder}: the graph of the model cannot be saved: {error}") from error
        self.signature = {name: _described(function) for name, function in functions.items()}
        self._keys = {name: key(name) for name in variables}
        if set(self._keys.values()) != known:
            raise StateError(f"the saved graph holds {sorted(known)}, expected {sorted(self._keys.values())}")

    def write(self, folder: Path, arrays: Variables) -> None:
        """Puts `saved_model.pb` and `variables/` into `folder`; nothing is fsynced. Raises RetryableError when the disk
        refuses, StateError on foreign names."""
        self._require(arrays)
        names = [self._keys[name] for name in arrays]
        try:
            (folder / PREFIX).parent.mkdir(parents=True, exist_ok=True)
            (folder / GRAPH).write_bytes(self._graph)
            tf.raw_ops.SaveV2(
                prefix=str(folder / PREFIX),
                tensor_names=[*names, _OBJECT_GRAPH],
                shape_and_slices=[""] * (len(names) + 1),
                tensors=[*map(_lent, arrays.values()), tf.constant(self._object_graph)],
            )
        except (OSError, tf.errors.OpError) as error:
            raise RetryableError(f"{folder}: the version cannot be written: {error}") from error

    def content_sha256(self, arrays: Variables) -> str:
        """SHA-256 of what a version says: its graph, then every array in name order."""
        self._require(arrays)
        digest = hashlib.sha256(self._graph)
        for name, value in sorted(arrays.items()):
            kind = "text" if value.dtype.hasobject else value.dtype.str
            digest.update(f"{name} {kind} {value.shape}\n".encode())
            if value.dtype.hasobject:
                digest.update(np.array([len(text) for text in value], np.int64).data)
                digest.update(b"".join(value))
            else:
                digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()

    def load(self, folder: Path) -> Variables:
        """What `write` was given. Raises StateError when the files are torn."""
        try:
            reader = tf.train.load_checkpoint(str(folder / PREFIX))
            held = [one for one in reader.get_variable_to_shape_map() if one != _OBJECT_GRAPH]
            return {name_of(one): np.asarray(reader.get_tensor(one)) for one in held}
        except (OSError, ValueError, IndexError, tf.errors.OpError) as error:
            raise StateError(
                f"{folder}: variables cannot be read: {error}; restore the version or remove it"
            ) from error

    def _require(self, arrays: Variables) -> None:
        if set(arrays) != set(self._keys):
            raise StateError(f"the graph does not hold {sorted(set(arrays) ^ set(self._keys))}; prepare it first")


def _lent(array: NDArray[Any]) -> Any:
    """A tensor, where that pays in the array's own memory: of a large table a copy costs more than to write it."""
    plain = array.flags.c_contiguous and array.flags.writeable and not array.dtype.hasobject
    if not plain or array.nbytes < _LENT_BYTES:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _described(function: Any) -> dict[str, dict[str, str]]:
    """Names and types of a concrete function's inputs and outputs."""
    sides = {"inputs": function.structured_input_signature[1], "outputs": function.structured_outputs}
    return {side: {name: str(spec.dtype.name) for name, spec in sorted(specs.items())} for side, specs in sides.items()}

"""A SavedModel in memory whose variables can be those of one version after the other.

All versions of a config share one graph, byte for byte. Loading it costs a second of Python; the variables of another
version are a read of their file and, when all of it has been read, an exchange of a few references.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import tensorflow as tf

GRAPH = "saved_model.pb"
PREFIX = Path("variables") / "variables"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


class LoadedModel:
    """`signatures`: name -> callable, as TensorFlow gives them; they go on answering while variables are exchanged."""

    def __init__(self, folder: Path) -> None:
        """Raises what TensorFlow raises: OSError, ValueError, KeyError, TypeError, tf.errors.OpError."""
        self._graph = graph_sha256(folder)
        self._model = tf.saved_model.load(str(folder))
        self.signatures: Any = self._model.signatures
        state = self._model.state
        self._variables: dict[str, Any] = {key(name): state[name] for name in state}

    def fits(self, folder: Path) -> bool:
        """Whether a version has this graph, so that `read` and `exchange` will do."""
        return graph_sha256(folder) == self._graph

    def read(self, folder: Path) -> list[Any]:
        """The variables of a version, in memory of their own, checked against the checksums in their file."""
        return tf.raw_ops.RestoreV2(  # type: ignore[no-any-return]
            prefix=str(folder / PREFIX),
            tensor_names=list(self._variables),
            shape_and_slices=[""] * len(self._variables),
            dtypes=[variable.dtype for variable in self._variables.values()],
        )

    def exchange(self, values: list[Any]) -> None:
        """Makes these, as `read` gave them, the variables. Copies nothing."""
        for variable, value in zip(self._variables.values(), values, strict=True):
            variable.assign(value, read_value=False)


def graph_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / GRAPH).read_bytes()).hexdigest()


def key(name: str) -> str:
    """The key in the variables file that TensorFlow gives to `root.state[name]`; its escape character is the dot."""
    return f"state/{name.replace('.', '..').replace('/', '.S')}{_SUFFIX}"


def name_of(key: str) -> str:
    """The inverse of `key`."""
    escaped = key.removeprefix("state/").removesuffix(_SUFFIX)
    return "/".join(part.replace("..", ".") for part in escaped.split(".S"))

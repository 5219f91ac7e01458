"""A SavedModel in memory whose variables can be those of one version after the other.

All versions of a config share one graph, byte for byte. Loading it costs a second of Python; to become another version
its variables are written to where they differ, in place: rows of tables are scattered, all else is exchanged. What is
written is made ready beforehand, so that requests need to be kept away for the writing alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.changes import I64, differing
from stream_learner.errors import StateError
from stream_learner.publishing.deltas import Delta, map_names, merged_rows

GRAPH = "saved_model.pb"
PREFIX = Path("variables") / "variables"
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"

_SCATTERED_ROWS = 16_384  # at once: about a MB, so that making them ready keeps no request waiting for Python's lock


@dataclass
class Ready:
    """What makes a model another version, as tensors."""

    scattered: list[tuple[Any, Any, Any]] = field(default_factory=list)  # variable, rows, what they will hold
    assigned: list[tuple[Any, Any]] = field(default_factory=list)  # variable, value


class LoadedModel:
    """`signatures`: name -> callable, as TensorFlow gives them."""

    def __init__(self, folder: Path) -> None:
        """Raises what TensorFlow raises: OSError, ValueError, KeyError, TypeError, tf.errors.OpError."""
        self.graph = graph_sha256(folder)
        self._model = tf.saved_model.load(str(folder))
        self.signatures: Any = self._model.signatures
        state = self._model.state
        self._variables: dict[str, Any] = {name: state[name] for name in state}

    def fits(self, folder: Path) -> bool:
        """Whether a version has this graph, so that it can be had by `whole`, or by its deltas."""
        return graph_sha256(folder) == self.graph

    def whole(self, folder: Path) -> Ready:
        """What leads to a version, by its own files, checked against the checksums in them. One variable is read at a
        time, and of large ones only rows that differ are kept: no second version is ever in memory."""
        ready = Ready()
        for name, variable in self._variables.items():
            value = self._read(folder, name, variable)
            if _scattered(variable):
                after = np.asarray(value)
                rows = _differing(_lent(variable), after)
                ready.scattered += _parts(variable, rows, after[rows])
            else:
                ready.assigned.append((variable, value))
        return ready

    def load(self, folder: Path) -> None:
        """Becomes a version of the same graph, while nothing is asked of it."""
        for name, variable in self._variables.items():
            variable.assign(self._read(folder, name, variable), read_value=False)

    def along(self, deltas: Sequence[Delta]) -> Ready:
        """What leads to a version by the deltas from this one on, in their order. Raises StateError when they are of
        other variables."""
        ready = Ready()
        for name in dict.fromkeys(name for delta in deltas for name in delta.tables):
            variable = self._variable(name)
            rows, values = merged_rows([delta.tables[name] for delta in deltas if name in delta.tables])
            _require_rows(name, variable, rows, values)
            ready.scattered += _parts(variable, rows, values)
        for name_of_keys, name_of_values, stem in map_names(self._variables):
            changes = [delta.maps[stem] for delta in deltas if stem in delta.maps]
            if not any(len(change.gone) or len(change.keys) for change in changes):
                continue
            pair = _lent(self._variables[name_of_keys]), _lent(self._variables[name_of_values])
            for change in changes:
                pair = change.onto(pair)
            ready.assigned += [self._fitting(name_of_keys, pair[0]), self._fitting(name_of_values, pair[1])]
        whole = {name: value for delta in deltas for name, value in delta.whole.items()}
        ready.assigned += [self._fitting(name, value) for name, value in whole.items()]
        return ready

    def become(self, ready: Ready) -> None:
        """Writes what `whole` or `along` made ready. Nothing may be asked meanwhile."""
        for variable, rows, values in ready.scattered:
            tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=values)
        for variable, value in ready.assigned:
            variable.assign(value, read_value=False)

    def values(self) -> dict[str, NDArray[Any]]:
        """Copies of all variables, by their names."""
        return {name: variable.numpy() for name, variable in self._variables.items()}

    def _read(self, folder: Path, name: str, variable: Any) -> Any:
        (value,) = tf.raw_ops.RestoreV2(
            prefix=str(folder / PREFIX), tensor_names=[key(name)], shape_and_slices=[""], dtypes=[variable.dtype]
        )
        return value

    def _variable(self, name: str) -> Any:
        if name not in self._variables:
            raise StateError(f"the delta is of another model: there is no {name}")
        return self._variables[name]

    def _fitting(self, name: str, value: NDArray[Any]) -> tuple[Any, Any]:
        variable = self._variable(name)
        if value.shape != tuple(variable.shape) or value.dtype != variable.dtype.as_numpy_dtype:
            raise StateError(f"the delta is of another model: {name} is {value.dtype} {value.shape}")
        return variable, tf.constant(value)


def graph_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / GRAPH).read_bytes()).hexdigest()


def key(name: str) -> str:
    """The key in the variables file that TensorFlow gives to `root.state[name]`; its escape character is the dot."""
    return f"state/{name.replace('.', '..').replace('/', '.S')}{_SUFFIX}"


def name_of(key: str) -> str:
    """The inverse of `key`."""
    escaped = key.removeprefix("state/").removesuffix(_SUFFIX)
    return "/".join(part.replace("..", ".") for part in escaped.split(".S"))


def _scattered(variable: Any) -> bool:
    return len(variable.shape) == 2 and variable.shape[0] > _SCATTERED_ROWS and variable.dtype.is_floating


def _lent(variable: Any) -> NDArray[Any]:
    """The variable's own memory, read-only; to be let go of before the variable is written to."""
    return np.asarray(memoryview(variable.read_value_no_copy()))


def _differing(before: NDArray[Any], after: NDArray[Any]) -> I64:
    """In parts, for the comparison needs memory of its own."""
    parts = [(start, slice(start, start + _SCATTERED_ROWS)) for start in range(0, len(before), _SCATTERED_ROWS)]
    return np.concatenate([start + differing(before[part], after[part]) for start, part in parts])


def _parts(variable: Any, rows: I64, values: NDArray[Any]) -> Iterator[tuple[Any, Any, Any]]:
    for start in range(0, len(rows), _SCATTERED_ROWS):
        part = slice(start, start + _SCATTERED_ROWS)
        yield variable, tf.constant(rows[part]), tf.constant(values[part])


def _require_rows(name: str, variable: Any, rows: I64, values: NDArray[Any]) -> None:
    height = variable.shape[0]
    fits = rows.dtype == np.int64 and rows.ndim == 1 and values.shape == (len(rows), *variable.shape[1:])
    if not fits or values.dtype != variable.dtype.as_numpy_dtype:
        raise StateError(f"the delta is of another model: {name} is {values.dtype} {values.shape}")
    if len(rows) and (rows[0] < 0 or rows[-1] >= height or (np.diff(rows) <= 0).any()):
        raise StateError(f"the delta names rows of {name} that are not there")

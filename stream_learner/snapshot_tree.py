"""A state as a snapshot stores it: a tree of plain JSON values, and beside it the arrays that were its leaves."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import Changed

Leaf = NDArray[Any] | Changed
Leaves = list[tuple[str, Leaf]]  # with their places in the state ("learner/candidate/table/user")

_ARRAY = "__array__"


def split(value: Any, place: str, leaves: Leaves) -> Any:
    """The JSON form of a state; its arrays are appended to `leaves`.

    Leaves may be numpy arrays (any dtype but object), what `Changed` of one, numpy scalars, int, float, str, bool,
    None, lists and nested dicts with string keys; anything else is a TypeError that names its place.
    """
    if isinstance(value, np.ndarray):
        leaves.append((place, _storable(value, place)))
        return {_ARRAY: len(leaves) - 1}
    if isinstance(value, Changed):
        leaves.append((place, Changed(value.rows, _storable(value.values, place), value.height)))
        return {_ARRAY: len(leaves) - 1}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
        return value
    if isinstance(value, (int, float)):  # Duration and the like come back as plain numbers
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, list):
        return [split(inner, f"{place}/{i}", leaves) for i, inner in enumerate(value)]
    if isinstance(value, dict):
        if not all(isinstance(key, str) and key != _ARRAY for key in value):
            raise TypeError(f"state at {place or '/'}: keys must be strings other than {_ARRAY!r}: {list(value)[:5]}")
        return {key: split(inner, f"{place}/{key}".lstrip("/"), leaves) for key, inner in value.items()}
    raise TypeError(f"state at {place or '/'}: a {type(value).__name__} cannot be stored")


def join(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """The state again, given its arrays."""
    if isinstance(value, list):
        return [join(inner, arrays) for inner in value]
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        return {key: join(inner, arrays) for key, inner in value.items()}
    return value


def _storable(array: NDArray[Any], place: str) -> NDArray[Any]:
    """C order, little-endian; a dtype that its own description does not give back (object, bfloat16) is refused."""
    little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    if little.dtype.hasobject or to_dtype(from_dtype(little.dtype)) != little.dtype:
        raise TypeError(f"state at {place}: arrays of dtype {array.dtype} cannot be stored")
    return little


def from_dtype(dtype: np.dtype[Any]) -> str:
    return repr(np.lib.format.dtype_to_descr(dtype))


def to_dtype(text: str) -> np.dtype[Any]:
    return np.lib.format.descr_to_dtype(ast.literal_eval(text))

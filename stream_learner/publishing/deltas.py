"""What differs between a version and its parent: `delta.npz`, beside the graph in the version's folder.

    rows/<table>, values/<table>           rows of an embedding table that differ, ascending, and what they hold now
    gone/<map>                             tombstones: places, in the parent, of keys of a sorted map (ids of an exact
                                           table, keys of travelling aggregates) that left or hold something else now
    keys/<map>, held/<map>, pad/<map>      keys that came or hold something else now, ascending; what they hold; what
                                           fills the map up behind its last key
    whole/<name>                           every other array: dense weights, normaliser

Tombstones are places, so a version made after an erasure names no id that was erased. Equal bits are no difference, so
a delta is a function of the two versions' content and of nothing else, however rows came to be touched in between.
numpy reads the file: `numpy.load("delta.npz")`.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64, Changed, differing
from stream_learner.errors import StateError
from stream_learner.learning.tables import PADDING

FILE = "delta.npz"

Arrays = dict[str, NDArray[Any]]

_TABLE = "table/"
_MAPS = (("fingerprints", "rows"), ("keys", "values"))  # how the two arrays of a sorted map are called
_TORN = (ValueError, KeyError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error, NotImplementedError)


@dataclass(frozen=True)
class MapChange:
    """What differs of a map from sorted keys to values, kept in two arrays of fixed height."""

    gone: I64  # [g] places of keys that left it, or hold something else now, ascending
    keys: I64  # [k] that came, or hold something else now, ascending
    held: NDArray[Any]  # [k, ...]
    pad: NDArray[Any]  # [1, ...]

    @classmethod
    def between(cls, before: tuple[I64, NDArray[Any]], after: tuple[I64, NDArray[Any]]) -> MapChange:
        """Both as keys [height] and values [height, ...]."""
        (old_keys, old), (new_keys, new) = _filled(before), _filled(after)
        at = np.searchsorted(old_keys, new_keys)
        same = at < len(old_keys)
        same[same] = old_keys[at[same]] == new_keys[same]
        same[same] = _same_rows(old[at[same]], new[same])
        stays = np.zeros(len(old_keys), bool)
        stays[at[same]] = True
        pad = (after if len(new_keys) < len(after[0]) else before)[1][-1:]
        return cls(np.flatnonzero(~stays), new_keys[~same], new[~same], pad.copy())

    def onto(self, before: tuple[I64, NDArray[Any]]) -> tuple[I64, NDArray[Any]]:
        """The two arrays as they are now. Raises StateError when they do not fit."""
        keys, values = _filled(before)
        if len(self.gone) and (self.gone[0] < 0 or self.gone[-1] >= len(keys) or (np.diff(self.gone) <= 0).any()):
            raise StateError("a tombstone is of a place where no key is")
        keys, values = np.delete(keys, self.gone), np.delete(values, self.gone, axis=0)
        at = np.searchsorted(keys, self.keys)
        keys, values = np.insert(keys, at, self.keys), np.insert(values, at, self.held, axis=0)
        height = len(before[0])
        if len(keys) > height or (np.diff(keys) <= 0).any():
            raise StateError("its keys do not fit between those that are there")
        out_keys = np.full(height, PADDING, np.int64)
        out = np.repeat(self.pad, height, axis=0)
        out_keys[: len(keys)], out[: len(keys)] = keys, values
        return out_keys, out


@dataclass(frozen=True)
class Delta:
    """By name: of tables, of sorted maps (by the name without its last part), and all other arrays as they are."""

    tables: dict[str, tuple[I64, NDArray[Any]]]
    maps: dict[str, MapChange]
    whole: Arrays

    @property
    def size_bytes(self) -> int:
        """Of all its arrays."""
        return sum(array.nbytes for array in self._arrays().values())

    def to_bytes(self) -> bytes:
        """The file; equal deltas, equal bytes."""
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **dict(sorted(self._arrays().items())))
        return file.getvalue()

    def _arrays(self) -> Arrays:
        out: Arrays = {}
        for name, (rows, values) in self.tables.items():
            out |= {f"rows/{name}": rows, f"values/{name}": values}
        for name, change in self.maps.items():
            out |= {f"{part}/{name}": getattr(change, part) for part in ("gone", "keys", "held", "pad")}
        return out | {f"whole/{name}": value for name, value in self.whole.items()}

    @classmethod
    def from_bytes(cls, content: bytes) -> Delta:
        """StateError when it is no delta."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                found: dict[str, Arrays] = {}
                for name in file.files:
                    part, _, of = name.partition("/")
                    found.setdefault(part, {})[of] = file[name]
            tables = {name: (rows, found["values"][name]) for name, rows in found.get("rows", {}).items()}
            maps = {
                name: MapChange(gone, *(found[part][name] for part in ("keys", "held", "pad")))
                for name, gone in found.get("gone", {}).items()
            }
            for keys, held in [*tables.values(), *((change.keys, change.held) for change in maps.values())]:
                _require(keys, held)
            for change in maps.values():
                _require(change.gone, change.gone)
                _require(np.zeros(1, np.int64), change.pad)
            return cls(tables, maps, found.get("whole", {}))
        except _TORN as error:
            raise StateError(f"{FILE} is torn: {error}") from error


def between(before: Arrays, after: Mapping[str, NDArray[Any] | Changed]) -> Delta:
    """`before` whole; of tables, `after` may hold `Changed`, with at least the rows that differ. Equal names, types and
    shapes on both sides."""
    tables, maps, whole, paired = {}, {}, dict(after), set()
    for keys, values, stem in map_names(after):
        paired |= {keys, values}
        maps[stem] = MapChange.between((before[keys], before[values]), (_array(after[keys]), _array(after[values])))
    for name, value in after.items():
        if name in paired or name.startswith(_TABLE):
            del whole[name]
        if name.startswith(_TABLE):
            tables[name] = _rows_between(before[name], value)
    return Delta(tables, maps, {name: _array(value) for name, value in whole.items()})


def map_names(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Of every sorted map among the arrays: the name of its keys, of its values, and what the two have in common."""
    there = set(names)
    pairs = ((f"{name.rpartition('/')[0]}/{keys}", keys, values) for name in sorted(there) for keys, values in _MAPS)
    stems = dict.fromkeys((full.rpartition("/")[0], keys, values) for full, keys, values in pairs if full in there)
    return [(f"{s}/{k}", f"{s}/{v}", s) for s, k, v in stems if f"{s}/{v}" in there and not s.startswith(_TABLE)]


def merged_rows(changes: list[tuple[I64, NDArray[Any]]]) -> tuple[I64, NDArray[Any]]:
    """What changed of a table one after the other, as one: ascending, the last of each row."""
    if len(changes) == 1:
        return changes[0]
    rows = np.concatenate([rows for rows, _ in reversed(changes)])
    values = np.concatenate([values for _, values in reversed(changes)])
    unique, first = np.unique(rows, return_index=True)
    return unique, values[first]


def _require(numbers: NDArray[Any], values: NDArray[Any]) -> None:
    """ValueError unless the first are int64 [k], and the second as many."""
    if numbers.dtype != np.int64 or numbers.ndim != 1 or values.shape[:1] != numbers.shape:
        raise ValueError(f"{numbers.dtype} {numbers.shape} with {values.dtype} {values.shape}")


def _rows_between(before: NDArray[Any], after: NDArray[Any] | Changed) -> tuple[I64, NDArray[Any]]:
    if isinstance(after, Changed):
        differ = differing(np.take(before, after.rows, axis=0), after.values)
        if len(differ) == len(after.rows):
            return after.rows, after.values.copy()
        return after.rows[differ], after.values[differ]
    rows = differing(before, after)
    return rows, after[rows]


def _array(value: NDArray[Any] | Changed) -> NDArray[Any]:
    if isinstance(value, Changed):
        raise TypeError("only tables are told by their changes")
    return value


def _filled(pair: tuple[I64, NDArray[Any]]) -> tuple[I64, NDArray[Any]]:
    count = int(np.searchsorted(pair[0], PADDING))
    return pair[0][:count], pair[1][:count]


def _same_rows(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are equal in every bit."""
    bits = np.dtype(f"u{one.dtype.itemsize}")
    same: NDArray[np.bool_] = (one.view(bits) == other.view(bits)).all(axis=tuple(range(1, one.ndim)))
    return same

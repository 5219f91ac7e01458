"""Mergeable sketches of many columns, and how far two of them are apart.

A number's code is the upper half of its float32 bits in sortable order: log-linear buckets, as in HdrHistogram, of
0.8 % width, whole numbers up to 128 exact, zero, infinities and missing on their own. An id's code is one of 64 buckets
of its fingerprint. Counts of codes add up, over slides and over workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import MISSING_ID
from stream_learner.judging.tails import f_tail

CODES = 65_536
MISSING = CODES - 1
ID_BUCKETS = 64

_TOLD = 4  # buckets of ids that are told as one
_PRIOR_PIECES = 10.0  # degrees of freedom of the prior belief about overdispersion, which is 1

ColumnKind = Literal["number", "id", "flag"]
Codes = NDArray[np.uint16]
F64 = NDArray[np.float64]


def number_codes(values: NDArray[np.float32]) -> Codes:
    """Codes of numbers [...], rising with them; NaN = MISSING."""
    bits = np.ascontiguousarray(values + np.float32(0.0)).view(np.uint32)  # -0.0 + 0.0 is 0.0
    sortable = np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000)) >> 16
    return np.where(np.isnan(values), MISSING, sortable).astype(np.uint16)


def flag_codes(flags: NDArray[np.bool_]) -> Codes:
    """0 or 1. [...]"""
    return flags.astype(np.uint16)


def id_codes(ids: NDArray[np.uint64]) -> Codes:
    """Bucket of each fingerprint [...]."""
    return np.where(ids == MISSING_ID, np.uint64(MISSING), ids % np.uint64(ID_BUCKETS)).astype(np.uint16)


@dataclass(frozen=True, slots=True)
class Sketch:
    """The counted codes of some rows."""

    rows: int
    keys: NDArray[np.uint32]  # column << 16 | code, ascending
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, codes: Codes) -> Sketch:
        """From codes [n, columns]."""
        columns = codes.shape[1]
        flat = (codes.astype(np.uint32) + np.arange(columns, dtype=np.uint32) * np.uint32(CODES)).ravel()
        if len(flat) < columns * CODES // 8:  # a few are sorted sooner than all codes are gone through
            keys, counts = np.unique(flat, return_counts=True)
            return cls(len(codes), keys, counts.astype(np.int64))
        dense_counts = np.bincount(flat, minlength=columns * CODES)
        keys = np.flatnonzero(dense_counts).astype(np.uint32)
        return cls(len(codes), keys, dense_counts[keys])

    @classmethod
    def merged(cls, parts: Sequence[Sketch]) -> Sketch:
        """All rows of `parts` (at least one) in one."""
        keys, at = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
        counts = np.zeros(len(keys), np.int64)
        np.add.at(counts, at, np.concatenate([part.counts for part in parts]))
        return cls(sum(part.rows for part in parts), keys, counts)

    def capture(self) -> dict[str, Any]:
        return {"rows": self.rows, "keys": self.keys, "counts": self.counts}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Sketch:
        return cls(int(state["rows"]), state["keys"], state["counts"])


def dense(parts: Sequence[Sketch], columns: int) -> NDArray[np.int64]:
    """Counts [columns, CODES] of several sketches together."""
    total = np.zeros(columns * CODES, np.int64)
    for part in parts:
        total[part.keys] += part.counts
    return total.reshape(columns, CODES)


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the arriving examples are from the reference, in one column."""

    psi: float  # sum of (a - r) ln(a / r) over bins; no share below half an example of the smaller side
    js: float  # Jensen-Shannon divergence in bits, 0 to 1
    chance: float  # p-value of equal laws
    marked: float  # share of the arriving examples that are missing; of a flag's, that are set
    marked_before: float
    marked_chance: float  # p-value of equal shares


@dataclass(frozen=True, slots=True)
class Shares:
    """How one column is spread over its bins, arriving and reference examples; shares [bins] add up to 1."""

    bins: list[str]
    now: F64
    reference: F64


class Reference:
    """The bins that a reference defines for each column, and its counts in them.

    A number's bins are quantiles, with one of its own for a value that fills a whole quantile and one for missing; an
    id's are its buckets. `kinds` says per column which it is. Overdispersion (clicks come in sessions, hours differ)
    is measured between the pieces of the reference and taken out of the test.
    """

    def __init__(self, parts: Sequence[Sketch], kinds: Sequence[ColumnKind], bins: int) -> None:
        self.rows = sum(part.rows for part in parts)
        columns = len(kinds)
        counts = dense(parts, columns)
        self._bins = [_bin_names(counts[column], kind, bins) for column, kind in enumerate(kinds)]
        maps = [_bin_map(counts[column], kind, bins) for column, kind in enumerate(kinds)]
        self._width = max(int(row.max()) for row in maps) + 1 if maps else 1
        self._bin_of = np.array(maps, np.int64).reshape(columns, CODES) + np.arange(columns)[:, None] * self._width
        self._counts = self._binned(parts)
        pieces = np.stack([self._binned([part]) for part in parts])
        self._spread = [_overdispersion(pieces[:, column]) for column in range(columns)]
        marks = [1 if kind == "flag" else MISSING for kind in kinds]
        self._marked = [int(maps[column][mark]) for column, mark in enumerate(marks)]
        self._marked_spread = [
            _overdispersion(_in_two(pieces[:, column], bin_)) for column, bin_ in enumerate(self._marked)
        ]

    def distances(self, parts: Sequence[Sketch]) -> list[Distance]:
        """One per column; both sides must hold rows."""
        now = self._binned(parts)
        return [self._distance(now[column], column) for column in range(len(now))]

    def shares(self, parts: Sequence[Sketch]) -> list[Shares]:
        """One per column; both sides must hold rows."""
        now = self._binned(parts)
        return [
            Shares(names, _folded(now[column], len(names)), _folded(self._counts[column], len(names)))
            for column, names in enumerate(self._bins)
        ]

    def _distance(self, now: F64, column: int) -> Distance:
        then = self._counts[column]
        share, share_before = now / now.sum(), then / then.sum()
        marked = self._marked[column]
        both = np.stack([now, then])
        return Distance(
            psi=psi(share, share_before, 0.5 / min(now.sum(), then.sum())),
            js=jensen_shannon(share, share_before),
            chance=_chance(both, self._spread[column]),
            marked=float(share[marked]),
            marked_before=float(share_before[marked]),
            marked_chance=_chance(_in_two(both, marked), self._marked_spread[column]),
        )

    def _binned(self, parts: Sequence[Sketch]) -> F64:
        """Counts [columns, width]."""
        columns = len(self._bin_of)
        total = np.zeros(columns * self._width)
        for part in parts:
            at = self._bin_of.ravel()[part.keys]
            total += np.bincount(at, part.counts, minlength=len(total))
        return total.reshape(columns, self._width)


def psi(now: F64, then: F64, floor: float) -> float:
    """Population stability index of shares [bins], none of which counts for less than `floor`."""
    now, then = np.maximum(now, floor), np.maximum(then, floor)
    both = (now > floor) | (then > floor)
    return float(((now - then) * np.log(now / then))[both].sum())


def jensen_shannon(now: F64, then: F64) -> float:
    """Jensen-Shannon divergence of shares [bins] in bits (Lin, IEEE Trans. Information Theory 1991)."""
    middle = (now + then) / 2
    total = 0.0
    for side in (now, then):
        some = side > 0
        total += float((side[some] * np.log2(side[some] / middle[some])).sum())
    return total / 2


def _in_two(counts: F64, chosen: int) -> F64:
    """Counts [rows, bins] as [rows, 2]: the chosen bin and the rest."""
    return np.stack([counts[:, chosen], counts.sum(axis=1) - counts[:, chosen]], axis=1)


def _chance(table: F64, spread: tuple[float, float]) -> float:
    """p-value of equal laws in the two rows of counts, overdispersed as `_overdispersion` says."""
    bins = int(np.count_nonzero(table.sum(axis=0))) - 1
    return f_tail(_homogeneity(table) / bins / spread[0], bins, spread[1]) if bins > 0 else 1.0


def _homogeneity(table: F64) -> float:
    """Pearson's chi-square of equal laws in the rows of counts [rows, bins]; empty rows and bins say nothing."""
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum() if table.size else table
    return float(((table - expected) ** 2 / expected).sum()) if table.size else 0.0


def _overdispersion(pieces: F64) -> tuple[float, float]:
    """Pearson's statistic per degree of freedom among the pieces [k, bins], at least 1, and its degrees of freedom."""
    pieces = pieces[pieces.sum(axis=1) > 0][:, pieces.sum(axis=0) >= 5 * len(pieces)]
    freedom = max(len(pieces) - 1, 0) * max(pieces.shape[1] - 1, 0)
    seen = _homogeneity(pieces) if freedom else 0.0
    return max(1.0, (seen + _PRIOR_PIECES) / (freedom + _PRIOR_PIECES)), freedom + _PRIOR_PIECES


def _bin_map(counts: NDArray[np.int64], kind: ColumnKind, bins: int) -> NDArray[np.int64]:
    """The bin of each code, [CODES]; missing has the last."""
    codes = np.arange(CODES)
    if kind == "id":
        return np.minimum(codes, ID_BUCKETS)
    if kind == "flag":
        return np.minimum(codes, 2)
    edges = _edges(counts[:MISSING], bins)
    found = np.searchsorted(edges, codes, side="left")
    found[MISSING] = len(edges) + 1
    return found


def _bin_names(counts: NDArray[np.int64], kind: ColumnKind, bins: int) -> list[str]:
    """What people call the bins of a column. Buckets of ids have no meaning: neighbours are told together."""
    if kind == "id":
        return [*(f"ids {first} to {first + _TOLD - 1}" for first in range(0, ID_BUCKETS, _TOLD)), "missing"]
    if kind == "flag":
        return ["no", "yes", "missing"]
    edges = [f"{value:.4g}" for value in _values(_edges(counts[:MISSING], bins)).tolist()]
    return [*(f"to {edge}" for edge in edges), f"above {edges[-1]}" if edges else "known", "missing"]


def _folded(counts: F64, names: int) -> F64:
    """Shares of a column's bins as `_bin_names` tells them."""
    if names == ID_BUCKETS // _TOLD + 1:
        told = counts[:ID_BUCKETS].reshape(-1, _TOLD).sum(axis=1)
        counts = np.append(told, counts[ID_BUCKETS])
    return np.asarray(counts[:names] / counts.sum(), np.float64)


def _values(codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """The least number of each code: the inverse of `number_codes`."""
    bits = codes.astype(np.uint32) << np.uint32(16)
    return np.where(bits >> 31, bits & np.uint32(0x7FFFFFFF), ~bits).astype(np.uint32).view(np.float32)


def _edges(counts: NDArray[np.int64], bins: int) -> NDArray[np.int64]:
    """Upper edges (codes) of the quantile bins; bin k holds edges[k-1] < code <= edges[k].

    A code that is several quantiles at once gets an edge just below it too, and so a bin of its own.
    """
    total = int(counts.sum())
    if not total:
        return np.empty(0, np.int64)
    reach = np.cumsum(counts)
    quantiles = np.searchsorted(reach, np.arange(1, bins) / bins * total, side="left")
    values, times = np.unique(quantiles, return_counts=True)
    atoms = values if bins == 2 else values[times > 1]
    return np.unique(np.concatenate([values, atoms - 1]))

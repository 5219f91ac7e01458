"""Input drift: the population stability index of what arrives now against what the champion was trained on.

PSI = sum over bins of (a - r) * ln(a / r), a and r the shares of the arriving and the reference examples in a bin
(Kullback's symmetric divergence; Siddiqi, Credit Risk Scorecards, 2006, with its rule of thumb of 0.25). A number's
bins are quantiles of its reference, with a bin of its own for a value that fills a whole quantile and one for
missing; an id's bins are 16 buckets of its fingerprint, and missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import MISSING_ID, ExampleBatch
from stream_learner.judging.growing import GrowingColumn
from stream_learner.settings import Drift

ID_BUCKETS = 16
_SAMPLE_ROWS = 32_768  # rows kept at most: at 10 bins their own noise in PSI is below 0.001
_ARRIVALS, _TRAINING = 7301, 7302  # stage constants of the two samples' random draws


class InputDrift:
    """Watches columns of the examples: `numbers` and `ids` map a feature's name to its column in the batch."""

    def __init__(self, numbers: Mapping[str, int], ids: Mapping[str, int], settings: Drift, seed: int) -> None:
        self._numbers = dict(numbers)
        self._ids = dict(ids)
        self._settings = settings
        capacity = max(_SAMPLE_ROWS, 4 * settings.min_examples)
        self._arrivals = _Sample(len(numbers) + len(ids), capacity, (seed, _ARRIVALS))
        self._training = _Sample(len(numbers) + len(ids), capacity, (seed, _TRAINING))
        self._rebased_at: int | None = None
        self._reference: dict[str, _Reference] = {}

    def observe(self, arrived: ExampleBatch, slide: int, at: int) -> None:
        """Takes in the examples that arrived in a slide ending at `at` (us), and lets go of what left the window."""
        self._arrivals.add(self._columns(arrived), slide, at)
        self._arrivals.keep_after(at - self._settings.window)

    def learned(self, matured: ExampleBatch, slide: int, at: int) -> None:
        """Takes in the examples learned from in that slide: the next version's training window."""
        self._training.add(self._columns(matured), slide, at)
        if self._rebased_at is not None:
            self._training.keep_after(min(self._rebased_at, at - self._settings.window))

    def rebase(self, at: int) -> None:
        """At the publishing of a version, whose slide ends at `at`: its training window is the new reference.

        That is what was learned since the version before, and at least over the last `drift.window`.
        """
        rows, weights = self._training.columns()
        judged = len(rows) >= self._settings.min_examples
        self._reference = {
            name: _Reference.of(rows[:, column], weights, None if column >= len(self._numbers) else self._settings.bins)
            for column, name in enumerate(self._names())
            if judged
        }
        self._rebased_at = at

    def psi(self) -> dict[str, float]:
        """PSI by feature, finite and >= 0; empty while either side has fewer than `drift.min_examples` examples."""
        rows, weights = self._arrivals.columns()
        if len(rows) < self._settings.min_examples:
            return {}
        return {
            name: self._reference[name].psi(rows[:, column], weights)
            for column, name in enumerate(self._names())
            if name in self._reference
        }

    def _names(self) -> list[str]:
        return [*self._numbers, *self._ids]

    def _columns(self, examples: ExampleBatch) -> NDArray[np.float32]:
        """Numbers as they are, then ids as bucket numbers; NaN = missing. [n, columns]"""
        ids = examples.ids[:, list(self._ids.values())]
        buckets = np.where(ids == MISSING_ID, np.nan, (ids % np.uint64(ID_BUCKETS)).astype(np.float32))
        numbers = examples.numbers[:, list(self._numbers.values())]
        return np.concatenate([numbers, buckets.astype(np.float32)], axis=1)

    def capture(self) -> dict[str, Any]:
        return {
            "arrivals": self._arrivals.capture(),
            "training": self._training.capture(),
            "rebased_at": self._rebased_at,
            "reference": {name: reference.capture() for name, reference in self._reference.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._arrivals.restore(state["arrivals"])
        self._training.restore(state["training"])
        self._rebased_at = None if state["rebased_at"] is None else int(state["rebased_at"])
        self._reference = {name: _Reference.restored(part) for name, part in state["reference"].items()}


class _Reference:
    """One feature's bins and the share of the training window in each; the last bin is `missing`."""

    def __init__(self, edges: NDArray[np.float32], shares: NDArray[np.float64], rows: int) -> None:
        self._edges = edges  # ascending; bin k holds edges[k-1] < x <= edges[k]
        self._shares = shares  # [len(edges) + 2]
        self._rows = rows

    @classmethod
    def of(cls, column: NDArray[np.float32], weights: NDArray[np.float64], bins: int | None) -> _Reference:
        """`bins` quantile bins, or the id buckets for None."""
        edges = np.arange(ID_BUCKETS - 1, dtype=np.float32) if bins is None else _edges(column, weights, bins)
        return cls(edges, _shares(column, weights, edges), len(column))

    def psi(self, column: NDArray[np.float32], weights: NDArray[np.float64]) -> float:
        """No share counts for less than half an example of the smaller side: an empty bin stays finite."""
        least = 0.5 / min(self._rows, len(column))
        now = np.maximum(_shares(column, weights, self._edges), least)
        then = np.maximum(self._shares, least)
        return float(((now - then) * np.log(now / then)).sum())

    def capture(self) -> dict[str, Any]:
        return {"edges": self._edges.copy(), "shares": self._shares.copy(), "rows": self._rows}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> _Reference:
        return cls(state["edges"], state["shares"], int(state["rows"]))


def _edges(column: NDArray[np.float32], weights: NDArray[np.float64], bins: int) -> NDArray[np.float32]:
    """Upper edges of the quantile bins. A value that is several quantiles at once, such as zero among counts or the
    only value of a constant column, gets an edge just below it too, and so a bin of its own."""
    present = ~np.isnan(column)
    if not present.any():
        return np.empty(0, np.float32)
    steps = np.arange(1, bins) / bins
    quantiles = np.quantile(column[present], steps, weights=weights[present], method="inverted_cdf")
    values, times = np.unique(quantiles.astype(np.float32), return_counts=True)
    atoms = values if bins == 2 else values[times > 1]
    return np.unique(np.concatenate([values, np.nextafter(atoms, np.float32(-np.inf))]))


def _shares(
    column: NDArray[np.float32], weights: NDArray[np.float64], edges: NDArray[np.float32]
) -> NDArray[np.float64]:
    bins = np.where(np.isnan(column), len(edges) + 1, np.searchsorted(edges, column, side="left"))
    counts = np.bincount(bins, weights=weights, minlength=len(edges) + 2)
    return np.asarray(counts / counts.sum(), np.float64)


class _Sample:
    """A bounded sample of the rows of the last slides; each row stands for 2**level rows (Horvitz and Thompson 1952).

    A row has a random priority in [0, 1) and is kept at level L if that is below 2**-L. When the sample is full, L
    grows and every row at a lower level is held against the new bound; when rows have left, L falls for new ones.
    """

    def __init__(self, columns: int, capacity: int, seed: tuple[int, int]) -> None:
        self._capacity = capacity
        self._seed = seed
        self._level = 0
        self._rows = GrowingColumn(np.empty((0, columns), np.float32))
        self._priority = GrowingColumn(np.empty(0, np.float64))
        self._row_level = GrowingColumn(np.empty(0, np.int8))
        self._at = GrowingColumn(np.empty(0, np.int64))

    def add(self, rows: NDArray[np.float32], slide: int, at: int) -> None:
        """Rows [n, columns] of a slide that ended at `at`, not before the slides already added."""
        priority = np.random.default_rng([*self._seed, slide]).random(len(rows))
        chosen = priority < 2.0**-self._level
        self._rows.append(rows[chosen])
        self._priority.append(priority[chosen])
        self._row_level.append(np.full(np.count_nonzero(chosen), self._level, np.int8))
        self._at.append(np.full(np.count_nonzero(chosen), at))
        while len(self._rows) > self._capacity:
            self._thin()

    def keep_after(self, at: int) -> None:
        """Forgets the rows of slides that ended at or before `at`."""
        gone = int(np.searchsorted(self._at.view, at, side="right"))
        for column in self._named().values():
            column.drop(gone)
        while self._level and len(self._rows) < self._capacity // 4:
            self._level -= 1

    def columns(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The rows [m, columns] and the weight of each [m]."""
        return self._rows.view, np.exp2(self._row_level.view.astype(np.float64))

    def _thin(self) -> None:
        self._level += 1
        chosen = (self._row_level.view >= self._level) | (self._priority.view < 2.0**-self._level)
        for column in self._named().values():
            column.reset(column.view[chosen])
        np.maximum(self._row_level.view, np.int8(self._level), out=self._row_level.view)

    def _named(self) -> dict[str, GrowingColumn]:
        return {"rows": self._rows, "priority": self._priority, "row_level": self._row_level, "at": self._at}

    def capture(self) -> dict[str, Any]:
        return {"level": self._level, **{name: column.view.copy() for name, column in self._named().items()}}

    def restore(self, state: dict[str, Any]) -> None:
        self._level = int(state["level"])
        for name, column in self._named().items():
            column.reset(state[name])

"""A bounded, weighted sample of the examples of the last slides."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import ExampleBatch
from stream_learner.judging.growing import GrowingColumn


class ExampleSample:
    """Each example kept stands for 2**level examples (Horvitz and Thompson 1952).

    An example has a random priority in [0, 1) and is kept at level L if that is below 2**-L. When the sample is full, L
    grows and every example at a lower level is held against the new bound; when some have left, L falls for new ones.
    """

    def __init__(self, capacity: int, seed: tuple[int, int]) -> None:
        self._capacity = capacity
        self._seed = seed
        self._level = 0
        self._columns: dict[str, GrowingColumn] = {}  # of ExampleBatch, then priority, level and at

    def __len__(self) -> int:
        return len(self._columns["at"]) if self._columns else 0

    def add(self, examples: ExampleBatch, slide: int, at: int) -> None:
        """The examples of a slide that ended at `at` (us), not before the slides already added."""
        priority = np.random.default_rng([*self._seed, slide]).random(len(examples))
        while len(self) + np.count_nonzero(priority < 2.0**-self._level) > self._capacity:
            self._thin()
        chosen = np.flatnonzero(priority < 2.0**-self._level)
        rows = {field.name: getattr(examples, field.name)[chosen] for field in fields(ExampleBatch)}
        rows |= {"priority": priority[chosen], "level": np.full(len(chosen), self._level, np.int8)}
        rows["at"] = np.full(len(chosen), at)
        if not self._columns:
            self._columns = {name: GrowingColumn(column[:0]) for name, column in rows.items()}
        for name, column in self._columns.items():
            column.append(rows[name])

    def erase(self, column: int, ids: NDArray[np.uint64]) -> None:
        """Forgets the examples with one of these fingerprints in a column of `ExampleBatch.ids`."""
        if self._columns:
            stay = ~np.isin(self._columns["ids"].view[:, column], ids)
            for held in self._columns.values():
                held.reset(held.view[stay])

    def keep_after(self, at: int) -> None:
        """Forgets the examples of slides that ended at or before `at`."""
        if not self._columns:
            return
        gone = int(np.searchsorted(self._columns["at"].view, at, side="right"))
        for column in self._columns.values():
            column.drop(gone)
        while self._level and len(self) < self._capacity // 4:
            self._level -= 1

    def examples(self) -> ExampleBatch | None:
        """Those held, oldest first; None before the first."""
        if not len(self):
            return None
        return ExampleBatch(**{field.name: self._columns[field.name].view for field in fields(ExampleBatch)})

    def weights(self) -> NDArray[np.float64]:
        """How many examples each stands for. [len(self)]"""
        return np.exp2(self._columns["level"].view.astype(np.float64)) if self._columns else np.empty(0)

    def _thin(self) -> None:
        self._level += 1
        if not self._columns:
            return
        level = self._columns["level"].view
        chosen = (level >= self._level) | (self._columns["priority"].view < 2.0**-self._level)
        for column in self._columns.values():
            column.reset(column.view[chosen])
        level = self._columns["level"].view
        np.maximum(level, np.int8(self._level), out=level)

    def capture(self) -> dict[str, Any]:
        return {"level": self._level, "columns": {name: c.view.copy() for name, c in self._columns.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        self._level = int(state["level"])
        self._columns = {name: GrowingColumn(column) for name, column in state["columns"].items()}

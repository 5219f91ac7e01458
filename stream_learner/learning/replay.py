"""The replay buffer: a uniform sample of everything ever learned from."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import Changed, RowSet
from stream_learner.events import ExampleBatch

KEEP_STAGE = 21  # stage constants of the seeds, so that no two stages share a random stream
DRAW_STAGE = 22
RESIZE_STAGE = 23
_FIRST_ROWS = 1024


class Replay:
    """A reservoir of examples, held as columns (Vitter's algorithm R, ACM TOMS 1985).

    After n examples each of them is held with probability min(1, capacity / n). What is kept and drawn depends on
    seed, slide and step alone. Memory grows by doubling up to `capacity` examples.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self._capacity = capacity
        self._seed = seed
        self._seen = 0
        self._columns: dict[str, NDArray[Any]] = {}  # each of at least len(self) rows
        self._uncaptured = RowSet()  # rows written since the last capture

    def __len__(self) -> int:
        return min(self._seen, self._capacity)

    def add(self, examples: ExampleBatch, slide: int) -> None:
        """Takes in the examples of a slide, in order. Once per slide."""
        count = len(examples)
        if not self._capacity or not count:
            return
        number = self._seen + np.arange(count, dtype=np.int64)  # of each example among all ever seen, from 0
        drawn = np.random.default_rng([self._seed, KEEP_STAGE, slide]).integers(0, number + 1)
        slots = np.where(number < self._capacity, number, drawn)
        rows = np.flatnonzero(slots < self._capacity)
        slots, rows = _last_of_each(slots[rows], rows)
        self._seen += count
        self._grow(examples)
        for name, column in self._columns.items():
            column[slots] = getattr(examples, name)[rows]
        self._uncaptured.add(slots)

    def draw(self, count: int, slide: int, step: int) -> ExampleBatch:
        """`count` held examples, uniformly and with replacement. Raises IndexError when none is held."""
        if not len(self):
            raise IndexError("the replay buffer is empty")
        rows = np.random.default_rng([self._seed, DRAW_STAGE, slide, step]).integers(0, len(self), count)
        return ExampleBatch(**{name: column.take(rows, axis=0, mode="clip") for name, column in self._columns.items()})

    def capture(self) -> dict[str, Any]:
        """The whole state. `changes` counts from here."""
        self._uncaptured.take()
        columns = {name: column[: len(self)].copy() for name, column in self._columns.items()}
        return {"seen": self._seen, "columns": columns}

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the rows written since the last of either, or since `restore`."""
        rows, height = self._uncaptured.take(), len(self)
        columns = {name: Changed(rows, column.take(rows, axis=0), height) for name, column in self._columns.items()}
        return {"seen": self._seen, "columns": columns}

    def restore(self, state: dict[str, Any]) -> None:
        """Also a buffer of another capacity. One that has become smaller keeps a uniform sample of what it held. One
        that has become larger counts what it held as all it has seen, and leans towards what follows until it is full.
        """
        self._uncaptured.take()
        self._seen = int(state["seen"])
        columns = {name: column.copy() for name, column in state["columns"].items()}
        held = len(next(iter(columns.values()))) if columns else 0
        if held > self._capacity:
            random = np.random.default_rng([self._seed, RESIZE_STAGE, self._seen])
            kept = np.sort(random.choice(held, self._capacity, replace=False))
            columns = {name: column[kept] for name, column in columns.items()}
        self._columns = columns
        self._seen = held if held < len(self) else self._seen

    def _grow(self, examples: ExampleBatch) -> None:
        """Makes room for `len(self)` rows of the examples' columns."""
        held = len(next(iter(self._columns.values()))) if self._columns else 0
        if held >= len(self):
            return
        rows = min(self._capacity, max(len(self), 2 * held, _FIRST_ROWS))
        for field in fields(ExampleBatch):
            like = getattr(examples, field.name)
            grown = np.zeros((rows, *like.shape[1:]), like.dtype)
            if held:
                grown[:held] = self._columns[field.name]
            self._columns[field.name] = grown


def _last_of_each(slots: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Without the pairs whose slot is taken again by a later one, as if they were put in one after the other."""
    unique, last = np.unique(slots[::-1], return_index=True)
    return unique, rows[::-1][last]

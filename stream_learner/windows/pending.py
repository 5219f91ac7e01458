"""Examples waiting for their label, and the index by which a positive finds them.

The examples lie on a tape in order of arrival, so that maturing takes them off the front. The index is a log-structured
merge tree (O'Neil, Cheng, Gawlick and O'Neil, Acta Informatica 1996) in memory: sorted runs of (key, position), each
at least about twice its younger neighbour, so that a slide costs its own examples times the logarithm of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import EventSchema, ExampleBatch
from stream_learner.keys import I64, U64
from stream_learner.windows.grouping import NEVER
from stream_learner.windows.tape import Tape

_COLUMNS = tuple(field.name for field in fields(ExampleBatch))


@dataclass(frozen=True, slots=True)
class Run:
    """Pending examples with a key, sorted by key and, within a key, by arrival."""

    keys: U64  # [r]
    positions: I64  # [r] on the tape
    times: I64  # [r] click times, us
    settled: NDArray[np.bool_]  # [r] no later positive can change it; written in place
    first: int  # positions start <= p < stop were put into this run
    stop: int

    @classmethod
    def sorted(cls, keys: U64, positions: I64, times: I64, first: int, stop: int) -> Run:
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], positions[order], times[order], np.zeros(len(keys), bool), first, stop)

    def __len__(self) -> int:
        return len(self.keys)

    def followed_by(self, younger: Run) -> Run:
        """Both runs in one; all positions of `younger` come after those of this one."""
        at = np.searchsorted(self.keys, younger.keys, side="right")
        return Run(
            np.insert(self.keys, at, younger.keys),
            np.insert(self.positions, at, younger.positions),
            np.insert(self.times, at, younger.times),
            np.insert(self.settled, at, younger.settled),
            self.first,
            younger.stop,
        )

    def without_matured(self, start: int) -> Run:
        stay = self.positions >= start
        columns = self.keys[stay], self.positions[stay], self.times[stay], self.settled[stay]
        return Run(*columns, max(self.first, start), self.stop)

    def ranges(self, keys: U64) -> tuple[I64, I64]:
        """Where each of `keys` begins and ends."""
        return np.searchsorted(self.keys, keys), np.searchsorted(self.keys, keys, side="right")


class Pending:
    """Positions count the examples ever put in, from 0."""

    def __init__(self, schema: EventSchema) -> None:
        self._tape = Tape()
        self._runs: list[Run] = []  # oldest first
        self._id_columns = len(schema.ids)

    def __len__(self) -> int:
        return len(self._tape)

    def add(self, examples: ExampleBatch, keys: U64, positive_time: I64, slide: int) -> None:
        """Puts a slide's examples in, in log order, click times never falling. Keys (shape [m]) of 0 match nothing.

        `positive_time`: [m] us, the first positive so far, NEVER = none. `slide`: a number kept with them.
        """
        first = self._tape.stop
        columns = {name: getattr(examples, name) for name in _COLUMNS}
        slides = np.full(len(examples), slide, np.int64)
        self._tape.append(**columns, key=keys, positive_time=positive_time, slide=slides)
        self._index(keys, examples.time, first)

    def attribute(self, keys: U64, times: I64, horizon: int) -> NDArray[np.bool_]:
        """Makes positive what these positives (shape [p], in log order, later than all that is pending) follow.

        Returns bool[p]: whether a pending example of that key lies within `horizon` before.
        """
        matched = np.zeros(len(keys), bool)
        if not len(keys):
            return matched
        unique, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
        for run in self._runs:
            low, high, newest, held = self._held(run, unique)
            matched |= held[inverse] & (run.times[newest][inverse] >= times - horizon)
            # The first positive of a key settles all its pending examples: what it does not reach, no later one does.
            new = np.flatnonzero(held & ~run.settled[newest])
            self._mark(run, low[new], high[new], times[firsts[new]], horizon)
        return matched

    def reached(self, keys: U64, times: I64, horizon: int) -> NDArray[np.bool_]:
        """What `attribute` would return, bool[p]; changes nothing."""
        matched = np.zeros(len(keys), bool)
        for run in self._runs:
            _, _, newest, held = self._held(run, keys)
            matched |= held & (run.times[newest] >= times - horizon)
        return matched

    def _held(self, run: Run, keys: U64) -> tuple[I64, I64, I64, NDArray[np.bool_]]:
        """Per key: where its entries in a run begin and end, the newest of them, and whether that is still pending."""
        low, high = run.ranges(keys)
        newest = np.where(high > low, high - 1, 0)
        return low, high, newest, (high > low) & (run.positions[newest] >= self._tape.start)

    def take_matured(self, before: int) -> tuple[ExampleBatch, I64, I64]:
        """Takes out the examples clicked before `before` (us): them, their first positive times and slide numbers."""
        stop = self._tape.first_at_least("time", before, self._tape.start)
        columns = self._tape.read(self._tape.start, stop)
        self._tape.drop(stop)
        runs = [self._without_ballast(run) for run in self._runs]
        self._runs = [run for run in runs if len(run)]
        return ExampleBatch(**{name: columns[name] for name in _COLUMNS}), columns["positive_time"], columns["slide"]

    def oldest_time(self) -> int | None:
        """Click time of the oldest pending example, us."""
        return int(self._tape.at("time", self._tape.start)) if len(self) else None

    def examples(self) -> ExampleBatch:
        """A copy of all that is pending, in order of arrival."""
        if not self._tape.shaped:
            return _no_examples(self._id_columns)
        columns = self._tape.read(self._tape.start, self._tape.stop, _COLUMNS)
        return ExampleBatch(**{name: columns[name] for name in _COLUMNS})

    def capture(self) -> dict[str, Any]:
        return self._tape.capture()

    def restore(self, state: dict[str, Any]) -> None:
        """The runs are made anew: how the index is cut into runs decides nothing."""
        self._tape.restore(state)
        self._runs = []
        if len(self):
            held = self._tape.read(self._tape.start, self._tape.stop, ("key", "time"))
            self._index(held["key"], held["time"], self._tape.start)

    def _index(self, keys: U64, times: I64, first: int) -> None:
        present = np.flatnonzero(keys)
        if not len(present):
            return
        run = Run.sorted(keys[present], first + present, times[present], first, first + len(keys))
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = self._runs.pop().without_matured(self._tape.start).followed_by(run)
        self._runs.append(run)

    def _without_ballast(self, run: Run) -> Run:
        """The run, rid of what has matured once that is half of it."""
        matured = self._tape.start - run.first
        return run.without_matured(self._tape.start) if 2 * matured >= run.stop - run.first else run

    def _mark(self, run: Run, low: I64, high: I64, times: I64, horizon: int) -> None:
        """Gives entries low..high-1 of each key the positive time of that key, where it is in reach and the first."""
        sizes = high - low
        key = np.repeat(np.arange(len(sizes)), sizes)
        entries = np.arange(len(key)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[key]
        run.settled[entries] = True
        reached = (run.positions[entries] >= self._tape.start) & (run.times[entries] >= times[key] - horizon)
        positions = run.positions[entries[reached]]
        self._tape.replace("positive_time", NEVER, positions, times[key[reached]])


def _no_examples(ids: int) -> ExampleBatch:
    number = np.empty(0, np.float32)
    return ExampleBatch(
        time=np.empty(0, np.int64),
        ids=np.empty((0, ids), np.uint64),
        numbers=np.empty((0, 0), np.float32),
        label=number,
        logit_candidate=number,
        logit_champion=number,
        logit_served=number,
        baseline=np.empty((0, 4), np.float32),
        judged=np.empty(0, bool),
        unseen=np.empty((0, 2), bool),
    )

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
from stream_learner.windows.outcomes import Outcomes
from stream_learner.windows.tape import Tape

EXAMPLE_COLUMNS = tuple(field.name for field in fields(ExampleBatch))


@dataclass(frozen=True, slots=True)
class Mature:
    """Examples taken out, in order of arrival. All [n]."""

    examples: ExampleBatch
    positive_time: I64  # us, NEVER = none
    slide: I64  # number kept with them
    told: NDArray[np.int8]  # what was told of them early: see `early_labels.py`


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
        self.tape = Tape()
        self._runs: list[Run] = []  # oldest first
        self._id_columns = len(schema.ids)

    def __len__(self) -> int:
        return len(self.tape)

    def add(self, examples: ExampleBatch, keys: U64, positive_time: I64, slide: int, told: int = 0) -> None:
        """Puts a slide's examples in, in log order, click times never falling. Keys (shape [m]) of 0 match nothing.

        `positive_time`: [m] us, the first positive so far, NEVER = none. `slide`, `told`: numbers kept with them.
        """
        first = self.tape.stop
        columns = {name: getattr(examples, name) for name in EXAMPLE_COLUMNS}
        slides, tolds = np.full(len(examples), slide, np.int64), np.full(len(examples), told, np.int8)
        self.tape.append(**columns, key=keys, positive_time=positive_time, slide=slides, told=tolds)
        self._index(keys, examples.time, first)

    def attribute(self, keys: U64, times: I64, horizon: int) -> I64:
        """Makes positive what these positives (shape [p], in log order, later than all that is pending) follow within
        `horizon`. Returns the positions that became so."""
        changed: list[I64] = [np.empty(0, np.int64)]
        unique, firsts = np.unique(keys, return_index=True)
        for run in self._runs if len(keys) else []:
            low, high, newest, held = self._held(run, unique)
            # The first positive of a key settles all its pending examples: what it does not reach, no later one does.
            new = np.flatnonzero(held & ~run.settled[newest])
            changed.append(self._mark(run, low[new], high[new], times[firsts[new]], horizon))
        return np.concatenate(changed)

    def revise(self, keys: U64, outcomes: Outcomes, horizon: int) -> tuple[I64, int]:
        """As `attribute`, for keys (distinct, shape [k]) that have cancellations in the slide. Returns the positions
        whose first positive is another now, and how many of them lost theirs."""
        changed: list[I64] = [np.empty(0, np.int64)]
        lost = 0
        for run in self._runs:
            low, high, _, held = self._held(run, keys)
            _, entries = _spread(low[held], high[held])
            entries = entries[run.positions[entries] >= self.tape.start]
            positions = run.positions[entries]
            before = self.tape.take(positions, ("positive_time",))["positive_time"] if len(positions) else positions
            found = outcomes.of(run.keys[entries], -1, run.times[entries], horizon)
            after = np.where(found.cancelled | (before == NEVER), found.positive_time, before)
            run.settled[entries] = after != NEVER
            self.tape.put("positive_time", positions, after)
            changed.append(positions[after != before])
            lost += int(np.count_nonzero((after == NEVER) & (before != NEVER)))
        return np.concatenate(changed), lost

    def reached(self, keys: U64, times: I64, horizon: int) -> NDArray[np.bool_]:
        """Per positive (as of `attribute`) whether a pending example of its key lies within `horizon` before: bool[p].
        Changes nothing."""
        matched = np.zeros(len(keys), bool)
        for run in self._runs:
            _, _, newest, held = self._held(run, keys)
            matched |= held & (run.times[newest] >= times - horizon)
        return matched

    def _held(self, run: Run, keys: U64) -> tuple[I64, I64, I64, NDArray[np.bool_]]:
        """Per key: where its entries in a run begin and end, the newest of them, and whether that is still pending."""
        low, high = run.ranges(keys)
        newest = np.where(high > low, high - 1, 0)
        return low, high, newest, (high > low) & (run.positions[newest] >= self.tape.start)

    def take_matured(self, before: int) -> Mature:
        """Takes out the examples clicked before `before` (us)."""
        stop = self.tape.first_at_least("time", before, self.tape.start)
        columns = self.tape.read(self.tape.start, stop)
        self.tape.drop(stop)
        runs = [self._without_ballast(run) for run in self._runs]
        self._runs = [run for run in runs if len(run)]
        examples = ExampleBatch(**{name: columns[name] for name in EXAMPLE_COLUMNS})
        return Mature(examples, columns["positive_time"], columns["slide"], columns["told"])

    def oldest_time(self) -> int | None:
        """Click time of the oldest pending example, us."""
        return int(self.tape.at("time", self.tape.start)) if len(self) else None

    def examples(self) -> ExampleBatch:
        """A copy of all that is pending, in order of arrival."""
        if not self.tape.shaped:
            return _no_examples(self._id_columns)
        columns = self.tape.read(self.tape.start, self.tape.stop, EXAMPLE_COLUMNS)
        return ExampleBatch(**{name: columns[name] for name in EXAMPLE_COLUMNS})

    def erase(self, column: int, ids: U64) -> I64:
        """Forgets the examples with one of these fingerprints in a column of `ExampleBatch.ids`; returns the positions
        they had. Those behind them move up."""
        if not len(self):
            return np.empty(0, np.int64)
        held = self.tape.read(self.tape.start, self.tape.stop, ("ids",))["ids"][:, column]
        positions = self.tape.start + np.flatnonzero(np.isin(held, ids[ids != 0]))
        if len(positions):
            self.tape.erase(positions)
            self._index_all()
        return positions

    def capture(self) -> dict[str, Any]:
        return self.tape.capture()

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the examples that came or got a positive since the last of either."""
        return self.tape.changes()

    def restore(self, state: dict[str, Any]) -> None:
        self.tape.restore(state)
        self._index_all()

    def _index_all(self) -> None:
        """The runs are made anew: how the index is cut into runs decides nothing."""
        self._runs = []
        if len(self):
            held = self.tape.read(self.tape.start, self.tape.stop, ("key", "time"))
            self._index(held["key"], held["time"], self.tape.start)

    def _index(self, keys: U64, times: I64, first: int) -> None:
        present = np.flatnonzero(keys)
        if not len(present):
            return
        run = Run.sorted(keys[present], first + present, times[present], first, first + len(keys))
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = self._runs.pop().without_matured(self.tape.start).followed_by(run)
        self._runs.append(run)

    def _without_ballast(self, run: Run) -> Run:
        """The run, rid of what has matured once that is half of it."""
        matured = self.tape.start - run.first
        return run.without_matured(self.tape.start) if 2 * matured >= run.stop - run.first else run

    def _mark(self, run: Run, low: I64, high: I64, times: I64, horizon: int) -> I64:
        """Gives entries low..high-1 of each key the positive time of that key, where it is in reach and the first.
        Returns the positions that took it."""
        key, entries = _spread(low, high)
        run.settled[entries] = True
        reached = (run.positions[entries] >= self.tape.start) & (run.times[entries] >= times[key] - horizon)
        positions = run.positions[entries[reached]]
        return self.tape.replace("positive_time", NEVER, positions, times[key[reached]])


def _spread(low: I64, high: I64) -> tuple[I64, I64]:
    """All numbers low <= e < high of every range, and the range each is of."""
    sizes = high - low
    key = np.repeat(np.arange(len(sizes)), sizes)
    return key, np.arange(len(key)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[key]


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

"""What is told of examples before they mature, in the early-learning modes of `labels.mode`.

An example that arrives to a model which has learned something is told as a negative at once, or, where there is an
elapsed time (es_dfm), as what it is that long after its click. What its label becomes later is told as it comes: a
purchase once more as a positive, a cancellation by taking back what was said. At maturity nothing is left to be said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import ExampleBatch
from stream_learner.keys import I64
from stream_learner.settings import Labels
from stream_learner.windows.grouping import NEVER
from stream_learner.windows.pending import EXAMPLE_COLUMNS
from stream_learner.windows.tape import Tape

# What has been told of a pending example.
WAITS, OPEN, NEGATIVE, POSITIVE, BOTH, KNOWN = range(6)
# WAITS: nothing will be before it matures; OPEN: nothing yet; BOTH: a negative, then a positive; KNOWN: by the oracle.


@dataclass(frozen=True, slots=True)
class Told:
    """Rows to be learned early, in the order in which they became known. All [n]."""

    examples: ExampleBatch
    positive: NDArray[np.float32]  # times it counts as a positive: 1, 0, or -1 where one is taken back
    negative: NDArray[np.float32]
    first: NDArray[np.bool_]  # nothing was told of it before

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: NDArray[Any]) -> Told:
        return Told(self.examples.take(rows), self.positive[rows], self.negative[rows], self.first[rows])


class EarlyLabels:
    """Says what to tell. What was told of an example is the tape's column `told`."""

    def __init__(self, labels: Labels) -> None:
        self._oracle = labels.mode == "oracle"
        self._elapsed = int(labels.elapsed) if labels.mode == "es_dfm" else None
        self._next = 0  # position of the first example of which nothing was told yet

    def step(self, tape: Tape, changed: I64, slide_end: int) -> Told:
        """After a slide's examples and purchases came in and before any of them matures. `changed`: positions whose
        first positive may be another now."""
        first = self._due(tape, slide_end)
        held = tape.take(first, ("told", "time", "positive_time", "label"))
        first, held = first[held["told"] == OPEN], {k: v[held["told"] == OPEN] for k, v in held.items()}
        positive = self._first_label(held)
        says = np.where(positive, POSITIVE, NEGATIVE) if not self._oracle else np.full(len(first), KNOWN)
        tape.put("told", first, says.astype(np.int8))
        known_at = held["time"] + (self._elapsed or 0)
        later = self._changes(tape, np.union1d(changed, first), slide_end)
        positions = np.concatenate([first, later.positions])
        order = np.argsort(np.concatenate([known_at, later.known_at]), kind="stable")
        return Told(
            ExampleBatch(**tape.take(positions[order], EXAMPLE_COLUMNS)),
            np.concatenate([positive, later.positive]).astype(np.float32)[order],
            np.concatenate([~positive, later.negative]).astype(np.float32)[order],
            (np.arange(len(positions)) < len(first))[order],
        )

    def forget(self, tape: Tape, since: int) -> None:
        """Examples clicked at or after `since` (us) were never told: they wait until they mature."""
        positions = np.arange(tape.first_at_least("time", since, tape.start), tape.stop)
        tape.put("told", positions, np.full(len(positions), WAITS, np.int8))

    def erased(self, positions: I64) -> None:
        """Rows were taken out of the tape, where they had these positions."""
        self._next -= int(np.count_nonzero(positions < self._next))

    def capture(self) -> dict[str, Any]:
        return {"next": self._next}

    def restore(self, state: dict[str, Any]) -> None:
        self._next = int(state["next"])

    def _due(self, tape: Tape, slide_end: int) -> I64:
        """Positions whose time to be told has come."""
        start = max(self._next, tape.start)
        whole = self._elapsed is None
        self._next = tape.stop if whole else tape.first_at_least("time", slide_end - (self._elapsed or 0), start)
        return np.arange(start, self._next)

    def _first_label(self, held: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        if self._oracle:
            return np.array(held["label"] == 1)
        if self._elapsed is None:
            return np.zeros(len(held["time"]), bool)
        bought = held["positive_time"] != NEVER
        return np.array(bought & (held["positive_time"] <= held["time"] + self._elapsed))

    def _changes(self, tape: Tape, positions: I64, slide_end: int) -> _Changes:
        positions = positions[positions >= tape.start]
        held = tape.take(positions, ("told", "positive_time"))
        told, bought = held["told"], held["positive_time"] != NEVER
        gained = (told == NEGATIVE) & bought
        lost = ((told == BOTH) | (told == POSITIVE)) & ~bought
        moved = gained | lost
        tape.put("told", positions[moved], np.where(gained[moved], BOTH, NEGATIVE).astype(np.int8))
        return _Changes(
            positions[moved],
            np.where(gained, held["positive_time"], slide_end)[moved],
            np.where(gained, 1, -1)[moved],
            (told == POSITIVE)[moved].astype(np.int64),  # told as a positive alone, it is a negative after all
        )


@dataclass(frozen=True, slots=True)
class _Changes:
    positions: I64
    known_at: I64  # us
    positive: I64
    negative: I64

"""Exponentially decayed counts by row and event type, at several half-lives at once.

A count of half-life h is the sum over its events of 2^-(age / h): it needs one number per row where a window needs a
log of what it must give back, and it never jumps. A row's numbers are those of its last event and are brought forward
when they are read (forward decay; Cormode, Shkapenyuk, Srivastava, Xu: ICDE 2009), so that rows at rest cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import Touched
from stream_learner.keys import I64
from stream_learner.windows.grouping import Groups
from stream_learner.windows.panes import grown

F64 = NDArray[np.float64]

_LONG_AGO = -(2**62)  # before any event, and far enough from either end of int64 to be subtracted from


class DecayedCounts:
    """`half_lives`: microseconds, None = never decays. All arrays of counts are float64[..., half_lives, types]."""

    def __init__(self, half_lives: Sequence[int | None], types: int) -> None:
        self._rates = decay_rates(half_lives)
        self._types = types
        self._values: F64 = np.zeros((0, len(half_lives), types))
        self._at: I64 = np.zeros(0, np.int64)  # [rows] us, the time of a row's numbers
        self._touched = Touched()

    def reserve(self, rows: int) -> None:
        self._values = grown(self._values, rows, 0)
        self._at = grown(self._at, rows, _LONG_AGO)
        self._touched.reach(rows)

    def read(self, rows: I64, times: I64 | int) -> F64:
        """[n, half_lives, types] of `rows` ([n]) as of `times` (us, [n] or one for all)."""
        passed = np.maximum(np.broadcast_to(times, rows.shape) - self._at[rows], 0)
        return self._values[rows] * faded(passed, self._rates)[:, :, None]

    def add(self, rows: I64, group: I64, types: I64, times: I64) -> None:
        """Counts events: per event (shape [e]) `group`, its index into the distinct `rows`, its type and time (us).

        No event is older than those a row has already.
        """
        if not len(times):
            return
        latest = np.full(len(rows), _LONG_AGO)
        np.maximum.at(latest, group, times)
        busy = np.unique(group)
        self._touched.add(rows[busy])
        self._values[rows[busy]] = self.read(rows[busy], latest[busy])
        self._at[rows[busy]] = np.maximum(self._at[rows[busy]], latest[busy])
        weights = faded(self._at[rows][group] - times, self._rates)
        cells = group * self._types + types
        for index in range(len(self._rates)):
            gained = np.bincount(cells, weights[:, index], len(rows) * self._types)
            self._values[rows, index] += gained.reshape(-1, self._types)

    def before(self, groups: Groups, marks: NDArray[Any], times: I64, entries: I64) -> F64:
        """What the slide itself has brought before each of `entries` ([n]), as of its own time.

        `marks`: 0 or 1 per entry and type, [e, types]; `times`: [e] us.
        """
        return groups.decayed_before(marks, times, entries, self._rates)

    def clear(self, rows: I64) -> None:
        self._values[rows] = 0
        self._at[rows] = _LONG_AGO
        self._touched.add(rows)

    def capture(self) -> dict[str, Any]:
        return self._touched.whole(values=self._values, at=self._at)

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the rows counted or cleared since the last of either, or since `restore`."""
        return self._touched.changes(values=self._values, at=self._at)

    def restore(self, state: dict[str, Any]) -> None:
        self._values = state["values"].astype(np.float64)
        self._at = state["at"].astype(np.int64)
        self._touched.restored(len(self._at))


def decay_rates(half_lives: Sequence[int | None]) -> F64:
    """Halvings per microsecond."""
    return np.array([0.0 if half_life is None else 1.0 / half_life for half_life in half_lives])


def faded(passed: NDArray[Any], rates: F64) -> F64:
    """What is left of 1 after `passed` microseconds ([n]): float64[n, rates]."""
    left: F64 = np.exp2(-np.multiply.outer(passed.astype(np.float64), rates))
    return left

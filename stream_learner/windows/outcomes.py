"""What a slide's purchases and cancellations make of the examples before them.

A cancellation takes back every purchase of its key before it; a purchase after it counts anew. Both reach back as far
as the horizon, so what an example becomes does not depend on how its log is cut into slides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_learner.keys import I64, U64
from stream_learner.windows.grouping import NEVER


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of examples, [n] each."""

    positive_time: I64  # us, the first purchase that no cancellation follows; NEVER = none
    cancelled: NDArray[np.bool_]  # what was positive before the slide is no longer


class Outcomes:
    """A slide's purchases and cancellations by join key and, within a key, in log order."""

    def __init__(self, rows: I64, keys: U64, cancels: NDArray[np.bool_], times: I64) -> None:
        """Rows within the slide (distinct, in any order), join keys (0 = matches nothing) and whether they are
        cancellations: [e]. `times`: of all of the slide's events, never falling, us."""
        order = np.lexsort((rows, keys))
        order = order[keys[order] != 0]
        self._times, self._height = times, len(times) + 1
        self._unique, code = np.unique(keys[order], return_inverse=True)
        self._place = code * self._height + rows[order]  # ascending
        self._time = times[rows[order]]
        number = np.arange(len(order))
        cancelling = cancels[order]
        self._last_cancel = np.maximum.accumulate(np.where(cancelling, number, -1))
        following = np.where(cancelling, len(order), number)
        self._next_purchase = np.append(np.minimum.accumulate(following[::-1])[::-1], len(order))

    def of(self, keys: U64, after: I64 | int, clicked: I64, horizon: int) -> Outcome:
        """Of examples with these keys and click times (us), as far as they come after row `after` ([n] or one for
        all; -1 = the whole slide)."""
        nothing = Outcome(np.full(len(keys), NEVER, np.int64), np.zeros(len(keys), bool))
        if not len(self._place) or not len(keys):
            return nothing
        code = np.minimum(np.searchsorted(self._unique, keys), len(self._unique) - 1)
        known = (self._unique[code] == keys) & (keys != 0)
        reach = np.searchsorted(self._times, clicked + horizon, side="right")
        start = np.searchsorted(self._place, code * self._height + after, side="right")
        stop = np.where(known, np.searchsorted(self._place, code * self._height + reach), start)
        last = np.where(stop > start, self._last_cancel[np.maximum(stop, 1) - 1], -1)
        cancelled = last >= start
        purchase = self._next_purchase[np.where(cancelled, last + 1, start)]
        bought = purchase < stop
        at = np.minimum(purchase, len(self._place) - 1)
        return Outcome(np.where(bought, self._time[at], NEVER), cancelled)

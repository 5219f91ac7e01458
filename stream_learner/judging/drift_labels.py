"""Label drift: the rate of purchases among the matured clicks, and how long they took."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging.drift_tests import Test
from stream_learner.judging.sketch import flag_codes, number_codes
from stream_learner.judging.watched import WatchedColumns
from stream_learner.settings import Drift

_RARER = 10  # purchases are fewer than clicks: a tenth of `drift.min_examples` is enough


class LabelDrift:
    """Watches what matures, by time of maturity."""

    def __init__(self, settings: Drift) -> None:
        self._settings = settings
        self._rate = WatchedColumns(["flag"], settings, settings.min_examples)
        self._delay = WatchedColumns(["number"], settings, -(-settings.min_examples // _RARER))

    def matured(self, labels: NDArray[np.float32], delays: NDArray[np.float32], at: int) -> None:
        """Labels [n] of a slide ending at `at` (us), and the delays [n] of the purchases in seconds, NaN = none."""
        positive = flag_codes(labels > 0.5)[:, None]
        waited = number_codes(delays[~np.isnan(delays)])[:, None]
        for watched, codes in ((self._rate, positive), (self._delay, waited)):
            watched.observe(codes, at)
            watched.learned(codes, at)

    def rebase(self, at: int) -> None:
        """A version was made of the slide ending at `at`."""
        self._rate.rebase(at)
        self._delay.rebase(at)

    def tests(self, at: int) -> list[Test]:
        """The change of the log-odds of a purchase, and the PSI of the delays."""
        tests = []
        for distance in self._rate.distances(at) or []:
            change = _log_odds(distance.marked) - _log_odds(distance.marked_before)
            tests.append(Test("labels", "label", "rate", change, self._settings.min_change, distance.marked_chance))
        for distance in self._delay.distances(at) or []:
            tests.append(Test("labels", "delay", "psi", distance.psi, self._settings.min_psi, distance.chance))
        return tests

    def capture(self) -> dict[str, Any]:
        return {"rate": self._rate.capture(), "delay": self._delay.capture()}

    def restore(self, state: dict[str, Any]) -> None:
        self._rate.restore(state["rate"])
        self._delay.restore(state["delay"])


def _log_odds(rate: float) -> float:
    rate = min(max(rate, 1e-6), 1 - 1e-6)
    return math.log(rate / (1 - rate))

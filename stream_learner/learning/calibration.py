"""A shift of all log-odds that keeps predictions calibrated, learned prequentially.

Every matured example tells how its score as of arrival should have been shifted. The shift of the largest likelihood
over examples that fade with a half-life is followed by one Newton step per slide. A score of long ago was given under
another shift: that is taken off again, so that the delay of labels makes nothing swing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging.metrics import probabilities

_LIMIT = 5.0  # log-odds; beyond, something else than calibration is wrong
_LEAST = 20.0  # curvature, in examples at even odds over four, taken as seen before anything was: first steps are small


class Shift:
    """The shift now, and those of the past under which pending examples were scored."""

    def __init__(self, half_life: int) -> None:
        self._half_life = half_life  # matured examples
        self._curvature = _LEAST
        self._since = np.array([-(2**63)])  # us, from when on each shift held
        self._shifts = np.zeros(1)

    @property
    def now(self) -> float:
        return float(self._shifts[-1])

    def learn(
        self, logits: NDArray[np.float32], labels: NDArray[np.float32], time: NDArray[np.int64], slide_end: int
    ) -> None:
        """A slide's matured examples: scores as of arrival (NaN = none), labels and click times (us), all [n]. The new
        shift holds from `slide_end` on."""
        scored = np.isfinite(logits)
        if not scored.any():
            return
        place = np.searchsorted(self._since, time[scored], side="right") - 1
        raw = logits[scored].astype(np.float64) - self._shifts[place]
        chances = probabilities(raw + self.now)
        kept = 0.5 ** (len(raw) / self._half_life)
        self._curvature = kept * self._curvature + float((chances * (1 - chances)).sum())
        step = float((labels[scored] - chances).sum()) / max(self._curvature, _LEAST)
        first = max(int(place.min()), 0)
        self._since = np.append(self._since[first:], slide_end)
        self._shifts = np.append(self._shifts[first:], np.clip(self.now + step, -_LIMIT, _LIMIT))

    def capture(self) -> dict[str, Any]:
        return {"curvature": self._curvature, "since": self._since.copy(), "shifts": self._shifts.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        self._curvature = float(state["curvature"])
        self._since, self._shifts = state["since"].astype(np.int64), state["shifts"].astype(np.float64)

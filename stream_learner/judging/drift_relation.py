"""Drift of the relation itself: does the champion's loss still come out as its own confidence says?

The loss of an example is log loss = entropy of p - (y - p) z, z the logit. The first part moves with the inputs; what
is left is noise of mean zero while the model is right, and is the score of Cox's recalibration (Biometrika 1958):
y - p for its offset, (y - p)(z - mean z) for its slope. Both, divided by the deviation the model itself predicts, are
watched by ADWIN and by a two-sided Page-Hinkley test, so that thresholds mean the same on every stream.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging.change import Adwin, PageHinkley
from stream_learner.judging.drift_tests import Finding
from stream_learner.judging.metrics import probabilities
from stream_learner.settings import Drift

SIGNALS = ("offset", "slope")

_CLOCK = 512  # values between two looks of ADWIN
_LONGEST_ARM = 3.0  # |z - mean z| beyond which an example moves the slope no further
_MEMORY = 0.98  # share of what was known of scale and unrest that a slide leaves
_MOST_UNREST = 4.0
_LEAST_DELTA, _MOST_DELTA = 1e-9, 0.05


class RelationDrift:
    """Watches the champion on what matures. One alarm a change: after it, detectors go on from what remains."""

    def __init__(self, settings: Drift) -> None:
        self._settings = settings
        self._watchers = {signal: _Watcher(settings.min_change) for signal in SIGNALS}
        self._mean_logit = _Average()

    def matured(self, logits: NDArray[np.float32], labels: NDArray[np.float32], span: int) -> list[Finding]:
        """Takes in a slide's matured examples [n], scored by the champion before they are learned, in order.

        `span`: event time of the slide, us. The changes found in it.
        """
        scored = np.isfinite(logits)
        z, y = logits[scored].astype(np.float64), labels[scored] > 0.5
        if not len(z):
            return []
        chances = probabilities(z)
        self._mean_logit.add(float(z.sum()), float(len(z)))
        arms = {"offset": np.ones(len(z)), "slope": np.clip(z - self._mean_logit.value, -_LONGEST_ARM, _LONGEST_ARM)}
        chance = min(max(span / self._settings.run_length / 8, _LEAST_DELTA), _MOST_DELTA)  # half the budget, 4 ways
        found = []
        for signal, watcher in self._watchers.items():
            arm = arms[signal]
            for measure, shift in watcher.take((y - chances) * arm, chances * (1 - chances) * arm**2, chance):
                found.append(Finding("relation", signal, measure, shift, chance))
        return found

    def capture(self) -> dict[str, Any]:
        watchers = {signal: watcher.capture() for signal, watcher in self._watchers.items()}
        return {"watchers": watchers, "mean_logit": self._mean_logit.capture()}

    def restore(self, state: dict[str, Any]) -> None:
        for signal, watcher in self._watchers.items():
            watcher.restore(state["watchers"][signal])
        self._mean_logit.restore(state["mean_logit"])


class _Average:
    """A mean that forgets slide by slide."""

    def __init__(self) -> None:
        self._sums = np.zeros(2)

    def add(self, total: float, weight: float) -> None:
        self._sums = _MEMORY * self._sums + (total, weight)

    @property
    def value(self) -> float:
        return float(self._sums[0] / self._sums[1]) if self._sums[1] > 0 else math.nan

    def capture(self) -> dict[str, Any]:
        return {"sums": self._sums.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        self._sums = state["sums"].copy()


class _Watcher:
    """One signal. Its unrest beyond what the model predicts (sessions, hours) is measured slide by slide."""

    def __init__(self, least_change: float) -> None:
        self._change = least_change
        self._adwin = Adwin(clock=_CLOCK)
        self._page = PageHinkley(alpha=1.0)
        self._unrest = _Average()  # squared slide sums by predicted variance
        self._level = _Average()  # of the signal

    def take(
        self, values: NDArray[np.float64], variances: NDArray[np.float64], chance: float
    ) -> list[tuple[str, float]]:
        """Values [n] of mean zero with the variances that the model predicts; the detectors that alarmed, and by how
        much the recalibration has moved, as a change of log-odds."""
        total, expected = float(values.sum()), float(variances.sum())
        if expected <= 0:
            return []
        spread = max(1.0, self._unrest.value) if not math.isnan(self._unrest.value) else 1.0
        usual = 0.0 if math.isnan(self._level.value) else self._level.value
        shift = total / expected - usual
        self._adwin.delta, self._adwin.spread = chance, spread
        found = ["adwin"] * bool(self._adwin.update(values))
        # Page-Hinkley as a likelihood ratio: c x - c^2 v / 2 over the spread, against log(1 / chance) (Lorden 1971)
        self._page.threshold = spread * math.log(1.0 / chance) / self._change
        found += ["page_hinkley"] * bool(self._page.update(values, self._change * variances / 2))
        # a change must not pass for unrest while it is being found, so a slide counts for four times the usual at most
        self._unrest.add(min((total - usual * expected) ** 2 / expected, _MOST_UNREST * spread), 1.0)
        self._level.add(total, expected)
        return [(name, shift) for name in found]

    def capture(self) -> dict[str, Any]:
        return {name: part.capture() for name, part in self._parts().items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.restore(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "adwin": self._adwin,
            "page": self._page,
            "unrest": self._unrest,
            "level": self._level,
        }

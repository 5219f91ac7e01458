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

F64 = NDArray[np.float64]

SIGNALS = ("offset", "slope")

_CLOCK = 512  # values between two looks of ADWIN, at least,
_LOOKS = 32  # and about so many looks a slide at the most
_LONGEST_ARM = 3.0  # |z - mean z| beyond which an example moves the slope no further
_CHANGES = (1, 2, 4)  # times `drift.min_change`: what Page-Hinkley is tuned to
_MEMORY = 0.98  # share of what was known of scale and unrest that a slide leaves
_PRIOR_UNREST, _PRIOR_SLIDES = 1.5, 6.0  # believed before there is evidence
_BELIEVED_AFTER = 18  # slides
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
        steep = np.clip(z - self._mean_logit.value, -_LONGEST_ARM, _LONGEST_ARM)
        arms: dict[str, F64 | float] = {"offset": 1.0, "slope": steep}
        chance = min(max(span / self._settings.run_length / 8, _LEAST_DELTA), _MOST_DELTA)  # half the budget, 4 ways
        found = []
        for signal, watcher in self._watchers.items():
            for measure, shift in watcher.take(y, chances, arms[signal], chance):
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

    def __init__(self, total: float = 0.0, weight: float = 0.0) -> None:
        self._sums = np.array([total, weight])

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
    """One signal. Its unrest beyond what the model predicts (sessions, hours) is measured slide by slide, and believed
    later, so that a change is not taken for unrest while it is being found."""

    def __init__(self, least_change: float) -> None:
        self._changes = [least_change * times for times in _CHANGES]
        self._adwin = Adwin(clock=_CLOCK)
        self._pages = [PageHinkley(alpha=1.0) for _ in _CHANGES]  # each soonest for a change of its size
        self._unrest = _Average(_PRIOR_UNREST * _PRIOR_SLIDES, _PRIOR_SLIDES)  # squared slide sums by variance
        self._fresh: list[float] = []  # of the latest slides, not yet part of it
        self._level = _Average()  # of the signal
        self._variance = _Average()  # of a slide's sum

    def take(self, bought: NDArray[np.bool_], chances: F64, arm: F64 | float, chance: float) -> list[tuple[str, float]]:
        """A slide's labels [n], the model's chances, and how far each example moves the signal (y - p) x arm. The
        detectors that alarmed, and by how much the recalibration has moved, as a change of log-odds."""
        values, variances = (bought - chances) * arm, chances * (1 - chances) * arm**2
        total, expected = float(values.sum()), float(variances.sum())
        if expected <= 0:
            return []
        self._variance.add(expected, 1.0)
        spread = max(1.0, self._unrest.value)
        usual = 0.0 if math.isnan(self._level.value) else self._level.value
        shift = total / expected - usual
        self._adwin.delta, self._adwin.spread = chance, spread
        self._adwin.clock = max(_CLOCK, 1 << (len(values) // _LOOKS).bit_length())
        found = ["adwin"] * bool(self._adwin.update(values))
        found += ["page_hinkley"] * self._likelihood_ratios(values, chances, arm, chance, spread)
        self._believe(min((total - usual * expected) ** 2 / expected, _MOST_UNREST * spread))
        self._level.add(total, expected)
        return [(name, shift) for name in found]

    def _likelihood_ratios(self, values: F64, chances: F64, arm: F64 | float, chance: float, spread: float) -> bool:
        """Page-Hinkley tests whose steps are log-likelihood ratios of a change by c (over c): allowance log E exp(c x)
        / c, threshold log(1 / chance) (Lorden 1971). The mean time to a false alarm is e^threshold over the steps' mean
        information (Siegmund 1985), so traffic raises the threshold, and alarms stay as rare in event time."""
        alarmed = False
        for change, page in zip(self._changes, self._pages, strict=True):
            information = change**2 * self._variance.value / spread / 2
            bar = math.log(len(self._pages) / chance) + math.log(max(information, 1.0))
            page.threshold = spread * bar / change
            alarmed |= bool(page.update(values, _allowance(chances, change * arm) / change))
        return alarmed

    def _believe(self, unrest: float) -> None:
        self._fresh.append(unrest)
        if len(self._fresh) > _BELIEVED_AFTER:
            self._unrest.add(self._fresh.pop(0), 1.0)

    def capture(self) -> dict[str, Any]:
        parts = {name: part.capture() for name, part in self._parts().items()}
        return {**parts, "pages": [page.capture() for page in self._pages], "fresh": np.array(self._fresh)}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.restore(state[name])
        for page, captured in zip(self._pages, state["pages"], strict=True):
            page.restore(captured)
        self._fresh = state["fresh"].tolist()

    def _parts(self) -> dict[str, Any]:
        return {"adwin": self._adwin, "unrest": self._unrest, "level": self._level, "variance": self._variance}


def _allowance(chances: F64, tilt: F64 | float) -> F64:
    """log E exp(t (y - p)) of each example [n], for the tilt t or -t, whichever is more."""
    up, down = (np.log1p(chances * np.expm1(t)) - t * chances for t in (tilt, -tilt))
    return np.maximum(up, down)

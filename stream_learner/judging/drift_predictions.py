"""Prediction drift: the champion's scores against those it gives its own training window, and the candidate's
against the champion's on the same examples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging.drift_tests import Test
from stream_learner.judging.sketch import ColumnKind, Reference, Sketch, number_codes
from stream_learner.judging.watched import SketchHistory
from stream_learner.settings import Drift

Logits = NDArray[np.float32]

_KINDS: tuple[ColumnKind, ...] = ("number",)
_PIECES = 8  # of the reference, so that its own unrest is known


class PredictionDrift:
    """Watches the scores that arriving examples get."""

    def __init__(self, settings: Drift) -> None:
        self._settings = settings
        self._recent = {model: SketchHistory(settings.window) for model in ("candidate", "champion")}
        self._reference: list[Sketch] = []

    def observe(self, candidate: Logits, champion: Logits, at: int) -> None:
        """Scores [n] of the examples of a slide ending at `at` (us); those that only one model scored are left out."""
        both = ~np.isnan(candidate) & ~np.isnan(champion)
        for model, logits in (("candidate", candidate), ("champion", champion)):
            self._recent[model].add(number_codes(logits[both])[:, None], at)
            self._recent[model].keep_after(at - self._settings.window)

    def rebase(self, scores: Logits) -> None:
        """A new champion, and its scores [m] of its own training window, oldest first. Older arrivals were scored by
        another model and are forgotten."""
        parts = np.array_split(number_codes(scores[~np.isnan(scores)])[:, None], _PIECES)
        self._reference = [Sketch.of(part) for part in parts if len(part)]
        self._recent = {model: SketchHistory(self._settings.window) for model in self._recent}

    def tests(self) -> list[Test]:
        """PSI of both comparisons. The champion's must go beyond what the parts of its own training window, and so the
        hours of its day, differ by; the candidate's is on the same examples."""
        tests = []
        candidate, champion = (self._recent[model].between(-(2**63), 2**63) for model in ("candidate", "champion"))
        for subject, now, then in (("champion", champion, self._reference), ("candidate", candidate, champion)):
            if min(sum(part.rows for part in side) for side in (now, then)) >= self._settings.min_examples:
                reference = Reference(then, _KINDS, self._settings.bins)
                own = max(_psi(reference, [part]) for part in then) if subject == "champion" else 0.0
                least, distance = self._settings.min_prediction_psi + own, reference.distances(now)[0]
                tests.append(Test("predictions", subject, "psi", distance.psi, least, distance.chance))
        return tests

    def capture(self) -> dict[str, Any]:
        return {
            "recent": {model: history.capture() for model, history in self._recent.items()},
            "reference": [part.capture() for part in self._reference],
        }

    def restore(self, state: dict[str, Any]) -> None:
        for model, history in self._recent.items():
            history.restore(state["recent"][model])
        self._reference = [Sketch.restored(part) for part in state["reference"]]


def _psi(reference: Reference, parts: list[Sketch]) -> float:
    return reference.distances(parts)[0].psi

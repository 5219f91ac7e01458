"""Four kinds of drift, told apart: of the inputs, of the labels, of the predictions, and of the relation itself.

Every `drift.interval` of event time all comparisons are made at once; a test becomes a finding where it stands at the
false discovery rate interval / (2 run_length) and is large enough to matter, so that neither more features nor more
traffic bring more alarms. The detectors on the matured loss have the other half of the budget.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import ExampleBatch
from stream_learner.judging import estimate
from stream_learner.judging.drift_calibration import CalibrationDrift
from stream_learner.judging.drift_inputs import InputColumns, InputDrift
from stream_learner.judging.drift_labels import LabelDrift
from stream_learner.judging.drift_predictions import PredictionDrift
from stream_learner.judging.drift_relation import RelationDrift
from stream_learner.judging.drift_tests import KINDS, Finding, Test, findings
from stream_learner.settings import Drift

Logits = NDArray[np.float32]

_RECALIBRATED_ON = 20_000  # matured examples that the estimate is recalibrated on
_PARTS = (*KINDS, "calibration")
_SHOWN = 50  # findings kept for the report, newest last


class DriftWatch:
    """All detectors, slide by slide. Their state and what they found are part of the snapshot."""

    def __init__(self, columns: InputColumns, settings: Drift, seed: int) -> None:
        self._settings = settings
        self.inputs = InputDrift(columns, settings, seed)
        self.labels = LabelDrift(settings)
        self.predictions = PredictionDrift(settings)
        self.relation = RelationDrift(settings)
        self.calibration = CalibrationDrift(columns, settings)
        self.alarms: Counter[str] = Counter(dict.fromkeys(KINDS, 0))  # by kind, since the state began
        self.current: list[Finding] = []  # of the last look, and of the relation since
        self.tests: list[Test] = []  # of the last look
        self.jensen_shannon: dict[str, float] = {}  # by input feature at the last look, bits
        self.last: list[dict[str, Any]] = []  # the newest alarms
        self._looked_at: int | None = None
        self._matured: tuple[Logits, Logits] = (np.empty(0, np.float32), np.empty(0, np.float32))

    def arrived(self, examples: ExampleBatch, slide: int, at: int) -> None:
        """A slide's examples came in; the slide ended at `at`, us."""
        self.inputs.observe(examples, slide, at)
        self.predictions.observe(examples.logit_candidate, examples.logit_champion, at)

    def matured(
        self, examples: ExampleBatch, delays: NDArray[np.float32], champion: Logits, slide: int, span: tuple[int, int]
    ) -> list[Finding]:
        """Examples got their labels. Returns the new alarms, those of a due look included.

        `champion`: its logits [n] as of now, NaN = there is none; `delays`: of the purchases in seconds, NaN = none;
        `span`: start and end of the slide, us.
        """
        start, at = span
        self.inputs.learned(examples, slide, at)
        self.labels.matured(examples.label, delays, at)
        self.calibration.matured(examples, champion)
        changed = self.relation.matured(champion, examples.label, at - start)
        scored = np.isfinite(champion)
        pairs = zip(self._matured, (champion[scored], examples.label[scored]), strict=True)
        logits, labels = (np.concatenate(pair)[-_RECALIBRATED_ON:] for pair in pairs)
        self._matured = logits, labels
        return self._alarm([*self._due_look(at), *changed], at)

    def published(self, at: int, score: Callable[[ExampleBatch], Logits]) -> None:
        """A version was made of the slide ending at `at`; `score` gives its logits."""
        self.inputs.rebase(at)
        self.labels.rebase(at)
        sample = self.inputs.training_sample()
        self.calibration.rebase(sample, np.empty(0, np.float32) if sample is None else score(sample))
        if sample is not None:
            self.predictions.rebase(score(sample))

    def psi(self, at: int) -> dict[str, float]:
        """PSI by input feature as of now; empty while either side has fewer than `drift.min_examples` examples."""
        return {name: distance.psi for name, distance in self.inputs.distances(at).items()}

    def shares(self, at: int) -> dict[str, Any]:
        """By input feature its bins and both sides' shares in them, for people: four digits."""
        return {
            name: {"bins": one.bins, "now": _digits(one.now), "reference": _digits(one.reference)}
            for name, one in self.inputs.shares(at).items()
        }

    def estimate(self) -> dict[str, float]:
        """What the champion's metrics on the last `drift.window` of arrivals will probably be once labels come."""
        recent = self.inputs.recent_sample()
        if recent is None:
            return {}
        examples, weights = recent
        scored = np.isfinite(examples.logit_champion)
        if not scored.any():
            return {}
        logits = examples.logit_champion[scored]
        chances = estimate.recalibrated(logits, *estimate.recalibration(*self._matured))
        return estimate.estimated(logits, chances, weights[scored])

    def numbers(self) -> dict[str, Any]:
        """For a verdict: the findings that stand, every test of the last look and the inputs' Jensen-Shannon
        divergences beside their PSI, and the estimate."""
        return {
            "reference": self._settings.reference,
            "findings": [finding.to_json() for finding in self.current],
            "tests": {f"{t.kind}/{t.subject}/{t.measure}": {"value": t.value, "p": t.chance} for t in self.tests},
            "jensen_shannon": dict(self.jensen_shannon),
            "estimate": self.estimate(),
        }

    def report(self) -> dict[str, Any]:
        """The same for a run's report, with the alarms by kind and the newest of them."""
        return {"alarms": dict(self.alarms), "last_alarms": list(self.last), **self.numbers()}

    def _due_look(self, at: int) -> list[Finding]:
        """The findings of a look, if it is time for one; else those of the last."""
        settings = self._settings
        if self._looked_at is not None and at - self._looked_at < settings.interval:
            return [finding for finding in self.current if finding.kind != "relation"]
        since = settings.interval if self._looked_at is None else at - self._looked_at
        self._looked_at = at
        distances = self.inputs.distances(at)
        self.jensen_shannon = {name: distance.js for name, distance in distances.items()}
        self.tests = [*self.inputs.tests(distances), *self.labels.tests(at), *self.predictions.tests()]
        self.tests += self.calibration.tests(at)
        found = findings(self.tests, min(0.5, since / settings.run_length) / 2)
        self.calibration.found({finding.subject for finding in found if finding.kind == "relation"}, at)
        return found

    def _alarm(self, found: list[Finding], at: int) -> list[Finding]:
        """An alarm is a finding that the slide before did not have."""
        known = {finding.name for finding in self.current}
        self.current = found
        fresh = [finding for finding in found if finding.name not in known]
        self.alarms.update(finding.kind for finding in fresh)
        self.last = [*self.last, *({"slide_end": at, **finding.to_json()} for finding in fresh)][-_SHOWN:]
        return fresh

    def capture(self) -> dict[str, Any]:
        parts: dict[str, Any] = {name: getattr(self, name).capture() for name in _PARTS}
        return {
            **parts,
            "alarms": dict(self.alarms),
            "current": [finding.to_json() for finding in self.current],
            "tests": [asdict(test) for test in self.tests],
            "jensen_shannon": dict(self.jensen_shannon),
            "last": [dict(entry) for entry in self.last],
            "looked_at": self._looked_at,
            "matured": [column.copy() for column in self._matured],
        }

    def restore(self, state: dict[str, Any]) -> None:
        for name in _PARTS:
            getattr(self, name).restore(state[name])
        self.alarms = Counter(state["alarms"])
        self.current = [Finding(**entry) for entry in state["current"]]
        self.tests = [Test(**entry) for entry in state["tests"]]
        self.jensen_shannon = dict(state["jensen_shannon"])
        self.last = [dict(entry) for entry in state["last"]]
        self._looked_at = state["looked_at"]
        logits, labels = state["matured"]
        self._matured = logits.copy(), labels.copy()


def _digits(shares: NDArray[np.float64]) -> list[float]:
    rounded: list[float] = shares.round(4).tolist()
    return rounded

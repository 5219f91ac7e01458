"""What the drift detectors say: one test each, and the findings of a look, with false alarms budgeted over all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from stream_learner.judging.tails import discoveries

DriftKind = Literal["inputs", "labels", "predictions", "relation"]
KINDS: tuple[DriftKind, ...] = ("inputs", "labels", "predictions", "relation")


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison with the reference, or one detector's state."""

    kind: DriftKind
    subject: str  # a feature, `all`, label, delay, champion, candidate, offset, slope, prediction
    measure: str  # psi, missing, new, auc, rate, calibration, adwin, page_hinkley
    value: float
    least: float  # the smallest value worth an alarm
    chance: float  # p-value of a value like this without drift; 0 and 1 for detectors with a budget of their own


@dataclass(frozen=True, slots=True)
class Finding:
    """A test that stands: too unlikely without drift, and large enough to matter."""

    kind: DriftKind
    subject: str
    measure: str
    value: float
    chance: float

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.subject}/{self.measure}"

    def __str__(self) -> str:
        return f"{self.kind} drift: {self.measure} {self.value:.3g} of {self.subject} (p {self.chance:.1g})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def findings(tests: Sequence[Test], level: float) -> list[Finding]:
    """The tests that stand at this false discovery rate and reach their least value, strongest first."""
    judged = [test for test in tests if not math.isnan(test.value) and not math.isnan(test.chance)]
    found = discoveries(np.array([test.chance for test in judged]), level)
    standing = [
        Finding(test.kind, test.subject, test.measure, test.value, test.chance)
        for test, stands in zip(judged, found.tolist(), strict=True)
        if stands and abs(test.value) >= test.least
    ]
    return sorted(standing, key=lambda finding: (finding.chance, finding.name))

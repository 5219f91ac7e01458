"""What the gate is asked, and what it answers: a verdict of one rule a check, with every number used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stream_learner.judging.metrics import finite_or_none


@dataclass(frozen=True, slots=True)
class Rule:
    """One check: passes where `value` keeps to `threshold`; a rule that is not asked stands in nobody's way."""

    name: str
    value: float
    threshold: float | tuple[float, float]  # two = a band
    passed: bool
    asked: bool
    text: str  # in plain words, with the numbers


@dataclass(frozen=True, slots=True)
class Question:
    """What the gate is asked about, besides its own evidence."""

    slide: int
    slide_end: int  # us
    finite: bool  # all of the candidate's weights and slots
    psi: Mapping[str, float]  # by feature; empty = not judged yet
    parent: int | None  # the champion's version; None = nothing is in service yet
    baselines: Mapping[str, Any] = field(default_factory=dict)  # their metrics, recorded beside the verdict
    auc: float = float("nan")  # the candidate's over the longest of `judging.windows`, where a rule asks for it


@dataclass(frozen=True, slots=True)
class Verdict:
    slide: int
    slide_end: int  # us
    passed: bool
    mode: str
    reason: str  # one line for people
    rules: tuple[Rule, ...]
    parent: int | None
    evidence: dict[str, float]
    psi: dict[str, float]
    baselines: dict[str, Any]
    degraded: bool = False  # the candidate is proven worse than the champion
    override: str | None = None  # the operator's reason, where the rules alone would not have passed it
    kind: str = "verdict"

    def gain(self) -> dict[str, float]:
        """The candidate's gain over the champion, with the band that holds at every look and what it must be above."""
        thresholds = [rule.threshold for rule in self.rules if rule.name == "against_champion"]
        asked = next((threshold for threshold in thresholds if isinstance(threshold, float)), math.nan)
        names = {"mean": "gain", "lower": "gain_lower", "upper": "gain_upper"}
        return {**{bound: self.evidence.get(name, math.nan) for bound, name in names.items()}, "threshold": asked}

    def to_json(self) -> dict[str, Any]:
        """Plain values, keys sorted, None for what is not finite; a function of log, journal and config alone."""
        plain = finite_or_none(asdict(self))
        assert isinstance(plain, dict)
        return plain

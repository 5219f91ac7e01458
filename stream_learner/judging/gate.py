"""The gate: decides, from evidence gathered since the last version, whether the candidate is published.

Evidence is a handful of sums over examples that candidate and champion both scored at maturity, before either
learned from them. Each question is answered by a `Verdict`: one `Rule` a check, with every number it used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.judging.metrics import Sums, entropy, finite_or_none
from stream_learner.settings import Duration

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rule:
    """One check: passes where `value` keeps to `threshold`; a rule that is not asked stands in nobody's way."""

    name: str
    value: float
    threshold: float | tuple[float, float]  # two = a band
    passed: bool
    asked: bool
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """What the gate is asked about, besides its own evidence."""

    slide: int
    slide_end: int  # us
    finite: bool  # all of the candidate's weights and slots
    psi: Mapping[str, float]  # by feature; empty = not judged yet
    parent: int | None  # the champion's version; None = nothing is in service yet
    baselines: Mapping[str, Any] = field(default_factory=dict)  # their metrics, recorded beside the verdict


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

    def to_json(self) -> dict[str, Any]:
        """Plain values, keys sorted, None for what is not finite; a function of log, journal and config alone."""
        plain = finite_or_none(asdict(self))
        assert isinstance(plain, dict)
        return plain


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sums since the last version."""

    alone: Sums = field(default_factory=Sums)  # the candidate on all it scored
    paired: Sums = field(default_factory=Sums)  # the candidate where the champion scored too
    champion: Sums = field(default_factory=Sums)  # the champion on those
    unscored: int = 0  # examples to which the candidate gave no finite score

    @property
    def candidate(self) -> Sums:
        """The examples that are judged: those both scored, all of them where there is no champion to hold against."""
        return self.paired if self.paired.n else self.alone

    @property
    def excess(self) -> float:
        """The candidate's NE less the champion's, on the same examples."""
        return self.paired.normalized_entropy - self.champion.normalized_entropy

    def numbers(self) -> dict[str, float]:
        return {
            "n": int(self.candidate.n),
            "n_pos": int(self.candidate.positives),
            "unscored": self.unscored,
            "base_rate": self.candidate.base_rate,
            "base_rate_entropy": entropy(self.candidate.base_rate),
            "candidate_log_loss": self.candidate.log_loss,
            "candidate_normalized_entropy": self.candidate.normalized_entropy,
            "candidate_calibration": self.candidate.calibration,
            "champion_log_loss": self.champion.log_loss,
            "champion_normalized_entropy": self.champion.normalized_entropy,
            "champion_calibration": self.champion.calibration,
        }


class Gate:
    """Gathers evidence, says when it is due, and judges."""

    def __init__(self, config: settings.Gate) -> None:
        self._config = config
        self._evidence = Evidence()
        self._asked_at: int | None = None
        self._published_at: int | None = None
        self._drift_since: int | None = None  # first time in this evidence period that drift was above its threshold

    def observe(self, candidate: Logits, champion: Logits, labels: NDArray[np.float32]) -> None:
        """Takes in matured examples, scored before they are learned from: all [n]; the champion's are NaN where there
        is none.

        Examples the champion gave no finite score are no pair: an old model that can no longer be judged must not
        block for ever. Those the candidate gave none are counted, and hold it back.
        """
        scored = np.isfinite(candidate)
        both = scored & np.isfinite(champion)
        now = self._evidence
        self._evidence = Evidence(
            alone=now.alone + Sums.of(candidate[scored], labels[scored]),
            paired=now.paired + Sums.of(candidate[both], labels[both]),
            champion=now.champion + Sums.of(champion[both], labels[both]),
            unscored=now.unscored + int(np.count_nonzero(~scored)),
        )

    def due(self, slide_end: int) -> bool:
        """Whether `gate.interval` of event time has passed since it was asked; first as soon as there is evidence."""
        if self._asked_at is None:
            return self._evidence.alone.n > 0
        return slide_end - self._asked_at >= self._config.interval

    def judge(self, question: Question) -> Verdict:
        """Answers, and remembers being asked. Until there is a champion, evidence that was enough is used once."""
        self._asked_at = question.slide_end
        rules = self._rules(question)
        passed, reason = self._answer(question, rules)
        numbers = self._evidence.numbers()
        if question.parent is None and all(rule.passed for rule in self._enough()):
            self._evidence = Evidence()  # a first version is not held to the scores of the model's first hours
        return Verdict(
            slide=question.slide,
            slide_end=question.slide_end,
            passed=passed,
            mode=self._config.mode,
            reason=f"{'passed' if passed else 'held'}: {reason}",
            rules=rules,
            parent=question.parent,
            evidence=numbers,
            psi=dict(question.psi),
            baselines=dict(question.baselines),
        )

    def published(self, slide_end: int) -> None:
        """A version was made of the slide ending there, by verdict or by rollback: evidence starts afresh."""
        self._evidence = Evidence()
        self._published_at = slide_end
        self._drift_since = None

    def _answer(self, question: Question, rules: tuple[Rule, ...]) -> tuple[bool, str]:
        failed = [rule for rule in rules if rule.asked and not rule.passed]
        # a metric that is not defined yet says nothing beside the rule that asks for more examples
        told = [rule.text for rule in failed if not math.isnan(rule.value)] or [rule.text for rule in failed]
        gist = next(rule.text for rule in rules if rule.name == "ne_against_champion")
        reason = "; ".join(told) or gist
        if self._config.mode == "always":
            return question.finite and self._evidence.alone.n > 0, f"gate.mode is always; by the rules: {reason}"
        return not failed, reason

    def _rules(self, question: Question) -> tuple[Rule, ...]:
        return (
            self._weights(question),
            self._scores(),
            *self._enough(),
            self._not_worse(question),
            self._floor(),
            self._calibrated(),
            self._apart(question),
            self._undrifted(question),
        )

    def _weights(self, question: Question) -> Rule:
        text = "weights are finite" if question.finite else "the candidate has weights that are not finite"
        return Rule("weights_finite", float(question.finite), 1.0, question.finite, True, text)

    def _scores(self) -> Rule:
        count = self._evidence.unscored
        return Rule("scores_finite", count, 0, count == 0, True, f"{count:,} examples have no finite score")

    def _enough(self) -> tuple[Rule, Rule]:
        sums, config = self._evidence.candidate, self._config
        return (
            _at_least("examples", sums.n, config.min_examples, "matured examples since the last version"),
            _at_least("positives", sums.positives, config.min_positives, "positives since the last version"),
        )

    def _not_worse(self, question: Question) -> Rule:
        evidence, margin = self._evidence, self._config.margin
        if question.parent is None or not evidence.paired.n:
            who = "there is no champion yet" if question.parent is None else "the champion scored nothing"
            text = f"{who}: NE {evidence.candidate.normalized_entropy:.4f} {self._basis()}"
            return Rule("ne_against_champion", math.nan, margin, True, False, text)
        passed = evidence.excess <= margin
        text = (
            f"NE {evidence.candidate.normalized_entropy:.4f} is {'not ' if passed else ''}above the champion's "
            f"{evidence.champion.normalized_entropy:.4f} by more than {margin:g} {self._basis()}"
        )
        return Rule("ne_against_champion", evidence.excess, margin, passed, True, text)

    def _floor(self) -> Rule:
        value, limit = self._evidence.candidate.normalized_entropy, self._config.max_ne
        passed = value <= limit
        text = f"NE {value:.4f} is {'not ' if passed else ''}above {limit:g} (1 = the base rate) {self._basis()}"
        return Rule("ne_against_base_rate", value, limit, passed, True, text)

    def _calibrated(self) -> Rule:
        value, (low, high) = self._evidence.candidate.calibration, self._config.calibration
        passed = low <= value <= high
        text = f"calibration {value:.3f} is {'' if passed else 'not '}within {low:g} to {high:g} {self._basis()}"
        return Rule("calibration", value, (low, high), passed, True, text)

    def _apart(self, question: Question) -> Rule:
        least = self._config.min_interval
        if self._published_at is None:
            return Rule("min_interval", math.nan, least.seconds, True, False, "no version yet")
        since = Duration(question.slide_end - self._published_at)
        text = f"the last version is {since} old, and {least} is the least between two"
        return Rule("min_interval", since.seconds, least.seconds, since >= least, True, text)

    def _undrifted(self, question: Question) -> Rule:
        limit, hold = self._config.max_psi, self._config.drift_hold
        if not question.psi:
            return Rule("input_drift", math.nan, limit, True, False, "too few examples to judge input drift")
        feature = max(sorted(question.psi), key=lambda name: (math.isnan(question.psi[name]), question.psi[name]))
        value = question.psi[feature]
        if value <= limit:
            return Rule("input_drift", value, limit, True, True, f"the largest PSI is {value:.3f} ({feature})")
        if self._drift_since is None:
            self._drift_since = question.slide_end
        lasted = Duration(question.slide_end - self._drift_since)
        text = f"input drift: PSI {value:.3f} of {feature} is above {limit:g}, seen for {lasted}"
        if lasted >= hold:
            return Rule("input_drift", value, limit, True, True, f"{text}; drift alone holds for {hold} at most")
        return Rule("input_drift", value, limit, False, True, text)

    def _basis(self) -> str:
        sums = self._evidence.candidate
        return f"on {int(sums.n):,} examples ({int(sums.positives):,} positives)"

    def capture(self) -> dict[str, Any]:
        return {
            "evidence": asdict(self._evidence),
            "asked_at": self._asked_at,
            "published_at": self._published_at,
            "drift_since": self._drift_since,
        }

    def restore(self, state: dict[str, Any]) -> None:
        sums = state["evidence"]
        parts = {name: Sums(**sums[name]) for name in ("alone", "paired", "champion")}
        self._evidence = Evidence(**parts, unscored=sums["unscored"])
        self._asked_at = state["asked_at"]
        self._published_at = state["published_at"]
        self._drift_since = state["drift_since"]


def _at_least(name: str, value: float, threshold: int, what: str) -> Rule:
    text = f"{int(value):,} of {threshold:,} {what}"
    return Rule(name, value, threshold, value >= threshold, True, text)

"""The gate's rules, one function each: a number, its threshold, the outcome, and a sentence for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stream_learner import settings
from stream_learner.judging.evidence import Evidence
from stream_learner.judging.metrics import entropy
from stream_learner.judging.sequence import PairedGains
from stream_learner.judging.verdict import Question, Rule
from stream_learner.settings import Duration


@dataclass(frozen=True, slots=True)
class Comparison:
    """The candidate's gain over the champion since the last version, in NE; NaN where NE is not defined."""

    n: int
    positives: int
    gain: float
    lower: float
    upper: float
    gain_nats: float
    standard_error_nats: float

    @classmethod
    def of(cls, gains: PairedGains, alpha: float) -> Comparison:
        n, positives = int(gains.n), int(gains.positives)
        unit = entropy(positives / n) if n else math.nan
        unit = unit if unit > 0 else math.nan
        mean = float(gains.mean)
        lower, upper = float(gains.lower(alpha)), float(gains.upper(alpha))
        error = float(gains.standard_error)
        return cls(n, positives, mean / unit, lower / unit, upper / unit, mean, error)

    @property
    def worse(self) -> bool:
        """Proven: whatever the luck, with probability 1 - alpha at all looks since the last version together."""
        return self.upper < 0.0

    def numbers(self) -> dict[str, float]:
        return {
            "since_version_n": self.n,
            "since_version_n_pos": self.positives,
            "gain": self.gain,
            "gain_lower": self.lower,
            "gain_upper": self.upper,
            "gain_nats": self.gain_nats,
            "gain_standard_error_nats": self.standard_error_nats,
        }

    @classmethod
    def recorded(cls, numbers: Mapping[str, float]) -> Comparison:
        """From `numbers`, and whatever else a verdict recorded beside them."""
        counts = int(numbers["since_version_n"]), int(numbers["since_version_n_pos"])
        in_ne = numbers["gain"], numbers["gain_lower"], numbers["gain_upper"]
        return cls(*counts, *in_ne, numbers["gain_nats"], numbers["gain_standard_error_nats"])

    def __str__(self) -> str:
        basis = f"on {self.n:,} examples ({self.positives:,} positives) since the last version"
        if not math.isfinite(self.upper - self.lower):
            return f"no telling yet {basis}"
        return f"NE gain {self.gain:+.4f} ({self.lower:+.4f} to {self.upper:+.4f} at every look) {basis}"


def weights_finite(question: Question) -> Rule:
    text = "weights are finite" if question.finite else "the candidate has weights that are not finite"
    return Rule("weights_finite", float(question.finite), 1.0, question.finite, True, text)


def scores_finite(evidence: Evidence) -> Rule:
    count = evidence.unscored
    return Rule("scores_finite", count, 0, count == 0, True, f"{count:,} examples have no finite score")


def enough(evidence: Evidence, gate: settings.Gate) -> tuple[Rule, Rule]:
    sums, span = evidence.candidate, gate.evidence_window
    return (
        _at_least("examples", sums.n, gate.min_examples, f"matured examples since the last version, {span} at most"),
        _at_least("positives", sums.positives, gate.min_positives, f"positives since the last version, {span} at most"),
    )


def _at_least(name: str, value: float, threshold: int, what: str) -> Rule:
    text = f"{int(value):,} of {threshold:,} {what}"
    return Rule(name, value, threshold, value >= threshold, True, text)


def asked_gain(gate: settings.Gate) -> float:
    """The NE gain over the champion that a candidate must be proven to exceed."""
    return -gate.margin if gate.mode == "non_inferior" else 0.0


def against_champion(
    comparison: Comparison, evidence: Evidence, gate: settings.Gate, question: Question, age: Duration | None
) -> Rule:
    """The proof that `gate.mode` asks for; from `gate.max_interval` on only that nothing is proven against it."""
    least = asked_gain(gate)
    if question.parent is None or not evidence.comparable:
        who = "there is no champion yet" if question.parent is None else _unscored(evidence)
        text = f"{who}: the absolute rules alone decide"
        return Rule("against_champion", math.nan, least, True, False, text)
    goal = "better than the champion" if gate.mode == "superior" else f"within {gate.margin:g} of the champion's NE"
    if comparison.lower > least:
        return Rule("against_champion", comparison.lower, least, True, True, f"proven {goal}: {comparison}")
    if comparison.worse:
        return Rule("against_champion", comparison.lower, least, False, True, worse(comparison))
    text = f"not proven {goal}: {comparison}"
    if gate.max_interval is not None and age is not None and age >= gate.max_interval:
        text += f"; it is enough not to be proven worse, as the last version is {age} old ({gate.max_interval} at most)"
        return Rule("against_champion", comparison.upper, 0.0, True, True, text)
    return Rule("against_champion", comparison.lower, least, False, True, text)


def worse(comparison: Comparison) -> str:
    """What is said of a candidate that is proven worse."""
    return f"proven worse than the champion: {comparison}"


def _unscored(evidence: Evidence) -> str:
    return f"the champion scored {int(evidence.paired.n):,} of {int(evidence.alone.n):,} examples"


def against_base_rate(evidence: Evidence, gate: settings.Gate) -> Rule:
    value, limit = evidence.candidate.normalized_entropy, gate.max_ne
    if limit is None:
        return _free("against_base_rate", value, f"NE {value:.4f}, no largest is set")
    passed = value <= limit
    text = f"NE {value:.4f} is {'not ' if passed else ''}above {limit:g} (1 = the base rate) {evidence.basis}"
    return Rule("against_base_rate", value, limit, passed, True, text)


def ranking(gate: settings.Gate, question: Question) -> Rule:
    value, limit = question.auc, gate.min_auc
    if limit is None:
        return _free("auc", value, "no least AUC is set")
    passed = value >= limit
    return Rule("auc", value, limit, passed, True, f"AUC {value:.4f} is {'not ' if passed else ''}below {limit:g}")


def calibrated(evidence: Evidence, gate: settings.Gate) -> Rule:
    value, band = evidence.candidate.calibration, gate.calibration
    if band is None:
        return _free("calibration", value, f"calibration {value:.3f}, no band is set")
    passed = band[0] <= value <= band[1]
    verb = "is" if passed else "is not"
    text = f"calibration {value:.3f} {verb} within {band[0]:g} to {band[1]:g} {evidence.basis}"
    return Rule("calibration", value, band, passed, True, text)


def sliced(name: str, evidence: Evidence, floor: settings.SliceFloor) -> Rule:
    """All that is asked of one slice of the traffic; its NE is the value, or its excess where only that is asked."""
    ne, excess = evidence.candidate.normalized_entropy, evidence.excess
    value, limit = (excess, floor.max_excess) if floor.max_ne is None else (ne, floor.max_ne)
    key, threshold = f"slice {name}", math.nan if limit is None else limit
    if evidence.candidate.positives < floor.min_positives:
        text = f"{int(evidence.candidate.positives):,} of {floor.min_positives:,} positives of {name} to judge it by"
        return Rule(key, value, threshold, True, False, text)
    wrong = []
    if floor.max_ne is not None and not ne <= floor.max_ne:
        wrong.append(f"NE {ne:.4f} is above {floor.max_ne:g}")
    if floor.max_excess is not None and evidence.comparable and not excess <= floor.max_excess:
        wrong.append(f"NE is {excess:+.4f} above the champion's ({floor.max_excess:g} at most)")
    calibration, band = evidence.candidate.calibration, floor.calibration
    if band is not None and not band[0] <= calibration <= band[1]:
        wrong.append(f"calibration {calibration:.3f} is not within {band[0]:g} to {band[1]:g}")
    text = f"{name}: {', '.join(wrong) or 'as it should be'} {evidence.basis}"
    return Rule(key, value, threshold, not wrong, True, text)


def _free(name: str, value: float, text: str) -> Rule:
    return Rule(name, value, math.nan, True, False, text)


def apart(gate: settings.Gate | settings.RankingGate, age: Duration | None) -> Rule:
    least = gate.min_interval
    if age is None:
        return Rule("min_interval", math.nan, least.seconds, True, False, "no version yet")
    text = f"the last version is {age} old, and {least} is the least between two"
    return Rule("min_interval", age.seconds, least.seconds, age >= least, True, text)


def cooled_down(gate: settings.Gate | settings.RankingGate, since: Duration | None) -> Rule:
    """`since`: event time since the last rollback."""
    least = gate.cool_down
    if since is None:
        return Rule("cool_down", math.nan, least.seconds, True, False, "no rollback yet")
    text = f"the last rollback was {since} ago, and nothing is published for {least} after one"
    return Rule("cool_down", since.seconds, least.seconds, since >= least, True, text)


def undrifted(gate: settings.Gate, question: Question, lasted: Duration) -> Rule:
    """`lasted`: for how long drift has been seen above its limit, in this evidence period."""
    limit, hold = gate.max_psi, gate.drift_hold
    if limit is None or not question.psi:
        text = "no largest PSI is set" if limit is None else "too few examples to judge input drift"
        return Rule("input_drift", math.nan, math.nan if limit is None else limit, True, False, text)
    feature, value = most_drifted(question)
    if value <= limit:
        return Rule("input_drift", value, limit, True, True, f"the largest PSI is {value:.3f} ({feature})")
    text = f"input drift: PSI {value:.3f} of {feature} is above {limit:g}, seen for {lasted}"
    if lasted >= hold:
        return Rule("input_drift", value, limit, True, True, f"{text}; drift alone holds for {hold} at most")
    return Rule("input_drift", value, limit, False, True, text)


def most_drifted(question: Question) -> tuple[str, float]:
    """The feature with the largest PSI, and that; a PSI that is no number counts as the largest."""
    feature = max(sorted(question.psi), key=lambda name: (math.isnan(question.psi[name]), question.psi[name]))
    return feature, question.psi[feature]

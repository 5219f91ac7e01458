"""The gate for rankings: publishes on evidence of reciprocal ranks, by the same anytime-valid sequence as conversion.

An example's gain is the candidate's reciprocal rank (0 beyond k) less the champion's, both taken as it arrived: never
outside -1 to 1, whatever the item turns out to be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.judging.checks import apart, cooled_down
from stream_learner.judging.sequence import PairedGains
from stream_learner.judging.verdict import Rule, Verdict
from stream_learner.settings import Duration

I64 = NDArray[np.int64]

_RANGE = 1.0  # largest reciprocal rank


@dataclass(frozen=True, slots=True)
class RankComparison:
    """A model's gain over another, in MRR at k."""

    n: int
    k: int
    gain: float
    lower: float
    upper: float

    @classmethod
    def of(cls, gains: PairedGains, alpha: float, k: int) -> RankComparison:
        return cls(int(gains.n), k, float(gains.mean), float(gains.lower(alpha)), float(gains.upper(alpha)))

    @property
    def worse(self) -> bool:
        """Proven, at all looks together, with probability 1 - alpha."""
        return self.upper < 0.0

    def __str__(self) -> str:
        bounds = f"{self.lower:+.4f} to {self.upper:+.4f} at every look"
        return f"MRR@{self.k} gain {self.gain:+.4f} ({bounds}) on {self.n:,} examples"


def paired(new: I64, other: I64) -> PairedGains:
    """Ranks of the same examples by two models, [n], 0 = beyond k."""
    return PairedGains.bounded(_reciprocal(new) - _reciprocal(other), _RANGE)


class RankGate:
    """Gathers evidence since the last version, and judges when asked."""

    def __init__(self, config: settings.RankingGate, k: int) -> None:
        self._config, self._k = config, k
        self._gains = PairedGains.none()
        self._examples, self._hits, self._reciprocal = 0, 0, 0.0  # of the candidate
        self._asked_at: int | None = None
        self._published_at: int | None = None
        self._rolled_back_at: int | None = None
        self._override: str | None = None

    def observe(self, candidate: I64, champion: I64 | None) -> None:
        """Ranks of a slide's judged examples, [n], 0 = beyond k; None = there is no champion."""
        ours = _reciprocal(candidate)
        self._examples += len(candidate)
        self._hits += int(np.count_nonzero(candidate))
        self._reciprocal += float(ours.sum())
        if champion is not None and len(candidate):
            self._gains += paired(candidate, champion)

    def due(self, slide_end: int) -> bool:
        """Whether `gate.interval` of event time has passed since it was asked; first as soon as there is evidence."""
        if self._asked_at is None:
            return self._examples > 0 or self._config.mode == "always"
        return slide_end - self._asked_at >= self._config.interval

    def judge(
        self, slide: int, slide_end: int, *, finite: bool, parent: int | None, psi: dict[str, float] | None = None
    ) -> Verdict:
        """`psi`: of what is watched for drift, for the record."""
        self._asked_at = slide_end
        rules = self._rules(slide_end, finite=finite, parent=parent)
        failed = [rule for rule in rules if rule.asked and not rule.passed]
        against = next(rule for rule in rules if rule.name == "against_champion")
        reason = "; ".join(rule.text for rule in failed) or against.text
        passed, override = not failed, None
        if self._config.mode == "always":
            passed, reason = finite, f"gate.mode is always; by the rules: {reason}"
        if not passed and finite and self._override is not None:
            passed, override = True, self._override
            reason = f"by override ({override}); by the rules: {reason}"
        if passed:
            self._override = None
        return Verdict(
            slide=slide,
            slide_end=slide_end,
            passed=passed,
            mode=self._config.mode,
            reason=f"{'passed' if passed else 'held'}: {reason}",
            rules=rules,
            parent=parent,
            evidence=self.numbers(),
            psi=psi or {},
            baselines={},
            degraded=parent is not None and self.comparison.worse,
            override=override,
        )

    @property
    def comparison(self) -> RankComparison:
        """Of the candidate with the champion, since the last version."""
        return RankComparison.of(self._gains, self._config.alpha, self._k)

    def numbers(self) -> dict[str, float]:
        """The evidence since the last version; MRR and recall at k."""
        seen, against = self._examples or math.nan, self.comparison
        return {
            "n": self._examples,
            f"recall@{self._k}": self._hits / seen,
            f"mrr@{self._k}": self._reciprocal / seen,
            "since_version_n": against.n,
            "gain": against.gain,
            "gain_lower": against.lower,
            "gain_upper": against.upper,
        }

    def override(self, why: str | None) -> None:
        """Lets the next verdict pass whatever the rules say, but for weights that are not finite; None = no longer."""
        self._override = why

    def published(self, slide_end: int, *, rollback: bool) -> None:
        """Evidence starts afresh with every version."""
        self.restarted()
        self._published_at = slide_end
        self._rolled_back_at = slide_end if rollback else self._rolled_back_at

    def restarted(self) -> None:
        """The candidate is another: what was seen of it says nothing any more."""
        self._gains = PairedGains.none()
        self._examples, self._hits, self._reciprocal = 0, 0, 0.0

    def _rules(self, slide_end: int, *, finite: bool, parent: int | None) -> tuple[Rule, ...]:
        config, seen = self._config, self._examples
        sound = "weights are finite" if finite else "the candidate has weights that are not finite"
        enough = f"{seen:,} of {config.min_examples:,} judged examples since the last version"
        recall = self._hits / seen if seen else math.nan
        floor = f"Recall@{self._k} {recall:.4f}, at least {config.min_recall:g}"
        return (
            Rule("weights_finite", float(finite), 1.0, finite, True, sound),
            Rule("examples", seen, config.min_examples, seen >= config.min_examples, True, enough),
            self._against_champion(parent),
            Rule("recall", recall, config.min_recall, recall >= config.min_recall, config.min_recall > 0, floor),
            apart(config, _since(self._published_at, slide_end)),
            cooled_down(config, _since(self._rolled_back_at, slide_end)),
        )

    def _against_champion(self, parent: int | None) -> Rule:
        config = self._config
        least = -config.margin if config.mode == "non_inferior" else 0.0
        if parent is None:
            text = "there is no champion yet: the absolute rules alone decide"
            return Rule("against_champion", math.nan, least, True, False, text)
        against = self.comparison
        goal = "better than the champion" if config.mode == "superior" else f"within {config.margin:g} of its MRR"
        proven = against.lower > least
        if against.worse and not proven:
            text = f"proven worse than the champion: {against}"
        else:
            text = f"{'' if proven else 'not '}proven {goal}: {against}"
        return Rule("against_champion", against.lower, least, proven, True, text)

    def capture(self) -> dict[str, Any]:
        return {
            "gains": self._gains.capture(),
            "sums": [self._examples, self._hits, self._reciprocal],
            "times": [self._asked_at, self._published_at, self._rolled_back_at],
            "override": self._override,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._gains = PairedGains.restored(state["gains"])
        self._examples, self._hits = int(state["sums"][0]), int(state["sums"][1])
        self._reciprocal = float(state["sums"][2])
        self._asked_at, self._published_at, self._rolled_back_at = state["times"]
        self._override = state["override"]


def _reciprocal(rank: I64) -> NDArray[np.float64]:
    return np.asarray(np.where(rank > 0, 1.0 / np.maximum(rank, 1), 0.0), np.float64)


def _since(moment: int | None, slide_end: int) -> Duration | None:
    return None if moment is None else Duration(slide_end - moment)

"""The gate: decides, from evidence gathered since the last version, whether the candidate is published.

Two kinds of evidence, both sums over examples that candidate and champion scored at maturity, before either learned
from them. Against the champion: the paired differences since the last version, by a confidence sequence that holds at
every look (`sequence`); publishing starts it afresh, so `gate.alpha` is the chance of a wrong proof per version. For
the absolute rules: what matured in the last `gate.evidence_window`, so that after a long hold they answer for the
candidate as it is now. Each question is answered by a `Verdict`: one `Rule` a check, with every number it used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.judging import checks
from stream_learner.judging.checks import Comparison
from stream_learner.judging.evidence import Evidence, EvidenceWindow, Logits
from stream_learner.judging.sequence import PairedGains
from stream_learner.judging.verdict import Question, Rule, Verdict
from stream_learner.settings import Duration

_EVER = -(2**63)


class Gate:
    """Gathers evidence, says when it is due, and judges."""

    def __init__(self, config: settings.Gate) -> None:
        self._config = config
        self._window = EvidenceWindow(config.evidence_window)
        self._gains = PairedGains.none()
        self._slices = {name: EvidenceWindow(config.evidence_window) for name in config.slices}
        self._asked_at: int | None = None
        self._published_at: int | None = None
        self.since = _EVER  # end of the slide with which the models became those they are, us
        self._rolled_back_at: int | None = None
        self._override: str | None = None  # why the next verdict is to pass
        self._drift_since: int | None = None  # first time in this evidence period that drift was above its threshold

    def observe(
        self,
        candidate: Logits,
        champion: Logits,
        labels: NDArray[np.float32],
        slide_end: int,
        slices: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        """Takes in a slide's matured examples, scored before they are learned from: all [n]; the champion's are NaN
        where there is none. `slices`: which examples belong to each slice of `gate.slices`, [n].

        Examples the champion gave no finite score are no pair; those the candidate gave none are counted, and hold it
        back.
        """
        self._window.add(Evidence.of(candidate, champion, labels), slide_end)
        for name, inside in (slices or {}).items():
            self._slices[name].add(Evidence.of(candidate[inside], champion[inside], labels[inside]), slide_end)
        both = np.isfinite(candidate) & np.isfinite(champion)
        self._gains += PairedGains.of(candidate[both], champion[both], labels[both])

    def standing(self) -> dict[str, float]:
        """NE and calibration over the evidence window, and the mean NE gain over the champion since the last version;
        NaN where not defined."""
        sums, gains = self._window.total().candidate, Comparison.of(self._gains, self._config.alpha)
        return {"ne": sums.normalized_entropy, "calibration": sums.calibration, "gain": gains.gain}

    def due(self, slide_end: int) -> bool:
        """Whether `gate.interval` of event time has passed since it was asked; first as soon as there is evidence."""
        if self._asked_at is None:
            return self._window.total().alone.n > 0
        return slide_end - self._asked_at >= self._config.interval

    def judge(self, question: Question) -> Verdict:
        """Answers, and remembers being asked. Until there is a champion, evidence that was enough is used once."""
        self._asked_at = question.slide_end
        evidence, comparison = self._window.total(), Comparison.of(self._gains, self._config.alpha)
        rules = self._rules(question, evidence, comparison)
        passed, reason = self._answer(question, evidence, rules)
        override = self._overridden(question, evidence) if not passed else None
        if override is not None:
            passed, reason = True, f"by override ({override}); by the rules: {reason}"
        if passed:
            self._override = None
        if question.parent is None and all(rule.passed for rule in checks.enough(evidence, self._config)):
            self._clear()  # a first version is not held to the scores of the model's first hours
        return Verdict(
            slide=question.slide,
            slide_end=question.slide_end,
            passed=passed,
            mode=self._config.mode,
            reason=f"{'passed' if passed else 'held'}: {reason}",
            rules=rules,
            parent=question.parent,
            evidence={**evidence.numbers(), **comparison.numbers()},
            psi=dict(question.psi),
            baselines=dict(question.baselines),
            degraded=question.parent is not None and evidence.comparable and comparison.worse,
            override=override,
        )

    def override(self, why: str | None) -> None:
        """Lets the next verdict pass whatever the rules say, but for weights that are not finite; None = no longer."""
        self._override = why

    def _overridden(self, question: Question, evidence: Evidence) -> str | None:
        return self._override if question.finite and evidence.alone.n > 0 else None

    @property
    def published_at(self) -> int | None:
        """End of the slide that the version in service was made of, us."""
        return self._published_at

    def restarted(self, slide_end: int) -> None:
        """The candidate is another one now: what was gathered about the one before speaks for nothing."""
        self.since = slide_end
        self._clear()
        self._gains = PairedGains.none()

    def published(self, slide_end: int, *, rollback: bool = False) -> None:
        """A version was made of the slide ending there, by verdict or by rollback: evidence starts afresh."""
        self._clear()
        self._gains = PairedGains.none()
        self._published_at = self.since = slide_end
        self._drift_since = None
        if rollback:
            self._rolled_back_at = slide_end

    def _clear(self) -> None:
        for window in (self._window, *self._slices.values()):
            window.clear()

    def _answer(self, question: Question, evidence: Evidence, rules: tuple[Rule, ...]) -> tuple[bool, str]:
        failed = [rule for rule in rules if rule.asked and not rule.passed]
        # a metric that is not defined yet says nothing beside the rule that asks for more examples
        told = [rule.text for rule in failed if not math.isnan(rule.value)] or [rule.text for rule in failed]
        gist = next(rule for rule in rules if rule.name == "against_champion")
        floor = next(rule for rule in rules if rule.name == "against_base_rate")
        reason = "; ".join(told) or (gist.text if gist.asked else f"{gist.text}; {floor.text}")
        if self._config.mode == "always":
            return question.finite and evidence.alone.n > 0, f"gate.mode is always; by the rules: {reason}"
        return not failed, reason

    def _rules(self, question: Question, evidence: Evidence, comparison: Comparison) -> tuple[Rule, ...]:
        config, age = self._config, _since(self._published_at, question)
        return (
            checks.weights_finite(question),
            checks.scores_finite(evidence),
            *checks.enough(evidence, config),
            checks.against_champion(comparison, evidence, config, question, age),
            checks.against_base_rate(evidence, config),
            checks.ranking(config, question),
            checks.calibrated(evidence, config),
            checks.apart(config, age),
            checks.cooled_down(config, _since(self._rolled_back_at, question)),
            *(checks.sliced(name, self._slices[name].total(), floor) for name, floor in sorted(config.slices.items())),
            checks.undrifted(config, question, self._drift_lasted(question)),
        )

    def _drift_lasted(self, question: Question) -> Duration:
        """For how long drift has been above its limit; notes the first time."""
        limit = self._config.max_psi
        if limit is None or not question.psi or checks.most_drifted(question)[1] <= limit:
            return Duration(0)
        if self._drift_since is None:
            self._drift_since = question.slide_end
        return Duration(question.slide_end - self._drift_since)

    def capture(self) -> dict[str, Any]:
        return {
            "window": self._window.capture(),
            "slices": {name: window.capture() for name, window in self._slices.items()},
            "gains": self._gains.capture(),
            "asked_at": self._asked_at,
            "published_at": self._published_at,
            "since": self.since,
            "rolled_back_at": self._rolled_back_at,
            "override": self._override,
            "drift_since": self._drift_since,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._window.restore(state["window"])
        for name, window in self._slices.items():
            window.restore(state["slices"][name])
        self._gains = PairedGains.restored(state["gains"])
        self._asked_at = state["asked_at"]
        self._published_at = state["published_at"]
        self.since = int(state["since"])
        self._rolled_back_at = state["rolled_back_at"]
        self._override = state["override"]
        self._drift_since = state["drift_since"]


def _since(moment: int | None, question: Question) -> Duration | None:
    return None if moment is None else Duration(question.slide_end - moment)

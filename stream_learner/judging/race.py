"""The race: the config's own model and its challengers, each held against the champion on the same matured examples.

Everyone has a gate of their own with the same rules. Each proof is asked for at an equal part of `gate.alpha`, so the
chance that any of them is wrong, from one version to the next, stays below `gate.alpha` (Bonferroni's bound; the
sequences are dependent, as they share examples). Of those that pass, the one with the largest gain over the champion is
published; before there is a champion, the one with the least log loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.judging.gate import Gate
from stream_learner.judging.verdict import Question, Verdict

OWN = "candidate"  # the config's own model, among the challengers' names
_TOLD = (
    *("gain", "gain_lower", "gain_upper", "n", "n_pos"),
    *("candidate_log_loss", "candidate_normalized_entropy", "candidate_calibration"),
)


def shared(gate: settings.Gate, challengers: int) -> settings.Gate:
    """The gate's section with its alpha divided among all who are in the race."""
    return msgspec.structs.replace(gate, alpha=gate.alpha / (1 + challengers))


class Race:
    """The gates of the challengers, beside the one of the config's own model. `gate`: as of `shared`."""

    def __init__(self, gate: settings.Gate, challengers: Sequence[str]) -> None:
        self.gates = {name: Gate(gate) for name in challengers}

    def observe(
        self,
        challengers: Mapping[str, NDArray[np.float32]],
        champion: NDArray[np.float32],
        labels: NDArray[np.float32],
        slide_end: int,
        slices: Mapping[str, NDArray[np.bool_]],
    ) -> None:
        """A slide's matured examples, scored by everyone before they were learned from: as of `Gate.observe`, by name
        of the challenger."""
        for name, logits in challengers.items():
            self.gates[name].observe(logits, champion, labels, slide_end, slices)

    def judge(self, own: Verdict, question: Question, finite: Mapping[str, bool]) -> Verdict:
        """Who is published, if anyone: `own` is the verdict on the config's own model, `finite` says of each challenger
        still in the race whether all of its weights are. The winner's verdict, with what was found of everyone."""
        if not self.gates:
            return own
        verdicts = {OWN: own}
        for name, sound in finite.items():
            verdicts[name] = self.gates[name].judge(replace(question, finite=sound))
        told = {name: _found(verdict) for name, verdict in verdicts.items()}
        passed = [name for name, verdict in verdicts.items() if verdict.passed]
        if not passed:
            return replace(own, race=told)
        winner = max(passed, key=lambda name: _merit(verdicts[name]))  # the first of equals
        verdict = verdicts[winner]
        if winner == OWN:
            return replace(verdict, race=told)
        reason = verdict.reason.replace("passed: ", f"passed: challenger {winner}: ", 1)
        return replace(verdict, race=told, challenger=winner, reason=reason)

    def published(self, slide_end: int, *, rollback: bool) -> None:
        for gate in self.gates.values():
            gate.published(slide_end, rollback=rollback)

    def capture(self) -> dict[str, Any]:
        return {name: gate.capture() for name, gate in self.gates.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, gate in self.gates.items():
            gate.restore(state[name])


def _merit(verdict: Verdict) -> tuple[bool, float]:
    gain, loss = verdict.evidence["gain"], verdict.evidence["candidate_log_loss"]
    return (True, gain) if math.isfinite(gain) else (False, -loss if math.isfinite(loss) else -math.inf)


def _found(verdict: Verdict) -> dict[str, Any]:
    numbers = {name: verdict.evidence[name] for name in _TOLD}
    return {"passed": verdict.passed, "reason": verdict.reason, **numbers}

"""What the gate's absolute rules are judged on: sums over a sliding span of event time, since the last version."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging.metrics import Sums, entropy
from stream_learner.settings import Duration

Logits = NDArray[np.float32]
_PANES = 64  # the trailing edge of the span moves in steps of this part of it, which bounds memory


@dataclass(frozen=True, slots=True)
class Evidence:
    """Examples scored at maturity by candidate and champion, before either learned from them."""

    alone: Sums = field(default_factory=Sums)  # the candidate on all it scored
    paired: Sums = field(default_factory=Sums)  # the candidate where the champion scored too
    champion: Sums = field(default_factory=Sums)  # the champion on those
    unscored: int = 0  # examples to which the candidate gave no finite score

    @classmethod
    def of(cls, candidate: Logits, champion: Logits, labels: NDArray[np.float32]) -> Evidence:
        """Logits and labels, all [n]; NaN = no score."""
        scored = np.isfinite(candidate)
        both = scored & np.isfinite(champion)
        return cls(
            alone=Sums.of(candidate[scored], labels[scored]),
            paired=Sums.of(candidate[both], labels[both]),
            champion=Sums.of(champion[both], labels[both]),
            unscored=int(np.count_nonzero(~scored)),
        )

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            self.alone + other.alone,
            self.paired + other.paired,
            self.champion + other.champion,
            self.unscored + other.unscored,
        )

    @property
    def comparable(self) -> bool:
        """Whether the champion scored at least half of what the candidate scored. An old model that can no longer be
        judged must not block for ever, and a few odd examples must not unseat it."""
        return self.paired.n > 0 and 2 * self.paired.n >= self.alone.n

    @property
    def candidate(self) -> Sums:
        """The examples that are judged: those both scored, all of them where there is no champion to hold against."""
        return self.paired if self.comparable else self.alone

    @property
    def excess(self) -> float:
        """The candidate's NE less the champion's, on the same examples."""
        return self.paired.normalized_entropy - self.champion.normalized_entropy

    @property
    def basis(self) -> str:
        sums = self.candidate
        return f"on {int(sums.n):,} examples ({int(sums.positives):,} positives)"

    def numbers(self) -> dict[str, float]:
        sums, champion = self.candidate, self.champion
        return {
            "n": int(sums.n),
            "n_pos": int(sums.positives),
            "unscored": self.unscored,
            "base_rate": sums.base_rate,
            "base_rate_entropy": entropy(sums.base_rate),
            "candidate_log_loss": sums.log_loss,
            "candidate_normalized_entropy": sums.normalized_entropy,
            "candidate_calibration": sums.calibration,
            "champion_log_loss": champion.log_loss,
            "champion_normalized_entropy": champion.normalized_entropy,
            "champion_calibration": champion.calibration,
        }

    def capture(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Evidence:
        parts = {name: Sums(**state[name]) for name in ("alone", "paired", "champion")}
        return cls(**parts, unscored=int(state["unscored"]))


class EvidenceWindow:
    """The evidence of the last `span` of event time, added up in panes."""

    def __init__(self, span: Duration) -> None:
        self._pane_us = max(1, math.ceil(span / _PANES))
        self._span = span
        self._panes: deque[tuple[int, Evidence]] = deque()  # by number: event time over the pane's length

    def add(self, evidence: Evidence, slide_end: int) -> None:
        """Of the slide ending there (us); lets go of what is older than the span."""
        number = slide_end // self._pane_us
        if self._panes and self._panes[-1][0] == number:
            evidence = self._panes.pop()[1] + evidence
        self._panes.append((number, evidence))
        while (self._panes[0][0] + 1) * self._pane_us <= slide_end - self._span:
            self._panes.popleft()

    def total(self) -> Evidence:
        return reduce(Evidence.__add__, (evidence for _, evidence in self._panes), Evidence())

    def clear(self) -> None:
        self._panes.clear()

    def capture(self) -> dict[str, Any]:
        return {"panes": [[number, evidence.capture()] for number, evidence in self._panes]}

    def restore(self, state: dict[str, Any]) -> None:
        self._panes = deque((int(number), Evidence.restored(part)) for number, part in state["panes"])

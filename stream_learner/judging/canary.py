"""The canary: for a while after publishing, the version before scores too, and the new one must bear comparison.

At the end of each slide two things are asked of arriving examples: that the new version's scores are finite, and that
what is measured of its predictions (their mean; of rankings, how many items are listed) is not `max_shift` times that
of the version before, or less than one such part of it. The paired gains of the two feed a confidence sequence of the
gate's kind (`sequence`), valid at every look: a loss proven rolls back. Whatever fails, the version before is served
again, under a new number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.judging.checks import Comparison
from stream_learner.judging.metrics import finite_or_none, probabilities
from stream_learner.judging.sequence import PairedGains
from stream_learner.judging.verdict import Rule
from stream_learner.settings import Duration

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    slide: int
    slide_end: int  # us
    version: int
    previous: int
    passed: bool  # the new version is kept
    reason: str
    rules: tuple[Rule, ...]
    kind: str = "canary"

    def to_json(self) -> dict[str, Any]:
        plain = finite_or_none(asdict(self))
        assert isinstance(plain, dict)
        return plain


class Compared(Protocol):
    """What paired gains say of one model against another; as text, with the numbers."""

    @property
    def n(self) -> int: ...

    @property
    def upper(self) -> float: ...

    @property
    def worse(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Yardstick:
    """How versions of one kind of model are held against each other."""

    shifted: str  # names what is measured of their predictions; takes the ratio
    compare: Callable[[PairedGains, float], Compared]  # gains, alpha


PROBABILITIES = Yardstick("its mean prediction is {:.3f} times that of the version before", Comparison.of)


class Canary:
    """Watches one new version at a time; idle when there is none, or no version before it."""

    def __init__(self, config: settings.Canary, yardstick: Yardstick = PROBABILITIES) -> None:
        self._config, self._yardstick = config, yardstick
        self._pair: tuple[int, int] | None = None  # the new version, and the one before
        self._began = 0  # us
        self._clear()

    def _clear(self) -> None:
        self._arrived = 0
        self._unscored = 0  # arrived examples to which the new version gave no finite score
        self._predicted = np.zeros(2)  # sums of what is measured of the new version's predictions, and the other's
        self._gains = PairedGains.none()

    def begin(self, version: int, previous: int, slide_end: int) -> None:
        self._pair, self._began = (version, previous), slide_end
        self._clear()

    def end(self) -> None:
        self._pair = None
        self._clear()

    @property
    def watching(self) -> bool:
        return self._pair is not None

    def arrived(self, new: Logits, previous: Logits) -> None:
        """A slide's examples, scored by both at arrival. [n]"""
        if self._pair is None:
            return
        finite = np.isfinite(new)
        both = finite & np.isfinite(previous)
        sums = probabilities(new[both]).sum(), probabilities(previous[both]).sum()
        self.saw(int(np.count_nonzero(both)), int(np.count_nonzero(~finite)), sums)

    def matured(self, new: Logits, previous: Logits, labels: NDArray[np.float32]) -> None:
        """Examples that got their labels, scored by both. [n]"""
        if self._pair is None:
            return
        both = np.isfinite(new) & np.isfinite(previous)
        self.gained(PairedGains.of(new[both], previous[both], labels[both]))

    def saw(self, scored: int, unscored: int, measured: tuple[float, float]) -> None:
        """Examples that arrived while one is watched: scored by both, without a finite score by the new version, and
        what is measured of the predictions of the new version and of the one before."""
        self._arrived += scored
        self._unscored += unscored
        self._predicted += measured

    def gained(self, gains: PairedGains) -> None:
        """Of the new version over the one before, while one is watched."""
        self._gains += gains

    def judge(self, slide: int, slide_end: int) -> CanaryVerdict | None:
        """At a slide's end: a verdict when the new version fails, or has stood its time; None while it is watched."""
        if self._pair is None or self._config.duration is None:
            return None
        rules = (self._finite(), self._unshifted(), self._not_worse())
        failed = [rule.text for rule in rules if rule.asked and not rule.passed]
        lasted = Duration(slide_end - self._began)
        if not failed and lasted < self._config.duration:
            return None
        version, previous = self._pair
        if failed:
            reason = f"canary failed: version {previous} is served again instead of {version}: {'; '.join(failed)}"
        else:
            reason = f"canary passed: version {version} is kept after {lasted}: {rules[1].text}; {rules[2].text}"
        return CanaryVerdict(slide, slide_end, version, previous, not failed, reason, rules)

    def _finite(self) -> Rule:
        count = self._unscored
        text = f"{count:,} of {count + self._arrived:,} arrived examples have no finite score"
        return Rule("scores_finite", count, 0, count == 0, True, text)

    def _unshifted(self) -> Rule:
        config, (new, before) = self._config, self._predicted.tolist()
        ratio = new / before if before > 0 else math.nan
        if self._arrived < config.min_examples or math.isnan(ratio):
            text = f"{self._arrived:,} of {config.min_examples:,} arrived examples to compare predictions on"
            return Rule("prediction_shift", ratio, config.max_shift, True, False, text)
        passed = max(ratio, 1 / ratio if ratio > 0 else math.inf) <= config.max_shift
        shifted = self._yardstick.shifted.format(ratio)
        text = f"{shifted} on {self._arrived:,} examples ({config.max_shift:g} times at most, either way)"
        return Rule("prediction_shift", ratio, config.max_shift, passed, True, text)

    def _not_worse(self) -> Rule:
        comparison = self._yardstick.compare(self._gains, self._config.alpha)
        asked = comparison.n > 0
        text = f"{'proven' if comparison.worse else 'not proven'} worse: {comparison}"
        return Rule("against_previous", comparison.upper, 0.0, not comparison.worse, asked, text)

    def capture(self) -> dict[str, Any]:
        return {
            "pair": None if self._pair is None else list(self._pair),
            "began": self._began,
            "arrived": self._arrived,
            "unscored": self._unscored,
            "predicted": self._predicted.copy(),
            "gains": self._gains.capture(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._pair = None if state["pair"] is None else (int(state["pair"][0]), int(state["pair"][1]))
        self._began, self._arrived, self._unscored = (int(state[name]) for name in ("began", "arrived", "unscored"))
        self._predicted = state["predicted"].copy()
        self._gains = PairedGains.restored(state["gains"])

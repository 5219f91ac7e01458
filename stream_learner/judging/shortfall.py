"""Whether far less came than the season lets expect: a test that chance, busy days and slow drift do not pass.

A slide is low in a measure when it brings at most `least_share` of what is expected. Slides low one after the other
are a run, and a run is a shortfall when chance would hardly produce it even if the source really gave `least_share`
of its season: the tail of the negative binomial distribution (Poisson counts whose level wanders by the spread of the
season, anew in every block) is bounded by Chernoff's inequality, and the bound must be below `alpha`. So a source with
many events is judged by a single slide and one with few by as many as it takes; and half of the usual is drift, never
a shortfall. What a run brings enters the season only when the run ends as none.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from stream_learner.judging.seasons import F64, Seasons


@dataclass(slots=True)
class Run:
    """Low steps of one measure, one after the other."""

    since: int  # us
    seen: float = 0.0
    expected: float = 0.0
    owed: dict[str, list[float]] = field(default_factory=dict)  # by block: seen, exposure, expected

    def add(self, block: int, amounts: list[float]) -> None:
        self.seen += amounts[0]
        self.expected += amounts[2]
        old = self.owed.get(str(block), [0.0, 0.0, 0.0])
        self.owed[str(block)] = [a + b for a, b in zip(old, amounts, strict=True)]

    def forgive(self) -> None:
        """Nothing of the run is to be learned."""
        self.owed = {block: [0.0, 0.0, 0.0] for block in self.owed}


def log_tail_bound(seen: F64, mean: F64, spread: F64) -> F64:
    """Chernoff's bound on the log of P(X <= seen), X negative binomial of that mean and variance
    mean + (spread * mean)^2; 0 where seen >= mean. All [n], spread > 0."""
    size = spread**-2.0
    seen = np.minimum(seen, mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(seen > 0, seen * np.log(seen / mean), 0.0)
    bound: F64 = -(gain - (seen + size) * np.log((seen + size) / (mean + size)))
    return np.where(mean > 0, bound, 0.0)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One measure that fell short: what it brought and what was expected, since when (us)."""

    measure: str
    seen: float
    expected: float
    since: int


class Shortfalls:
    """Measures that are looked at together, step after step."""

    def __init__(self, names: tuple[str, ...], slide: int, least_share: float, alpha: float) -> None:
        """`slide` in us; `alpha` over all measures together."""
        self.names = names
        self.shares: F64 = np.full(len(names), np.nan)  # seen / expected of the last step
        self._least_share = least_share
        self._log_alpha = math.log(alpha / max(len(names), 1))
        self._seasons = Seasons(slide, len(names))
        self._runs: dict[int, Run] = {}  # by measure, those under way

    @property
    def block(self) -> int:
        """What the season is pooled in, us."""
        return self._seasons.width

    def learn(self, time: int, seen: F64, exposure: F64) -> None:
        """Takes a step that began at `time` (us) for whole: `seen` of `exposure`, [measures]. No exposure = no word."""
        self._seasons.add(time, seen, exposure, self._expected(time, exposure))

    def look(self, time: int, seen: F64, exposure: F64) -> list[Shortfall]:
        """Judges a step and, unless it falls short, learns it."""
        expected = self._expected(time, exposure)
        asked = expected > 0
        self.shares = np.divide(seen, expected, out=np.full(len(seen), np.nan), where=asked)
        low = asked & (seen <= self._least_share * expected)
        for m in [m for m in self._runs if asked[m] and not low[m]]:
            self._pay_back(m, self._runs.pop(m))
        lows = np.flatnonzero(low).tolist()
        for m in lows:
            run = self._runs.setdefault(m, Run(since=time))
            run.add(time // self.block, [float(seen[m]), float(exposure[m]), float(expected[m])])
        short = self._short(lows)
        if short:
            for m in lows:
                self._runs[m].forgive()
        else:
            self._seasons.add(time, *(np.where(low, 0.0, column) for column in (seen, exposure, expected)))
        return short

    def begin_again(self) -> None:
        """Forgets season and runs."""
        self._seasons.clear()
        self._runs = {}

    def capture(self) -> dict[str, Any]:
        runs = {str(m): asdict(run) for m, run in self._runs.items()}
        return {"seasons": self._seasons.capture(), "runs": runs, "shares": self.shares.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        self._seasons.restore(state["seasons"])
        self._runs = {int(m): Run(**run) for m, run in state["runs"].items()}
        self.shares = state["shares"].copy()

    def _expected(self, time: int, exposure: F64) -> F64:
        return np.nan_to_num(exposure * self._seasons.rates(time))

    def _short(self, low: list[int]) -> list[Shortfall]:
        """Those of the measures in `low` whose runs are shortfalls."""
        if not low:
            return []
        runs = [self._runs[m] for m in low]
        seen = np.array([run.seen for run in runs])
        mean = self._least_share * np.array([run.expected for run in runs])
        spread = self._seasons.spread()[low] / np.sqrt([len(run.owed) for run in runs])
        found = log_tail_bound(seen, mean, spread) <= self._log_alpha
        named = zip(low, runs, found.tolist(), strict=True)
        return [Shortfall(self.names[m], run.seen, run.expected, run.since) for m, run, short in named if short]

    def _pay_back(self, measure: int, run: Run) -> None:
        """A run that was none is learned."""
        amounts = np.zeros((3, len(self.names)))
        for block, owed in run.owed.items():
            amounts[:, measure] = owed
            self._seasons.add(int(block) * self.block, *amounts)

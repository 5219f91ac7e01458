"""Drift of the relation to single features: within which slices of them has the champion begun to be wrong?

Per cell of a feature (an id's bucket, a quantile bin, a flag; the champion's own logit is one more feature) the
purchases are counted beside those that the champion expected. How far they lie apart since the champion was made is
what it is known to be wrong by, held towards 0 by a prior; the last span of event time is tested against that. An error
common to all cells is taken out first: that is the offset's, which `RelationDrift` watches. So a change that leaves
every average as it was is found, and the feature it goes by is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import ExampleBatch
from stream_learner.judging.drift_inputs import InputColumns
from stream_learner.judging.drift_tests import Test
from stream_learner.judging.metrics import probabilities
from stream_learner.judging.sketch import ID_BUCKETS, MISSING, id_codes
from stream_learner.judging.tails import f_tail
from stream_learner.settings import NOVELTY, Drift

F64 = NDArray[np.float64]
Logits = NDArray[np.float32]

MEASURE = "calibration"
PREDICTION = "prediction"  # the champion's own logit, as a feature
CELLS = ID_BUCKETS + 1  # the last is for what is missing
_SPANS = (1, 2, 4, 8)  # the last so many `drift.window`s are tested
_STEPS_PER_WINDOW = 4  # at the least; twice as many at the most
_LEAST_VARIANCE = 5.0  # of the purchases in a cell of its own; the others are one
_MOST_USUAL = 3.0  # log-odds
_PRIOR_AFTER_CHANGE = 1.0  # log-odds: how wrong a champion may be that was found wrong
_PRIOR_FREEDOM = 20.0  # of the belief that there is no unrest
_MEMORY = 0.98  # share of what was known of the unrest that a look leaves
_MOST_UNREST = 4.0


@dataclass(frozen=True, slots=True)
class _Excess:
    """One feature over one span: the deviance per degree of freedom, and the size of the change."""

    ratio: float
    freedom: int
    size: float  # root mean square change of log-odds over the cells, chance taken out


class CalibrationDrift:
    """Watches the champion's calibration by cell of each feature. One alarm a change: what it has become is then the
    measure."""

    def __init__(self, columns: InputColumns, settings: Drift) -> None:
        self._columns = columns
        self._settings = settings
        self.names = [*columns.names, PREDICTION]
        self._edges: F64 | None = None  # [numbers + 1, bins - 1] of the numbers and the logit
        self._restart()

    def _restart(self) -> None:
        shape = (len(self.names), CELLS, 3)  # purchases, expected ones, their variance
        self._step = np.zeros(shape)  # since the last look
        self._steps: list[tuple[int, F64]] = []  # ends (us), sums of the last looks' steps
        self._before = np.zeros(shape)  # older than every span
        self._prior = np.full(len(self.names), self._settings.min_change)
        self._unrest = np.full((len(self.names), 2), _PRIOR_FREEDOM)  # deviance and its degrees of freedom

    def rebase(self, sample: ExampleBatch | None, logits: Logits) -> None:
        """A new champion, with a sample of its training window and its logits on that [m]: nothing is known of it."""
        self._edges = None
        if sample is not None and np.isfinite(logits).any():
            numbers = sample.numbers[:, list(self._columns.numbers.values())].astype(np.float64)
            both = np.concatenate([numbers, logits[:, None].astype(np.float64)], axis=1)
            bins = min(self._settings.bins, ID_BUCKETS)
            quantiles = np.arange(1, bins) / bins
            seen = np.where(np.isnan(both).all(axis=0), 0.0, both)
            self._edges = np.nanquantile(seen, quantiles, axis=0, method="lower").T
        self._restart()

    def matured(self, examples: ExampleBatch, logits: Logits) -> None:
        """Takes in matured examples [n] with the champion's logits, NaN = there is none."""
        scored = np.isfinite(logits)
        if self._edges is None or not scored.any():
            return
        if not scored.all():
            examples, logits = examples.take(scored), logits[scored]
        chances = probabilities(logits.astype(np.float64))
        variances, bought = chances * (1 - chances), np.flatnonzero(examples.label > 0.5)
        for sums, cells in zip(self._step, self._cells(examples, logits, self._edges), strict=True):
            sums[:, 0] += np.bincount(cells[bought], minlength=CELLS)
            sums[:, 1] += np.bincount(cells, chances, CELLS)
            sums[:, 2] += np.bincount(cells, variances, CELLS)

    def tests(self, at: int) -> list[Test]:
        """Of a look at `at`, us: every feature, over the span that speaks most against it."""
        self._judge_unrest()
        self._close_step(at)
        self._settle(at - _SPANS[-1] * int(self._settings.window))
        sides = [self._around(at - times * int(self._settings.window)) for times in _SPANS]
        return [test for feature in range(len(self.names)) for test in self._tested(feature, sides)]

    def _tested(self, feature: int, sides: Sequence[tuple[F64, F64]]) -> list[Test]:
        """The test of one feature; `sides`: by span its sums and those before it. The p-value is corrected for the
        choice of the span (Bonferroni)."""
        told = []
        for recent, known in sides:
            excess = _excess(recent[feature], known[feature], float(self._prior[feature]))
            if excess is not None:
                told.append((f_tail(excess.ratio / self._spread(feature), excess.freedom, math.inf), excess.size))
        if not told:
            return []
        chance, size = min(told)
        chance = min(chance * len(told), 1.0)
        return [Test("relation", self.names[feature], MEASURE, size, self._settings.min_change, chance)]

    def found(self, names: set[str], at: int) -> None:
        """These features were told of at `at` (us): from now on they are held against what they have become."""
        became = self._around(at - int(self._settings.window))[0]
        for feature in [self.names.index(name) for name in names]:
            self._before[feature] = became[feature]
            for _, sums in self._steps:
                sums[feature] = 0.0
            self._prior[feature] = _PRIOR_AFTER_CHANGE

    def _around(self, since: int) -> tuple[F64, F64]:
        """The sums of what matured after `since` (us), and of what did before."""
        recent, known = np.zeros_like(self._before), self._before.copy()
        for end, sums in self._steps:
            side = recent if end > since else known
            side += sums
        return recent, known

    def _close_step(self, at: int) -> None:
        """Steps of less than a quarter of `drift.window` become one, so that frequent looks do not make many."""
        step, self._step = self._step, np.zeros_like(self._step)
        if len(self._steps) > 1 and at - self._steps[-2][0] <= int(self._settings.window) // _STEPS_PER_WINDOW:
            step += self._steps.pop()[1]
        self._steps.append((at, step))

    def _settle(self, since: int) -> None:
        """What has left the longest span becomes part of what is known."""
        while self._steps and self._steps[0][0] <= since:
            self._before += self._steps.pop(0)[1]

    def _judge_unrest(self) -> None:
        """How far a look's step lies from what is known, beyond chance: errors come by user and session."""
        known = self._around(-(2**63))[0] + self._before
        for feature in range(len(self.names)):
            excess = _excess(self._step[feature], known[feature], float(self._prior[feature]))
            if excess is not None:
                ratio = min(excess.ratio, _MOST_UNREST * self._spread(feature))
                self._unrest[feature] = _MEMORY * self._unrest[feature] + (ratio * excess.freedom, excess.freedom)

    def _spread(self, feature: int) -> float:
        total, weight = self._unrest[feature]
        return max(1.0, float(total / weight))

    def _cells(self, examples: ExampleBatch, logits: Logits, edges: F64) -> Iterator[NDArray[np.intp]]:
        """The cells [n] of each of `names`."""
        columns = self._columns
        for at, column in enumerate(columns.numbers.values()):
            yield _binned(examples.numbers[:, column], edges[at])
        for column in columns.ids.values():
            codes = id_codes(examples.ids[:, column])
            yield np.where(codes == MISSING, CELLS - 1, codes).astype(np.intp)
        for name in columns.unseen:
            yield examples.unseen[:, list(NOVELTY).index(name)].astype(np.intp)
        yield _binned(logits, edges[-1])

    def capture(self) -> dict[str, Any]:
        return {
            "edges": None if self._edges is None else self._edges.copy(),
            "step": self._step.copy(),
            "steps": [{"end": end, "sums": sums.copy()} for end, sums in self._steps],
            "before": self._before.copy(),
            "prior": self._prior.copy(),
            "unrest": self._unrest.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._edges = None if state["edges"] is None else state["edges"].copy()
        self._step, self._before = state["step"].copy(), state["before"].copy()
        self._steps = [(int(step["end"]), step["sums"].copy()) for step in state["steps"]]
        self._prior, self._unrest = state["prior"].copy(), state["unrest"].copy()


def _excess(recent: F64, known: F64, prior: float) -> _Excess | None:
    """From sums [cells, 3] of a span and of what came before, and the log-odds by which a champion may be wrong before
    anything is known. None where fewer than two cells can be told apart."""
    own = recent[:, 2] >= _LEAST_VARIANCE
    recent, known = (np.concatenate([side[own], side[~own].sum(axis=0)[None]]) for side in (recent, known))
    told = recent[:, 2] >= _LEAST_VARIANCE
    recent, known = recent[told], known[told]
    bought = float(recent[:, 0].sum())
    if len(recent) < 2 or bought <= 0:
        return None
    doubt = 1.0 / (known[:, 2] + prior**-2)  # variance of the log-odds that are known
    factor = np.exp(np.clip((known[:, 0] - known[:, 1]) * doubt, -_MOST_USUAL, _MOST_USUAL))
    factor *= bought / float((recent[:, 1] * factor).sum())  # what all cells have in common is the offset's
    expected, variance = recent[:, 1] * factor, recent[:, 2] * factor
    noise = 1.0 + variance * doubt
    freedom = len(recent) - 1
    ratio = float((_deviance(recent[:, 0], expected, variance) / noise).sum()) / freedom
    beyond = float(((recent[:, 0] - expected) ** 2 / variance - noise).sum()) / float(variance.sum())
    return _Excess(ratio, freedom, math.sqrt(max(beyond, 0.0)))


def _deviance(seen: F64, expected: F64, variance: F64) -> F64:
    """Twice the log-likelihood ratio of binomial counts [cells] that have that mean and variance: about chi-square
    also in its tail, where counts are small."""
    share = np.clip(1.0 - variance / expected, 1e-9, 1.0 - 1e-9)
    trials = np.maximum(expected / share, seen)
    with np.errstate(divide="ignore", invalid="ignore"):
        bought = np.where(seen > 0, seen * np.log(seen / expected), 0.0)
        rest, rest_expected = trials - seen, trials - expected
        not_bought = np.where(rest > 0, rest * np.log(rest / rest_expected), 0.0)
    return np.maximum(2.0 * (bought + not_bought), 0.0)


def _binned(values: NDArray[np.float32], edges: F64) -> NDArray[np.intp]:
    """The bin of each value [n], the last cell where it is missing."""
    return np.where(np.isnan(values), CELLS - 1, np.searchsorted(edges.astype(np.float32), values, side="right"))

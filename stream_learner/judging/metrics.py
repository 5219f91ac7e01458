"""Metrics of probabilistic scores, exact and in float64: pure functions of logits, labels and optional weights.

Scores are logits (log-odds, shape [n]); labels are 0 or 1 (shape [n]); weights default to one each. A metric that
is not defined (one class only, nothing judged) is NaN, and None in JSON (`finite_or_none`). Scores must not be NaN:
who did not score is left out before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
F64 = NDArray[np.float64]

ECE_BINS = 15  # of equal mass
_LEAST_PROBABILITY = 1e-7  # float32 cannot tell 1 - p from 1 below half of this


def probabilities(logits: Floats) -> F64:
    """1 / (1 + exp(-z)), accurate in both tails."""
    z = logits.astype(np.float64)
    small = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, small) / (1.0 + small), np.float64)


def to_logits(chances: Floats) -> NDArray[np.float32]:
    """Log-odds of probabilities, which are first brought into [1e-7, 1 - 1e-7]; NaN stays NaN."""
    p = np.clip(chances.astype(np.float64), _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    return np.asarray(np.log(p) - np.log1p(-p), np.float32)


def losses(logits: Floats, labels: Floats) -> F64:
    """Log loss of each example in nats, shape [n], stable for any logit."""
    return chances_and_losses(logits, labels)[1]


def chances_and_losses(logits: Floats, labels: Floats) -> tuple[F64, F64]:
    """Probability and log loss in nats of each example, [n] each, stable for any logit; one exponential for both."""
    z = logits.astype(np.float64)
    small = np.exp(-np.abs(z))
    chances = np.where(z >= 0, 1.0, small) / (1.0 + small)
    return chances, np.log1p(small) + np.maximum(np.where(labels > 0.5, -z, z), 0.0)


@dataclass(frozen=True, slots=True)
class Sums:
    """What log loss, NE and calibration are made of; sums of disjoint sets of examples add up."""

    n: float = 0.0  # examples (or their weight)
    positives: float = 0.0
    loss: float = 0.0  # nats
    predicted: float = 0.0  # sum of probabilities

    @classmethod
    def of(cls, logits: Floats, labels: Floats, weights: Floats | None = None) -> Sums:
        w = _weights(labels, weights)
        chances, loss = chances_and_losses(logits, labels)
        return cls(
            n=float(w.sum()),
            positives=float(w[labels > 0.5].sum()),
            loss=float((w * loss).sum()),
            predicted=float((w * chances).sum()),
        )

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.n + other.n,
            self.positives + other.positives,
            self.loss + other.loss,
            self.predicted + other.predicted,
        )

    @property
    def base_rate(self) -> float:
        return _ratio(self.positives, self.n)

    @property
    def log_loss(self) -> float:
        return _ratio(self.loss, self.n)

    @property
    def normalized_entropy(self) -> float:
        """Mean log loss over the entropy of the judged base rate (He et al., ADKDD 2014); 1 = the base rate itself."""
        return _ratio(self.log_loss, entropy(self.base_rate))

    @property
    def calibration(self) -> float:
        return _ratio(self.predicted, self.positives)


def entropy(rate: float) -> float:
    """Entropy in nats of a coin with this rate; 0 at 0 and 1, NaN for NaN."""
    if rate in (0.0, 1.0):
        return 0.0
    return -(rate * math.log(rate) + (1.0 - rate) * math.log1p(-rate)) if 0.0 < rate < 1.0 else math.nan


def auc(scores: Floats, labels: Floats, weights: Floats | None = None) -> float:
    """Area under the ROC curve by average ranks (Mann-Whitney U), ties counting one half; NaN for one class."""
    return auc_of_counts(*_counts_by_score(scores, labels, weights)[1:])


def average_precision(scores: Floats, labels: Floats, weights: Floats | None = None) -> float:
    """Sum over distinct scores of (gain in recall) x precision, no interpolation; NaN without positives."""
    return average_precision_of_counts(*_counts_by_score(scores, labels, weights)[1:])


def log_loss(logits: Floats, labels: Floats, weights: Floats | None = None) -> float:
    """Mean log loss in nats."""
    return Sums.of(logits, labels, weights).log_loss


def normalized_entropy(logits: Floats, labels: Floats, weights: Floats | None = None) -> float:
    return Sums.of(logits, labels, weights).normalized_entropy


def calibration(logits: Floats, labels: Floats, weights: Floats | None = None) -> float:
    """sum(p) / sum(y); NaN without positives."""
    return Sums.of(logits, labels, weights).calibration


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose each of n examples is, as far as GAUC asks: the same for every model that scored these examples."""

    rows: NDArray[np.int64]  # of those with a positive example, ascending: the others have no AUC of their own
    owner: NDArray[np.uint64]  # of each of `rows`, numbered from 0

    @classmethod
    def of(cls, labels: Floats, groups: NDArray[Any]) -> Owners:
        """`groups`: ids of users, [n], of any integer type."""
        winners = np.unique(groups[labels > 0.5])  # few, where positives are rare: the others need not be ranked
        if not len(winners):
            return cls(np.empty(0, np.int64), np.empty(0, np.uint64))
        place = np.minimum(np.searchsorted(winners, groups), len(winners) - 1)
        mine = np.flatnonzero(winners[place] == groups)
        return cls(mine, place[mine].astype(np.uint64))


def gauc(scores: Floats, labels: Floats, groups: NDArray[Any] | Owners, weights: Floats | None = None) -> float:
    """Grouped AUC: the mean of the users' own AUCs, weighted by their examples (Zhou et al., KDD 2018).

    Only groups (ids of users, [n], of any integer type) in which both classes occur have an AUC and count; NaN where
    there is none.
    """
    owners = groups if isinstance(groups, Owners) else Owners.of(labels, groups)
    if not len(owners.rows):
        return math.nan
    new_owner, negatives, positives = _counts_by_owner(scores[owners.rows], labels[owners.rows], owners, weights)
    firsts = np.flatnonzero(new_owner)  # per group, its first score
    members = np.diff(np.append(firsts, len(new_owner)))
    below = np.cumsum(negatives) - negatives
    below -= np.repeat(below[firsts], members)
    won = np.add.reduceat(positives * (below + negatives / 2), firsts)
    pairs = np.add.reduceat(positives, firsts) * np.add.reduceat(negatives, firsts)
    mass = np.add.reduceat(positives + negatives, firsts)
    two = pairs > 0
    return _ratio(float((mass[two] * won[two] / pairs[two]).sum()), float(mass[two].sum()))


def _counts_by_owner(
    scores: Floats, labels: Floats, owners: Owners, weights: Floats | None
) -> tuple[NDArray[np.bool_], F64, F64]:
    """The distinct scores of one owner after the other, ascending: whether it is its owner's first, and the weight of
    negatives and positives at each. `scores` and `labels` are those of `owners.rows`."""
    if scores.dtype == np.float32 and weights is None:  # plain numbers, owner above score above label, sort fast
        packed = np.sort(owners.owner << np.uint64(33) | _ordered(scores) << np.uint64(1) | (labels > 0.5))
        starts = np.flatnonzero(_changes(packed >> np.uint64(1)))
        return _changes(packed[starts] >> np.uint64(33)), *_numbers(packed & np.uint64(1) > 0, starts)
    order = np.lexsort((scores, owners.owner))
    starts = np.flatnonzero(_changes(owners.owner[order]) | _changes(scores[order]))
    masses = np.ones(len(scores)) if weights is None else weights[owners.rows].astype(np.float64)
    return _changes(owners.owner[order][starts]), *_masses(labels[order] > 0.5, masses[order], starts)


def ece(logits: Floats, labels: Floats, weights: Floats | None = None, bins: int = ECE_BINS) -> float:
    """Expected calibration error: sum over bins of (share of the examples) x |mean p - mean y|; NaN for nothing.

    Bins of equal mass (Nixon et al., CVPR workshops 2019); equal scores are never torn apart, they go where the
    middle of their mass lies.
    """
    if not len(logits):
        return math.nan
    levels, negatives, positives = _counts_by_score(logits, labels, weights)
    return ece_of_counts(probabilities(levels), negatives, positives, bins)


def ece_of_counts(chances: F64, negatives: F64, positives: F64, bins: int = ECE_BINS) -> float:
    """The same from the mass of both classes at each ascending probability, all [k]."""
    mass = negatives + positives
    total = float(mass.sum())
    if total <= 0:
        return math.nan
    gap = np.bincount(_equal_mass(mass, bins), mass * chances - positives, minlength=bins)
    return float(np.abs(gap).sum()) / total


def reliability(logits: Floats, labels: Floats, bins: int = 10) -> list[dict[str, float]]:
    """Bins of equal mass, ascending, none empty: n, mean `predicted` probability and `observed` rate of each. Equal
    scores are never torn apart."""
    levels, negatives, positives = _levels(logits, labels)
    mass, chances = negatives + positives, probabilities(levels)
    bin_of = _equal_mass(mass, bins)
    sums = [np.bincount(bin_of, column, minlength=bins) for column in (mass, mass * chances, positives)]
    return [
        {"n": int(n), "predicted": predicted / n, "observed": observed / n}
        for n, predicted, observed in zip(*(column.tolist() for column in sums), strict=True)
        if n
    ]


def _equal_mass(mass: F64, bins: int) -> NDArray[np.int64]:
    """The bin of each of the ascending values with that mass, [k]: where the middle of its mass lies."""
    middle = (np.cumsum(mass) - mass / 2) / max(float(mass.sum()), 1e-300)
    return np.minimum((middle * bins).astype(np.int64), bins - 1)


def summary(
    logits: Floats, labels: Floats, users: NDArray[Any] | Owners | None = None, sums: Sums | None = None
) -> dict[str, float]:
    """All metrics of one set, by name: those of `summary_of`, ece, and gauc where the users are known. `sums`: of the
    same examples, where they have been added up before."""
    levels, negatives, positives = _levels(logits, labels)
    return {
        **summary_of(Sums.of(logits, labels) if sums is None else sums, negatives, positives),
        "ece": ece_of_counts(probabilities(levels), negatives, positives),
        "gauc": math.nan if users is None else gauc(logits, labels, users),
    }


def summary_of(sums: Sums, negatives: F64, positives: F64) -> dict[str, float]:
    """n, n_pos, auc, average_precision, log_loss, normalized_entropy, base_rate and calibration from sums and from the
    counts of both classes at ascending score levels."""
    return {
        "n": int(sums.n),
        "n_pos": int(sums.positives),
        "auc": auc_of_counts(negatives, positives),
        "average_precision": average_precision_of_counts(negatives, positives),
        "log_loss": sums.log_loss,
        "normalized_entropy": sums.normalized_entropy,
        "base_rate": sums.base_rate,
        "calibration": sums.calibration,
    }


def auc_of_counts(negatives: F64, positives: F64) -> float:
    """AUC from the number of negatives and positives at each level, levels ascending, both [k]."""
    below = np.cumsum(negatives) - negatives
    won = float((positives * (below + negatives / 2)).sum())
    return _ratio(won, float(positives.sum()) * float(negatives.sum()))


def auc_error_bound(negatives: F64, positives: F64) -> float:
    """Largest distance of `auc_of_counts` from the AUC of the scores before they were put on levels."""
    return _ratio(float((positives * negatives).sum()) / 2, float(positives.sum()) * float(negatives.sum()))


def average_precision_of_counts(negatives: F64, positives: F64) -> float:
    """Average precision from the counts at each level, levels ascending, both [k]."""
    true = np.cumsum(positives[::-1])
    called = true + np.cumsum(negatives[::-1])
    precision = np.divide(true, called, out=np.zeros(len(true)), where=called > 0)
    return _ratio(float((positives[::-1] * precision).sum()), float(positives.sum()))


def finite_or_none(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become None, keys are sorted, numpy scalars plain numbers."""
    if isinstance(value, Mapping):
        return {str(key): finite_or_none(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [finite_or_none(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _counts_by_score(scores: Floats, labels: Floats, weights: Floats | None) -> tuple[Floats, F64, F64]:
    """The distinct scores, ascending, and the weight of negatives and positives at each."""
    if weights is None or not len(scores):
        return _levels(scores, labels)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(_changes(scores[order]))
    negatives, positives = _masses(labels[order] > 0.5, _weights(labels, weights)[order], starts)
    return scores[order][starts], negatives, positives


def _levels(scores: Floats, labels: Floats) -> tuple[Floats, F64, F64]:
    """The distinct scores, ascending, and the number of negatives and positives at each."""
    if scores.dtype != np.float32:
        order = np.argsort(scores, kind="stable")
        ranked, positive = scores[order], labels[order] > 0.5
    else:  # one sort of plain numbers, score above label, instead of a sort of places and two gathers
        packed = np.sort(_ordered(scores) << np.uint64(1) | (labels > 0.5))
        ranked, positive = _from_ordered(packed >> np.uint64(1)), packed & np.uint64(1) > 0
    starts = np.flatnonzero(_changes(ranked))
    return ranked[starts], *_numbers(positive, starts)


def _ordered(scores: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Numbers below 2**32 in the order of the scores, -0 as 0."""
    bits = (scores + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)


def _from_ordered(numbers: NDArray[np.uint64]) -> NDArray[np.float32]:
    """The inverse of `_ordered`."""
    bits = numbers.astype(np.uint32)
    return np.where(bits >> 31, bits & np.uint32((1 << 31) - 1), ~bits).view(np.float32)


def _changes(ranked: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before, the first one included."""
    out = np.ones(len(ranked), bool)
    np.not_equal(ranked[1:], ranked[:-1], out=out[1:])
    return out


def _numbers(positive: NDArray[np.bool_], starts: NDArray[np.int64]) -> tuple[F64, F64]:
    """Negatives and positives in each piece that begins at `starts`, of [n] in all."""
    sums = np.concatenate([[0], np.cumsum(positive)])
    ends = np.append(starts[1:], len(positive))
    positives = (sums[ends] - sums[starts]).astype(np.float64)
    return (ends - starts) - positives, positives


def _masses(positive: NDArray[np.bool_], weights: F64, starts: NDArray[np.int64]) -> tuple[F64, F64]:
    """The same of weights."""
    if not len(starts):
        return np.empty(0), np.empty(0)
    negatives = np.add.reduceat(np.where(positive, 0.0, weights), starts)
    return negatives, np.add.reduceat(np.where(positive, weights, 0.0), starts)


def _weights(labels: Floats, weights: Floats | None) -> F64:
    return np.ones(len(labels)) if weights is None else weights.astype(np.float64)


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan

"""An anytime-valid confidence sequence for how much better one model is than another, from paired scores.

The *gain* of an example is the log loss of one model less that of the other, on the same label, in nats. What is
bounded is the time-varying mean of the gains: the average, over the examples so far, of each gain's expectation given
all that came before it and the scores themselves. Nothing is assumed about the stream: examples may depend on each
other (one user's clicks), the models may change from slide to slide, drift may come and go.

For a fixed bet b and gains whose possible losses stay below 1/b, with m the mean above over n examples,

    prod (1 + b * gain) * exp(-b * n * m)

is a nonnegative supermartingale starting at 1, since E[1 + b * gain] <= exp(b * E[gain]). So is a weighted mixture over
bets, and by Ville's inequality it never reaches 1/alpha, at any of endlessly many looks, with probability 1 - alpha;
the means it rules out lie below the lower bound. This is the empirical-Bernstein sequence of Howard, Ramdas, McAuliffe
and Sekhon (Annals of Statistics 2021) with the variance term kept exact as in betting (Waudby-Smith and Ramdas, JRSS B
2024), for sequentially compared forecasters (Choe and Ramdas, Operations Research 2024). Gains are unbounded in
general, but a pair of scores allows two gains only, one for each label, so the largest loss an example *could* show is
known before its label: a bet too high for it is out from then on.

A bet of 1 makes the product the likelihood ratio of the two models, so the bets that matter lie around it whatever the
base rate, and nothing needs tuning. Sums are all it takes, so looks cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging.metrics import F64, Floats, losses

BETS: F64 = np.asarray(2.0 ** np.arange(-9, 7), np.float64)  # per nat
_FAVOURED = 7  # index of the bet 1/4, best at a gain of a quarter of the gains' variance
_DISTANCE = np.abs(np.arange(len(BETS)) - _FAVOURED)
_LOG_WEIGHTS: F64 = np.asarray(-2.0 * np.log1p(_DISTANCE) - np.log(((1.0 + _DISTANCE) ** -2.0).sum()), np.float64)
_BLOCK = 32  # factors multiplied before a logarithm is taken
_LARGEST = 1e6  # nats; (64 * 1e6) ** 32 is still a float64
_NEWTON_STEPS = 16


@dataclass(frozen=True, slots=True)
class PairedGains:
    """Sums over paired examples; sums of successive examples add up. Leading axes [...] are separate sequences."""

    n: F64  # [...]
    positives: F64  # [...]
    total: F64  # [...] sum of gains, nats
    squares: F64  # [...]
    worst: F64  # [..., 2] largest loss, and largest gain, that any example could have shown
    growth: F64  # [..., 2, bets] sum of log(1 + bet * gain), and of log(1 - bet * gain)

    @classmethod
    def none(cls) -> PairedGains:
        return cls(np.zeros(()), np.zeros(()), np.zeros(()), np.zeros(()), np.zeros(2), np.zeros((2, len(BETS))))

    @classmethod
    def of(cls, better: Floats, worse: Floats, labels: Floats) -> PairedGains:
        """Finite logits of the model that may be better and of the one it is held against; labels. All [..., n]."""
        if_positive = losses(worse, np.ones(1)) - losses(better, np.ones(1))
        if_negative = losses(worse, np.zeros(1)) - losses(better, np.zeros(1))
        return cls.of_gains(if_positive, if_negative, labels > 0.5)

    @classmethod
    def of_gains(cls, if_positive: F64, if_negative: F64, positive: NDArray[np.bool_]) -> PairedGains:
        """The gain each example shows with either label, in nats, and which label it has. All [..., n]."""
        gains = np.where(positive, if_positive, if_negative)
        lost, won = np.minimum(if_positive, if_negative), np.maximum(if_positive, if_negative)
        return cls(
            n=np.full(gains.shape[:-1], float(gains.shape[-1])),
            positives=positive.sum(axis=-1, dtype=np.float64),
            total=gains.sum(axis=-1),
            squares=np.square(gains).sum(axis=-1),
            worst=np.stack([(-lost).max(axis=-1, initial=0.0), won.max(axis=-1, initial=0.0)], axis=-1),
            growth=np.stack([_growth(gains), _growth(-gains)], axis=-2),
        )

    @classmethod
    def bounded(cls, gains: F64, limit: float) -> PairedGains:
        """Gains [n] that can never leave -`limit` to `limit`, whatever comes."""
        grown = np.stack([_growth(gains), _growth(-gains)])
        worst, none = np.full(2, limit), np.asarray(np.nan)
        return cls(np.asarray(float(len(gains))), none, gains.sum(), np.square(gains).sum(), worst, grown)

    @classmethod
    def joined(cls, parts: Sequence[PairedGains]) -> PairedGains:
        """Sequences side by side, along the first axis."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def __add__(self, other: PairedGains) -> PairedGains:
        return PairedGains(
            self.n + other.n,
            self.positives + other.positives,
            self.total + other.total,
            self.squares + other.squares,
            np.maximum(self.worst, other.worst),
            self.growth + other.growth,
        )

    @property
    def mean(self) -> F64:
        """Mean gain, nats, [...]; NaN without examples."""
        mean: F64 = np.divide(self.total, self.n, out=np.full(self.n.shape, np.nan), where=self.n > 0)
        return mean

    @property
    def standard_error(self) -> F64:
        """Of the mean as a fixed-sample test would take it, nats, [...]."""
        n = np.maximum(self.n, 1.0)
        return np.asarray(np.sqrt(np.maximum(self.squares / n - np.square(self.total / n), 0.0) / n))

    def lower(self, alpha: float) -> F64:
        """Below the mean at all looks together with probability 1 - `alpha`; nats, [...]; -inf = nothing known."""
        return _bound(self.growth[..., 0, :], self.worst[..., 0], self.n, alpha)

    def upper(self, alpha: float) -> F64:
        """Above the mean likewise; with `lower` an interval of confidence 1 - 2 `alpha`."""
        bound: F64 = -_bound(self.growth[..., 1, :], self.worst[..., 1], self.n, alpha)
        return bound

    def capture(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name).copy() for field in fields(self)}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> PairedGains:
        return cls(**{field.name: np.asarray(state[field.name], np.float64).copy() for field in fields(cls)})


def _growth(gains: F64) -> F64:
    """Sum of log(1 + bet * gain) by bet; gains [..., n] -> [..., bets]. Of a bet that is out it may be anything."""
    lead, count = gains.shape[:-1], gains.shape[-1]
    blocks = -(-count // _BLOCK)
    padded = np.zeros((*lead, _BLOCK * blocks))
    np.clip(gains, -_LARGEST, _LARGEST, out=padded[..., :count])
    padded = padded.reshape(*lead, _BLOCK, blocks)
    grown = np.empty((*lead, len(BETS)))
    for at, bet in enumerate(BETS):
        factors = np.maximum(1.0 + bet * padded, 1e-9)
        grown[..., at] = np.log(np.multiply.reduce(factors, axis=-2)).sum(axis=-1)
    return grown


def _bound(growth: F64, worst: F64, n: F64, alpha: float) -> NDArray[np.float64]:
    """The mean at which the mixture is 1/alpha, from below: Newton's steps on a convex falling function stay there."""
    alive = worst[..., None] * BETS < 0.999
    heights = np.where(alive, _LOG_WEIGHTS + growth, -np.inf) + np.log(alpha)
    examples = np.maximum(n, 1.0)[..., None]
    mean = (heights / (BETS * examples)).max(axis=-1)  # where the first of the bets alone reaches it
    known = np.isfinite(mean) & (n > 0)
    mean = np.where(known, mean, 0.0)
    for _ in range(_NEWTON_STEPS):
        exponents = heights - BETS * examples * mean[..., None]
        top = np.where(known, exponents.max(axis=-1), 0.0)
        shares = np.exp(exponents - top[..., None])
        total = np.maximum(shares.sum(axis=-1), 1e-300)
        mean = mean + (top + np.log(total)) * total / np.maximum((shares * BETS * examples).sum(axis=-1), 1e-300)
    return np.where(known, mean, -np.inf)

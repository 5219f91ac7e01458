"""Delayed labels: what a row counts when it is learned before its label is final, as published.

`labels.mode` chooses. An example told early comes as a negative and, when its purchase follows, once more as a
positive. So the stream's law b is not the law p of the labels, and the loss makes up for it, row by row:

    duplicate   -[y log f + (1-y) log(1-f)]                                              f learns b = p / (1 + p)
    fnw         -[y (1+p) log f + (1-y) (1-p)(1+p) log(1-f)]                             f learns p
    fnc         as duplicate, and what is served is b / (1 - b)
    es_dfm      -[y (1+p_dp) log f + (1-y) (1+p_dp) p_tn log(1-f)]                       f learns p

    p      the model's own probability, held fixed
    p_dp   probability of a delayed positive: one that was negative when it was first told, `labels.elapsed` after its
           click
    p_tn   probability that who was told as a negative is one

fnw and fnc: Ktena et al., Addressing Delayed Feedback for Continuous Training with Neural Networks in CTR prediction,
RecSys 2019; es_dfm: Yang et al., Capturing Delayed Feedback in Conversion Rate Prediction via Elapsed-Time Sampling,
AAAI 2021. What is final (`wait`, `oracle`, replayed rows) is plain log loss; where f learns b, a replayed row is b's: a
negative always, a positive besides where it is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.events import ExampleBatch
from stream_learner.settings import LabelMode

Tensor = Any  # TensorFlow has no types that a checker could read
Targets = NDArray[np.float32]

POSITIVE, NEGATIVE, EARLY = range(3)  # columns of targets: how often a row counts as either, and whether it is early
_HIGHEST_ODDS = 0.999  # of b / (1 - b): b of one half and more would be a probability of one and more


@dataclass(frozen=True, slots=True)
class Lessons:
    """Rows to be learned, in order. `targets`: float32 [n, 3]; `first`: whether a row's example is told for the first
    time, [n]."""

    examples: ExampleBatch
    targets: Targets
    first: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.examples)

    @classmethod
    def final(cls, examples: ExampleBatch, mode: LabelMode = "wait") -> Lessons:
        """Examples whose labels are known and were not told before."""
        return cls(examples, final_targets(examples.label, mode), np.ones(len(examples), bool))

    def take(self, rows: slice | NDArray[Any]) -> Lessons:
        return Lessons(self.examples.take(rows), self.targets[rows], self.first[rows])

    def followed_by(self, other: Lessons) -> Lessons:
        if not len(other):
            return self
        if not len(self):
            return other
        return Lessons(
            ExampleBatch.concat([self.examples, other.examples]),
            np.concatenate([self.targets, other.targets]),
            np.concatenate([self.first, other.first]),
        )


@dataclass(frozen=True, slots=True)
class Early:
    """What a slide brings in the early-learning modes beside the matured examples to be learned."""

    lessons: Lessons  # told before they mature
    finished: ExampleBatch  # matured, and told before
    in_time: NDArray[np.bool_]  # of all that matured, those told before last: positive when first told, [n]


def final_targets(labels: NDArray[np.float32], mode: LabelMode) -> Targets:
    """[n, 3] of labels that are known for good: those of p, or of b where the model learns b."""
    negative = np.ones_like(labels) if mode in ("duplicate", "fnc") else 1 - labels
    return np.stack([labels, negative, np.zeros_like(labels)], axis=1)


def importance(mode: LabelMode, p: Tensor, p_dp: Tensor, p_tn: Tensor) -> tuple[Tensor, Tensor]:
    """What an early positive and an early negative count, [B] each; all probabilities [B], held fixed."""
    if mode == "fnw":
        return 1 + p, (1 - p) * (1 + p)
    if mode == "es_dfm":
        return 1 + p_dp, (1 + p_dp) * p_tn
    return tf.ones_like(p), tf.ones_like(p)


def counts(mode: LabelMode, targets: Tensor, p: Tensor, p_dp: Tensor, p_tn: Tensor) -> tuple[Tensor, Tensor]:
    """What every row counts as positive and as negative, [B] each. `targets`: [B, 3]."""
    early = targets[:, EARLY] > 0
    positive, negative = importance(mode, p, p_dp, p_tn)
    return (
        targets[:, POSITIVE] * tf.where(early, positive, 1.0),
        targets[:, NEGATIVE] * tf.where(early, negative, 1.0),
    )


def log_losses(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """-[positive log f + negative log(1 - f)], elementwise, f = sigmoid(logits). The counts may be of any sign."""
    return (positive + negative) * tf.math.softplus(logits) - positive * logits


def served(mode: LabelMode, logits: Tensor) -> Tensor:
    """The log-odds of p, given those the network learns: [B] -> [B]. Differs for fnc only, where odds of b are p."""
    if mode != "fnc":
        return logits
    log_p = tf.minimum(logits, np.float32(np.log(_HIGHEST_ODDS)))
    return log_p - tf.math.log1p(-tf.exp(log_p))


def delay_targets(labels: Tensor, in_time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of matured examples: what p_dp is to learn, what p_tn is to learn, and on which rows it learns. [B] each.

    `in_time`: 1 where the example was told as a positive at first, [B].
    """
    delayed = labels * (1 - in_time)
    return delayed, 1 - labels, 1 - in_time

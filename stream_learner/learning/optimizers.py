"""Adagrad, Adam, AdamW and FTRL-proximal, for whole variables and for the few rows of a table that a batch touches.

The first three follow the formulas (and the defaults) of `keras.optimizers`, the last its paper; tests hold them equal.
They are written out here because a table's step must never make a gradient, or a slot, of the table's size: only unique
rows are gathered, stepped and scattered back. Adam on rows is "lazy": the moments of untouched rows rest, and the bias
correction counts the steps of the whole model, not those of the row; AdamW takes its decay from touched rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.learning.encoder import Tensor
from stream_learner.settings import Learning

_EPSILON = 1e-7


class Optimizer(Protocol):
    """A rule that moves weights by a gradient and its slots (all arrays of one shape)."""

    slots: dict[str, float]  # name of each slot and its first value

    def step(
        self, weights: Tensor, gradient: Tensor, slots: Sequence[Tensor], count: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The new weights and slots. `count`: int64, number of this step, from 1."""


class Adagrad:
    """Adaptive subgradient (Duchi, Hazan, Singer: JMLR 2011)."""

    def __init__(self, learning_rate: float) -> None:
        self.slots = {"accumulator": 0.1}
        self._rate = learning_rate

    def step(
        self, weights: Tensor, gradient: Tensor, slots: Sequence[Tensor], count: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        accumulator = slots[0] + tf.square(gradient)
        return weights - self._rate * gradient / tf.sqrt(accumulator + _EPSILON), [accumulator]


class Adam:
    """Adaptive moments (Kingma, Ba: ICLR 2015); with `decay` AdamW, which takes rate * decay * weights from the weights
    themselves (Loshchilov, Hutter: ICLR 2019)."""

    def __init__(self, learning_rate: float, decay: float = 0.0) -> None:
        self.slots = {"mean": 0.0, "variance": 0.0}
        self._rate, self._decay = learning_rate, decay
        self._decay_mean, self._decay_variance = 0.9, 0.999

    def step(
        self, weights: Tensor, gradient: Tensor, slots: Sequence[Tensor], count: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        mean = slots[0] + (gradient - slots[0]) * (1 - self._decay_mean)
        variance = slots[1] + (tf.square(gradient) - slots[1]) * (1 - self._decay_variance)
        exponent = tf.cast(count, tf.float64)
        correction = tf.sqrt(1 - tf.pow(tf.constant(self._decay_variance, tf.float64), exponent))
        correction /= 1 - tf.pow(tf.constant(self._decay_mean, tf.float64), exponent)
        step = self._rate * tf.cast(correction, tf.float32) * mean / (tf.sqrt(variance) + _EPSILON)
        return weights * (1 - self._rate * self._decay) - step, [mean, variance]


class Ftrl:
    """Follow the regularised leader, proximal, with per-coordinate rates (McMahan et al.: KDD 2013, algorithm 1).

    The weights are a function of the slots alone, 0 as long as |linear| <= l1: what they were before the first step is
    forgotten with it.
    """

    def __init__(self, learning_rate: float, l1: float, l2: float, beta: float) -> None:
        self.slots = {"accumulator": 0.0, "linear": 0.0}
        self._rate, self._l1, self._l2, self._beta = learning_rate, l1, l2, beta

    def step(
        self, weights: Tensor, gradient: Tensor, slots: Sequence[Tensor], count: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        accumulator = slots[0] + tf.square(gradient)
        sigma = (tf.sqrt(accumulator) - tf.sqrt(slots[0])) / self._rate
        linear = slots[1] + gradient - sigma * weights
        scale = (self._beta + tf.sqrt(accumulator)) / self._rate + self._l2
        shrunk = linear - tf.clip_by_value(linear, -self._l1, self._l1)
        return -shrunk / scale, [accumulator, linear]

    def linear(self, weights: Tensor) -> Tensor:
        """The `linear` slot that gives these weights while the accumulator is 0."""
        return -(weights * (self._beta / self._rate + self._l2) + tf.sign(weights) * self._l1)


def optimizer(learning: Learning, learning_rate: float, *, decays: bool = True) -> Optimizer:
    """The configured rule of the dense weights; `decays`: whether AdamW decays the weights in question."""
    return _rule(learning.optimizer, learning, learning_rate, decays=decays)


def table_optimizer(learning: Learning) -> Optimizer:
    """The configured rule of the tables."""
    rate = learning.table_learning_rate or learning.learning_rate
    return _rule(learning.table_optimizer or learning.optimizer, learning, rate, decays=True)


def _rule(name: str, learning: Learning, learning_rate: float, *, decays: bool) -> Optimizer:
    if name == "adagrad":
        return Adagrad(learning_rate)
    if name == "ftrl":
        return Ftrl(learning_rate, learning.l1, learning.l2, learning.ftrl_beta)
    return Adam(learning_rate, learning.l2 if decays and name == "adamw" else 0.0)


def make_slots(rule: Optimizer, variable: Any) -> dict[str, Any]:
    """Slot variables of the variable's shape."""
    shape = tuple(variable.shape)
    return {name: tf.Variable(np.full(shape, first, np.float32)) for name, first in rule.slots.items()}


def forget(rule: Optimizer, variable: Any, slots: dict[str, Any]) -> None:
    """Every slot without memory of any gradient, the variable as it is."""
    for name, slot in slots.items():
        slot.assign(tf.fill(slot.shape, np.float32(rule.slots[name])))
    if isinstance(rule, Ftrl):
        slots["linear"].assign(rule.linear(variable.read_value()))


def forget_rows(rule: Optimizer, slots: dict[str, Any], rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    """The slots of the given rows, which hold `vectors` [rows, dim], without memory of any gradient."""
    for name, slot in slots.items():
        first = np.full(vectors.shape, rule.slots[name], np.float32)
        if isinstance(rule, Ftrl) and name == "linear":
            first = rule.linear(tf.constant(vectors))
        slot.scatter_update(tf.IndexedSlices(first, rows))


def step_dense(
    rule: Optimizer, variable: Any, slots: dict[str, Any], gradient: Tensor, count: Tensor, boost: Tensor | None = None
) -> None:
    """Moves a whole variable and its slots, in place; by `boost` times the step, where given (not: FTRL)."""
    before = variable.read_value()
    weights, moved = rule.step(before, gradient, [slot.read_value() for slot in slots.values()], count)
    variable.assign(weights if boost is None else before + boost * (weights - before))
    for slot, value in zip(slots.values(), moved, strict=True):
        slot.assign(value)


def step_rows(
    rule: Optimizer,
    table: Any,
    slots: dict[str, Any],
    rows: Tensor,
    gradient: Tensor,
    count: Tensor,
    boost: Tensor | None = None,
) -> None:
    """As `step_dense`, the given rows of a table and of its slots. `rows` [U] without repeats, `gradient` [U, dim]."""
    held, before = [tf.gather(slot, rows) for slot in slots.values()], tf.gather(table, rows)
    vectors, moved = rule.step(before, gradient, held, count)
    vectors = vectors if boost is None else before + boost * (vectors - before)
    table.scatter_update(tf.IndexedSlices(vectors, rows))
    for slot, value in zip(slots.values(), moved, strict=True):
        slot.scatter_update(tf.IndexedSlices(value, rows))

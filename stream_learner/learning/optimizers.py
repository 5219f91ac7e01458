"""Adagrad and Adam, for whole variables and for the few rows of a table that a batch touches.

Both follow the formulas (and the defaults) of `keras.optimizers`; a test holds them equal. They are written out here
because a table's step must never make a gradient, or a slot, of the table's size: only unique rows are gathered,
stepped and scattered back. Adam on rows is "lazy": the moments of untouched rows rest, and the bias correction counts
the steps of the whole model, not those of the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from stream_learner.learning.encoder import Tensor

_EPSILON = 1e-7


class Optimizer(Protocol):
    """A rule that turns a gradient and its slots (arrays of the gradient's shape) into a step."""

    slots: dict[str, float]  # name of each slot and its first value

    def step(self, gradient: Tensor, slots: Sequence[Tensor], count: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What is to be taken from the weights, and the new slots. `count`: int64, number of this step, from 1."""


class Adagrad:
    """Adaptive subgradient (Duchi, Hazan, Singer: JMLR 2011)."""

    def __init__(self, learning_rate: float) -> None:
        self.slots = {"accumulator": 0.1}
        self._rate = learning_rate

    def step(self, gradient: Tensor, slots: Sequence[Tensor], count: Tensor) -> tuple[Tensor, list[Tensor]]:
        accumulator = slots[0] + tf.square(gradient)
        return self._rate * gradient / tf.sqrt(accumulator + _EPSILON), [accumulator]


class Adam:
    """Adaptive moments (Kingma, Ba: ICLR 2015)."""

    def __init__(self, learning_rate: float) -> None:
        self.slots = {"mean": 0.0, "variance": 0.0}
        self._rate = learning_rate
        self._decay_mean, self._decay_variance = 0.9, 0.999

    def step(self, gradient: Tensor, slots: Sequence[Tensor], count: Tensor) -> tuple[Tensor, list[Tensor]]:
        mean = slots[0] + (gradient - slots[0]) * (1 - self._decay_mean)
        variance = slots[1] + (tf.square(gradient) - slots[1]) * (1 - self._decay_variance)
        exponent = tf.cast(count, tf.float64)
        correction = tf.sqrt(1 - tf.pow(tf.constant(self._decay_variance, tf.float64), exponent))
        correction /= 1 - tf.pow(tf.constant(self._decay_mean, tf.float64), exponent)
        return self._rate * tf.cast(correction, tf.float32) * mean / (tf.sqrt(variance) + _EPSILON), [mean, variance]


def optimizer(name: str, learning_rate: float) -> Optimizer:
    """`name`: adagrad or adam."""
    return Adam(learning_rate) if name == "adam" else Adagrad(learning_rate)


def make_slots(rule: Optimizer, variable: Any) -> dict[str, Any]:
    """Slot variables of the variable's shape."""
    shape = tuple(variable.shape)
    return {name: tf.Variable(np.full(shape, first, np.float32)) for name, first in rule.slots.items()}


def step_dense(rule: Optimizer, variable: Any, slots: dict[str, Any], gradient: Tensor, count: Tensor) -> None:
    """Moves a whole variable and its slots, in place."""
    step, moved = rule.step(gradient, [slot.read_value() for slot in slots.values()], count)
    variable.assign_sub(step)
    for slot, value in zip(slots.values(), moved, strict=True):
        slot.assign(value)


def step_rows(
    rule: Optimizer, table: Any, slots: dict[str, Any], rows: Tensor, gradient: Tensor, count: Tensor
) -> None:
    """Moves the given rows of a table and of its slots, in place. `rows` [U] without repeats, `gradient` [U, dim]."""
    step, moved = rule.step(gradient, [tf.gather(slot, rows) for slot in slots.values()], count)
    table.scatter_sub(tf.IndexedSlices(step, rows))
    for slot, value in zip(slots.values(), moved, strict=True):
        slot.scatter_update(tf.IndexedSlices(value, rows))

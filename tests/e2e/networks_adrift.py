"""A network that goes bad by itself: each step of training moves all its scores up a little."""

from __future__ import annotations

from typing import Any

import keras

STEP = 0.06  # log-odds


class Drifting(keras.layers.Layer):
    """x [B, 1] -> x + STEP times the number of batches trained on."""

    def build(self, _: Any) -> None:
        self.batches = self.add_weight(name="batches", shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.batches.assign_add(1.0)
        return x + STEP * self.batches


def build(inputs: Any) -> keras.Model:
    columns = [*inputs.vectors.values(), inputs.dense]
    logit = keras.layers.Dense(1)(keras.layers.Concatenate()(columns))
    return keras.Model(columns, Drifting()(logit))


class Failing(keras.layers.Layer):
    """x [B, 1], and after `LAST` batches of training no number any more."""

    LAST = 30.0

    def build(self, _: Any) -> None:
        self.batches = self.add_weight(name="batches", shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.batches.assign_add(1.0)
        return keras.ops.where(self.batches > self.LAST, x * float("nan"), x)


def build_failing(inputs: Any) -> keras.Model:
    columns = [*inputs.vectors.values(), inputs.dense]
    logit = keras.layers.Dense(1)(keras.layers.Concatenate()(columns))
    return keras.Model(columns, Failing()(logit))

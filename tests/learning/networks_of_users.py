"""Networks as a user would write them, right and wrong."""

from __future__ import annotations

import keras

not_callable = 3


def good(inputs):
    """Unseeded layers, a random state, batch statistics, a loss of its own, and only one of the vectors."""
    out = keras.layers.Concatenate()([inputs.dense, inputs.vectors["user"]])
    out = keras.layers.BatchNormalization()(out)
    out = keras.layers.Dense(8, activation="tanh", kernel_regularizer="l2")(out)
    out = keras.layers.Dropout(0.3)(out)
    return keras.Model([inputs.dense, inputs.vectors["user"]], keras.ops.squeeze(keras.layers.Dense(1)(out), axis=-1))


def fails(inputs):
    return inputs.vectors["nobody"]


def no_model(inputs):
    return inputs.dense


def two_logits(inputs):
    return keras.Model([inputs.dense], keras.layers.Dense(2)(inputs.dense))


def foreign_inputs(inputs):
    other = keras.Input((3,))
    return keras.Model([other], keras.layers.Dense(1)(other))


def half_precision(inputs):
    return keras.Model([inputs.dense], keras.layers.Dense(1, dtype="float16")(inputs.dense))


def explodes(inputs):
    out = inputs.dense
    for _ in range(3):
        out = keras.ops.exp(keras.layers.Dense(4)(out))
    return keras.Model([inputs.dense], keras.layers.Dense(1)(out))

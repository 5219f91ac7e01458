"""Logistic regression: one weight per dense input; an id adds the sum of its vector (use `dim: 1`)."""

from __future__ import annotations

from typing import Any

import keras

from stream_learner.learning.models.inputs import ModelInputs


def build(inputs: ModelInputs) -> Any:
    """ModelInputs -> keras.Model to a logit [None, 1]."""
    logit = keras.layers.Dense(1, name="logit")(inputs.dense)
    for vector in inputs.vectors.values():
        logit = logit + keras.ops.sum(vector, axis=1, keepdims=True)
    return keras.Model(inputs.all(), logit)

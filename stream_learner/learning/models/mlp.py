"""A multi-layer perceptron on everything side by side."""

from __future__ import annotations

from typing import Any

import keras

from stream_learner.learning.models.inputs import ModelInputs, hidden_layers


def build(inputs: ModelInputs) -> Any:
    """ModelInputs -> keras.Model to a logit [None, 1]."""
    out = hidden_layers(inputs, inputs.joined())
    return keras.Model(inputs.all(), keras.layers.Dense(1, name="logit")(out))

"""A multi-layer perceptron on everything side by side."""

from __future__ import annotations

from typing import Any

import keras

from stream_learner.learning.models.inputs import ModelInputs, by_member, deep_logits


def build(inputs: ModelInputs) -> Any:
    """ModelInputs -> keras.Model to logits [None, members]."""
    return keras.Model(inputs.all(), by_member(deep_logits(inputs, inputs.joined())))

"""Logistic regression: one weight per dense input; an id adds the sum of its vector (use `dim: 1`)."""

from __future__ import annotations

from typing import Any

import keras

from stream_learner.learning.models.inputs import ModelInputs, by_member, linear_logits


def build(inputs: ModelInputs) -> Any:
    """ModelInputs -> keras.Model to logits [None, members]."""
    logits = by_member(linear_logits(inputs))
    for vector in inputs.vectors.values():
        logits = logits + keras.ops.sum(vector, axis=1, keepdims=True)
    return keras.Model(inputs.all(), logits)

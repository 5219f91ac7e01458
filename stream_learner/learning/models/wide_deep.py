"""Wide & deep (Cheng et al., DLRS 2016): a linear model and a multi-layer perceptron that share a logit.

The first number of an id's vector is its weight in the linear part; the perceptron sees the whole vector.
"""

from __future__ import annotations

from typing import Any

import keras

from stream_learner.learning.models.inputs import ModelInputs, by_member, deep_logits, linear_logits


def build(inputs: ModelInputs) -> Any:
    """ModelInputs -> keras.Model to logits [None, members]."""
    logits = by_member(deep_logits(inputs, inputs.joined()) + linear_logits(inputs))
    for vector in inputs.vectors.values():
        logits = logits + vector[:, :1]
    return keras.Model(inputs.all(), logits)

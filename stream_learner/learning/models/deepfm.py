"""DeepFM (Guo et al., IJCAI 2017): a factorisation machine and a multi-layer perceptron that share a logit.

The first number of an id's vector is its weight in the linear part, the others are its factors; each dense input has
a weight and factors of its own, times its value. Ids must have vectors of one width, at least 2.
"""

from __future__ import annotations

from typing import Any

import keras

from stream_learner.errors import ConfigError
from stream_learner.learning.models.inputs import ModelInputs, by_member, deep_logits, linear_logits
from stream_learner.learning.models.members import FactorLayer


def build(inputs: ModelInputs) -> Any:
    """ModelInputs -> keras.Model to logits [None, members]. Raises ConfigError for vectors of several widths."""
    widths = {vector.shape[-1] for vector in inputs.vectors.values()}
    if len(widths) != 1 or min(widths) < 2:
        raise ConfigError(f"learning.network: 'deepfm': ids of dim {sorted(widths)}; needs one, at least 2, for all")
    logits = by_member(deep_logits(inputs, inputs.joined()) + linear_logits(inputs))
    sums, squares = FactorLayer(min(widths) - 1, inputs.dense_masks, name="factors")(inputs.dense)
    for vector in inputs.vectors.values():
        logits = logits + vector[:, :1]
        factors = vector[:, None, 1:]
        sums, squares = sums + factors, squares + keras.ops.square(factors)
    pairs = keras.ops.sum(keras.ops.square(sums) - squares, axis=-1) / 2
    return keras.Model(inputs.all(), logits + pairs)

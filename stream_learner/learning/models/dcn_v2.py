"""Deep & Cross Network V2 (Wang et al., WWW 2021), the parallel form.

Cross layers `x' = x0 * (W x + b) + x` of full rank and the deep layers both start from all inputs side by side; their
outputs, side by side again, give the logit.
"""

from __future__ import annotations

from typing import Any

import keras

from stream_learner.learning.models.inputs import ModelInputs, hidden_layers


def build(inputs: ModelInputs) -> Any:
    """ModelInputs -> keras.Model to a logit [None, 1]."""
    start = inputs.joined()
    crossed = start
    for index in range(inputs.config.cross_layers):
        crossed = start * keras.layers.Dense(start.shape[-1], name=f"cross_{index}")(crossed) + crossed
    both = keras.layers.Concatenate(name="crossed_and_deep")([crossed, hidden_layers(inputs, start)])
    return keras.Model(inputs.all(), keras.layers.Dense(1, name="logit")(both))

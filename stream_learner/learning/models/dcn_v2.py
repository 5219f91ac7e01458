"""Deep & Cross Network V2 (Wang et al., WWW 2021), the parallel form.

Cross layers `x' = x0 * (W x + b) + x` of full rank and the deep layers both start from all inputs side by side; their
outputs, side by side again, give the logit.
"""

from __future__ import annotations

from typing import Any

import keras

from stream_learner.learning.models.inputs import ModelInputs, by_member, hidden_layers
from stream_learner.learning.models.members import MemberLayer, SeenLayer


def build(inputs: ModelInputs) -> Any:
    """ModelInputs -> keras.Model to logits [None, members]."""
    joined = inputs.joined()
    start = SeenLayer(inputs.masks(), name="seen")(joined)
    crossed = start
    for index in range(inputs.config.cross_layers):
        crossed = start * MemberLayer(start.shape[-1], name=f"cross_{index}")(crossed) + crossed
    if inputs.config.hidden:
        crossed = keras.layers.Concatenate(name="crossed_and_deep")([crossed, hidden_layers(inputs, joined)])
    return keras.Model(inputs.all(), by_member(MemberLayer(1, name="logit")(crossed)))

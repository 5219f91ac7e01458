"""What a network is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from stream_learner.learning.models.members import FirstLayer, MemberLayer
from stream_learner.settings import Learning


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """Symbolic inputs of a network, for the functional API of Keras."""

    vectors: dict[str, Any]  # id feature -> KerasTensor float32 [None, dim], its looked-up vector
    dense: Any  # KerasTensor float32 [None, d]: standardised numbers, missing indicators, time of day and week
    config: Learning
    dense_masks: NDArray[np.float32]  # [members, d], which dense inputs each member of the ensemble sees

    def joined(self) -> Any:
        """All inputs side by side, [None, sum of dims + d]."""
        return (
            keras.layers.Concatenate(name="joined")([*self.vectors.values(), self.dense])
            if self.vectors
            else self.dense
        )

    def masks(self) -> NDArray[np.float32]:
        """[members, sum of dims + d], of `joined`."""
        ids = sum(vector.shape[-1] for vector in self.vectors.values())
        seen = np.ones((len(self.dense_masks), ids), np.float32)
        return np.concatenate([seen, self.dense_masks], axis=1)

    def all(self) -> list[Any]:
        return [*self.vectors.values(), self.dense]


def hidden_layers(inputs: ModelInputs, start: Any) -> Any:
    """The configured hidden layers on `inputs.joined()`: dense, ReLU, and dropout where there is any;
    [None, members, width]."""
    out = start
    for index, width in enumerate(inputs.config.hidden):
        name = f"hidden_{index}"
        layer = MemberLayer(width, "relu", name=name) if index else FirstLayer(width, inputs.masks(), "relu", name=name)
        out = layer(out)
        if inputs.config.dropout:
            out = keras.layers.Dropout(inputs.config.dropout, name=f"dropout_{index}")(out)
    return out


def deep_logits(inputs: ModelInputs, start: Any) -> Any:
    """The hidden layers and a logit of each member, [None, members, 1]."""
    if not inputs.config.hidden:
        return FirstLayer(1, inputs.masks(), name="logit")(start)
    return MemberLayer(1, name="logit")(hidden_layers(inputs, start))


def linear_logits(inputs: ModelInputs) -> Any:
    """One weight per dense input, first 0, [None, members, 1]."""
    return FirstLayer(1, inputs.dense_masks, zeros=True, name="linear")(inputs.dense)


def by_member(logits: Any) -> Any:
    """[None, members, 1] -> [None, members], what a network gives."""
    return keras.ops.squeeze(logits, axis=-1)

"""What a network is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from stream_learner.settings import Learning


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """Symbolic inputs of a network, for the functional API of Keras."""

    vectors: dict[str, Any]  # id feature -> KerasTensor float32 [None, dim], its looked-up vector
    dense: Any  # KerasTensor float32 [None, d]: standardised numbers, missing indicators, time of day and week
    config: Learning

    def joined(self) -> Any:
        """All inputs side by side, [None, sum of dims + d]."""
        return (
            keras.layers.Concatenate(name="joined")([*self.vectors.values(), self.dense])
            if self.vectors
            else self.dense
        )

    def all(self) -> list[Any]:
        return [*self.vectors.values(), self.dense]


def hidden_layers(inputs: ModelInputs, start: Any) -> Any:
    """The configured hidden layers on `start`: dense, ReLU, and dropout where there is any."""
    out = start
    for index, width in enumerate(inputs.config.hidden):
        out = keras.layers.Dense(width, activation="relu", name=f"hidden_{index}")(out)
        if inputs.config.dropout:
            out = keras.layers.Dropout(inputs.config.dropout, name=f"dropout_{index}")(out)
    return out

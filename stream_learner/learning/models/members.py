"""Layers of an ensemble: members side by side in one tensor [B, members, width], each with weights of its own.

One network is an ensemble of one. The first layer is a single product [B, d] x [d, members * units], so that small
members cost little more than one net of their joint width (a deep ensemble: Lakshminarayanan, Pritzel, Blundell,
NeurIPS 2017; random subsets of the inputs as in Ho, TPAMI 1998).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

MASK_STAGE = 12  # stage constant of the seeds, so that no two stages share a random stream


def input_masks(owners: list[int], members: int, share: float, seed: int) -> NDArray[np.float32]:
    """[members, dense inputs] of 0 and 1: each member sees `share` of the numbers, at least one, and all else.

    `owners`: per dense input its number, -1 = seen by all. All encodings of a number are seen or not together.
    """
    numbers = sorted({owner for owner in owners if owner >= 0})
    masks = np.ones((members, len(owners)), np.float32)
    if share == 1 or not numbers:
        return masks
    generator = np.random.default_rng([seed, MASK_STAGE])
    count = max(1, round(share * len(numbers)))
    for mask in masks:
        seen = {-1, *generator.permutation(numbers)[:count].tolist()}
        mask[:] = [owner in seen for owner in owners]
    return masks


class FirstLayer(keras.layers.Layer):  # type: ignore[misc]
    """Inputs [B, d] -> [B, members, units], each member through its own mask [members, d]."""

    def __init__(
        self, units: int, masks: NDArray[np.float32], activation: str | None = None, zeros: bool = False, **more: Any
    ) -> None:
        """`zeros`: first weights of 0, where nothing has to break a symmetry."""
        super().__init__(**more)
        self._units, self._masks, self._zeros = units, masks, zeros
        self._activation = keras.activations.get(activation)

    def build(self, shape: Any) -> None:
        members, width = self._masks.shape
        limit = 0.0 if self._zeros else _limit(width, self._units)
        self.kernel = _kernel(self, (members, width, self._units), limit)
        self.bias = self.add_weight(name="bias", shape=(members, self._units), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        return _side_by_side(inputs, self.kernel, self._masks, self.bias, self._activation)


class SeenLayer(keras.layers.Layer):  # type: ignore[misc]
    """Inputs [B, d] as each member sees them, [B, members, d]."""

    def __init__(self, masks: NDArray[np.float32], **more: Any) -> None:
        super().__init__(**more)
        self._masks = masks

    def call(self, inputs: Any) -> Any:
        return inputs[:, None, :] * keras.ops.convert_to_tensor(self._masks)


class MemberLayer(keras.layers.Layer):  # type: ignore[misc]
    """[B, members, d] -> [B, members, units], no member seeing another."""

    def __init__(self, units: int, activation: str | None = None, **more: Any) -> None:
        super().__init__(**more)
        self._units, self._activation = units, keras.activations.get(activation)

    def build(self, shape: Any) -> None:
        _, members, width = shape
        self.kernel = _kernel(self, (members, width, self._units), _limit(width, self._units))
        self.bias = self.add_weight(name="bias", shape=(members, self._units), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        members, width, _ = self.kernel.shape
        if members > 1:
            return self._activation(keras.ops.einsum("bmd,mdu->bmu", inputs, self.kernel) + self.bias)
        return _side_by_side(keras.ops.reshape(inputs, (-1, width)), self.kernel, None, self.bias, self._activation)


class FactorLayer(keras.layers.Layer):  # type: ignore[misc]
    """Vectors of width k for the values of inputs [B, d]: what a factorisation machine's pairs sum over.

    Gives `sum_j x_j v_j` and `sum_j (x_j v_j)^2`, each [B, members, k].
    """

    def __init__(self, width: int, masks: NDArray[np.float32], **more: Any) -> None:
        super().__init__(**more)
        self._width, self._masks = width, masks

    def build(self, shape: Any) -> None:
        members, inputs = self._masks.shape
        self.kernel = _kernel(self, (members, inputs, self._width), 0.01)

    def call(self, inputs: Any) -> Any:
        sums = _side_by_side(inputs, self.kernel, self._masks)
        squares = _side_by_side(keras.ops.square(inputs), keras.ops.square(self.kernel), self._masks)
        return sums, squares


def _side_by_side(
    inputs: Any, kernel: Any, masks: NDArray[np.float32] | None, bias: Any = None, activation: Any = None
) -> Any:
    """Inputs [B, d] times the kernels [members, d, units] where the masks [members, d] of 0 and 1 let them through,
    plus the bias [members, units], activated: [B, members, units].

    One product of two matrices, in the form that TensorFlow computes in one go with bias and activation; for one member
    an einsum takes twice the time, forth and back.
    """
    members, width, units = kernel.shape
    seen = kernel if masks is None or masks.all() else kernel * masks[:, :, None]
    seen = keras.ops.reshape(keras.ops.swapaxes(seen, 0, 1) if members > 1 else seen, (width, members * units))
    out = keras.ops.matmul(inputs, seen)
    if bias is not None:
        out = tf.nn.bias_add(out, keras.ops.reshape(bias, (members * units,)))
    out = out if activation is None else activation(out)
    return keras.ops.reshape(out, (-1, members, units))


def _kernel(layer: Any, shape: tuple[int, ...], limit: float) -> Any:
    initializer = keras.initializers.RandomUniform(-limit, limit) if limit else "zeros"
    return layer.add_weight(name="kernel", shape=shape, initializer=initializer)


def _limit(inputs: int, units: int) -> float:
    """Glorot and Bengio's (AISTATS 2010), of one member."""
    return float(np.sqrt(6.0 / (inputs + units)))

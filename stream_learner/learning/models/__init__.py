"""Networks: from looked-up vectors and dense inputs to a logit, or one of each member of an ensemble.

A network is a function `build(inputs: ModelInputs) -> keras.Model` that connects the given inputs to a logit, [None]
or [None, 1], with the functional API; the project's own give [None, members]. The tables the vectors come from, the
loss, the optimizer and the export are the same for all. A layer that looks across rows (batch normalisation) sees new
and replayed rows as one batch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from stream_learner.errors import ConfigError
from stream_learner.learning.models import dcn_v2, deepfm, logistic, mlp, wide_deep
from stream_learner.learning.models.inputs import ModelInputs
from stream_learner.learning.models.members import input_masks
from stream_learner.settings import Learning

__all__ = ["ModelInputs", "build_network"]

_NETWORKS: dict[str, Callable[[ModelInputs], Any]] = {
    "logistic": logistic.build,
    "mlp": mlp.build,
    "wide_deep": wide_deep.build,
    "dcn_v2": dcn_v2.build,
    "deepfm": deepfm.build,
}

# What building a network of somebody else's can end in; an interrupt or a lack of memory is not his mistake.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    tf.errors.OpError,
)


def build_network(learning: Learning, dims: dict[str, int], owners: list[int], seed: int) -> Any:
    """The configured network as a keras.Model with inputs [*vectors in the order of `dims`, dense].

    `dims`: width of each id feature's vectors; `owners`: per dense input the number it encodes, -1 = none. `seed` fixes
    the initial weights, also of layers that name no seed. Raises ConfigError when the user's function cannot be found,
    fails, or gives back something other than a model from these inputs to one logit.
    """
    keras.utils.set_random_seed(seed % 2**32)
    vectors = {name: keras.Input((dim,), name=f"{name}_vector") for name, dim in dims.items()}
    masks = input_masks(owners, learning.ensemble.members, learning.ensemble.input_share, seed)
    inputs = ModelInputs(vectors, keras.Input((len(owners),), name="dense_inputs"), learning, masks)
    here = f"learning.network: {learning.network!r}"
    build = _NETWORKS.get(learning.network) or _imported(learning.network, here)
    try:
        built = build(inputs)
    except _FAILURES as error:
        raise ConfigError(f"{here}: raised {type(error).__name__}: {error}") from error
    return _checked(built, inputs, here)


def _imported(network: str, here: str) -> Callable[[ModelInputs], Any]:
    module_name, _, function_name = network.partition(":")
    try:
        module = importlib.import_module(module_name)
    except _FAILURES as error:
        raise ConfigError(f"{here}: cannot import {module_name}: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"{here}: {module_name} has no function {function_name}")
    found: Callable[[ModelInputs], Any] = function
    return found


def _checked(built: Any, inputs: ModelInputs, here: str) -> Any:
    """`built` with its inputs in our order, whatever order or choice of them it was made with."""
    if not isinstance(built, keras.Model):
        raise ConfigError(f"{here}: returned {type(built).__name__}, expected a keras.Model")
    try:
        outputs = built.outputs
        network = keras.Model(inputs.all(), outputs, name="network")
    except _FAILURES as error:
        message = f"{here}: the model is not connected to the given vectors and dense inputs: {error}"
        raise ConfigError(message) from error
    shapes = [tuple(output.shape) for output in outputs]
    if len(outputs) != 1 or shapes[0] not in ((None,), (None, inputs.config.ensemble.members)):
        raise ConfigError(f"{here}: outputs of shape {shapes}, expected one logit of shape (None, 1) or (None,)")
    if outputs[0].dtype != "float32" or any(weight.dtype != "float32" for weight in network.trainable_variables):
        raise ConfigError(f"{here}: weights or logit are not float32")
    return network

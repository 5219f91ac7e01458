"""Keeping the ability to learn: what of a network still can, and the renewals that bring it back.

A network that is fine-tuned for long loses units that never fire again, and features that were different become alike
(Lyle et al., ICML 2023; Dohare et al., Nature 2024). `Condition` tells how far that has come. A renewal shrinks and
perturbs the weights (Ash, Adams, NeurIPS 2020), re-initialises dormant units (ReDo: Sokar et al., ICML 2023), or both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from stream_learner.learning.model import ConversionModel
from stream_learner.learning.shapes import filled, rows_given
from stream_learner.learning.training import Trainer
from stream_learner.settings import Config

PLASTICITY_STAGE = 34  # stage constant of the seeds, so that no two stages share a random stream
LOOKED_AT = 1024  # rows that activations are taken over
DORMANT = 0.025  # share of the layer's mean activation at or below which a unit counts as dormant, unless configured

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Condition:
    """How able to learn the candidate's network is; NaN where it has no hidden layers of the project's."""

    dormant: float  # share of hidden units that are dormant
    effective_rank: float  # of the last hidden layer's features, as a share of its width, mean over members
    weight_norm: float  # root of the sum of the squares of all weights


class Plasticity:
    """Looks at the candidate's network, and renews it when so many rows were learned."""

    def __init__(self, model: ConversionModel, trainer: Trainer, config: Config) -> None:
        self._model = model
        self._trainer = trainer
        self._settings = config.learning.plasticity
        self._seed = config.seed
        network = model.network
        self._layers = [layer for layer in network.layers if layer.name.startswith("hidden_")]
        outputs = [layer.output for layer in self._layers]
        self._probe: Any = keras.Model(network.inputs, outputs) if outputs else None

    def due(self, before: int, after: int) -> bool:
        """Whether a renewal falls between two numbers of rows learned."""
        every = self._settings.every
        return every is not None and before // every != after // every

    def renew(self, inputs: tuple[NDArray[np.int64], F32, NDArray[np.int64]], slide: int) -> None:
        """`inputs`: ids, numbers and times of examples just learned, as of `ConversionModel.score`."""
        seed = int(np.random.default_rng([self._seed, PLASTICITY_STAGE, slide]).integers(2**32))
        fresh = self._model.new_network(seed)
        if self._settings.dormant is not None and self._layers:
            self._wake(self._dormant(self._activations(inputs), self._settings.dormant), fresh)
        shrink, perturb = self._settings.shrink, self._settings.perturb
        if shrink < 1 or perturb:
            for old, new in zip(self._model.network.trainable_variables, fresh.trainable_variables, strict=True):
                old.value.assign(shrink * old.numpy() + perturb * new.numpy())

    def condition(self, inputs: tuple[NDArray[np.int64], F32, NDArray[np.int64]]) -> Condition:
        """`inputs` as of `renew`."""
        weights = [weight.numpy() for weight in self._model.network.trainable_variables]
        norm = float(np.sqrt(sum(np.square(w, dtype=np.float64).sum() for w in weights)))
        if not self._layers:
            return Condition(float("nan"), float("nan"), norm)
        activations = self._activations(inputs)
        threshold = DORMANT if self._settings.dormant is None else self._settings.dormant
        dormant = np.concatenate([found.ravel() for found in self._dormant(activations, threshold)])
        last = activations[-1]
        ranks = [effective_rank(last[:, member]) for member in range(last.shape[1])]
        return Condition(float(dormant.mean()), float(np.mean(ranks)) / last.shape[2], norm)

    def _activations(self, inputs: tuple[NDArray[np.int64], F32, NDArray[np.int64]]) -> list[F32]:
        """Per hidden layer [rows, members, units]."""
        columns = [column[:LOOKED_AT] for column in inputs]
        rows = len(columns[0])
        ids, scaled, time = (filled(column, rows_given(rows)) for column in columns)
        dense = self._model.encoder.dense_of(scaled, time)
        found = self._probe(self._model.network_inputs(ids, dense), training=False)
        return [layer[:rows].numpy() for layer in (found if isinstance(found, list) else [found])]

    def _dormant(self, activations: list[F32], threshold: float) -> list[NDArray[np.bool_]]:
        """Per hidden layer [members, units]: mean activation at most `threshold` of the mean of the layer."""
        means = [np.abs(layer).mean(axis=0) for layer in activations]
        return [mean <= threshold * mean.mean(axis=1, keepdims=True) for mean in means]

    def _wake(self, dormant: list[NDArray[np.bool_]], fresh: Any) -> None:
        """Dormant units get new incoming weights, and outgoing ones of 0, so that what the network says stays."""
        network = self._model.network
        following = [*self._layers[1:], network.get_layer("logit")]
        for layer, behind, units in zip(self._layers, following, dormant, strict=True):
            if not units.any():
                continue
            new = fresh.get_layer(layer.name)
            incoming = np.broadcast_to(units[:, None, :], layer.kernel.shape)
            self._trainer.renew_weights(layer.kernel.value, incoming, new.kernel.numpy())
            self._trainer.renew_weights(layer.bias.value, units, new.bias.numpy())
            outgoing = np.zeros(behind.kernel.shape, bool)
            outgoing[:, -units.shape[1] :] = units[:, :, None]  # where other inputs come first, as in dcn_v2
            self._trainer.renew_weights(behind.kernel.value, outgoing, np.zeros(behind.kernel.shape, np.float32))


def effective_rank(features: F32) -> float:
    """exp of the entropy of the singular values of [n, d], taken as shares (Roy, Vetterli: EUSIPCO 2007); 0 for 0."""
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    if not values.sum() > 0:
        return 0.0
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))

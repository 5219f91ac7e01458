"""The two auxiliary heads of es_dfm: how likely a delayed positive is, and that a negative told early is one.

They look at what the candidate looks at (its encoder and tables, which they do not move) and learn from matured
examples alone, so nothing provisional reaches them. They are part of the worker's state and of no version.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.learning.delayed import delay_targets, log_losses
from stream_learner.learning.encoder import Tensor
from stream_learner.learning.model import ConversionModel, by_member, input_signature
from stream_learner.learning.models import build_network
from stream_learner.learning.optimizers import Adam, make_slots, step_dense
from stream_learner.learning.shapes import filled, rows_given
from stream_learner.settings import Config, Ensemble

HEADS = ("dp", "tn")
_RATE = 0.001  # whatever the candidate learns by
_FIRST_SEEDS = 1_000_003  # added to the config's seed, so that no head begins as the candidate does


class DelayHeads:
    """`variables`: name -> tf.Variable: `head/<name>/...`, `head/offsets` and `head/count`."""

    def __init__(self, config: Config, model: ConversionModel) -> None:
        learning = msgspec.structs.replace(config.learning, network="mlp", ensemble=Ensemble(), dropout=0.0)
        dims = {column.name: column.dim for column in model.features.ids}
        owners = model.features.dense_owners()
        self._model = model
        self._networks = [
            build_network(learning, dims, owners, config.seed + (number + 1) * _FIRST_SEEDS)
            for number in range(len(HEADS))
        ]
        self._offsets = tf.Variable(np.zeros(len(HEADS), np.float32), trainable=False)
        self._count = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._rule = Adam(_RATE)
        self._weights = [weight.value for network in self._networks for weight in network.trainable_variables]
        self._slots = [make_slots(self._rule, weight) for weight in self._weights]
        self._rows = config.learning.batch_size
        self.variables = self._named()
        label = tf.TensorSpec([None], tf.float32)
        signature = [*input_signature(model.features), label, label, tf.TensorSpec([], tf.int32)]
        self._step = tf.function(self._traced_step, input_signature=signature, autograph=False)

    def probabilities(self, vectors: list[Tensor], dense: Tensor) -> tuple[Tensor, Tensor]:
        """p_dp and p_tn of rows, [B] each, in the graph. `vectors`: [B, dim] of every id; `dense`: [B, d]."""
        logits = self._logits([weight.read_value() for weight in self._weights], vectors, dense)
        return tf.sigmoid(logits[0]), tf.sigmoid(logits[1])

    def learn(
        self,
        ids: NDArray[np.int64],
        scaled: NDArray[np.float32],
        time: NDArray[np.int64],
        labels: NDArray[np.float32],
        in_time: NDArray[np.bool_],
    ) -> None:
        """From a slide's matured examples, in order. `in_time`: whether they were positive when first told."""
        if not len(labels):
            return
        told = in_time.astype(np.float32)
        if not int(self._count.numpy()):
            self._begin(labels, told)
        for start in range(0, len(labels), self._rows):
            part = slice(start, min(start + self._rows, len(labels)))
            rows = part.stop - start
            columns = (filled(column[part], rows_given(rows)) for column in (ids, scaled, time, labels, told))
            self._step(*columns, rows)

    def _begin(self, labels: NDArray[np.float32], told: NDArray[np.float32]) -> None:
        """Both start at the rates of the first examples."""
        delayed = float((labels * (1 - told)).sum())
        negative, open_ = float((1 - labels).sum()), float((1 - told).sum())
        offsets = [_log_odds(delayed, len(labels)), _log_odds(min(negative, open_), open_)]
        self._offsets.assign(np.array(offsets, np.float32))

    def _logits(self, weights: list[Tensor], vectors: list[Tensor], dense: Tensor) -> list[Tensor]:
        out, first = [], 0
        for number, network in enumerate(self._networks):
            own = weights[first : first + len(network.trainable_variables)]
            first += len(own)
            logits, _ = network.stateless_call(own, [], [*vectors, dense], training=False)
            out.append(by_member(logits, tf.shape(dense)[0])[:, 0] + self._offsets[number])
        return out

    def _traced_step(
        self, ids: Tensor, scaled: Tensor, time: Tensor, labels: Tensor, in_time: Tensor, count: Tensor
    ) -> Tensor:
        rows = self._model.encoder.rows(ids)
        vectors = [tf.gather(table, rows[name]) for name, table in self._model.tables.items()]
        dense = self._model.encoder.dense_of(scaled, time)
        weights = [weight.read_value() for weight in self._weights]
        delayed, negative, among = delay_targets(labels, in_time)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            dp, tn = self._logits(weights, vectors, dense)
            losses = log_losses(dp, delayed, 1 - delayed) + among * log_losses(tn, negative, 1 - negative)
            loss = tf.reduce_mean(losses[:count])
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        sound = tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(g)) for g in gradients]))
        tf.cond(sound, lambda: self._move(gradients), lambda: tf.constant(False))
        return sound

    def _move(self, gradients: list[Tensor]) -> Tensor:
        count = self._count.assign_add(1)
        for weight, slots, gradient in zip(self._weights, self._slots, gradients, strict=True):
            step_dense(self._rule, weight, slots, gradient, count)
        return tf.constant(True)

    def _named(self) -> dict[str, Any]:
        names = [
            f"head/{head}/{number:03d}_{weight.name}"
            for head, network in zip(HEADS, self._networks, strict=True)
            for number, weight in enumerate(network.trainable_variables)
        ]
        named: dict[str, Any] = {"head/offsets": self._offsets, "head/count": self._count}
        for name, weight, slots in zip(names, self._weights, self._slots, strict=True):
            named |= {name: weight} | {f"{name}/{kind}": slot for kind, slot in slots.items()}
        return named


def _log_odds(of: float, among: float) -> float:
    return math.log((of + 0.5) / (among - of + 0.5))

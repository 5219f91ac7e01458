"""One optimisation step, in one graph: look up, score, differentiate, check, move."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.learning.encoder import Tensor
from stream_learner.learning.model import ConversionModel, by_member, combined, input_signature
from stream_learner.learning.moved import MovedRows
from stream_learner.learning.optimizers import forget, make_slots, optimizer, step_dense, step_rows
from stream_learner.settings import Learning


class Trainer:
    """The optimizers of a model and their slots.

    `variables`: name -> tf.Variable: `slot/<weight>/<slot>` and `optimizer/count`, the number of steps taken.
    `moved`: table -> the rows that steps have moved.
    """

    def __init__(self, model: ConversionModel, learning: Learning) -> None:
        self._model = model
        self._l2 = learning.l2 if learning.optimizer in ("adagrad", "adam") else 0.0  # the others take it themselves
        self._weights = [weight.value for weight in model.network.trainable_variables]
        # Biases and scales do not decay: they would only be pulled off the base rate.
        self._decays = [_decays(weight) for weight in model.network.trainable_variables]
        rate = learning.learning_rate
        self._dense_rules = [optimizer(learning, rate, decays=decays) for decays in self._decays]
        self._table_rule = optimizer(learning, learning.table_learning_rate or rate)
        self._state = [weight.value for weight in model.network.non_trainable_variables]
        self._dense_slots = [make_slots(*pair) for pair in zip(self._dense_rules, self._weights, strict=True)]
        self._table_slots = {name: make_slots(self._table_rule, table) for name, table in model.tables.items()}
        self._count = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.variables: dict[str, Any] = self._named()
        self.moved = {name: MovedRows() for name in model.tables}
        self.traces: Counter[str] = Counter()
        labels = tf.TensorSpec([None], tf.float32, "labels")
        self.signature = [*input_signature(model.features), labels]
        self._step = tf.function(self._traced_step, input_signature=self.signature, autograph=False)

    def trace(self) -> None:
        """Builds the graph of `step` now instead of at its first call."""
        self._step.get_concrete_function()

    def step(
        self,
        ids: NDArray[np.int64],
        scaled: NDArray[np.float32],
        time: NDArray[np.int64],
        labels: NDArray[np.float32],
    ) -> tuple[float, bool]:
        """Mean log loss of the rows before the step, and whether it was taken.

        Inputs as of `ConversionModel.score`, `labels` 0 or 1. When the loss or any gradient is not finite nothing at
        all is changed.
        """
        loss, taken, rows = self._step(ids, scaled, time, labels)
        if taken:
            for name, moved in self.moved.items():
                moved.step(rows[name].numpy())
        return float(loss.numpy()), bool(taken)

    def forget(self) -> None:
        """Every slot without memory of any step, the weights as they are."""
        self._count.assign(0)
        for rule, weight, slots in zip(self._dense_rules, self._weights, self._dense_slots, strict=True):
            forget(rule, weight, slots)
        for name, slots in self._table_slots.items():
            forget(self._table_rule, self._model.tables[name], slots)

    def touched(self) -> dict[str, float]:
        """Per table the share of rows that were in any step."""
        return {name: len(moved.ever) / self._model.tables[name].shape[0] for name, moved in self.moved.items()}

    def slots_of(self, table: str) -> dict[str, Any]:
        """Those of `variables` whose rows move with the rows of a table."""
        return {f"slot/table/{table}/{kind}": slot for kind, slot in self._table_slots[table].items()}

    def _traced_step(
        self, ids: Tensor, scaled: Tensor, time: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.traces["step"] += 1  # Python runs only while TensorFlow traces
        found = {name: tf.unique(rows) for name, rows in self._model.encoder.rows(ids).items()}
        vectors = {
            name: tf.gather(tf.gather(self._model.tables[name], unique.y), unique.idx) for name, unique in found.items()
        }
        weights = [weight.read_value() for weight in self._weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*vectors.values(), *weights])
            log_loss, objective, state = self._loss(
                vectors, self._model.encoder.dense_of(scaled, time), weights, labels
            )
        by_vector, by_weight = tape.gradient(objective, (vectors, weights), unconnected_gradients="zero")
        by_row = {
            name: tf.math.unsorted_segment_sum(by_vector[name], unique.idx, tf.size(unique.y))
            for name, unique in found.items()
        }
        rows = {name: unique.y for name, unique in found.items()}
        finite = [tf.reduce_all(tf.math.is_finite(t)) for t in (objective, *by_row.values(), *by_weight)]
        sound = tf.reduce_all(tf.stack(finite))
        tf.cond(sound, lambda: self._move(rows, by_row, weights, by_weight, state), lambda: tf.constant(False))
        return log_loss, sound, rows

    def _loss(
        self, vectors: dict[str, Tensor], dense: Tensor, weights: list[Tensor], labels: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Mean log loss; what is minimised: that of every member, and losses the network adds of its own; and the
        network's state afterwards."""
        state = [value.read_value() for value in self._state]
        logits, state, extra = self._model.network.stateless_call(
            weights, state, [*vectors.values(), dense], training=True, return_losses=True
        )
        logits = by_member(logits, tf.shape(labels)[0]) + self._model.offset
        log_loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, combined(logits)))
        wanted = tf.broadcast_to(labels[:, None], tf.shape(logits))
        each = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits), axis=0)
        return log_loss, tf.add_n([tf.reduce_sum(each), *extra]), state

    def _move(
        self,
        rows: dict[str, Tensor],
        by_row: dict[str, Tensor],
        weights: list[Tensor],
        by_weight: list[Tensor],
        state: list[Tensor],
    ) -> Tensor:
        count = self._count.assign_add(1)
        for name, table in self._model.tables.items():
            step_rows(self._table_rule, table, self._table_slots[name], rows[name], by_row[name], count)
        for rule, variable, slots, value, gradient, decays in zip(
            self._dense_rules, self._weights, self._dense_slots, weights, by_weight, self._decays, strict=True
        ):
            step_dense(rule, variable, slots, gradient + self._l2 * value if decays else gradient, count)
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)
        return tf.constant(True)

    def _named(self) -> dict[str, Any]:
        names = {id(variable): name for name, variable in self._model.variables.items()}
        slots = list(zip(self._weights, self._dense_slots, strict=True))
        slots += [(self._model.tables[name], slot) for name, slot in self._table_slots.items()]
        named = {f"slot/{names[id(weight)]}/{name}": slot for weight, held in slots for name, slot in held.items()}
        return {**named, "optimizer/count": self._count}


def _decays(weight: Any) -> bool:
    return len(weight.shape) > 1 and weight.name != "bias"

"""One optimisation step, in one graph: look up, score, differentiate, check, move."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.learning.delay_heads import DelayHeads
from stream_learner.learning.delayed import counts, log_losses
from stream_learner.learning.encoder import Tensor
from stream_learner.learning.model import ConversionModel, by_member, combined, input_signature
from stream_learner.learning.moved import MovedRows
from stream_learner.learning.optimizers import (
    forget,
    forget_rows,
    make_slots,
    optimizer,
    step_dense,
    step_rows,
    table_optimizer,
)
from stream_learner.learning.shapes import filled, rows_given
from stream_learner.settings import LabelMode, Learning


@dataclass(frozen=True, slots=True)
class Step:
    """What a step found before it moved anything."""

    loss: float  # mean log loss of the rows by what they count, without their weights
    sound: bool  # whether the step was taken
    logits: NDArray[np.float32]  # [rows, members]


class Trainer:
    """The optimizers of a model and their slots.

    `variables`: name -> tf.Variable: `slot/<weight>/<slot>` and `optimizer/count`, the number of steps taken; with
    `learning.averaging` also `raw/<weight>`, what is stepped, for the model's own weights are then the averages; with
    `learning.warm_restart` also `optimizer/boost`, what steps are multiplied by.
    `moved`: table -> the rows that steps have moved.
    """

    def __init__(
        self,
        model: ConversionModel,
        learning: Learning,
        mode: LabelMode = "wait",
        heads: DelayHeads | None = None,
        *,
        alpha: float = 0.0,
    ) -> None:
        """`mode`: how early rows are weighted; `heads`: what es_dfm weights them by; `alpha`: weight of the squared
        distance from the logits that rows are held to, 0 = there are none."""
        self._model = model
        self._mode, self._heads = mode, heads
        self._alpha = alpha
        self._l2 = learning.l2 if learning.optimizer in ("adagrad", "adam") else 0.0  # the others take it themselves
        self._averages = [weight.value for weight in model.network.trainable_variables]
        self._averaging = learning.averaging
        raw = [tf.Variable(weight.numpy(), trainable=False) for weight in self._averages] if learning.averaging else []
        self._weights = raw or self._averages
        self._boost = tf.Variable(1.0, trainable=False) if learning.warm_restart.boost > 1 else None
        # Biases and scales do not decay: they would only be pulled off the base rate.
        self._decays = [_decays(weight) for weight in model.network.trainable_variables]
        rate = learning.learning_rate
        self._dense_rules = [optimizer(learning, rate, decays=decays) for decays in self._decays]
        self._table_rule = table_optimizer(learning)
        self._state = [weight.value for weight in model.network.non_trainable_variables]
        self._dense_slots = [make_slots(*pair) for pair in zip(self._dense_rules, self._weights, strict=True)]
        self._table_slots = {name: make_slots(self._table_rule, table) for name, table in model.tables.items()}
        self._count = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.variables: dict[str, Any] = self._named()
        self.moved = {name: MovedRows() for name in model.tables}
        self.traces: Counter[str] = Counter()
        wanted = [
            tf.TensorSpec([None, 3], tf.float32, "targets"),
            tf.TensorSpec([None], tf.float32, "weights"),
            tf.TensorSpec([None, learning.ensemble.members], tf.float32, "held"),
            tf.TensorSpec([], tf.int32, "rows"),
        ]
        self.signature = [*input_signature(model.features), *wanted]
        self._step = tf.function(self._traced_step, input_signature=self.signature, autograph=False)

    def trace(self) -> None:
        """Builds the graph of `step` now instead of at its first call."""
        self._step.get_concrete_function()

    def step(
        self,
        ids: NDArray[np.int64],
        scaled: NDArray[np.float32],
        time: NDArray[np.int64],
        targets: NDArray[np.float32],
        weights: NDArray[np.float32],
        held: NDArray[np.float32],
    ) -> Step:
        """Inputs as of `ConversionModel.score`, `targets` [B, 3] as of `delayed.py`, `weights` [B] of the rows' log
        loss, `held` [B, members] the logits to hold to, NaN = none (with `alpha` 0 not looked at, and may be of no
        rows). When the loss or any gradient is not finite nothing at all is changed.
        """
        columns = (filled(column, rows_given(len(time))) for column in (ids, scaled, time, targets, weights))
        held = filled(held, rows_given(len(time))) if len(held) else held
        loss, sound, rows, logits = self._step(*columns, held, len(time))
        if sound:
            for name, moved in self.moved.items():
                moved.step(rows[name].numpy())
        return Step(float(loss.numpy()), bool(sound), logits[: len(time)].numpy())

    def boost(self, times: float) -> None:
        """What the coming steps are multiplied by, where that is configured."""
        if self._boost is not None:
            self._boost.assign(times)

    def forget(self) -> None:
        """Every slot without memory of any step, the weights as they are."""
        self._count.assign(0)
        if self._averaging:
            for weight, average in zip(self._weights, self._averages, strict=True):
                weight.assign(average)
        for rule, weight, slots in zip(self._dense_rules, self._weights, self._dense_slots, strict=True):
            forget(rule, weight, slots)
        for name, slots in self._table_slots.items():
            forget(self._table_rule, self._model.tables[name], slots)

    def renew_weights(self, weight: Any, where: NDArray[np.bool_], values: NDArray[np.float32]) -> None:
        """Entries of one of the network's weights begin again with these values, and slots without memory. `where` and
        `values` of the weight's shape."""
        index = next(i for i, held in enumerate(self._weights) if held is weight)
        weight.assign(np.where(where, values, weight.numpy()))
        rule = self._dense_rules[index]
        for name, slot in self._dense_slots[index].items():
            slot.assign(np.where(where, np.float32(rule.slots[name]), slot.numpy()))

    def renew(self, table: str, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Rows of a table, ascending, begin again with these vectors, [rows, dim], and slots without memory."""
        variable, slots = self._model.tables[table], self._table_slots[table]
        variable.scatter_update(tf.IndexedSlices(vectors, rows))
        forget_rows(self._table_rule, slots, rows, vectors)
        self.moved[table].step(rows)

    def touched(self) -> dict[str, float]:
        """Per table the share of rows that were in any step."""
        return {name: len(moved.ever) / self._model.tables[name].shape[0] for name, moved in self.moved.items()}

    def slots_of(self, table: str) -> dict[str, Any]:
        """Those of `variables` whose rows move with the rows of a table."""
        return {f"slot/table/{table}/{kind}": slot for kind, slot in self._table_slots[table].items()}

    def _traced_step(
        self, ids: Tensor, scaled: Tensor, time: Tensor, targets: Tensor, weights: Tensor, held: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        self.traces["step"] += 1  # Python runs only while TensorFlow traces
        found = {name: tf.unique(rows) for name, rows in self._model.encoder.rows(ids).items()}
        vectors = {
            name: tf.gather(tf.gather(self._model.tables[name], unique.y), unique.idx) for name, unique in found.items()
        }
        values = [weight.read_value() for weight in self._weights]
        dense = self._model.encoder.dense_of(scaled, time)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*vectors.values(), *values])
            log_loss, logits, objective, state = self._loss(vectors, dense, values, (targets, weights, held), count)
        by_vector, by_weight = tape.gradient(objective, (vectors, values), unconnected_gradients="zero")
        by_row = {
            name: tf.math.unsorted_segment_sum(by_vector[name], unique.idx, tf.size(unique.y))
            for name, unique in found.items()
        }
        rows = {name: unique.y for name, unique in found.items()}
        finite = [tf.reduce_all(tf.math.is_finite(t)) for t in (objective, *by_row.values(), *by_weight)]
        sound = tf.reduce_all(tf.stack(finite))
        tf.cond(sound, lambda: self._move(rows, by_row, values, by_weight, state), lambda: tf.constant(False))
        return log_loss, sound, rows, logits

    def _loss(
        self,
        vectors: dict[str, Tensor],
        dense: Tensor,
        weights: list[Tensor],
        wanted: tuple[Tensor, Tensor, Tensor],
        count: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Mean log loss; logits by member; what is minimised: the weighted log loss of every member, its distance from
        the logits it is held to, and losses the network adds of its own; and the network's state afterwards. Means are
        of the first `count` rows; those behind them fill up."""
        targets, importance, held = wanted
        state = [value.read_value() for value in self._state]
        logits, state, extra = self._model.network.stateless_call(
            weights, state, [*vectors.values(), dense], training=True, return_losses=True
        )
        logits = by_member(logits, tf.shape(targets)[0])
        positive, negative = self._counts(targets, self._model.served(logits), list(vectors.values()), dense)
        logits = logits + self._model.offset
        log_loss = tf.reduce_mean(log_losses(combined(logits), positive, negative)[:count])
        losses = importance[:, None] * log_losses(logits, positive[:, None], negative[:, None])
        if self._alpha:
            losses += self._alpha * tf.square(logits - tf.where(tf.math.is_nan(held), tf.stop_gradient(logits), held))
        each = tf.reduce_mean(losses[:count], axis=0)
        return log_loss, logits, tf.add_n([tf.reduce_sum(each), *extra]), state

    def _counts(self, targets: Tensor, scores: Tensor, vectors: list[Tensor], dense: Tensor) -> tuple[Tensor, Tensor]:
        """What every row counts as positive and as negative, [B] each, by its targets [B, 3] and score [B]."""
        p = tf.sigmoid(scores)
        p_dp, p_tn = (p, p) if self._heads is None else self._heads.probabilities(vectors, dense)
        positive, negative = counts(self._mode, targets, p, p_dp, p_tn)
        return tf.stop_gradient(positive), tf.stop_gradient(negative)

    def _move(
        self,
        rows: dict[str, Tensor],
        by_row: dict[str, Tensor],
        weights: list[Tensor],
        by_weight: list[Tensor],
        state: list[Tensor],
    ) -> Tensor:
        count = self._count.assign_add(1)
        boost = None if self._boost is None else self._boost.read_value()
        for name, table in self._model.tables.items():
            step_rows(self._table_rule, table, self._table_slots[name], rows[name], by_row[name], count, boost)
        for rule, variable, slots, value, gradient, decays in zip(
            self._dense_rules, self._weights, self._dense_slots, weights, by_weight, self._decays, strict=True
        ):
            step_dense(rule, variable, slots, gradient + self._l2 * value if decays else gradient, count, boost)
        if self._averaging:
            self._average(count)
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)
        return tf.constant(True)

    def _average(self, count: Tensor) -> None:
        """Takes the stepped weights into their averages, the first ones faster (Polyak, Juditsky: SIAM 1992)."""
        steps = tf.cast(count, tf.float32)
        kept = tf.minimum(self._averaging, (1 + steps) / (10 + steps))
        for average, weight in zip(self._averages, self._weights, strict=True):
            average.assign(average + (1 - kept) * (weight - average))

    def _named(self) -> dict[str, Any]:
        names = {id(variable): name for name, variable in self._model.variables.items()}
        slots = list(zip(self._averages, self._dense_slots, strict=True))
        slots += [(self._model.tables[name], slot) for name, slot in self._table_slots.items()]
        named = {f"slot/{names[id(weight)]}/{name}": slot for weight, held in slots for name, slot in held.items()}
        if self._averaging:
            pairs = zip(self._averages, self._weights, strict=True)
            named |= {f"raw/{names[id(average)]}": weight for average, weight in pairs}
        if self._boost is not None:
            named["optimizer/boost"] = self._boost
        return {**named, "optimizer/count": self._count}


def _decays(weight: Any) -> bool:
    return len(weight.shape) > 1 and weight.name != "bias"

"""One step of the network: sampled softmax with the log-Q correction, and distillation, row-sparse in the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.learning.encoder import Tensor
from stream_learner.learning.optimizers import Adam, make_slots, step_dense, step_rows
from stream_learner.learning.shapes import rows_given
from stream_learner.next_item.network import ItemNetwork, unit
from stream_learner.next_item.sessions import F32, I64, U64

I32 = NDArray[np.int32]

OWN_STAGE = 45  # stage constant of the seeds, so that no two stages share a random stream
_UNIFORM = 0.1  # so that an item nobody asks for any more is still held against others
_MASKED = np.float32(-1e9)


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sessions as the network learns them: [k, recent] each, latest last; 0 = nothing there, or nothing to learn."""

    items: I32  # table rows
    targets: I32  # table rows of what came next
    weights: F32  # of each target
    users: U64  # [k] fingerprints, MISSING_ID = nobody that is known

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: I64) -> Sequences:
        return Sequences(self.items[rows], self.targets[rows], self.weights[rows], self.users[rows])

    def joined(self, other: Sequences) -> Sequences:
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("items", "targets", "weights", "users"))
        return Sequences(*(np.concatenate(pair) for pair in pairs))

    def filled(self, rows: int) -> Sequences:
        """The first one repeated in front, up to so many, with nothing to learn in the copies."""
        copies = self.take(np.zeros(rows - len(self), np.int64))
        nothing = np.zeros_like(copies.targets), np.zeros_like(copies.weights)
        return Sequences(copies.items, *nothing, copies.users).joined(self)


@dataclass(frozen=True, slots=True)
class Negatives:
    """What targets are held against: drawn table rows [n], and log-Q by table row, 0 where nothing is corrected."""

    rows: I32
    log_q: F32  # [items + 1]


@dataclass(frozen=True, slots=True)
class Reminder:
    """What an earlier network said about the last of the sequences in a batch: its top rows and logits, [k, top]."""

    rows: I32
    logits: F32
    weight: float


def drawn_negatives(popularity: F32, count: int, power: float, random: np.random.Generator) -> Negatives:
    """`count` draws by popularity to a power, a tenth of them uniformly, each row once. Q is the chance to be among
    them, so that with many draws this becomes the full softmax. `popularity`: [items + 1], negative = no item."""
    there = popularity >= 0
    share = np.where(there, np.power(np.maximum(popularity, 1e-30), power, dtype=np.float64), 0.0)
    share = (1 - _UNIFORM) * share / share.sum() + _UNIFORM * there / np.count_nonzero(there)
    rows = np.minimum(np.searchsorted(np.cumsum(share), random.random(count), side="right"), len(share) - 1)
    drawn = -np.expm1(count * np.log1p(-np.minimum(share, 1.0 - 1e-12)))
    return Negatives(np.unique(rows).astype(np.int32), np.log(np.maximum(drawn, 1e-30)).astype(np.float32))


def with_targets(negatives: Negatives, targets: I32, popularity: F32) -> Negatives:
    """Also the other targets of the batch, which cost no vectors of their own. Q is the chance to be drawn or to be one
    of so many targets, taken as draws by `popularity` (as of `drawn_negatives`). `targets`: any shape, 0 = none."""
    rows = targets[targets > 0]
    share = np.maximum(popularity, 0.0).astype(np.float64)
    share /= max(share.sum(), 1e-300)
    neither = -np.expm1(negatives.log_q.astype(np.float64)) * np.exp(
        len(rows) * np.log1p(-np.minimum(share, 1.0 - 1e-12))
    )
    log_q = np.log(np.maximum(1.0 - neither, 1e-30)).astype(np.float32)
    return Negatives(np.union1d(negatives.rows, rows).astype(np.int32), log_q)


def all_negatives(popularity: F32) -> Negatives:
    """The full softmax: every item once."""
    return Negatives(np.flatnonzero(popularity >= 0).astype(np.int32), np.zeros(len(popularity), np.float32))


class NetworkTrainer:
    """Adam over an `ItemNetwork`. `variables`: name -> tf.Variable: slots, and the number of steps taken."""

    def __init__(self, network: ItemNetwork) -> None:
        config = network.config
        self._network = network
        self._weights = [weight.value for weight in network.encoder.trainable_variables]
        self._state = [weight.value for weight in network.encoder.non_trainable_variables]
        self._rule, self._table_rule = Adam(config.learning_rate), Adam(config.table_learning_rate)
        self._slots = [make_slots(self._rule, weight) for weight in self._weights]
        self._table_slots = make_slots(self._table_rule, network.table)
        self._features, self._users = network.features, network.users
        self._own = tf.Variable(np.ones(network.table.shape[0], np.float32), trainable=False)  # as of `learn_own`
        self._count = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.traces = 0
        names = {id(variable): name for name, variable in network.variables.items()}
        held = [(names[id(weight)], slots) for weight, slots in zip(self._weights, self._slots, strict=True)]
        held.append(("network/vectors", self._table_slots))
        if self._features is not None:
            self._feature_slots = make_slots(self._table_rule, self._features.table)
            held.append(("network/feature_vectors", self._feature_slots))
        if self._users is not None:
            self._user_slots = make_slots(self._table_rule, self._users.table)
            held.append(("network/users", self._user_slots))
        self.variables: dict[str, Any] = {
            f"slot/{name}/{slot}": variable for name, slots in held for slot, variable in slots.items()
        }
        self.variables["optimizer/count"] = self._count
        whole, flat = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
        shares = tf.TensorSpec([None, None], tf.float32)
        users = tf.TensorSpec([None], tf.int64)
        signature = [whole, whole, shares, users, flat, tf.TensorSpec([None], tf.float32), whole, shares]
        self._step = tf.function(
            self._traced, input_signature=[*signature, tf.TensorSpec([], tf.float32)], autograph=False
        )

    def step(self, batch: Sequences, negatives: Negatives, reminder: Reminder | None) -> tuple[float, bool]:
        """Mean loss per target before the step, and whether it was taken: not where anything is not finite."""
        if reminder is None:
            reminder = Reminder(np.zeros((0, 1), np.int32), np.zeros((0, 1), np.float32), 0.0)
        batch = batch.filled(rows_given(len(batch)))
        told = reminder.rows, reminder.logits, np.float32(reminder.weight)
        users = batch.users.view(np.int64)
        loss, taken = self._step(
            batch.items, batch.targets, batch.weights, users, negatives.rows, negatives.log_q, *told
        )
        return float(loss), bool(taken)

    def learn_own(self, rows: NDArray[np.bool_]) -> None:
        """Which table rows may have a vector of their own, [items + 1]; others are their features alone."""
        self._own.assign(rows.astype(np.float32))

    def forget(self, rows: I64) -> None:
        """The slots of rows given out to new items start afresh."""
        if len(rows):
            for name, slot in self._table_slots.items():
                first = np.full((len(rows), slot.shape[1]), self._table_rule.slots[name], np.float32)
                slot.scatter_update(tf.IndexedSlices(first, rows))

    def forget_all(self) -> None:
        """Every slot without memory of any step."""
        for variable in self.variables.values():
            variable.assign(tf.zeros_like(variable))

    def _traced(
        self,
        items: Tensor,
        targets: Tensor,
        weights: Tensor,
        users: Tensor,
        negatives: Tensor,
        log_q: Tensor,
        told_rows: Tensor,
        told: Tensor,
        told_weight: Tensor,
    ) -> tuple[Tensor, Tensor]:
        self.traces += 1  # Python runs only while TensorFlow traces
        parts = [items, targets, negatives, told_rows]
        unique = tf.unique(tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0))
        places = tf.split(unique.idx, [tf.size(part) for part in parts])
        items_at, targets_at, negatives_at, told_at = (
            tf.reshape(place, tf.shape(part)) for place, part in zip(places, parts, strict=True)
        )
        own = tf.gather(self._network.table, unique.y)
        told_by, feature_rows, feature_at = self._featured(unique.y)
        theirs, user_rows, user_at = self._of_users(users)
        dense = [weight.read_value() for weight in self._weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([own, told_by, theirs, *dense])
            vectors = own
            if self._features is not None:
                vectors = self._kept(unique.y) * own + tf.reduce_sum(tf.gather(told_by, feature_at), axis=1)
            hidden, state = self._hidden(dense, vectors, items, items_at)
            hidden = unit(hidden if self._users is None else hidden + tf.gather(theirs, user_at)[:, None, :])
            directions = unit(vectors)
            learned = tf.where(tf.not_equal(targets, 0))
            loss = self._softmax(
                tf.gather_nd(hidden, learned),
                tf.gather(directions, tf.gather_nd(targets_at, learned)),
                tf.gather_nd(targets, learned),
                tf.gather(directions, negatives_at),
                (negatives, log_q),
                tf.gather_nd(weights, learned),
            )
            objective = loss + told_weight * self._distillation(hidden[:, -1], directions, told_at, told)
        sources = [own, told_by, theirs, *dense]
        gradients = tape.gradient(objective, sources, unconnected_gradients="zero")
        by_own, by_feature, by_user, *by_weight = gradients
        sound = tf.reduce_all(tf.stack([tf.reduce_all(tf.math.is_finite(t)) for t in (objective, *gradients)]))
        moves = (unique.y, by_own), (feature_rows, by_feature), (user_rows, by_user)
        tf.cond(sound, lambda: self._move(*moves, by_weight, state), lambda: tf.constant(False))
        return loss, sound

    def _of_users(self, fingerprints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors [m, dim] of the users of a batch, their rows [m], and which is whose [B]."""
        if self._users is None:
            return tf.zeros([0, self._network.config.dim]), tf.zeros([0], tf.int32), tf.zeros([0], tf.int32)
        unique = tf.unique(self._users.rows(fingerprints))
        return tf.gather(self._users.table, unique.y), unique.y, unique.idx

    def _kept(self, rows: Tensor) -> Tensor:
        """1.0 for items whose own vectors are part of a step, 0.0 for others with features, drawn by the number of the
        step: [U, 1]."""
        assert self._features is not None
        seed = tf.stack([tf.constant(OWN_STAGE, tf.int64), self._count.read_value()])
        kept = tf.random.stateless_uniform([tf.size(rows)], seed) >= self._network.config.own_dropout
        alone = tf.reduce_all(tf.equal(tf.gather(self._features.by_item, rows), 0), axis=1)
        return tf.cast(tf.logical_or(kept, alone), tf.float32)[:, None]

    def _featured(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors [m, dim] of all features that these items [U] have, their rows [m], and which are whose [U, F]."""
        if self._features is None:
            return tf.zeros([0, self._network.config.dim]), tf.zeros([0], tf.int32), tf.zeros([0, 0], tf.int32)
        marks = tf.gather(self._features.by_item, rows)
        unique = tf.unique(tf.reshape(marks, [-1]))
        return tf.gather(self._features.table, unique.y), unique.y, tf.reshape(unique.idx, tf.shape(marks))

    def _hidden(
        self, dense: list[Tensor], vectors: Tensor, items: Tensor, items_at: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        state = [value.read_value() for value in self._state]
        inputs = [self._network.inputs(tf.gather(vectors, items_at)), tf.not_equal(items, 0)]
        hidden, state = self._network.encoder.stateless_call(dense, state, inputs, training=True)
        return hidden, state

    def _softmax(
        self,
        hidden: Tensor,
        right: Tensor,
        right_rows: Tensor,
        wrong: Tensor,
        drawn: tuple[Tensor, Tensor],
        weights: Tensor,
    ) -> Tensor:
        """Weighted mean of -log softmax of each target among itself and the negatives (Bengio, Senecal: 2008)."""
        scale, (rows, log_q) = self._network.config.scale, drawn
        positive = scale * tf.reduce_sum(hidden * right, axis=1) - tf.gather(log_q, right_rows)
        negative = scale * tf.matmul(hidden, wrong, transpose_b=True) - tf.gather(log_q, rows)[None, :]
        negative = tf.where(tf.equal(right_rows[:, None], rows[None, :]), _MASKED, negative)
        logits = tf.concat([positive[:, None], negative], axis=1)
        losses = tf.reduce_logsumexp(logits, axis=1) - positive
        return tf.math.divide_no_nan(tf.reduce_sum(losses * weights), tf.reduce_sum(weights))

    def _distillation(self, last: Tensor, directions: Tensor, told_at: Tensor, told: Tensor) -> Tensor:
        """Mean cross-entropy to what was said, over its top rows, for the last sequences of the batch."""
        count = tf.shape(told)[0]
        ours = tf.reduce_sum(last[tf.shape(last)[0] - count :, None, :] * tf.gather(directions, told_at), axis=2)
        logs = tf.nn.log_softmax(self._network.config.scale * ours)
        losses = -tf.reduce_sum(tf.exp(tf.nn.log_softmax(told)) * logs, axis=1)
        return tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(count, tf.float32))

    def _move(
        self,
        items: tuple[Tensor, Tensor],
        features: tuple[Tensor, Tensor],
        users: tuple[Tensor, Tensor],
        by_weight: list[Tensor],
        state: list[Tensor],
    ) -> Tensor:
        count = self._count.assign_add(1)
        rows, gradient = items
        if self._features is not None:
            gradient *= tf.gather(self._own, rows)[:, None]
        step_rows(self._table_rule, self._network.table, self._table_slots, rows, gradient, count)
        if self._features is not None:
            self._move_some(self._features.table, self._feature_slots, features, count)
        if self._users is not None:
            self._move_some(self._users.table, self._user_slots, users, count)
        for weight, slots, gradient in zip(self._weights, self._slots, by_weight, strict=True):
            step_dense(self._rule, weight, slots, gradient, count)
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)
        return tf.constant(True)

    def _move_some(self, table: Any, slots: dict[str, Any], rows: tuple[Tensor, Tensor], count: Tensor) -> None:
        """Rows of a table and their gradients; its row 0 is of nothing and stays."""
        gradient = rows[1] * tf.cast(rows[0] != 0, tf.float32)[:, None]
        step_rows(self._table_rule, table, slots, rows[0], gradient, count)

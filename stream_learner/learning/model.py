"""Encoder, tables and network as one model: raw ids, numbers and times to a logit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.changes import Buffers, Changed
from stream_learner.errors import StateError
from stream_learner.learning.delayed import served
from stream_learner.learning.encoder import Encoder, Tensor
from stream_learner.learning.features import FeatureSchema
from stream_learner.learning.models import build_network
from stream_learner.learning.shapes import filled, rows_given
from stream_learner.learning.tables import first_vectors
from stream_learner.settings import Config

_REUSED_PARTS = 4
SCORE_ROWS = 8192  # rows scored at once: large enough for full speed, small enough for memory not to grow with a slide


class ConversionModel:
    """One set of weights. Equal config and seed give equal first weights.

    `variables`: name -> tf.Variable, everything a version holds: `table/<id>`, `network/<nnn>_<name>`,
    `normaliser/...`, `exact/<id>/...`, `offset` (log-odds of the first examples learned, added to every logit: a rare
    positive is rare from the start), `shift` (where scores are calibrated, added to them). `random_state`: name ->
    tf.Variable, what the network's dropout draws from. The names depend on nothing but the config.
    """

    def __init__(self, config: Config, features: FeatureSchema) -> None:
        self.features = features
        self._label_mode = config.labels.mode
        self._thinning = math.log(config.learning.negative_share)  # log-odds that thinned negatives add
        self.encoder = Encoder(features)
        self.tables: dict[str, Any] = {
            column.name: tf.Variable(first_vectors(column, config.seed, index), name=f"table_{column.name}")
            for index, column in enumerate(features.ids)
        }
        self._learning = config.learning
        self.network = self.new_network(config.seed)
        self.offset = tf.Variable(0.0, trainable=False, name="offset")
        self.shift = tf.Variable(0.0, trainable=False, name="shift") if config.learning.calibration_rows else None
        weights = {id(weight) for weight in self.network.weights}
        named = {f"network/{i:03d}_{v.name}": v for i, v in enumerate(self.network.variables)}
        self.variables: dict[str, Any] = {
            **self.encoder.variables,
            "offset": self.offset,
            **({} if self.shift is None else {"shift": self.shift}),
            **{f"table/{name}": table for name, table in self.tables.items()},
            **{name: v.value for name, v in named.items() if id(v) in weights},
        }
        self.random_state: dict[str, Any] = {name: v.value for name, v in named.items() if id(v) not in weights}
        self.traces: Counter[str] = Counter()
        self._score = tf.function(self._traced_logits, input_signature=input_signature(features), autograph=False)

    def trace(self) -> None:
        """Builds the graph of `score` now instead of at its first call."""
        self._score.get_concrete_function()

    def new_network(self, seed: int) -> Any:
        """A network of this model's shape with first weights by the seed."""
        dims = {column.name: column.dim for column in self.features.ids}
        return build_network(self._learning, dims, self.features.dense_owners(), seed)

    def logits(self, ids: Tensor, numbers: Tensor, time: Tensor) -> Tensor:
        """The score of every row, float32 [B] log-odds, in the graph.

        `ids` int64 [B, ids used] bitcast fingerprints, `numbers` float32 [B, numbers used] raw, `time` int64 [B] us.
        """
        return self._logits(ids, self.encoder.dense(numbers, time), time)

    def served(self, by_member: Tensor) -> Tensor:
        """What a network says, [B, members], as the score of the label's probability, [B]."""
        logits = served(self._label_mode, combined(by_member + self.offset)) + self._thinning
        return logits if self.shift is None else logits + self.shift

    def network_inputs(self, ids: Tensor, dense: Tensor) -> list[Tensor]:
        """Looked-up vectors in the order of the tables, then `dense` as of the encoder."""
        rows = self.encoder.rows(ids)
        return [*(tf.gather(table, rows[name]) for name, table in self.tables.items()), dense]

    def score(
        self, ids: NDArray[np.int64], scaled: NDArray[np.float32], time: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """`logits` of numpy columns of any length, float32 [n]; `scaled` as of `FeatureSchema.transformed`."""
        scores = np.empty(len(time), np.float32)
        for start in range(0, len(time), SCORE_ROWS):
            part = slice(start, min(start + SCORE_ROWS, len(time)))
            rows = rows_given(part.stop - start)
            columns = (filled(column[part], rows) for column in (ids, scaled, time))
            scores[part] = self._score(*columns)[: part.stop - start].numpy()
        return scores

    def _logits(self, ids: Tensor, dense: Tensor, time: Tensor) -> Tensor:
        out = self.network(self.network_inputs(ids, dense), training=False)
        return self.served(by_member(out, tf.shape(time)[0]))

    def values(self) -> dict[str, NDArray[Any]]:
        """Copies of `variables`."""
        return arrays_of(self.variables)

    def assign(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Sets all of `variables`. Raises StateError when names, shapes or types are not this model's."""
        assign_all(self.variables, values)

    def _traced_logits(self, ids: Tensor, scaled: Tensor, time: Tensor) -> Tensor:
        self.traces["score"] += 1  # Python runs only while TensorFlow traces
        return self._logits(ids, self.encoder.dense_of(scaled, time), time)


def by_member(logits: Tensor, rows: Tensor) -> Tensor:
    """What a network gives, [B] or [B, members], as [B, members]."""
    return tf.reshape(logits, [rows, -1]) if logits.shape.rank == 1 else logits


def combined(logits: Tensor) -> Tensor:
    """The log-odds of the mean probability of an ensemble's members: [B, members] -> [B]."""
    if logits.shape[1] == 1:
        return tf.reshape(logits, [-1])
    yes, no = tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
    return tf.reduce_logsumexp(yes, axis=1) - tf.reduce_logsumexp(no, axis=1)


def input_signature(features: FeatureSchema) -> list[Any]:
    """Of `logits`. The number of rows is left open, so that one graph serves batches of every size."""
    return [
        tf.TensorSpec([None, len(features.ids)], tf.int64, "ids"),
        tf.TensorSpec([None, len(features.numbers)], tf.float32, "numbers"),
        tf.TensorSpec([None], tf.int64, "time"),
    ]


def arrays_of(variables: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Copies of the variables' values. Scalars too are arrays, so that a snapshot gives them back with their dtype."""
    return {name: np.array(_lent(variable)) for name, variable in variables.items()}


def rows_of(table: Any, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Copies of what the rows of a table variable hold, [len(rows), dim]."""
    return np.take(_lent(table), rows, axis=0)


def changed(table: Any, rows: NDArray[np.int64], buffers: Buffers) -> Changed:
    """What the rows hold, told as changes; in memory of `buffers`, which is not kept for most of a table, though."""
    few = _REUSED_PARTS * len(rows) < table.shape[0]
    return Changed(rows, buffers.take(_lent(table), rows) if few else rows_of(table, rows), table.shape[0])


def _lent(variable: Any) -> NDArray[Any]:
    """The variable's own memory, read-only. To be let go of at once: what is assigned meanwhile makes a copy of it all.

    A plain read of a variable whose rows are written in place is a copy of all of it, and `numpy()` copies it again.
    """
    return np.asarray(memoryview(variable.read_value_no_copy()))


def assign_all(variables: Mapping[str, Any], values: Mapping[str, NDArray[Any]]) -> None:
    """Sets every variable to the value of its name. Raises StateError, and sets none, when any does not fit."""
    if set(variables) != set(values):
        differing = ", ".join(sorted(set(variables) ^ set(values)))
        raise StateError(f"weights of another model: {differing} on one side only; use the config they were made with")
    for name, variable in variables.items():
        shape, kind = tuple(variable.shape), variable.dtype.as_numpy_dtype
        if values[name].shape != shape or values[name].dtype != kind:
            found = f"{values[name].dtype} {values[name].shape}"
            raise StateError(f"weights of another model: {name} is {found}, expected {np.dtype(kind)} {shape}")
    for name, variable in variables.items():
        variable.assign(values[name])

"""The graph of a version: from what a caller has to a list of items.

    recommend           recent [B, n] text, latest first ("" = none); user [B] text ("" = nobody that is known; without
                        `network.users` whoever it is); exclude [B, m] text; boost [B, b] text with boost_by [B, b]
                        factors; k  ->  ids [B, k] text, scores [B, k]; "" and 0 beyond the catalogue
    serving_default     recent [B, n] text  ->  the same for nobody, `judging.k` of them
    from_fingerprints   recent [B, R] and user [B] fingerprints and k, as the worker's own model takes them  ->  rows,
                        scores; for checks

The index is inside. What business rules leave out or push is decided in `ruled`, and nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stream_learner.learning.encoder import Tensor
from stream_learner.next_item.model import RankingModel
from stream_learner.publishing.serving import fingerprints

_NONE = np.float32(-np.inf)


class RankingServing:
    """The signatures over a model's variables. `variables`: those of the model, and `items/names`, text [capacity + 1],
    by table row."""

    def __init__(self, model: RankingModel) -> None:
        self._model = model
        self._names = tf.Variable(tf.fill([model.height], ""), trainable=False)
        self.variables: dict[str, Any] = {**model.variables, "items/names": self._names}

    def signatures(self) -> dict[str, Any]:
        """Name -> concrete function."""
        text, recent = tf.TensorSpec([None, None], tf.string), self._model.config.sessions.recent
        k = tf.TensorSpec([], tf.int32, "k")
        whole = {name: tf.TensorSpec(text.shape, text.dtype, name) for name in ("recent", "exclude", "boost")}
        factors = tf.TensorSpec([None, None], tf.float32, "boost_by")
        plain = {"recent": tf.TensorSpec([None, recent], tf.int64, "recent")}
        plain["user"] = tf.TensorSpec([None], tf.int64, "user")
        user = tf.TensorSpec([None], tf.string, "user")
        return {
            "recommend": _traced(self.recommend, **whole, user=user, boost_by=factors, k=k),
            "serving_default": _traced(self.best, recent=whole["recent"]),
            "from_fingerprints": _traced(self.from_fingerprints, **plain, k=k),
        }

    def recommend(
        self, recent: Tensor, user: Tensor, exclude: Tensor, boost: Tensor, boost_by: Tensor, k: Tensor
    ) -> dict[str, Tensor]:
        scores = self._model.scores(self._rows(self._latest(recent)), fingerprints(user))
        return self._told(self.ruled(scores, self._rows(exclude), self._rows(boost), boost_by), k)

    def best(self, recent: Tensor) -> dict[str, Tensor]:
        nobody = tf.zeros([tf.shape(recent)[0]], tf.int64)
        scores = self._model.scores(self._rows(self._latest(recent)), nobody)
        return self._told(scores, tf.constant(min(self._model.config.judging.k, self._model.height - 1)))

    def from_fingerprints(self, recent: Tensor, user: Tensor, k: Tensor) -> dict[str, Tensor]:
        best = tf.math.top_k(self._model.scores(self._model.rows(recent), user), k)
        return {"rows": best.indices, "scores": best.values}

    def ruled(self, scores: Tensor, exclude: Tensor, boost: Tensor, boost_by: Tensor) -> Tensor:
        """Scores [B, capacity + 1] without the excluded table rows [B, m], and those of `boost` [B, b] times their
        factors. A factor that is not a positive number leaves its item out."""
        sound = tf.logical_and(boost_by > 0.0, tf.math.is_finite(boost_by))
        pushed, factors = tf.where(sound, boost, 0), tf.where(sound, boost_by, 1.0)
        left_out = tf.concat([exclude, tf.where(sound, 0, boost)], axis=1)
        values = tf.gather(scores, pushed, batch_dims=1) * factors
        scores = tf.tensor_scatter_nd_update(scores, _cells(pushed), tf.reshape(values, [-1]))
        return tf.tensor_scatter_nd_update(scores, _cells(left_out), tf.fill([tf.size(left_out)], _NONE))

    def _latest(self, recent: Tensor) -> Tensor:
        """The first columns of `recent`, as many as the model looks at: [B, R]."""
        width = self._model.config.sessions.recent
        padded = tf.pad(
            recent[:, :width], [[0, 0], [0, tf.maximum(0, width - tf.shape(recent)[1])]], constant_values=""
        )
        return tf.ensure_shape(padded, [None, width])

    def _rows(self, texts: Tensor) -> Tensor:
        return self._model.rows(tf.reshape(fingerprints(tf.reshape(texts, [-1])), tf.shape(texts)))

    def _told(self, scores: Tensor, k: Tensor) -> dict[str, Tensor]:
        best = tf.math.top_k(scores, tf.clip_by_value(k, 0, self._model.height))
        there = tf.logical_and(tf.math.is_finite(best.values), best.indices > 0)
        ids = tf.where(there, tf.gather(self._names, best.indices), "")
        return {"ids": ids, "scores": tf.where(there, best.values, 0.0)}


def _cells(rows: Tensor) -> Tensor:
    """[B, m] table rows -> [B * m, 2] places in [B, capacity + 1]."""
    line = tf.broadcast_to(tf.range(tf.shape(rows)[0])[:, None], tf.shape(rows))
    return tf.reshape(tf.stack([line, rows], axis=2), [-1, 2])


def _traced(function: Any, **specs: Any) -> Any:
    return tf.function(function, autograph=False).get_concrete_function(**specs)

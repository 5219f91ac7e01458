"""What ranks: recent items -> a score for every item of the catalogue, in one graph for judging and for serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.learning.encoder import Tensor
from stream_learner.learning.model import arrays_of, assign_all
from stream_learner.learning.shapes import filled, rows_given
from stream_learner.learning.tables import PADDING
from stream_learner.next_item.index import SessionIndex
from stream_learner.next_item.neighbours import NeighbourIndex
from stream_learner.next_item.network import ItemNetwork
from stream_learner.next_item.sessions import F32, I64, U64, Asked

_CELLS = 1 << 24  # scores in memory at once: 64 MB
_FAR = np.float32(-1e9)  # logit of what is no item
_NONE = np.float32(-np.inf)  # score of what cannot be recommended


class RankingModel:
    """One set of weights and one index. `variables`: name -> tf.Variable, all that a version holds but the names.

    Table row 0 is no item; rows 1 to `catalogue.capacity` are items while `items/share` of them is not negative.
    """

    def __init__(self, config: settings.NextItem, seed: int) -> None:
        self.config = config
        self.height = config.catalogue.capacity + 1
        size, parts = config.catalogue.capacity, PARTS[config.model]
        self._fingerprints = tf.Variable(np.full(size, PADDING, np.int64), trainable=False)
        self._rows = tf.Variable(np.zeros(size, np.int32), trainable=False)
        self._share = tf.Variable(np.full(self.height, -1.0, np.float32), trainable=False)
        self.variables: dict[str, Any] = {
            "items/fingerprints": self._fingerprints,
            "items/rows": self._rows,
            "items/share": self._share,
        }
        self.index = NeighbourIndex(config.sessions.capacity, size) if "sessions" in parts else None
        recent = config.sessions.recent
        self.network = ItemNetwork(config.network, size, recent, seed) if "network" in parts else None
        for part in (self.index, self.network):
            self.variables |= {} if part is None else part.variables
        self.traces = 0
        ids, user = tf.TensorSpec([None, recent], tf.int64, "recent"), tf.TensorSpec([None], tf.int64, "user")
        asked = [ids, user, tf.TensorSpec([], tf.int32, "k")]
        self._top = tf.function(self._traced_top, input_signature=asked, autograph=False)

    # ---- in the graph ---------------------------------------------------------------------------------------

    def rows(self, fingerprints: Tensor) -> Tensor:
        """int64 bitcast fingerprints, any shape -> int32 table rows, 0 where there is no such item."""
        flat = tf.reshape(fingerprints, [-1])
        at = tf.minimum(tf.searchsorted(self._fingerprints, flat), self.height - 2)
        known = tf.logical_and(tf.equal(tf.gather(self._fingerprints, at), flat), tf.not_equal(flat, PADDING))
        return tf.reshape(tf.where(known, tf.gather(self._rows, at), 0), tf.shape(fingerprints))

    def scores(self, recent: Tensor, user: Tensor) -> Tensor:
        """float32 [B, capacity + 1], -inf where there is no item. `recent`: int32 [B, R] table rows, latest first;
        `user`: int64 bitcast fingerprints [B]."""
        share = self._share.read_value()
        there = share >= 0.0
        share = tf.where(there, share, 0.0)[None, :]
        config, recent = self.config, recent[:, : self.config.sessions.recent]
        weights = WEIGHTS.get(config.model) or config.blend
        scores = tf.broadcast_to(weights.popularity * share, [tf.shape(recent)[0], self.height])
        if self.index is not None:
            markov = config.model == "markov"
            found = self.index.markov(recent) if markov else self.index.stan(recent, config.neighbours)
            scores += weights.neighbours * _shares(found)
        if self.network is not None:
            logits = weights.flatness * self.network.logits(recent, user)
            scores += weights.network * tf.nn.softmax(tf.where(there[None, :], logits, _FAR))
        return tf.where(there[None, :], scores, _NONE)

    # ---- on whole columns -----------------------------------------------------------------------------------

    def top(self, asked: Asked, k: int) -> tuple[NDArray[np.int32], F32]:
        """Table rows and scores of the k best, [n, k] each, best first, of equals the lower row; -inf where there are
        fewer items."""
        rows, scores = [np.zeros((0, k), np.int32)], [np.zeros((0, k), np.float32)]
        for part in self._parts(len(asked)):
            count, some = part.stop - part.start, asked.take(part)
            ids = [filled(ids, rows_given(count)).view(np.int64) for ids in (some.recent, some.user)]
            found = self._top(*ids, k)
            rows.append(found[0][:count].numpy())
            scores.append(found[1][:count].numpy())
        return np.concatenate(rows), np.concatenate(scores)

    def _parts(self, count: int) -> list[slice]:
        size = max(1, min(1024, _CELLS // self.height))
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def _traced_top(self, recent: Tensor, user: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        self.traces += 1  # Python runs only while TensorFlow traces
        best = tf.math.top_k(self.scores(self.rows(recent), user), k)
        return best.indices, best.values

    def known(self, items: U64) -> I64:
        """Table rows of items [n], 0 where there is no such item."""
        return np.asarray(self.rows(tf.constant(items.view(np.int64))), np.int64)

    def by_row(self) -> I64:
        """The fingerprint of each table row's item, 0 where there is none, [capacity + 1]."""
        out = np.zeros(self.height, np.int64)
        rows = self._rows.numpy()
        out[rows[rows > 0]] = self._fingerprints.numpy()[rows > 0]
        return out

    # ---- what it is made of ---------------------------------------------------------------------------------

    def take_in(self, items: tuple[U64, I64], share: F32, index: SessionIndex | None) -> None:
        """The catalogue (as of `Catalogue.admitted` and `.shares`) and the session index as they are now."""
        size = self.height - 1
        keys, rows = items
        fingerprints = keys.view(np.int64)
        order = np.argsort(fingerprints, kind="stable")
        known, table = np.full(size, PADDING, np.int64), np.zeros(size, np.int32)
        known[: len(keys)], table[: len(keys)] = fingerprints[order], rows[order]
        self._fingerprints.assign(known)
        self._rows.assign(table)
        self._share.assign(share)
        if self.index is not None and index is not None:
            self.index.assign(index)
        if self.network is not None:
            self.network.settle()

    def values(self) -> dict[str, NDArray[Any]]:
        """Copies of `variables`."""
        return arrays_of(self.variables)

    def assign(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Sets all of `variables`. Raises StateError when names, shapes or types are not this model's."""
        assign_all(self.variables, values)


PARTS: dict[str, tuple[str, ...]] = {
    "popularity": (),
    "markov": ("sessions",),
    "neighbours": ("sessions",),
    "network": ("network",),
    "blend": ("sessions", "network"),
}
# What the models but `blend` are made of; a trace of popularity orders what neighbours say nothing about.
_TRACE = 1e-6
WEIGHTS: dict[str, settings.Blend] = {
    "popularity": settings.Blend(neighbours=0.0, network=0.0, popularity=1.0),
    "markov": settings.Blend(neighbours=1.0, network=0.0, popularity=_TRACE),
    "neighbours": settings.Blend(neighbours=1.0, network=0.0, popularity=_TRACE),
    "network": settings.Blend(neighbours=0.0, network=1.0, flatness=1.0, popularity=0.0),
}


def _shares(scores: Tensor) -> Tensor:
    """Rows that sum to 1, or are all 0."""
    return tf.math.divide_no_nan(scores, tf.reduce_sum(scores, axis=1, keepdims=True))

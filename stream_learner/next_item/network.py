"""Item vectors and a Keras network that reads a session into one of them.

Session and items meet on the unit sphere: a logit is `scale` times a cosine, which keeps popular items from growing
long vectors (NISER: Gupta, Garg, Malhotra, Vig, Shroff, 2019).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.learning.encoder import Tensor
from stream_learner.next_item.sessions import F32, I64

VECTOR_STAGE = 41  # stage constants of the seeds, so that no two stages share a random stream
_EPSILON = 1e-12


def build_encoder(config: settings.Network, recent: int, seed: int) -> Any:
    """A Keras model: vectors [B, recent, dim], latest last, and mask [B, recent] -> what comes next, by place, [B,
    recent, dim]. Place p sees the vectors up to p only."""
    vectors = keras.Input((recent, config.dim), name="vectors")
    mask = keras.Input((recent,), dtype="bool", name="mask")
    seeds = iter(range(seed, seed + 1000))
    hidden = Places(recent, config.dim, next(seeds), name="places")(vectors)
    hidden = _dropped(hidden, config, next(seeds))
    if config.encoder == "two_tower":
        mean = CausalMean(name="mean")(hidden, mask)
        out = _tower(keras.layers.Concatenate(name="session")([mean, hidden]), mean, config, seeds)
    else:
        out = hidden
        for block in range(config.blocks):
            out = _block(out, mask, config, block, seeds)
    return keras.Model([vectors, mask], out)


def _block(hidden: Any, mask: Any, config: settings.Network, block: int, seeds: Any) -> Any:
    """Attention, then a two-layer network, each on a normalised input and added to it."""
    width = config.dim // config.heads
    attention = keras.layers.MultiHeadAttention(
        config.heads,
        width,
        dropout=config.dropout,
        seed=next(seeds),
        kernel_initializer=keras.initializers.GlorotUniform(next(seeds)),
        name=f"attention_{block}",
    )
    normal = keras.layers.LayerNormalization(epsilon=1e-6, name=f"normal_{block}")(hidden)
    attended = attention(normal, hidden, key_mask=mask, value_mask=mask, use_causal_mask=True)
    hidden = keras.layers.Add(name=f"attended_{block}")([hidden, _dropped(attended, config, next(seeds))])
    out = keras.layers.LayerNormalization(epsilon=1e-6, name=f"normal_wide_{block}")(hidden)
    out = _dense(config.dim, "gelu", next(seeds), f"wide_{block}")(out)
    out = _dense(config.dim, None, next(seeds), f"narrow_{block}")(out)
    return keras.layers.Add(name=f"block_{block}")([hidden, _dropped(out, config, next(seeds))])


def _tower(session: Any, mean: Any, config: settings.Network, seeds: Any) -> Any:
    """Two dense layers over the mean and the latest vector, added to the mean."""
    out = _dense(2 * config.dim, "gelu", next(seeds), "tower_wide")(session)
    out = _dense(config.dim, None, next(seeds), "tower_narrow")(_dropped(out, config, next(seeds)))
    return keras.layers.Add(name="tower")([mean, out])


def _dense(width: int, activation: str | None, seed: int, name: str) -> Any:
    start = keras.initializers.GlorotUniform(seed)
    return keras.layers.Dense(width, activation=activation, kernel_initializer=start, name=name)


def _dropped(hidden: Any, config: settings.Network, seed: int) -> Any:
    return keras.layers.Dropout(config.dropout, seed=seed)(hidden) if config.dropout else hidden


class Places(keras.layers.Layer):  # type: ignore[misc]
    """Adds a learned vector for each place."""

    def __init__(self, recent: int, dim: int, seed: int, **named: Any) -> None:
        super().__init__(**named)
        start = keras.initializers.RandomNormal(stddev=0.02, seed=seed)
        self.places = self.add_weight(shape=(recent, dim), initializer=start, name="places")

    def call(self, vectors: Tensor) -> Tensor:
        return vectors + self.places


class CausalMean(keras.layers.Layer):  # type: ignore[misc]
    """The mean of the vectors up to each place, as far as the mask has them."""

    def call(self, vectors: Tensor, mask: Tensor) -> Tensor:
        there = tf.cast(mask, tf.float32)[:, :, None]
        return tf.cumsum(vectors * there, axis=1) / tf.maximum(tf.cumsum(there, axis=1), 1.0)


def first_vectors(height: int, dim: int, seed: int) -> F32:
    """Seeded normals of expected length 1, [height, dim]."""
    out = np.random.default_rng([seed, VECTOR_STAGE]).standard_normal((height, dim), dtype=np.float32)
    return (out / np.float32(np.sqrt(dim))).astype(np.float32)


def fresh_vectors(rows: I64, dim: int, seed: int, slide: int) -> F32:
    """Of rows given out anew in a slide, [k, dim]."""
    out = np.random.default_rng([seed, VECTOR_STAGE, slide]).standard_normal((len(rows), dim), dtype=np.float32)
    return (out / np.float32(np.sqrt(dim))).astype(np.float32)


def unit(vectors: Tensor) -> Tensor:
    return tf.math.l2_normalize(vectors, axis=-1, epsilon=_EPSILON)


class FeatureVectors:
    """Vectors of features, and which of them each item has. `variables`: name -> tf.Variable, part of a version."""

    def __init__(self, config: settings.Network, items: int, seed: int) -> None:
        first = first_vectors(config.feature_rows + 1, config.dim, seed + 1)
        first[0] = 0.0
        self.table = tf.Variable(first, name="feature_vectors")
        self.by_item = tf.Variable(np.zeros((items + 1, len(config.features)), np.int32), trainable=False)
        self.variables: dict[str, Any] = {
            "network/feature_vectors": self.table,
            "network/item_features": self.by_item,
        }

    def known(self, rows: I64) -> NDArray[np.bool_]:
        """Which of these table rows have any."""
        return np.asarray((tf.gather(self.by_item, rows).numpy() > 0).any(axis=1))

    def of(self, rows: Tensor) -> Tensor:
        """The sum of those of table rows, any shape [...] -> [..., dim]."""
        return tf.reduce_sum(tf.gather(self.table, tf.gather(self.by_item, rows)), axis=-2)

    def every(self) -> Tensor:
        """The sum of those of each table row, [items + 1, dim], one feature at a time."""
        parts = [tf.gather(self.table, self.by_item[:, at]) for at in range(self.by_item.shape[1])]
        return tf.add_n(parts)


class UserVectors:
    """A hashed table of users; row 0 is of nobody, and stays 0. `variables`: name -> tf.Variable, part of a version."""

    def __init__(self, config: settings.Network, seed: int) -> None:
        self._rows = config.users
        self.table = tf.Variable(np.zeros((config.users + 1, config.dim), np.float32), name="users")
        self.variables: dict[str, Any] = {"network/users": self.table}

    def rows(self, fingerprints: Tensor) -> Tensor:
        """int64 bitcast fingerprints [B] -> int32 rows, 0 for the missing id."""
        rest = tf.math.floormod(tf.bitcast(fingerprints, tf.uint64), tf.constant(self._rows, tf.uint64))
        return tf.where(tf.equal(fingerprints, 0), 0, 1 + tf.cast(rest, tf.int32))


class ItemNetwork:
    """Vectors and encoder. `variables`: name -> tf.Variable, all part of a version; `random_state` is not.

    `network/outputs` holds the unit vectors that sessions are compared with, as of the last `settle`. With features, an
    item's vector is the sum of its own and of its features'; row 0 of these is of none, and stays 0.
    """

    def __init__(self, config: settings.Network, items: int, recent: int, seed: int) -> None:
        self.config = config
        self._seed = seed
        self.table = tf.Variable(first_vectors(items + 1, config.dim, seed), name="vectors")
        self.outputs = tf.Variable(np.zeros((items + 1, config.dim), np.float32), trainable=False, name="outputs")
        self.encoder = build_encoder(config, recent, seed)
        weights = {id(weight) for weight in self.encoder.weights}
        named = {f"network/{i:03d}_{v.name}": v for i, v in enumerate(self.encoder.variables)}
        self.weights: dict[str, Any] = {name: v.value for name, v in named.items() if id(v) in weights}
        self.random_state: dict[str, Any] = {name: v.value for name, v in named.items() if id(v) not in weights}
        self.variables: dict[str, Any] = {
            "network/vectors": self.table,
            "network/outputs": self.outputs,
            **self.weights,
        }
        self.users: UserVectors | None = None
        if config.users:
            self.users = UserVectors(config, seed)
            self.variables |= self.users.variables
        self.features: FeatureVectors | None = None
        if config.features:
            self.features = FeatureVectors(config, items, seed)
            self.variables |= self.features.variables

    def settle(self) -> None:
        """What rankings compare with follows the vectors."""
        self.outputs.assign(unit(self.table if self.features is None else self.table + self.features.every()))

    def renew(self, rows: I64, slide: int) -> None:
        """Rows given out to new items start afresh; where features speak for an item, with nothing of its own."""
        if len(rows):
            vectors = fresh_vectors(rows, self.config.dim, self._seed, slide)
            if self.features is not None:
                vectors[self.features.known(rows)] = 0.0
            self.table.scatter_update(tf.IndexedSlices(vectors, rows))

    def vectors(self, rows: Tensor) -> Tensor:
        """Of table rows, any shape [...] -> [..., dim]."""
        own = tf.gather(self.table, rows)
        return own if self.features is None else own + self.features.of(rows)

    def inputs(self, vectors: Tensor) -> Tensor:
        """Vectors as the encoder takes them: of length sqrt(dim) / 2."""
        return unit(vectors) * (0.5 * self.config.dim**0.5)

    def logits(self, recent: Tensor, user: Tensor | None = None) -> Tensor:
        """float32 [B, items + 1]; `recent`: int32 [B, R] table rows, latest first, 0 = none; `user`: int64 bitcast
        fingerprints [B], which count where the network has users."""
        rows = tf.reverse(recent, axis=[1])
        hidden = self.encoder([self.inputs(self.vectors(rows)), tf.not_equal(rows, 0)], training=False)[:, -1]
        if self.users is not None and user is not None:
            hidden += tf.gather(self.users.table, self.users.rows(user))
        return self.config.scale * tf.matmul(unit(hidden), self.outputs, transpose_b=True)


def padded_sequences(items: I64, starts: I64, lengths: I64, width: int) -> NDArray[np.int32]:
    """The last `width` of each sequence, [k, width], latest last, 0 before its beginning. `items`: flat, table rows."""
    back = np.arange(width - 1, -1, -1)
    at = (starts + lengths)[:, None] - 1 - back
    inside = back[None, :] < lengths[:, None]
    return np.where(inside, items[np.where(inside, at, 0)] if len(items) else 0, 0).astype(np.int32)

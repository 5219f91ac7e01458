"""The one encoder: raw ids, numbers and times to table rows and dense inputs, inside the TensorFlow graph.

The worker's own scores, its training steps and every exported version come through the functions below, so equal
inputs give equal scores. What they look up (mean, standard deviation, exact ids) are variables of fixed shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.learning.features import FeatureSchema, IdColumn
from stream_learner.learning.tables import MISSING_ROW, UNKNOWN_ROW, no_ids

Tensor = Any  # TensorFlow has no types that a checker could read

CLIP = 8.0  # standardised inputs end here, so that one absurd value cannot drown a batch
_DAY_US = 86_400_000_000
_FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is day 0


class Encoder:
    """Holds what the encoding looks up. `variables`: name -> tf.Variable, all part of a version."""

    def __init__(self, features: FeatureSchema) -> None:
        self.features = features
        width = len(features.numbers)
        self.mean = tf.Variable(np.zeros(width, np.float32), trainable=False, name="mean")
        self.deviation = tf.Variable(np.ones(width, np.float32), trainable=False, name="deviation")
        self.variables: dict[str, Any] = {"normaliser/mean": self.mean, "normaliser/deviation": self.deviation}
        self.edges = tf.Variable(
            np.zeros((len(features.binned()), features.bins + 1), np.float32), trainable=False, name="edges"
        )
        if features.binned():
            self.variables["bins/edges"] = self.edges
        for column in features.ids:
            if column.table == "exact":
                fingerprints, rows = no_ids(column.rows)
                self.variables[f"exact/{column.name}/fingerprints"] = tf.Variable(fingerprints, trainable=False)
                self.variables[f"exact/{column.name}/rows"] = tf.Variable(rows, trainable=False)
        self._members, self._sizes = _membership(features)

    def ids_of(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Copies of an exact table's fingerprints and their rows."""
        return self.variables[f"exact/{name}/fingerprints"].numpy(), self.variables[f"exact/{name}/rows"].numpy()

    def set_ids(self, name: str, fingerprints: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        """Both [rows of the table], sorted by fingerprint and padded, as of `no_ids`."""
        self.variables[f"exact/{name}/fingerprints"].assign(fingerprints)
        self.variables[f"exact/{name}/rows"].assign(rows)

    def rows(self, ids: Tensor) -> dict[str, Tensor]:
        """int64 [B, ids used] bitcast fingerprints -> per id feature its table rows, int64 [B]."""
        found = {}
        for index, column in enumerate(self.features.ids):
            fingerprint = ids[:, index]
            row = self._exact_rows(column, fingerprint) if column.table == "exact" else _hashed(column, fingerprint)
            found[column.name] = tf.where(tf.equal(fingerprint, 0), tf.constant(MISSING_ROW, tf.int64), row)
        return found

    def dense(self, numbers: Tensor, time: Tensor) -> Tensor:
        """float32 [B, numbers used] raw, NaN = missing, and int64 [B] us -> float32 [B, len(dense_names())]."""
        return self.dense_of(self._transformed(numbers), time)

    def dense_of(self, scaled: Tensor, time: Tensor) -> Tensor:
        """The same of numbers as `features.transformed` gives them: what does not differ between versions, made once
        for all that score the same rows."""
        missing = tf.math.is_nan(scaled)
        inputs = []
        if standardised := self.features.standardised():
            values = tf.clip_by_value((scaled - self.mean) / self.deviation, -CLIP, CLIP)
            inputs.append(_columns(tf.where(missing, 0.0, values), standardised))
        if binned := self.features.binned():
            inputs.append(self._piecewise(_columns(scaled, binned), _columns(missing, binned)))
        inputs += self._indicators(missing)
        if self.features.hour_of_day:
            inputs.append(_hour_of_day(time))
        if self.features.day_of_week:
            day = tf.math.floormod(tf.math.floordiv(time, _DAY_US) + _FIRST_WEEKDAY, 7)
            inputs.append(tf.one_hot(day, 7))
        return tf.concat(inputs, axis=1) if inputs else tf.zeros([tf.shape(time)[0], 1])

    def _transformed(self, numbers: Tensor) -> Tensor:
        logged = [column.transform == "log1p" for column in self.features.numbers]
        if not logged:
            return numbers
        return tf.where(tf.constant(logged), tf.sign(numbers) * tf.math.log1p(tf.abs(numbers)), numbers)

    def _piecewise(self, values: Tensor, missing: Tensor) -> Tensor:
        """[B, c] -> [B, c * bins]: how far a value has come through each of its bins, 0 to 1 (Gorishniy, Rubachev,
        Babenko: NeurIPS 2022). A bin without width, between equal quantiles, is always 0, and so is a missing value."""
        low, width = self.edges[:, :-1], self.edges[:, 1:] - self.edges[:, :-1]
        through = tf.clip_by_value(tf.math.divide_no_nan(values[:, :, None] - low, width), 0.0, 1.0)
        through = tf.where(missing[:, :, None], 0.0, through)
        return tf.reshape(through, [-1, self.edges.shape[0] * self.features.bins])

    def _indicators(self, missing: Tensor) -> list[Tensor]:
        """1 where a whole group is missing, and where a column with an indicator of its own is."""
        if not self.features.numbers:
            return []
        absent = tf.matmul(tf.cast(missing, tf.float32), self._members)  # sums of 0 and 1 are exact
        return [tf.cast(absent >= self._sizes, tf.float32)]

    def _exact(self, column: IdColumn) -> tuple[Any, Any]:
        return self.variables[f"exact/{column.name}/fingerprints"], self.variables[f"exact/{column.name}/rows"]

    def _exact_rows(self, column: IdColumn, fingerprint: Tensor) -> Tensor:
        fingerprints, rows = self._exact(column)
        at = tf.minimum(tf.searchsorted(fingerprints, fingerprint), column.rows - 1)
        known = tf.equal(tf.gather(fingerprints, at), fingerprint)
        return tf.where(known, tf.cast(tf.gather(rows, at), tf.int64), tf.constant(UNKNOWN_ROW, tf.int64))


def _hashed(column: IdColumn, fingerprint: Tensor) -> Tensor:
    rest = tf.math.floormod(tf.bitcast(fingerprint, tf.uint64), tf.constant(column.rows, tf.uint64))
    return 1 + tf.cast(rest, tf.int64)


def _hour_of_day(time: Tensor) -> Tensor:
    angle = tf.cast(tf.math.floormod(time, _DAY_US), tf.float64) * (2.0 * np.pi / _DAY_US)
    return tf.cast(tf.stack([tf.sin(angle), tf.cos(angle)], axis=1), tf.float32)


def _columns(values: Tensor, indices: list[int]) -> Tensor:
    return values if indices == list(range(values.shape[1])) else tf.gather(values, indices, axis=1)


def _membership(features: FeatureSchema) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[numbers, indicators] of 0 and 1, what each indicator tells of, and how many numbers that are."""
    told = [*features.groups().values(), *([index] for index in features.own_indicators())]
    members = np.zeros((len(features.numbers), len(told)), np.float32)
    for indicator, indices in enumerate(told):
        members[indices, indicator] = 1
    return members, members.sum(axis=0)

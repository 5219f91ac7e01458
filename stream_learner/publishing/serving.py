"""The graph of a version: from what a caller has to a probability.

Three signatures, all [B] in and out:

- `serving_default`: ids as text (as in the events; where user ids are pseudonymised, the pseudonym), numeric features
  (float32, NaN = missing) and `time` (int64, us since the epoch);
- `with_aggregates`: the same plus every aggregate column the model uses, for callers with a feature store;
- `from_fingerprints`: `ids`, `numbers` and `time` as the worker's own encoder takes them, for checks.

Each answers `probability` and `logit`, float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from stream_learner.learning.encoder import Tensor
from stream_learner.learning.features import FeatureSchema
from stream_learner.learning.model import ConversionModel, input_signature
from stream_learner.publishing.travelling import Travelling


class Serving:
    """The signatures over a model's variables and travelling tables.

    `variables`: name -> tf.Variable, all that a version's files hold: those of the model, and
    `aggregates/<key>/keys` (int64 [capacity]), `aggregates/<key>/values` (float32 [capacity, columns]).
    """

    def __init__(self, model: ConversionModel, entries: Sequence[Travelling]) -> None:
        self._model = model
        self._features: FeatureSchema = model.features
        self._entries = entries
        self.variables: dict[str, Any] = dict(model.variables)
        for entry in entries:
            keys, values = entry.padded(np.empty(0, np.uint64), np.empty((0, len(entry.names)), np.float32))
            self.variables[f"aggregates/{entry.key}/keys"] = tf.Variable(keys, trainable=False)
            self.variables[f"aggregates/{entry.key}/values"] = tf.Variable(values, trainable=False)

    def signatures(self) -> dict[str, Any]:
        """Name -> concrete function."""
        raw = {spec.name: spec for spec in self._raw_inputs()}
        aggregates = {spec.name: spec for spec in self._aggregate_inputs()}
        plain = {spec.name: spec for spec in input_signature(self._features)}
        return {
            "serving_default": tf.function(self.from_fields, autograph=False).get_concrete_function(**raw),
            "with_aggregates": tf.function(self.from_fields, autograph=False).get_concrete_function(
                **raw, **aggregates
            ),
            "from_fingerprints": tf.function(self.from_fingerprints, autograph=False).get_concrete_function(**plain),
        }

    def ids_asked(self) -> list[str]:
        """Ids that are embedded, then those only needed to look aggregates up."""
        names = [column.name for column in self._features.ids]
        names += [part for entry in self._entries for part in entry.parts]
        return list(dict.fromkeys(names))

    def from_fields(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Raw fields by name; the aggregates may be left out."""
        ids = {name: fingerprints(inputs[name]) for name in self.ids_asked()}
        time = inputs["time"]
        rows = tf.shape(time)[0]
        used = [ids[column.name] for column in self._features.ids]
        columns = self._aggregates(ids, inputs, rows)
        columns |= {c.name: inputs[c.name] for c in self._features.numbers if not c.aggregate}
        numbers = [columns[column.name] for column in self._features.numbers]
        return self.from_fingerprints(
            ids=tf.stack(used, axis=1) if used else tf.zeros([rows, 0], tf.int64),
            numbers=tf.stack(numbers, axis=1) if numbers else tf.zeros([rows, 0]),
            time=time,
        )

    def from_fingerprints(self, ids: Tensor, numbers: Tensor, time: Tensor) -> dict[str, Tensor]:
        """As of `ConversionModel.logits`."""
        logit = self._model.logits(ids, numbers, time)
        probability = tf.cast(tf.sigmoid(tf.cast(logit, tf.float64)), tf.float32)
        return {"probability": probability, "logit": logit}

    def _raw_inputs(self) -> list[Any]:
        specs = [tf.TensorSpec([None], tf.string, name) for name in self.ids_asked()]
        specs += [tf.TensorSpec([None], tf.float32, c.name) for c in self._features.numbers if not c.aggregate]
        return [*specs, tf.TensorSpec([None], tf.int64, "time")]

    def _aggregate_inputs(self) -> list[Any]:
        return [tf.TensorSpec([None], tf.float32, c.name) for c in self._features.numbers if c.aggregate]

    def _aggregates(self, ids: dict[str, Tensor], inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """Every used aggregate column, [B] each: as given, else as it travels, else missing.

        A row that gives any column of a key is taken at its word for the whole key (NaN then says "never"), so that a
        caller who knows a key is never mixed with the older values of the version.
        """
        carried = {entry.key: (entry, self._look_up(entry, ids)) for entry in self._entries}
        columns = {}
        for key, indices in self._features.groups().items():
            names = [self._features.numbers[index].name for index in indices if self._features.numbers[index].aggregate]
            values = {name: tf.fill([rows], np.float32(np.nan)) for name in names}
            if key in carried:
                entry, found = carried[key]
                values = {name: found[:, entry.names.index(name)] for name in names}
            if names and names[0] in inputs:
                given = [inputs[name] for name in names]
                known = tf.reduce_any(tf.stack([~tf.math.is_nan(column) for column in given]), axis=0)
                values = {name: tf.where(known, inputs[name], values[name]) for name in names}
            columns.update(values)
        return columns

    def _look_up(self, entry: Travelling, ids: dict[str, Tensor]) -> Tensor:
        """The twin of `Travelling.look_up`: float32 [B, columns]."""
        parts = [ids[part] for part in entry.parts]
        wanted = mix(*parts) if len(parts) > 1 else parts[0]
        keys = self.variables[f"aggregates/{entry.key}/keys"]
        at = tf.minimum(tf.searchsorted(keys, wanted), entry.capacity - 1)
        known = tf.equal(tf.gather(keys, at), wanted)[:, None]
        values = tf.gather(self.variables[f"aggregates/{entry.key}/values"], at)
        found = tf.where(known, values, tf.constant(entry.absent, tf.float32))
        missing = tf.reduce_any(tf.stack([tf.equal(part, 0) for part in parts]), axis=0)
        return tf.where(missing[:, None], np.float32(np.nan), found)


def fingerprints(texts: Tensor) -> Tensor:
    """Text [B] -> the fingerprints that events have, bitcast to int64; 0 for the empty text, which is a missing id."""
    found = tf.bitcast(tf.fingerprint(texts), tf.int64)
    found = tf.where(tf.equal(found, 0), tf.constant(1, tf.int64), found)
    return tf.where(tf.equal(texts, ""), tf.constant(0, tf.int64), found)


def mix(*columns: Tensor) -> Tensor:
    """The twin of `keys.mix`: one key per row from several, int64 bitcast in and out."""
    out = tf.zeros_like(tf.bitcast(columns[0], tf.uint64))
    for column in columns:
        z = tf.bitwise.bitwise_xor(out, tf.bitcast(column, tf.uint64)) + _u64(0x9E3779B97F4A7C15)
        z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, _u64(30))) * _u64(0xBF58476D1CE4E5B9)
        z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, _u64(27))) * _u64(0x94D049BB133111EB)
        out = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, _u64(31)))
    return tf.bitcast(out, tf.int64)


def _u64(value: int) -> Tensor:
    return tf.constant(value, tf.uint64)

"""Which features of a model matter on real examples: by integrated gradients, and by permuting their columns.

Both speak of the same features: every id, every numeric feature, and the aggregates of a key together, for these are
known together and stand in for one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.events import MISSING_ID, ExampleBatch
from stream_learner.judging.metrics import Sums, entropy
from stream_learner.learning.features import FeatureSchema
from stream_learner.learning.model import ConversionModel, by_member, combined

PERMUTED_ROWS = 1024
INTEGRATED_ROWS = 256
STEPS = 16  # of the path; midpoints
IMPORTANCE_STAGE = 41  # stage constant of the seeds, so that no two stages share a random stream

Score = Callable[[ExampleBatch], NDArray[np.float32]]


def feature_names(features: FeatureSchema) -> list[str]:
    """The features that are told apart, ids first."""
    return [column.name for column in features.ids] + [_named(features, group) for group in features.groups()]


def permutation_importance(
    score: Score, examples: ExampleBatch, features: FeatureSchema, seed: tuple[int, int]
) -> dict[str, float]:
    """By feature how much NE rises when its columns are shuffled among the examples (Breiman, Machine Learning 2001;
    Fisher, Rudin, Dominici, JMLR 2019); the newest 1,024 with finite scores. Empty where these have one class only."""
    examples = examples.take(slice(-PERMUTED_ROWS, None))
    examples = examples.take(np.flatnonzero(np.isfinite(score(examples))))
    positives = float(examples.label.sum())
    if not 0.0 < positives < len(examples):
        return {}
    unit = entropy(positives / len(examples))
    before = Sums.of(score(examples), examples.label).log_loss
    order = np.random.default_rng([*seed, IMPORTANCE_STAGE]).permutation(len(examples))

    def rise(changed: ExampleBatch) -> float:
        return (Sums.of(score(changed), examples.label).log_loss - before) / unit

    found = {}
    for column in features.ids:
        ids = examples.ids.copy()
        ids[:, column.column] = ids[order, column.column]
        found[column.name] = rise(replace(examples, ids=ids))
    for group, indices in features.groups().items():
        numbers = examples.numbers.copy()
        for source in (features.numbers[index].source for index in indices):
            numbers[:, source] = examples.numbers[order, source]
        found[_named(features, group)] = rise(replace(examples, numbers=numbers))
    return found


def integrated_gradients(model: ConversionModel, examples: ExampleBatch) -> tuple[dict[str, float], float]:
    """By feature the mean absolute share in the logit of an example (Sundararajan, Taly, Yan, ICML 2017), on the
    newest 256; and the mean absolute part of the logit that the sum of shares leaves unexplained.

    The path leads in a straight line from an event of which only the time is known, a case the model is trained for,
    to the event, in the space of looked-up vectors and dense inputs.
    """
    features, examples = model.features, examples.take(slice(-INTEGRATED_ROWS, None))
    known = _inputs(model, features.take_ids(examples.ids), features.take_numbers(examples.numbers), examples.time)
    nothing = np.full((len(examples), len(features.ids)), MISSING_ID, np.uint64).view(np.int64)
    blank = _inputs(model, nothing, np.full((len(examples), len(features.numbers)), np.nan, np.float32), examples.time)
    steps = [to - start for to, start in zip(known, blank, strict=True)]
    slopes = _mean_slopes(model, blank, steps)
    shares = [step * slope for step, slope in zip(steps, slopes, strict=True)]
    by_feature = _by_feature(features, shares)
    total = sum(by_feature.values(), np.zeros(len(examples)))
    gained = _logits(model, known).numpy() - _logits(model, blank).numpy()
    left = float(np.abs(gained - total).mean()) if len(examples) else 0.0
    return {name: float(np.abs(share).mean()) for name, share in by_feature.items()}, left


def _inputs(model: ConversionModel, ids: NDArray[Any], numbers: NDArray[Any], time: NDArray[Any]) -> list[Any]:
    """What the network is given: a vector per id, then the dense inputs."""
    rows = model.encoder.rows(tf.constant(ids))
    vectors = [tf.gather(table, rows[name]) for name, table in model.tables.items()]
    return [*vectors, model.encoder.dense(tf.constant(numbers), tf.constant(time))]


def _logits(model: ConversionModel, inputs: list[Any]) -> Any:
    return combined(by_member(model.network(inputs, training=False), tf.shape(inputs[-1])[0]) + model.offset)


def _mean_slopes(model: ConversionModel, start: list[Any], steps: list[Any]) -> list[NDArray[np.float64]]:
    """The gradient of the logit along the path, averaged over its midpoints; per input as `start`."""
    halfway = [(number + 0.5) / STEPS for number in range(STEPS)]
    # All midpoints in one batch: what a call costs by itself is most of what it costs on so few rows.
    at = [tf.concat([begin + step * far for far in halfway], 0) for begin, step in zip(start, steps, strict=True)]
    with tf.GradientTape() as tape:
        for part in at:
            tape.watch(part)
        logits = _logits(model, at)
    slopes = tape.gradient(logits, at, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [slope.numpy().reshape(STEPS, -1, slope.shape[1]).mean(axis=0, dtype=np.float64) for slope in slopes]


def _by_feature(features: FeatureSchema, shares: list[Any]) -> dict[str, NDArray[np.float64]]:
    """Shares of vectors and dense inputs, [n, width] each, as shares of features, [n] each."""
    found = {column.name: np.asarray(share).sum(axis=1) for column, share in zip(features.ids, shares, strict=False)}
    dense, owners = np.asarray(shares[-1]), features.dense_groups()
    for group in features.groups():
        columns = [index for index, owner in enumerate(owners) if owner == group]
        found[_named(features, group)] = dense[:, columns].sum(axis=1)
    return found


def _named(features: FeatureSchema, group: str) -> str:
    aggregate = features.numbers[features.groups()[group][0]].aggregate
    return f"aggregates of {group}" if aggregate else group

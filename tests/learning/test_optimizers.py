"""The row-sparse and dense steps, against Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stream_learner.learning.optimizers import make_slots, optimizer, step_dense, step_rows
from stream_learner.settings import Learning

_KERAS = {
    "adam": keras.optimizers.Adam(learning_rate=0.05),
    "adagrad": keras.optimizers.Adagrad(learning_rate=0.05),
    "adamw": keras.optimizers.AdamW(learning_rate=0.05, weight_decay=0.3),
    # Keras takes 2 l2 and beta, and begins with an accumulator of its own.
    "ftrl": keras.optimizers.Ftrl(
        learning_rate=0.05,
        l1_regularization_strength=0.4,
        l2_regularization_strength=0.15,
        beta=1.0,
        initial_accumulator_value=0.0,
    ),
}


def _rule(name, rate=0.05):
    return optimizer(Learning(optimizer=name, l2=0.3, l1=0.4), rate)


def _count(step):
    return tf.constant(step, tf.int64)


@pytest.mark.parametrize("name", _KERAS)
def test_dense_steps_equal_keras(name):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((6, 3)).astype(np.float32)
    ours, theirs = tf.Variable(start), keras.Variable(start)
    rule, oracle = _rule(name), _KERAS[name].from_config(_KERAS[name].get_config())
    slots = make_slots(rule, ours)
    for step in range(1, 30):
        gradient = rng.standard_normal((6, 3)).astype(np.float32)
        step_dense(rule, ours, slots, tf.constant(gradient), _count(step))
        oracle.apply([tf.constant(gradient)], [theirs])
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", _KERAS)
def test_rows_step_like_the_whole_and_the_others_rest(name):
    rng = np.random.default_rng(1)
    start = rng.standard_normal((50, 4)).astype(np.float32)
    rule = _rule(name, 0.1)
    table, whole = tf.Variable(start), tf.Variable(start)
    slots, whole_slots = make_slots(rule, table), make_slots(rule, whole)
    touched = np.array([41, 3, 7])
    for step in range(1, 6):
        gradient = rng.standard_normal((3, 4)).astype(np.float32)
        full = np.zeros((50, 4), np.float32)
        full[touched] = gradient
        step_rows(rule, table, slots, tf.constant(touched), tf.constant(gradient), _count(step))
        step_dense(rule, whole, whole_slots, tf.constant(full), _count(step))
    np.testing.assert_array_equal(table.numpy()[touched], whole.numpy()[touched])
    resting = np.setdiff1d(np.arange(50), touched)
    np.testing.assert_array_equal(table.numpy()[resting], start[resting])
    for slot, first in zip(slots.values(), rule.slots.values(), strict=True):
        assert np.all(slot.numpy()[resting] == np.float32(first))


def test_lazy_adam_keeps_the_moments_of_rows_it_does_not_see():
    rule = optimizer(Learning(), 0.1)
    table = tf.Variable(np.zeros((2, 1), np.float32))
    slots = make_slots(rule, table)
    one = tf.constant([[1.0]])
    step_rows(rule, table, slots, tf.constant([0]), one, _count(1))
    before = {name: slot.numpy().copy() for name, slot in slots.items()}
    step_rows(rule, table, slots, tf.constant([1]), one, _count(2))
    assert all(slot.numpy()[0] == before[name][0] for name, slot in slots.items())
    correction = np.sqrt(1 - 0.999**2) / (1 - 0.9**2)  # of the model's second step, though it is the row's first
    np.testing.assert_allclose(table.numpy()[1, 0], -0.1 * correction * 0.1 / (np.sqrt(0.001) + 1e-7), rtol=1e-5)


def test_ftrl_follows_the_paper_coordinate_by_coordinate():
    """McMahan et al. 2013, algorithm 1, with plain floats; its l1 leaves weights with little evidence at 0."""
    alpha, beta, l1, l2 = 0.05, 1.0, 0.4, 0.3
    rng = np.random.default_rng(2)
    rule, weights = _rule("ftrl", alpha), tf.Variable(np.zeros(4, np.float32))
    slots = make_slots(rule, weights)
    z, n, w = np.zeros(4), np.zeros(4), np.zeros(4)
    for step in range(1, 20):
        gradient = rng.standard_normal(4) * [1, 0.1, 0.01, 0]
        for i, g in enumerate(gradient):
            sigma = (np.sqrt(n[i] + g * g) - np.sqrt(n[i])) / alpha
            z[i] += g - sigma * w[i]
            n[i] += g * g
            still = abs(z[i]) <= l1
            w[i] = 0.0 if still else -(z[i] - np.sign(z[i]) * l1) / ((beta + np.sqrt(n[i])) / alpha + l2)
        step_dense(rule, weights, slots, tf.constant(gradient, tf.float32), _count(step))
        np.testing.assert_allclose(weights.numpy(), w, rtol=1e-4, atol=1e-6)
    assert w[0] != 0 and (w[2:] == 0).all()

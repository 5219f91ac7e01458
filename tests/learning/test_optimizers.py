"""The row-sparse and dense steps, against Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from stream_learner.learning.optimizers import make_slots, optimizer, step_dense, step_rows

_KERAS = {"adam": keras.optimizers.Adam, "adagrad": keras.optimizers.Adagrad}


def _count(step):
    return tf.constant(step, tf.int64)


@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_dense_steps_equal_keras(name):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((6, 3)).astype(np.float32)
    ours, theirs = tf.Variable(start), keras.Variable(start)
    rule, oracle = optimizer(name, 0.05), _KERAS[name](learning_rate=0.05)
    slots = make_slots(rule, ours)
    for step in range(1, 30):
        gradient = rng.standard_normal((6, 3)).astype(np.float32)
        step_dense(rule, ours, slots, tf.constant(gradient), _count(step))
        oracle.apply([tf.constant(gradient)], [theirs])
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adagrad"])
def test_rows_step_like_the_whole_and_the_others_rest(name):
    rng = np.random.default_rng(1)
    start = rng.standard_normal((50, 4)).astype(np.float32)
    rule = optimizer(name, 0.1)
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
    rule = optimizer("adam", 0.1)
    table = tf.Variable(np.zeros((2, 1), np.float32))
    slots = make_slots(rule, table)
    one = tf.constant([[1.0]])
    step_rows(rule, table, slots, tf.constant([0]), one, _count(1))
    before = {name: slot.numpy().copy() for name, slot in slots.items()}
    step_rows(rule, table, slots, tf.constant([1]), one, _count(2))
    assert all(slot.numpy()[0] == before[name][0] for name, slot in slots.items())
    correction = np.sqrt(1 - 0.999**2) / (1 - 0.9**2)  # of the model's second step, though it is the row's first
    np.testing.assert_allclose(table.numpy()[1, 0], -0.1 * correction * 0.1 / (np.sqrt(0.001) + 1e-7), rtol=1e-5)

"""Averaged weights, another rule for tables, warm restarts, thinned negatives, the prequential shift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from model_inputs import EVERYTHING, examples, setting

from stream_learner.learning.calibration import Shift
from stream_learner.learning.learner import Learner
from stream_learner.learning.optimizers import Adagrad, make_slots, optimizer, step_dense, step_rows, table_optimizer
from stream_learner.learning.replay import Replay
from stream_learner.settings import Learning

OPTIONS = {
    "averaging": "averaging: 0.9",
    "warm_restart": "warm_restart: {boost: 4, half_life: 200}",
    "negative_share": "negative_share: 0.3",
    "calibration": "calibration_rows: 500",
    "tables": "table_optimizer: adagrad, table_learning_rate: 0.1",
}


def learner_of(options):
    extra = f"learning: {{hidden: [8], batch_size: 64, learning_rate: 0.005, {options}}}\nreplay: {{capacity: 400}}\n"
    made = setting(extra, EVERYTHING)
    return made, Learner(made.config, made.features), Replay(made.config.replay.capacity, made.config.seed)


def lived(learner, made, replay, slides, rows=200):
    for slide in slides:
        batch = examples(made, rows, seed=slide)
        batch = replace(batch, logit_candidate=learner.score(batch))
        learner.look_back(batch, int(batch.time[-1]) + 1, drifted=slide == 2)
        learner.learn(batch, replay, slide)


@pytest.mark.parametrize("name", OPTIONS)
def test_restored_it_goes_on_and_an_option_makes_a_difference(name) -> None:
    made, one, replay = learner_of(OPTIONS[name])
    lived(one, made, replay, range(4))
    one.promote()
    state, held = one.capture(), replay.capture()
    _, two, replay_two = learner_of(OPTIONS[name])
    two.restore(state)
    replay_two.restore(held)
    for learner, buffer in ((one, replay), (two, replay_two)):
        lived(learner, made, buffer, range(4, 6))
        learner.restart(buffer, 6, 3)
        lived(learner, made, buffer, [7])
    assert one.model_sha256() == two.model_sha256() and one.retraces == 0
    _, plain, replay = learner_of("passes: 1")
    lived(plain, made, replay, range(4))
    assert not np.array_equal(plain.score(examples(made, 9, seed=1)), learner_scores(state, name, made))


def learner_scores(state, name, made):
    _, learner, _ = learner_of(OPTIONS[name])
    learner.restore(state)
    return learner.score(examples(made, 9, seed=1))


@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw"])
def test_a_boosted_step_is_a_step_at_a_higher_rate(name) -> None:
    start, gradient = np.array([[1.0, -2.0]], np.float32), tf.constant([[0.3, 0.1]])
    moved = []
    for rate, boost in ((0.03, None), (0.01, tf.constant(3.0))):
        rule = optimizer(Learning(optimizer=name, l2=0.1), rate)
        for step in (step_dense, step_rows):
            variable = tf.Variable(start)
            slots = make_slots(rule, variable)
            rows = [] if step is step_dense else [tf.constant([0])]
            step(rule, variable, slots, *rows, gradient, tf.constant(1, tf.int64), boost)
            moved.append(variable.numpy())
    np.testing.assert_allclose(moved[1:], [moved[0]] * 3, rtol=1e-5)


def test_a_raise_halves_as_rows_are_learned() -> None:
    made, learner, replay = learner_of("warm_restart: {boost: 5, half_life: 200}")
    boosts = []
    for slide in range(5):
        lived(learner, made, replay, [slide])
        boosts.append(learner._boost())
    np.testing.assert_allclose(boosts, [1, 1, 3, 2, 1.5])


def test_the_average_is_what_is_scored_and_steps_go_on_from_the_weights() -> None:
    made, learner, replay = learner_of("averaging: 0.99")
    batch = examples(made, 64, seed=0)
    seen = {}
    for step in range(1, 6):
        before = {name: value.copy() for name, value in learner.version_variables("candidate").items()}
        learner.learn(batch, replay, step)
        state = learner.capture()["candidate"]
        kept = (1 + step) / (10 + step)
        for name, raw in state.items():
            if name.startswith("raw/"):
                average = name.removeprefix("raw/")
                seen[average] = before[average] + (1 - kept) * (raw - before[average])
                np.testing.assert_allclose(state[average], seen[average], rtol=1e-4, atol=1e-7)
    assert len(seen) == 4
    learner.promote()
    learner.restart(replay, 9, 0)
    state = learner.capture()["candidate"]
    assert all(np.array_equal(state[f"raw/{name}"], state[name]) for name in seen)


def test_adagrad_tables_give_rare_ids_larger_steps() -> None:
    rule = table_optimizer(Learning(optimizer="adam", table_optimizer="adagrad", table_learning_rate=0.1))
    assert isinstance(rule, Adagrad)
    table = tf.Variable(np.zeros((2, 1), np.float32))
    slots, gradient = make_slots(rule, table), tf.constant([[1.0]])
    for step in range(1, 50):
        step_rows(rule, table, slots, tf.constant([0]), gradient, tf.constant(step, tf.int64))
    before = table.numpy()[0, 0]
    step_rows(rule, table, slots, tf.constant([0]), gradient, tf.constant(50, tf.int64))
    step_rows(rule, table, slots, tf.constant([1]), gradient, tf.constant(51, tf.int64))
    assert abs(table.numpy()[1, 0]) > 5 * abs(table.numpy()[0, 0] - before)


def test_thinned_negatives_leave_scores_calibrated() -> None:
    made, learner, replay = learner_of("negative_share: 0.2")
    rows = 0
    for slide in range(30):
        rows += learner.learn(examples(made, 400, seed=slide), replay, slide).rows
    assert rows < 0.7 * 30 * 400
    fresh = examples(made, 5000, seed=99)
    predicted = 1 / (1 + np.exp(-learner.score(fresh)))
    assert 0.9 < predicted.sum() / fresh.label.sum() < 1.1
    learner.promote()
    np.testing.assert_array_equal(learner.score_champion(fresh), learner.score(fresh))


@pytest.mark.parametrize("delay", [0, 20])
def test_the_shift_comes_to_what_is_missing_and_does_not_swing(delay) -> None:
    """Scores .7 too low; labels come `delay` slides after them."""
    rng, shift = np.random.default_rng(4), Shift(half_life=2000)
    waiting, shifts = [], []
    for slide in range(150):
        z = rng.normal(-2, 1, 300)
        labels = (rng.random(300) < 1 / (1 + np.exp(-z))).astype(np.float32)
        waiting.append(((z - 0.7 + shift.now).astype(np.float32), labels, np.full(300, slide * 10)))
        if len(waiting) > delay:
            shift.learn(*waiting.pop(0), (slide + 1) * 10)
        if slide == 80:
            state, shift = shift.capture(), Shift(half_life=2000)
            shift.restore(state)
        shifts.append(shift.now)
    assert abs(np.mean(shifts[100:]) - 0.7) < 0.1
    assert np.ptp(shifts[100:]) < 0.4
    assert len(shift._since) <= delay + 3


def test_scores_that_were_never_given_tell_nothing() -> None:
    shift = Shift(half_life=100)
    shift.learn(np.full(5, np.nan, np.float32), np.ones(5, np.float32), np.arange(5), 10)
    assert shift.now == 0

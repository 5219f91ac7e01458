"""The losses of delayed labels against the formulas of their papers, and against what they converge to."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from model_inputs import EVERYTHING, examples, setting

from stream_learner.events import ExampleBatch
from stream_learner.learning.delayed import (
    Early,
    Lessons,
    counts,
    delay_targets,
    final_targets,
    importance,
    log_losses,
    served,
)
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay

RNG = np.random.default_rng(5)
N = 200
Y = (RNG.random(N) < 0.4).astype(np.float64)
F = RNG.uniform(0.01, 0.99, N)
P_DP, P_TN = RNG.uniform(0.0, 0.5, N), RNG.uniform(0.5, 1.0, N)


def loss_of(mode, y=Y, early=True):
    """Per row, by the module: an early row of label y."""
    logits = tf.constant(np.log(F / (1 - F)), tf.float32)
    targets = np.stack([y, 1 - y, np.full(N, float(early))], axis=1).astype(np.float32)
    given = [tf.constant(value, tf.float32) for value in (F, P_DP, P_TN)]
    positive, negative = counts(mode, tf.constant(targets), *given)
    return log_losses(logits, positive, negative).numpy()


def test_fake_negative_weighted() -> None:
    """Ktena et al., equation of FNW: positives by 1 + p, negatives by (1 - p)(1 + p)."""
    wanted = -(Y * (1 + F) * np.log(F) + (1 - Y) * (1 - F) * (1 + F) * np.log(1 - F))
    np.testing.assert_allclose(loss_of("fnw"), wanted, rtol=2e-5)


def test_elapsed_time_sampling() -> None:
    """Yang et al., importance-weighted loss: positives by 1 + p_dp, negatives by (1 + p_dp) p_tn."""
    wanted = -(Y * (1 + P_DP) * np.log(F) + (1 - Y) * (1 + P_DP) * P_TN * np.log(1 - F))
    np.testing.assert_allclose(loss_of("es_dfm"), wanted, rtol=2e-5)


@pytest.mark.parametrize("mode", ["wait", "duplicate", "fnc", "oracle"])
def test_the_others_are_log_loss(mode) -> None:
    wanted = -(Y * np.log(F) + (1 - Y) * np.log(1 - F))
    np.testing.assert_allclose(loss_of(mode), wanted, rtol=2e-5)


@pytest.mark.parametrize("mode", ["fnw", "es_dfm"])
def test_what_is_final_is_not_weighted(mode) -> None:
    np.testing.assert_allclose(loss_of(mode, early=False), loss_of("wait"), rtol=1e-6)


def test_fake_negative_calibration() -> None:
    """Ktena et al., FNC: b / (1 - b), and never beyond .999 where b passes a half."""
    b = np.linspace(0.001, 0.49, 60)
    logits = served("fnc", tf.constant(np.log(b / (1 - b)), tf.float32)).numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), b / (1 - b), rtol=2e-4)
    beyond = 1 / (1 + np.exp(-served("fnc", tf.constant([0.0, 3.0, 80.0])).numpy()))
    np.testing.assert_allclose(beyond, 0.999, rtol=1e-4)
    same = tf.constant([-3.0, 2.0])
    assert served("fnw", same) is same


@pytest.mark.parametrize("p", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("late", [0.2, 0.7])
@pytest.mark.parametrize("mode", ["duplicate", "fnw", "fnc", "es_dfm"])
def test_where_each_loss_has_its_minimum(mode, p, late) -> None:
    """Over the stream's own law: by a share `late` of the positives told twice, the expected loss is least where the
    served probability is p (where it is the biased p / (1 + p), for duplicate)."""
    dp = p * late if mode == "es_dfm" else p
    mass = {"positive": p, "negative": 1 - p + dp}
    f = np.linspace(0.001, 0.999, 4000)
    p_dp, p_tn = dp, (1 - p) / (1 - p + dp)
    given = [tf.constant([value], tf.float32) for value in (p, p_dp, p_tn)]
    positive, negative = (float(weight.numpy()[0]) for weight in importance(mode, *given))
    logits = tf.constant(np.log(f / (1 - f)), tf.float32)
    expected = log_losses(logits, mass["positive"] * positive, mass["negative"] * negative).numpy()
    best = served(mode, logits).numpy()[np.argmin(expected)]
    truth = p / (1 + p) if mode == "duplicate" else p
    assert abs(1 / (1 + np.exp(-best)) - truth) < 0.002


def test_a_positive_taken_back_leaves_what_was_there_without_it() -> None:
    for mode in ("duplicate", "fnw", "es_dfm"):
        given = [tf.constant(value, tf.float32) for value in (F, P_DP, P_TN)]
        ones = np.ones(N, np.float32)
        rows = [np.stack([sign * ones, 0 * ones, ones], axis=1) for sign in (1, -1)]
        sums = [log_losses(tf.constant(F, tf.float32), *counts(mode, tf.constant(r), *given)).numpy() for r in rows]
        np.testing.assert_allclose(sums[0] + sums[1], 0, atol=1e-6)


def test_what_the_heads_learn() -> None:
    """Of four matured examples: in time, late, negative, in time and cancelled."""
    labels, in_time = np.array([1.0, 1.0, 0.0, 0.0], np.float32), np.array([1.0, 0.0, 0.0, 0.0], np.float32)
    delayed, negative, among = delay_targets(labels, in_time)
    assert (delayed.tolist(), negative.tolist(), among.tolist()) == ([0, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1])


def test_replayed_rows_are_of_the_law_the_model_learns() -> None:
    labels = np.array([1, 0], np.float32)
    assert final_targets(labels, "fnw").tolist() == final_targets(labels, "es_dfm").tolist() == [[1, 0, 0], [0, 1, 0]]
    assert (
        final_targets(labels, "duplicate").tolist() == final_targets(labels, "fnc").tolist() == [[1, 1, 0], [0, 1, 0]]
    )


# ---- the learner --------------------------------------------------------------------------------------------

SMALL = (
    "learning: {network: mlp, hidden: [8], batch_size: 64, learning_rate: 0.01}\nreplay: {capacity: 300, ratio: 1}\n"
)
MODES = ("duplicate", "fnw", "fnc", "es_dfm", "oracle")


def learner_of(mode):
    base = EVERYTHING.replace("topics: {events: {", "topics: {events: {fields: {label: y}, ")
    made = setting(SMALL + f"labels: {{mode: {mode}}}\n", base)
    return made, Learner(made.config, made.features), Replay(made.config.replay.capacity, made.config.seed)


def early_of(batch: ExampleBatch, slide: int) -> Early:
    """Half are told as negatives, the others as what they are; the slide's first third has matured."""
    told = batch.label * (np.arange(len(batch)) % 2)
    targets = np.stack([told, 1 - told, np.ones(len(batch))], axis=1).astype(np.float32)
    finished = batch.take(slice(0, len(batch) // 3))
    in_time = told[: len(finished)] == 1
    return Early(Lessons(batch, targets, np.ones(len(batch), bool)), finished, in_time)


def lived(learner, made, replay, slides):
    nothing = examples(made, 1, seed=0).take(slice(0, 0))
    for slide in slides:
        if slide == 0:
            learner.learn(examples(made, 300, seed=slide), replay, slide)
        else:
            learner.learn(nothing, replay, slide, early_of(examples(made, 300, seed=slide), slide))


@pytest.mark.parametrize("mode", MODES)
def test_restored_it_goes_on_as_if_never_interrupted(mode) -> None:
    made, one, replay = learner_of(mode)
    lived(one, made, replay, range(3))
    state, held = one.capture(), replay.capture()
    _, two, replay_two = learner_of(mode)
    two.restore(state)
    replay_two.restore(held)
    for learner, buffer in ((one, replay), (two, replay_two)):
        lived(learner, made, buffer, range(3, 6))
    assert one.model_sha256() == two.model_sha256()
    assert one.retraces == 0 and one.finite()
    probe = examples(made, 50, seed=9)
    np.testing.assert_array_equal(one.score(probe), two.score(probe))


def test_the_replay_buffer_takes_matured_examples_only() -> None:
    made, learner, replay = learner_of("fnw")
    lived(learner, made, replay, [0])
    assert len(replay) == 300
    made, learner, replay = learner_of("fnw")
    lived(learner, made, replay, [1])
    assert len(replay) == 100


def test_es_dfm_without_its_heads_would_learn_something_else() -> None:
    hashes = set()
    for mode in ("wait", "fnw", "es_dfm", "duplicate"):
        made, learner, replay = learner_of(mode)
        lived(learner, made, replay, range(4))
        hashes.add(learner.score(examples(made, 20, seed=1)).tobytes())
    assert len(hashes) == 4

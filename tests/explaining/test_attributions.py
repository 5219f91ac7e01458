"""What is found to move a model, on examples whose labels follow the item and the price."""

import numpy as np
import pytest
from model_inputs import Setting, examples, setting

from stream_learner.explaining.features import feature_names, integrated_gradients, permutation_importance
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay

SLIDES, ROWS = 12, 500


def learned(made: Setting) -> Learner:
    learner, replay = Learner(made.config, made.features), Replay(1000, made.config.seed)
    for slide in range(SLIDES):
        learner.learn(examples(made, ROWS, seed=slide), replay, slide)
    learner.promote()
    return learner


@pytest.fixture(scope="module")
def made() -> Setting:
    return setting("learning: {network: mlp, hidden: [16], dropout: 0.0, learning_rate: 0.02}\n")


@pytest.fixture(scope="module")
def learner(made):
    return learned(made)


def test_shuffling_what_the_label_follows_costs_most(made, learner):
    found = permutation_importance(learner.score_champion, examples(made, 900, seed=99), made.features, (7, 3))
    assert list(found) == feature_names(made.features)
    assert {"price", "item"} == set(sorted(found, key=lambda name: -found[name])[:2])
    assert found["price"] > 0.05 > abs(found["category"])


def test_the_seed_decides_the_shuffling_and_nothing_else_does(made, learner):
    batch = examples(made, 300, seed=99)
    ids, numbers = batch.ids.copy(), batch.numbers.copy()
    first, again, other = (
        permutation_importance(learner.score_champion, batch, made.features, (7, slide)) for slide in (3, 3, 4)
    )
    assert first == again != other
    assert np.array_equal(batch.ids, ids) and np.array_equal(batch.numbers, numbers, equal_nan=True)


def test_nothing_is_said_of_examples_of_one_class(made, learner):
    batch = examples(made, 100, seed=99)
    batch = batch.take(np.flatnonzero(batch.label == 0))
    assert permutation_importance(learner.score_champion, batch, made.features, (7, 3)) == {}


def test_shares_find_the_same_and_add_up_to_the_logit(made, learner):
    shares, left = integrated_gradients(learner.champion, examples(made, 400, seed=99))
    assert list(shares) == feature_names(made.features)
    assert "price" in sorted(shares, key=lambda name: -shares[name])[:2]
    assert left < 0.05 * sum(shares.values())


def test_of_a_linear_model_nothing_is_left(made):
    linear = setting("learning: {network: logistic, learning_rate: 0.02}\n")
    shares, left = integrated_gradients(learned(linear).champion, examples(linear, 100, seed=99))
    assert sum(shares.values()) > 0.1
    assert left < 1e-5


def test_an_ensemble_that_reads_bins_is_explained_too():
    both = "features:\n  ids: {item: {rows: 64, dim: 2}}\n  encoding: [log1p_z, piecewise_linear]\n"
    made = setting(
        "learning: {network: mlp, hidden: [8], ensemble: {members: 3, input_share: 0.5}}\n",
        base="seed: 7\ntopics: {events: {categorical: {category: c}, numeric: {price: p, rank: r}}}\n" + both,
    )
    shares, left = integrated_gradients(learned(made).champion, examples(made, 100, seed=99))
    assert list(shares) == feature_names(made.features)
    assert left < 0.1 * sum(shares.values())

"""An item that nobody knows yet is reached through its category."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from stream_learner import config as configs
from stream_learner.errors import ConfigError
from stream_learner.next_item.network import ItemNetwork
from stream_learner.next_item.training import NetworkTrainer, Sequences, all_negatives
from stream_learner.settings import Network

CATEGORIES, EACH, RECENT = 5, 4, 3
ITEMS = CATEGORIES * EACH  # item i is of category (i - 1) // EACH; row ITEMS + 1 is new, of category 2
SHARES = np.concatenate([[-1.0], np.full(ITEMS + 1, 1 / (ITEMS + 1))]).astype(np.float32)
NEW, ITS = ITEMS + 1, 2


def described() -> ItemNetwork:
    told = {"dim": 8, "dropout": 0.0, "learning_rate": 0.01, "table_learning_rate": 0.05}
    held = ItemNetwork(Network(features=["category"], feature_rows=16, **told), NEW, RECENT, seed=3)  # type: ignore[arg-type]
    assert held.features is not None
    category = np.concatenate([[-1], np.arange(ITEMS) // EACH, [ITS]])
    held.features.by_item.assign((1 + category)[:, None])
    held.renew(np.arange(1, NEW + 1), 0)
    return held


def walks(seed: int, count: int) -> Sequences:
    """From a category to the next one, around the circle, to any item of it but the new one."""
    rng = np.random.default_rng(seed)
    category = (rng.integers(0, CATEGORIES, count)[:, None] + np.arange(RECENT + 1)) % CATEGORIES
    items = (1 + category * EACH + rng.integers(0, EACH, category.shape)).astype(np.int32)
    return Sequences(items[:, :-1], items[:, 1:], np.ones((count, RECENT), np.float32), np.zeros(count, np.uint64))


def learned() -> ItemNetwork:
    held = described()
    trainer = NetworkTrainer(held)
    trainer.learn_own(np.arange(NEW + 1) < NEW)
    for step in range(150):
        _, taken = trainer.step(walks(step, 32), all_negatives(SHARES), None)
        assert taken
    held.settle()
    return held


def test_a_new_item_is_ranked_where_its_category_belongs() -> None:
    held = learned()
    assert not held.table.numpy()[NEW].any()  # it has nothing of its own
    assert not held.features.table.numpy()[0].any()  # type: ignore[union-attr]
    for category in range(CATEGORIES):
        recent = [[1 + category * EACH, 0, 0], [2 + category * EACH, 1 + (category - 1) % CATEGORIES * EACH, 0]]
        logits = held.logits(tf.constant(recent, tf.int32)).numpy()[:, 1:]
        rank = (logits > logits[:, NEW - 1 :]).sum(axis=1)
        assert (rank <= EACH).all() if category == ITS - 1 else (rank > EACH).all()
    after_new = held.logits(tf.constant([[NEW, 0, 0]], tf.int32)).numpy()[0, 1:]
    assert {int(item) // EACH for item in np.argsort(-after_new)[:EACH]} == {ITS + 1}  # and so is what follows it


def test_what_is_compared_with_is_the_sum_of_its_vectors() -> None:
    held = learned()
    features = held.features
    assert features is not None
    whole = held.table.numpy() + features.table.numpy()[features.by_item.numpy()[:, 0]]
    assert held.vectors(tf.range(NEW + 1)).numpy() == pytest.approx(whole, abs=1e-6)
    assert held.outputs.numpy()[1:] == pytest.approx(whole[1:] / np.linalg.norm(whole[1:], axis=1)[:, None], abs=1e-5)


def test_features_that_cannot_be_are_told_so() -> None:
    with pytest.raises(ConfigError, match="'colour' is no categorical feature of any mapping"):
        configs.parse("task: next_item\nnext_item: {network: {features: [colour]}}")
    mapped = "topics: {events: {categorical: {colour: c}}}"
    with pytest.raises(ConfigError, match="model markov has no vectors"):
        configs.parse(f"task: next_item\n{mapped}\nnext_item: {{model: markov, network: {{features: [colour]}}}}")

"""The network's step against formulas written out, and that it learns what is there to be learned."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from stream_learner.events import EventSchema
from stream_learner.next_item.exemplars import Exemplars, sequences
from stream_learner.next_item.network import ItemNetwork
from stream_learner.next_item.sessions import SessionStore
from stream_learner.next_item.training import (
    Negatives,
    NetworkTrainer,
    Reminder,
    Sequences,
    all_negatives,
    drawn_negatives,
    with_targets,
)
from stream_learner.settings import Network, NextItem

ITEMS, RECENT = 12, 4
SHARES = np.concatenate([[-1.0], np.full(ITEMS, 1 / ITEMS)]).astype(np.float32)


def network(**values: object) -> ItemNetwork:
    wanted = {"dim": 8, "dropout": 0.0, "learning_rate": 0.01, "table_learning_rate": 0.05, **values}
    return ItemNetwork(Network(**wanted), ITEMS, RECENT, seed=3)  # type: ignore[arg-type]


def nobody(count: int) -> np.ndarray:
    return np.zeros(count, np.uint64)


def chain(seed: int, count: int) -> Sequences:
    """Item i is always followed by i + 1, around the circle."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, ITEMS, count)
    items = 1 + (first[:, None] + np.arange(RECENT)) % ITEMS
    return Sequences(
        items.astype(np.int32),
        (1 + items % ITEMS).astype(np.int32),
        np.ones(items.shape, np.float32),
        nobody(len(items)),
    )


def hit_rate(held: ItemNetwork) -> float:
    """Share of last items whose successor gets the highest logit."""
    held.settle()
    batch = chain(99, 64)
    logits = held.logits(tf.constant(batch.items[:, ::-1].copy())).numpy()
    return float(np.mean(logits[:, 1:].argmax(axis=1) + 1 == batch.targets[:, -1]))


@pytest.mark.parametrize("encoder", ["self_attention", "two_tower"])
def test_it_learns_a_chain(encoder: str) -> None:
    held = network(encoder=encoder, dropout=0.1)
    trainer = NetworkTrainer(held)
    before = hit_rate(held)
    for step in range(60):
        negatives = drawn_negatives(SHARES, 8, 0.75, np.random.default_rng(step))
        _, taken = trainer.step(chain(step, 32), negatives, None)
        assert taken
    assert hit_rate(held) > 0.95 > before


def test_the_full_softmax_is_the_log_loss_over_all_items() -> None:
    held = network()
    held.settle()
    batch = chain(1, 5)
    inputs = [held.inputs(tf.gather(held.table, batch.items)), tf.constant(batch.items != 0)]
    hidden = tf.math.l2_normalize(held.encoder(inputs, training=False), axis=-1)
    logits = held.config.scale * tf.einsum("bpd,id->bpi", hidden, held.outputs)[:, :, 1:]
    expected = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch.targets - 1, logits))
    loss, _ = NetworkTrainer(held).step(batch, all_negatives(SHARES), None)
    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_sampled_softmax_with_log_q_comes_to_the_full_one() -> None:
    """With many draws the corrected logits are those of the whole catalogue (Bengio, Senecal: 2008)."""
    shares = np.concatenate([[-1.0], np.arange(1, ITEMS + 1)]).astype(np.float32)
    batch = chain(2, 5)
    full, _ = NetworkTrainer(network()).step(batch, all_negatives(shares), None)
    sampled, _ = NetworkTrainer(network()).step(
        batch, drawn_negatives(shares, 2000, 0.75, np.random.default_rng(0)), None
    )
    assert sampled == pytest.approx(full, rel=1e-5)


def test_q_is_the_chance_to_be_drawn() -> None:
    shares = np.concatenate([[-1.0], np.arange(1, ITEMS + 1)]).astype(np.float32)
    draws = [drawn_negatives(shares, 5, 0.75, np.random.default_rng(seed)) for seed in range(4000)]
    seen = sum(np.bincount(negatives.rows, minlength=ITEMS + 1) for negatives in draws) / len(draws)
    assert seen[1:] == pytest.approx(np.exp(draws[0].log_q[1:]), abs=0.035) and seen[0] == 0


def test_q_with_the_targets_of_the_batch_is_the_chance_to_be_among_either() -> None:
    shares = np.concatenate([[-1.0], np.arange(1, ITEMS + 1) / 78]).astype(np.float32)
    rng, trials = np.random.default_rng(0), 4000
    seen, log_q = np.zeros(ITEMS + 1), np.zeros(ITEMS + 1)
    for _ in range(trials):
        targets = np.zeros((2, 3), np.int32)
        targets[:, 1:] = rng.choice(np.arange(ITEMS + 1), (2, 2), p=np.maximum(shares, 0) / shares[1:].sum())
        both = with_targets(drawn_negatives(shares, 3, 0.75, rng), targets, shares)
        seen, log_q = seen + np.bincount(both.rows, minlength=ITEMS + 1), both.log_q
    assert seen[1:] / trials == pytest.approx(np.exp(log_q[1:]), abs=0.035) and seen[0] == 0


def test_only_rows_in_the_batch_move() -> None:
    held = network()
    before = held.table.numpy()
    batch = Sequences(
        np.array([[0, 0, 1, 2]], np.int32), np.array([[0, 0, 2, 3]], np.int32), np.ones((1, 4), np.float32), nobody(1)
    )
    negatives = Negatives(np.array([5], np.int32), np.zeros(ITEMS + 1, np.float32))
    NetworkTrainer(held).step(batch, negatives, None)
    moved = np.flatnonzero((held.table.numpy() != before).any(axis=1))
    assert set(moved.tolist()) <= {0, 1, 2, 3, 5} and {1, 2, 3, 5} <= set(moved.tolist())


def test_a_step_that_is_not_finite_is_not_taken() -> None:
    held = network()
    held.table.scatter_update(tf.IndexedSlices(np.full((1, 8), np.inf, np.float32), [4]))
    before = {name: value.numpy() for name, value in held.variables.items()}
    _, taken = NetworkTrainer(held).step(chain(0, 16), all_negatives(SHARES), None)
    assert not taken
    assert all(np.array_equal(value.numpy(), before[name], equal_nan=True) for name, value in held.variables.items())


def test_a_reminder_pulls_towards_what_was_said() -> None:
    held = network()
    trainer, batch = NetworkTrainer(held), chain(0, 8)
    told = Reminder(
        np.tile(np.array([[3, 9]], np.int32), (8, 1)), np.tile(np.array([[5.0, 0.0]], np.float32), (8, 1)), 10
    )
    for _ in range(40):
        trainer.step(batch, all_negatives(SHARES), told)
    held.settle()
    logits = held.logits(tf.constant(batch.items[:, ::-1].copy())).numpy()
    assert np.all(logits[:, 3] - logits[:, 9] > 2)


def test_rows_given_out_anew_start_afresh() -> None:
    held = network()
    trainer = NetworkTrainer(held)
    trainer.step(chain(0, 32), all_negatives(SHARES), None)
    rows = np.array([2, 5])
    before = held.table.numpy()
    held.renew(rows, slide=7)
    trainer.forget(rows)
    changed = np.flatnonzero((held.table.numpy() != before).any(axis=1))
    assert changed.tolist() == [2, 5]
    for name, slot in trainer.variables.items():
        if name.startswith("slot/network/vectors"):
            assert not slot.numpy()[rows].any() and slot.numpy()[1].any()


def store_of(sessions: list[list[int]]) -> SessionStore:
    store = SessionStore(NextItem(), EventSchema(("t",), ("click",), ("user", "item", "session"), ()))
    store.keys = store.users = np.arange(len(sessions), dtype=np.uint64)
    store.last = np.zeros(len(sessions), np.int64)
    store.starts = np.concatenate([[0], np.cumsum([len(s) for s in sessions])]).astype(np.int64)
    store.items = np.array([item for s in sessions for item in s], np.uint64)
    store.weights = store.items.astype(np.float32)
    return store


def test_sequences_learn_only_what_is_new_and_admitted() -> None:
    store = store_of([[1, 2, 3], [4, 0, 5, 6, 7, 8, 9], [2, 3]])  # 0 = not admitted
    rows = store.items.astype(np.int64)
    found = sequences(store, rows, np.array([0, 1, 2]), np.array([2, 0, 2]), RECENT)
    assert found.items.tolist() == [[0, 0, 1, 2], [5, 6, 7, 8]]
    assert found.targets.tolist() == [[0, 0, 0, 3], [6, 7, 8, 9]]
    assert found.weights.tolist() == [[0, 0, 0, 3], [6, 7, 8, 9]]
    whole = sequences(store, rows, np.array([1]), np.array([0]), 6)
    assert whole.items.tolist() == [[4, 0, 5, 6, 7, 8]] and whole.targets.tolist() == [[0, 0, 6, 7, 8, 9]]


def test_exemplars_by_item_give_every_item_its_turn() -> None:
    store = store_of([[1, 2]] * 50 + [[3, 4]])
    rows = store.items.astype(np.int64)
    pool = Exemplars(store, rows, np.arange(51), SHARES, RECENT, "item")
    drawn = pool.draw(4000, np.random.default_rng(0))
    assert np.mean(drawn.targets[:, -1] == 4) == pytest.approx(0.5, abs=0.03)
    assert drawn.items[drawn.targets[:, -1] == 4][0].tolist() == [0, 0, 0, 3]
    evenly = Exemplars(store, rows, np.arange(51), SHARES, RECENT, "session").draw(4000, np.random.default_rng(0))
    assert np.mean(evenly.targets[:, -1] == 4) == pytest.approx(1 / 51, abs=0.01)


def test_who_it_is_decides_where_users_are_learned() -> None:
    """After item 1 users of one kind go on to 2, those of the other to 3."""
    held = network(users=64)
    trainer = NetworkTrainer(held)
    for step in range(60):
        users = np.random.default_rng(step).integers(1, 21, 32).astype(np.uint64)
        items, targets = np.zeros((32, RECENT), np.int32), np.zeros((32, RECENT), np.int32)
        items[:, -1], targets[:, -1] = 1, np.where(users <= 10, 2, 3)
        weights = (targets > 0).astype(np.float32)
        assert trainer.step(Sequences(items, targets, weights, users), all_negatives(SHARES), None)[1]
    held.settle()
    assert held.users is not None and not held.users.table.numpy()[0].any()
    recent = tf.constant([[1, 0, 0, 0]] * 4, tf.int32)
    logits = held.logits(recent, tf.constant([4, 15, 0, 33], tf.int64)).numpy()[:, 1:]
    assert logits[:2].argmax(axis=1).tolist() == [1, 2]
    assert set(np.argsort(-logits[2])[:2].tolist()) == {1, 2}  # of nobody it can only say one of both
    assert np.array_equal(logits[2], logits[3])  # and of somebody it has never seen


def test_without_users_it_is_all_the_same_who_it_is() -> None:
    held = network()
    held.settle()
    recent = tf.constant([[1, 0, 0, 0]] * 2, tf.int32)
    logits = held.logits(recent, tf.constant([4, 0], tf.int64)).numpy()
    assert np.array_equal(logits[0], logits[1])

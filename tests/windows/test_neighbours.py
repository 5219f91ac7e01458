"""Votes of similar items against a loop over every label; rows, bounds and restarts."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from streams import SCHEMA, same_state

from stream_learner.settings import Neighbours as Wanted
from stream_learner.windows.neighbours import Neighbours

MANY = 10_000


class ByHand:
    """Item by item, label by label."""

    def __init__(self, recent: int) -> None:
        self.recent = recent
        self.said = defaultdict(list)
        self.agreement, self.shared = defaultdict(float), defaultdict(float)

    def take_in(self, user: int, item: int, label: int) -> None:
        labels = [y for _, y in self.said[user]] + [label]
        rate = np.mean(labels)
        for other, y in self.said[user][-self.recent :]:
            product = 4 * (label - rate) * (y - rate)
            for pair in ((item, other), (other, item)):
                self.agreement[pair] += product
                self.shared[pair] += 1
        self.said[user].append((item, label))

    def votes(self, user: int, item: int) -> list[float]:
        total = mass = 0.0
        for other, y in self.said[user][-self.recent :]:
            if self.shared[item, other] >= 3:
                weight = self.agreement[item, other] / (self.shared[item, other] + 10)
                total += weight * (1 if y else -1)
                mass += abs(weight)
        return [2 * total / (mass + 0.3), total]


def labels_of(seed: int, count: int = 400, users: int = 12, items: int = 8):
    rng = np.random.default_rng(seed)
    ids = np.zeros((count, len(SCHEMA.ids)), np.uint64)
    ids[:, 0], ids[:, 1] = rng.integers(1, users + 1, count), rng.integers(1, items + 1, count)
    return ids, rng.random(count) < 0.5


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("recent", [3, 50])
def test_equals_the_definition(recent: int, batch: int) -> None:
    ids, positive = labels_of(1)
    ours, by_hand = Neighbours(Wanted(items=64, recent=recent), SCHEMA, MANY), ByHand(recent)
    for start in range(0, len(ids), batch):
        part = slice(start, start + batch)
        wanted = [by_hand.votes(int(user), int(item)) for user, item in ids[part, :2]]
        np.testing.assert_allclose(ours.read(ids[part]), wanted, rtol=2e-4, atol=2e-5)
        ours.take_in(ids[part], positive[part])
        for (user, item), label in zip(ids[part, :2].tolist(), positive[part].tolist(), strict=True):
            by_hand.take_in(user, item, int(label))
    assert np.abs(ours.read(ids)).max() > 0.1


def test_it_finds_who_likes_alike() -> None:
    """Users like the even items or the odd ones."""
    rng = np.random.default_rng(3)
    ids, _ = labels_of(2, 3000, users=60, items=20)
    liked = (ids[:, 0] + ids[:, 1]) % 2 == 0
    ours = Neighbours(Wanted(items=64), SCHEMA, MANY)
    ours.take_in(ids, liked ^ (rng.random(3000) < 0.1))
    probe, _ = labels_of(9, 300, users=60, items=20)
    votes = ours.read(probe)[:, 1]
    agrees = (votes > 0) == ((probe[:, 0] + probe[:, 1]) % 2 == 0)
    assert agrees.mean() > 0.95


def test_missing_ids_have_no_votes_and_strangers_none_yet() -> None:
    ours = Neighbours(Wanted(items=2), SCHEMA, MANY)
    ids, positive = labels_of(4)
    ours.take_in(ids, positive)  # two of eight items find room
    probe = np.zeros((3, len(SCHEMA.ids)), np.uint64)
    probe[:, :2] = [[0, 1], [1, 0], [99, 99]]
    votes = ours.read(probe)
    assert np.isnan(votes[:2]).all() and (votes[2] == 0).all()
    assert len(ours._item_index) == 2


def test_who_was_silent_longest_is_forgotten_first() -> None:
    ours = Neighbours(Wanted(items=64), SCHEMA, max_keys=32)
    for user in range(1, 100):
        ids, positive = labels_of(user, 20)
        ids[:, 0] = user
        ours.take_in(ids, positive)
        assert len(ours._user_index) <= 32
    kept = ours._user_index.items()[0].tolist()
    assert kept == list(range(100 - len(kept), 100))


def test_restored_it_goes_on() -> None:
    straight, broken = (Neighbours(Wanted(items=8), SCHEMA, 10) for _ in range(2))
    ids, positive = labels_of(5, users=20)
    for start in range(0, 400, 40):
        part = slice(start, start + 40)
        state = broken.capture()
        broken.take_in(ids[part], positive[part])  # lost in the crash
        broken = Neighbours(Wanted(items=8), SCHEMA, 10)
        broken.restore(state)
        straight.take_in(ids[part], positive[part])
        broken.take_in(ids[part], positive[part])
        assert same_state(straight.capture(), broken.capture())
        np.testing.assert_array_equal(straight.read(ids), broken.read(ids))

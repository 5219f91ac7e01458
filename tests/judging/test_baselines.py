"""The do-nothing baselines against dictionaries."""

from collections import defaultdict

import numpy as np
import pytest

from stream_learner.events import EventSchema
from stream_learner.judging.baselines import BASELINES, Baselines
from stream_learner.snapshots import Snapshots

SCHEMA = EventSchema(topics=("t",), kinds=("click",), ids=("user", "item", "session", "category"), numbers=())


def batch(rng, n=50, users=20, items=8):
    ids = np.stack([rng.integers(0, users, n), rng.integers(0, items, n), rng.integers(1, 9, n), np.ones(n)], axis=1)
    return ids.astype(np.uint64), (rng.random(n) < 0.3).astype(np.float32)  # id 0 = missing


class Dictionaries:
    """The same in plain Python."""

    def __init__(self, s):
        self.s, self.n, self.p, self.last = s, 0, 0, (0, 0)
        self.keys = {1: defaultdict(lambda: [0, 0]), 0: defaultdict(lambda: [0, 0])}

    def update(self, ids, labels):
        self.last = (len(labels), labels.sum())
        for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
            self.n, self.p = self.n + 1, self.p + label
            for column, counts in self.keys.items():
                if row[column]:
                    counts[row[column]][0] += 1
                    counts[row[column]][1] += label

    def score(self, ids):
        prior = (self.p + 0.5) / (self.n + 1)
        for row in ids.tolist():
            n_i, p_i = self.keys[1].get(row[1], (0, 0))
            n_u, p_u = self.keys[0].get(row[0], (0, 0))
            n_l, p_l = self.last
            rates = (p_i + self.s * prior) / (n_i + self.s), (p_u + self.s * prior) / (n_u + self.s)
            yield prior, *rates, (p_l + prior) / (n_l + 1)


def test_rates_equal_dictionaries():
    rng, baselines, plain = np.random.default_rng(0), Baselines(SCHEMA, 20.0, 1_000_000), Dictionaries(20.0)
    for _ in range(30):
        ids, labels = batch(rng)
        scores = baselines.score(ids)
        assert scores.dtype == np.float32 and scores.shape == (50, len(BASELINES))
        assert scores == pytest.approx(np.array(list(plain.score(ids)), np.float32), abs=1e-7)
        baselines.update(ids, labels)
        plain.update(ids, labels)


def test_before_the_first_label_all_say_one_half():
    ids, _ = batch(np.random.default_rng(1))
    assert (Baselines(SCHEMA, 20.0, 1_000_000).score(ids) == 0.5).all()


def test_nothing_to_score_or_update():
    baselines = Baselines(SCHEMA, 20.0, 1_000_000)
    nothing = np.empty((0, 4), np.uint64)
    assert baselines.score(nothing).shape == (0, 4)
    baselines.update(nothing, np.empty(0, np.float32))
    assert baselines.prior == 0.5


def test_keys_longest_without_a_label_are_evicted():
    baselines = Baselines(SCHEMA, 1.0, max_keys=32)
    ids = np.zeros((1, 4), np.uint64)
    ids[0, :2] = 1000, 2000  # one user and item seen all the time
    for number in range(1, 200):
        fresh = np.full((1, 4), number, np.uint64)
        baselines.update(np.concatenate([ids, fresh]), np.array([1, 0], np.float32))
    state = baselines.capture()
    for name in ("item_rate", "user_rate"):
        keys = [key for key in state["rates"][name]["index"]["keys"].tolist() if key]  # freed rows have none
        assert len(keys) <= 32 and 199 in keys and 1 not in keys
    always = baselines.score(ids)[0]
    assert always[1] > 0.99 and always[2] > 0.99
    forgotten = baselines.score(np.full((1, 4), 1, np.uint64))[0]
    assert forgotten[1] == forgotten[0] == forgotten[2]


def test_a_key_that_comes_back_starts_from_nothing():
    baselines = Baselines(SCHEMA, 1.0, max_keys=16)
    first = np.full((20, 4), 5, np.uint64)
    baselines.update(first, np.ones(20, np.float32))
    for number in range(100, 140):
        baselines.update(np.full((1, 4), number, np.uint64), np.zeros(1, np.float32))
    baselines.update(first[:1], np.zeros(1, np.float32))
    prior = baselines.prior
    assert baselines.score(first[:1])[0, 1] == pytest.approx(prior / 2)


@pytest.mark.parametrize("max_keys", [10, 1000])
@pytest.mark.parametrize("cut", [0, 7, 29])
def test_restored_baselines_go_on_bit_for_bit(max_keys, cut, tmp_path):
    rng = np.random.default_rng(2)
    steps = [batch(rng, users=200, items=100) for _ in range(30)]
    whole, again = Baselines(SCHEMA, 20.0, max_keys), Baselines(SCHEMA, 20.0, max_keys)
    for step in steps[:cut]:
        whole.update(*step)
    snapshots = Snapshots(tmp_path, keep=2)
    snapshots.write(cut, whole.capture(), {})
    again.restore(snapshots.latest().state)
    for ids, labels in steps[cut:]:
        assert (whole.score(ids) == again.score(ids)).all()
        whole.update(ids, labels)
        again.update(ids, labels)
    assert (whole.score(steps[0][0]) == again.score(steps[0][0])).all()


def test_a_capture_is_a_copy():
    rng, baselines = np.random.default_rng(3), Baselines(SCHEMA, 20.0, 1_000_000)
    baselines.update(*batch(rng))
    captured = baselines.capture()
    before = captured["rates"]["item_rate"]["counts"].copy()
    baselines.update(*batch(rng))
    assert (captured["rates"]["item_rate"]["counts"] == before).all()

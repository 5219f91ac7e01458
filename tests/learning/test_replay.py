"""The reservoir: its law, its storage and its recovery."""

from __future__ import annotations

import numpy as np
import pytest
from model_inputs import examples, setting

from stream_learner.learning.replay import Replay
from stream_learner.learning.replay.buffer import KEEP_STAGE, SCORES


def _numbered(made, start, stop):
    """Examples whose `time` is their number."""
    batch = examples(made, stop - start, seed=start)
    batch.time[:] = np.arange(start, stop)
    return batch


def _held(replay):
    return replay.capture()["columns"]["time"]


def test_every_example_is_held_with_the_same_probability():
    made = setting()
    capacity, total, runs = 20, 120, 600
    batches = [_numbered(made, start, stop) for start, stop in [(0, 7), (7, 20), (20, 21), (21, 60), (60, 120)]]
    counts = np.zeros(total)
    for seed in range(runs):
        replay = Replay(capacity, seed)
        for slide, batch in enumerate(batches):
            replay.add(batch, slide)
        assert len(replay) == capacity and len(set(_held(replay).tolist())) == capacity
        counts[_held(replay)] += 1
    share = capacity / total
    statistic = np.sum((counts - runs * share) ** 2 / (runs * share * (1 - share)))  # chi-square, about `total` degrees
    assert 70 < statistic < 185  # the 0.0001 quantiles


def test_a_slide_goes_in_as_if_one_by_one():
    made = setting()
    replay, slots = Replay(15, seed=5), np.full(15, -1)
    seen = 0
    for slide in range(6):
        batch = _numbered(made, seen, seen + 30)
        replay.add(batch, slide)
        draws = np.random.default_rng([5, KEEP_STAGE, slide]).integers(0, np.arange(seen, seen + 30) + 1)
        for number, drawn in zip(range(seen, seen + 30), draws.tolist(), strict=True):
            slot = number if number < 15 else drawn
            if slot < 15:
                slots[slot] = number
        seen += 30
        assert _held(replay).tolist() == slots.tolist()


def test_rows_stay_whole_and_storage_grows():
    made = setting()
    replay = Replay(5000, seed=0)
    everything = {
        int(batch.time[i]): batch.take(slice(i, i + 1)) for batch in [_numbered(made, 0, 2500)] for i in range(2500)
    }
    replay.add(_numbered(made, 0, 2500), slide=0)
    for row in range(len(drawn := replay.draw(40, slide=1, step=0).examples)):
        one, original = drawn.take(slice(row, row + 1)), everything[int(drawn.time[row])]
        for name, column in one.capture().items():
            if name not in SCORES:
                np.testing.assert_array_equal(column, original.capture()[name])
        assert np.isnan(one.logit_candidate).all() and not one.judged.any()
    assert len(replay) == 2500


def test_draws_are_uniform_and_depend_on_slide_and_step_alone():
    made = setting()
    replay = Replay(50, seed=3)
    replay.add(_numbered(made, 0, 50), slide=0)
    counts = np.bincount(replay.draw(20_000, slide=1, step=0).examples.time, minlength=50)
    assert np.sum((counts - 400) ** 2 / 400) < 95  # chi-square with 49 degrees: 0.0001 quantile
    again = replay.draw(100, 4, 2).examples.time
    replay.draw(9, 4, 3)
    assert np.array_equal(replay.draw(100, 4, 2).examples.time, again)
    assert not np.array_equal(replay.draw(100, 4, 3).examples.time, again)
    assert not np.array_equal(replay.draw(100, 5, 2).examples.time, again)


def test_restored_it_goes_on_as_if_never_interrupted():
    made = setting()
    one = Replay(1500, seed=9)
    for slide in range(3):
        one.add(_numbered(made, slide * 400, slide * 400 + 400), slide)
    state = one.capture()
    two = Replay(1500, seed=9)
    two.restore(state)
    for slide in range(3, 8):
        for replay in (one, two):
            replay.add(_numbered(made, slide * 400, slide * 400 + 400), slide)
        for name, column in one.capture()["columns"].items():
            np.testing.assert_array_equal(column, two.capture()["columns"][name])
        np.testing.assert_array_equal(one.draw(30, slide, 0).examples.time, two.draw(30, slide, 0).examples.time)
    assert state["columns"]["time"].max() < 1200  # a capture is a copy


def test_without_capacity_or_examples_nothing_is_held():
    made = setting()
    none, empty = Replay(0, seed=0), Replay(10, seed=0)
    none.add(_numbered(made, 0, 5), 0)
    empty.add(_numbered(made, 0, 5).take(slice(0, 0)), 0)
    assert len(none) == len(empty) == 0
    with pytest.raises(IndexError, match="empty"):
        empty.draw(1, 0, 0)
    restored = Replay(10, seed=0)
    restored.restore(empty.capture())
    assert len(restored) == 0


def test_passes_take_every_row_held_once_each_in_an_order_of_their_own():
    made = setting()
    replay = Replay(50, seed=4)
    replay.add(_numbered(made, 0, 40), 0)
    assert replay.erase(0, _numbered(made, 0, 40).ids[5:8, 0]) >= 3
    left = sorted(time for time, row in zip(_held(replay), replay.columns["ids"], strict=True) if row.any())
    drawn = list(replay.passes(2, 16, 9))
    assert all(len(one.rows) <= 16 and (one.weights == 1).all() for one in drawn)
    times = np.concatenate([one.examples.time for one in drawn])
    first, second = times[: len(left)], times[len(left) :]
    assert sorted(first) == sorted(second) == left and first.tolist() != second.tolist()
    again = np.concatenate([one.examples.time for one in replay.passes(2, 16, 9)])
    assert np.array_equal(times, again)
    assert not np.array_equal(times, np.concatenate([one.examples.time for one in replay.passes(2, 16, 10)]))
    assert list(Replay(50, seed=4).passes(2, 16, 9)) == []

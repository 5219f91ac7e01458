"""How a slide is cut into steps, and what a budget leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from model_inputs import setting

from stream_learner.learning.batches import batches


def _plan(count, learned=0, slide=0, *, replay=True, **keys):
    learning = ", ".join(f"{name}: {value}" for name, value in keys.items() if name != "ratio")
    made = setting(f"learning: {{batch_size: 40, {learning}}}\nreplay: {{ratio: {keys.get('ratio', 1.0)}}}\n")
    budget = made.config.learning.budget
    return batches(np.arange(count)[::-1].copy(), learned, made.config, slide, budget, replay=replay)


def test_without_a_budget_everything_is_taken_in_order():
    plan = _plan(100, passes=2, ratio=0.3)
    assert [len(rows) for rows in plan.fresh] == [40, 40, 20, 40, 40, 20]
    assert np.array_equal(np.concatenate(plan.fresh), np.tile(np.arange(100), 2))
    assert plan.replayed == [12, 12, 6, 12, 12, 6] and plan.skipped_fresh == plan.skipped_replay == 0


@pytest.mark.parametrize("count", [0, 1, 39, 40, 41])
def test_fractions_of_replayed_rows_are_carried_over(count):
    learned = whole = 0
    for slide in range(9):
        plan = _plan(count, learned, slide, ratio=0.37)
        learned, whole = learned + plan.rows, whole + sum(plan.replayed)
        assert whole == int(learned * 0.37)


def test_a_budget_takes_replay_first_then_passes_then_the_oldest_clicks():
    thinned = _plan(100, passes=2, ratio=1.0, budget=250)
    assert thinned.rows == 200 and sum(thinned.replayed) == 50 and thinned.skipped_replay == 150
    assert max(thinned.replayed) - min(thinned.replayed) <= 6  # batches of 40 get 10, of 20 get 5
    shorter = _plan(100, passes=2, ratio=1.0, budget=130)
    assert sum(shorter.replayed) == 0 and shorter.skipped_replay == 130
    assert shorter.rows == 130 and shorter.skipped_fresh == 70
    assert np.array_equal(np.concatenate(shorter.fresh), np.concatenate([np.arange(100), np.arange(30)]))
    newest = _plan(100, passes=1, budget=60)  # clicks come newest first here
    assert np.array_equal(np.concatenate(newest.fresh), np.arange(60)) and newest.skipped_fresh == 40
    assert _plan(100, replay=False, budget=150).skipped_replay == 0


def test_among_equally_old_clicks_the_seed_decides():
    made = setting("learning: {budget: 50}\n")
    time = np.zeros(100, np.int64)
    chosen = [np.concatenate(batches(time, 0, made.config, slide, 50, replay=False).fresh) for slide in (0, 0, 1)]
    assert np.array_equal(chosen[0], chosen[1]) and not np.array_equal(chosen[0], chosen[2])
    assert all(np.array_equal(rows, np.unique(rows)) and len(rows) == 50 for rows in chosen)

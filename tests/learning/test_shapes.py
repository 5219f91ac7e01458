"""Few shapes for slides of every size."""

from __future__ import annotations

import numpy as np
import pytest
from model_inputs import examples, setting

from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay
from stream_learner.learning.shapes import filled, rows_given

SIZES = [1, 7, 16, 17, 300, 512, 513, 640, 641, 1000, 1025, 8192]


def test_the_least_of_a_short_list_that_is_enough() -> None:
    assert [rows_given(size) for size in SIZES] == [16, 16, 16, 32, 512, 512, 640, 640, 768, 1024, 1280, 8192]
    assert len({rows_given(size) for size in range(1, 8193)}) == 22
    assert all(size <= rows_given(size) <= max(16, 2 * size) for size in range(1, 8193))


def test_a_column_is_filled_with_its_first_row() -> None:
    column = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(filled(column, 5), [[0, 1], [2, 3], [4, 5], [0, 1], [0, 1]])
    assert filled(column, 3) is column


@pytest.mark.parametrize("size", [3, 30, 700])
def test_what_fills_a_batch_up_changes_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = setting("learning: {optimizer: adam, l2: 0.01, dropout: 0, blank_rate: 0}\n")
    found = []
    for plain in (False, True):
        with monkeypatch.context() as patch:
            if plain:
                patch.setattr("stream_learner.learning.training.rows_given", lambda rows: rows)
                patch.setattr("stream_learner.learning.model.rows_given", lambda rows: rows)
            learner = Learner(made.config, made.features)
            replay = Replay(made.config.replay.capacity, made.config.seed)
            for slide in range(3):
                learner.learn(examples(made, size, seed=slide), replay, slide)
            tables = {name: moved.ever.rows() for name, moved in learner._trainer.moved.items()}
            found.append((learner.candidate.values(), learner.score(examples(made, size, seed=9)), tables))
    (values, scores, rows), (plain_values, plain_scores, plain_rows) = found
    np.testing.assert_allclose(scores, plain_scores, rtol=1e-4, atol=1e-5)
    for name in values:
        np.testing.assert_allclose(values[name], plain_values[name], rtol=1e-3, atol=1e-5, err_msg=name)
    for name in rows:
        np.testing.assert_array_equal(rows[name], plain_rows[name])

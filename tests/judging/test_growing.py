"""A growing column against a plain list, through any order of appending and dropping."""

import numpy as np

from stream_learner.judging.growing import GrowingColumn


def test_a_column_is_a_list_with_two_ends():
    rng, plain = np.random.default_rng(0), []
    column = GrowingColumn(np.empty((0, 2), np.int64))
    for _ in range(500):
        rows = rng.integers(0, 99, (int(rng.integers(0, 20)), 2))
        column.append(rows)
        plain += rows.tolist()
        gone = int(rng.integers(0, 1 + min(20, len(plain))))
        column.drop(gone)
        plain = plain[gone:]
        assert column.view.tolist() == plain and len(column) == len(plain)


def test_a_reset_takes_a_copy():
    given = np.arange(3)
    column = GrowingColumn(np.empty(0, np.int64))
    column.reset(given)
    given[0] = 9
    column.append(np.array([3]))
    assert column.view.tolist() == [0, 1, 2, 3]

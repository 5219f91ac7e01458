"""KeyIndex against a dict, mix against the published splitmix64."""

from __future__ import annotations

import numpy as np
import pytest

from stream_learner.keys import KeyIndex, mix


class DictIndex:
    """The same contract with a dict and a list."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.free: list[int] = []
        self.next_row = 0

    def find_or_add(self, keys: np.ndarray) -> tuple[list[int], list[int]]:
        new = []
        for key in keys.tolist():
            if key not in self.rows:
                new.append(key)
                if self.free:
                    self.rows[key] = self.free.pop(0)
                else:
                    self.rows[key] = self.next_row
                    self.next_row += 1
        return [self.rows[key] for key in keys.tolist()], new

    def remove_rows(self, rows: np.ndarray) -> None:
        gone = set(rows.tolist())
        self.rows = {key: row for key, row in self.rows.items() if row not in gone}
        self.free = sorted(self.free + list(gone))


def random_keys(rng: np.random.Generator, n: int, space: int) -> np.ndarray:
    """Keys from all over the 64 bits, repeating."""
    spread = np.random.default_rng(99).integers(1, 2**64, space, dtype=np.uint64)
    return spread[rng.integers(0, space, n)]


@pytest.mark.parametrize("seed", range(8))
def test_equals_a_dict_through_adding_removing_and_restoring(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index, oracle = KeyIndex(), DictIndex()
    for _ in range(60):
        keys = random_keys(rng, int(rng.integers(0, 80)), 500)
        rows, new = index.find_or_add(keys)
        expected_rows, expected_new = oracle.find_or_add(keys)
        assert rows.tolist() == expected_rows
        assert new.tolist() == expected_new
        if rng.random() < 0.3:
            held = np.array(sorted(oracle.rows.values()), np.int64)
            gone = rng.permutation(held)[: int(rng.integers(0, len(held) + 1))]
            index.remove_rows(gone)
            oracle.remove_rows(gone)
        if rng.random() < 0.2:
            state = index.capture()
            index.find_or_add(random_keys(rng, 30, 10_000))  # must not reach the captured copy
            index = KeyIndex()
            index.restore(state)
        probe = random_keys(rng, 50, 700)
        assert index.find(probe).tolist() == [oracle.rows.get(key, -1) for key in probe.tolist()]
        assert len(index) == len(oracle.rows)
        assert index.row_limit == oracle.next_row
        keys, rows = index.items()
        assert keys.tolist() == sorted(oracle.rows)
        assert dict(zip(keys.tolist(), rows.tolist(), strict=True)) == oracle.rows


def test_empty_index_and_empty_queries() -> None:
    index = KeyIndex()
    nothing = np.empty(0, np.uint64)
    assert index.find(np.array([1, 2], np.uint64)).tolist() == [-1, -1]
    rows, new = index.find_or_add(nothing)
    assert len(rows) == len(new) == len(index) == index.row_limit == 0
    index.remove_rows(np.empty(0, np.int64))
    assert index.items()[0].tolist() == []


def test_restored_state_is_not_shared() -> None:
    index = KeyIndex()
    index.find_or_add(np.arange(1, 100, dtype=np.uint64))
    state = index.capture()
    index.restore(state)
    index.remove_rows(np.arange(50))
    state["keys"][:] = 0
    assert index.find(np.array([60, 3], np.uint64)).tolist() == [59, -1]


def splitmix(*values: int) -> int:
    """Python integers, from the paper."""
    out, word = 0, 2**64 - 1
    for value in values:
        z = ((out ^ value) + 0x9E3779B97F4A7C15) & word
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
        out = z ^ (z >> 31)
    return out


def test_mix_is_splitmix64_and_depends_on_order() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 2**64, 200, dtype=np.uint64) for _ in range(2))
    assert mix(a, b).tolist() == [splitmix(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert mix(np.zeros(1, np.uint64)).tolist() == [0xE220A8397B1DCDAF]  # first output of the generator seeded with 0
    assert not np.any(mix(a, b) == mix(b, a))
    kept = a.copy()
    mix(a, b)
    assert np.array_equal(a, kept)

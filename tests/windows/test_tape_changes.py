"""What changed of a tape, put onto what was captured before, is the tape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from streams import onto

from stream_learner.changes import Changed
from stream_learner.windows.tape import Tape

DAYS = 120


def same(tape: Tape, state: dict[str, Any]) -> None:
    other = Tape(block_rows=5)
    other.restore(state)
    assert (other.start, other.stop) == (tape.start, tape.stop)
    seen, wanted = other.read(other.start, other.stop), tape.read(tape.start, tape.stop)
    assert seen.keys() == wanted.keys()
    for name, column in wanted.items():
        assert seen[name].dtype == column.dtype
        assert np.array_equal(seen[name], column), name


@pytest.mark.parametrize("seed", range(12))
def test_changes_add_up_to_the_tape(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tape, state, told = Tape(block_rows=7), Tape().capture(), 0
    for day in range(DAYS):
        size = 30 if day // 20 % 2 else 4  # what is held grows and shrinks
        n = int(rng.integers(0, size))
        tape.append(a=rng.integers(0, 99, n), b=rng.random((n, 3)).astype(np.float32), c=np.zeros(n, np.int64))
        if rng.random() < 0.6:
            tape.drop(max(tape.start, tape.stop - int(rng.integers(0, 3 * size))))
        held = np.arange(tape.start, tape.stop)
        some = held[rng.random(len(held)) < 0.2]
        tape.put("a", some, rng.integers(100, 999, len(some)))
        tape.replace("c", 0, some[::2], np.full(len(some[::2]), day))
        if rng.random() < 0.05 and len(held):
            tape.erase(held[:: max(1, len(held) // 3)])
        if rng.random() < 0.5:
            now = tape.changes()
            told += any(isinstance(leaf, Changed) for leaf in now["columns"].values())
            state = onto(state, now)
            same(tape, state)
        if rng.random() < 0.1:
            tape = Tape(block_rows=7)
            tape.restore(state)
    assert told > DAYS // 10


def test_only_rows_that_came_or_were_rewritten_are_told() -> None:
    tape = Tape(block_rows=4)
    tape.append(a=np.arange(100), b=np.arange(100.0))
    tape.capture()
    tape.drop(40)
    tape.append(a=np.arange(100, 110), b=np.arange(100.0, 110.0))
    tape.put("a", np.array([50, 105]), np.array([-1, -2]))
    told = tape.changes()["columns"]
    assert len(told["b"].rows) == 10
    assert len(told["a"].rows) == 11
    assert sorted(told["a"].values.tolist()) == sorted([-1, -2, *range(100, 105), *range(106, 110)])
    assert [len(leaf.rows) for leaf in tape.changes()["columns"].values()] == [0, 0]


def test_what_was_changed_block_by_block_is_told_whole() -> None:
    tape = Tape(block_rows=4)
    tape.append(a=np.arange(10))
    tape.capture()
    for block in tape.blocks():
        block["a"][:] = 7
    assert not isinstance(tape.changes()["columns"]["a"], Changed)


def test_an_empty_tape_has_states_too() -> None:
    tape = Tape()
    for _ in range(2):
        assert tape.changes() == {"start": 0, "stop": 0, "columns": {}}
        tape.restore(tape.capture())
    tape.append(a=np.arange(3))
    tape.drop(3)
    state = onto({"columns": {}}, tape.changes())
    same(tape, state)
    same(tape, onto(state, tape.changes()))

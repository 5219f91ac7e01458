"""Deltas between versions: what differs and nothing else, as a file that is a function of the two."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_learner.changes import Buffers, Changed
from stream_learner.errors import StateError
from stream_learner.learning.tables import PADDING
from stream_learner.publishing.deltas import Delta, MapChange, between, merged_rows
from stream_learner.publishing.standing import Standing

HEIGHT = 40


def made_up(seed: int) -> dict[str, np.ndarray]:
    """A table, an exact table's ids, travelling aggregates and dense weights."""
    rng = np.random.default_rng(seed)
    ids, keys = (np.sort(rng.choice(60, rng.integers(0, HEIGHT + 1), replace=False)) - 30 for _ in range(2))
    values = rng.integers(0, 3, (HEIGHT, 2)).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    rows = np.full(HEIGHT, 1, np.int32)
    rows[: len(ids)] = rng.permutation(HEIGHT)[: len(ids)] + 2
    values[len(keys) :] = np.float32([0.0, np.nan])
    return {
        "table/user": rng.integers(0, 3, (100, 4)).astype(np.float32),
        "exact/user/fingerprints": np.append(ids, np.full(HEIGHT - len(ids), PADDING)),
        "exact/user/rows": rows,
        "aggregates/item/keys": np.append(keys, np.full(HEIGHT - len(keys), PADDING)),
        "aggregates/item/values": values,
        "network/000_kernel": rng.standard_normal((3, 2)).astype(np.float32),
    }


def applied(before: dict[str, np.ndarray], delta: Delta) -> dict[str, np.ndarray]:
    after = {name: value.copy() for name, value in before.items()} | delta.whole
    for name, (rows, values) in delta.tables.items():
        after[name][rows] = values
    for stem, (one, other) in {"exact/user": ("fingerprints", "rows"), "aggregates/item": ("keys", "values")}.items():
        pair = delta.maps[stem].onto((before[f"{stem}/{one}"], before[f"{stem}/{other}"]))
        after[f"{stem}/{one}"], after[f"{stem}/{other}"] = pair
    return after


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one.keys() | other.keys())


@pytest.mark.parametrize("seed", range(30))
def test_a_delta_leads_to_the_next_version_bit_for_bit(seed):
    before, after = made_up(seed), made_up(seed + 1000)
    delta = Delta.from_bytes(between(before, after).to_bytes())
    assert same(applied(before, delta), after)
    assert same(applied(before, between(before, before)), before)


def test_equal_bits_are_no_difference_and_minus_zero_is_one():
    before = made_up(1)
    after = {name: value.copy() for name, value in before.items()}
    nothing = between(before, after)
    assert not len(nothing.tables["table/user"][0])
    assert all(not len(change.gone) and not len(change.keys) for change in nothing.maps.values())
    before["table/user"][7] = 0.0
    after["table/user"][7] = -0.0
    np.testing.assert_array_equal(between(before, after).tables["table/user"][0], [7])


def test_ids_that_left_are_tombstones():
    before = np.array([1, 5, 9, PADDING]), np.array([2, 3, 4, 1], np.int32)
    after = np.array([1, 7, 9, PADDING]), np.array([2, 3, 5, 1], np.int32)
    change = MapChange.between(before, after)
    assert (change.gone.tolist(), change.keys.tolist(), change.held.tolist()) == ([1, 2], [7, 9], [3, 5])
    with pytest.raises(StateError, match="tombstone"):
        change.onto((np.array([1, 5, PADDING, PADDING]), before[1]))
    with pytest.raises(StateError, match="do not fit"):
        MapChange(np.array([], np.int64), np.array([5]), np.array([2], np.int32), np.array([1], np.int32)).onto(before)


def test_touched_rows_that_are_as_before_are_left_out_and_the_file_depends_on_content_alone():
    before, after = made_up(3), made_up(4)
    touched = np.arange(100)
    told = {**after, "table/user": Changed(touched, after["table/user"], 100)}
    one, other = between(before, told), between(before, after)
    assert one.to_bytes() == other.to_bytes()
    assert 0 < len(one.tables["table/user"][0]) < 100


def test_several_deltas_of_a_table_are_one_the_last_of_a_row_counting():
    def values(*held: int) -> np.ndarray:
        return np.array(held, np.float32)[:, None]

    rows, held = merged_rows([(np.array([1, 4, 8]), values(1, 1, 1)), (np.array([2, 4]), values(2, 2))])
    assert (rows.tolist(), held[:, 0].tolist()) == ([1, 2, 4, 8], [1, 2, 2, 1])


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_delta_is_refused(content):
    with pytest.raises(StateError, match=r"delta\.npz is torn"):
        Delta.from_bytes(content)


def test_numbers_that_are_none_are_refused():
    delta = between(made_up(1), made_up(2))
    rows, values = delta.tables["table/user"]
    change = delta.maps["exact/user"]
    for odd in (
        replace(delta, tables={"table/user": (rows.astype(float), values)}),
        replace(delta, tables={"table/user": (rows[1:], values)}),
        replace(delta, maps={"exact/user": replace(change, gone=change.gone[:, None])}),
        replace(delta, maps={"exact/user": replace(change, pad=change.pad[:0])}),
    ):
        with pytest.raises(StateError, match="torn"):
            Delta.from_bytes(odd.to_bytes())


def test_a_delta_cut_anywhere_is_refused():
    content = between(made_up(1), made_up(2)).to_bytes()
    for cut in range(0, len(content) - 1, 97):
        with pytest.raises(StateError):
            Delta.from_bytes(content[:cut])


def test_what_stands_moves_on_by_what_is_told():
    standing, first, second = Standing(), made_up(1), made_up(2)
    standing.advance(10, first, None, lambda arrays: "one")
    assert (standing.delta, standing.content, standing.beside(1.0)) == (None, "one", None)
    rows = np.flatnonzero((first["table/user"] != second["table/user"]).any(axis=1))
    told = {**second, "table/user": Changed(rows, second["table/user"][rows], 100)}
    for _ in range(2):  # a write is tried again
        standing.advance(20, told, 10, lambda arrays: "two")
        assert same(standing.arrays, second)
        parent, content = standing.beside(99.0)
        assert (parent.parent, parent.content_sha256, standing.content) == (10, "one", "two")
        assert same(applied(made_up(1), Delta.from_bytes(content)), second)
    assert standing.beside(0.1) is None
    with pytest.raises(ValueError, match="told against 10, but 20"):
        standing.advance(30, told, 10, lambda arrays: "three")
    with pytest.raises(ValueError, match="nothing stands before"):
        Standing().advance(30, told, None, lambda arrays: "three")


def test_buffers_are_used_again_when_nobody_holds_what_was_in_them():
    buffers, array = Buffers(), np.arange(40, dtype=np.float32).reshape(10, 4)
    one = buffers.take(array, np.array([1, 2]))
    other = buffers.take(array, np.array([3]))
    held = one[:1]
    place = other.ctypes.data
    np.testing.assert_array_equal(one, array[[1, 2]])
    del one, other
    third = buffers.take(array, np.array([5]))
    assert third.ctypes.data == place
    np.testing.assert_array_equal(held, array[[1]])
    np.testing.assert_array_equal(third, array[[5]])
    assert buffers.take(array, np.array([], np.int64)).shape == (0, 4)

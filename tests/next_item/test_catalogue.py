"""Items come, wait, get rows, go, and leave their rows to others."""

from __future__ import annotations

import numpy as np
import pytest

from stream_learner import config as configs
from stream_learner.next_item.catalogue import NO_ROW, Catalogue
from stream_learner.next_item.names import ItemNames

HOUR_US = 3_600_000_000


def catalogue(**values: object) -> Catalogue:
    listed = ", ".join(f"{key}: {value}" for key, value in {"capacity": 32, **values}.items())
    return Catalogue(configs.parse(f"next_item: {{catalogue: {{{listed}}}, popularity: {{half_life: 1h}}}}").next_item)


def step(held: Catalogue, items: list[int], hour: float) -> tuple[list[int], list[int]]:
    times = np.full(len(items), round(hour * HOUR_US), np.int64)
    freed, given = held.step(np.array(items, np.uint64), times, round((hour + 1) * HOUR_US))
    return freed.tolist(), given.tolist()


def rows(held: Catalogue, *items: int) -> list[int]:
    return held.rows(np.array(items, np.uint64)).tolist()


def test_an_item_gets_a_row_once_it_was_seen_often_enough() -> None:
    held = catalogue(admit_after=3)
    assert step(held, [5, 5, 9], 0) == ([], [])
    assert rows(held, 5, 9) == [NO_ROW, NO_ROW] and held.seen == 2
    assert step(held, [9, 5, 9], 1) == ([], [1, 2])
    assert rows(held, 9, 5) == [1, 2]  # by first event in the slide


def test_an_expired_item_leaves_its_row_to_the_next() -> None:
    held = catalogue(expire_after="2h")
    step(held, [1, 2], 0)
    assert step(held, [2], 2) == ([1], [])
    assert rows(held, 1, 2) == [NO_ROW, 2] and held.expired == 1 and held.seen == 1
    assert step(held, [7], 3) == ([], [1])
    assert step(held, [1], 4) == ([2], [2])  # who comes back begins anew
    assert rows(held, 1, 2, 7) == [2, NO_ROW, 1]


def test_of_items_without_a_row_the_longest_unseen_are_forgotten() -> None:
    held = catalogue(admit_after=3, waiting=16)
    step(held, [90, 90, 90], 0)  # has a row, however long ago
    for hour in range(1, 31):
        step(held, [hour], hour)
    assert held.seen == 1 + 16 and held.forgotten == 14 and rows(held, 90) == [1]
    assert step(held, [30, 30, 14, 14], 31) == ([], [2])  # 30 was counted before, 14 begins anew
    assert held.seen == 2 + 16 and 14 in held.known().tolist() and 13 not in held.known().tolist()
    again = catalogue(admit_after=3, waiting=16)
    again.restore(held.capture())
    assert again.forgotten == 14 and step(again, [14], 32) == step(held, [14], 32) == ([], [3])


def described(**values: object) -> Catalogue:
    listed = ", ".join(f"{key}: {value}" for key, value in {"capacity": 16, "admit_after": 3, **values}.items())
    network = "network: {features: [category], feature_rows: 16}"
    text = f"next_item: {{catalogue: {{{listed}}}, {network}}}\ntopics: {{events: {{categorical: {{category: c}}}}}}"
    return Catalogue(configs.parse(text).next_item)


def told(held: Catalogue, pairs: list[tuple[int, int]], hour: int) -> tuple[list[int], list[int]]:
    """Items and their categories, 0 = missing."""
    columns = np.array(pairs, np.uint64).reshape(-1, 2)
    times, end = np.full(len(pairs), hour * HOUR_US, np.int64), (hour + 1) * HOUR_US
    freed, given = held.step(columns[:, 0].copy(), times, end, columns[:, 1:])
    return freed.tolist(), given.tolist()


def test_what_has_features_takes_a_free_row_at_once_and_is_cold() -> None:
    held = described()
    assert told(held, [(5, 40), (6, 0)], 0) == ([], [1])  # 6 says nothing of itself
    assert held.own()[1] == False and held.features()[1].tolist() == [1 + 40 % 16]  # noqa: E712
    assert told(held, [(5, 0), (5, 41)], 1) == ([], [])
    assert held.own()[1] and held.features()[1].tolist() == [1 + 41 % 16]  # the latest that was told
    assert (held.shares(0) >= 0).sum() == len(held) == 1


def test_cold_items_give_their_rows_to_those_that_are_due() -> None:
    held = described()
    told(held, [(item, 7) for item in range(1, 17)], 0)
    assert len(held) == 16 and not held.own().any() and held.waiting == 0
    told(held, [(1, 7)], 1)
    freed, given = told(held, [(90, 0), (90, 0), (90, 0), (91, 7)], 2)
    assert freed == given == [2]  # of the longest unseen the first; 1 came again, and 91 is cold itself
    assert rows(held, 90, 2, 91, 1) == [2, NO_ROW, NO_ROW, 1] and held.own()[2]
    again = described()
    again.restore(held.capture())
    assert np.array_equal(again.features(), held.features()) and told(again, [(1, 7)], 3) == told(held, [(1, 7)], 3)


def test_a_full_catalogue_makes_items_wait() -> None:
    held = catalogue(capacity=16, expire_after="5h")
    step(held, list(range(1, 19)), 0)
    assert len(held) == 16 and held.waiting == 2
    step(held, list(range(3, 19)), 4)
    freed, given = step(held, [17, 18], 6)
    assert freed == [1, 2] and given == [1, 2] and rows(held, 17, 18) == [1, 2] and held.waiting == 0


def test_popularity_halves_every_half_life() -> None:
    held = catalogue()
    step(held, [1, 1, 1, 1], 0)
    step(held, [2], 2)
    shares = held.shares(3 * HOUR_US)
    assert shares[1:3] == pytest.approx([0.5, 0.5]) and shares[0] == shares[3] == -1
    assert held.shares(9 * HOUR_US)[1:3] == pytest.approx([0.5, 0.5])


def test_new_is_what_came_in_after_a_moment() -> None:
    held = catalogue()
    step(held, [1], 0)
    step(held, [2], 5)
    new = held.new(np.array([1, 2, 3], np.uint64), 3 * HOUR_US)
    assert new.tolist() == [False, True, True]


def test_what_is_captured_goes_on_alike() -> None:
    one = catalogue(expire_after="3h", admit_after=2)
    rng = np.random.default_rng(0)
    for hour in range(6):
        step(one, rng.integers(1, 12, 10).tolist(), hour)
    other = catalogue(expire_after="3h", admit_after=2)
    other.restore(one.capture())
    for hour in range(6, 12):
        items = rng.integers(1, 12, 10).tolist()
        assert step(one, items, hour) == step(other, items, hour)
    assert np.array_equal(one.shares(12 * HOUR_US), other.shares(12 * HOUR_US))


def test_names_are_kept_for_who_needs_them_and_survive_a_snapshot() -> None:
    names = ItemNames()
    names.note(np.array([3, 1, 2], np.uint64), ["drei", "", "zwölf\0"])
    names.keep(np.array([3], np.uint64), np.array([2], np.uint64))
    other = ItemNames()
    other.restore(names.capture())
    assert len(other) == 2 and other.of(np.array([2, 3], np.uint64)) == ["zwölf\0".encode(), b"drei"]

"""The queues between polling and learning, without a broker."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from stream_learner.errors import UnavailableError
from stream_learner.ingest.lanes import Lanes
from stream_learner.ingest.source import Partition, RecordBatch

A, B = Partition("t", 0), Partition("t", 1)


def batch(partition: Partition, first: int, count: int, next_offset: int | None = None) -> RecordBatch:
    offsets = np.arange(first, first + count, dtype=np.int64)
    end = first + count if next_offset is None else next_offset
    return RecordBatch(partition, offsets, np.full(count, -1, np.int64), [b"x"] * count, end)


def lanes(capacity: int = 10, fixed_end: int | None = None, capacity_bytes: int = 1_000_000) -> Lanes:
    made = Lanes(capacity, capacity_bytes)
    for partition in (A, B):
        made.open(partition, 0, fixed_end or 0, fixed_end)
    return made


def test_the_oldest_batch_of_the_lane_with_the_fewest_taken() -> None:
    made = lanes(100)
    for first in (0, 5):
        made.put(batch(A, first, 5))
        made.put(batch(B, first, 5))
    order = [made.take({A, B}, 0.0) for _ in range(4)]
    assert [(b.partition, int(b.offsets[0])) for b in order if b] == [(A, 0), (B, 0), (A, 5), (B, 5)]


def test_pausing_at_capacity_and_resuming_below_half() -> None:
    made = lanes(10)
    for first in (0, 4, 8):
        assert made.throttle() == ([], [])
        made.put(batch(A, first, 4))
    assert made.throttle() == ([A], [])
    assert made.throttle() == ([], [])
    made.take({A}, 0.0)  # 8 wait
    assert made.throttle() == ([], [])
    made.take({A}, 0.0)  # 4 wait
    assert made.throttle() == ([], [A])


def test_bytes_pause_a_lane_too() -> None:
    made = lanes(1000, capacity_bytes=10)  # a byte a record
    made.put(batch(A, 0, 6))
    assert made.throttle() == ([], []) and made.waiting() == (6, 6)
    made.put(batch(A, 6, 4))
    assert made.throttle() == ([A], [])
    made.take({A}, 0.0)
    assert made.throttle() == ([], [A]) and made.waiting() == (4, 4)


def test_what_lies_beyond_the_fixed_end_is_cut() -> None:
    made = lanes(100, fixed_end=7)
    made.put(batch(A, 0, 10))
    assert made.throttle() == ([A], [])
    assert made.ended() == frozenset()
    taken = made.take({A}, 0.0)
    assert taken is not None
    assert taken.offsets.tolist() == list(range(7))
    assert taken.next_offset == 7
    assert made.ended() == {A}
    assert made.take({A}, 5.0) is None  # at once
    assert made.throttle() == ([], [])  # a complete lane is never resumed


def test_an_end_behind_a_gap_is_reached_by_position() -> None:
    made = lanes(100, fixed_end=7)
    made.put(batch(A, 0, 5))
    made.put(batch(A, 5, 0, next_offset=8))
    taken = made.take({A}, 0.0)
    assert taken is not None
    assert (len(taken), taken.next_offset) == (5, 7)
    assert made.ended() == {A}


def test_a_gap_alone_is_a_batch_without_records() -> None:
    made = lanes()
    made.put(batch(A, 0, 0, next_offset=3))
    taken = made.take({A}, 0.0)
    assert taken is not None
    assert (len(taken), taken.next_offset) == (0, 3)


def test_quiet_time_runs_between_looks_that_find_nothing() -> None:
    made = lanes()
    made.put(batch(A, 0, 3))
    made.seen_ends({A: 3, B: 0}, 100.0)
    assert made.quiet_s(A) == 0.0  # read, but not handed over
    made.take({A}, 0.0)
    made.seen_ends({A: 3, B: 0}, 101.0)
    assert (made.quiet_s(A), made.quiet_s(B)) == (0.0, 1.0)
    made.seen_ends({A: 3, B: 1}, 105.0)
    assert (made.quiet_s(A), made.quiet_s(B)) == (4.0, 0.0)
    made.silence()
    assert made.quiet_s(A) == 0.0
    made.seen_ends({A: 3, B: 1}, 110.0)
    assert made.quiet_s(A) == 0.0  # counted anew


def test_lag_is_what_waits_and_what_is_not_fetched() -> None:
    made = lanes()
    made.put(batch(A, 0, 3))
    made.seen_ends({A: 10, B: 4}, 0.0)
    assert made.lag() == {A: 10, B: 4}
    made.take({A}, 0.0)
    assert made.lag() == {A: 7, B: 4}


def test_a_failure_is_met_after_what_waits() -> None:
    made = lanes()
    made.put(batch(A, 0, 3))
    made.fail(UnavailableError("first"))
    made.fail(UnavailableError("second"))
    assert made.take({A, B}, 0.0) is not None
    with pytest.raises(UnavailableError, match="first"):
        made.take({A, B}, 5.0)


def test_take_wakes_at_once_and_gives_up_in_time() -> None:
    made = lanes()
    before = time.monotonic()
    assert made.take({A}, 0.1) is None
    assert 0.09 < time.monotonic() - before < 2.0
    threading.Timer(0.1, lambda: made.put(batch(A, 0, 1))).start()
    assert made.take({A}, 10.0) is not None
    assert time.monotonic() - before < 5.0


def test_room_is_waited_for() -> None:
    made = lanes(4)
    assert made.wait_for_room(0.0)
    for partition in (A, B):
        made.put(batch(partition, 0, 4))
    made.throttle()
    assert not made.wait_for_room(0.05)
    threading.Timer(0.1, lambda: made.take({A}, 0.0)).start()
    assert made.wait_for_room(10.0)


def test_random_traffic_keeps_every_record_once_and_the_queue_bounded() -> None:
    rng = np.random.default_rng(11)
    made = lanes(50, fixed_end=1000)
    fetched = {A: 0, B: 0}
    paused: set[Partition] = set()
    seen: dict[Partition, list[int]] = {A: [], B: []}
    while made.ended() != {A, B}:
        pause, resume = made.throttle()
        paused = (paused | set(pause)) - set(resume)
        for partition in sorted({A, B} - paused):
            count = int(rng.integers(0, 20))
            made.put(batch(partition, fetched[partition], count))
            fetched[partition] += count
        if rng.random() < 0.7:
            taken = made.take({A, B} if rng.random() < 0.8 else {B}, 0.0)
            if taken is not None:
                seen[taken.partition] += taken.offsets.tolist()
        assert all(waiting < 70 for waiting in (made.lag()[p] - (1000 - min(fetched[p], 1000)) for p in (A, B)))
    assert seen == {A: list(range(1000)), B: list(range(1000))}

"""Fingerprints, pseudonyms, and repeats dropped exactly, against a plain loop."""

from hashlib import blake2b

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_learner.errors import DataError
from stream_learner.events import MISSING_ID, EventBatch, EventSchema
from stream_learner.ingest.identity import Deduplicator, Pseudonymiser, fingerprints
from stream_learner.settings import Duration

SCHEMA = EventSchema(("events",), ("click",), ("user", "item", "session"), ())
SECOND = 1_000_000


def test_fingerprints_are_farmhash_of_the_text() -> None:
    texts = ["a", "", "é", "a\0", "12", "x" * 1000, "a", ""]
    prints = fingerprints(texts)
    assert prints.dtype == np.uint64 and prints[0] == 12917804110809363939  # Fingerprint64("a")
    assert prints[1] == prints[7] == MISSING_ID and prints[0] == prints[6]
    assert len(set(prints.tolist())) == 6
    rest = [0, 2, 3, 4, 5]
    raw = tf.fingerprint([texts[row].encode() for row in rest]).numpy().view(np.uint64).ravel()
    assert prints[rest].tolist() == raw.tolist()
    assert len(fingerprints([])) == 0 and fingerprints([]).dtype == np.uint64


def test_fingerprints_do_not_depend_on_neighbours() -> None:
    texts = [str(number) for number in range(1000)]
    assert fingerprints(texts)[::-1].tolist() == fingerprints(texts[::-1]).tolist()


def test_pseudonyms() -> None:
    one, other = Pseudonymiser("a key of sixteen+"), Pseudonymiser("another key, longer than 64 bytes " * 5)
    names = one.pseudonyms(["ann", "bob", "", "ann"])
    assert names[0] == names[3] and names[2] == "" and len({*names, *other.pseudonyms(["ann", "bob"])}) == 5
    assert all(len(name) == 32 and int(name, 16) for name in (names[0], names[1]))
    assert Pseudonymiser("a key of sixteen+").pseudonyms(["ann"]) == names[:1]
    by_hand = blake2b(b"ann", digest_size=16, key=blake2b(b"a key of sixteen+").digest()).hexdigest()
    assert names[0] == by_hand


def batch(rows: list[tuple[int, int]]) -> EventBatch:
    """Events of (seconds, event id), in log order."""
    count = len(rows)
    columns = EventBatch.empty(SCHEMA).capture()
    columns = {name: np.zeros((count, *column.shape[1:]), column.dtype) for name, column in columns.items()}
    columns["time"] = np.array([row[0] * SECOND for row in rows], np.int64)
    columns["event_id"] = np.array([row[1] for row in rows], np.uint64)
    columns["offset"] = np.arange(count)
    return EventBatch(**columns)


def seconds(count: int) -> Duration:
    return Duration(count * SECOND)


def oracle(batches: list[list[tuple[int, int]]], window: int) -> list[list[bool]]:
    kept: dict[int, int] = {}
    out = []
    for rows in batches:
        out.append([])
        for time, event_id in rows:
            fresh = event_id == 0 or event_id not in kept or time - kept[event_id] > window
            if fresh:
                kept[event_id] = time
            out[-1].append(fresh)
    return out


def test_a_repeat_within_the_window_is_dropped() -> None:
    seen = Deduplicator(seconds(10), 1000)
    assert seen.fresh(batch([(0, 1), (0, 1), (3, 2), (10, 1)])).tolist() == [True, False, True, False]
    assert seen.fresh(batch([(11, 1), (12, 2), (21, 1), (22, 1)])).tolist() == [True, False, False, True]


def test_a_drizzle_of_repeats_does_not_extend_itself() -> None:
    seen = Deduplicator(seconds(10), 1000)
    kept = [seen.fresh(batch([(time, 5)])).item() for time in range(40)]
    assert [time for time, fresh in enumerate(kept) if fresh] == [0, 11, 22, 33]
    assert Deduplicator(seconds(10), 1000).fresh(batch([(time, 5) for time in range(40)])).tolist() == kept


def test_more_ids_than_allowed_stop_the_worker_and_name_the_key() -> None:
    seen = Deduplicator(seconds(10), 3)
    seen.fresh(batch([(0, 1), (1, 2), (2, 3)]))
    seen.fresh(batch([(12, 4), (13, 5), (13, 6)]))  # the first ones are forgotten by now
    with pytest.raises(DataError, match=r"4 event ids are remembered, more than dedupe\.max_ids 3"):
        seen.fresh(batch([(14, 7)]))


def test_events_without_an_id_are_kept() -> None:
    seen = Deduplicator(seconds(10), 1000)
    assert seen.fresh(batch([(0, 0), (0, 0), (1, 0)])).all() and len(seen) == 0
    assert len(seen.fresh(batch([]))) == 0


def test_old_ids_are_forgotten() -> None:
    seen = Deduplicator(seconds(10), 1000)
    seen.fresh(batch([(time, time + 1) for time in range(100)]))
    assert len(seen) == 11
    seen.fresh(batch([(200, 0)]))
    assert len(seen) == 0


def test_a_window_of_nothing_drops_only_the_same_time() -> None:
    seen = Deduplicator(seconds(0), 1000)
    assert seen.fresh(batch([(0, 1), (0, 1), (1, 1)])).tolist() == [True, False, True]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), max_size=30), max_size=8), st.integers(0, 12))
def test_against_a_plain_loop(steps: list[list[tuple[int, int]]], window: int) -> None:
    time = 0
    batches = []
    for step in steps:
        batches.append([])
        for gap, event_id in step:
            time += gap
            batches[-1].append((time, event_id))
    seen = Deduplicator(seconds(window), 1000)
    assert [seen.fresh(batch(rows)).tolist() for rows in batches] == oracle(batches, window)


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_restored_goes_on_as_if_never_interrupted(stop: int) -> None:
    rng = np.random.default_rng(9)
    times = np.sort(rng.integers(0, 500, 3000))
    ids = rng.integers(0, 400, 3000)
    rows = list(zip(times.tolist(), ids.tolist(), strict=True))
    batches = [rows[start : start + 500] for start in range(0, 3000, 500)]
    whole, first, second = (Deduplicator(seconds(40), 1000) for _ in range(3))
    expected = [whole.fresh(batch(part)).tolist() for part in batches]
    assert expected == oracle(batches, 40) and 500 < sum(map(sum, expected)) < 2900
    ours = [first.fresh(batch(part)).tolist() for part in batches[:stop]]
    state = first.capture()
    first.fresh(batch(batches[stop]))  # what was captured must not move with it
    second.restore(state)
    ours += [second.fresh(batch(part)).tolist() for part in batches[stop:]]
    assert ours == expected
    for name, column in whole.capture().items():
        np.testing.assert_array_equal(column, second.capture()[name])

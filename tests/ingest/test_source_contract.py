"""What every source promises, tried on each: in memory, files of every form, Kafka by both clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from worlds import InFiles, InKafka, InMemory, Values, World, row, timestamp

from stream_learner.errors import ConfigError, DataError
from stream_learner.ingest.source import Partition, RecordBatch, Source

KINDS = ["memory", "jsonl", "gzip", "parquet", "followed", "archived_gzip", "archived_parquet", "kafka", "confluent"]
BROKERS = {"kafka", "confluent"}
_DEADLINE_S = 20.0


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.kafka] * (kind in BROKERS)) for kind in KINDS])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    forms = {
        "memory": InMemory,
        "jsonl": lambda: InFiles(tmp_path / "log", "jsonl"),
        "gzip": lambda: InFiles(tmp_path / "log", "jsonl.gz"),
        "parquet": lambda: InFiles(tmp_path / "log", "parquet"),
        "followed": lambda: InFiles(tmp_path / "log", "jsonl", follow=True),
        "archived_gzip": lambda: InFiles(tmp_path / "log", "jsonl.gz", archived=True),
        "archived_parquet": lambda: InFiles(tmp_path / "log", "parquet", archived=True),
        "kafka": lambda: InKafka(request.getfixturevalue("kafka")),
        "confluent": lambda: InKafka(request.getfixturevalue("kafka"), client="confluent"),
    }
    made: World = forms[request.param]()
    return made


@pytest.fixture
def opened(world: World) -> Iterator[Callable[..., Source]]:
    """Opens sources on the world, and closes them."""
    sources: list[Source] = []

    def open_one(start: str = "earliest") -> Source:
        sources.append(world.open(start))
        return sources[-1]

    yield open_one
    for source in sources:
        source.close()


def rows(count: int, first: int = 0) -> Values:
    return [row(n) for n in range(first, first + count)]


def drain(source: Source, wanted: Mapping[Partition, int], until: Callable[[], bool]) -> list[RecordBatch]:
    batches = []
    deadline = time.monotonic() + _DEADLINE_S
    while not until():
        assert time.monotonic() < deadline, f"nothing more after {len(batches)} batches"
        batch = source.poll(set(wanted), 0.1)
        if batch is not None:
            batches.append(batch)
    return batches


def read(source: Source, wanted: Mapping[Partition, int], count: int) -> list[RecordBatch]:
    """The next batches, until they hold `count` records."""
    batches: list[RecordBatch] = []
    deadline = time.monotonic() + _DEADLINE_S
    while sum(map(len, batches)) < count:
        assert time.monotonic() < deadline, f"only {sum(map(len, batches))} of {count} records came"
        batch = source.poll(set(wanted), 0.1)
        batches += [batch] if batch is not None else []
    return batches


def read_all(source: Source, positions: Mapping[Partition, int] | None = None) -> dict[int, list[RecordBatch]]:
    """Reads to the fixed end; batches by partition number."""
    begin = source.start(positions, until_end=True)
    batches = drain(source, begin, lambda: source.ended() >= set(begin))
    assert source.poll(set(begin), 5.0) is None  # at once: there is nothing to wait for
    return {p.index: [b for b in batches if b.partition == p] for p in begin}


def values(batches: list[RecordBatch]) -> Values:
    return [value for batch in batches for value in batch.values]


def offsets(batches: list[RecordBatch]) -> list[int]:
    return np.concatenate([batch.offsets for batch in batches]).tolist() if batches else []


def test_every_record_once_in_offset_order(world: World, opened: Callable[..., Source]) -> None:
    logs = {0: rows(100), 1: rows(33, first=1000), 2: rows(1, first=5000)}
    world.lay(logs)
    read = read_all(opened())
    for index, expected in logs.items():
        assert values(read[index]) == expected
        assert offsets(read[index]) == list(range(len(expected)))
        assert read[index][-1].next_offset == len(expected)


def test_batches_are_arrays_of_the_promised_kind(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(20)})
    for batch in read_all(opened())[0]:
        assert batch.partition == Partition(world.topic, 0)
        assert batch.offsets.dtype == np.int64
        assert batch.timestamps.dtype == np.int64
        assert len(batch) == len(batch.offsets) == len(batch.timestamps) == len(batch.values)
        assert batch.next_offset > (batch.offsets[-1] if len(batch) else -1)
        expected = [timestamp(n) if world.timestamps else -1 for n in batch.offsets.tolist()]
        assert batch.timestamps.tolist() == expected


@pytest.mark.parametrize("stop", [1, 7, 30, 59])
def test_a_restart_at_any_position_gives_the_rest(world: World, opened: Callable[..., Source], stop: int) -> None:
    world.lay({0: rows(60), 1: rows(10)})
    positions = {Partition(world.topic, 0): stop, Partition(world.topic, 1): 10}
    read = read_all(opened(), positions)
    assert offsets(read[0]) == list(range(stop, 60))
    assert values(read[0]) == rows(60 - stop, first=stop)
    assert not offsets(read[1])


def test_next_offset_of_each_batch_is_where_a_second_source_goes_on(
    world: World, opened: Callable[..., Source]
) -> None:
    world.lay({0: rows(50)})
    source = opened()
    begin = source.start(None, until_end=True)
    first = drain(source, begin, lambda: bool(source.ended()))[:2]
    rest = read_all(opened(), {Partition(world.topic, 0): first[-1].next_offset})[0]
    assert offsets(first) + offsets(rest) == list(range(50))


def test_an_empty_partition_ends_at_once(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(3), 1: []})
    source = opened()
    begin = source.start(None, until_end=True)
    assert begin[Partition(world.topic, 1)] == 0
    assert Partition(world.topic, 1) in source.ended()
    assert Partition(world.topic, 0) not in source.ended()


def test_only_wanted_partitions_are_served(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(40), 1: rows(40)})
    source = opened()
    begin = source.start(None, until_end=True)
    one = Partition(world.topic, 1)
    batches = drain(source, {one: 0}, lambda: one in source.ended())
    assert {batch.partition for batch in batches} == {one}
    assert values(batches) == rows(40)
    rest = drain(source, begin, lambda: source.ended() >= set(begin))
    assert values(rest) == rows(40)


def test_the_partition_with_the_fewest_records_taken_comes_first(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(70), 1: rows(70)})
    source = opened()
    begin = source.start(None, until_end=True)
    drain(source, {Partition(world.topic, 0): 0}, lambda: Partition(world.topic, 0) in source.ended())
    time.sleep(0.3)  # until the other one waits too, where a thread fetches
    batch = source.poll(set(begin), 5.0)
    assert batch is not None
    assert batch.partition.index == 1


def test_lag_counts_what_was_not_handed_over(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(40)})
    source = opened()
    begin = source.start(None, until_end=True)
    drain(source, begin, lambda: source.ended() >= set(begin))
    assert source.lag() == {Partition(world.topic, 0): 0}


def test_lag_before_anything_is_read_is_the_length_or_a_guess(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(40)})
    source = opened()
    source.start(None, until_end=True)
    (lag,) = source.lag().values()
    assert lag == 40 or isinstance(world, InFiles)
    assert lag > 0


@pytest.mark.parametrize("position", [41, 1000])
def test_a_position_beyond_the_log_is_an_error_that_says_so(
    world: World, opened: Callable[..., Source], position: int
) -> None:
    world.lay({0: rows(40)})
    with pytest.raises(
        DataError, match=rf"{world.topic}/0: position {position} lies beyond the log, \[0, 40\]: .*state"
    ):
        opened().start({Partition(world.topic, 0): position}, until_end=False)


def test_a_position_at_the_end_is_in_the_log(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(40)})
    assert not offsets(read_all(opened(), {Partition(world.topic, 0): 40})[0])


def test_a_position_in_a_partition_that_does_not_exist_is_an_error(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(3)})
    with pytest.raises(DataError, match=f"{world.topic}/5"):
        opened().start({Partition(world.topic, 5): 0}, until_end=False)


def test_partitions_without_a_position_are_new_and_can_be_added(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(10), 1: rows(20)})
    zero, one = Partition(world.topic, 0), Partition(world.topic, 1)
    source = opened()
    assert source.start({zero: 4}, until_end=True) == {zero: 4}
    assert source.new_partitions() == {one: 0}
    drain(source, {zero: 0}, lambda: zero in source.ended())
    assert one not in source.ended()
    source.add(one, 5)
    assert source.new_partitions() == {}
    batches = drain(source, {zero: 0, one: 0}, lambda: source.ended() >= {zero, one})
    assert offsets([b for b in batches if b.partition == one]) == list(range(5, 20))


def test_adding_what_is_not_there_is_an_error(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(3)})
    source = opened()
    source.start(None, until_end=True)
    with pytest.raises(DataError, match="no such partition"):
        source.add(Partition(world.topic, 9), 0)


def test_start_latest_gives_only_what_comes_later(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(10)})
    source = opened("latest")
    assert source.start(None, until_end=False) == {Partition(world.topic, 0): 10}


def test_start_at_a_time_is_the_first_record_at_or_after_it(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(10), 1: rows(3)})
    moment = "2023-11-14T22:13:25"  # FIRST_MS + 5 s
    source = opened(moment)
    if not world.timestamps:
        with pytest.raises(ConfigError, match="record timestamps"):
            source.start(None, until_end=True)
        return
    assert [p for _, p in sorted(source.start(None, until_end=True).items())] == [5, 3]


def test_tombstones_are_records_without_a_value(world: World, opened: Callable[..., Source]) -> None:
    if not world.tombstones:
        pytest.skip("this form has no word for a tombstone")
    world.lay({0: [row(0), None, b"", row(3)]})
    assert values(read_all(opened())[0]) == [row(0), None, b"", row(3)]


def test_without_until_end_nothing_ends_and_poll_waits(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(5)})
    source = opened()
    begin = source.start(None, until_end=False)
    read(source, begin, 5)
    before = time.monotonic()
    assert source.poll(set(begin), 0.2) is None
    assert time.monotonic() - before >= 0.19
    assert source.ended() == frozenset()


def test_a_growing_log_is_followed(world: World, opened: Callable[..., Source]) -> None:
    if not world.grows:
        pytest.skip("this form does not grow")
    world.lay({0: rows(5)})
    source = opened()
    begin = source.start(None, until_end=False)
    got = read(source, begin, 5)
    world.append(0, rows(4, first=5))
    got += read(source, begin, 4)
    world.append(0, rows(3, first=9))
    got += read(source, begin, 3)
    assert values(got) == rows(12)
    assert offsets(got) == list(range(12))


def test_what_is_appended_after_the_start_is_beyond_the_fixed_end(world: World, opened: Callable[..., Source]) -> None:
    if not world.grows:
        pytest.skip("this form does not grow")
    world.lay({0: rows(30)})
    source = opened()
    begin = source.start(None, until_end=True)
    world.append(0, rows(30, first=30))
    batches = drain(source, begin, lambda: source.ended() >= set(begin))
    assert values(batches) == rows(30)
    assert batches[-1].next_offset == 30


def test_a_partition_born_later_is_reported_once_and_read_from_its_beginning(
    world: World, opened: Callable[..., Source]
) -> None:
    if not world.grows:
        pytest.skip("this form does not grow")
    world.lay({0: rows(5)})
    source = opened()
    begin = source.start(None, until_end=False)
    world.append(1, rows(6))
    deadline = time.monotonic() + _DEADLINE_S
    while not source.new_partitions():
        assert time.monotonic() < deadline
        source.poll(set(begin), 0.05)
    one = Partition(world.topic, 1)
    assert source.new_partitions() == {one: 0}
    source.add(one, 0)
    assert values(read(source, {one: 0}, 6)) == rows(6)


def test_idle_time_counts_from_the_last_record_handed_over(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(5)})
    source = opened()
    begin = source.start(None, until_end=False)
    (partition,) = begin
    assert source.idle_s(partition) == 0.0
    read(source, begin, 5)
    deadline = time.monotonic() + _DEADLINE_S
    while source.idle_s(partition) <= 0.0:
        assert time.monotonic() < deadline
        source.poll(set(begin), 0.05)
    if world.grows:
        world.append(0, rows(1, first=5))
        read(source, begin, 1)
        assert source.idle_s(partition) < 0.5


def test_commit_never_raises_and_close_can_be_called_twice(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(5)})
    source = opened()
    begin = source.start(None, until_end=True)
    source.commit(begin)
    before = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - before < 4.0


def test_close_without_start(world: World, opened: Callable[..., Source]) -> None:
    world.lay({0: rows(1)})
    opened().close()

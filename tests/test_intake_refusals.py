"""Logs and journals that do not belong together, too much poison, and a sink that cannot write."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from lives import (
    EPOCH_S,
    Logs,
    Worker,
    config_of,
    patiently,
    random_logs,
    replay,
    value,
)

from stream_learner import config as configs
from stream_learner import intake as intakes
from stream_learner.errors import DataError, RetryableError, StateError
from stream_learner.ingest.dead_letters import DeadLetter, MemoryDeadLetters
from stream_learner.ingest.memory import MemorySource
from stream_learner.ingest.source import Partition
from stream_learner.intake import Intake
from stream_learner.journal import (
    MemoryJournal,
    PartitionIdle,
    Position,
    Requeue,
    Start,
)
from stream_learner.tally import Tally

A, B = Partition("a", 0), Partition("b", 0)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intakes, "_POLL_S", 0.0)
    monkeypatch.setattr(intakes, "_LOOK_S", 0.0)


def to_the_end(logs: Logs) -> Worker:
    worker = Worker(config_of(), MemorySource(logs), MemoryJournal(), True, turn=patiently())
    worker.all()
    return worker


def test_a_log_shorter_than_its_journal_is_refused() -> None:
    logs = random_logs(6)
    live = to_the_end(logs)
    short = {**logs, B: logs[B][:-1]}
    with pytest.raises(DataError, match=r"ends before the journal does, which goes on with End for slide \d+: b/0 at"):
        replay(config_of(), short, live.journal.entries)
    with pytest.raises(DataError, match="no such partition any more: b/0"):
        replay(config_of(), {p: log for p, log in logs.items() if p != B}, live.journal.entries)


def test_a_longer_log_is_read_on_beyond_its_journal() -> None:
    logs = random_logs(6)
    half = {p: log[: len(log) // 2] for p, log in logs.items()}
    live = to_the_end(half)
    again = replay(config_of(), logs, live.journal.entries)
    assert again.slides[: len(live.slides)] == live.slides
    assert len(again.slides) > len(live.slides)
    assert again.tally.consumed == sum(map(len, logs.values()))


def test_journals_of_another_kind_are_refused() -> None:
    with pytest.raises(StateError, match="does not begin with a start entry"):
        replay(config_of(), {A: []}, (PartitionIdle(slide=0, partition=Position("a", 0, 0)),))
    begin = Start(slide=0, partitions=(Position("a", 0, 0),))
    with pytest.raises(StateError, match="Requeue for slide 0 is not known here"):
        replay(config_of(), {A: []}, (begin, Requeue(slide=0, records=())))


def test_too_many_dead_letters_stop_the_worker() -> None:
    config = config_of()
    letters = msgspec.structs.replace(config.dead_letters, max_rate=0.1, rate_records=100)
    config = msgspec.structs.replace(config, dead_letters=letters)
    good = [(n, -1, value(EPOCH_S + n)) for n in range(100)]
    bad = [(n, -1, b"garbage") for n in range(100, 200)]
    worker = Worker(config, MemorySource({A: [*good, *bad]}, 10), MemoryJournal(), True, turn=patiently())
    with pytest.raises(DataError, match=r"not_json .* more than dead_letters.max_rate 0.1 allows"):
        worker.all()
    assert 100 < worker.intake.positions[A] < 130


class FullDisk(MemoryDeadLetters):
    """Has taken the letters, but the first flushes fail."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def add(self, letters: Sequence[DeadLetter]) -> None:
        super().add(letters)
        self.flush()

    def flush(self) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise RetryableError("disk full")
        super().flush()


def test_letters_wait_for_a_sink_that_cannot_write_now() -> None:
    logs: Logs = {A: [(0, -1, b"garbage"), (1, -1, value(EPOCH_S))]}
    config, journal, sink = config_of(), MemoryJournal(), FullDisk(2)
    schema = configs.event_schema(config)
    intake = Intake(config, schema, MemorySource(logs), journal, sink, Tally(), until_end=True)
    intake.start()
    slide = intake.next_slide(lambda _: None, lambda: True)
    assert slide is not None
    assert [letter.reason for letter in sink.letters] == ["not_json"]
    assert sink.durable == 1

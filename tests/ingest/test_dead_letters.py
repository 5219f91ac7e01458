"""Sinks of dead letters, their file, and the rate that stops a worker."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from stream_learner.errors import DataError, RetryableError
from stream_learner.ingest import dead_letters
from stream_learner.ingest.dead_letters import (
    REASONS,
    DeadLetter,
    DeadLetterRate,
    DeadLetterSink,
    FileDeadLetters,
    MemoryDeadLetters,
    from_json,
    read_dead_letters,
    shown,
    to_json,
)


def letter(offset: int, reason: str = "not_json", value: bytes | None = b"\xff{") -> DeadLetter:
    return DeadLetter(reason, "a detail", "events", 2, offset, 1_659_304_800_000, value)


@pytest.fixture(params=["memory", "file"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[DeadLetterSink, Callable[[], list[DeadLetter]]]:
    """A sink and what a reader of it finds after a flush."""
    if request.param == "memory":
        memory = MemoryDeadLetters()
        return memory, lambda: memory.letters[: memory.durable]
    path = tmp_path / "state" / "dead_letters.jsonl"
    return FileDeadLetters(path), lambda: read_dead_letters(path) if path.exists() else []


def test_letters_are_there_after_a_flush(kept: tuple[DeadLetterSink, Callable[[], list[DeadLetter]]]) -> None:
    sink, read = kept
    sink.flush()
    sink.add([letter(1), letter(2, value=None)])
    sink.add([])
    assert read() == []
    sink.flush()
    assert read() == [letter(1), letter(2, value=None)]
    sink.add([letter(3, "late")])
    sink.close()
    sink.close()
    assert [one.offset for one in read()] == [1, 2, 3]


def test_json_form() -> None:
    plain = json.loads(to_json(letter(7)))
    assert plain == {
        "reason": "not_json",
        "detail": "a detail",
        "topic": "events",
        "partition": 2,
        "offset": 7,
        "timestamp": 1_659_304_800_000,
        "value": base64.b64encode(b"\xff{").decode(),
    }
    assert from_json(to_json(letter(7))) == letter(7) and b"\n" not in to_json(letter(7, value=b"a\nb"))
    assert letter(7).place == "events/2 offset 7"


def test_reasons_are_codes_with_a_meaning() -> None:
    assert all(code.replace("_", "").islower() and meaning for code, meaning in REASONS.items())


def test_shown_is_cut() -> None:
    assert shown(12) == "12" and len(shown("x" * 5000)) == 80


def test_repeats_after_a_restart_are_read_once(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    for letters in ([letter(1), letter(2)], [letter(2), letter(3)]):
        sink = FileDeadLetters(path)
        sink.add(letters)
        sink.close()
    assert path.read_bytes().count(b"\n") == 4
    assert [one.offset for one in read_dead_letters(path)] == [1, 2, 3]


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "letters.jsonl"
    first = FileDeadLetters(path)
    first.add([letter(1), letter(2)])
    first.close()
    os.truncate(path, path.stat().st_size - cut)
    whole = [1, 2] if cut == 1 else [1]
    assert [one.offset for one in read_dead_letters(path)] == whole
    again = FileDeadLetters(path)
    again.add([letter(2), letter(3)])
    again.flush()
    assert [one.offset for one in read_dead_letters(path)] == [1, 2, 3]


def test_a_failing_disk_is_retryable_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "letters.jsonl").mkdir()  # opening it fails with an OSError
    sink = FileDeadLetters(tmp_path / "letters.jsonl")
    sink.add([letter(1)])
    with pytest.raises(RetryableError, match=r"letters\.jsonl"):
        sink.flush()
    (tmp_path / "letters.jsonl").rmdir()
    sink.flush()
    assert read_dead_letters(tmp_path / "letters.jsonl") == [letter(1)]


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    sink = FileDeadLetters(path)
    sink.add([letter(offset) for offset in range(999)])
    assert not path.exists()
    sink.add([letter(999)])
    assert len(read_dead_letters(path)) == 1000
    sink.add([letter(1000, value=b"x" * 8_388_608)])
    assert len(read_dead_letters(path)) == 1001


def test_two_threads(tmp_path: Path) -> None:
    sink = FileDeadLetters(tmp_path / "letters.jsonl")

    def write(start: int) -> None:
        for offset in range(start, start + 200):
            sink.add([letter(offset)])
            sink.flush()

    threads = [Thread(target=write, args=(start,)) for start in (0, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.offset for one in read_dead_letters(tmp_path / "letters.jsonl")) == list(range(400))


def bad(count: int, reason: str = "not_json") -> list[DeadLetter]:
    return [letter(offset, reason) for offset in range(count)]


def test_nothing_is_judged_before_enough_was_seen() -> None:
    rate = DeadLetterRate(0.05, 1000)
    rate.observe(1, bad(1))
    rate.observe(998, bad(998))
    with pytest.raises(DataError):
        rate.observe(1, bad(1))


def test_the_message_says_what_where_and_what_to_do() -> None:
    rate = DeadLetterRate(0.05, 100)
    with pytest.raises(DataError) as stopped:
        rate.observe(100, bad(4, "bad_time") + bad(2) + bad(1, "late"))
    message = str(stopped.value)
    assert message.startswith("6 of the last 100 records are dead letters (bad_time 4, not_json 2)")
    assert "dead_letters.max_rate 0.05" in message and "events/2 offset 0" in message and "mapping" in message
    assert stopped.value.exit_code == 3


@pytest.mark.parametrize(
    ("max_rate", "dead", "stops"), [(0.05, 5, False), (0.05, 6, True), (0, 1, True), (1, 100, False)]
)
def test_the_limit_itself_is_allowed(max_rate: float, dead: int, stops: bool) -> None:
    rate = DeadLetterRate(max_rate, 100)
    if stops:
        with pytest.raises(DataError):
            rate.observe(100, bad(dead))
    else:
        rate.observe(100, bad(dead))


def test_late_events_do_not_count() -> None:
    rate = DeadLetterRate(0.0, 100)
    for _ in range(5):
        rate.observe(100, bad(100, "late"))


@pytest.mark.parametrize("size", [1, 7, 50, 400])
def test_only_the_latest_records_count(size: int) -> None:
    """A bad stretch is forgotten after rate_records and a block; a steady share below the limit never stops."""
    rate = DeadLetterRate(0.5, 200)
    rate.observe(150, bad(150))
    for _ in range(-(-270 // size)):
        rate.observe(size, [])
    dead = seen = 0
    with pytest.raises(DataError, match=r"not_json"):
        while True:
            rate.observe(size, bad(size))
            dead, seen = dead + size, seen + size
    assert 100 - size <= seen <= 130 + size


def test_memory_of_the_rate_is_bounded() -> None:
    rate = DeadLetterRate(0.5, 1000)
    for _ in range(20_000):
        rate.observe(3, [])
    assert len(rate._blocks) <= dead_letters._BLOCKS + 2

"""Records that can never be learned from: why, where, and the bytes, kept for whoever mends the producer."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Protocol

import msgspec

from stream_learner.durable import BAD_JSON
from stream_learner.errors import DataError, RetryableError
from stream_learner.ingest.source import RecordBatch

REASONS: dict[str, str] = {
    "too_large": "the record is larger than dead_letters.max_record_bytes",
    "empty": "the record has no bytes (a tombstone, or an empty value)",
    "too_deep": "the record's JSON is nested deeper than any event needs",
    "not_utf8": "the bytes are not UTF-8",
    "not_json": "the bytes are not JSON",
    "not_object": "the JSON is not an object",
    "missing_field": "a required field is absent, null or empty",
    "wrong_type": "a mapped field holds another JSON type than its use allows",
    "id_too_long": "an id is longer than 1,024 bytes",
    "bad_time": "the event time cannot be parsed, is before 1970 or after 2199",
    "time_ahead": "the event time is too far ahead of the record's timestamp, or of its partition",
    "non_finite": "a number is infinite, NaN or beyond its range",
    "bad_label": "the explicit label is not one",
    "late": "the event's slide was closed already",
}

_SHOWN_CHARACTERS = 80
_BLOCKS = 10  # the rate's span moves in tenths
_BUFFERED_LETTERS = 1_000
_BUFFERED_BYTES = 8_388_608


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record given up, or an event given up as late.

    `detail` names the field and the rule; it never repeats an id. `timestamp` is the record's own, in ms since the
    epoch, -1 = none. `value` holds the record's bytes as they came, ids included; None where there are none.
    """

    reason: str  # a key of REASONS
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition} offset {self.offset}"


def letter_of(batch: RecordBatch, row: int, reason: str, detail: str) -> DeadLetter:
    """A row of a batch, given up."""
    return DeadLetter(
        reason=reason,
        detail=detail,
        topic=batch.partition.topic,
        partition=batch.partition.index,
        offset=int(batch.offsets[row]),
        timestamp=int(batch.timestamps[row]),
        value=batch.values[row],
    )


def shown(value: object) -> str:
    """A value for a `detail`, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def to_json(letter: DeadLetter) -> bytes:
    """One JSON object on one line, without the line end; `value` is base64, or null."""
    return msgspec.json.encode(letter)


def from_json(line: bytes) -> DeadLetter:
    """The inverse of `to_json`. Raises one of `durable.BAD_JSON` for anything else."""
    return _LETTER.decode(line)


_LETTER = msgspec.json.Decoder(DeadLetter)


class DeadLetterSink(Protocol):
    """Where dead letters go. At least once: after a restart some may come again, so readers tell them apart by topic,
    partition and offset. Any thread may call."""

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Takes letters, in order. May write, and then fail as `flush` does; the letters are taken all the same."""

    def flush(self) -> None:
        """Everything added is durable when this returns. Raises RetryableError; nothing is lost then."""

    def close(self) -> None:
        """Flushes, then frees what it holds. Idempotent."""


class MemoryDeadLetters:
    """Keeps letters in a list; `durable` counts those that a flush has covered."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.durable = 0

    def add(self, letters: Sequence[DeadLetter]) -> None:
        self.letters.extend(letters)

    def flush(self) -> None:
        self.durable = len(self.letters)

    def close(self) -> None:
        self.flush()


class FileDeadLetters:
    """Appends letters to a file, a JSON object a line; the folder is made if need be.

    When 1,000 letters or 8 MiB wait in memory they are written without being asked. A last line torn by a crash or
    a full disk is left as it is, and the next letter starts on a line of its own.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = Lock()
        self._lines: list[bytes] = []
        self._waiting_bytes = 0

    def add(self, letters: Sequence[DeadLetter]) -> None:
        with self._lock:
            for letter in letters:
                line = to_json(letter) + b"\n"
                self._lines.append(line)
                self._waiting_bytes += len(line)
            if len(self._lines) >= _BUFFERED_LETTERS or self._waiting_bytes >= _BUFFERED_BYTES:
                self._write()

    def flush(self) -> None:
        with self._lock:
            self._write()

    def close(self) -> None:
        self.flush()

    def _write(self) -> None:
        if not self._lines:
            return
        try:
            _append(self.path, b"".join(self._lines))
        except OSError as error:
            raise RetryableError(f"dead letters cannot be written to {self.path}: {error}") from error
        self._lines.clear()
        self._waiting_bytes = 0


def _append(path: Path, lines: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END) > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_dead_letters(path: str | Path) -> list[DeadLetter]:
    """The letters of a file, in order, each record once (its first letter); torn lines are passed over, because what
    was torn had not been flushed and comes again. OSError where the file cannot be read."""
    letters: dict[tuple[str, int, int], DeadLetter] = {}
    with Path(path).open("rb") as file:
        for line in file:
            try:
                letter = from_json(line)
            except BAD_JSON:
                continue
            letters.setdefault((letter.topic, letter.partition, letter.offset), letter)
    return list(letters.values())


@dataclass(slots=True)
class _Block:
    records: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class DeadLetterRate:
    """Stops the worker when too many of the latest records are dead letters.

    The share is taken over blocks of at least `rate_records` / 10 records: the fewest latest blocks that hold
    `rate_records` records, so over somewhat more than that. Nothing is judged before `rate_records` records were
    seen, so that one bad first record stops nobody. Late events are no fault of a record and do not count. The rate
    starts anew with the worker: it is a guard and reaches no model.
    """

    def __init__(self, max_rate: float, rate_records: int) -> None:
        self._max_rate = max_rate
        self._rate_records = rate_records
        self._blocks: deque[_Block] = deque([_Block()])
        self._records = 0

    def observe(self, records: int, letters: Sequence[DeadLetter]) -> None:
        """Counts `records` records, the dead ones among them given as letters. Raises DataError beyond the limit."""
        block = self._blocks[-1]
        block.records += records
        block.reasons.update(letter.reason for letter in letters if letter.reason != "late")
        self._records += records
        while self._records - self._blocks[0].records >= self._rate_records:
            self._records -= self._blocks.popleft().records
        if letters and self._records >= self._rate_records:
            self._judge(letters[-1])
        if block.records * _BLOCKS >= self._rate_records:
            self._blocks.append(_Block())

    def _judge(self, last: DeadLetter) -> None:
        reasons: Counter[str] = Counter()
        for block in self._blocks:
            reasons.update(block.reasons)
        dead = reasons.total()
        if dead <= self._max_rate * self._records:
            return
        counted = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
        raise DataError(
            f"{dead} of the last {self._records} records are dead letters ({counted}), more than "
            f"dead_letters.max_rate {self._max_rate:g} allows; the last is {last.place}: {last.reason}, {last.detail}. "
            "Mend the topic's mapping or its producer, or raise dead_letters.max_rate, and start again"
        )

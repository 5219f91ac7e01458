"""records -> events: one typed JSON read a record, then whole columns.

What a record becomes depends on the record and the config alone, never on the records around it, so neither poll
sizes nor restarts can reach the events. Of the faults of one record the first is told: its size, its JSON, the JSON
types of the mapped fields, then missing fields, ids, time, label and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_learner.errors import PoisonRecord
from stream_learner.events import MISSING_ID, EventBatch, EventSchema
from stream_learner.ingest import times
from stream_learner.ingest.dead_letters import DeadLetter, shown
from stream_learner.ingest.identity import Pseudonymiser, fingerprints
from stream_learner.ingest.mapping import MAX_DEPTH, RecordReader, too_deep
from stream_learner.ingest.source import RecordBatch
from stream_learner.settings import Config, Topic

Mask = NDArray[np.bool_]
NoteItems = Callable[[NDArray[np.uint64], Sequence[str]], None]

MAX_ID_BYTES = 1024
_LATEST_MS = times.LIMIT_US // 1000
_IGNORED, _UNTYPED = -1, -2  # kinds of rows that become no event


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a batch of records became: each record is an event, dead or ignored."""

    events: EventBatch  # in offset order
    rows: NDArray[np.int64]  # [n events] row of each event in the record batch
    dead: list[DeadLetter]  # in offset order
    ignored: int  # records of types that the mapping does not list


class Decoder:
    """Turns record batches of any configured topic into event batches. Keeps nothing between batches."""

    def __init__(self, config: Config, schema: EventSchema, note_items: NoteItems | None = None) -> None:
        """Raises ConfigError where the paths of a mapping contradict one another. `note_items` is told of the items of
        every batch: their fingerprints [n], and their texts."""
        self._topics = {name: _TopicDecoder(config, schema, name, note_items) for name in config.topics}

    def decode(self, batch: RecordBatch) -> Decoded:
        return self._topics[batch.partition.topic].decode(batch)


class _Faults:
    """The first fault of each row that has one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: dict[int, PoisonRecord] = {}

    def mark(self, mask: Mask, reason: str, detail: Callable[[int], str]) -> None:
        """Faults the rows of a mask [n]; `detail` is asked for these rows alone."""
        for row in np.flatnonzero(mask).tolist():
            self._found.setdefault(row, PoisonRecord(reason, detail(row)))

    def good(self) -> NDArray[np.int64]:
        """Rows without a fault, ascending."""
        mask = np.ones(self._size, bool)
        mask[list(self._found)] = False
        return np.flatnonzero(mask)

    def items(self) -> list[tuple[int, PoisonRecord]]:
        return sorted(self._found.items())


class _TopicDecoder:
    """One topic's mapping, applied."""

    def __init__(self, config: Config, schema: EventSchema, name: str, note_items: NoteItems | None) -> None:
        self._note_items = note_items
        self._topic: Topic = config.topics[name]
        self._schema = schema
        self._number = schema.topics.index(name)
        self._reader = RecordReader(name, self._topic)
        self._max_bytes = config.dead_letters.max_record_bytes
        self._max_ahead = int(config.slides.max_ahead)
        self._kinds = {source: schema.kinds.index(kind) for source, kind in self._topic.types.items()}
        self._labelled_kind = schema.kinds.index(config.examples.of) if config.labels.in_events else None
        key = config.privacy.key if config.privacy.pseudonymise else None
        self._pseudonymiser = Pseudonymiser(key.reveal()) if key is not None else None
        fields = self._topic.fields
        self._id_paths = {"user": fields.user, "item": fields.item, **self._topic.categorical}
        if fields.session is not None:
            self._id_paths["session"] = fields.session

    def decode(self, batch: RecordBatch) -> Decoded:
        at, rows, poisoned = self._read(batch)
        kind = self._kind(rows)
        ours = np.flatnonzero(kind != _IGNORED)
        ignored = len(batch) - len(poisoned) - len(ours)
        if len(ours) < len(rows):
            at, kind, rows = at[ours], kind[ours], [rows[row] for row in ours]
        faults = _Faults(len(rows))
        events = self._events(batch, at, rows, kind, faults)
        good = faults.good()
        poisoned += [(int(at[row]), fault) for row, fault in faults.items()]
        dead = [_letter(batch, row, fault) for row, fault in sorted(poisoned, key=itemgetter(0))]
        return Decoded(events if len(good) == len(at) else events.take(good), at[good], dead, ignored)

    def _read(self, batch: RecordBatch) -> tuple[NDArray[np.int64], list[Any], list[tuple[int, PoisonRecord]]]:
        """Batch rows [n] that could be read, what they read as, and those that could not; the rest is ignored."""
        whole = self._all_rows(batch.values)
        if whole is not None:
            return np.arange(len(whole)), whole, []
        at: list[int] = []
        rows: list[Any] = []
        poisoned: list[tuple[int, PoisonRecord]] = []
        for number, value in enumerate(batch.values):
            try:
                row = self._row(value)
            except PoisonRecord as fault:
                poisoned.append((number, fault))
            else:
                if row is not None:
                    at.append(number)
                    rows.append(row)
        return np.array(at, np.int64), rows, poisoned

    def _all_rows(self, values: Sequence[bytes | None]) -> list[Any] | None:
        """What `_row` makes of every record, where all of them can be read without a second look; else None."""
        if not all(values):
            return None
        known = cast(Sequence[bytes], values)
        longest = max(map(len, known), default=0)
        if longest > self._max_bytes or (longest > MAX_DEPTH and any(map(too_deep, known))):
            return None
        try:
            return list(map(self._reader.read, known))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _row(self, value: bytes | None) -> Any | None:
        """One record as a row for the reader's columns; None = ignored. Raises PoisonRecord."""
        if not value:
            raise PoisonRecord("empty", "no value" if value is None else "0 bytes")
        if len(value) > self._max_bytes:
            raise PoisonRecord("too_large", f"{len(value)} bytes, limit {self._max_bytes}")
        if too_deep(value):
            raise PoisonRecord("too_deep", f"nested beyond {MAX_DEPTH} levels")
        try:
            return self._reader.read(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._reader.explain(value)

    def _kind(self, rows: list[Any]) -> NDArray[np.int8]:
        """Index into schema.kinds of each row [n]; _IGNORED for unlisted types, _UNTYPED where there is none."""
        path = self._topic.fields.type
        if path is None:
            return np.full(len(rows), self._schema.kinds.index(str(self._topic.constant_type)), np.int8)
        kinds = {**self._kinds, "": _UNTYPED}
        texts = _texts(self._reader.column(path, rows))
        return np.fromiter(map(kinds.get, texts, repeat(_IGNORED)), np.int8, len(texts))

    def _events(
        self, batch: RecordBatch, at: NDArray[np.int64], rows: list[Any], kind: NDArray[np.int8], faults: _Faults
    ) -> EventBatch:
        """Events of all rows [n]; those of faulty rows hold anything."""
        faults.mark(kind == _UNTYPED, "missing_field", _missing(self._topic.fields.type))
        ids = self._ids(rows, faults)
        event_id = self._id(self._topic.fields.id, rows, faults)
        time = self._time(rows, batch.timestamps[at], faults)
        return EventBatch(
            time=time,
            topic=np.full(len(rows), self._number, np.int16),
            partition=np.full(len(rows), batch.partition.index, np.int32),
            offset=batch.offsets[at],
            kind=kind,
            ids=ids,
            numbers=self._numbers(rows, faults),
            label=self._label(rows, kind, faults),
            event_id=event_id,
        )

    def _ids(self, rows: list[Any], faults: _Faults) -> NDArray[np.uint64]:
        out = np.zeros((len(rows), len(self._schema.ids)), np.uint64)
        for column, name in enumerate(self._schema.ids):
            out[:, column] = self._id(self._id_paths.get(name), rows, faults)
            if name in ("user", "item"):
                faults.mark(out[:, column] == MISSING_ID, "missing_field", _missing(self._id_paths[name]))
        return out

    def _id(self, path: str | None, rows: list[Any], faults: _Faults) -> NDArray[np.uint64]:
        """Fingerprints [n] of the ids at a path; the user's are pseudonyms first, under whatever name they are used."""
        if path is None:
            return np.zeros(len(rows), np.uint64)
        texts = _texts(self._reader.column(path, rows))
        if max(map(len, texts), default=0) * 4 > MAX_ID_BYTES:  # a character has at most 4 bytes
            long = np.array([len(text.encode()) > MAX_ID_BYTES for text in texts], bool)
            faults.mark(long, "id_too_long", lambda row: f"{path}: {len(texts[row].encode())} bytes")
        if self._pseudonymiser is not None and path == self._topic.fields.user:
            texts = self._pseudonymiser.pseudonyms(texts)
        found = fingerprints(texts)
        if self._note_items is not None and path == self._topic.fields.item:
            self._note_items(found, texts)
        return found

    def _time(self, rows: list[Any], timestamps: NDArray[np.int64], faults: _Faults) -> NDArray[np.int64]:
        """Event times [n] in us; `timestamps` [n] are the records' own in ms, -1 = none."""
        path, written_as = self._topic.fields.time, self._topic.time_format
        values = self._reader.column(path, rows)
        if not all(values):
            faults.mark(np.array([v is None or v == "" for v in values], bool), "missing_field", _missing(path))
        if written_as == "iso8601":
            time = times.from_iso8601([value or "" for value in values])
        else:
            time = times.from_numbers(np.nan_to_num(_floats(values), nan=-1.0), times.UNITS_US[written_as])
        faults.mark(time < 0, "bad_time", lambda row: f"{path}: {shown(values[row])} is no usable {written_as} time")
        if written_as != "integer":
            latest = np.minimum(timestamps, _LATEST_MS) * 1000 + self._max_ahead
            ahead = (timestamps >= 0) & (time > latest)
            faults.mark(ahead, "time_ahead", lambda row: f"{path}: {(time[row] - latest[row]) / 1e6:g} s too far ahead")
        return time

    def _numbers(self, rows: list[Any], faults: _Faults) -> NDArray[np.float32]:
        out = np.full((len(rows), len(self._schema.numbers)), np.nan, np.float32)
        for name, path in self._topic.numeric.items():
            values = _floats(self._reader.column(path, rows))
            with np.errstate(over="ignore"):
                numbers = values.astype(np.float32)
            faults.mark(np.isinf(numbers), "non_finite", _beyond_float32(path))
            out[:, self._schema.numbers.index(name)] = numbers
        return out

    def _label(self, rows: list[Any], kind: NDArray[np.int8], faults: _Faults) -> NDArray[np.float32]:
        """Explicit labels [n], NaN where there is none; where labels come from a field, examples must have one."""
        path, rule = self._topic.fields.label, self._topic.label
        if path is None:
            return np.full(len(rows), np.nan, np.float32)
        values = _floats(self._reader.column(path, rows))
        absent = np.isnan(values)
        if self._labelled_kind is not None:
            faults.mark(absent & (kind == self._labelled_kind), "missing_field", _missing(path))
        if rule is None:
            wrong = ~absent & (values != 0) & (values != 1)
            faults.mark(wrong, "bad_label", lambda row: f"{path}: {values[row]:g}, expected 0, 1, true or false")
        else:
            values = np.where(absent, np.nan, values >= rule.at_least)
        return np.clip(values, 0, 1).astype(np.float32)


def _letter(batch: RecordBatch, row: int, fault: PoisonRecord) -> DeadLetter:
    return DeadLetter(
        reason=fault.reason,
        detail=fault.detail,
        topic=batch.partition.topic,
        partition=batch.partition.index,
        offset=int(batch.offsets[row]),
        timestamp=int(batch.timestamps[row]),
        value=batch.values[row],
    )


def _missing(path: str | None) -> Callable[[int], str]:
    return lambda _: f"{path}: absent, null or empty"


def _beyond_float32(path: str) -> Callable[[int], str]:
    return lambda _: f"{path}: beyond float32"


def _texts(values: list[Any]) -> list[str]:
    """Ids as text: an integer as str() writes it, so that 12 and "12" are the same id; "" where missing."""
    if set(map(type, values)) <= {str}:
        return values
    return [value if type(value) is str else "" if value is None else str(value) for value in values]


def _floats(values: list[Any]) -> NDArray[np.float64]:
    """Numbers as float64 [n]: NaN where missing, infinite where beyond its range."""
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return np.array([_float(value) for value in values], np.float64)


def _float(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf

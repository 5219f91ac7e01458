"""Records: every one becomes an event, a dead letter with a known reason, or is ignored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from stream_learner.config import event_schema, parse
from stream_learner.ingest.dead_letters import REASONS, from_json, to_json
from stream_learner.ingest.decode import Decoded, Decoder
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.ingest.times import LIMIT_US

from .cases import Case, Check

NOW_MS = 1_659_304_800_000
MAPPINGS = """
topics:
  nested:
    fields: {user: user.id, item: product.sku, id: id, session: context.session, label: label}
    time_format: epoch_ms
    types: {click: click, buy: purchase, '7': cart}
    categorical: {category: product.category}
    numeric: {price: product.price, rank: rank}
  iso: {fields: {time: at, type: null}, time_format: iso8601, constant_type: click}
  whole: {time_format: integer, fields: {label: stars}, label: {at_least: 4}}
  seconds: {time_format: epoch_s, numeric: {price: price}}
privacy: {pseudonymise: true, key: '${KEY}'}
dead_letters: {max_record_bytes: 65536}
"""
CONFIG = parse(MAPPINGS, environ={"KEY": "0123456789abcdef"})
_RECORDS = (
    ("nested", {"user": {"id": "u1"}, "product": {"sku": 12, "category": "c", "price": 9.5}, "type": "click",
                "time": NOW_MS, "id": "e-1", "context": {"session": "s"}, "label": 1, "rank": 3}),
    ("nested", {"user.id": 7, "product": {"sku": "i"}, "type": 7, "time": NOW_MS + 0.5, "label": False, "extra": [{}]}),
    ("nested", {"user": None, "user.id": "é", "product.sku": "i", "type": "buy", "time": NOW_MS, "x": {"y": [1, 2]}}),
    ("iso", {"user": "u", "item": "i", "at": "2022-07-31T22:00:00.025Z"}),
    ("iso", {"user": "u", "item": "i", "at": "2022-08-01T00:00:00+02:00", "note": "a\\\"b\n"}),
    ("whole", {"user": 1, "item": 2, "type": "purchase", "time": 1_659_304_800, "stars": 4.5}),
    ("seconds", {"user": "u", "item": "i", "type": "click", "time": 1_659_304_800.25, "price": -3}),
    ("seconds", {"user": "u", "item": "i", "type": "unlisted", "time": "never"}),
)  # fmt: skip


def valid() -> list[Case]:
    return [Case(topic, json.dumps(record).encode()) for topic, record in _RECORDS]


def decoded(decoder: Decoder, topic: str, *values: bytes | None) -> Decoded:
    """The records as one batch of partition 3, offsets from 100, stamped NOW_MS."""
    count = len(values)
    return decoder.decode(
        RecordBatch(Partition(topic, 3), np.arange(100, 100 + count), np.full(count, NOW_MS), list(values), 100 + count)
    )


def open_decode(_: Path) -> Check:
    decoder = Decoder(CONFIG, event_schema(CONFIG))

    def check(case: Case) -> None:
        check_decoded(decoded(decoder, case.place, case.content), 1)

    return check


def check_decoded(found: Decoded, records: int) -> None:
    """Every record has its fate; events hold nothing that could harm what follows."""
    events = found.events
    assert len(events) + len(found.dead) + found.ignored == records
    for letter in found.dead:
        assert letter.reason in REASONS and letter.detail, letter
        assert len(letter.detail) < 1000, letter.detail
        assert from_json(to_json(letter)) == letter
    assert ((events.time >= 0) & (events.time < LIMIT_US)).all()
    assert (events.ids[:, :2] != 0).all(), "an event without user or item"
    assert not np.isinf(events.numbers).any()
    assert (np.isnan(events.label) | np.isin(events.label, [0, 1])).all()
    assert ((events.kind >= 0) & (events.kind < len(event_schema(CONFIG).kinds))).all()

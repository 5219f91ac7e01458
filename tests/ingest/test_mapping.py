"""The typed reader and the slow explanation of a record agree, whatever the bytes."""

import json

import msgspec
import numpy as np
import pytest

from stream_learner.config import parse
from stream_learner.errors import PoisonRecord
from stream_learner.ingest.dead_letters import REASONS
from stream_learner.ingest.mapping import MAX_DEPTH, RecordReader, too_deep

CONFIG = """
topics:
  events:
    fields: {id: meta.id, session: meta.session, label: label}
    categorical: {category: product.kind.name, meta_user: user}
    numeric: {price: product.price, stock: product.stock}
"""
RECORD = {
    "user": "u1",
    "item": 12,
    "time": 1_659_304_800_000,
    "type": "click",
    "label": 1,
    "meta": {"id": "x", "session": 3, "more": [1, {"a": None}]},
    "product": {"price": 1.5, "stock": 3, "kind": {"name": "shoe"}},
    "meta.id": "y",
}


def reader() -> RecordReader:
    return RecordReader("events", parse(CONFIG).topics["events"])


def test_read_and_explain_give_the_same_row() -> None:
    value = json.dumps(RECORD).encode()
    row, explained = reader().read(value), reader().explain(value)
    for path in ("user", "item", "meta.id", "meta.session", "product.kind.name", "product.price", "label", "time"):
        ours = reader()
        assert ours.column(path, [ours.read(value)]) == ours.column(path, [ours.explain(value)])
    assert row is not None and explained is not None


def test_columns() -> None:
    ours = reader()
    rows = [ours.read(json.dumps(record).encode()) for record in (RECORD, {}, {"meta.id": 5, "product": {}})]
    assert ours.column("meta.id", rows) == ["x", None, 5]
    assert ours.column("product.price", rows) == [1.5, None, None]
    assert ours.column("product.kind.name", rows) == ["shoe", None, None]


def test_bytes_changed_at_random_are_read_ignored_or_explained() -> None:
    """Seeded: one to four bytes of a good record overwritten, removed or doubled, 20,000 times."""
    rng = np.random.default_rng(3)
    value = json.dumps(RECORD).encode()
    alphabet = np.frombuffer(b'{}[]",:0123456789.eE+-truefalsnN \\u\xff\x00\xc3', np.uint8)
    ours = reader()
    found: dict[str, int] = {}
    for _ in range(20_000):
        changed = bytearray(value)
        for at in rng.integers(0, len(value) - 4, rng.integers(1, 5)).tolist():
            changed[at : at + rng.integers(0, 3)] = alphabet[
                rng.integers(0, len(alphabet), rng.integers(0, 3))
            ].tobytes()
        verdict = _verdict(ours, bytes(changed))
        found[verdict] = found.get(verdict, 0) + 1
    assert set(found) - {"row", "ignored"} <= set(REASONS)
    assert {"row", "ignored", "not_json", "not_utf8", "wrong_type"} <= set(found)


def _verdict(ours: RecordReader, value: bytes) -> str:
    try:
        row = ours.read(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        row = None
    try:
        explained = ours.explain(value)
    except PoisonRecord as fault:
        # A field that nobody reads may hold bytes that are no text, or a number out of range: read passes over it.
        assert row is None or fault.reason in ("not_utf8", "non_finite")
        return fault.reason
    if explained is None:
        return "ignored"
    if row is not None:
        for path in ("user", "item", "time", "label", "meta.id", "product.price"):
            assert ours.column(path, [row]) == ours.column(path, [explained])
    return "row"


@pytest.mark.parametrize(
    ("value", "deep"),
    [
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, False),
        (b"[" * (MAX_DEPTH + 1), True),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1", True),
        (b"[" + b"[]," * 1000 + b"[]]", False),
        (b'["' + b"[" * 1000 + b'"]', False),
        (b'["\\"' + b"[" * 1000 + b'"]', False),
        (b'["\\\\"' + b"[" * 1000 + b'"]', True),
        (b'["' + b"[" * 1000, False),
        (b"[1,2,3]", False),
    ],
)
def test_too_deep(value: bytes, deep: bool) -> None:
    assert too_deep(value) is deep

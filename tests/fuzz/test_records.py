"""Any JSON at all as a record: one of three fates, and the same one whatever records it comes with."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_learner.config import event_schema
from stream_learner.ingest.decode import Decoder

from .records import CONFIG, NOW_MS, check_decoded, decoded

_DECODER = Decoder(CONFIG, event_schema(CONFIG))
_NAMES = st.sampled_from(
    [
        "user",
        "item",
        "time",
        "type",
        "at",
        "id",
        "label",
        "stars",
        "price",
        "rank",
        "user.id",
        "product.sku",
        "sku",
        "x",
    ]
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**25, 10**400, NOW_MS, NOW_MS + 10**9])
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["click", "buy", "", "2022-07-31T22:00:00Z", "9999-12-31T23:59:59-23:59", "0000-01-01", "\ud800"])
)
_VALUES = st.recursive(
    _SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(_NAMES, v, max_size=3), max_leaves=6
)
_LIKELY = {
    "user": st.sampled_from(["u", 7, {"id": "u"}]) | _VALUES,
    "item": st.sampled_from(["i", 7]) | _VALUES,
    "product": st.fixed_dictionaries({"sku": _VALUES}, optional={"price": _VALUES, "category": _VALUES}) | _VALUES,
    "time": st.sampled_from([NOW_MS, NOW_MS / 1000]) | _VALUES,
    "at": st.just("2022-07-31T22:00:00.025Z") | _VALUES,
    "type": st.sampled_from(["click", "buy", 7, "other"]) | _VALUES,
}
_RECORDS = st.fixed_dictionaries({}, optional={**_LIKELY, "label": _VALUES, "stars": _VALUES, "price": _VALUES})
_TOPICS = st.sampled_from(list(CONFIG.topics))


def _json(record: Any, escaped: bool) -> bytes:
    return json.dumps(record, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


@settings(derandomize=True, max_examples=400, deadline=None, database=None)
@given(topic=_TOPICS, record=_RECORDS | _VALUES, escaped=st.booleans())
def test_any_json_meets_a_fate(topic: str, record: Any, escaped: bool) -> None:
    check_decoded(decoded(_DECODER, topic, _json(record, escaped)), 1)


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(
    topic=_TOPICS,
    values=st.lists(st.none() | st.binary(max_size=40) | _RECORDS.map(lambda r: _json(r, True)), max_size=8),
)
def test_the_fate_of_a_record_is_its_own(topic: str, values: list[bytes | None]) -> None:
    together = decoded(_DECODER, topic, *values)
    check_decoded(together, len(values))
    alone = [decoded(_DECODER, topic, value) for value in values]
    assert [letter.reason for one in alone for letter in one.dead] == [letter.reason for letter in together.dead]
    assert sum(one.ignored for one in alone) == together.ignored
    for name in ("time", "kind", "ids", "numbers", "label", "event_id"):
        columns = [getattr(one.events, name) for one in alone]
        expected = np.concatenate([getattr(together.events, name)[:0], *columns])
        np.testing.assert_array_equal(getattr(together.events, name), expected)


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(opening=st.sampled_from([b"[", b'{"a":', b'[{"a":', b'"[', b'{"user":{"id":']), depth=st.integers(1, 20_000))
def test_no_depth_of_nesting_is_too_much(opening: bytes, depth: int) -> None:
    for topic in CONFIG.topics:
        check_decoded(decoded(_DECODER, topic, opening * depth), 1)
        check_decoded(decoded(_DECODER, topic, b'{"user":"u","x":' + opening * depth + b"1"), 1)

"""What becomes of every kind of record, good and bad; and that batches do not matter."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from stream_learner.config import event_schema, parse
from stream_learner.errors import ConfigError
from stream_learner.events import EventBatch
from stream_learner.ingest.dead_letters import REASONS
from stream_learner.ingest.decode import Decoded, Decoder
from stream_learner.ingest.identity import Pseudonymiser, fingerprints
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.settings import Config

OTTO = Path(__file__).parent.parent / "fixtures" / "otto"
NOW_MS = 1_659_304_800_000
GOOD = {"user": "u1", "item": "i1", "time": NOW_MS, "type": "click"}
SHOP = """
topics:
  events:
    fields: {id: id, session: context.session, label: label}
    time_format: epoch_ms
    types: {click: click, buy: purchase}
    categorical: {category: product.category}
    numeric: {price: product.price}
dead_letters: {max_record_bytes: 65536}
"""
ISO = "topics: {events: {time_format: iso8601}}"
FIELD = "{topics: {events: {fields: {label: label}, label: {at_least: 4}}}, labels: {from: field}}"


def decoded(config: Config, values: list[bytes | None], timestamps: object = NOW_MS, topic: str = "events") -> Decoded:
    count = len(values)
    stamps = np.broadcast_to(np.asarray(timestamps, np.int64), count)
    batch = RecordBatch(Partition(topic, 3), 7 * np.arange(count) + 100, stamps, values, 7 * count + 100)
    return Decoder(config, event_schema(config)).decode(batch)


def shop(record: object, **others: object) -> Decoded:
    return decoded(parse(SHOP), [json.dumps(record).encode()], **others)


def good(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


def text(record: str) -> bytes:
    """A record whose JSON cannot be written by `json.dumps`."""
    return (f'{{"user":"u","item":"i","type":"click","time":{NOW_MS},' + record + "}").encode()


BAD = [
    ("tombstone", None, "empty", "no value"),
    ("no bytes", b"", "empty", "0 bytes"),
    ("a huge string", good(user="x" * 70_000), "too_large", "limit 65536"),
    ("too large, not even JSON", b"\x00" * 65_537, "too_large", "65537 bytes"),
    ("deep nest in a field nobody reads", text('"extra":' + "[" * 50_000), "too_deep", "128"),
    ("deep nest of objects", text('"extra":' + '{"a":' * 129 + "1" + "}" * 129), "too_deep", "128"),
    ("latin-1", '{"user":"é"}'.encode("latin-1"), "not_utf8", "byte"),
    ("utf-16", json.dumps(GOOD).encode("utf-16"), "not_utf8", "byte"),
    ("random bytes", bytes(range(128, 256)), "not_utf8", "byte"),
    ("a lone surrogate", text('"id":"\\ud800"'), "not_json", ""),
    ("byte order mark", b"\xef\xbb\xbf" + good(), "not_json", "malformed"),
    ("plain text", b"hello", "not_json", "malformed"),
    ("white space", b"   ", "not_json", ""),
    ("cut off", good()[:-1], "not_json", "truncated"),
    ("two records in one", good() + good(), "not_json", "trailing"),
    ("trailing comma", good()[:-1] + b",}", "not_json", "comma"),
    ("single quotes", b"{'user': 'u'}", "not_json", "malformed"),
    ("NUL bytes", b"\x00" * 10, "not_json", "malformed"),
    ("an array", b"[" + good() + b"]", "not_object", "array"),
    ("a string", b'"click"', "not_object", "string"),
    ("a number", b"12", "not_object", "integer"),
    ("null", b"null", "not_object", "null"),
    ("empty object", b"{}", "missing_field", "type"),
    ("no user", without("user"), "missing_field", "user"),
    ("no item", without("item"), "missing_field", "item"),
    ("no time", without("time"), "missing_field", "time"),
    ("no type", without("type"), "missing_field", "type"),
    ("null user", good(user=None), "missing_field", "user"),
    ("empty user", good(user=""), "missing_field", "user"),
    ("empty item", good(item=""), "missing_field", "item"),
    ("null time", good(time=None), "missing_field", "time"),
    ("empty type", good(type=""), "missing_field", "type"),
    ("boolean user", good(user=True), "wrong_type", "user: a JSON boolean, expected integer or string"),
    ("fractional user", good(user=12.5), "wrong_type", "user: a JSON fraction"),
    ("whole fraction as item", good(item=12.0), "wrong_type", "item: a JSON fraction"),
    ("list of items", good(item=["a", "b"]), "wrong_type", "item: a JSON array"),
    ("object as user", good(user={"id": 1}), "wrong_type", "user: a JSON object"),
    ("boolean type", good(type=False), "wrong_type", "type: a JSON boolean"),
    ("boolean id", good(id=True), "wrong_type", "id: a JSON boolean"),
    ("boolean session", good(context={"session": True}), "wrong_type", "context.session: a JSON boolean"),
    ("a string where an object goes", good(product="shoe"), "wrong_type", "product: a JSON string, expected object"),
    ("an array where an object goes", good(product=[1]), "wrong_type", "product: a JSON array"),
    ("fractional category", good(product={"category": 1.5}), "wrong_type", "product.category: a JSON fraction"),
    ("price as a string", good(product={"price": "9.99"}), "wrong_type", "product.price: a JSON string"),
    ("boolean price", good(product={"price": True}), "wrong_type", "product.price: a JSON boolean"),
    ("time as a string", good(time=str(NOW_MS)), "wrong_type", "time: a JSON string"),
    ("time as a boolean", good(time=True), "wrong_type", "time: a JSON boolean"),
    ("long user", good(user="u" * 1025), "id_too_long", "user: 1025 bytes"),
    ("long in bytes only", good(item="é" * 513), "id_too_long", "item: 1026 bytes"),
    ("long category", good(product={"category": "c" * 2000}), "id_too_long", "product.category: 2000 bytes"),
    ("long integer", good(user=10**1024), "id_too_long", "user: 1025 bytes"),
    ("before 1970", good(time=-1), "bad_time", "time: -1"),
    ("in the year 2200", good(time=7_258_118_400_000), "bad_time", "time: 7258118400000"),
    ("microseconds taken for milliseconds", good(time=NOW_MS * 1000), "bad_time", "time"),
    ("an absurd time", good(time=1e300), "bad_time", "1e+300"),
    ("a time beyond float64", good(time=10**400), "bad_time", "time"),
    ("two hours ahead", good(time=NOW_MS + 7_200_000), "time_ahead", "time: 3600 s too far ahead"),
    ("one ms too far ahead", good(time=NOW_MS + 3_600_001), "time_ahead", "0.001 s"),
    ("NaN", text('"product":{"price":NaN}'), "non_finite", "NaN"),
    ("Infinity", text('"product":{"price":-Infinity}'), "non_finite", "-Infinity"),
    ("beyond float64", text('"product":{"price":1e999}'), "non_finite", "range"),
    ("an integer beyond float64", good(product={"price": 10**400}), "non_finite", "product.price"),
    ("beyond float32", good(product={"price": -1e39}), "non_finite", "product.price: beyond float32"),
    ("label 2", good(label=2), "bad_label", "label: 2"),
    ("label 0.5", good(label=0.5), "bad_label", "label: 0.5"),
    ("label as a string", good(label="yes"), "bad_label", "label: a JSON string"),
    ("label as a list", good(label=[]), "bad_label", "label: a JSON array"),
]


@pytest.mark.parametrize(("value", "reason", "detail"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_record(value: bytes | None, reason: str, detail: str) -> None:
    result = decoded(parse(SHOP), [good(), value, good()])
    (letter,) = result.dead
    assert (letter.reason, letter.value) == (reason, value)
    assert detail in letter.detail and len(letter.detail) < 200
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp) == ("events", 3, 107, NOW_MS)
    assert result.rows.tolist() == [0, 2] and result.events.offset.tolist() == [100, 114]
    assert reason in REASONS


BAD_BY_CONFIG = [
    (ISO, "iso text", good(time="yesterday"), "bad_time"),
    (ISO, "wall clock words", good(time="now"), "bad_time"),
    (ISO, "no such day", good(time="2022-02-29T00:00:00"), "bad_time"),
    (ISO, "a leap second", good(time="2022-06-30T23:59:60Z"), "bad_time"),
    (ISO, "iso before 1970", good(time="1969-12-31T23:59:59Z"), "bad_time"),
    (ISO, "iso at the edge of the calendar", good(time="0001-01-01T00:00:00+23:59"), "bad_time"),
    (ISO, "iso as a number", good(time=NOW_MS), "wrong_type"),
    (ISO, "empty iso", good(time=""), "missing_field"),
    (ISO, "iso ahead", good(time="2022-07-31T23:00:00.000001Z"), "time_ahead"),
    ("topics: {events: {time_format: integer}}", "fraction for integer", good(time=1.5), "wrong_type"),
    ("topics: {events: {time_format: integer}}", "huge integer", good(time=10**400), "bad_time"),
    ("topics: {events: {time_format: epoch_us}}", "us beyond 2200", good(time=7_258_118_400_000_000), "bad_time"),
    (FIELD, "example without label", good(), "missing_field"),
    (FIELD, "null label", good(label=None), "missing_field"),
    (FIELD, "boolean for a rule", good(label=True), "bad_label"),
    ("topics: {events: {numeric: {n: user}}}", "one path, two uses at odds", good(), "wrong_type"),
]


@pytest.mark.parametrize("row", BAD_BY_CONFIG, ids=[row[1] for row in BAD_BY_CONFIG])
def test_bad_record_under_another_mapping(row: tuple[str, str, bytes, str]) -> None:
    config, _, value, reason = row
    assert [letter.reason for letter in decoded(parse(config), [value]).dead] == [reason]


def test_details_never_repeat_an_id() -> None:
    spoilt = [good(user="alice@example.org", item=True), good(user="alice@example.org" * 100), good(user=["alice"])]
    assert not any("alice" in letter.detail for letter in decoded(parse(SHOP), list(spoilt)).dead)


def test_a_full_record() -> None:
    record = {
        **GOOD,
        "id": 77,
        "label": True,
        "context": {"session": "s", "agent": "x"},
        "product": {"category": 5, "price": 3},
        "more": [{"deep": None}],
    }
    events = shop(record).events
    schema = event_schema(parse(SHOP))
    assert schema.ids == ("user", "item", "session", "category") and schema.numbers == ("price",)
    assert events.ids.tolist() == [fingerprints(["u1", "i1", "s", "5"]).tolist()]
    assert events.time.tolist() == [NOW_MS * 1000] and events.numbers.tolist() == [[3.0]]
    assert events.label.tolist() == [1.0] and events.event_id.tolist() == fingerprints(["77"]).tolist()
    assert events.kind.tolist() == [schema.kinds.index("click")]
    assert events.topic.tolist() == [0] and events.partition.tolist() == [3]
    for column, empty in zip(_columns(events), _columns(EventBatch.empty(schema)), strict=True):
        assert column.dtype == empty.dtype and column.shape[1:] == empty.shape[1:]


@pytest.mark.parametrize("blank", [None, "", "absent"])
def test_optional_fields_may_be_missing(blank: object) -> None:
    record = {**GOOD}
    if blank != "absent":
        record |= {"id": blank, "label": None, "context": {"session": blank}, "product": {"category": blank}}
    result = shop(record)
    assert not result.dead
    assert result.events.ids[0, 2:].tolist() == [0, 0] and result.events.event_id.tolist() == [0]
    assert np.isnan(result.events.numbers).all() and np.isnan(result.events.label).all()


def test_a_null_where_an_object_could_be_is_a_missing_field() -> None:
    result = shop({**GOOD, "context": None, "product": {"price": 2}})
    assert not result.dead and result.events.numbers.tolist() == [[2.0]] and result.events.ids[0, 2] == 0


def test_a_key_given_twice_counts_as_its_last() -> None:
    result = decoded(parse(SHOP), [good()[:-1] + b', "user": true, "user": "u2"}'])
    assert result.events.ids[0, 0] == fingerprints(["u2"])[0]


def test_a_number_and_its_text_are_the_same_id() -> None:
    events = decoded(parse(SHOP), [good(user=12), good(user="12"), good(user=-3), good(user="0012")]).events
    assert events.ids[:, 0].tolist() == fingerprints(["12", "12", "-3", "0012"]).tolist()


def test_a_dotted_key_at_the_top_level() -> None:
    config = parse("topics: {events: {fields: {user: a.user, item: a.item.id, time: t, type: a.type}}}")
    flat = {"a.user": 1, "a.item.id": "x", "a.type": "click", "t": NOW_MS}
    nested = {"a": {"user": 1, "item": {"id": "x"}, "type": "click"}, "t": NOW_MS}
    both = {**flat, "a": {"user": 1, "item": None}, "a.user": 2}
    result = decoded(config, [json.dumps(record).encode() for record in (flat, nested, both)])
    assert not result.dead
    assert result.events.ids[:, :2].tolist() == [fingerprints(["1", "x"]).tolist()] * 3


def test_one_path_for_several_uses() -> None:
    config = parse("topics: {events: {fields: {id: user}, categorical: {shopper: user}, numeric: {when: time}}}")
    events = decoded(config, [good(user=5)]).events
    assert events.ids[0].tolist() == fingerprints(["5", "i1", "", "5"]).tolist() and events.event_id == events.ids[0, 0]
    assert events.numbers[0, 0] == np.float32(NOW_MS)


@pytest.mark.parametrize("paths", ["{user: a, item: a.b}", "{user: a.b, item: a}", "{user: a.b.c, item: a.b}"])
def test_paths_at_odds_are_refused(paths: str) -> None:
    with pytest.raises(ConfigError, match=r"topics.events: field path 'a"):
        parse(f"topics: {{events: {{fields: {paths}}}}}")


def test_a_path_that_cannot_be_a_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        parse("topics: {events: {fields: {user: 'a\"b'}}}")


def test_types_are_mapped_and_unlisted_ones_ignored_unjudged() -> None:
    spoilt = {"user": True, "type": "view", "time": "?", "product": 3}
    values = [good(type="buy"), good(type="view"), json.dumps(spoilt).encode(), good(), good(type=12), b"{}"]
    result = decoded(parse(SHOP), values)
    kinds = event_schema(parse(SHOP)).kinds
    assert [kinds[kind] for kind in result.events.kind] == ["purchase", "click"]
    assert result.ignored == 3 and result.rows.tolist() == [0, 3]
    assert [letter.reason for letter in result.dead] == ["missing_field"]


def test_integer_types_and_a_constant_type() -> None:
    config = parse(
        "topics: {acts: {types: {'1': click, '4': purchase}}, "
        "sales: {fields: {type: null}, constant_type: purchase, types: {}, numeric: {price: price}}}"
    )
    kinds = event_schema(config).kinds
    acts = decoded(config, [good(type=4), good(type="1"), good(type=2)], topic="acts")
    assert [kinds[kind] for kind in acts.events.kind] == ["purchase", "click"] and acts.ignored == 1
    assert acts.events.numbers.shape == (2, 1) and np.isnan(acts.events.numbers).all()
    sales = decoded(config, [without("type")], topic="sales").events
    assert sales.kind.tolist() == [kinds.index("purchase")] and sales.topic.tolist() == [1]


@pytest.mark.parametrize(
    ("written_as", "value", "expected_us"),
    [
        ("epoch_s", 1659304800, 1_659_304_800_000_000),
        ("epoch_s", 1659304800.025, 1_659_304_800_025_000),
        ("epoch_ms", 1659304800025, 1_659_304_800_025_000),
        ("epoch_ms", 1659304800025.5, 1_659_304_800_025_500),
        ("epoch_us", 7_258_118_399_999_999, 7_258_118_399_999_999),
        ("epoch_ms", 0, 0),
        ("integer", 5, 5_000_000),
        ("iso8601", "2022-07-31T22:00:00.025Z", 1_659_304_800_025_000),
        ("iso8601", "2022-07-31 22:00:00.025", 1_659_304_800_025_000),
        ("iso8601", "2022-08-01T00:00:00.025+02:00", 1_659_304_800_025_000),
        ("iso8601", "2022-07-31T22:00:00.025000123", 1_659_304_800_025_000),
        ("iso8601", "2022-07-31", 1_659_225_600_000_000),
        ("iso8601", "20220731T2200", 1_659_304_800_000_000),
    ],
)
def test_time_formats(written_as: str, value: object, expected_us: int) -> None:
    config = parse(f"topics: {{events: {{time_format: {written_as}}}}}")
    result = decoded(config, [good(time=value)], timestamps=-1)
    assert not result.dead and result.events.time.tolist() == [expected_us]


def test_how_far_ahead_is_judged_by_the_record_alone() -> None:
    edge = good(time=NOW_MS + 3_600_000)
    beyond = good(time=NOW_MS + 3_600_001)
    result = decoded(parse(SHOP), [edge, beyond, beyond], timestamps=[NOW_MS, NOW_MS, -1])
    assert [letter.offset for letter in result.dead] == [107]
    integer = parse("topics: {events: {time_format: integer}}")
    assert not decoded(integer, [good(time=2_000_000_000)], timestamps=0).dead


def test_labels_from_a_field_are_asked_of_examples_only() -> None:
    values = [good(label=4), good(label=3.9), good(label=-1e30), good(type="purchase"), good(type="purchase", label=9)]
    result = decoded(parse(FIELD), values)
    np.testing.assert_array_equal(result.events.label, np.array([1, 0, 0, np.nan, 1], np.float32))
    plain = decoded(parse(SHOP), [good(label=v) for v in (0, 1, 0.0, 1.0, False, True)])
    assert plain.events.label.tolist() == [0, 1, 0, 1, 0, 1]


def test_users_become_pseudonyms_wherever_they_are_used() -> None:
    config = parse(
        "{topics: {events: {categorical: {shopper: user}}}, privacy: {pseudonymise: true, key: '${K}'}}",
        environ={"K": "a key of some length"},
    )
    events = decoded(config, [good(user="12"), good(user=12)]).events
    expected = fingerprints(Pseudonymiser("a key of some length").pseudonyms(["12"]))[0]
    assert set(events.ids[:, [0, 3]].ravel().tolist()) == {int(expected)}
    assert events.ids[0, 1] == fingerprints(["i1"])[0]


def _columns(events: EventBatch) -> list[np.ndarray]:
    return list(events.capture().values())


def _mixed(count: int) -> list[bytes | None]:
    """Good, odd and bad records, seeded."""
    rng = np.random.default_rng(5)
    values: list[bytes | None] = []
    for number in range(count):
        record = {
            "user": [None, True, "", "u", 4][rng.integers(0, 5)] if rng.random() < 0.1 else int(rng.integers(0, 50)),
            "item": str(rng.integers(0, 50)),
            "time": NOW_MS + int(rng.integers(-(10**6), 4 * 10**6)),
            "type": ["click", "buy", "view", ""][rng.choice(4, p=[0.6, 0.2, 0.15, 0.05])],
            "id": number if rng.random() < 0.5 else None,
            "label": [0, 1, True, 3, "x", None][rng.choice(6, p=[0.4, 0.4, 0.1, 0.02, 0.02, 0.06])],
            "product": [{"price": float(rng.random()), "category": "c"}, None, {"price": "1"}, {}][
                rng.choice(4, p=[0.8, 0.1, 0.05, 0.05])
            ],
        }
        values.append(json.dumps(record).encode())
    for number, row in enumerate(BAD):
        values[number * count // len(BAD)] = row[1]
    return values


def _oracle(value: bytes | None) -> tuple[str, ...] | None:
    """An event's words, ("dead",) or None for ignored, from json and plain Python, for what `_mixed` makes."""
    try:
        record = json.loads(value or b"")
        assert isinstance(record, dict)
    except (ValueError, AssertionError, RecursionError):
        return ("dead",)
    if record.get("type") == "view":
        return None
    product = record.get("product") or {}
    price = product.get("price") if isinstance(product, dict) else "bad"
    ids_fine = all(type(record.get(name)) in (str, int) and record[name] != "" for name in ("user", "item", "type"))
    time_fine = type(record.get("time")) in (int, float) and record["time"] <= NOW_MS + 3_600_000
    label_fine = record.get("label") in (0, 1, None) and not isinstance(record.get("label"), list)
    if not (ids_fine and time_fine and label_fine and (price is None or type(price) in (int, float))):
        return ("dead",)
    return (str(record["user"]), record["item"], str(record["time"] * 1000), str(price), str(record.get("id") or ""))


def test_against_plain_python() -> None:
    values = [value for value in _mixed(3000) if value not in [row[1] for row in BAD]]
    result = decoded(parse(SHOP), values)
    expected = [_oracle(value) for value in values]
    assert result.ignored == expected.count(None)
    assert [(letter.offset - 100) // 7 for letter in result.dead] == [
        i for i, e in enumerate(expected) if e == ("dead",)
    ]
    alive = [i for i, e in enumerate(expected) if e is not None and e != ("dead",)]
    assert result.rows.tolist() == alive and len(alive) > 1000
    words = [expected[i] for i in alive]
    events = result.events
    assert events.ids[:, 0].tolist() == fingerprints([w[0] for w in words]).tolist()
    assert events.ids[:, 1].tolist() == fingerprints([w[1] for w in words]).tolist()
    assert events.time.tolist() == [int(w[2]) for w in words]
    prices = np.array([np.nan if w[3] == "None" else float(w[3]) for w in words], np.float32)
    np.testing.assert_array_equal(events.numbers[:, 0], prices)


@pytest.mark.parametrize("piece", [1, 7, 256])
def test_batch_sizes_do_not_matter(piece: int) -> None:
    values = _mixed(700)
    whole = decoded(parse(SHOP), values)
    config = parse(SHOP)
    decoder = Decoder(config, event_schema(config))
    parts = []
    for start in range(0, len(values), piece):
        offsets = 7 * np.arange(start, min(start + piece, len(values))) + 100
        batch = RecordBatch(Partition("events", 3), offsets, np.full(len(offsets), NOW_MS), values[start:][:piece], 0)
        parts.append(decoder.decode(batch))
    pieced = EventBatch.concat([part.events for part in parts])
    for one, other in zip(_columns(whole.events), _columns(pieced), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.dead == [letter for part in parts for letter in part.dead]
    assert whole.ignored == sum(part.ignored for part in parts)


def test_nothing_but_bad_records_and_nothing_at_all() -> None:
    assert len(decoded(parse(SHOP), [None, b"{", b"[]"]).events) == 0
    empty = decoded(parse(SHOP), [])
    assert len(empty.events) == 0 and len(empty.rows) == 0 and not empty.dead and empty.ignored == 0


def test_the_verdict_on_a_nest_does_not_depend_on_the_stack() -> None:
    edge = text('"extra":' + "[" * 127 + "]" * 127)
    quoted = text('"extra":"' + '[\\"' * 500 + '"')

    def deep(levels: int) -> int:
        return deep(levels - 1) if levels else len(decoded(parse(SHOP), [edge, quoted]).events)

    assert deep(0) == deep(300) == 2


def test_otto() -> None:
    """Real events: the published sessions decode to the flattened table."""
    config = parse(
        "topics: {otto: {fields: {user: session, item: aid, time: ts}, "
        "types: {clicks: click, carts: cart, orders: purchase}}}"
    )
    sessions = [json.loads(line) for line in (OTTO / "train.jsonl").read_text().splitlines()]
    records = [{"session": s["session"], **event} for s in sessions for event in s["events"]]
    result = decoded(config, [json.dumps(record).encode() for record in records], timestamps=-1, topic="otto")
    assert len(result.events) == 862 and not result.dead and not result.ignored
    kinds = event_schema(config).kinds
    assert np.bincount(result.events.kind, minlength=3).tolist() == [
        {"click": 800, "cart": 52, "purchase": 10}[kind] for kind in kinds
    ]
    rows = pyarrow.parquet.read_table(OTTO / "events.parquet").to_pylist()
    names = {"clicks": "click", "carts": "cart", "orders": "purchase"}
    users, items = fingerprints([str(r["user"]) for r in rows]), fingerprints([str(r["item"]) for r in rows])
    table = [
        (round(r["ts"].replace(tzinfo=UTC).timestamp() * 1e6), int(users[i]), int(items[i]), names[r["event"]])
        for i, r in enumerate(rows)
    ]
    events = result.events
    ours = zip(events.time.tolist(), *events.ids[:, :2].T.tolist(), [kinds[k] for k in events.kind], strict=True)
    assert sorted(ours) == sorted(table)
    assert datetime.fromtimestamp(events.time.min() / 1e6, UTC).year == 2022

"""Records that can never be learned from, through a real broker: kept with their reason, counted, and bounded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broker import KafkaBroker
from processes import changed, learner, side_by_side, write_config
from shops import CONFIG, PARTITIONS, SEED, shop_events

from stream_learner.ingest.dead_letters import DeadLetter, read_dead_letters
from stream_learner.simulate import encode
from stream_learner.simulate.outputs import partition_of

pytestmark = pytest.mark.kafka

EVENTS = 10_000
BAD_SHARE = 0.03
Sent = tuple[int, bytes | None, int]  # partition, value, timestamp in ms

WHOLE = {
    "event_id": "bad",
    "user_id": "u1",
    "item_id": "i1",
    "event_type": "click",
    "category": "c1",
    "price": 1.0,
    "source": "ads",
    "session_id": "s1",
}


def broken(timestamp: int, **values: Any) -> bytes:
    """An event whose only fault is in `values`."""
    return json.dumps({**WHOLE, "timestamp": timestamp, **values}).encode()


def without(timestamp: int, field: str) -> bytes:
    event = {**WHOLE, "timestamp": timestamp}
    del event[field]
    return json.dumps(event).encode()


def kinds(at: int) -> list[tuple[str, bytes | None]]:
    """(reason, value) of records that cannot be used, at a time in ms."""
    day_ms = 86_400_000
    return [
        ("empty", None),
        ("empty", b""),
        ("not_json", b"{"),
        ("not_json", b"not JSON at all"),
        ("not_json", broken(at)[:-1]),
        ("not_json", broken(at) + b"{}"),
        ("not_object", b"[]"),
        ("not_object", b"17"),
        ("not_object", b'"text"'),
        ("not_object", b"null"),
        ("not_utf8", broken(at).replace(b"u1", b"\xff\xfe")),
        ("too_deep", b"[" * 3000 + b"]" * 3000),
        ("too_large", broken(at, padding="x" * 9000)),
        ("missing_field", without(at, "user_id")),
        ("missing_field", without(at, "item_id")),
        ("missing_field", without(at, "timestamp")),
        ("missing_field", without(at, "event_type")),
        ("missing_field", broken(at, user_id=None)),
        ("missing_field", broken(at, item_id="")),
        ("wrong_type", broken(at, user_id={"a": 1})),
        ("wrong_type", broken(at, item_id=[1])),
        ("wrong_type", broken(at, price="dear")),
        ("wrong_type", broken(at, event_type=["click"])),
        ("wrong_type", broken(at, category=True)),
        ("id_too_long", broken(at, user_id="u" * 1500)),
        ("bad_time", broken(-1)),
        ("bad_time", broken(10**18)),
        ("time_ahead", broken(at + 3 * day_ms)),
        ("non_finite", broken(at, price=float("1e300"))),
    ]


def stream(topic_of_all: str) -> tuple[list[Sent], list[DeadLetter], Counter[str]]:
    """What is sent in order, the dead letters to expect, and what else becomes of records: ignored, late, duplicate."""
    events = shop_events(EVENTS)
    values, partitions, times = encode(events, SEED), partition_of(events, PARTITIONS), events.time // 1000
    rng = np.random.default_rng(SEED)
    sent: list[Sent] = []
    letters: list[DeadLetter] = []
    fates: Counter[str] = Counter()
    next_offset = [0] * PARTITIONS
    bad = endless_kinds()

    def send(partition: int, value: bytes | None, at: int) -> None:
        sent.append((partition, value, at))
        next_offset[partition] += 1

    for value, partition, at in zip(values, partitions.tolist(), times.tolist(), strict=True):
        send(partition, value, at)
        if rng.random() < BAD_SHARE:
            reason, content = next(bad)(at)
            letters.append(DeadLetter(reason, "", topic_of_all, partition, next_offset[partition], at, content))
            send(partition, content, at)
        if rng.random() < 0.01:
            fate, content = [
                ("duplicate", value),
                ("ignored", broken(at, event_type="search")),
                ("late", broken(int(times[0]) - 3_600_000)),
            ][int(rng.integers(3))]
            fates[fate] += 1
            send(partition, content, at)
    return sent, letters, fates


def endless_kinds() -> Iterator[Any]:
    """Every kind in turn, as a function of the time."""
    while True:
        for index in range(len(kinds(0))):
            yield lambda at, index=index: kinds(at)[index]


def test_a_stream_with_bad_records_is_learned_and_they_are_kept(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka.topic(PARTITIONS)
    sent, expected, fates = stream(topic)
    kafka.produce(topic, sent)
    config = changed(CONFIG, topics={topic: CONFIG["topics"]["events"]}, source__kind="kafka")
    config = changed(config, source__kafka__bootstrap_servers=kafka.bootstrap, dead_letters__max_record_bytes=8192)
    config["dead_letters"] |= {"late": "dead_letter", "rate_records": 2000}
    tolerant, strict = tmp_path / "tolerant", tmp_path / "strict"
    for folder, rate in ((tolerant, 0.06), (strict, 0.01)):
        write_config(folder / "config.yaml", changed(config, dead_letters__max_rate=rate))

    def run(folder: Path, expect: int) -> str:
        where = ("--state", folder / "state", "--report", folder / "report.json")
        return learner("run", "-c", folder / "config.yaml", "--until-end", *where, expect=expect).stderr

    _, refusal = side_by_side([lambda: run(tolerant, 0), lambda: run(strict, 3)])

    report = json.loads((tolerant / "report.json").read_text())
    assert report["consumed"] == len(sent)
    assert report["dead_letters"] == len(expected) > 200
    assert {fate: report[name] for fate, name in REPORTED.items()} == dict(fates)
    assert report["events"] == EVENTS and report["open"] == 0
    assert report["consumed"] == sum(report[name] for name in (*REPORTED.values(), "events", "dead_letters", "open"))
    assert report["dead_letter_reasons"] == Counter(letter.reason for letter in expected) + Counter(late=fates["late"])

    letters = read_dead_letters(tolerant / "state" / "dead_letters.jsonl")
    kept = {place(letter): letter for letter in letters if letter.reason != "late"}
    assert kept == {place(letter): letter for letter in with_details(expected, kept)}
    assert sum(letter.reason == "late" for letter in letters) == fates["late"]

    assert "records are dead letters (" in refusal and "more than dead_letters.max_rate 0.01 allows" in refusal
    assert "Mend the topic's mapping or its producer, or raise dead_letters.max_rate" in refusal


REPORTED = {"duplicate": "duplicates", "ignored": "ignored", "late": "late"}
Place = tuple[int, int]


def place(letter: DeadLetter) -> Place:
    return letter.partition, letter.offset


def with_details(letters: list[DeadLetter], found: dict[Place, DeadLetter]) -> list[DeadLetter]:
    """The expected letters with the details found: those are for people, and told of elsewhere."""
    return [
        DeadLetter(e.reason, found[place(e)].detail, e.topic, e.partition, e.offset, e.timestamp, e.value)
        for e in letters
    ]

"""Retention overtakes a stopped worker: it says so, goes on when told to, and every later version carries the gap."""

from __future__ import annotations

from pathlib import Path

import pytest
from broker import KafkaBroker
from kafka import TopicPartition
from processes import assert_equal, learner, outcome, write_config
from shops import PARTITIONS, SEED, shop_events
from test_tenet import topic_config

from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.storage import LocalStorage
from stream_learner.simulate import produce_kafka
from stream_learner.simulate.outputs import partition_of

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

BEFORE, EVENTS, LOST = 7000, 10_000, 200  # events read before, in all, and offsets lost of one partition


def test_a_gap_is_refused_then_skipped_recorded_and_replayed(apache_kafka: KafkaBroker, tmp_path: Path) -> None:
    topic, events, state = apache_kafka.topic(PARTITIONS), shop_events(EVENTS), tmp_path / "state"
    config = write_config(tmp_path / "config.yaml", topic_config(apache_kafka.bootstrap, topic))
    again = ("run", "-c", config, "--until-end", "--state", state, "--report", tmp_path / "report.json")

    def produce(part: slice) -> None:
        produce_kafka(apache_kafka.bootstrap, topic, [events.take(part)], partitions=PARTITIONS, seed=SEED)

    produce(slice(None, BEFORE))
    learner(*again)
    early = outcome(state, tmp_path / "report.json").versions
    produce(slice(BEFORE, None))
    learner("archive", "-c", config, "--out", tmp_path / "archive")  # before anything is lost
    position = int((partition_of(events.take(slice(None, BEFORE)), PARTITIONS) == 1).sum())
    with apache_kafka.admin() as admin:
        admin.delete_records({TopicPartition(topic, 1): position + LOST})

    refusal = learner(*again, expect=3).stderr
    assert f"{topic}/1: position {position} lies before the log, [{position + LOST}, " in refusal
    assert (
        f"--on-gap skip, which goes on at {topic}/1 offset {position + LOST} and leaves {LOST} offsets out" in refusal
    )
    learner(*again, "--on-gap", "skip")

    live = outcome(state, tmp_path / "report.json")
    assert live.report["skipped"] == LOST
    fates = ("ignored", "late", "dead_letters", "duplicates", "skipped", "events", "open")
    assert live.report["consumed"] == EVENTS == sum(live.report[fate] for fate in fates)
    checkpoints = Checkpoints(LocalStorage(state / "checkpoints" / "shop"), "shop", keep=2)
    gap = {"topic": topic, "index": 1, "from": position, "until": position + LOST, "decision": "skip"}
    for version in live.versions:
        gaps = checkpoints.read(version).gaps
        assert gaps == ([] if version in early else [gap | {"slide": gaps[0]["slide"]}])
    assert live.versions[-1] not in early
    shown = learner("checkpoints", "show", str(live.versions[-1]), "--state", state).stdout
    assert f"gap {topic}/1" in shown and f"from {position} on to {position + LOST}, by --on-gap skip" in shown

    replay = ("--state", tmp_path / "replay", "--journal", state / "journal.jsonl", "--report", tmp_path / "r.json")
    learner("backtest", "-c", config, "--events", tmp_path / "archive", *replay)
    assert_equal(live, outcome(tmp_path / "replay", tmp_path / "r.json"))

"""The tenet: the same events give the same versions, bit for bit, however they came.

One topic, learned through Kafka with large polls, with tiny ones, by the other client, and from a broker that holds the
client back; and from the archives of that topic in both forms. Each run is a process of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from broker import ApacheKafka, KafkaBroker
from processes import Outcome, assert_equal, changed, learner, outcome, side_by_side, write_config
from shops import CONFIG, PARTITIONS, SEED, shop

from stream_learner.simulate import limited, produce_kafka

pytestmark = pytest.mark.kafka

EVENTS = 12_000
THROTTLED = "held-back"
HELD_BACK_S = 6.0
QUOTA_BYTES_PER_S = 120_000  # of about 2 MB in the topic; the first 11 seconds' worth comes at once

POLLS: dict[str, dict[str, Any]] = {
    "large polls": {"source__queue_records": 50_000, "source__kafka__max_poll_records": 20_000},
    "throttled broker": {
        "source__kafka__client_id": THROTTLED,
        "source__kafka__fetch_max_bytes": 65_536,
        "snapshot__interval": "5m",
    },
    "tiny polls": {
        "source__queue_records": 40,
        "source__kafka__max_poll_records": 7,
        "source__kafka__fetch_max_bytes": 4096,
        "slides__max_open_events": 1000,
        "snapshot__interval": "2h",
        "snapshot__max_waiting": 1,
    },
    "the other client": {
        "source__queue_records": 300,
        "source__kafka__client": "confluent",
        "source__kafka__max_poll_records": 100,
        "source__kafka__fetch_max_bytes": 16_384,
    },
}


def topic_config(bootstrap: str, topic: str, **values: Any) -> dict[str, Any]:
    """The shop's config on a Kafka topic."""
    config = changed(CONFIG, topics={topic: CONFIG["topics"]["events"]}, source__kind="kafka")
    return changed(config, source__kafka__bootstrap_servers=bootstrap, **values)


def through_kafka(folder: Path, config: dict[str, Any]) -> Outcome:
    path = write_config(folder / "config.yaml", config)
    learner("run", "-c", path, "--until-end", "--state", folder / "state", "--report", folder / "report.json")
    return outcome(folder / "state", folder / "report.json")


def through_archive(folder: Path, config: dict[str, Any], file_format: str) -> Outcome:
    path = write_config(folder / "config.yaml", config)
    learner("archive", "-c", path, "--out", folder / "archive", "--format", file_format)
    state, report = folder / "state", folder / "report.json"
    learner("backtest", "-c", path, "--events", folder / "archive", "--state", state, "--report", report)
    return outcome(state, report)


def wall_seconds(folder: Path) -> float:
    return float(json.loads((folder / "report.json").read_text())["wall_seconds"])


def test_the_same_log_gives_the_same_versions(kafka: KafkaBroker, tmp_path: Path) -> None:
    topic = kafka.topic(PARTITIONS)
    produce_kafka(kafka.bootstrap, topic, limited(shop().chunks(), EVENTS), partitions=PARTITIONS, seed=SEED)
    if isinstance(kafka.server, ApacheKafka):
        kafka.server.throttle(THROTTLED, QUOTA_BYTES_PER_S)
    configs = {name: topic_config(kafka.bootstrap, topic, **values) for name, values in POLLS.items()}
    runs = [lambda n=name, c=config: through_kafka(tmp_path / n, c) for name, config in configs.items()]
    archived = configs["large polls"]
    runs += [lambda f=form: through_archive(tmp_path / f, archived, f) for form in ("jsonl.gz", "parquet")]
    first, *others = side_by_side(runs)

    if isinstance(kafka.server, ApacheKafka):
        assert wall_seconds(tmp_path / "throttled broker") > HELD_BACK_S
    assert first.report["consumed"] == EVENTS
    assert len(first.versions) >= 3 and first.report["verdicts"]["held"] >= 3
    assert first.champion == first.versions[-1]
    assert sorted(first.manifests) == first.versions
    assert_equal(first, *others)

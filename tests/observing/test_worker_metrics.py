"""The list is closed, well named, and follows a worker's counts."""

import re
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_learner import config as configs
from stream_learner.ingest.memory import MemorySource
from stream_learner.ingest.source import Partition
from stream_learner.judging.scoreboard import Scoreboard
from stream_learner.learning.learner import Learned
from stream_learner.learning.replay import Replay
from stream_learner.observing.metrics import WorkerMetrics, documented, resident_bytes
from stream_learner.settings import Config, Duration
from stream_learner.tally import Tally
from stream_learner.windows.aggregates import Aggregates
from stream_learner.windows.attribution import Attribution
from stream_learner.windows.slides import open_slides
from stream_learner.windows.watermark import Watermark

NAMES = [
    "aggregate_evictions_total",
    "aggregate_keys",
    "captures_waiting",
    "champion_version",
    "commit_failures_total",
    "dead_letters_total",
    "decisions_total",
    "events_total",
    "examples_total",
    "feature_psi",
    "foreign_commits_total",
    "foreign_members",
    "lag_records",
    "learned_rows_total",
    "lease_token",
    "loss_nats",
    "matured_total",
    "open_events",
    "pending_examples",
    "positives_total",
    "publish_duration_seconds",
    "quality_ratio",
    "records_total",
    "replay_examples",
    "resident_memory_bytes",
    "retraces_total",
    "slide_duration_seconds",
    "slides_total",
    "snapshot_duration_seconds",
    "snapshot_size_bytes",
    "unmatched_purchases_total",
    "verdicts_total",
    "version_slide_end_seconds",
    "watermark_seconds",
]


def samples(metrics):
    """Exposed values by (name, sorted labels)."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(metrics, name, **labels):
    return samples(metrics)[f"stream_learner_{name}", tuple(sorted(labels.items()))]


@dataclass
class Parts:
    """A worker's parts, the real ones, without its loop."""

    config: Config = field(default_factory=Config)
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        schema = configs.event_schema(self.config)
        place = Partition("events", 0)
        source = MemorySource({place: [(0, -1, b"{}"), (1, -1, b"{}")]})
        source.start({place: 0}, until_end=False)
        windows = (Duration.parse("1h"),)
        self.around: Any = SimpleNamespace(source=source)
        self.intake: Any = SimpleNamespace(
            watermark=Watermark(self.config.slides), slides=open_slides(self.config.slides, schema)
        )
        self.aggregates = Aggregates(self.config, schema)
        self.attribution = Attribution(self.config, schema)
        self.replay = Replay(10, 0)
        self.learner: Any = SimpleNamespace(retraces=0)
        self.writer: Any = SimpleNamespace(waiting=1)
        self.judge: Any = SimpleNamespace(board=Scoreboard(("candidate", "prior"), windows, 1000))


def test_the_list_is_closed_and_well_named():
    listed = documented()
    assert sorted(entry.name.removeprefix("stream_learner_") for entry in listed) == NAMES
    for entry in listed:
        assert re.fullmatch(r"stream_learner(_[a-z]+)+", entry.name)
        assert (entry.type == "counter") == entry.name.endswith("_total")
        assert (entry.type == "histogram") == entry.name.endswith("_duration_seconds")
        assert len(entry.help) > 10 and not entry.help.endswith(".")
        assert set(entry.labels) <= {
            "topic", "partition", "fate", "reason", "stage", "key", "cause", "source", "model", "metric", "window",
            "feature", "verdict", "decision",
        }  # fmt: skip


def test_the_exposition_parses_and_holds_the_list_and_nothing_else():
    metrics = WorkerMetrics()
    text = metrics.exposition().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == {entry.name.removesuffix("_total") for entry in documented()}
    for entry in documented():
        family = families[entry.name.removesuffix("_total")]
        assert family.type == entry.type and family.documentation == entry.help
    assert "_created" not in text


def test_two_workers_share_nothing():
    first, second = WorkerMetrics(), WorkerMetrics()
    first.slides.inc()
    assert value(first, "slides_total") == 1 and value(second, "slides_total") == 0


def test_counters_follow_the_state_from_where_the_process_began():
    metrics, worker = WorkerMetrics(), Parts()
    worker.tally.accepted, worker.tally.slides = 1000, 10  # restored
    metrics.started(worker)
    assert value(metrics, "slides_total") == 0
    worker.tally.slides += 1
    worker.tally.accepted += 40
    worker.tally.late += 2
    worker.tally.topics = Counter(events=45)
    worker.tally.reasons = Counter(not_json=3)
    worker.aggregates.evicted += 5
    metrics.closed(worker, Learned(rows=30, replayed=28, steps=2, mean_loss=0.25))
    metrics.closed(worker, Learned(rows=0, replayed=0, steps=0, mean_loss=float("nan")))
    assert value(metrics, "slides_total") == 1
    assert value(metrics, "events_total", fate="accepted") == 40
    assert value(metrics, "events_total", fate="late") == 2
    assert value(metrics, "records_total", topic="events") == 45
    assert value(metrics, "dead_letters_total", reason="not_json") == 3
    assert value(metrics, "aggregate_evictions_total", cause="room") == 5
    assert value(metrics, "learned_rows_total", source="replay") == 28
    assert value(metrics, "loss_nats") == 0.25


def test_gauges_show_levels():
    metrics, worker = WorkerMetrics(), Parts()
    metrics.started(worker)
    assert value(metrics, "lag_records", topic="events", partition="0") == 2
    assert value(metrics, "watermark_seconds") == 0  # nothing seen yet is not shown as a time
    assert value(metrics, "captures_waiting") == 1
    worker.intake.watermark.join(Partition("events", 0))
    times = np.array([1_700_000_000_000_000])
    worker.intake.watermark.observe(Partition("events", 0), times, np.array([True]))
    metrics.closed(worker, Learned(0, 0, 0, float("nan")))
    assert value(metrics, "watermark_seconds") == 1_700_000_000 - worker.config.slides.allowed_lateness.seconds
    assert value(metrics, "aggregate_keys", key="item") == 0


def test_quality_is_shown_by_model_and_window():
    metrics, worker = WorkerMetrics(), Parts()
    logits, labels = np.array([-1, 0, 1, 2], np.float32), np.array([0, 0, 1, 1], np.float32)
    worker.judge.board.add({"candidate": logits}, labels, 1)
    metrics.closed(worker, Learned(0, 0, 0, float("nan")))
    assert value(metrics, "quality_ratio", model="candidate", metric="auc", window="1h") == 1.0
    assert np.isnan(value(metrics, "quality_ratio", model="prior", metric="ne", window="1h"))


def test_verdicts_versions_and_times():
    metrics = WorkerMetrics()
    metrics.verdict(passed=False, psi={"price": 0.5, "clicks": 0.1})
    metrics.verdict(passed=True, psi={"price": 0.2})
    metrics.serving(1_700_000_300, 1_700_000_300_000_000)
    assert value(metrics, "verdicts_total", verdict="held") == 1 == value(metrics, "verdicts_total", verdict="passed")
    assert value(metrics, "feature_psi", feature="price") == 0.2
    assert ("stream_learner_feature_psi", (("feature", "clicks"),)) not in samples(metrics)
    assert value(metrics, "champion_version") == value(metrics, "version_slide_end_seconds") == 1_700_000_300
    with metrics.stage("learn"), metrics.publishing(), metrics.snapshotting():
        pass
    assert value(metrics, "slide_duration_seconds_count", stage="learn") == 1
    assert value(metrics, "publish_duration_seconds_count") == value(metrics, "snapshot_duration_seconds_count") == 1


def test_a_stage_that_fails_is_timed_too():
    metrics = WorkerMetrics()
    with pytest.raises(ValueError, match="no"), metrics.stage("learn"):
        raise ValueError("no")
    assert value(metrics, "slide_duration_seconds_count", stage="learn") == 1


def test_resident_memory_is_plausible():
    assert 10e6 < resident_bytes() < 1e12
    assert value(WorkerMetrics(), "resident_memory_bytes") > 10e6

"""The list is closed, well named, and follows a worker's counts."""

import re
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from model_inputs import examples, setting
from prometheus_client.parser import text_string_to_metric_families

from stream_learner import config as configs
from stream_learner.ingest.memory import MemorySource
from stream_learner.ingest.source import Partition
from stream_learner.judging.baselines import Baselines
from stream_learner.judging.drift import DriftWatch
from stream_learner.judging.drift_inputs import InputColumns
from stream_learner.judging.drift_tests import Finding
from stream_learner.judging.race import Race
from stream_learner.judging.scoreboard import Origin, Scoreboard
from stream_learner.judging.slices import Slices
from stream_learner.learning.contenders import Cost
from stream_learner.learning.features import IdColumn
from stream_learner.learning.id_tables import IdTable
from stream_learner.learning.learned import Learned
from stream_learner.learning.plasticity import Condition
from stream_learner.learning.replay import Replay
from stream_learner.observing.metric_list import BOUNDS, GAINS, documented, resident_bytes
from stream_learner.observing.metrics import WorkerMetrics
from stream_learner.publishing.manifest import FileSum
from stream_learner.settings import Config, Duration
from stream_learner.tally import Tally
from stream_learner.windows.aggregates import Aggregates
from stream_learner.windows.attribution import Attribution
from stream_learner.windows.quarantine import Quarantine
from stream_learner.windows.slides import open_slides
from stream_learner.windows.watermark import Watermark

sys.path.insert(0, str(Path(__file__).parents[1] / "publishing"))
from versions import manifest_of

NAMES = [
    "aggregate_evictions_total",
    "aggregate_keys",
    "baseline_keys",
    "broken_slides_total",
    "budget_rows_per_slide",
    "captures_waiting",
    "catalogue_items",
    "challenger_cost_rows",
    "challenger_cost_seconds",
    "challenger_quality_ratio",
    "challenger_racing",
    "challenger_serving",
    "champion_version",
    "commit_failures_total",
    "dead_letters_total",
    "decisions_total",
    "dedupe_ids",
    "dormant_units_ratio",
    "drift_alarms_total",
    "drift_findings",
    "effective_rank_ratio",
    "estimate_ratio",
    "events_total",
    "examples_total",
    "feature_psi",
    "foreign_commits_total",
    "foreign_members",
    "gate_gain_ratio",
    "id_expiries_total",
    "id_table_rows",
    "join_health_ratio",
    "judged_examples",
    "known_ids",
    "lag_records",
    "learned_rows_total",
    "lease_token",
    "loss_nats",
    "matured_total",
    "open_events",
    "outage",
    "pending_examples",
    "positives_total",
    "publish_duration_seconds",
    "quality_ratio",
    "quarantine_size_bytes",
    "quarantined_examples_total",
    "queued_bytes",
    "queued_records",
    "ranking_coverage_ratio",
    "ranking_decisions_total",
    "ranking_drift_alarms_total",
    "ranking_quality_ratio",
    "ranking_slides_kept_out_total",
    "ranking_verdicts_total",
    "ranking_version",
    "records_total",
    "replay_age_ratio",
    "replay_examples",
    "replay_size_bytes",
    "replay_stratum_ratio",
    "resident_memory_bytes",
    "retraces_total",
    "session_events",
    "skipped_rows_total",
    "slice_quality_ratio",
    "slide_duration_seconds",
    "slides_total",
    "snapshot_duration_seconds",
    "snapshot_increments",
    "snapshot_size_bytes",
    "snapshot_written_bytes",
    "unmatched_purchases_total",
    "verdicts_total",
    "version_newest_event_seconds",
    "version_size_bytes",
    "version_slide_end_seconds",
    "waiting_ids",
    "watermark_seconds",
    "weight_norm",
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

    state: str
    next_item: None = None
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.config = configs.with_state(Config(), self.state)
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
        self.quarantine = Quarantine(self.config, schema, lambda _: None)
        self.replay = Replay(10, 0)
        self.learner: Any = SimpleNamespace(
            retraces=0,
            budget=700,
            ids={"item": IdTable(IdColumn("item", 1, "exact", 9, 2))},
            condition=lambda: Condition(0.25, 0.5, 3.0),
        )
        self.contenders: Any = SimpleNamespace(costs={"fast": Cost(1.5, 40)}, out={}, serving="fast")
        self.identities = None
        self.writer: Any = SimpleNamespace(waiting=1)
        self.judge: Any = SimpleNamespace(
            board=Scoreboard(("candidate", "prior"), windows, 1000, features=2),
            baselines=Baselines(schema, 1.0, 16),
            race=Race(self.config.gate, ["fast"]),
            slices=Slices(self.config.judging, schema),
            drift=DriftWatch(InputColumns({}, {}, (), 0), self.config.drift, 0),
        )


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
            "feature", "verdict", "slice", "kind", "measure", "decision", "age", "stratum", "bound",
            "challenger",
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


def test_every_bound_has_its_gauge_and_its_key():
    gauges = {entry.name.removeprefix("stream_learner_") for entry in documented() if entry.type == "gauge"}
    assert set(BOUNDS) <= gauges
    assert set(BOUNDS.values()) <= set(configs.leaves(configs.to_plain(Config())))
    # a gauge that counts what is held, and not a level or a time, has a bound
    held = {name for name in gauges if name.endswith(("_records", "_events", "_ids", "_keys", "_examples", "_rows"))}
    assert held - set(BOUNDS) == {"lag_records", "challenger_cost_rows"}  # of the log; counted, not held


def test_two_workers_share_nothing():
    first, second = WorkerMetrics(), WorkerMetrics()
    first.slides.inc()
    assert value(first, "slides_total") == 1 and value(second, "slides_total") == 0


def test_counters_follow_the_state_from_where_the_process_began(tmp_path):
    metrics, worker = WorkerMetrics(), Parts(str(tmp_path))
    worker.tally.accepted, worker.tally.slides = 1000, 10  # restored
    metrics.started(worker)
    assert value(metrics, "slides_total") == 0
    worker.tally.slides += 1
    worker.tally.accepted += 40
    worker.tally.late += 2
    worker.tally.topics = Counter(events=45)
    worker.tally.reasons = Counter(not_json=3)
    worker.aggregates.evicted += 5
    metrics.closed(worker, Learned(rows=30, replayed=28, steps=2, mean_loss=0.25, skipped=3, skipped_replay=5))
    metrics.closed(worker, Learned(rows=0, replayed=0, steps=0, mean_loss=float("nan")))
    assert value(metrics, "slides_total") == 1
    assert value(metrics, "events_total", fate="accepted") == 40
    assert value(metrics, "events_total", fate="late") == 2
    assert value(metrics, "records_total", topic="events") == 45
    assert value(metrics, "dead_letters_total", reason="not_json") == 3
    assert value(metrics, "aggregate_evictions_total", cause="room") == 5
    assert value(metrics, "learned_rows_total", source="replay") == 28
    assert value(metrics, "skipped_rows_total", source="fresh") == 3
    assert value(metrics, "skipped_rows_total", source="replay") == 5
    assert value(metrics, "loss_nats") == 0.25


def test_gauges_show_levels(tmp_path):
    metrics, worker = WorkerMetrics(), Parts(str(tmp_path))
    metrics.started(worker)
    assert value(metrics, "lag_records", topic="events", partition="0") == 2
    assert value(metrics, "watermark_seconds") == 0  # nothing seen yet is not shown as a time
    assert value(metrics, "captures_waiting") == 1
    assert value(metrics, "budget_rows_per_slide") == 700
    worker.intake.watermark.join(Partition("events", 0))
    times = np.array([1_700_000_000_000_000])
    worker.intake.watermark.observe(Partition("events", 0), times, np.array([True]))
    metrics.closed(worker, Learned(0, 0, 0, float("nan")))
    assert value(metrics, "watermark_seconds") == 1_700_000_000 - worker.config.slides.allowed_lateness.seconds
    assert value(metrics, "aggregate_keys", key="item") == 0


def test_quality_is_shown_by_model_and_window(tmp_path):
    metrics, worker = WorkerMetrics(), Parts(str(tmp_path))
    logits, labels = np.array([-1, 0, 1, 2], np.float32), np.array([0, 0, 1, 1], np.float32)
    worker.judge.board.add({"candidate": logits}, labels, 1)
    metrics.closed(worker, Learned(0, 0, 0, float("nan")))
    assert value(metrics, "quality_ratio", model="candidate", metric="auc", window="1h") == 1.0
    assert np.isnan(value(metrics, "quality_ratio", model="prior", metric="ne", window="1h"))


def test_the_race_is_shown_by_challenger(tmp_path):
    metrics, worker = WorkerMetrics(), Parts(str(tmp_path))
    logits, labels = np.array([-1, 0, 1, 2], np.float32), np.array([0, 0, 1, 1], np.float32)
    worker.judge.race.observe({"fast": logits}, np.zeros(4, np.float32), labels, 1, {})
    metrics.closed(worker, Learned(0, 0, 0, float("nan")))
    assert value(metrics, "challenger_cost_seconds", challenger="fast") == 1.5
    assert value(metrics, "challenger_cost_rows", challenger="fast") == 40
    assert value(metrics, "challenger_racing", challenger="fast") == 1
    assert value(metrics, "challenger_serving", challenger="fast") == 1
    assert value(metrics, "challenger_quality_ratio", challenger="fast", metric="gain") > 0
    assert 0 < value(metrics, "challenger_quality_ratio", challenger="fast", metric="ne") < 1


def test_drift_and_slices_are_shown(tmp_path):
    metrics, worker = WorkerMetrics(), Parts(str(tmp_path))
    finding = Finding("labels", "label", "rate", 0.5, 1e-9)
    metrics.started(worker)
    worker.judge.drift.current, worker.judge.drift.alarms["labels"] = [finding], 1
    rows = worker.judge.slices.arrive(np.ones((4, 3), np.uint64))
    slices = np.where(rows, 1, 0).astype(np.int16)
    worker.judge.slices.restore({**worker.judge.slices.capture(), "numbers": {"new_user=no": 0, "new_user=yes": 1}})
    origin = replace(Origin.unknown(4, 2), slices=slices)
    logits, labels = np.array([-1, 0, 1, 2], np.float32), np.array([0, 0, 1, 1], np.float32)
    worker.judge.board.add({"candidate": logits}, labels, 1, origin)
    metrics.closed(worker, Learned(0, 0, 0, float("nan")))
    assert value(metrics, "drift_findings", kind="labels") == 1 == value(metrics, "drift_alarms_total", kind="labels")
    assert value(metrics, "drift_findings", kind="inputs") == 0
    assert value(metrics, "slice_quality_ratio", slice="new_user=no", metric="auc") == 1.0
    assert np.isnan(value(metrics, "estimate_ratio", metric="auc"))


def test_the_make_up_of_the_replay_buffer_is_shown(tmp_path):
    metrics, worker = WorkerMetrics(), Parts(str(tmp_path))
    metrics.closed(worker, Learned(0, 0, 0, float("nan")))
    assert not [name for name, _ in samples(metrics) if name.startswith("stream_learner_replay_age")]
    hour = 3_600_000_000
    batch = examples(setting(), 8, seed=1)
    batch.time[:], batch.label[:] = np.arange(8) * hour, np.arange(8) % 4 == 0
    worker.replay.add(batch, 0)
    worker.tally.last_time = 7 * hour
    metrics.closed(worker, Learned(0, 0, 0, float("nan")))
    assert not [name for name, _ in samples(metrics) if name.startswith("stream_learner_replay_age")]  # not due yet
    metrics._quality_due = 0.0
    metrics.waiting(worker)  # no slide has closed since
    shown = {age: value(metrics, "replay_age_ratio", age=age) for age in ("to 1h", "to 6h", "to 1d", "older")}
    assert shown == {"to 1h": 2 / 8, "to 6h": 5 / 8, "to 1d": 1 / 8, "older": 0}
    assert value(metrics, "replay_stratum_ratio", stratum="positive") == 0.25


def test_verdicts_versions_and_times():
    metrics = WorkerMetrics()
    metrics.verdict(passed=False, psi={"price": 0.5, "clicks": 0.1})
    metrics.verdict(passed=True, psi={"price": 0.2}, gain={"mean": 0.01, "lower": -0.02, "upper": 0.04, "threshold": 0})
    span = (1_700_000_000_000_000, 1_700_000_299_500_000)
    files = {"a": FileSum(sha256="", size=5), "b": FileSum(sha256="", size=7)}
    end = {"slide_end_us": 1_700_000_300_000_000, "event_time_span": span, "files": files}
    metrics.serving(manifest_of(1_700_000_300, **end))
    assert value(metrics, "verdicts_total", verdict="held") == 1 == value(metrics, "verdicts_total", verdict="passed")
    assert value(metrics, "feature_psi", feature="price") == 0.2
    assert ("stream_learner_feature_psi", (("feature", "clicks"),)) not in samples(metrics)
    assert value(metrics, "champion_version") == value(metrics, "version_slide_end_seconds") == 1_700_000_300
    assert (
        value(metrics, "version_newest_event_seconds") == 1_700_000_299.5 and value(metrics, "version_size_bytes") == 12
    )
    assert [value(metrics, "gate_gain_ratio", bound=bound) for bound in GAINS] == [0.01, -0.02, 0.04, 0]
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

"""Every metric the worker exposes: a closed list, on its own registry, with help, unit and bounded labels.

Names are `stream_learner_<noun>_<unit>[_total]`; labels take their values from the config, the topics' partitions or
closed lists in the code, and from events only where the config bounds their number (`judging.slice_top`).
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stream_learner.learning.replay.make_up import AGES

PREFIX = "stream_learner"
FATES = ("accepted", "ignored", "late", "dead", "duplicate", "skipped", "quarantined")
SET_ASIDE = ("put_aside", "requeued", "given_up")
BOUNDS = {  # what holds records, events, examples or keys: its gauge, and the key of the config that bounds it
    "queued_records": "source.queue_records",
    "queued_bytes": "source.queue_bytes",
    "open_events": "slides.max_open_events",
    "dedupe_ids": "dedupe.max_ids",
    "aggregate_keys": "aggregates.max_keys",
    "pending_examples": "labels.max_pending",
    "replay_examples": "replay.capacity",
    "replay_size_bytes": "replay.max_bytes",
    "id_table_rows": "features.ids.user.rows",
    "waiting_ids": "features.ids.user.max_waiting",
    "judged_examples": "judging.exact_max",
    "baseline_keys": "judging.baseline_keys",
    "known_ids": "judging.known_max",
    "captures_waiting": "snapshot.max_waiting",
    "catalogue_items": "next_item.catalogue.capacity",
    "session_events": "next_item.sessions.capacity",
    "snapshot_increments": "snapshot.max_increments",
}
DECISIONS = (
    "canary_passed",
    "canary_rolled_back",
    "restart_from_champion",
    "rollback_serving",
    "override",
    "override_cancelled",
    "challenger_out",
)
RANKING_DECISIONS = DECISIONS[:4]
GAINS = ("mean", "lower", "upper", "threshold")  # the band that holds at every look, and what it must be above

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # about 3 steps a decade
QUALITY = {
    "auc": "auc",
    "gauc": "gauc",
    "ap": "average_precision",
    "ne": "normalized_entropy",
    "calibration": "calibration",
    "ece": "ece",
    "maturity": "maturity",
}


class Documented(NamedTuple):
    """One line of the list."""

    name: str  # as exposed
    type: str  # counter, gauge or histogram
    labels: tuple[str, ...]
    help: str


class MetricList:
    """The metrics of one worker, in the order of the path of an event."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._documented: list[Documented] = []
        self._reading()
        self._slides()
        self._learning()
        self._judging()
        self._publishing()
        self._process()

    def documented(self) -> list[Documented]:
        """The whole list."""
        return list(self._documented)

    def exposition(self) -> bytes:
        """The Prometheus text format of all metrics; without the creation times that would double the counters."""
        lines = generate_latest(self.registry).splitlines(keepends=True)
        return b"".join(line for line in lines if b"_created" not in line.partition(b"{")[0])

    def _reading(self) -> None:
        self.records = self._counter("records_total", "Records taken from the source", "topic")
        self.events = self._counter("events_total", f"Records by fate: {', '.join(FATES)}", "fate")
        self.dead_letters = self._counter("dead_letters_total", "Records written to the dead-letter sink", "reason")
        self.lag = self._gauge("lag_records", "Records between the position and the known end", "topic", "partition")
        self.queued_records = self._gauge("queued_records", "Records fetched and not handed over, all partitions")
        self.queued_bytes = self._gauge("queued_bytes", "Bytes of the values of those records")
        self.commit_failures = self._counter("commit_failures_total", "Offset commits that failed (for lag tools only)")
        self.foreign_members = self._gauge(
            "foreign_members", "Members of the consumer group, all of them somebody else"
        )
        self.foreign_commits = self._counter("foreign_commits_total", "Offsets somebody else committed for the group")

    def _slides(self) -> None:
        self.slides = self._counter("slides_total", "Slides closed and worked through")
        self.slide_duration = self._histogram("slide_duration_seconds", "Time spent on a slide by stage", "stage")
        self.watermark = self._gauge("watermark_seconds", "Event time up to which slides close, since the epoch")
        self.open_events = self._gauge("open_events", "Events held in slides that are still open")
        self.dedupe_ids = self._gauge("dedupe_ids", "Event ids remembered to drop repeats")
        self.aggregate_keys = self._gauge("aggregate_keys", "Keys held by the aggregates", "key")
        self.aggregate_evictions = self._counter(
            "aggregate_evictions_total", "Keys forgotten: room (`aggregates.max_keys`) or age (`expire_after`)", "cause"
        )

    def _learning(self) -> None:
        self.examples = self._counter("examples_total", "Examples made of clicks")
        self.matured = self._counter("matured_total", "Examples whose attribution window has passed")
        self.positives = self._counter("positives_total", "Matured examples with a purchase")
        self.unmatched_purchases = self._counter("unmatched_purchases_total", "Purchases that found no click")
        self.pending_examples = self._gauge("pending_examples", "Examples waiting for their label")
        self.replay_examples = self._gauge("replay_examples", "Examples in the replay buffer")
        self.replay_size = self._gauge("replay_size_bytes", "Memory of the replay buffer")
        self.replay_ages = self._gauge(
            "replay_age_ratio", f"Share of the replay buffer by age in event time: {', '.join(AGES)}", "age"
        )
        self.replay_strata = self._gauge(
            "replay_stratum_ratio",
            "Share of the replay buffer by label, or value of `replay.strata`",
            "stratum",
        )
        self.id_table_rows = self._gauge("id_table_rows", "Ids that have a row of an exact table", "feature")
        self.waiting_ids = self._gauge("waiting_ids", "Ids counted that have no row of an exact table yet", "feature")
        self.id_expiries = self._counter("id_expiries_total", "Ids whose row of an exact table was freed", "feature")
        self.learned_rows = self._counter("learned_rows_total", "Rows trained on: fresh or replay", "source")
        self.skipped_rows = self._counter(
            "skipped_rows_total", "Rows that `learning.budget` left out: fresh or replay", "source"
        )
        self.budget = self._gauge("budget_rows_per_slide", "Rows a slide of learning may cost, 0 = no bound")
        self.loss = self._gauge("loss_nats", "Mean training loss per row of the last slide")
        self.dormant_units = self._gauge(
            "dormant_units_ratio", "Share of the candidate's hidden units that hardly fire"
        )
        self.effective_rank = self._gauge(
            "effective_rank_ratio", "Effective rank of its last hidden layer, as a share of the layer's width"
        )
        self.weight_norm = self._gauge("weight_norm", "Root of the sum of squares of the weights of its network")
        self.retraces = self._counter("retraces_total", "Times TensorFlow traced a function again")

    def _judging(self) -> None:
        self.quality = self._gauge(
            "quality_ratio",
            f"Metric at arrival ({', '.join(QUALITY)}) by model and window",
            "model",
            "metric",
            "window",
        )
        self.judged_examples = self._gauge("judged_examples", "Scored examples held for exact metrics")
        self.baseline_keys = self._gauge("baseline_keys", "Keys held by the do-nothing baselines", "model")
        self.known_ids = self._gauge("known_ids", "Ids remembered to tell new ones, by the slices they make", "slice")
        self.slice_quality = self._gauge(
            "slice_quality_ratio", "Metric at arrival of the candidate by slice, longest window", "slice", "metric"
        )
        self.estimate = self._gauge(
            "estimate_ratio", "Probable metric of the champion on clicks without labels yet: an estimate", "metric"
        )
        self.drift_alarms = self._counter("drift_alarms_total", "Times that drift of a kind was found", "kind")
        self.drift_findings = self._gauge("drift_findings", "Findings of drift that stand now", "kind")
        self.feature_psi = self._gauge("feature_psi", "PSI of arriving against reference examples", "feature")
        self.join_health = self._gauge(
            "join_health_ratio", "What the last slide brought of what its season lets expect, by measure", "measure"
        )
        self.broken_slides = self._counter("broken_slides_total", "Slides put into quarantine")
        self.outage = self._gauge("outage", "1 while the last slide is in quarantine, else 0")
        self.quarantined_examples = self._counter(
            "quarantined_examples_total", f"Examples by what the quarantine did: {', '.join(SET_ASIDE)}", "fate"
        )
        self.quarantine_size = self._gauge("quarantine_size_bytes", "Examples kept in quarantine, on disk")
        self.ranking_quality = self._gauge(
            "ranking_quality_ratio", "Recall, MRR and NDCG of next_item by model and slice", "model", "metric", "slice"
        )
        self.ranking_coverage = self._gauge(
            "ranking_coverage_ratio", "Share of the catalogue in any ranking of the last slide (next_item)"
        )
        self.catalogue_items = self._gauge("catalogue_items", "Items that can be recommended (next_item)")
        self.session_events = self._gauge("session_events", "Events of sessions held for neighbours (next_item)")
        self.challenger_quality = self._gauge(
            "challenger_quality_ratio",
            "NE, calibration and NE gain over the champion of a challenger, by the gate's evidence",
            "challenger",
            "metric",
        )
        self.challenger_seconds = self._gauge(
            "challenger_cost_seconds",
            "Time spent on scores and learning of a challenger, by this process",
            "challenger",
        )
        self.challenger_rows = self._gauge(
            "challenger_cost_rows", "Rows a challenger was trained on, by this process", "challenger"
        )
        self.challenger_racing = self._gauge("challenger_racing", "1 while a challenger is in the race", "challenger")
        self.challenger_serving = self._gauge(
            "challenger_serving", "1 while the version in service is a challenger's", "challenger"
        )
        self.ranking_verdicts = self._counter(
            "ranking_verdicts_total", "Answers of next_item's gate: passed or held", "verdict"
        )
        self.ranking_decisions = self._counter(
            "ranking_decisions_total", f"Other decisions about rankings: {', '.join(RANKING_DECISIONS)}", "decision"
        )
        self.ranking_drift_alarms = self._counter(
            "ranking_drift_alarms_total", "Times that drift of what sessions are made of was found (next_item)"
        )
        self.ranking_slides_kept_out = self._counter(
            "ranking_slides_kept_out_total", "Slides in quarantine of which next_item learned nothing"
        )
        self.verdicts = self._counter("verdicts_total", "Answers of the gate: passed or held", "verdict")
        self.gate_gain = self._gauge(
            "gate_gain_ratio", f"NE gain of the candidate at the last verdict: {', '.join(GAINS)}", "bound"
        )
        self.decisions = self._counter("decisions_total", f"Other decisions: {', '.join(DECISIONS)}", "decision")
        for verdict in ("passed", "held"):
            self.verdicts.labels(verdict)
        for decision in DECISIONS:  # at 0 from the start: the increase to the first one would be lost otherwise
            self.decisions.labels(decision)

    def _publishing(self) -> None:
        self.champion_version = self._gauge("champion_version", "Number of the version in service, 0 = none")
        self.version_slide_end = self._gauge(
            "version_slide_end_seconds", "End of the slide the version in service was made of, since the epoch"
        )
        self.version_newest_event = self._gauge(
            "version_newest_event_seconds",
            "Time of the newest event that the version in service knows, since the epoch",
        )
        self.version_size = self._gauge("version_size_bytes", "Size of the version in service, all its files")
        self.ranking_version = self._gauge("ranking_version", "Number of next_item's version in service, 0 = none")
        self.publish_duration = self._histogram("publish_duration_seconds", "Time to write and check a version")
        self.snapshot_duration = self._histogram("snapshot_duration_seconds", "Time to write a snapshot")
        self.snapshot_size_bytes = self._gauge("snapshot_size_bytes", "Size of the last snapshot")
        self.snapshot_written = self._gauge("snapshot_written_bytes", "What the last snapshot shares with none before")
        self.snapshot_increments = self._gauge("snapshot_increments", "Earlier files that the last snapshot builds on")
        self.captures_waiting = self._gauge("captures_waiting", "Captures the writer has not written yet")

    def _process(self) -> None:
        self.lease_token = self._gauge("lease_token", "Token of the lease this worker holds, 0 while it stands by")
        rss = self._gauge("resident_memory_bytes", "Memory of the process held in RAM")
        rss.set_function(resident_bytes)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(self._document(name, "counter", text, labels), text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(self._document(name, "gauge", text, labels), text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        full = self._document(name, "histogram", text, labels)
        return Histogram(full, text, labels, registry=self.registry, buckets=_SECONDS)

    def _document(self, name: str, kind: str, text: str, labels: Sequence[str]) -> str:
        full = f"{PREFIX}_{name}"
        self._documented.append(Documented(full, kind, tuple(labels), text))
        return full


def documented() -> list[Documented]:
    """The closed list, for docs, dashboards and their test."""
    return MetricList().documented()


def resident_bytes() -> float:
    """Memory the process holds in RAM now; where the system does not tell, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
    return float(pages * resource.getpagesize())

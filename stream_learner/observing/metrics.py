"""Every metric the worker exposes: a closed list, on its own registry, with help, unit and bounded labels.

Names are `stream_learner_<noun>_<unit>[_total]`; labels take their values from the config, the topics' partitions or
closed lists in the code, and from events only where the config bounds their number (`judging.slice_top`).
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from stream_learner.judging.drift_tests import KINDS as DRIFT_KINDS
from stream_learner.learning.replay.make_up import AGES
from stream_learner.next_item.metrics import MODELS as RANKED
from stream_learner.next_item.metrics import SLICES as RANKING_SLICES
from stream_learner.observing.traces import NoTraces, Traces

if TYPE_CHECKING:
    from stream_learner.learning.learned import Learned
    from stream_learner.next_item.task import NextItemTask
    from stream_learner.publishing.manifest import Manifest
    from stream_learner.snapshots import SnapshotInfo
    from stream_learner.worker import Worker

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
GAINS = ("mean", "lower", "upper", "threshold")  # the band that holds at every look, and what it must be above
CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # about 3 steps a decade
_FAR_US = 2**62  # beyond stand the watermarks of "nothing seen yet" and "all has ended"
_QUALITY = {
    "auc": "auc",
    "gauc": "gauc",
    "ap": "average_precision",
    "ne": "normalized_entropy",
    "calibration": "calibration",
    "ece": "ece",
    "maturity": "maturity",
}
_BY_SLICE = ("auc", "ne", "calibration")
_ESTIMATED = {"auc": "auc", "ne": "normalized_entropy", "calibration": "calibration"}


class Documented(NamedTuple):
    """One line of the list."""

    name: str  # as exposed
    type: str  # counter, gauge or histogram
    labels: tuple[str, ...]
    help: str


class WorkerMetrics:
    """The metrics of one worker, by stage. Counters and gauges may be touched from any thread."""

    def __init__(self, traces: Traces | None = None) -> None:
        self.registry = CollectorRegistry()
        self._traces = traces or NoTraces()  # spans of what is timed
        self._documented: list[Documented] = []
        self._counted: dict[tuple[str, str], int] = {}  # level of the state's counts that counters have reached
        self._quality_due = 0.0  # monotonic seconds
        self._quality_told = True  # of the last slide
        self._reading()
        self._slides()
        self._learning()
        self._judging()
        self._publishing()
        self._process()

    def documented(self) -> list[Documented]:
        """The whole list, in the order of the path of an event."""
        return list(self._documented)

    def exposition(self) -> bytes:
        """The Prometheus text format of all metrics; without the creation times that would double the counters."""
        lines = generate_latest(self.registry).splitlines(keepends=True)
        return b"".join(line for line in lines if b"_created" not in line.partition(b"{")[0])

    # ---- what the worker calls -----------------------------------------------------------------------------------

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage of a slide."""
        with self.slide_duration.labels(name).time(), self._traces.part(name):
            yield

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Times writing and checking a version."""
        with self.publish_duration.time(), self._traces.whole("version"):
            yield

    @contextmanager
    def snapshotting(self) -> Iterator[None]:
        """Times writing a snapshot."""
        with self.snapshot_duration.time(), self._traces.whole("snapshot"):
            yield

    def started(self, worker: Worker) -> None:
        """After a restore, before the first slide: counters count on from here, as Prometheus expects."""
        self._counted = _counts(worker)
        self._gauges(worker)

    def closed(self, worker: Worker, learned: Learned) -> None:
        """After a slide: all counts and levels. Reads the worker, changes nothing in it."""
        for (name, label), level in _counts(worker).items():
            grown = level - self._counted.get((name, label), 0)
            counter: Counter = getattr(self, name)
            (counter.labels(label) if label else counter).inc(max(0, grown))
            self._counted[name, label] = level
        self.learned_rows.labels("fresh").inc(learned.rows)
        self.learned_rows.labels("replay").inc(learned.replayed)
        self.skipped_rows.labels("fresh").inc(learned.skipped)
        self.skipped_rows.labels("replay").inc(learned.skipped_replay)
        if learned.steps:
            self.loss.set(learned.mean_loss)
        self._gauges(worker)
        self._quality_told = False
        self._qualities(worker)
        self._traces.closed(slides=worker.tally.slides, learned=learned.rows, replayed=learned.replayed)

    def waiting(self, worker: Worker) -> None:
        """Between slides, often: what the last slide has to tell and was not due with it."""
        if not self._quality_told:
            self._qualities(worker)

    def verdict(self, *, passed: bool, psi: Mapping[str, float], gain: Mapping[str, float] | None = None) -> None:
        """The gate answered; features without a PSI are not shown. `gain`: by bound, each of GAINS."""
        self.verdicts.labels("passed" if passed else "held").inc()
        for bound, value in (gain or {}).items():
            self.gate_gain.labels(bound).set(value)
        self.feature_psi.clear()
        for feature, value in psi.items():
            self.feature_psi.labels(feature).set(value)

    def decided(self, what: str) -> None:
        """A decision beside the verdicts, one of DECISIONS."""
        self.decisions.labels(what).inc()

    def wrote(self, snapshot: SnapshotInfo) -> None:
        """A snapshot is durable."""
        self.snapshot_size_bytes.set(snapshot.size_bytes)
        self.snapshot_written.set(snapshot.written_bytes)
        self.snapshot_increments.set(snapshot.increments)

    def serving(self, manifest: Manifest) -> None:
        """The champion pointer moved to this version."""
        self.champion_version.set(manifest.version)
        self.version_slide_end.set(manifest.slide_end_us / 1e6)
        self.version_newest_event.set((manifest.event_time_span or (0, 0))[1] / 1e6)
        self.version_size.set(sum(file.size for file in manifest.files.values()))

    def set_quality(self, model: str, window: str, summary: Mapping[str, float]) -> None:
        """Shows a scoreboard's summary; `window` is a span as in the config."""
        for metric, key in _QUALITY.items():
            self.quality.labels(model, metric, window).set(summary[key])

    def _gauges(self, worker: Worker) -> None:
        for partition, records in worker.around.source.lag().items():
            self.lag.labels(partition.topic, str(partition.index)).set(records)
        self.foreign_members.set(getattr(getattr(worker.around.source, "group", None), "foreign_members", 0))
        mark = worker.intake.watermark.value()
        if abs(mark) < _FAR_US:
            self.watermark.set(mark / 1e6)
        records, size_bytes = worker.around.source.waiting()
        self.queued_records.set(records)
        self.queued_bytes.set(size_bytes)
        self.open_events.set(len(worker.intake.slides))
        self.dedupe_ids.set(len(worker.identities or ()))
        self.pending_examples.set(len(worker.attribution))
        self.replay_examples.set(len(worker.replay))
        self.replay_size.set(worker.replay.size_bytes)
        self._race(worker)
        self.budget.set(worker.learner.budget or 0)
        for feature, table in worker.learner.ids.items():
            self.id_table_rows.labels(feature).set(len(table.ids))
            self.waiting_ids.labels(feature).set(table.waiting)
        self.captures_waiting.set(worker.writer.waiting)
        self.judged_examples.set(len(worker.judge.board))
        for name, count in worker.judge.baselines.sizes().items():
            self.baseline_keys.labels(name).set(count)
        for name, count in worker.judge.slices.sizes().items():
            self.known_ids.labels(name).set(count)
        for kind in DRIFT_KINDS:
            standing = sum(finding.kind == kind for finding in worker.judge.drift.current)
            self.drift_findings.labels(kind).set(standing)
        self.quarantine_size.set(worker.quarantine.size_bytes)
        self.outage.set(worker.quarantine.outage)
        self.join_health.clear()
        for measure, share in worker.quarantine.health.shares().items():
            self.join_health.labels(measure).set(share)
        for key, count in worker.aggregates.sizes().items():
            self.aggregate_keys.labels(key).set(count)

    def _race(self, worker: Worker) -> None:
        """What each challenger has cost, and how it stands by the gate's evidence."""
        for name, cost in worker.contenders.costs.items():
            self.challenger_seconds.labels(name).set(cost.seconds)
            self.challenger_rows.labels(name).set(cost.rows)
            self.challenger_racing.labels(name).set(name not in worker.contenders.out)
            self.challenger_serving.labels(name).set(name == worker.contenders.serving)
            for metric, value in worker.judge.race.gates[name].standing().items():
                self.challenger_quality.labels(name, metric).set(value)

    def _qualities(self, worker: Worker) -> None:
        """Ranks of whole windows cost; they are taken at most four times a minute and never for 5 % of the time."""
        began = time.monotonic()
        if began < self._quality_due:
            return
        board = worker.judge.board
        for name in board.names:
            for span in board.windows:
                self.set_quality(name, str(span), board.window(name, span))
        self._slices(worker)
        self._replayed(worker)
        if worker.next_item is not None:
            self._rankings(worker.next_item)
        if (condition := worker.learner.condition()) is not None:
            self.dormant_units.set(condition.dormant)
            self.effective_rank.set(condition.effective_rank)
            self.weight_norm.set(condition.weight_norm)
        for metric, key in _ESTIMATED.items():
            self.estimate.labels(metric).set(worker.judge.drift.estimate().get(key, math.nan))
        ended = time.monotonic()
        self._quality_due, self._quality_told = ended + max(15.0, 20 * (ended - began)), True

    def _slices(self, worker: Worker) -> None:
        """The candidate over the longest window, slice by slice; at most `judging.slice_top` + 2 of a feature."""
        board, numbers = worker.judge.board, worker.judge.slices.numbers()
        self.slice_quality.clear()
        if board.windows:
            for name, number in numbers.items():
                summary = board.slice("candidate", number, max(board.windows))
                for metric in _BY_SLICE:
                    self.slice_quality.labels(name, metric).set(summary[_QUALITY[metric]])

    def _replayed(self, worker: Worker) -> None:
        """What the replay buffer is made of."""
        self.replay_ages.clear()
        self.replay_strata.clear()
        if (made := worker.replay.make_up(worker.tally.last_time or 0)) is not None:
            for age, count in made.ages.items():
                self.replay_ages.labels(age).set(count / len(worker.replay))
            for stratum, count in made.strata.items():
                self.replay_strata.labels(stratum).set(count / len(worker.replay))

    def _rankings(self, task: NextItemTask) -> None:
        """What `next_item` is worth over its window, and how much it holds."""
        for model in RANKED:
            for part in RANKING_SLICES:
                for metric, value in task.board.window(model, part).items():
                    if metric != "n":
                        self.ranking_quality.labels(model, metric, part).set(value)
        self.ranking_coverage.set(task.surface.coverage)
        self.catalogue_items.set(len(task.catalogue))
        self.session_events.set(len(task.store.items))

    # ---- the list ------------------------------------------------------------------------------------------------

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
            f"Metric at arrival ({', '.join(_QUALITY)}) by model and window",
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
    return WorkerMetrics().documented()


def _counts(worker: Worker) -> dict[tuple[str, str], int]:
    """The state's counts by counter attribute and label ("" = none). They only grow, but for a restore."""
    tally, aggregates = worker.tally, worker.aggregates
    group = getattr(worker.around.source, "group", None)  # sources that have one
    counts = {("events", fate): int(getattr(tally, fate)) for fate in FATES}
    counts |= {("records", topic): count for topic, count in tally.topics.items()}
    counts |= {("dead_letters", reason): count for reason, count in tally.reasons.items()}
    counts |= {("drift_alarms", kind): worker.judge.drift.alarms[kind] for kind in DRIFT_KINDS}
    counts |= {("quarantined_examples", fate): int(getattr(worker.quarantine, fate)) for fate in SET_ASIDE}
    counts |= {("id_expiries", feature): table.expired for feature, table in worker.learner.ids.items()}
    if (task := worker.next_item) is not None:
        counts |= {("ranking_verdicts", "passed"): task.passed, ("ranking_verdicts", "held"): task.held}
    return counts | {
        ("broken_slides", ""): worker.quarantine.found,
        ("slides", ""): tally.slides,
        ("examples", ""): tally.examples,
        ("matured", ""): tally.matured,
        ("positives", ""): tally.positives,
        ("unmatched_purchases", ""): tally.unmatched,
        ("aggregate_evictions", "room"): aggregates.evicted,
        ("aggregate_evictions", "age"): aggregates.expired,
        ("retraces", ""): worker.learner.retraces,
        ("commit_failures", ""): getattr(group, "commit_failures", 0),
        ("foreign_commits", ""): getattr(group, "foreign_commits", 0),
    }


def resident_bytes() -> float:
    """Memory the process holds in RAM now; where the system does not tell, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
    return float(pages * resource.getpagesize())

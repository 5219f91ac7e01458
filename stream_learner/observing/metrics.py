"""The metrics of one worker, kept up to date: counted as things happen, read from the worker as slides close."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, Counter

from stream_learner.judging.drift_tests import KINDS as DRIFT_KINDS
from stream_learner.next_item.metrics import MODELS as RANKED
from stream_learner.next_item.metrics import SLICES as RANKING_SLICES
from stream_learner.observing.metric_list import FATES, QUALITY, SET_ASIDE, MetricList
from stream_learner.observing.traces import NoTraces, Traces

if TYPE_CHECKING:
    from stream_learner.learning.learned import Learned
    from stream_learner.next_item.task import NextItemTask
    from stream_learner.publishing.manifest import Manifest
    from stream_learner.snapshots import SnapshotInfo
    from stream_learner.worker import Worker

CONTENT_TYPE = CONTENT_TYPE_LATEST

_FAR_US = 2**62  # beyond stand the watermarks of "nothing seen yet" and "all has ended"
_BY_SLICE = ("auc", "ne", "calibration")
_ESTIMATED = {"auc": "auc", "ne": "normalized_entropy", "calibration": "calibration"}


class WorkerMetrics(MetricList):
    """What the worker says as it goes. Counters and gauges may be touched from any thread."""

    def __init__(self, traces: Traces | None = None) -> None:
        super().__init__()
        self._traces = traces or NoTraces()  # spans of what is timed
        self._counted: dict[tuple[str, str], int] = {}  # level of the state's counts that counters have reached
        self._quality_due = 0.0  # monotonic seconds
        self._quality_told = True  # of the last slide

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
        for metric, key in QUALITY.items():
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
                    self.slice_quality.labels(name, metric).set(summary[QUALITY[metric]])

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
        verdicts = ("passed", "held")
        for name, count in task.decisions.made.items():
            counts[("ranking_verdicts" if name in verdicts else "ranking_decisions", name)] = count
        counts |= {("ranking_drift_alarms", ""): task.drift.alarms, ("ranking_slides_kept_out", ""): task.kept_out}
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

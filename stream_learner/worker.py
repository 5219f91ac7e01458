"""The worker: one loop over slides, and the commit protocol that makes each of them count exactly once.

    records -> decode -> slides -> aggregates -> attribution -> examples -> score -> learn (+ replay)
            -> judge -> gate -> publish -> snapshot -> commit offsets

`Intake` ends at "slides"; `run_slide` is the rest, in that order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from stream_learner import config as configs
from stream_learner import config_change
from stream_learner.config_change import ConfigSwitched
from stream_learner.conversion import ConversionPath
from stream_learner.decisions import Decisions, Means
from stream_learner.durable import make_folder, recover_folder
from stream_learner.erasing import Erasure
from stream_learner.errors import RetryableError
from stream_learner.events import EventBatch
from stream_learner.gaps import OnGap
from stream_learner.ingest.dead_letters import DeadLetterSink
from stream_learner.ingest.identity import Deduplicator
from stream_learner.ingest.source import Partition, Source
from stream_learner.intake import Intake
from stream_learner.journal import Command, FileJournal
from stream_learner.judging.judge import Judge
from stream_learner.judging.race import OWN
from stream_learner.judging.score_log import ScoreLog
from stream_learner.judging.verdict import Verdict
from stream_learner.learning.contenders import Contenders
from stream_learner.learning.features import feature_schema
from stream_learner.learning.learned import NOTHING, Learned
from stream_learner.lease import Lease
from stream_learner.next_item.names import ItemNames
from stream_learner.next_item.task import NextItemTask
from stream_learner.observing.health import Health
from stream_learner.observing.metrics import WorkerMetrics
from stream_learner.operators import Operators, addressed
from stream_learner.pace import Pace
from stream_learner.parts import Parts
from stream_learner.publishing.announce import Announcer
from stream_learner.publishing.commands import Commands
from stream_learner.publishing.operating import note_whereabouts
from stream_learner.publishing.publisher import AnyPublisher, AnyVersion, Occasion, Publisher
from stream_learner.publishing.verdict_log import VerdictLog
from stream_learner.retry import retrying
from stream_learner.scoring import Scoring
from stream_learner.settings import Config
from stream_learner.snapshots import Chain, Snapshots
from stream_learner.tally import Tally
from stream_learner.windows.aggregates import Aggregates
from stream_learner.windows.attribution import Attribution
from stream_learner.windows.quarantine import Quarantine
from stream_learner.windows.slides import Slide
from stream_learner.writer import Writer

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Surroundings:
    """What a worker is wired to: the far sides, and what watches it."""

    source: Source
    letters: DeadLetterSink
    announcer: Announcer
    metrics: WorkerMetrics
    health: Health


@dataclass(frozen=True)
class Capture:
    """Everything steps 4 to 9 need, copied at the end of a slide."""

    slide: int  # number of the slide that comes next
    versions: tuple[tuple[AnyPublisher, AnyVersion], ...]
    state: dict[str, Any]
    positions: dict[Partition, int]


class Worker:
    """One learner on one state folder, under a lease it holds. Use as `with Worker(...) as worker: worker.run()`."""

    def __init__(
        self,
        config: Config,
        around: Surroundings,
        lease: Lease,
        *,
        until_end: bool,
        on_gap: OnGap = "stop",
        wanted: Config | None = None,
    ) -> None:
        self.config = config  # in force
        self.wanted = wanted or config  # the user's, where the journal has not come to it yet
        self.around = around
        self.lease = lease
        make_folder(state := Path(config.state))
        recover_folder(state, lease.prove)
        note_whereabouts(config)
        self.schema = configs.event_schema(config)
        self.tally = Tally()
        self.journal = FileJournal(state / "journal.jsonl", lease.prove)
        self.verdicts = VerdictLog(state / "verdicts.jsonl", lease.prove)
        self.scores = ScoreLog(state / "scores.jsonl", wanted=config.judging.score_log, fence=lease.prove)
        chain = Chain(config.snapshot.max_increments, config.snapshot.max_increment_share)
        keep = config.snapshot.keep
        self.snapshots = Snapshots(state / "snapshots", keep, chain=chain, token=lease.token, fence=lease.prove)
        self.commands = Commands(state / "commands", lease.prove)
        reading = around.source, self.journal, around.letters, self.tally
        self.names = ItemNames() if config.learns("next_item") else None
        note = None if self.names is None else self.names.note
        self.intake = Intake(config, self.schema, *reading, until_end=until_end, on_gap=on_gap, note_items=note)
        self.identities = Deduplicator(dedupe.window, dedupe.max_ids) if (dedupe := config.dedupe).window else None
        self.aggregates = Aggregates(config, self.schema)
        self.attribution = Attribution(config, self.schema)
        self.quarantine = Quarantine(config, self.schema, self._record, lease.prove)
        features = feature_schema(config, self.schema, self.aggregates.columns)
        self.contenders = Contenders(config, features, self.schema)
        self.learner, self.replay = self.contenders.own, self.contenders.replays[OWN]
        self.judge = Judge(config, self.schema, features)
        self.publisher = Publisher(config, features, self.aggregates.columns, self.contenders, lease)
        self.next_item: NextItemTask | None = None
        if self.names is not None:
            self.next_item = NextItemTask(config, self.schema, self.names, lease, self._record)
        self.publishers: dict[str, AnyPublisher] = {}  # by model, that of the first task first
        self.publishers |= {config.name: self.publisher} if config.learns("conversion") else {}
        self.publishers |= {} if self.next_item is None else {config.next_item.name: self.next_item.publisher}
        self._first = next(iter(self.publishers.values()))
        self.writer: Writer[Capture] = Writer(self._write, config.snapshot.max_waiting)
        settling = self.writer.drain, self.attribution.forget
        means = Means(self._record, self._judged, self._published, around.metrics.decided, self._occasion, *settling)
        models = self.contenders, self.judge, self.publisher
        self.decisions = Decisions(config, *models, self.aggregates, means)
        self.scoring = Scoring(self.contenders, self.judge, self.publisher, config.labels)
        self.operators = Operators(
            self.commands, self.journal, self.intake, self.publishers, self.quarantine, config.storage.retry_timeout
        )
        self.pace = Pace(config, self.contenders)
        self.parts = Parts(
            {
                "tally": self.tally,
                "intake": self.intake,
                **({} if self.identities is None else {"identities": self.identities}),
                "aggregates": self.aggregates,
                "attribution": self.attribution,
                "quarantine": self.quarantine,
                "learner": self.learner,
                "replay": self.replay,
                "pace": self.pace,
                **({} if not config.challengers else {"challengers": self.contenders}),
                "judge": self.judge,
                "scores": self.scores,
                "publisher": self.publisher,
                **({} if self.next_item is None else {"next_item": self.next_item}),
            }
        )
        holders = self.aggregates, self.attribution, self.quarantine, self.contenders, self.judge
        self.erasure = Erasure(self.schema, *holders, self.next_item, self._record)
        self.conversion = ConversionPath(
            config=config,
            schema=self.schema,
            tally=self.tally,
            quarantine=self.quarantine,
            aggregates=self.aggregates,
            attribution=self.attribution,
            scoring=self.scoring,
            contenders=self.contenders,
            judge=self.judge,
            scores=self.scores,
            decisions=self.decisions,
            pace=self.pace,
            stage=self._stage,
        )
        self._snapshot_at: int | None = None  # slide end of the last snapshot, us
        self._captured_at = time.monotonic()
        self._head = configs.model_head(config)
        self._config_left = False  # `wanted` is to be adopted when something new may be decided
        self._last_end: int | None = None  # end of the last slide, us
        self._stopping: Callable[[], bool] = lambda: False

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the loop -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Restores the newest whole snapshot, repeats what a crash may have cut off, and begins to read."""
        self.around.health.starting("restoring")
        self.restore()
        self._config_left = configs.model_hash(self.wanted) != self._head["config_hash"]
        self.intake.start(max(self._retrying(publisher.settled, "versions") for publisher in self.publishers.values()))
        self.around.metrics.started(self)
        self.around.health.running()
        log.info("reading %d partitions", len(self.intake.positions))

    def run(self, stopping: Callable[[], bool] = lambda: False, learned: Callable[[], None] = lambda: None) -> None:
        """Slide after slide until `stopping` says so or a bounded log ends; then, `learned` told, a last snapshot."""
        self._stopping = stopping
        while (slide := self.intake.next_slide(self._carry_out, self._turn, self._keep)) is not None:
            self.run_slide(slide)
        self.around.health.stopping()
        self.writer.drain()
        learned()
        self._keep()

    def _turn(self) -> bool:
        """Once per round of reading: shows life, takes operator commands; False to stop."""
        self.around.health.beat("reading")
        self.around.metrics.waiting(self)
        self.lease.check()
        self.writer.check()
        self.operators.take(self.writer.drain, self._carry_out)
        if (rows := self.pace.wanted()) is not None:
            entry = self.intake.decide("budget", {"rows": rows}, f"budget-{self.intake.slides.number}")
            if entry is not None:
                self._carry_out(entry)
        if self._config_left and not self.intake.repeating:
            self._adopt_config()
        return not self._stopping()

    def _carry_out(self, entry: Command) -> None:
        """An operator's command, journaled."""
        log.info("slide %d: %s", entry.slide, entry)
        if entry.name == "requeue":
            self.quarantine.requeue(int(entry.arguments["slide"] or 0))
            return
        if entry.name == "budget":
            self.pace.obey(int(entry.arguments["rows"] or 0))
            return
        if entry.name == "erase":
            self.erasure.carry_out(entry, self._last_end or 0)
            self.parts.begin_anew()
            self._capture()
            return
        publisher, end = addressed(entry, self.publishers), self._last_end or 0
        version: AnyVersion | None = None
        if publisher is self.publisher:
            version = self.decisions.carry_out(entry, end)
        elif publisher is not None and self.next_item is not None:
            version = self.next_item.carry_out(entry, end, self._occasion, self.writer.drain)
        if publisher is not None and version is not None:
            self._capture((publisher, version))

    def _adopt_config(self) -> None:
        """Model keys that were changed while the worker was away take effect before the next slide."""
        entry = config_change.change(self.config, self.wanted, self.intake.slides.number)
        self._keep()
        self.journal.append(entry)
        raise ConfigSwitched(config_change.new_values(entry))

    def run_slide(self, slide: Slide) -> None:
        """The path of a slide's events, from aggregates to the commit."""
        events = self._without_repeats(slide)
        learned = NOTHING
        if self.config.learns("conversion"):
            learned += self.conversion.step(slide, events, self._last_end)
        if self.next_item is not None:
            with self._stage("next_item"):
                broken = self._inspected(slide, events)
                learned += self.next_item.step(slide, events, self.intake.slides, broken)
        self._last_end = slide.end
        with self._stage("commit"):
            self._commit(slide)
        self._show(slide, learned)

    def _inspected(self, slide: Slide, events: EventBatch) -> dict[str, Any] | None:
        """What is wrong with a slide in quarantine; None of one that is whole. Conversion has looked already."""
        if not self.config.learns("conversion"):
            self.tally.inspected(len(events), whole=self.quarantine.inspect_unjoined(slide, events))
        return self.quarantine.broken(slide.number)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Shows where the loop is, and for how long it was there."""
        self.around.health.beat(name)
        with self.around.metrics.stage(name):
            yield

    def _show(self, slide: Slide, learned: Learned) -> None:
        """Metrics and one log line; nothing here reaches the model."""
        self.around.metrics.closed(self, learned)
        told: dict[str, Any] = {"slide": slide.number, "end_us": slide.end, "events": len(slide.events)}
        told |= {"learned": learned.rows, "replayed": learned.replayed, "loss": learned.mean_loss}
        told |= {"pending": len(self.attribution), "champion": self._first.champion}
        log.info("slide closed", extra={"fields": told})

    def _without_repeats(self, slide: Slide) -> EventBatch:
        events = slide.events
        if self.identities is not None:
            events = events.take(self.identities.fresh(events))
        self.tally.closed(events, len(slide.events) - len(events), self.schema)
        return events

    def _record(self, line: dict[str, Any]) -> None:
        self._retrying(lambda: self.verdicts.append(line), "verdicts.jsonl")

    # ---- committing -----------------------------------------------------------------------------------------

    def _commit(self, slide: Slide) -> None:
        """What a slide becomes, in nine steps; 1 to 3 here, 4 to 9 in order on the writer thread (`_write`).

        1 the slide is closed: its events are in no other
        2 canary and verdict, appended to verdicts.jsonl; a pass makes the candidate champion in state
        3 capture: everything below works on copies, and learning goes on
        4 dead letters are flushed
        5 the version is written under a temporary name, checked and renamed
        6 snapshot: always when publishing, else when due; from here on a restart begins after this slide
        7 champion pointer, then the announcement
        8 offsets are committed, for lag tools
        9 old snapshots and versions are pruned; a failure here never stops the worker

        A crash before 6 works the slides since the last snapshot again and comes to the same versions; a restore
        repeats 7 to 9. When `snapshot.max_waiting` captures wait, learning waits.
        """
        made: list[tuple[AnyPublisher, AnyVersion]] = []  # 2
        if self.config.learns("conversion") and (version := self.decisions.at_slide_end(slide)) is not None:
            made.append((self.publisher, version))
        if self.next_item is not None:
            ranking = self.next_item.at_slide_end(slide, self._occasion, self.writer.drain)
            made += [] if ranking is None else [(self.next_item.publisher, ranking)]
        if made or self._snapshot_due(slide.end):
            self._capture(*made)  # 3

    def _judged(self, verdict: Verdict) -> None:
        self.tally.judged(verdict.passed)
        self.around.metrics.verdict(passed=verdict.passed, psi=verdict.psi, gain=verdict.gain())

    def _published(self, slide_end: int, rollback: bool) -> None:
        """Evidence, drift reference and the list of slides in quarantine start afresh with every version."""
        self.judge.published(slide_end, self.contenders.score_champion, rollback=rollback)
        self.quarantine.published()

    def _occasion(self, verdict: dict[str, Any]) -> Occasion:
        number, end = self.intake.slides.number - 1, self._last_end or 0
        return Occasion(number, end, self.tally, self.judge.evidence(), verdict, self.quarantine.since_version())

    def _snapshot_due(self, slide_end: int) -> bool:
        if self._snapshot_at is None:
            self._snapshot_at = slide_end
        rested = time.monotonic() - self._captured_at >= self.config.snapshot.least_pause.seconds
        return rested and slide_end - self._snapshot_at >= self.config.snapshot.interval

    def _capture(self, *made: tuple[AnyPublisher, AnyVersion]) -> None:
        self._snapshot_at, self._captured_at = self._last_end, time.monotonic()
        state = {**self.parts.capture(), "verdicts": self.verdicts.length, "last_end": self._last_end}
        capture = Capture(self.intake.slides.number, made, state, dict(self.intake.positions))
        self.writer.submit(capture)
        self.around.metrics.captures_waiting.set(self.writer.waiting)

    def _keep(self) -> None:
        """A snapshot of the state as it is, also between two slides; returns when it is durable."""
        self._capture()
        self.writer.drain()

    def _write(self, capture: Capture) -> None:
        """Steps 4 to 9 of the commit protocol, on the writer thread."""
        metrics = self.around.metrics
        self._retrying(self.lease.prove, "lease")
        self._retrying(self.around.letters.flush, "dead letters")  # 4
        for publisher, version in capture.versions:
            with metrics.publishing():
                write = partial(publisher.write, version)
                self._retrying(write, f"version {version.manifest.version}")  # 5
        with metrics.snapshotting():  # 6
            info = self._retrying(lambda: self.snapshots.write(capture.slide, capture.state, self._head), "snapshot")
        metrics.wrote(info)
        for publisher, version in capture.versions:
            self._serve(publisher, version.manifest.version)  # 7
        self.around.source.commit(capture.positions)  # 8
        pins = {id(self.publisher): capture.state["publisher"]["pins"]}
        if self.next_item is not None:
            pins[id(self.next_item.publisher)] = capture.state["next_item"]["publisher"]["pins"]
        for publisher in self.publishers.values():
            self._prune(publisher, pins[id(publisher)])  # 9
        self._prune_snapshots()
        for problem in self.quarantine.prune(capture.state["quarantine"]):
            log.warning("quarantine: %s", problem)

    def _serve(self, publisher: AnyPublisher, version: int) -> None:
        """Step 7: the pointer, then the announcement, at least once."""
        self._retrying(lambda: publisher.checkpoints.point(version), "champion pointer")
        message = publisher.announcement(version)
        self._retrying(lambda: self.around.announcer.announce(message), "announcement")
        if publisher is self._first:
            self.around.metrics.serving(self._retrying(lambda: publisher.checkpoints.read(version), "versions"))
        if self.next_item is not None and publisher is self.next_item.publisher:
            self.around.metrics.ranking_version.set(version)

    def _prune(self, publisher: AnyPublisher, pins: Iterable[int]) -> None:
        """Step 9."""
        pruned = publisher.checkpoints.prune({*pins, *self.operators.named_versions()})
        for name, reason in pruned.failed.items():
            log.warning("version %s could not be pruned: %s", name, reason)

    def _prune_snapshots(self) -> None:
        for problem in self.snapshots.prune():
            log.warning("a snapshot could not be pruned: %s", problem)

    def _retrying(self, action: Callable[[], T], what: str) -> T:
        return retrying(action, what, self.config.storage.retry_timeout)

    # ---- state ----------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """The newest whole snapshot, if there is one; then steps 7 to 9 again, which a crash may have cut off."""
        for publisher in self.publishers.values():
            for name in self._retrying(publisher.start, "versions"):
                log.info("removed %s, left by a worker that was killed", name)
        snapshot = self._retrying(self.snapshots.latest, "snapshots")
        for rejected in self.snapshots.rejected:
            log.error("snapshot %s is not whole (%s), taking the one before", rejected.path, rejected.reason)
        if snapshot is None:
            self.wanted = config_change.begin(self.config, self.wanted, self.journal.entries)
            self._retrying(lambda: self.verdicts.cut(0), "verdicts.jsonl")
            self.quarantine.begin()
            self.scores.begin()
            return
        pending = self.journal.from_position(snapshot.state["intake"]["applied"])
        change = config_change.resolve(snapshot.head, self.config, self.wanted, pending)
        self.parts.restore(snapshot.state, as_written=change is None)
        if change is not None:
            self.intake.applied += 1
            log.warning("from slide %d on under other model keys: %s", change.slide, change.keys)
        self._retrying(lambda: self.verdicts.cut(snapshot.state["verdicts"]), "verdicts.jsonl")
        self._last_end = self._snapshot_at = snapshot.state["last_end"]
        for publisher in self.publishers.values():
            if publisher.champion is not None:
                self._serve(publisher, publisher.champion)
            self._prune(publisher, publisher.pins)
        self._prune_snapshots()
        log.info("restored the snapshot before slide %d", self.intake.slides.number)

    def close(self) -> None:
        """Stops threads and closes files, whatever happened before."""
        self.writer.close()
        self.around.source.close()
        try:
            self.around.letters.close()
        except RetryableError as error:
            log.warning("%s; no snapshot covers those records, so they come again", error)
        self.around.announcer.close()
        self.verdicts.close()
        self.scores.close()
        self.quarantine.close()
        self.journal.close()

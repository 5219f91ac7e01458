"""Made-up lives of a worker's intake: logs that grow, partitions that fall silent and appear, stops, kills and
bounded runs, all seeded; and what must come out of them, by brute force."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from stream_learner import config as configs
from stream_learner.gaps import OnGap
from stream_learner.ingest.dead_letters import MemoryDeadLetters
from stream_learner.ingest.memory import MemoryRecord, MemorySource
from stream_learner.ingest.source import Partition, Source
from stream_learner.intake import Intake
from stream_learner.journal import AnyEntry, Command, MemoryJournal
from stream_learner.settings import Config
from stream_learner.tally import Tally
from stream_learner.windows.slides import Slide

S = 1_000_000
EPOCH_S = 1_700_000_000
SLIDE_S, LATENESS_S, JUMP_S, IDLE_S = 10, 3, 1000, 30
Logs = dict[Partition, list[MemoryRecord]]
Shown = tuple[int, int, int, tuple[tuple[int, str, int, int], ...]]


BY_TIME = f"{{slide: {SLIDE_S}s, allowed_lateness: {LATENESS_S}s, max_jump: {JUMP_S}s, idle_timeout: {IDLE_S}s}}"


def config_of(slides: str = BY_TIME, *, max_open: int = 2_000_000) -> Config:
    """Two topics; `max_open` may be fewer than a config file may say."""
    config = configs.parse(f"""
topics:
  a: {{types: {{click: click, buy: purchase}}}}
  b: {{types: {{click: click, buy: purchase}}}}
slides: {slides}
dead_letters: {{max_rate: 1, late: dead_letter}}
aggregates: {{windows: [1m]}}
""")
    few = msgspec.structs.replace(config.slides, max_open_events=max_open)
    return msgspec.structs.replace(config, slides=few)


def value(seconds: float, kind: str = "click") -> bytes:
    return json.dumps({"user": "u", "item": "i", "time": round(seconds * 1000), "type": kind}).encode()


def random_record(rng: np.random.Generator, offset: int, now_s: float) -> MemoryRecord:
    """Mostly a click about now; sometimes long ago, far ahead, ignored or garbage."""
    fate = rng.random()
    at = EPOCH_S + now_s + rng.normal(0, LATENESS_S)
    if offset == 0:
        return offset, -1, value(at)
    if fate < 0.04:
        return offset, -1, b"garbage"
    if fate < 0.08:
        return offset, -1, value(at, "scroll")
    if fate < 0.12:
        return offset, -1, value(at + 5 * JUMP_S)
    if fate < 0.2:
        return offset, -1, value(at - 10 * SLIDE_S * rng.random())
    return offset, (round(at * 1000) if rng.random() < 0.5 else -1), value(round(at * 2) / 2)


def random_logs(seed: int, partitions: int = 3, records: int = 150) -> Logs:
    rng = np.random.default_rng(seed)
    logs: Logs = {}
    for number in range(partitions):
        offsets = np.cumsum(rng.integers(1, 4, records))
        log = [random_record(rng, int(offset), n * 1.5) for n, offset in enumerate(offsets)]
        logs[Partition("ab"[number % 2], number // 2)] = log
    return logs


class Haphazard(MemorySource):
    """Serves any of the wanted partitions, in batches of any size, and sometimes nothing."""

    def __init__(self, logs: Logs, seed: int, **options: Any) -> None:
        super().__init__(logs, **options)
        self._rng = np.random.default_rng(seed)

    def _next(self, wanted: Iterable[Partition]) -> Partition | None:
        waiting = sorted(p for p in wanted if self._waits(p))
        if not waiting or self._rng.random() < 0.2:
            return None
        self._batch_records = int(self._rng.choice([1, 2, 5, 20, 100]))
        return waiting[self._rng.integers(len(waiting))]


def shown(slide: Slide, topics: tuple[str, ...]) -> Shown:
    """A slide's number, span and events in order, as (time, topic, partition, offset)."""
    events = slide.events
    columns = zip(
        events.time.tolist(), events.topic.tolist(), events.partition.tolist(), events.offset.tolist(), strict=True
    )
    return slide.number, slide.start, slide.end, tuple((t, topics[k], p, o) for t, k, p, o in columns)


@dataclass
class Worker:
    """An intake on its journal, and what came out of it."""

    config: Config
    source: Source
    journal: MemoryJournal
    until_end: bool
    state: dict[str, Any] | None = None
    turn: Callable[[Worker], bool] = lambda _: True
    settled: int = 0
    on_gap: OnGap = "stop"
    kept: list[dict[str, Any]] = field(default_factory=list)  # states made durable before a gap was decided
    slides_when_kept: list[list[Shown]] = field(default_factory=list)
    slides: list[Shown] = field(default_factory=list)
    acts: list[tuple[int, str]] = field(default_factory=list)  # slide before which, and command id

    def __post_init__(self) -> None:
        self.letters, self.tally = MemoryDeadLetters(), Tally()
        schema = configs.event_schema(self.config)
        self.topics = schema.topics
        reading = self.source, self.journal, self.letters, self.tally
        self.intake = Intake(self.config, schema, *reading, until_end=self.until_end, on_gap=self.on_gap)
        if self.state is not None:
            self.tally.restore(self.state["tally"])
            self.intake.restore(self.state["intake"])
        self.intake.start(self.settled)

    def act(self, command: Command) -> None:
        self.acts.append((self.intake.slides.number, command.id))

    def keep(self) -> None:
        self.kept.append(self.capture())
        self.slides_when_kept.append(list(self.slides))

    def next(self) -> bool:
        """One more slide; False when there is none."""
        slide = self.intake.next_slide(self.act, self._turn, self.keep)
        if slide is None:
            return False
        self.tally.closed(slide.events, 0, configs.event_schema(self.config))
        self.slides.append(shown(slide, self.topics))
        return True

    def all(self) -> list[Shown]:
        while self.next():
            pass
        return self.slides

    def capture(self) -> dict[str, Any]:
        return copy.deepcopy({"tally": self.tally.capture(), "intake": self.intake.capture()})

    def _turn(self) -> bool:
        return self.turn(self)


def patiently(rounds: int = 20_000) -> Callable[[Worker], bool]:
    """A turn that fails the test when the intake goes round and round."""
    left = [rounds]

    def turn(_: Worker) -> bool:
        left[0] -= 1
        assert left[0] > 0, "the intake is stuck"
        return True

    return turn


def replay(config: Config, logs: Logs, entries: tuple[AnyEntry, ...], source: MemorySource | None = None) -> Worker:
    """Everything again from the beginning, under a journal, to the end of the log."""
    worker = Worker(config, source or MemorySource(logs), MemoryJournal(entries), until_end=True, turn=patiently())
    worker.all()
    return worker


@dataclass
class Life:
    """Runs on one state, one after the other."""

    seed: int
    config: Config
    logs: Logs = field(default_factory=dict)
    slides: list[Shown] = field(default_factory=list)
    acts: list[tuple[int, str]] = field(default_factory=list)
    states: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  # slides before, captured state

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.journal = MemoryJournal()
        self.now_s = self.clock_s = 0.0
        for name in ("a", "b"):
            self.logs[Partition(name, 0)] = []
        self.grow(None)

    def grow(self, source: MemorySource | None) -> None:
        """Some partitions get records; now and then there is a new one, or all fall silent for a while."""
        self.clock_s += float(self.rng.choice([0.0, 1.0, 2 * IDLE_S], p=[0.6, 0.3, 0.1]))
        if self.rng.random() < 0.03 and len(self.logs) < 5:
            self.logs[Partition("b", len(self.logs))] = []
        for partition in sorted(self.logs):
            if self.rng.random() < 0.4:
                continue
            log = self.logs[partition]
            first = log[-1][0] + int(self.rng.integers(1, 3)) if log else 0
            spots = [self.now_s + k for k in range(self.rng.integers(1, 8))]
            fresh = [random_record(self.rng, first + k, at) for k, at in enumerate(spots)]
            log.extend(fresh)
            if source is not None:
                source.append(partition, *fresh)
        self.now_s += float(self.rng.integers(0, 2 * SLIDE_S))

    def run(self, *, until_end: bool, rounds: int, killed: bool) -> None:
        """A run of the worker: to the end, or stopped or killed after some rounds."""
        source = Haphazard(self.logs, int(self.rng.integers(2**32)), clock=lambda: self.clock_s)
        left = [rounds]

        def turn(worker: Worker) -> bool:
            left[0] -= 1
            assert left[0] > -20_000, "the intake is stuck"
            if left[0] > 0 and self.rng.random() < 0.3:
                self.grow(source)
            if self.rng.random() < 0.03:
                number = f"c{self.journal.length}"
                entry = worker.intake.decide("pin", {"version": 1}, number)
                if entry is not None:
                    worker.act(entry)
            return left[0] > 0 or (until_end and not killed)

        base, state = self.states[-1] if self.states else (0, None)
        del self.slides[base:]
        self.acts = [act for act in self.acts if state and act[1] in state["acts"]]
        worker = Worker(self.config, source, self.journal, until_end, state, turn, acts=self.acts)
        while worker.next():
            self.slides.append(worker.slides[-1])
            if self.rng.random() < 0.2:
                self._keep(worker)
        if not killed:
            self._keep(worker)

    def _keep(self, worker: Worker) -> None:
        state = {**worker.capture(), "acts": [name for _, name in self.acts]}
        self.states.append((len(self.slides), state))

"""The worker's side: a learner with large tables in uninterrupted training, published now and then.

Slides are made and matured here, so that there is no stream to read; what is timed is the worker's own: the publisher,
with the card and all, and the writer thread, which writes and checks the version and the snapshot that goes with it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.snapshots import Shop, changed
from stream_learner.changes import Changed
from stream_learner.config import event_schema, parse
from stream_learner.judging.observed import Observed
from stream_learner.judging.race import OWN
from stream_learner.learning.contenders import Contenders
from stream_learner.learning.features import feature_schema
from stream_learner.learning.runtime import configure_tensorflow
from stream_learner.lease import Lease
from stream_learner.publishing.publisher import Occasion, Publisher, Version
from stream_learner.settings import Config
from stream_learner.snapshots import Chain, Snapshots
from stream_learner.tally import Tally
from stream_learner.windows.aggregates import Aggregates
from stream_learner.writer import Writer

MODEL = "conversion"
DIM = 16
SLIDE_ROWS = 8192  # examples that mature in a slide
_SAMPLE_ROWS = 2048
_MINUTE_S = 60.0
_CONFIG = """
name: {model}
seed: 7
state: {state}
topics: {{events: {{numeric: {{price: p}}}}}}
features:
  ids: {{user: {{table: hashed, rows: {user}, dim: {dim}}}, item: {{table: hashed, rows: {item}, dim: {dim}}}}}
learning: {{threads: 1}}
checkpoints: {{keep: 1000}}
"""


def configured(rows: int, state: Path) -> Config:
    return parse(_CONFIG.format(model=MODEL, state=state, user=rows * 3 // 5, item=rows * 2 // 5, dim=DIM))


@dataclass(frozen=True)
class Spent:
    """Of a span, in seconds."""

    wall: float
    process: float  # of CPU, all threads
    thread: float  # of CPU, this one


@contextmanager
def spent(into: list[Spent]) -> Iterator[None]:
    began = time.perf_counter(), time.process_time(), time.thread_time()
    yield
    ended = time.perf_counter(), time.process_time(), time.thread_time()
    into.append(Spent(*(end - begin for end, begin in zip(ended, began, strict=True))))


def median(spans: list[Spent], what: str) -> float:
    return statistics.median(getattr(span, what) for span in spans)


@dataclass
class Measured:
    plain: list[Spent] = field(default_factory=list)  # rounds of training alone
    published: list[Spent] = field(default_factory=list)  # of as much training, beginning with a publication
    making: list[Spent] = field(default_factory=list)  # of a version, on the training thread
    told: list[Spent] = field(default_factory=list)  # of that, the capture of rows for the version
    capture: list[Spent] = field(default_factory=list)  # of rows for the snapshot
    take: list[Spent] = field(default_factory=list)  # of the same rows by numpy
    writing: list[Spent] = field(default_factory=list)  # of a version, by the writer thread
    snapshot: list[Spent] = field(default_factory=list)  # that goes with it, and the pointer
    waiting: list[Spent] = field(default_factory=list)  # for room before the writer
    rows: list[int] = field(default_factory=list)  # copied in a capture, over all arrays


class Training:
    """A worker without a stream."""

    def __init__(self, config: Config, zipf: float) -> None:
        configure_tensorflow(config)
        schema = event_schema(config)
        self.aggregates = Aggregates(config, schema)
        columns = self.aggregates.columns
        features = feature_schema(config, schema, columns)
        self.shop = Shop(schema, len(schema.numbers) + len(columns), zipf)
        self.contenders = Contenders(config, features, schema)
        self.learner, self.replay = self.contenders.own, self.contenders.replays[OWN]
        state, keeping = Path(config.state), config.snapshot
        self.lease = Lease(state / "lease", config.lease)
        self.lease.acquire(lambda _: True, lambda _: None)
        self.publisher = Publisher(config, features, columns, self.contenders, self.lease)
        self.publisher.start()
        chain = Chain(keeping.max_increments, keeping.max_increment_share)
        self.snapshots = Snapshots(state / "snapshots", keeping.keep, chain=chain)
        self.writer: Writer[tuple[int, Version, dict[str, Any]]] = Writer(self._write, keeping.max_waiting)
        self.slides = 0
        self.measured = Measured()
        self._mirrors: dict[Any, Any] = {}

    def train(self, slides: int) -> None:
        for _ in range(slides):
            self.learner.learn(self.shop.examples(SLIDE_ROWS), self.replay, self.slides)
            self.slides += 1

    def publish(self) -> None:
        """As a worker does at the end of a slide that the gate lets pass: promotion, version, capture."""
        spans, first = self.measured, self.publisher.champion is None
        sample = self.shop.examples(_SAMPLE_ROWS)
        observed = Observed(span=None, slices={}, reliability=[], psi={}, findings=[], matured=sample)
        occasion = Occasion(self.slides, self.slides * 60_000_000, Tally(), {}, {"reason": "a benchmark"}, [])
        if first:
            self.contenders.promote(None)
            version = self.publisher.promoted(occasion, self.aggregates, sample, observed)
            state = {"learner": self.learner.capture(), "replay": self.replay.capture()}
        else:
            with spent(spans.making):
                self.contenders.promote(None)
                version = self.publisher.promoted(occasion, self.aggregates, sample, observed)
            with spent(spans.told):  # once more: what of `making` is capture
                self.learner.version_changes()
            with spent(spans.capture):
                state = {"learner": self.learner.changes(), "replay": self.replay.changes()}
            self._take_same(state)
        with spent(spans.waiting):
            self.writer.submit((self.slides, version, state))

    def _take_same(self, state: dict[str, Any]) -> None:
        """The rows of a capture, taken from arrays of the same shapes that nobody else uses."""
        leaves = [(self._mirror(leaf), leaf.rows) for _, leaf in changed(state)]
        with spent(self.measured.take):
            taken = [np.take(array, rows, axis=0) for array, rows in leaves]
        self.measured.rows.append(sum(map(len, taken)))

    def _mirror(self, leaf: Changed) -> Any:
        key = leaf.height, leaf.values.shape[1:], leaf.values.dtype
        if key not in self._mirrors:
            self._mirrors[key] = np.ones((leaf.height, *leaf.values.shape[1:]), leaf.values.dtype)
        return self._mirrors[key]

    def _write(self, made: tuple[int, Version, dict[str, Any]]) -> None:
        slide, version, state = made
        with spent(self.measured.writing):
            self.publisher.write(version)
        with spent(self.measured.snapshot):
            self.snapshots.write(slide, state, {})
            self.publisher.checkpoints.point(version.manifest.version)
            self.snapshots.prune()

    def close(self) -> None:
        self.writer.drain()
        self.writer.close()
        self.lease.release()


def measure(config: Config, zipf: float, round_s: float, rounds: int, extra: int) -> dict[str, Any]:
    """Rounds of equal training, every other one beginning with a publication; then `extra` versions in close order,
    for followers. The figures, and the folder of the versions."""
    training = Training(config, zipf)
    training.train(3)  # graphs and allocators are warm
    training.publish()
    warm: list[Spent] = []
    with spent(warm):
        training.train(8)
    training.publish()
    training.writer.drain()
    slides = max(1, round(round_s / warm[0].wall * 8))
    training.measured = Measured()
    for _ in range(rounds):
        for spans, publishes in ((training.measured.plain, False), (training.measured.published, True)):
            with spent(spans):
                if publishes:
                    training.publish()
                training.train(slides)
                training.writer.drain()
    found = figures(training.measured, slides, config)
    for _ in range(extra):
        training.train(max(1, slides // 4))
        training.publish()
    training.close()
    return found


def figures(measured: Measured, slides: int, config: Config) -> dict[str, Any]:
    plain, published = measured.plain, measured.published
    on_path_s, apart_s = (
        sum(median(spans, "thread") for spans in of)
        for of in ((measured.making, measured.capture), (measured.writing, measured.snapshot))
    )
    longer_s = median(published, "wall") - median(plain, "wall")
    captures = list(zip(measured.told, measured.capture, measured.take, strict=True))
    ratios = [(told.wall + rest.wall) / take.wall for told, rest, take in captures]
    cpu_ratios = [(told.thread + rest.thread) / take.thread for told, rest, take in captures]
    return {
        "rows_of_tables": sum(column.rows for column in config.features.ids.values()),
        "dim": DIM,
        "rounds": len(plain),
        "examples_per_round": slides * SLIDE_ROWS,
        "round_seconds": median(plain, "wall"),
        "rows_captured": statistics.median(measured.rows),
        "training_cpu_seconds_of_a_minute": _MINUTE_S * median(plain, "process") / median(plain, "wall"),
        "cpu_seconds_on_the_training_thread": on_path_s,
        "of_these_for_the_snapshot": median(measured.capture, "thread"),
        "cpu_seconds_on_the_writer_thread": apart_s,
        "of_those_for_the_snapshot": median(measured.snapshot, "thread"),
        "cost_percent_of_a_minute_of_one_core": 100 * (on_path_s + apart_s) / _MINUTE_S,
        "on_the_training_thread_percent": 100 * on_path_s / _MINUTE_S,
        "cost_percent_wall": 100 * longer_s / _MINUTE_S,
        "pause_seconds": median(measured.making, "wall") + median(measured.capture, "wall"),
        "waiting_seconds": median(measured.waiting, "wall"),
        "capture_seconds": statistics.median(told.wall + rest.wall for told, rest, _ in captures),
        "of_these_for_the_version": median(measured.told, "wall"),
        "capture_over_np_take": statistics.median(ratios),
        "capture_over_np_take_cpu": statistics.median(cpu_ratios),
    }

"""What snapshots of large tables cost: the training pause, what is written, and the way back.

    python -m benchmarks.snapshots [--gigabytes 1] [--dim 32] [--snapshots 12] [--slides 10] [--out FILE]

A learner with that many bytes of embedding tables and optimizer slots trains on Zipf-distributed ids as fast as it can
and is captured every few slides; captures are written by the worker's writer thread meanwhile. Right after each capture
the rows that it told of are taken by `np.take` from numpy arrays of the same shapes: what the pause is measured by.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import Changed, resized
from stream_learner.config import event_schema, parse
from stream_learner.events import EventSchema, ExampleBatch
from stream_learner.learning.features import feature_schema
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay
from stream_learner.learning.runtime import configure_tensorflow
from stream_learner.settings import Config
from stream_learner.snapshots import Chain, SnapshotInfo, Snapshots
from stream_learner.windows.columns import aggregate_columns
from stream_learner.writer import Writer

SLIDE_ROWS = 8192  # examples that mature in a slide
_SLOTS = 2  # of Adam
_CONFIG = """
seed: 7
topics: {{events: {{numeric: {{price: p}}}}}}
features: {{ids: {{user: {{rows: {user}, dim: {dim}}}, item: {{rows: {item}, dim: {dim}}}}}}}
"""


@dataclass
class Shop:
    """Examples with Zipf-distributed users and items."""

    schema: EventSchema
    numbers: int
    zipf: float
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def examples(self, rows: int) -> ExampleBatch:
        ids = self.rng.zipf(self.zipf, (rows, len(self.schema.ids))).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return ExampleBatch.unscored(
            time=np.sort(self.rng.integers(0, 300_000_000, rows)),
            ids=ids | np.uint64(1),
            numbers=self.rng.random((rows, self.numbers), np.float32),
            label=(self.rng.random(rows) < 0.1).astype(np.float32),
        )


@dataclass
class Run:
    """A learner under way, and what was measured of it; times in seconds."""

    learner: Learner
    replay: Replay
    shop: Shop
    slides: int = 0
    training: list[float] = field(default_factory=list)
    pause: list[float] = field(default_factory=list)
    pause_cpu: list[float] = field(default_factory=list)
    take: list[float] = field(default_factory=list)
    take_cpu: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    written: list[SnapshotInfo] = field(default_factory=list)

    def train(self, slides: int) -> None:
        started = time.perf_counter()
        for _ in range(slides):
            self.learner.learn(self.shop.examples(SLIDE_ROWS), self.replay, self.slides)
            self.slides += 1
        self.training.append(time.perf_counter() - started)

    def capture(self) -> dict[str, Any]:
        """What changed, timed."""
        started, cpu = time.perf_counter(), time.process_time()
        state = {"learner": self.learner.changes(), "replay": self.replay.changes()}
        self.pause.append(time.perf_counter() - started)
        self.pause_cpu.append(time.process_time() - cpu)
        return state

    def whole(self) -> dict[str, Any]:
        return {"learner": self.learner.capture(), "replay": self.replay.capture()}

    def take_same(self, state: dict[str, Any], mirror: dict[str, NDArray[Any]]) -> None:
        """The rows of a capture, taken from arrays of the same shapes."""
        leaves = [(mirror[place], leaf.rows) for place, leaf in changed(state)]
        started, cpu = time.perf_counter(), time.process_time()
        taken = [np.take(array, rows, axis=0) for array, rows in leaves]
        self.take.append(time.perf_counter() - started)
        self.take_cpu.append(time.process_time() - cpu)
        self.rows.append(sum(map(len, taken)))


def changed(state: Any, place: str = "") -> list[tuple[str, Changed]]:
    """The leaves of a state that tell what changed, with their places."""
    if isinstance(state, Changed):
        return [(place, state)]
    inner = state.items() if isinstance(state, dict) else ()
    return [found for name, value in inner for found in changed(value, f"{place}/{name}".lstrip("/"))]


def arrays(state: Any, place: str = "") -> dict[str, NDArray[Any]]:
    """The arrays of a whole state, by place."""
    if isinstance(state, np.ndarray):
        return {place: state}
    inner = state.items() if isinstance(state, dict) else ()
    return {k: v for name, value in inner for k, v in arrays(value, f"{place}/{name}".lstrip("/")).items()}


def timed(action: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = action()
    return time.perf_counter() - started, result


def made(config: Config, zipf: float) -> Run:
    configure_tensorflow(config)
    schema = event_schema(config)
    columns = aggregate_columns(config, schema)
    shop = Shop(schema, len(schema.numbers) + len(columns), zipf)
    learner = Learner(config, feature_schema(config, schema, columns))
    return Run(learner, Replay(config.replay.capacity, config.seed), shop)


def measure(config: Config, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    run = made(config, args.zipf)
    keeping = config.snapshot
    chain = Chain(keeping.max_increments, keeping.max_increment_share)
    snapshots = Snapshots(folder / "snapshots", keeping.keep, chain=chain)
    writer: Writer[tuple[int, dict[str, Any]]] = Writer(
        lambda capture: run.written.append(snapshots.write(*capture, {})), keeping.max_waiting
    )
    run.train(args.slides)
    whole_promotion_s, _ = timed(run.learner.promote)
    whole_pause_s, state = timed(run.whole)
    mirror = {
        place: resized(array, config.replay.capacity) if place.startswith("replay/") else array
        for place, array in arrays(state).items()
    }
    writer.submit((run.slides, state))
    run.training.clear()
    promotions = []
    for number in range(args.snapshots):
        run.train(args.slides)
        if number % 4 == 3:
            promotions.append(timed(run.learner.promote)[0])
        state = run.capture()
        run.take_same(state, mirror)
        writer.submit((run.slides, state))
    writer.drain()
    writer.close()
    checked_s, sound = timed(run.learner.finite)
    assert sound
    chain_read_s, found = timed(Snapshots(folder / "snapshots", keeping.keep).latest)
    links = len(list(found.path.glob("link-*.bin")))
    whole = run.whole()
    same = arrays(found.state)
    assert all(np.array_equal(value, same[place], equal_nan=True) for place, value in arrays(whole).items())
    info = Snapshots(folder / "whole", keeping.keep).write(1, whole, {})
    whole_read_s, found = timed(Snapshots(folder / "whole", keeping.keep).latest)
    restore_s, _ = timed(lambda: run.learner.restore(found.state["learner"]))
    increments = [written for written in run.written[1:] if not written.merged]
    return {
        "table_and_slot_bytes": sum(v.nbytes for k, v in same.items() if "/candidate/" in k and "table/" in k),
        "champion_table_bytes": sum(v.nbytes for k, v in same.items() if "/champion/table/" in k),
        "rows_changed": statistics.median(run.rows),
        "pause_s": statistics.median(run.pause),
        "np_take_s": statistics.median(run.take),
        "pause_over_np_take": statistics.median(p / t for p, t in zip(run.pause, run.take, strict=True)),
        "pause_over_np_take_cpu": statistics.median(p / t for p, t in zip(run.pause_cpu, run.take_cpu, strict=True)),
        "pause_share": statistics.median(p / (p + t) for p, t in zip(run.pause, run.training, strict=True)),
        "whole_pause_s": whole_pause_s,
        "between_snapshots_s": statistics.median(run.training),
        "promotion_s": statistics.median(promotions) if promotions else None,
        "first_promotion_s": whole_promotion_s,
        "finite_s": checked_s,
        "whole_written_bytes": info.written_bytes,
        "increment_written_bytes": statistics.median(i.written_bytes for i in increments) if increments else None,
        "increments": len(increments),
        "merges": sum(written.merged for written in run.written),
        "links_restored": links,
        "read_chain_s": chain_read_s,
        "read_whole_s": whole_read_s,
        "assign_s": restore_s,
    }


def table(result: dict[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    for name, value in result.items():
        shown = f"{value:,.4f}" if isinstance(value, float) and value < 1000 else f"{value:,.0f}" if value else "-"
        lines.append(f"| {name.replace('_', ' ')} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the candidate's tables and their slots")
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--snapshots", type=int, default=12)
    parser.add_argument("--slides", type=int, default=10, help=f"between two snapshots, of {SLIDE_ROWS} examples")
    parser.add_argument("--zipf", type=float, default=1.2, help="exponent of the ids' distribution")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = int(args.gigabytes * 1e9 / (4 * args.dim * (1 + _SLOTS)))
    config = parse(_CONFIG.format(user=rows * 5 // 8, item=rows * 3 // 8, dim=args.dim))
    with tempfile.TemporaryDirectory() as folder:
        result = measure(config, args, Path(folder))
    print(table(result))
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

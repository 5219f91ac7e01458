"""Protocol P3: next-item recommendation, continually; the worker's published versions against a session-kNN.

    python -m benchmarks.next_item --events events.parquet --report n.json

The worker learns the periods as a stream, a slide each, and publishes at the end of each; the version made of the
periods before p then ranks every prefix of period p, asked through the SavedModel's `recommend`. Each method runs in a
process of its own, which tells its time and its memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.sessions import PERIOD_S, Log, Prefixes, quality, tested
from benchmarks.stan import SessionNeighbours, Settings

CONFIG = Path(__file__).parent / "configs" / "next_item.yaml"
K = 20
WIDTH = 20  # recent items handed over; models look at as many as they are made for
ROWS = 256  # prefixes asked at once

ALONE: dict[str, Any] = {"model": "network"}
PLAIN = {"dropout": 0.0, "replay": 0.0}
METHODS: dict[str, dict[str, Any]] = {  # what the worker is told beyond the config
    "stream_learner": {},
    "neighbours": {"model": "neighbours"},
    "markov": {"model": "markov"},
    "popularity": {"model": "popularity"},
    "fine_tune": {**ALONE, "network": PLAIN},
    "dropout": {**ALONE, "network": {**PLAIN, "dropout": 0.3}},
    "replay": {**ALONE, "network": {"dropout": 0.3}},
    "distillation": {**ALONE, "network": {"dropout": 0.3, "replay_by": "item", "distillation": 1.0}},
    "joint": {**ALONE, "network": {"dropout": 0.3, "replay": 0.0}},
}
DEFAULT = ("stream_learner", "knn")
EVERY = ("stream_learner", "knn", *(name for name in METHODS if name != "stream_learner"))

Ranker = Callable[[Prefixes], NDArray[np.int64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", required=True, type=Path, help="Parquet of (seq, period, session, item)")
    parser.add_argument("--methods", default=",".join(DEFAULT), help=f"all, or some of {', '.join(EVERY)}")
    parser.add_argument("--report", type=Path, help="the figures, as JSON")
    parser.add_argument("--forgetting", action="store_true", help="also what the last version makes of every period")
    parser.add_argument("--alone", choices=EVERY, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.events.is_file():
        raise SystemExit(f"{args.events}: no such file; name a Parquet file of (seq, period, session, item)")
    if args.alone:
        print(json.dumps(measure(args.alone, args.events, forgetting=args.forgetting)))
        return
    names = EVERY if args.methods == "all" else tuple(args.methods.split(","))
    if unknown := [name for name in names if name not in EVERY]:
        raise SystemExit(f"--methods: no method {', '.join(unknown)}; known: {', '.join(EVERY)}, all")
    figures: dict[str, Any] = {}
    for name in names:
        figures[name] = in_own_process(name, args)
        print(line(name, figures[name]), flush=True)
        if args.report:
            args.report.write_text(json.dumps(figures, indent=2) + "\n")


def in_own_process(name: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.next_item", "--events", str(args.events), "--alone", name]
    command += ["--forgetting"] if args.forgetting else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}")
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content


def line(name: str, figures: dict[str, Any]) -> str:
    metrics = "  ".join(f"{key} {figures[key]:6.2f}" for key in ("recall@20", "mrr@20", "recall@10", "mrr@10"))
    spent = f"{figures['wall_s']:6.0f} s  {figures['cpu_s']:6.0f} CPU-s  {figures['peak_rss_bytes'] / 1e6:6.0f} MB"
    return f"{name:15} {metrics}  {spent}"


def measure(name: str, events: Path, *, forgetting: bool) -> dict[str, Any]:
    """One method's figures: means over the periods, in percent; seconds and bytes, learning and ranking together."""
    began, log = time.monotonic(), Log.read(events)
    with tempfile.TemporaryDirectory() as scratch:
        ranker = knn(log) if name == "knn" else published(name, log, Path(scratch))
        each = [ranked(ranker(period), tested(log, period, WIDTH)) for period in range(1, log.periods)]
        kept = {"forgetting": forgotten(log, ranker(log.periods - 1))} if forgetting else {}
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    means = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
    spent = {"wall_s": time.monotonic() - began, "cpu_s": sum(used.ru_utime + used.ru_stime for used in usage)}
    spent["peak_rss_bytes"] = max(used.ru_maxrss for used in usage) * 1024
    return {**means, "per_period": each, **spent, **kept}


def ranked(ranker: Ranker, prefixes: Prefixes) -> dict[str, float]:
    return quality(ranker(prefixes), prefixes.target)


def forgotten(log: Log, last: Ranker) -> list[float]:
    """Recall@20 of the last version on the prefixes of every period it learned: what it remembers, not a test."""
    known = np.unique(log.item[log.period < log.periods - 1])
    return [ranked(last, Prefixes.of(log, known, period, WIDTH))["recall@20"] for period in range(log.periods - 1)]


def knn(log: Log) -> Callable[[int], Ranker]:
    def of(period: int) -> Ranker:
        index = SessionNeighbours(log, period, Settings())
        return lambda prefixes: index.top(prefixes, K)

    return of


def published(name: str, log: Log, folder: Path) -> Callable[[int], Ranker]:
    """The versions that the worker publishes, by the period each is tested on."""
    if name != "joint":
        learn(folder, log, METHODS[name], None)
        return lambda period: Served(folder / "state" / "checkpoints" / "next_item" / str(period * PERIOD_S))

    def retrained(period: int) -> Ranker:
        part = folder / str(period)
        learn(part, log, METHODS[name], period)
        return Served(max((part / "state" / "checkpoints" / "next_item").glob("[0-9]*"), key=lambda p: int(p.name)))

    return retrained


def learn(folder: Path, log: Log, told: dict[str, Any], before: int | None) -> None:
    """Runs the worker on all periods but the last, as a stream; or on those before one, as one slide."""
    folder.mkdir(exist_ok=True)
    events, config = folder / "events.parquet", folder / "config.yaml"
    content = yaml.safe_load(CONFIG.read_text())
    task = content["next_item"]
    task["network"] = {**task["network"], **told.get("network", {})}
    task["model"] = told.get("model", "blend")
    if before is not None:
        content["slides"]["slide"] = f"{before * PERIOD_S}s"
    log.write_events(events, None if before is None else np.arange(log.periods) < before)
    config.write_text(yaml.safe_dump(content))
    command = ["backtest", "-c", str(config), "--events", str(events), "--state", str(folder / "state")]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "stream-learner"), *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the worker ended with {done.returncode}:\n{done.stderr[-3000:]}")


class Served:
    """A published version, asked as its callers ask it."""

    def __init__(self, version: Path) -> None:
        import tensorflow as tf

        self._tf = tf
        self._loaded = tf.saved_model.load(str(version))

    def __call__(self, prefixes: Prefixes) -> NDArray[np.int64]:
        parts = [self._top(prefixes.recent[start : start + ROWS]) for start in range(0, len(prefixes.recent), ROWS)]
        return np.concatenate(parts)

    def _top(self, recent: NDArray[np.int64]) -> NDArray[np.int64]:
        tf, rows = self._tf, len(recent)
        none = tf.constant([], tf.string, shape=(rows, 0))
        factors = tf.constant([], tf.float32, shape=(rows, 0))
        texts = np.where(recent < 0, "", recent.astype(str))
        answer = self._loaded.signatures["recommend"](
            recent=tf.constant(texts),
            user=tf.fill([rows], ""),
            exclude=none,
            boost=none,
            boost_by=factors,
            k=tf.constant(K),
        )
        ids = answer["ids"].numpy()
        return np.where(ids == b"", b"-1", ids).astype(np.int64)


if __name__ == "__main__":
    main()

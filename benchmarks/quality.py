"""Whether it learns better than what its users would pick instead, on protocols P1 and P2.

    python -m benchmarks.quality --data ../shared/data [--out FILE] [--methods a,b] [--wheel FILE] [--shards 0 100]

P1: Tmall conversion within 7 days, labels 7 days late, predicted day by day, judged on days 28 to 115. P2: ratings of
MovieLens 100K in time order, the last 2/7 predicted in N shards, each then learned. Every peer sees what a live system
would have seen; `stream_learner` runs as `stream-learner backtest` with its config in benchmarks/configs. Wall times
include everything but the reading of the data, for `stream_learner` also its imports, graphs and snapshots.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks import ml100k
from benchmarks.conversion import HORIZON, JUDGED, LATER_WEEKS, ClickDays, click_days, write_labelled
from benchmarks.datasets import CONFIGS, learned
from benchmarks.peers import Peer, conversion_peers, freshness_peers
from stream_learner.judging.metrics import auc, log_loss, normalized_entropy, to_logits

OURS = "stream_learner"
ORACLE = "oracle_labels"  # ours, told every label as its click arrives: what the delay of labels costs
SHARDS = ("0", "100", "1000", "event")
TMALL = "alibaba_tmall_2014/events.parquet"

Row = dict[str, float]


def measured(scores: NDArray[np.float64], label: NDArray[np.float32]) -> Row:
    """`scores`: probabilities."""
    logits = to_logits(scores.astype(np.float32))
    return {
        "auc": auc(logits, label),
        "normalized_entropy": normalized_entropy(logits, label),
        "log_loss": log_loss(logits, label),
        "calibration": float(scores.sum() / label.sum()),
    }


def conversion(peer: Peer, days: ClickDays) -> Row:
    """P1, day by day: what became mature at its start is learned, then its examples are predicted."""
    scores = np.full(len(days.day), np.nan)
    edges = np.searchsorted(days.day, np.arange(JUDGED.stop + 1))
    for day in range(JUDGED.stop):
        if day > HORIZON:
            peer.learn(np.arange(edges[day - HORIZON - 1], edges[day - HORIZON]))
        if day in JUDGED:
            rows = np.arange(edges[day], edges[day + 1])
            scores[rows] = peer.predict(rows) if len(rows) else []
    judged = np.isin(days.day, JUDGED)
    later = np.isin(days.day, LATER_WEEKS)
    row = measured(scores[judged], days.label[judged])
    return row | {"weeks_4_12": measured(scores[later], days.label[later])}  # type: ignore[dict-item]


def our_conversion(events: Path, folder: Path, *, oracle: bool = False) -> Row:
    """P1 by the worker, once for all judged weeks and once for the later ones: the same run, judged otherwise. With
    `oracle` events hold the labels to come."""
    rows = []
    for name, start in (("all", None), ("later", "2013-06-10")):
        (folder / name).mkdir(parents=True)
        config = yaml.safe_load((CONFIGS / "tmall.yaml").read_text())
        config["quarantine"] = {"enabled": False}  # the protocol learns every example, those of the outages too
        if oracle:
            config["topics"]["tmall"]["fields"]["label"] = "label"
            config["labels"]["mode"] = "oracle"
        if start is not None:
            config["judging"]["span"]["start"] = start
        path = folder / name / "config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        rows.append(reported(learned(["backtest", "-c", path, "--events", events], folder / name)))
    return rows[0] | {"weeks_4_12": rows[1]}  # type: ignore[dict-item]


def reported(report: dict[str, Any]) -> Row:
    return {name: report[name] for name in ("auc", "normalized_entropy", "log_loss", "calibration")}


def freshness(peer: Peer, label: NDArray[np.float32], shards: str) -> Row:
    """P2: the warm part learned once in order, then each shard predicted whole and learned."""
    total = len(label)
    peer.learn(np.arange(ml100k.WARM))
    count = total - ml100k.WARM if shards == "event" else max(int(shards), 1)
    cuts = np.linspace(ml100k.WARM, total, count + 1).astype(int)
    scores = np.empty(total)
    for start, stop in itertools.pairwise(cuts):
        rows = np.arange(start, stop)
        scores[rows] = peer.predict(rows)
        if shards != "0":
            peer.learn(rows)
    return measured(scores[ml100k.WARM :], label[ml100k.WARM :])


def timed(run: Callable[[], Row]) -> Row:
    start = time.perf_counter()
    row = run()
    return row | {"wall_s": round(time.perf_counter() - start, 1)}


def first_protocol(data: Path, wanted: Callable[[str], bool], scratch: Path) -> Iterator[tuple[str, Row]]:
    """(method, row) of P1."""
    events = data / TMALL
    if not events.is_file():
        print(f"P1: not run, {events} is not there", flush=True)
        return
    if wanted(OURS):
        yield OURS, timed(lambda: our_conversion(events, scratch / OURS))
    days = click_days(events)
    if wanted(ORACLE):
        write_labelled(events, days, scratch / "labelled.parquet")
        yield ORACLE, timed(lambda: our_conversion(scratch / "labelled.parquet", scratch / ORACLE, oracle=True))
    for name, make in conversion_peers(days).items():
        if wanted(name):
            yield name, timed(lambda make=make: conversion(make(), days))  # type: ignore[misc]


def second_protocol(
    rows: list[tuple[int, ...]], shards: list[str], wanted: Callable[[str], bool], scratch: Path
) -> Iterator[tuple[str, dict[str, Row]]]:
    """(method, row by N) of P2."""
    users, items = (np.unique([row[k] for row in rows], return_inverse=True)[1].astype(np.int64) for k in (0, 1))
    label = np.array([row[2] >= 4 for row in rows], np.float32)
    events = scratch / "ratings.jsonl"
    ml100k.write_ratings(rows, events)
    if wanted(OURS):
        yield OURS, {n: timed(lambda n=n: reported(ml100k.learn(events, _count(n), scratch / n))) for n in shards}  # type: ignore[misc]
    for name, make in freshness_peers(users, items, label).items():
        if wanted(name):
            at = [n for n in shards if n != "event" or name != "keras_mlp"]  # step by step it takes an hour
            yield name, {n: timed(lambda make=make, n=n: freshness(make(), label, n)) for n in at}  # type: ignore[misc]


def _count(shards: str) -> int:
    return ml100k.ONLINE if shards == "event" else max(int(shards), 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data sets")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all numbers here, as JSON")
    parser.add_argument("--methods", default="", metavar="A,B", help=f"only these; {OURS} is one (default: all)")
    parser.add_argument("--shards", nargs="+", default=list(SHARDS), choices=[*SHARDS, "10", "50"], help="N of P2")
    parser.add_argument("--wheel", type=Path, help="recbole-1.2.1-py3-none-any.whl; default: fetched with pip")
    parser.add_argument("--protocols", nargs="+", default=["P1", "P2"], choices=["P1", "P2"])
    args = parser.parse_args()
    names = {name for name in args.methods.split(",") if name}
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="quality") as scratch:
        folder = Path(scratch)
        runs: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
            "P1": lambda: first_protocol(args.data, lambda name: not names or name in names, folder),
            "P2": lambda: second_protocol(
                ml100k.ratings(args.wheel or ml100k.fetch(folder)),
                args.shards,
                lambda name: not names or name in names,
                folder,
            ),
        }
        for protocol in args.protocols:
            results[protocol] = {}
            for name, row in runs[protocol]():
                results[protocol][name] = row
                print(f"{protocol} {name}: {json.dumps(row)}", file=sys.stderr, flush=True)
                if args.out is not None:
                    args.out.write_text(json.dumps(results, indent=2) + "\n")
    print(tables(results))
    return 0


def tables(results: dict[str, dict[str, Any]]) -> str:
    """Both tables as Markdown, the best AUC first."""
    lines: list[str] = []
    if results.get("P1"):
        lines += [
            "| P1 | AUC | NE | log loss | calibration | weeks 4-12 AUC / NE | wall s |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, row in sorted(results["P1"].items(), key=lambda item: -item[1]["auc"]):
            later = row["weeks_4_12"]
            numbers = f"{row['auc']:.4f} | {row['normalized_entropy']:.4f} | {row['log_loss']:.4f}"
            beside = f"{later['auc']:.4f} / {later['normalized_entropy']:.4f}"
            lines.append(f"| {name} | {numbers} | {row['calibration']:.3f} | {beside} | {row['wall_s']:.0f} |")
        lines.append("")
    if results.get("P2"):
        shards = list(next(iter(results["P2"].values())))
        lines += [f"| P2, AUC at N = | {' | '.join(shards)} | wall s |", f"|---|{'---|' * len(shards)}---|"]
        for name, rows in results["P2"].items():
            cells = " | ".join(f"{rows[n]['auc']:.4f}" if n in rows else "-" for n in shards)
            lines.append(f"| {name} | {cells} | {sum(row['wall_s'] for row in rows.values()):.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

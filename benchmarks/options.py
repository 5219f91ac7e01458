"""What options of the learner and a race of challengers are worth, on a shop whose tastes change at once.

    python -m benchmarks.options [--hours 36] [--seeds 11 12] [--methods plain averaging] [--out o.json]

The worker itself (`stream-learner backtest`) learns a simulated shop in which 4 % of clicks convert and tastes change
in a moment every 8 hours, with few events per user and item. Judged as of arrival from a third of the hours on: the
candidate, and the version in service (champion). CPU is that of the whole run without start-up, against `plain` of the
same seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.datasets import CONFIGS, learned
from stream_learner.simulate import Drift, Shop, ShopSettings, write_jsonl
from stream_learner.simulate.world import HOUR_US

_TIMID = {"learning_rate": 2e-5, "table_learning_rate": 2e-5}
_QUICK = {"learning_rate": 0.002, "table_learning_rate": 0.002}
METHODS: dict[str, dict[str, Any]] = {  # name -> what it changes of the config
    "plain": {},
    "averaging 0.9": {"learning": {"averaging": 0.9}},
    "averaging 0.99": {"learning": {"averaging": 0.99}},
    "averaging 0.99, rate x 4": {"learning": {"averaging": 0.99, "learning_rate": 0.008}},
    "warm_restart 4": {"learning": {"warm_restart": {"boost": 4, "half_life": 5000}}},
    "warm_start, 3 passes": {"learning": {"warm_start": {"until": "2024-01-01T12:00:00Z", "passes": 3}}},
    "negative_share 0.25": {"learning": {"negative_share": 0.25}},
    "table_optimizer adagrad": {"learning": {"table_optimizer": "adagrad", "table_learning_rate": 0.05}},
    "timid": {"learning": _TIMID},
    "timid, challenged": {
        "learning": _TIMID,
        "challengers": {
            "quick": {"learning": _QUICK},
            "linear": {"learning": {**_QUICK, "network": "logistic", "hidden": []}},
        },
    },
}
_CHANGE_EVERY_H = 8
_SLIDES_PER_H = 3
_METRICS = ("normalized_entropy", "auc", "calibration")


def shop(hours: int, seed: int) -> ShopSettings:
    drift = tuple(Drift.parse(f"preference@{at}") for at in range(_CHANGE_EVERY_H, hours, _CHANGE_EVERY_H))
    return ShopSettings(
        seed=seed, users=8000, items=1500, events_per_hour=4000.0, conversion=0.04, delay_median_s=600.0, drift=drift
    )


def config_of(method: str, hours: int) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / "delay.yaml").read_text())
    del content["topics"]["events"]["fields"]["label"]
    content["labels"] = {"horizon": "1h"}
    content["features"]["ids"]["user"]["rows"] = 10_000
    content["features"]["ids"]["item"]["rows"] = 2_000
    content["learning"]["table_learning_rate"] = content["learning"]["learning_rate"]
    content["replay"] = {"capacity": 20_000, "ratio": 0.5}
    content["judging"] = {"windows": ["6h"], "span": {"after_slides": hours * _SLIDES_PER_H // 3}}
    content["gate"] = {"interval": "1h", "min_interval": "2h", "min_examples": 500, "max_psi": None, "margin": 0.02}
    content["gate"] |= {"calibration": [0.5, 2.0]}
    for section, values in METHODS[method].items():
        content[section] = {**content.get(section, {}), **values}
    return content


def run(method: str, hours: int, events: Path, folder: Path) -> dict[str, float]:
    """What a back-test's report says, of the candidate and of the version in service."""
    folder.mkdir()
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config_of(method, hours), sort_keys=False))
    report = learned(["backtest", "-c", path, "--events", events], folder)
    told = {name: _number(report[name]) for name in _METRICS}
    told |= {f"champion_{name}": _number(report["champion_metrics"][name]) for name in _METRICS}
    return {**told, "cpu": float(report["learning_cpu_seconds"]), "versions": float(len(report["versions"]))}


def _number(value: float | None) -> float:
    """NaN where there is none: a model that never passed the gate has no champion."""
    return float("nan") if value is None else float(value)


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Means over the seeds."""
    lines = ["| | NE | AUC | calibration | champion NE | champion AUC | versions | CPU |", f"|{'---|' * 8}"]
    for method, found in rows.items():
        mean = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
        cpu = np.mean([row["cpu"] / base["cpu"] for row, base in zip(found, rows.get("plain", found), strict=True)])
        numbers = f"{mean['normalized_entropy']:.4f} | {mean['auc']:.4f} | {mean['calibration']:.3f}"
        champion = f"{mean['champion_normalized_entropy']:.4f} | {mean['champion_auc']:.4f}"
        lines.append(f"| {method} | {numbers} | {champion} | {mean['versions']:.0f} | {cpu:.2f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.options", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hours", type=int, default=36, help="of the shop; a third warms up (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12], help="of the shop (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all numbers here, as JSON")
    args = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {method: [] for method in args.methods}
    with tempfile.TemporaryDirectory(prefix="options") as scratch:
        folder = Path(scratch)
        for seed in args.seeds:
            events = folder / f"events-{seed}"
            write_jsonl(events, Shop(shop(args.hours, seed)).chunks(args.hours * HOUR_US), seed=seed)
            for method in args.methods:
                rows[method].append(run(method, args.hours, events, folder / f"{method}-{seed}"))
                print(f"{method}, seed {seed}: {json.dumps(rows[method][-1])}", file=sys.stderr, flush=True)
                if args.out is not None:
                    args.out.write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

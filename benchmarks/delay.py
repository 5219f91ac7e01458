"""What each way of learning from delayed labels is worth, on a shop whose conversions are known beforehand.

    python -m benchmarks.delay [--out d.json] [--hours 96] [--methods wait fnw]

The worker itself (`stream-learner backtest`, benchmarks/configs/delay.yaml) runs once for every `labels.mode`. Clicks
are scored as they arrive, before anything is learned of them, and judged by the labels they mature with. `oracle` is
told every label with its click; "shifted" adds `learning.calibration_rows`. R is the share of what the oracle gains
over `duplicate` that a method gains: (method - duplicate) / (oracle - duplicate), for log loss and AUC.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.datasets import CONFIGS, learned
from stream_learner.config import load
from stream_learner.simulate import Drift, Shop, ShopSettings, revealed, write_jsonl
from stream_learner.simulate.world import HOUR_US

METHODS: dict[str, dict[str, Any]] = {  # name -> what it changes of the config
    **{mode: {"labels": {"mode": mode}} for mode in ("duplicate", "wait", "fnw", "fnc", "es_dfm", "oracle")},
    "duplicate, shifted": {"labels": {"mode": "duplicate"}, "learning": {"calibration_rows": 5000}},
}
CONFIG = CONFIGS / "delay.yaml"
_CHANGE_EVERY_H = 6  # of tastes; of the rate half as often, down and up


def shop(hours: int, seed: int) -> ShopSettings:
    """One click in five converts, half of them within an hour; tastes and the rate keep changing."""
    tastes = [Drift.parse(f"preference@{at}:0.1") for at in range(_CHANGE_EVERY_H, hours, _CHANGE_EVERY_H)]
    rates = [
        Drift.parse(f"rate@{at}:{0.3 if number % 2 else -0.3}")
        for number, at in enumerate(range(2 * _CHANGE_EVERY_H, hours, 2 * _CHANGE_EVERY_H))
    ]
    return ShopSettings(
        seed=seed,
        users=2000,
        items=400,
        events_per_hour=4000.0,
        conversion=0.2,
        delay_median_s=3600.0,
        drift=(*tastes, *rates),
    )


def run(method: str, events: Path, folder: Path) -> dict[str, Any]:
    """The report of a back-test."""
    folder.mkdir()
    content = yaml.safe_load(CONFIG.read_text())
    for section, values in METHODS[method].items():
        content[section] |= values
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    report = learned(["backtest", "-c", path, "--events", events], folder)
    names = ("auc", "log_loss", "normalized_entropy", "calibration", "n", "n_pos", "cpu_seconds")
    return {name: report[name] for name in names}


def gains(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """R per mode, where duplicate and oracle were run."""
    if not {"duplicate", "oracle"} <= rows.keys():
        return {}
    worst, best = rows["duplicate"], rows["oracle"]
    return {
        mode: {name: (row[name] - worst[name]) / (best[name] - worst[name]) for name in ("log_loss", "auc")}
        for mode, row in rows.items()
    }


def table(rows: dict[str, dict[str, Any]], shares: dict[str, dict[str, float]]) -> str:
    lines = ["| method | log loss | AUC | calibration | R log loss | R AUC |", "|---|---|---|---|---|---|"]
    for mode, row in rows.items():
        share = shares.get(mode, {})
        told = " | ".join(f"{share[name]:.2f}" if share else "-" for name in ("log_loss", "auc"))
        lines.append(f"| {mode} | {row['log_loss']:.4f} | {row['auc']:.4f} | {row['calibration']:.3f} | {told} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delay", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--hours", type=int, default=48, help="of the shop; a third warms up (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=11, help="of the shop (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all numbers here, as JSON")
    args = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="delay") as scratch:
        folder, settings = Path(scratch), shop(args.hours, args.seed)
        horizon, late = int(load(CONFIG).labels.horizon), round(settings.disorder_s * 1e6)
        chunks = revealed(Shop(settings).chunks(args.hours * HOUR_US), horizon, late)
        write_jsonl(folder / "events", chunks, seed=args.seed)
        for mode in args.methods:
            rows[mode] = run(mode, folder / "events", folder / mode)
            print(f"{mode}: {json.dumps(rows[mode])}", file=sys.stderr, flush=True)
    shares = gains(rows)
    if args.out is not None:
        args.out.write_text(json.dumps({"modes": rows, "R": shares}, indent=2) + "\n")
    print(table(rows, shares))
    return 0


if __name__ == "__main__":
    sys.exit(main())

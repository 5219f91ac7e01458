"""Protocol P2 (Monolith's Algorithm 1) on MovieLens 100K, by the worker's own loop.

    python -m benchmarks.ml100k [--wheel FILE] [--shards 10 100] [--out FILE]

The ratings come from the recbole wheel (GroupLens: research use, not redistributed here), fetched with pip unless
given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ONLINE = 28_572
CONFIG = Path(__file__).parent / "configs" / "ml100k.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="recbole-1.2.1-py3-none-any.whl")
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "ratings.jsonl"
        write_ratings(args.wheel or fetch(Path(folder)), events)
        rows = {str(n): learn(events, n, Path(folder) / str(n)) for n in args.shards}
    for shards, report in rows.items():
        print(f"N = {shards:>5}: AUC {report['auc']:.4f}, log loss {report['log_loss']:.4f} on {report['n']:,} ratings")
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


def fetch(folder: Path) -> Path:
    """The wheel, by pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), "recbole==1.2.1"]
    subprocess.run(command, check=True)
    return next(folder.glob("recbole-*.whl"))


def write_ratings(wheel: Path, events: Path) -> None:
    """Sorted by (time, user, item), one JSON object a line."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read("recbole/dataset_example/ml-100k/ml-100k.inter").decode().splitlines()[1:]
    rows = [tuple(int(float(value)) for value in line.split("\t")) for line in lines]
    rows.sort(key=lambda row: (row[3], row[0], row[1]))
    keys = ("user", "item", "rating", "time")
    events.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))


def learn(events: Path, shards: int, state: Path) -> dict[str, Any]:
    """The report of a back-test with the online part cut into `shards`."""
    config = state.with_suffix(".yaml")
    config.write_text(CONFIG.read_text().replace(f"{ONLINE}/100", f"{ONLINE}/{shards}"))
    report = state.with_suffix(".json")
    command = [sys.executable, "-m", "stream_learner", "backtest", "-c", str(config), "--events", str(events)]
    command += ["--state", str(state), "--report", str(report)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    content: dict[str, Any] = json.loads(report.read_text())
    return content


if __name__ == "__main__":
    main()

"""Protocol P2 (Monolith's Algorithm 1) on MovieLens 100K: its ratings, and the worker's own loop on them.

The ratings come from the recbole wheel (GroupLens: research use, not redistributed here), fetched with pip unless
given.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from benchmarks.datasets import learned

WARM, ONLINE = 71_428, 28_572
WARM_SIZE = 8  # events per slide of the warm part at the least
WARM_SHARDS = 10  # for N = 0, which is never learned: as if it were so many
CONFIG = Path(__file__).parent / "configs" / "ml100k.yaml"


def fetch(folder: Path) -> Path:
    """The wheel, by pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), "recbole==1.2.1"]
    subprocess.run(command, check=True)
    return next(folder.glob("recbole-*.whl"))


def ratings(wheel: Path) -> list[tuple[int, ...]]:
    """(user, item, rating, time), sorted by (time, user, item)."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read("recbole/dataset_example/ml-100k/ml-100k.inter").decode().splitlines()[1:]
    rows = [tuple(int(float(value)) for value in line.split("\t")) for line in lines]
    rows.sort(key=lambda row: (row[3], row[0], row[1]))
    return rows


def write_ratings(rows: list[tuple[int, ...]], events: Path) -> None:
    """One JSON object a line."""
    keys = ("user", "item", "rating", "time")
    events.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))


def learn(events: Path, shards: int, folder: Path) -> dict[str, Any]:
    """The report of a back-test with the online part cut into `shards`, `ONLINE` = every event alone.

    The warm part is cut alike, so that features are as fresh there as they will be, but never finer than `WARM_SIZE`.
    """
    folder.mkdir()
    config = folder / "config.yaml"
    warm = max(Fraction(ONLINE, max(shards, WARM_SHARDS)), Fraction(WARM_SIZE))
    content = yaml.safe_load(CONFIG.read_text())
    content["slides"]["by_count"] = {"first": WARM, "size": f"{ONLINE}/{shards}", "first_size": str(warm)}
    content["judging"]["span"] = {"after_slides": math.ceil(WARM / warm)}
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    return learned(["backtest", "-c", config, "--events", events], folder)

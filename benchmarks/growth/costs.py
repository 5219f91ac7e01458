"""The worker on the stream of `benchmarks.throughput`, from files, with one thing after the other made larger."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.datasets import PROGRAM
from benchmarks.throughput.configs import full
from benchmarks.throughput.stream import PARTITIONS, Stream

_NEVER = "3650d"
_WINDOWS = ["1h", "1d", "7d", "30m", "6h", "3d"]
_KEYS = ["user", "item", "category", "user*item"]


@dataclass(frozen=True)
class Case:
    """One run: a thing, how much of it there is, and what that changes in the config."""

    axis: str
    size: int
    changes: dict[str, dict[str, Any]]
    backlog: int = 1  # times the length of the stream


def cases() -> Iterator[Case]:
    """All of them; the plain config is in every axis."""
    for rows in (1_000_000, 5_000_000, 20_000_000):
        tables = {"user": {"table": "hashed", "rows": rows, "dim": 16}}
        yield Case("table rows", rows, {"features": {"ids": tables | {"item": {"rows": 300_000, "dim": 16}}}})
    for batch in (4096, 1024, 256):
        yield Case("batch", batch, {"learning": {"hidden": [128, 64], "batch_size": batch}})
    for kinds in (4, 2, 1):
        yield Case("keys aggregated", kinds, {"aggregates": {"keys": _KEYS[:kinds]}, "export": {"aggregates": []}})
    for windows in (3, 1, 6):
        yield Case("windows", windows, {"aggregates": {"windows": _WINDOWS[:windows]}})
    for times in (1, 2, 4):
        yield Case("backlog", times, {}, times)


def config(events: Path, case: Case) -> dict[str, Any]:
    """`full` with nothing published and no snapshots: those are written per version and slide, not per event."""
    whole = copy.deepcopy(full("", "events", "kafka-python"))
    whole |= {"source": {"kind": "files", "files": {"path": str(events)}}, "snapshot": {"interval": _NEVER}}
    whole["gate"] = {"mode": "non_inferior", "max_ne": 1.0, "min_examples": 10**12}
    for section, values in case.changes.items():
        whole[section] = whole.get(section, {}) | values
    return whole


class Streams:
    """Folders of the stream in several lengths, written when first asked for."""

    def __init__(self, folder: Path, events: int, per_second: float) -> None:
        self._folder, self._events, self._per_second = folder, events, per_second

    def of(self, times: int) -> Path:
        place = self._folder / str(times)
        if not place.exists():
            place.mkdir()
            with ExitStack() as stack:
                files = [stack.enter_context((place / f"{n}.jsonl").open("wb")) for n in range(PARTITIONS)]
                for partition, _, value in Stream(self._events * times, self._per_second).records():
                    files[partition].write(value + b"\n")
        return place


def run(case: Case, streams: Streams) -> dict[str, float]:
    """CPU-seconds per million events of one process, and its peak memory."""
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        folder, report = Path(name), Path(name) / "report.json"
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(config(streams.of(case.backlog), case) | {"state": str(folder / "state")}))
        command = [str(PROGRAM), "run", "-c", str(path), "--until-end", "--report", str(report)]
        quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
        if done.returncode:
            raise SystemExit(f"{case}: ended with {done.returncode}:\n{done.stderr[-3000:]}")
        found = json.loads(report.read_text())
    if found["pending"] or found["retraces"]:
        raise SystemExit(f"{case}: not all was learned, or a graph was built twice")
    cpu_s = found["learning_cpu_seconds"] / found["consumed"] * 1e6
    return {"cpu_s_per_million": cpu_s, "peak_rss_bytes": found["peak_rss_bytes"]}

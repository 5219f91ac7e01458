"""From SIGKILL to learning again, against the size of an embedding table.

    python -m benchmarks.restart [--rows 100000 1000000 5000000] [--kafka localhost:9092] [--out FILE]

A worker learns a simulated shop from Kafka, with a user table of so many rows by 16 and Adam's two slots beside it,
until its first snapshot stands, and is killed. More is written to the topic, the worker is started again, and its log
lines say how long it took:

    import     from the start of the process to its first line: Python, TensorFlow, the config
    restore    lease, models and graphs built, every checksum of the snapshot verified, the state put back
    seek       until the consumer is assigned and sought to the snapshot's offsets
    slide      until the first slide is learned

Wall times are this machine's; the split and its growth with the table are what travels.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import yaml

from benchmarks.datasets import PROGRAM, broker
from stream_learner.simulate import Shop, ShopEvents, ShopSettings, limited, produce_kafka

ROWS = (100_000, 1_000_000, 5_000_000)
PHASES = {
    "import": "metrics and health at",
    "restore": "restored the snapshot",
    "seek": "reading ",
    "slide": "slide closed",
}
_PARTITIONS, _SEED, _BEFORE, _EVENTS = 4, 5, 12_000, 24_000
_PATIENCE_S = 600.0


def config(rows: int, topic: str, bootstrap: str, state: Path) -> dict[str, Any]:
    """A shop's config whose user table has so many rows; nothing is published, so that only the snapshot counts."""
    names = {"user": "user_id", "item": "item_id", "time": "timestamp", "type": "event_type"}
    return {
        "state": str(state),
        "source": {"kind": "kafka", "kafka": {"bootstrap_servers": bootstrap, "group_id": topic}},
        "topics": {topic: {"fields": names, "time_format": "epoch_ms"}},
        "slides": {"slide": "5m", "allowed_lateness": "30s"},
        "aggregates": {"keys": ["user", "item"], "windows": ["1h"]},
        "labels": {"horizon": "30m"},
        "features": {
            "ids": {
                "user": {"table": "hashed", "rows": rows, "dim": 16},
                "item": {"table": "hashed", "rows": 4096, "dim": 16},
            }
        },
        "gate": {"interval": "30d", "min_examples": 1_000_000_000},
        "snapshot": {"interval": "20m", "least_pause": "0s", "keep": 2},
        "observing": {"port": 0, "log_format": "json"},
    }


def measure(rows: int, bootstrap: str, folder: Path) -> dict[str, Any]:
    """One table size: seconds by phase, snapshot bytes."""
    topic = f"restart-{rows}-{time.monotonic_ns()}"
    path, state = folder / "config.yaml", folder / "state"
    path.write_text(yaml.safe_dump(config(rows, topic, bootstrap, state)))
    events = ShopEvents.concat(
        [
            part
            for part in limited(Shop(ShopSettings(seed=_SEED, events_per_hour=12_000.0)).chunks(), _EVENTS)
            if len(part)
        ]
    )
    _produce(bootstrap, topic, events.take(slice(None, _BEFORE)))
    with _Life(path, folder / "first.log") as first:
        first.until(lambda: any((state / "snapshots").glob("slide-*")))
    _produce(bootstrap, topic, events.take(slice(_BEFORE, None)))
    with _Life(path, folder / "second.log") as second:
        second.until(lambda: second.moments().keys() >= PHASES.keys())
        seconds = second.split()
    newest = max((state / "snapshots").glob("slide-*"))
    size = sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())
    return {"rows": rows, "snapshot_bytes": size, **seconds, "total": sum(seconds.values())}


def _produce(bootstrap: str, topic: str, events: ShopEvents) -> None:
    produce_kafka(bootstrap, topic, [events], partitions=_PARTITIONS, seed=_SEED)


class _Life:
    """A worker from start to SIGKILL; its log is JSON lines."""

    def __init__(self, path: Path, log: Path) -> None:
        self._log = log
        self._began = time.time()  # the log's times are the wall clock's too
        with log.open("wb") as err:
            self._process = subprocess.Popen([str(PROGRAM), "run", "-c", str(path)], stderr=err)

    def until(self, happened: Any) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not happened():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the worker did not get there:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def moments(self) -> dict[str, float]:
        """When each phase ended, in seconds since the epoch; those that have."""
        found: dict[str, float] = {}
        for line in self._log.read_text().splitlines():
            if not line.startswith("{") or not line.endswith("}"):
                continue
            told = json.loads(line)
            for phase, text in PHASES.items():
                if told["message"].startswith(text):
                    found.setdefault(phase, datetime.fromisoformat(told["time"]).timestamp())
        return found

    def split(self) -> dict[str, float]:
        at = self.moments()
        ends = [self._began, *(at[phase] for phase in PHASES)]
        return {phase: ends[n + 1] - ends[n] for n, phase in enumerate(PHASES)}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown, a line a table size."""
    names = (*PHASES, "total")
    lines = [
        f"| rows x 16 | snapshot, MB | {' | '.join(f'{name}, s' for name in names)} |",
        "|---" * (len(names) + 2) + "|",
    ]
    for result in results:
        cells = " | ".join(f"{result[name]:.1f}" for name in names)
        lines.append(f"| {result['rows']:,} | {result['snapshot_bytes'] / 1e6:,.0f} | {cells} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restart", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=ROWS, help="rows of the user table (default: %(default)s)"
    )
    parser.add_argument("--kafka", metavar="BOOTSTRAP", help="a running broker; default: one is started")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures here, as JSON")
    args = parser.parse_args()
    results = []
    with broker(args.kafka) as bootstrap:
        if bootstrap is None:
            return 1
        for rows in args.rows:
            with tempfile.TemporaryDirectory(prefix="restart-") as folder:
                results.append(measure(rows, bootstrap, Path(folder)))
                print(json.dumps(results[-1]), flush=True)
    print(table(results))
    if args.out is not None:
        args.out.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

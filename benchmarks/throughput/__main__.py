"""CPU-seconds per million events, from Kafka to learned: the worker, whole and with each stage off, and the usual ways.

    python -m benchmarks.throughput [--quick] [--events N] [--rounds N] [--only full bare] [--kafka localhost:9092]
                                    [--out FILE] [--picture FILE]

One synthetic stream (`stream.py`) in Apache Kafka is read by one process after the other, round by round, so that a
busy neighbour strikes all alike; the median of the rounds counts. Measured is the reading process alone, from its
first record to its last slide: imports, graph building, broker and producer are left out. The worker's figure holds
everything else, publishing and snapshots of its writer thread too. Slow peers read the first part of the topic only.
All read with kafka-python, but those named `<name>_confluent`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.datasets import PROGRAM, broker
from benchmarks.throughput.configs import variants, with_state
from benchmarks.throughput.stream import Stream
from benchmarks.throughput.table import markdown, picture

PEERS = ("poll_decode", "vw", "river", "tutorial_loop")
CONFLUENT = "_confluent"
BY_CONFLUENT = tuple(f"{name}{CONFLUENT}" for name in ("poll_decode", "bare", "full"))
OFTEN = ("full", "bare", "poll_decode")  # in every round of the quick form too; the others in one
SLOWEST = "tutorial_loop"
_QUICK_EVENTS, _QUICK_PER_SECOND, _QUICK_ROUNDS = 400_000, 333.0, 3
_EVENTS, _PER_SECOND, _ROUNDS = 5_000_000, 700.0, 5
_SLOW_EVENTS = 50_000  # that the slowest peer reads in the quick form, five times as many in the whole one


@dataclass
class Bench:
    """One topic, and what has been measured on it."""

    bootstrap: str
    topic: str
    records: int
    slow_records: int
    results: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def run(self, name: str) -> None:
        """One process."""
        client = "confluent" if name.endswith(CONFLUENT) else "kafka-python"
        read = self._peer if name.removesuffix(CONFLUENT) in PEERS else self._worker
        measured = read(name.removesuffix(CONFLUENT), client)
        self.results.setdefault(name, []).append(measured)
        print(f"{name}: {measured['cpu_seconds'] / measured['events'] * 1e6:.1f}", flush=True)

    def _peer(self, name: str, client: str) -> dict[str, float]:
        records = self.slow_records if name == SLOWEST else self.records
        where = ["--kafka", self.bootstrap, "--topic", self.topic, "--events", str(records), "--client", client]
        command = [sys.executable, "-m", "benchmarks.throughput.loops", name, *where]
        found: dict[str, float] = json.loads(_run(command).splitlines()[-1])
        return found

    def _worker(self, name: str, client: str) -> dict[str, float]:
        folder = Path(tempfile.mkdtemp(prefix="throughput-"))
        try:
            path, report = folder / "config.yaml", folder / "report.json"
            config = variants(self.bootstrap, self.topic, client)[name]
            path.write_text(yaml.safe_dump(with_state(config, folder)))
            _run([str(PROGRAM), "run", "-c", str(path), "--until-end", "--report", str(report)])
            found = json.loads(report.read_text())
        finally:
            shutil.rmtree(folder)
        if found["consumed"] != self.records or found["pending"] or found["retraces"]:
            raise SystemExit(f"{name}: not all was learned, or a graph was built twice: {found}")
        return {
            "events": found["consumed"],
            "cpu_seconds": found["learning_cpu_seconds"],
            "wall_seconds": found["learning_wall_seconds"],
            "peak_rss_bytes": found["peak_rss_bytes"],
            "versions": len(found["versions"]),
        }

    def report(self) -> dict[str, Any]:
        """Medians, and ratios to what stands beside them."""
        cpu = {name: self._median(name, lambda r: r["cpu_seconds"] / r["events"] * 1e6) for name in self.results}
        pairs = [("full", "poll_decode"), ("bare", "poll_decode"), ("tutorial_loop", "full"), ("vw", "bare")]
        pairs += [(name, name.removesuffix(CONFLUENT)) for name in BY_CONFLUENT]
        return {
            "events": self.records,
            "rounds": {name: len(found) for name, found in self.results.items()},
            "cpu_s_per_million": cpu,
            "events_per_second": {n: self._median(n, lambda r: r["events"] / r["wall_seconds"]) for n in self.results},
            "peak_rss_bytes": {name: self._median(name, lambda r: r["peak_rss_bytes"]) for name in self.results},
            "versions": {n: int(found[0]["versions"]) for n, found in self.results.items() if "versions" in found[0]},
            "ratios": {f"{a}/{b}": cpu[a] / cpu[b] for a, b in pairs if a in cpu and b in cpu},
            "load_average": os.getloadavg()[2],
        }

    def _median(self, name: str, measure: Any) -> float:
        return statistics.median(measure(result) for result in self.results[name])


def _run(command: list[str]) -> str:
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def schedule(names: list[str], rounds: int, *, quick: bool) -> Iterator[str]:
    """What runs after what; in the quick form most run once."""
    for number in range(rounds):
        yield from (name for name in names if not quick or number == 0 or name in OFTEN)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_EVENTS:,} events, {_QUICK_ROUNDS} rounds")
    parser.add_argument("--events", type=int, help="length of the stream")
    parser.add_argument("--per-second", type=float, help="events per second of event time")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these alone")
    parser.add_argument("--kafka", metavar="BOOTSTRAP", help="a running broker; default: one is started")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures here, as JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw them here, as PNG or SVG")
    args = parser.parse_args()
    quick = args.quick
    stream = Stream(
        args.events or (_QUICK_EVENTS if quick else _EVENTS),
        args.per_second or (_QUICK_PER_SECOND if quick else _PER_SECOND),
    )
    slow = min(stream.events, _SLOW_EVENTS * (1 if quick else 5))
    with broker(args.kafka) as bootstrap:
        if bootstrap is None:
            return 1
        topic = f"throughput-{os.getpid()}"
        bench = Bench(bootstrap, topic, stream.produce(bootstrap, topic), slow)
        names = args.only or [*PEERS, *BY_CONFLUENT, *variants(bootstrap, topic, "kafka-python")]
        for name in schedule(names, args.rounds or (_QUICK_ROUNDS if quick else _ROUNDS), quick=quick):
            bench.run(name)
    report = bench.report()
    print(markdown(report))
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=2) + "\n")
    if args.picture is not None:
        picture(report, args.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())

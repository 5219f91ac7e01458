"""What an event costs as everything around it grows, and the bytes of an id, a key, a pending example, a replay row.

    python -m benchmarks.growth [--quick] [--only "table rows" batch ..] [--out FILE]

Costs: the worker of `benchmarks.throughput` on its stream from files, without versions and snapshots, with one thing
after the other made larger; CPU-seconds per million events of that process from its first record to its last slide,
medians of the rounds, beside the plain config's. `keys held`: the aggregates alone, with so many users in their state.
Memory: each part of the state in a process of its own, filled, resident bytes by things held, beside README's formula.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.growth.costs import Streams, cases, run
from benchmarks.throughput.stream import HORIZON_S

HELD = {"ids": 5_000_000, "keys": 1 << 22, "pending": 2_000_000, "replay": 2_000_000}
KEYS_HELD = (1 << 17, 1 << 20, 1 << 22)  # powers of two fill what has been grown ahead
_EVENTS, _QUICK_EVENTS = 600_000, 200_000
_HORIZONS = 3  # of event time in the shortest stream: what matures mixes with replayed rows from the second on
_ROUNDS = 3
_FAR = 0.15  # formula against measured

Costs = dict[str, dict[int, list[float]]]


def part(name: str, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.growth.parts", name, str(count)]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        raise SystemExit(f"{name} {count} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def costs(streams: Streams, rounds: int, only: Iterable[str]) -> Costs:
    """CPU-seconds per million events of every run, by axis and size, round by round."""
    found: Costs = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for case in cases():
            if case.axis in only:
                measured = run(case, streams)
                found[case.axis][case.size].append(measured["cpu_s_per_million"])
                peak = measured["peak_rss_bytes"] / 1e6
                print(f"{case.axis} {case.size:,}: {measured['cpu_s_per_million']:.1f}, {peak:,.0f} MB", flush=True)
        for count in KEYS_HELD if "keys held" in only else ():
            found["keys held"][count].append(part("keys", count)["cpu_s_per_million"])
            print(f"keys held {count:,}: {found['keys held'][count][-1]:.2f}", flush=True)
    return found


def markdown(report: dict[str, Any]) -> str:
    lines = ["| grows | CPU-s per million events at each size |", "|---|---|"]
    for axis, sizes in report["cpu_s_per_million"].items():
        lines.append(f"| {axis} | {', '.join(f'{int(size):,}: {cost:.1f}' for size, cost in sizes.items())} |")
    lines += ["", "| held | bytes by formula | measured | formula / measured |", "|---|---|---|---|"]
    for name, one in report["bytes"].items():
        ratio = one["formula"] / one["bytes_each"]
        lines.append(f"| {name} | {one['formula']:.0f} | {one['bytes_each']:.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> int:
    axes = list(dict.fromkeys([*(case.axis for case in cases()), "keys held", "memory"]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"one round of {_QUICK_EVENTS:,} events")
    parser.add_argument("--only", nargs="+", choices=axes, default=axes, metavar="AXIS", help=", ".join(axes))
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures here, as JSON")
    args = parser.parse_args()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        events = _QUICK_EVENTS if args.quick else _EVENTS
        streams = Streams(Path(folder), events, events / _HORIZONS / HORIZON_S)
        found = costs(streams, 1 if args.quick else _ROUNDS, args.only)
    report["cpu_s_per_million"] = {
        axis: {size: statistics.median(runs) for size, runs in sizes.items()} for axis, sizes in found.items()
    }
    report["bytes"] = {name: part(name, count) for name, count in HELD.items()} if "memory" in args.only else {}
    report["load_average"] = os.getloadavg()[2]
    print(markdown(report))
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=2) + "\n")
    far = [n for n, one in report["bytes"].items() if abs(one["formula"] / one["bytes_each"] - 1) > _FAR]
    if far:
        print(f"the formula is off by more than {_FAR:.0%}: {', '.join(far)}")
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())

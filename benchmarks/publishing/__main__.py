"""What publishing every minute costs at large tables, and what following costs a server.

python -m benchmarks.publishing [--quick] [--rows 5000000] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.publishing.worker import MODEL, configured, measure

_ZIPF = 1.2
_VERSIONS = 12  # for the follower


def following(folder: Path, pause_s: float) -> dict[str, Any]:
    """Measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.publishing.follower", str(folder), "--pause", str(pause_s)]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publishing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="rounds of 15 s instead of 60")
    parser.add_argument("--rows", type=int, default=5_000_000, help="of all embedding tables")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures here, as JSON")
    args = parser.parse_args()
    round_s, rounds, pause_s = (15.0, 3, 0.5) if args.quick else (60.0, 4, 1.0)
    with tempfile.TemporaryDirectory(prefix="publishing-") as name:
        state = Path(name)
        worker = measure(configured(args.rows, state), _ZIPF, round_s, rounds, _VERSIONS)
        report = {"worker": worker, "follower": following(state / "checkpoints" / MODEL, pause_s)}
    report["delta_over_version_bytes"] = report["follower"]["delta_bytes"] / report["follower"]["version_bytes"]
    report["load_average"] = os.getloadavg()[2]
    print(table(report))
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def table(report: dict[str, Any]) -> str:
    lines = ["| | |", "|---|---|"]
    for part in ("worker", "follower"):
        for name, value in report[part].items():
            shown = f"{value:,.3f}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
            lines.append(f"| {part}: {name.replace('_', ' ')} | {shown} |")
    return "\n".join([*lines, f"| delta, of a version's bytes | {report['delta_over_version_bytes']:.3f} |"])


if __name__ == "__main__":
    sys.exit(main())

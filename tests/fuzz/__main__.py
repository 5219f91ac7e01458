"""`python -m tests.fuzz`: a million bad inputs; exit 1 when one of them met no fate."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .runner import Campaign
from .targets import TARGETS


def main() -> int:
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--only", default=",".join(names), metavar="NAMES", help=f"some of {', '.join(names)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), metavar="DIR", help="for crashing inputs")
    args = parser.parse_args()
    wanted = args.only.split(",")
    if not set(wanted) <= set(names):
        parser.error(f"--only {args.only}: known are {', '.join(names)}")
    targets = tuple(target for target in TARGETS if target.name in wanted)
    campaign = Campaign(targets, args.inputs, args.seed, args.jobs, args.out)
    campaign.run()
    if campaign.crashes or campaign.hangs:
        print(f"inputs that met no fate lie in {args.out}; again with --seed {args.seed}")
    print(
        f"inputs={campaign.done} crashes={campaign.crashes} hangs={campaign.hangs} "
        f"peak_rss_bytes={campaign.peak_rss_bytes}"
    )
    return 1 if campaign.crashes or campaign.hangs else 0


if __name__ == "__main__":
    sys.exit(main())

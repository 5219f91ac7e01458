"""Whether replay earns its place: on a season that comes back, on real data, and by what a draw costs.

    python -m benchmarks.replay [--out r.json] [--seeds 3] [--data ../shared/data] [--parts season,tmall,draws]

`season` (benchmarks/seasons.py) and `tmall` (benchmarks/tmall_replay.py): each policy beside no replay, no replay with
every example learned twice, dropout, and retraining from scratch on everything. `draws` (benchmarks/replay_draws.py).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

TMALL = "alibaba_tmall_2014/events.parquet"
PARTS = ("season", "tmall", "draws")


def averaged(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: mean(row[name] for row in rows) for name in rows[0]}


def season(seeds: int) -> dict[str, dict[str, float]]:
    from benchmarks import seasons

    rows = {method: averaged([seasons.run(method, seed) for seed in range(seeds)]) for method in seasons.METHODS}
    none = rows["none"]
    for row in rows.values():
        row |= {"drop_of_none": row["drop"] / none["drop"], "new_against_none": row["new"] / none["new"] - 1}
    return rows | {"the truth": {"old_before": mean(seasons.least(seed) for seed in range(seeds))}}


def tmall(data: Path, seeds: int) -> dict[str, dict[str, float]]:
    from benchmarks import seasons, tmall_replay

    if not (data / TMALL).is_file():
        print(f"tmall: not run, {data / TMALL} is not there", flush=True)
        return {}
    batch, days = tmall_replay.examples(data / TMALL)
    return {
        method: averaged([tmall_replay.run(method, seed, batch, days) for seed in range(seeds)])
        for method in seasons.METHODS
    }


def draws(rows: int) -> dict[str, dict[str, float]]:
    from benchmarks import replay_draws

    return replay_draws.measured(rows)


def shown(part: str, rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table."""
    names = list(next(iter(rows.values())))
    lines = [f"| {part} | {' | '.join(name.replace('_', ' ') for name in names)} |", "|---" * (1 + len(names)) + "|"]
    for name, row in rows.items():
        cells = [("-" if key not in row else f"{row[key]:,.4g}") for key in names]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figures as JSON")
    parser.add_argument("--seeds", type=int, default=3, help="shops, and first weights (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--rows", type=int, default=10_000_000, help="in the buffer drawn from (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), metavar="A,B", help="default: %(default)s")
    args = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    logging.disable(logging.INFO)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "season": lambda: season(args.seeds),
        "tmall": lambda: tmall(args.data, args.seeds),
        "draws": lambda: draws(args.rows),
    }
    content: dict[str, Any] = {}
    for part in args.parts.split(","):
        if rows := ways[part]():
            content[part] = rows
            print(f"\n{shown(part, rows)}", flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

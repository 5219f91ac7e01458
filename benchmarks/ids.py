"""What sharing rows costs: hashed tables of many sizes against exact ones, with admission and expiry.

    python -m benchmarks.ids [--out i.json] [--seeds 3]

A shop of 5,000 users and 1,000 items, 20 of them new every hour, learned for 36 hours; every half-hour's clicks are
scored before they are learned, and judged from hour 12 on against their true purchase probability (NE; the truth itself
has `least`). `megabytes`: the tables of users and items with their optimizer slots.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

METHODS = {
    "exact": "table: exact, rows: 8192",
    "exact, from the 3rd sighting": "table: exact, rows: 8192, admit_after: 3",
    "exact, 2,048 rows, first come": "table: exact, rows: 2048",
    "exact, 2,048 rows, expiry after 6 h": "table: exact, rows: 2048, expire_after: 6h",
    "exact, 2,048 rows, both": "table: exact, rows: 2048, admit_after: 3, expire_after: 6h",
    **{f"hashed, {rows:,} rows": f"rows: {rows}" for rows in (65536, 8192, 2048, 512, 64)},
}
HOURS, JUDGED_FROM_H, EVENTS_PER_HOUR = 36, 12, 5000

CONFIG = """
seed: {seed}
topics: {{events: {{categorical: {{category: c, source: s}}, numeric: {{price: p, truth: t}}}}}}
aggregates: {{keys: []}}
export: {{aggregates: []}}
features:
  ids: {{user: {{dim: 8, {keys}}}, item: {{dim: 8, {keys}}}, source: {{rows: 64, dim: 4}}}}
  numeric: {{price: {{transform: log1p}}}}
learning: {{batch_size: 256, learning_rate: 0.003}}
"""


def run(keys: str, seed: int) -> dict[str, float]:
    from benchmarks.seasons import SLIDE_US, expected_losses, labelled_clicks
    from stream_learner.config import event_schema, parse
    from stream_learner.learning.features import feature_schema
    from stream_learner.learning.learner import Learner
    from stream_learner.learning.replay import Replay
    from stream_learner.simulate.shop import Shop, ShopEvents
    from stream_learner.simulate.world import HOUR_US, ShopSettings

    config = parse(CONFIG.format(seed=seed, keys=keys))
    settings = ShopSettings(
        seed=seed, users=5000, items=1000, new_items_per_hour=20, conversion=0.2, events_per_hour=EVENTS_PER_HOUR
    )
    clicks = labelled_clicks(ShopEvents.concat(list(Shop(settings).chunks(HOURS * HOUR_US))))
    learner = Learner(config, feature_schema(config, event_schema(config), []))
    cuts = np.searchsorted(clicks.time, np.arange(settings.start, settings.start + HOURS * HOUR_US + 1, SLIDE_US))
    losses, truth, least = [], [], []
    for slide, (begin, end) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
        batch = clicks.take(slice(begin, end))
        if slide * SLIDE_US >= JUDGED_FROM_H * HOUR_US:
            true = batch.numbers[:, 1].astype(np.float64)
            losses.append(expected_losses(learner.score(batch), batch))
            least.append(expected_losses(np.log(true / (1 - true)).astype(np.float32), batch))
            truth.append(true)
        learner.learn(batch, Replay(0, 0), slide)
    rate = float(np.concatenate(truth).mean())
    entropy = float(-rate * np.log(rate) - (1 - rate) * np.log(1 - rate))
    held = [np.prod(learner.candidate.tables[name].shape) * 4 * 3 for name in ("user", "item")]  # Adam: two slots
    return {
        "normalized_entropy": float(np.concatenate(losses).mean()) / entropy,
        "least": float(np.concatenate(least).mean()) / entropy,
        "megabytes": float(sum(held)) / 1e6,
        "ids_with_a_row": float(sum(len(table.ids) for table in learner.ids.values())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ids", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figures as JSON")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    logging.disable(logging.INFO)
    content: dict[str, Any] = {}
    for method, keys in METHODS.items():
        rows = [run(keys, seed) for seed in range(args.seeds)]
        content[method] = {name: mean(row[name] for row in rows) for name in rows[0]}
        row = content[method]
        print(
            f"| {method} | {row['normalized_entropy']:.4f} | {row['megabytes']:.2f} | {row['ids_with_a_row']:,.0f} |",
            flush=True,
        )
        if args.out is not None:
            args.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

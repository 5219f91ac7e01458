"""Whether a fine-tuned network keeps the ability to learn: hundreds of task changes, with and without renewals.

    python -m benchmarks.plasticity [--out p.json] [--tasks 500] [--seeds 2]

Each task takes scikit-learn's handwritten digits (64 pixels), shuffles the pixels, and asks for a new random half of
the ten digits. A task's 400 images are learned in 5 passes; what counts is the log loss on them afterwards, in nats,
mean over the first and the last tenth of the tasks: a learner that stays able to learn is as good at the end.
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
from sklearn.datasets import load_digits

PIXELS, IMAGES, PASSES = 64, 400, 5

METHODS = {
    "fine-tuned": "",
    "shrink and perturb": "plasticity: {every: 400, shrink: 0.9, perturb: 0.1}",
    "dormant units renewed": "plasticity: {every: 400, dormant: 0.025}",
    "l2": "optimizer: adamw, l2: 1.0",
}


def tasks(count: int, seed: int) -> Any:
    """(pixels [n, 64], labels [n]) of one task after the other."""
    digits = load_digits()
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows = rng.permutation(len(digits.target))[:IMAGES]
        half = rng.permutation(10)[:5]
        pixels = digits.data[rows][:, rng.permutation(PIXELS)]
        yield pixels.astype(np.float32), np.isin(digits.target[rows], half).astype(np.float32)


def run(method: str, count: int, seed: int) -> dict[str, float]:
    from stream_learner.config import event_schema, parse
    from stream_learner.events import ExampleBatch
    from stream_learner.learning.features import feature_schema
    from stream_learner.learning.learner import Learner
    from stream_learner.learning.replay import Replay

    numeric = ", ".join(f"x{i}: x{i}" for i in range(PIXELS))
    config = parse(
        f"seed: {seed}\ntopics: {{digits: {{numeric: {{{numeric}}}}}}}\naggregates: {{keys: []}}\n"
        "export: {aggregates: []}\nfeatures: {ids: {}, day_of_week: false, hour_of_day: false}\n"
        f"learning: {{hidden: [32, 32], batch_size: 40, passes: {PASSES}, learning_rate: 0.01, {METHODS[method]}}}\n"
    )
    features = feature_schema(config, event_schema(config), [])
    learner, losses = Learner(config, features), []
    for number, (pixels, labels) in enumerate(tasks(count, seed)):
        batch = ExampleBatch.unscored(
            time=np.full(len(labels), number), ids=np.zeros((len(labels), 3), np.uint64), numbers=pixels, label=labels
        )
        learner.learn(batch, Replay(0, 0), number)
        z = learner.score(batch).astype(np.float64)
        losses.append(float((np.logaddexp(0, z) - labels * z).mean()))
    tenth, last = max(count // 10, 1), learner.condition()
    assert last is not None
    return {
        "first_tasks": mean(losses[:tenth]),
        "last_tasks": mean(losses[-tenth:]),
        "dormant_units": last.dormant,
        "effective_rank": last.effective_rank,
        "weight_norm": last.weight_norm,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plasticity", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figures as JSON")
    parser.add_argument("--tasks", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--methods", default="", metavar="A,B", help="only these")
    args = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    logging.disable(logging.INFO)
    content: dict[str, dict[str, float]] = {}
    for method in args.methods.split(",") if args.methods else METHODS:
        rows = [run(method, args.tasks, seed) for seed in range(args.seeds)]
        content[method] = {name: mean(row[name] for row in rows) for name in rows[0]}
        cells = " | ".join(f"{value:.3f}" for value in content[method].values())
        print(f"| {method} | {cells} |", flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What the gate promises, measured: false publishing under continuous looks, and the price of that for real gains.

Mode `superior`. The naive rule publishes when the mean is better, `repeated_z` when a one-sided z-test at alpha says so
at any look. `type_1_skewed` makes it hard for sums: the candidate predicts too low and the champion too high, equally
bad, so that the candidate gains a little on every negative and loses much on the rare positives.

    python -m benchmarks.gate [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from stream_learner.judging.checks import asked_gain
from stream_learner.judging.metrics import finite_or_none
from stream_learner.judging.rehearsal import Pool, Schedule, World, looks_for, published, rehearse
from stream_learner.settings import Gate

ALPHA = 0.05
RULE = Gate(mode="superior", alpha=ALPHA)
BASE_RATES = (0.002, 0.03, 0.2)
GAINS = (0.01, 0.005, 0.002)
APART = 0.3  # spread of the difference of the two models' logits
LEAN = 0.25  # logits by which the skewed pair is off, each to its side
EVENING_OUT = Schedule(runs=1000, looks=48, examples_per_look=2000)
POWER_RUNS, POWER_LOOKS = 400, 160
POWER_RATE = 0.03
SEED = 20261124


def even(base_rate: float) -> Pool:
    return Pool.made_up(base_rate, APART, SEED)


def skewed(base_rate: float) -> Pool:
    pool = even(base_rate)
    return Pool(pool.candidate - LEAN, pool.champion + LEAN, base_rate)


def type_1(pool: Callable[[float], Pool], base_rate: float) -> dict[str, float]:
    """Share of runs in which each rule published one of two equal models as the better."""
    world = World.of(pool(base_rate), base_rate, 0.0)
    gate, rivals = rehearse(world, EVENING_OUT, ALPHA, {"gate": asked_gain(RULE)}, SEED)
    return {name: published(first) for name, first in {**gate, **rivals}.items()}


def power(gain: float) -> dict[str, float]:
    """Examples by which half and 80 % of the runs had published a candidate of this true NE gain, and the number a
    test looking once needs for the latter."""
    world = World.of(even(POWER_RATE), POWER_RATE, gain)
    fixed = world.fixed_sample(ALPHA, asked_gain(RULE))
    schedule = Schedule(POWER_RUNS, POWER_LOOKS, max(1, round(fixed / 32)))
    gate, _ = rehearse(world, schedule, ALPHA, {"gate": asked_gain(RULE)}, SEED)
    median, most = (looks_for(gate["gate"], share) * schedule.examples_per_look for share in (0.5, 0.8))
    return {
        "gate_median_examples": median,
        "gate_p80_examples": most,
        "fixed_sample_p80_examples": math.ceil(fixed),
        "p80_ratio": most / fixed,
        "published": published(gate["gate"]),
    }


def measure() -> dict[str, Any]:
    with ProcessPoolExecutor(2) as processes:
        chances = {
            name: {rate: processes.submit(type_1, pool, rate) for rate in BASE_RATES}
            for name, pool in (("type_1", even), ("type_1_skewed", skewed))
        }
        powers = {str(gain): processes.submit(power, gain) for gain in GAINS}
        content: dict[str, Any] = {
            name: {
                rule: {str(rate): waited.result()[rule] for rate, waited in by_rate.items()}
                for rule in ("gate", "naive", "repeated_z")
            }
            for name, by_rate in chances.items()
        }
        content["power"] = {gain: waited.result() for gain, waited in powers.items()}
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description="The gate's false and missed publishing.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figures, as JSON")
    args = parser.parse_args()
    text = json.dumps(finite_or_none(measure()), indent=2)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What judging costs: its share of the worker's CPU time at 100,000 examples a slide.

    python -m benchmarks.judging [--out FILE] [--slides 12]

A worker learns a simulated shop with the default sections of the config. CPU seconds of the loop's thread are taken
around every call of the judge, and around the export of its metrics; those of all threads around the slide, for steps
of training run on several. Scoring by the models is the learner's and is not judging.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stream_learner import config as configs
from stream_learner.judging.baselines import Baselines
from stream_learner.judging.canary import Canary
from stream_learner.judging.judge import Judge
from stream_learner.judging.slices import Slices
from stream_learner.observing.metrics import WorkerMetrics
from stream_learner.running import run
from stream_learner.simulate.outputs import write_jsonl
from stream_learner.simulate.shop import Shop
from stream_learner.simulate.world import HOUR_US, ShopSettings
from stream_learner.worker import Worker

EXAMPLES_PER_SLIDE = 100_000
SLIDES_PER_HOUR = 6
JUDGING: dict[type, tuple[str, ...]] = {
    Judge: ("arrived", "matured", "verdict", "evidence", "drift_numbers"),
    Slices: ("arrive",),
    Baselines: ("score",),
    Canary: ("arrived", "matured", "judge"),
    WorkerMetrics: ("closed",),
}
CONFIG = """
name: conversion
state: {folder}/state
source: {{kind: files, files: {{path: {folder}/events}}}}
topics:
  events:
    fields: {{user: user_id, item: item_id, time: timestamp, type: event_type, session: session_id}}
    time_format: epoch_ms
    categorical: {{category: category, source: source}}
    numeric: {{price: price}}
slides: {{slide: 10m, allowed_lateness: 30s}}
labels: {{horizon: 30m}}
features:
  ids:
    user: {{table: hashed, rows: 65536, dim: 8}}
    item: {{table: exact, rows: 8192, dim: 8}}
judging: {{slices: [new_user, new_item, source]}}
gate: {{mode: always, interval: 10m}}
"""


def timed(
    spent: Counter[str], stage: str, method: Callable[..., Any], clock: Callable[[], float] = time.thread_time
) -> Callable[..., Any]:
    """The same method; its CPU seconds by `clock` are counted. No two of the judge's call each other."""

    def call(*arguments: Any, **named: Any) -> Any:
        began = clock()
        result = method(*arguments, **named)
        spent[stage] += clock() - began
        return result

    return call


def measure(slides: int) -> dict[str, float]:
    """CPU seconds by part of the judge, `judging`, `slides` (all of run_slide, scoring included) and `share`."""
    spent: Counter[str] = Counter()
    for owner, names in JUDGING.items():
        for name in names:
            setattr(owner, name, timed(spent, f"{owner.__name__.lower()}.{name}", getattr(owner, name)))
    setattr(Worker, "run_slide", timed(spent, "slides", Worker.run_slide, time.process_time))  # noqa: B010
    with tempfile.TemporaryDirectory() as folder:
        settings = ShopSettings(events_per_hour=1.04 * SLIDES_PER_HOUR * EXAMPLES_PER_SLIDE / 0.8)
        write_jsonl(Path(folder) / "events", Shop(settings).chunks(slides * HOUR_US // SLIDES_PER_HOUR))
        report = run(configs.parse(CONFIG.format(folder=folder)), until_end=True)
    total = spent.pop("slides")
    judging = sum(spent.values())
    per_slide = report["examples"] / report["slides"]
    return {**spent, "judging": judging, "slides": total, "share": judging / total, "examples_per_slide": per_slide}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="the figures as JSON")
    parser.add_argument("--slides", type=int, default=12, help="of ten minutes (default: %(default)s)")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    found = measure(arguments.slides)
    for part, value in found.items():
        print(f"{part:24} {value:12,.3f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What it costs to draw a batch from a large replay buffer, beside numpy's own ways to take random rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from stream_learner.events import ExampleBatch
from stream_learner.learning.replay import Replay
from stream_learner.learning.replay.policy import Policy
from stream_learner.learning.replay.prioritised import Prioritised
from stream_learner.learning.replay.stratified import Stratified
from stream_learner.learning.replay.time_biased import TimeBiased
from stream_learner.learning.replay.uniform import Dark, Uniform

NUMBERS, DRAWN, TIMES = 40, 4096, 60
_CHUNK = 500_000

POLICIES: dict[str, Callable[[], Policy]] = {
    "uniform": Uniform,
    "time_biased": lambda: TimeBiased(10**15),
    "stratified": lambda: Stratified(None, 1.0),
    "prioritised": lambda: Prioritised(0.6, 1.0),
    "dark": lambda: Dark(0.5),
}


def filled(policy: Policy, rows: int) -> Replay:
    """A full buffer of `rows` examples of 40 numbers, 3 ids, a time and a label each."""
    replay, rng = Replay(rows, 0, policy), np.random.default_rng(0)
    numbers = rng.random((_CHUNK, NUMBERS), dtype=np.float32)
    for slide, start in enumerate(range(0, rows, _CHUNK)):
        count = min(_CHUNK, rows - start)
        examples = ExampleBatch.unscored(
            time=np.arange(start, start + count),
            ids=rng.integers(1, 2**63, (count, 3)).astype(np.uint64),
            numbers=numbers[:count],
            label=(rng.random(count) < 0.03).astype(np.float32),
        )
        replay.add(examples, slide, rng.standard_normal((count, 1), dtype=np.float32))
    return replay


def measured(rows: int) -> dict[str, Any]:
    """Per policy the median milliseconds of a draw of 4,096 rows, and of the two plain ways in the same run."""
    content: dict[str, Any] = {}
    for name, make in POLICIES.items():
        replay = filled(make(), rows)
        columns = list(replay.columns.values())
        steps = iter(range(10**9))
        first = timed(lambda: replay.draw(DRAWN, 10_001, next(steps)), 1)  # noqa: B023
        ways = {
            "draw": lambda: replay.draw(DRAWN, 10_001, next(steps)),  # noqa: B023
            "np.take": lambda: [np.take(c, rows_of(len(replay), next(steps)), axis=0) for c in columns],  # noqa: B023
            "index": lambda: [c[rows_of(len(replay), next(steps))] for c in columns],  # noqa: B023
        }
        content[name] = {way: timed(action, TIMES) for way, action in ways.items()}
        content[name] |= {"first_of_a_slide": first, "megabytes": replay.size_bytes / 1e6, "rows": len(replay)}
    return content


def rows_of(height: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(0, height, DRAWN)


def timed(action: Callable[[], Any], times: int) -> float:
    """Median milliseconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return 1e3 * median(seconds)

"""What a run has to show: one JSON object, from the state of the worker and the operating system's accounting."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

from stream_learner.durable import write_file
from stream_learner.judging.baselines import BASELINES
from stream_learner.judging.metrics import finite_or_none
from stream_learner.worker import Worker


class Stopwatch:
    """Resources of this process: monotonic seconds, CPU seconds of all threads, peak memory. The time spent learning
    is that from `reading`, when all graphs have been built, to `learned`, when the last slide is durable."""

    def __init__(self) -> None:
        self._started = self._reading = self._learned = _now()

    def reading(self) -> None:
        self._reading = self._learned = _now()

    def learned(self) -> None:
        self._learned = _now()

    def read(self) -> dict[str, float]:
        now = _now()
        return {
            "wall_seconds": now.wall_s - self._started.wall_s,
            "cpu_seconds": now.cpu_s - self._started.cpu_s,
            "learning_wall_seconds": self._learned.wall_s - self._reading.wall_s,
            "learning_cpu_seconds": self._learned.cpu_s - self._reading.cpu_s,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


class _Moment(NamedTuple):
    wall_s: float
    cpu_s: float


def _now() -> _Moment:
    return _Moment(time.monotonic(), time.process_time())


def report(worker: Worker, watch: Stopwatch, events_before: int) -> dict[str, Any]:
    """Counts and lifetime metrics of the state (all runs on it); rates and resources of this run.

    `auc` and its neighbours are the candidate's at arrival, over `judging.span`; `events` are the accepted ones.
    """
    tally, judge, used = worker.tally, worker.judge, watch.read()
    candidate = judge.board.lifetime("candidate")
    content: dict[str, Any] = {
        "events": tally.accepted,
        "consumed": tally.consumed,
        "ignored": tally.ignored,
        "duplicates": tally.duplicate,
        "late": tally.late,
        "quarantined": tally.quarantined,
        "dead_letters": tally.dead,
        "dead_letter_reasons": dict(sorted(tally.reasons.items())),
        "skipped": tally.skipped,
        "gaps": tally.gaps,
        "open": len(worker.intake.slides),
        "examples": tally.examples,
        "matured": tally.matured,
        "positives": tally.positives,
        "purchases": tally.purchases,
        "unmatched_purchases": tally.unmatched,
        "cancelled": tally.cancelled,
        "pending": len(worker.attribution),
        "slides": tally.slides,
        "quarantined_slides": [slide.number for slide in worker.quarantine.slides()],
        "examples_put_aside": worker.quarantine.put_aside,
        "examples_requeued": worker.quarantine.requeued,
        "examples_given_up": worker.quarantine.given_up,
        **candidate,
        "champion_metrics": judge.board.lifetime("champion"),
        "served_metrics": judge.board.lifetime("served"),
        "baselines": {name: judge.board.lifetime(name) for name in BASELINES},
        "slices": judge.slice_metrics(),
        "drift": judge.drift.report(),
        **({} if not worker.contenders.costs else {"challengers": _challengers(worker)}),
        **({} if worker.next_item is None else {"next_item": worker.next_item.report()}),
        "verdicts": {"passed": tally.passed, "held": tally.held},
        "versions": list(worker.publisher.versions),
        "champion": worker.publisher.champion,
        "model_sha256": worker.learner.model_sha256(),
        "retraces": worker.learner.retraces,
        "events_per_second": (tally.accepted - events_before) / max(used["wall_seconds"], 1e-9),
        **used,
    }
    plain: dict[str, Any] = finite_or_none(content)
    return plain


def _challengers(worker: Worker) -> dict[str, Any]:
    """How each stands, and what it has learned."""
    return {
        name: {
            **worker.judge.race.gates[name].standing(),
            "out": worker.contenders.out.get(name),
            "serving": name == worker.contenders.serving,
            "model_sha256": worker.contenders.learners[name].model_sha256(),
        }
        for name in worker.contenders.costs
    }


def write(content: dict[str, Any], path: Path) -> None:
    write_file(path, json.dumps(content, indent=2).encode() + b"\n")

"""What the judge knows beside the metrics when a version is made; a version's card tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stream_learner.events import ExampleBatch


@dataclass(frozen=True)
class Observed:
    """NaN is None throughout."""

    span: str | None  # what slices and reliability are taken over: the longest of `judging.windows`; None = all
    slices: dict[str, Any]  # the candidate's metrics by slice
    reliability: list[dict[str, float]]  # as `metrics.reliability`, of the candidate's scores at arrival
    psi: dict[str, float]  # by feature, when the version is made
    findings: list[dict[str, Any]]  # of drift, that stand
    matured: ExampleBatch | None  # up to 2,048 labelled examples; None before the first

"""The sections of metrics and drift."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Duration, Section, op, section, span


class JudgingSpan(Section, frozen=True):
    start: Annotated[
        str | None, Meta(description="ISO 8601: examples clicked before are not judged; null = from the first")
    ] = None
    end: Annotated[
        str | None, Meta(description="ISO 8601: examples clicked at or after are not judged; null = to the last")
    ] = None
    after_slides: Annotated[int, Meta(description="examples of the first n slides are not judged", ge=0)] = 0


class Judging(Section, frozen=True):
    windows: Annotated[
        list[Duration], Meta(description="sliding windows of the reported metrics, by time of maturity")
    ] = msgspec.field(default_factory=lambda: [Duration.parse(t) for t in ("1h", "1d")])
    span: Annotated[JudgingSpan, Meta(description="what the report's lifetime metrics are taken over")] = section(
        JudgingSpan
    )
    exact_max: Annotated[
        int, Meta(description="examples up to which AUC is exact; beyond, on 65,536 score levels", ge=1000)
    ] = 2_000_000
    score_log: Annotated[
        bool,
        op("append every matured pair of scores to scores.jsonl in the state folder, for `gate simulate --scores`"),
    ] = False
    baseline_smoothing: Annotated[
        float, Meta(description="prior examples in the item and user rate baselines", gt=0)
    ] = 20.0


class Drift(Section, frozen=True):
    window: Annotated[
        Duration, Meta(description="span of recent examples compared with the champion's training window")
    ] = span("1h")
    bins: Annotated[int, Meta(description="quantile bins of a feature's reference", ge=2, le=100)] = 10
    aggregates: Annotated[
        list[str],
        Meta(
            description="regular expressions of aggregate columns watched beside ids and numeric features; "
            "counts move with the time of day and rates with the labels, so none by default"
        ),
    ] = msgspec.field(default_factory=list)
    min_examples: Annotated[int, Meta(description="examples on each side before a feature is judged", ge=10)] = 1000

"""The sections of metrics, drift and the gate."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Duration, Section, section, span


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


class Quarantine(Section, frozen=True):
    enabled: Annotated[
        bool, Meta(description="look for outages; slides cut by number have no season and are never quarantined")
    ] = True
    warm_up: Annotated[
        Duration, Meta(description="event time of which the season is learned before any slide is quarantined")
    ] = span("7d")
    least_share: Annotated[
        float,
        Meta(description="share of what the season lets expect at or below which a slide may be broken", gt=0, le=0.9),
    ] = 0.2
    alpha: Annotated[
        float,
        Meta(
            description="chance of finding a slide broken whose source really gives `least_share` of its season, "
            "over all that is measured; at the usual level the chance is smaller by orders of magnitude",
            gt=0,
            lt=0.1,
        ),
    ] = 1e-4
    max_span: Annotated[
        Duration, Meta(description="an outage longer than this is the new normal, and its season is learned anew")
    ] = span("7d")
    max_bytes: Annotated[
        int,
        Meta(description="quarantined examples kept on disk, in bytes; the oldest slide's go first, counted", ge=0),
    ] = 268_435_456


class Gate(Section, frozen=True):
    mode: Annotated[
        Literal["margin", "always"], Meta(description="margin: the rules below; always: for benchmarks and tests only")
    ] = "margin"
    interval: Annotated[Duration, Meta(description="event time between two times the gate is asked")] = span("15m")
    min_interval: Annotated[Duration, Meta(description="least event time between two versions")] = span("30m")
    min_examples: Annotated[
        int, Meta(description="matured examples scored by both models since the last version", ge=1)
    ] = 1000
    min_positives: Annotated[int, Meta(description="positives among them", ge=1)] = 20
    margin: Annotated[
        float,
        Meta(description="largest NE excess of the candidate over the champion; negative asks for a gain", ge=-1, le=1),
    ] = 0.0
    max_ne: Annotated[
        float, Meta(description="largest NE of the candidate on the same examples; 1 = the base rate's", gt=0)
    ] = 1.0
    calibration: Annotated[
        tuple[float, float], Meta(description="band of sum(p) / sum(y) of the candidate on the same examples")
    ] = (0.8, 1.25)
    max_psi: Annotated[float, Meta(description="largest population stability index of any input feature", gt=0)] = 0.25
    drift_hold: Annotated[
        Duration, Meta(description="longest event time that input drift alone may hold a candidate back")
    ] = span("6h")

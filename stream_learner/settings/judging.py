"""The sections of metrics and drift."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Duration, Section, op, section, span

NOVELTY = {"new_user": "user", "new_item": "item"}  # slice -> the id it is about, in the order of ExampleBatch.unseen


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
    baseline_keys: Annotated[
        int, Meta(description="keys held per baseline; the longest without a label go first", ge=16)
    ] = 5_000_000
    slices: Annotated[
        list[str],
        Meta(description="what metrics are split by: categorical features, new_user, new_item (in no earlier example)"),
    ] = msgspec.field(default_factory=lambda: ["new_user", "new_item"])
    slice_values: Annotated[
        dict[str, list[str]],
        Meta(description="values of a sliced feature by name; others are shown by fingerprint, most frequent first"),
    ] = msgspec.field(default_factory=dict)
    slice_top: Annotated[
        int, Meta(description="values of a feature with a slice of their own; the rest is `other`", ge=1, le=50)
    ] = 8
    known_max: Annotated[
        int, Meta(description="users and items remembered for new_user and new_item, each", ge=1000)
    ] = 5_000_000
    baseline_smoothing: Annotated[
        float, Meta(description="prior examples in the item and user rate baselines", gt=0)
    ] = 20.0


class Drift(Section, frozen=True):
    window: Annotated[Duration, Meta(description="span of recent examples compared with the reference")] = span("1h")
    reference: Annotated[
        Literal["champion", "last_week", "fixed"],
        Meta(
            description="what is compared with: the champion's training window, the same window a week before, or the "
            "first `fixed` of the stream"
        ),
    ] = "champion"
    fixed: Annotated[Duration, Meta(description="span of the reference `fixed`")] = span("1d")
    interval: Annotated[Duration, Meta(description="event time between two looks")] = span("15m")
    run_length: Annotated[
        Duration,
        Meta(
            description="mean event time between two false alarms, all features and tests together: half of the budget "
            "is for the tests of each look (Benjamini-Hochberg), half for the detectors on the matured loss"
        ),
    ] = span("30d")
    min_psi: Annotated[float, Meta(description="smallest PSI of an input or of delays worth an alarm", ge=0)] = 0.1
    min_prediction_psi: Annotated[
        float,
        Meta(
            description="smallest PSI of predictions worth an alarm; of the champion's against those on its training "
            "window, beyond what the parts of that window, with their hours of the day, differ by",
            ge=0,
        ),
    ] = 0.2
    min_share: Annotated[
        float, Meta(description="smallest change of a share of missing values or new ids worth an alarm", ge=0, le=1)
    ] = 0.05
    min_change: Annotated[
        float, Meta(description="smallest change of the log-odds of a purchase worth an alarm", gt=0)
    ] = 0.2
    min_auc: Annotated[
        float, Meta(description="smallest AUC of the two-sample classifier worth an alarm", ge=0.5, le=1)
    ] = 0.55
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

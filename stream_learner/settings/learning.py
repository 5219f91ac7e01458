"""The sections of features, model, learning and replay."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Duration, Section, op, section, span


class IdFeature(Section, frozen=True):
    table: Annotated[
        Literal["hashed", "exact"],
        Meta(description="hashed: row = fingerprint mod rows; exact: a row per id, first come, until `rows` are taken"),
    ] = "hashed"
    rows: Annotated[int, Meta(description="rows of the embedding table", ge=2, le=1_000_000_000)] = 65_536
    dim: Annotated[int, Meta(description="width of the vectors", ge=1, le=1024)] = 8
    admit_after: Annotated[
        int, Meta(description="exact: examples learned from in which an id must occur to get a row", ge=1, le=1_000_000)
    ] = 1
    expire_after: Annotated[
        Duration | None,
        Meta(description="exact: an id in no example for this long gives its row back; null = it keeps it"),
    ] = None
    max_waiting: Annotated[
        int,
        Meta(description="exact: ids without a row whose sightings are counted; the longest unseen go first", ge=1),
    ] = 1_000_000


Encoding = Literal["log1p_z", "piecewise_linear"]


class NumericFeature(Section, frozen=True):
    transform: Annotated[Literal["none", "log1p"], Meta(description="applied before normalisation")] = "none"
    encoding: Annotated[
        list[Encoding] | None, Meta(description="as `features.encoding`, for this feature; null = that one")
    ] = None


class Features(Section, frozen=True):
    ids: Annotated[
        dict[str, IdFeature], Meta(description="embedded ids: user, item, session or a categorical feature")
    ] = msgspec.field(default_factory=lambda: {"user": IdFeature(), "item": IdFeature()})
    numeric: Annotated[
        dict[str, NumericFeature] | None,
        Meta(description="numeric features used; null = all of the mappings, as they are"),
    ] = None
    aggregates: Annotated[
        list[str] | None, Meta(description="regular expressions of aggregate columns used; null = all, [] = none")
    ] = None
    encoding: Annotated[
        list[Encoding],
        Meta(
            description="what a number becomes, side by side: log1p_z = standardised (counts: their logarithm); "
            "piecewise_linear = how far it has come through each of its quantile bins",
            min_length=1,
        ),
    ] = msgspec.field(default_factory=lambda: ["log1p_z"])
    bins: Annotated[int, Meta(description="quantile bins of a piecewise-linear encoding", ge=2, le=256)] = 8
    bin_rows: Annotated[
        int,
        Meta(description="bins are fitted on the first so many rows learned from, then frozen", ge=16, le=1_000_000),
    ] = 10_000
    hour_of_day: Annotated[bool, Meta(description="hour of day (UTC) as sine and cosine")] = True
    day_of_week: Annotated[bool, Meta(description="day of week (UTC) as one of seven")] = True


class Ensemble(Section, frozen=True):
    members: Annotated[
        int, Meta(description="networks trained side by side as one batched model; the mean probability counts", ge=1)
    ] = 1
    input_share: Annotated[
        float, Meta(description="share of the numbers each member sees, drawn by the seed; ids, time: all", gt=0, le=1)
    ] = 1.0


class WarmRestart(Section, frozen=True):
    boost: Annotated[
        float, Meta(description="times the rates are raised when drift of the relation is found; 1 = not", ge=1, le=100)
    ] = 1.0
    half_life: Annotated[int, Meta(description="rows learned in which the raise falls to half", ge=1)] = 20_000


class WarmStart(Section, frozen=True):
    until: Annotated[
        str | None,
        Meta(
            description="ISO 8601 time (UTC) at which history ends: with the first slide that ends after it, all that "
            "the replay buffer holds is gone through `passes` more times; null = no warm start"
        ),
    ] = None
    passes: Annotated[int, Meta(description="such passes, in an order drawn by the seed", ge=1, le=100)] = 2


class Plasticity(Section, frozen=True):
    every: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="rows learned, replay left out, between two renewals of the network; null = none"),
    ] = None
    shrink: Annotated[
        float,
        Meta(description="factor of the weights at a renewal (shrink and perturb); 1 = off", gt=0, le=1),
    ] = 1.0
    perturb: Annotated[
        float, Meta(description="share of first weights, drawn anew, that is added then; 0 = off", ge=0, le=1)
    ] = 0.0
    dormant: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(
            description="hidden units whose mean activation is at most this share of their layer's begin anew at a "
            "renewal; 0.025 is usual, null = off"
        ),
    ] = None


class Learning(Section, frozen=True):
    network: Annotated[
        str,
        Meta(description="logistic, mlp, wide_deep, dcn_v2, deepfm, or module:function for your own", min_length=1),
    ] = "mlp"
    hidden: Annotated[
        list[Annotated[int, Meta(ge=1, le=65536)]], Meta(description="widths of the hidden layers (not: logistic)")
    ] = msgspec.field(default_factory=lambda: [64, 32])
    cross_layers: Annotated[int, Meta(description="cross layers (dcn_v2)", ge=1, le=16)] = 2
    dropout: Annotated[float, Meta(description="dropout after each hidden layer", ge=0, lt=1)] = 0.0
    ensemble: Annotated[Ensemble, Meta(description="several networks in one")] = section(Ensemble)
    optimizer: Annotated[
        Literal["adagrad", "adam", "adamw", "ftrl"],
        Meta(description="for dense weights and, row-sparse, for tables; ftrl: for network logistic"),
    ] = "adam"
    learning_rate: Annotated[float, Meta(description="step of the dense weights", gt=0, le=10)] = 0.001
    table_learning_rate: Annotated[
        Annotated[float, Meta(gt=0, le=10)] | None, Meta(description="step of the tables; null = learning_rate")
    ] = None
    table_optimizer: Annotated[
        Literal["adagrad", "adam", "adamw"] | None,
        Meta(description="another rule for the tables: adagrad gives ids seen rarely larger steps; null = optimizer"),
    ] = None
    warm_restart: Annotated[WarmRestart, Meta(description="higher rates for a while after drift")] = section(
        WarmRestart
    )
    averaging: Annotated[
        float,
        Meta(
            description="share that a step leaves of the running average of the dense weights; what is scored and "
            "published is that average; 0 = the weights themselves",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    negative_share: Annotated[
        float,
        Meta(
            description="share of the negatives learned from, drawn by the seed; scores are put right by its logarithm",
            gt=0,
            le=1,
        ),
    ] = 1.0
    calibration_rows: Annotated[
        int,
        Meta(
            description="half-life, in matured examples, of a shift of all log-odds that keeps predictions as of "
            "arrival calibrated; 0 = none",
            ge=0,
        ),
    ] = 0
    l2: Annotated[
        float,
        Meta(
            description="weight decay of the dense weights, added to the gradient; adamw: taken from the weights, and "
            "the tables' touched rows, times the rate; ftrl: of all",
            ge=0,
            le=100,
        ),
    ] = 0.0
    l1: Annotated[float, Meta(description="ftrl: weights whose evidence stays below are 0", ge=0, le=100)] = 0.0
    ftrl_beta: Annotated[float, Meta(description="ftrl: beta of the per-coordinate rate", ge=0, le=100)] = 1.0
    batch_size: Annotated[int, Meta(description="new rows per step; replayed rows come on top", ge=1, le=1_048_576)] = (
        1024
    )
    passes: Annotated[int, Meta(description="times a slide's matured examples are gone through", ge=1, le=100)] = 1
    plasticity: Annotated[Plasticity, Meta(description="keeping the ability to learn")] = section(Plasticity)
    budget: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="rows per slide, passes and replay included; what is beyond is skipped, counted: replayed rows "
            "first, then passes, then the examples of the oldest clicks; null = no bound"
        ),
    ] = None
    core_share: Annotated[
        Annotated[float, Meta(gt=0, le=256)] | None,
        op(
            "share of a core that learning may take of the time its slides span: the worker lowers and raises the "
            "budget between slides, never above `budget`, and journals each change; null = `budget` alone"
        ),
    ] = None
    warm_start: Annotated[WarmStart, Meta(description="several passes over history, then the stream")] = section(
        WarmStart
    )
    blank_rate: Annotated[
        float,
        Meta(
            description="share of training rows whose aggregates outside `export.aggregates` are blanked, key by key, "
            "so that the published model has learned what to do without them",
            ge=0,
            lt=1,
        ),
    ] = 0.05
    threads: Annotated[
        int, Meta(description="TensorFlow threads within an operation; part of the model's identity", ge=1, le=256)
    ] = 2


class Replay(Section, frozen=True):
    policy: Annotated[
        Literal["uniform", "time_biased", "stratified", "prioritised", "dark"],
        Meta(
            description="which examples are held and drawn: uniform = every one ever seen alike; time_biased = by age, "
            "see half_life; stratified = as many of a rare stratum as of a frequent one; prioritised = all alike, "
            "drawn by their loss; dark = all alike, and held to the logits they had (DER++)"
        ),
    ] = "uniform"
    capacity: Annotated[int, Meta(description="examples in the reservoir; 0 = no replay", ge=0)] = 100_000
    max_bytes: Annotated[
        Annotated[int, Meta(ge=1_048_576)] | None,
        Meta(description="bytes of the examples held, where that is less than `capacity`; null = no other bound"),
    ] = None
    ratio: Annotated[float, Meta(description="replayed rows per new row in each step", ge=0, le=64)] = 1.0
    half_life: Annotated[
        Duration, Meta(description="time_biased: age at which an example's chance of being held has halved")
    ] = span("30d")
    strata: Annotated[str, Meta(description="stratified: by `label`, or by a categorical feature", min_length=1)] = (
        "label"
    )
    priority_exponent: Annotated[
        float, Meta(description="prioritised: how strongly the loss decides; 0 = not at all", ge=0, le=2)
    ] = 0.6
    correction: Annotated[
        float,
        Meta(
            description="stratified, prioritised: exponent of the weights that undo the choice; 1 = without bias",
            ge=0,
            le=1,
        ),
    ] = 1.0
    alpha: Annotated[
        float, Meta(description="dark: weight of the squared distance from the logits held", ge=0, le=100)
    ] = 0.5
    beta: Annotated[float, Meta(description="dark: weight of the log loss of replayed rows", ge=0, le=100)] = 0.5


class Challenger(Section, frozen=True):
    """A variant of the model: what it does not name is as the config has it."""

    learning: Annotated[
        dict[str, Any], Meta(description="keys of `learning` in which it differs (not: threads, calibration_rows)")
    ] = msgspec.field(default_factory=dict)
    replay: Annotated[dict[str, Any], Meta(description="keys of `replay` in which it differs")] = msgspec.field(
        default_factory=dict
    )

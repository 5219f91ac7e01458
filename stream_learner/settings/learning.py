"""The sections of features, model, learning and replay."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Section


class IdFeature(Section, frozen=True):
    table: Annotated[
        Literal["hashed", "exact"],
        Meta(description="hashed: row = fingerprint mod rows; exact: a row per id, first come, until `rows` are taken"),
    ] = "hashed"
    rows: Annotated[int, Meta(description="rows of the embedding table", ge=2, le=1_000_000_000)] = 65_536
    dim: Annotated[int, Meta(description="width of the vectors", ge=1, le=1024)] = 8


class NumericFeature(Section, frozen=True):
    transform: Annotated[Literal["none", "log1p"], Meta(description="applied before normalisation")] = "none"


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
    hour_of_day: Annotated[bool, Meta(description="hour of day (UTC) as sine and cosine")] = True
    day_of_week: Annotated[bool, Meta(description="day of week (UTC) as one of seven")] = True


class Learning(Section, frozen=True):
    network: Annotated[
        str, Meta(description="logistic, mlp, dcn_v2, or module:function for your own", min_length=1)
    ] = "mlp"
    hidden: Annotated[
        list[Annotated[int, Meta(ge=1, le=65536)]], Meta(description="widths of the hidden layers (mlp, dcn_v2)")
    ] = msgspec.field(default_factory=lambda: [64, 32])
    cross_layers: Annotated[int, Meta(description="cross layers (dcn_v2)", ge=1, le=16)] = 2
    dropout: Annotated[float, Meta(description="dropout after each hidden layer", ge=0, lt=1)] = 0.0
    optimizer: Annotated[
        Literal["adagrad", "adam"], Meta(description="for dense weights and, row-sparse, for tables")
    ] = "adam"
    learning_rate: Annotated[float, Meta(description="step of the dense weights", gt=0, le=10)] = 0.001
    table_learning_rate: Annotated[
        Annotated[float, Meta(gt=0, le=10)] | None, Meta(description="step of the tables; null = learning_rate")
    ] = None
    l2: Annotated[float, Meta(description="weight decay of the dense weights, added to the gradient", ge=0, le=1)] = 0.0
    batch_size: Annotated[int, Meta(description="new rows per step; replayed rows come on top", ge=1, le=1_048_576)] = (
        1024
    )
    passes: Annotated[int, Meta(description="times a slide's matured examples are gone through", ge=1, le=100)] = 1
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
    capacity: Annotated[int, Meta(description="examples in the reservoir; 0 = no replay", ge=0)] = 100_000
    ratio: Annotated[float, Meta(description="replayed rows per new row in each step", ge=0, le=64)] = 1.0

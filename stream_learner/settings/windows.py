"""The sections of slides, aggregates, examples and labels."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Duration, Section, op, span


class CountSlides(Section, frozen=True):
    """Slides cut by number of events, for logs whose times mean nothing: cut k ends at floor(first + k * size),
    those among the `first` at floor(k * first_size)."""

    size: Annotated[str | int, Meta(description="events per slide: an integer, or a fraction such as 28572/100")]
    first: Annotated[int, Meta(description="events before the first cut of `size`; 0 = the same as `size`", ge=0)] = 0
    first_size: Annotated[
        str | int, Meta(description="events per slide among the `first`, as `size`; 0 = they are one slide")
    ] = 0


class Slides(Section, frozen=True):
    slide: Annotated[Duration, Meta(description="event time per slide, the unit of work")] = span("5m")
    by_count: Annotated[CountSlides | None, Meta(description="cut by number of events instead; null = by time")] = None
    allowed_lateness: Annotated[Duration, Meta(description="how far out of order a partition may be")] = span("1m")
    max_ahead: Annotated[
        Duration, Meta(description="an event further ahead of its record's own timestamp is a dead letter")
    ] = span("1h")
    max_jump: Annotated[
        Duration, Meta(description="where records have no timestamp: largest jump of event time within a partition")
    ] = span("90d")
    idle_timeout: Annotated[
        Duration | None,
        op("a partition read to its end for this long no longer holds slides back (journaled); null = off"),
    ] = None
    max_open_events: Annotated[int, op("events held in open slides before partitions that run ahead wait", ge=1000)] = (
        2_000_000
    )


class Distinct(Section, frozen=True):
    key: Annotated[str, Meta(description="whose distinct values are counted: user, item or a categorical feature")]
    of: Annotated[str, Meta(description="what is counted; the pair must be among `aggregates.keys`")]


class Within(Section, frozen=True):
    key: Annotated[str, Meta(description="whose pairs are compared: user, item or a categorical feature")]
    of: Annotated[str, Meta(description="what it is paired with; the pair must be among `aggregates.keys`")]


class Neighbours(Section, frozen=True):
    key: Annotated[str, Meta(description="whose labels vote: user, item or a categorical feature")] = "user"
    of: Annotated[str, Meta(description="what they are votes on")] = "item"
    items: Annotated[
        int,
        Meta(description="different `of` that take part, first come; 8 bytes for every two of them", ge=2, le=32768),
    ] = 2048
    recent: Annotated[int, Meta(description="labels remembered per `key`", ge=1, le=4096)] = 200


Between = Distinct | Within

AsOf = Literal["event", "slide_start", "slide_end"]


class Aggregates(Section, frozen=True):
    keys: Annotated[
        list[str],
        Meta(description="what counts are kept for: user, item, session, a categorical feature, or a pair a*b"),
    ] = msgspec.field(default_factory=lambda: ["user", "item", "user*item"])
    windows: Annotated[list[Duration], Meta(description="spans of the sliding windows")] = msgspec.field(
        default_factory=lambda: [Duration.parse(t) for t in ("1h", "1d", "7d")]
    )
    ever: Annotated[bool, Meta(description="a window without end as well")] = True
    half_lives: Annotated[
        list[Duration], Meta(description="exponentially decayed counts, and rates of them, at these half-lives")
    ] = msgspec.field(default_factory=list)
    counts: Annotated[
        list[str] | None, Meta(description="event types counted per key and window; null = all types of the mappings")
    ] = None
    rates: Annotated[
        bool, Meta(description="conversion rate per key and window: (positives + s*g)/(examples + s), g = overall rate")
    ] = True
    smoothing: Annotated[float, Meta(description="s in the rate, in events", gt=0)] = 20.0
    label_rates: Annotated[
        bool,
        Meta(
            description="per key the matured examples and the positives' smoothed share of them, ever and per half-life"
        ),
    ] = False
    shares: Annotated[
        list[Within], Meta(description="the pair's share of the key's examples, per window and half-life")
    ] = msgspec.field(default_factory=list)
    ranks: Annotated[
        list[Within],
        Meta(description="the pair's rank by decayed count among the key's 32 most recent pairs, per half-life"),
    ] = msgspec.field(default_factory=list)
    neighbours: Annotated[
        list[Neighbours],
        Meta(description="what the key's matured labels on things like this one say of it (collaborative filtering)"),
    ] = msgspec.field(default_factory=list)
    recency: Annotated[bool, Meta(description="seconds since the key's last event of each counted type")] = True
    distinct: Annotated[list[Distinct], Meta(description="distinct counts per window, from pairs already kept")] = (
        msgspec.field(default_factory=list)
    )
    panes: Annotated[
        int, Meta(description="steps of the trailing edge: a pane is max(slide, window / panes)", ge=1, le=1000)
    ] = 24
    as_of: Annotated[
        dict[str, AsOf],
        Meta(description="event type -> event (what came before the click), slide_start or slide_end; default event"),
    ] = msgspec.field(default_factory=dict)
    expire_after: Annotated[Duration, Meta(description="a key unseen for this long is forgotten, counted")] = span(
        "60d"
    )
    max_keys: Annotated[
        int, Meta(description="keys held per entry of `keys`; the longest unseen go first, counted", ge=16)
    ] = 5_000_000


class Examples(Section, frozen=True):
    of: Annotated[str, Meta(description="the event type that makes an example")] = "click"
    per: Annotated[
        Literal["event", "slide"],
        Meta(description="event: every such event; slide: the first per user, item and slide"),
    ] = "event"


LabelMode = Literal["wait", "duplicate", "fnw", "fnc", "es_dfm", "oracle"]


class Labels(Section, frozen=True):
    mode: Annotated[
        LabelMode,
        Meta(
            description="when a label is learned: wait = at maturity; early, as a negative and again when positive: "
            "duplicate (as they come), fnw and fnc (corrected by the model's own probability), es_dfm (by the "
            "probability of a late purchase, learned from matured examples); oracle = at once, from `fields.label`, "
            "which only a simulator knows"
        ),
    ] = "wait"
    elapsed: Annotated[
        Duration, Meta(description="es_dfm: how long after its click an example is first learned from")
    ] = span("15m")
    positive: Annotated[str, Meta(description="the event type that makes an example positive")] = "purchase"
    cancel: Annotated[
        str | None,
        Meta(description="the event type that takes back the purchases before it, matched as they are; null = none"),
    ] = None
    match: Annotated[
        Literal["item", "any"], Meta(description="the positive must be of the same user and item, or of the same user")
    ] = "item"
    horizon: Annotated[
        Duration, Meta(description="attribution window: an example matures this long after its click (end included)")
    ] = span("1d")
    max_pending: Annotated[
        int, op("examples waiting for their label beyond which the worker stops (exit 3)", ge=1000)
    ] = 50_000_000
    source: Annotated[
        Literal["at_once", "next_slide", "field"],
        Meta(
            description="positives that follow in the log; only those from the next slide on (sources with no order "
            "inside a slide); or `fields.label` of the event itself"
        ),
    ] = msgspec.field(default="at_once", name="from")

    @property
    def in_events(self) -> bool:
        """Whether every example's event must bring a label: its own, or the one to come."""
        return self.source == "field" or self.mode == "oracle"

    @property
    def early(self) -> bool:
        """Whether examples are learned from before they mature."""
        return self.mode != "wait"

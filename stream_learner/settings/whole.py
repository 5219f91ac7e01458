"""The whole config: every section, in the order of the path of an event."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Section, op, section
from stream_learner.settings.gate import Canary, Gate
from stream_learner.settings.judging import Drift, Judging, Quarantine
from stream_learner.settings.learning import Challenger, Features, Learning, Replay
from stream_learner.settings.next_item import NextItem, Task
from stream_learner.settings.operating import (
    Announce,
    Checkpoints,
    Export,
    Lease,
    Observing,
    Shutdown,
    Snapshot,
    Storage,
)
from stream_learner.settings.reading import DeadLetters, Dedupe, Privacy, Source, Topic
from stream_learner.settings.windows import Aggregates, Examples, Labels, Slides


class Config(Section, frozen=True):
    """A whole config file."""

    name: Annotated[
        str, Meta(description="name of the model, and of its folder", pattern="^[A-Za-z][A-Za-z0-9_-]{0,63}$")
    ] = "conversion"
    seed: Annotated[int, Meta(description="seed of everything random", ge=0, le=2**53)] = 0
    state: Annotated[str, op("folder of journal, snapshots, verdicts, lease; one worker writes", min_length=1)] = (
        "state"
    )
    source: Annotated[Source, Meta(description="where records come from")] = section(Source)
    topics: Annotated[dict[str, Topic], Meta(description="topics read, each with its own mapping", min_length=1)] = (
        msgspec.field(default_factory=lambda: {"events": Topic()})
    )
    task: Annotated[Task, Meta(description="what is learned: conversion, or next_item")] = "conversion"
    tasks: Annotated[
        Annotated[list[Task], Meta(min_length=1)] | None,
        Meta(description="several of them from one stream, by one worker; null = the one of `task`"),
    ] = None
    privacy: Annotated[Privacy, Meta(description="identities")] = section(Privacy)
    dedupe: Annotated[Dedupe, Meta(description="events sent twice")] = section(Dedupe)
    dead_letters: Annotated[DeadLetters, Meta(description="records that can never be learned from")] = section(
        DeadLetters
    )
    slides: Annotated[Slides, Meta(description="event time, cut")] = section(Slides)
    aggregates: Annotated[Aggregates, Meta(description="counts in sliding windows")] = section(Aggregates)
    examples: Annotated[Examples, Meta(description="what is predicted about")] = section(Examples)
    labels: Annotated[Labels, Meta(description="what is predicted")] = section(Labels)
    features: Annotated[Features, Meta(description="what the model sees")] = section(Features)
    learning: Annotated[Learning, Meta(description="the model and how it learns")] = section(Learning)
    replay: Annotated[Replay, Meta(description="what it is reminded of")] = section(Replay)
    challengers: Annotated[
        dict[str, Challenger],
        Meta(
            description="up to 8 variants by name that learn from the same slides, each with a model and a replay "
            "buffer of its own; the gate publishes whoever is best, with `gate.alpha` divided among all; {} = none"
        ),
    ] = msgspec.field(default_factory=dict)
    next_item: Annotated[NextItem, Meta(description="the task next_item: recommendations")] = section(NextItem)
    judging: Annotated[Judging, Meta(description="prequential metrics")] = section(Judging)
    drift: Annotated[Drift, Meta(description="input drift")] = section(Drift)
    quarantine: Annotated[Quarantine, Meta(description="outages upstream: slides kept out of learning and judging")] = (
        section(Quarantine)
    )
    gate: Annotated[Gate, Meta(description="when a candidate becomes a version")] = section(Gate)
    canary: Annotated[Canary, Meta(description="a new version, watched")] = section(Canary)
    export: Annotated[Export, Meta(description="what a version carries")] = section(Export)
    checkpoints: Annotated[Checkpoints, Meta(description="published versions")] = section(Checkpoints)
    announce: Annotated[Announce, Meta(description="who is told")] = section(Announce)
    snapshot: Annotated[Snapshot, Meta(description="the worker's own recovery state")] = section(Snapshot)
    lease: Annotated[Lease, Meta(description="one learner, one standby")] = section(Lease)
    storage: Annotated[Storage, Meta(description="snapshots, versions, dead letters and announcements alike")] = (
        section(Storage)
    )
    shutdown: Annotated[Shutdown, Meta(description="SIGTERM and SIGINT")] = section(Shutdown)
    observing: Annotated[Observing, Meta(description="metrics, health, logs")] = section(Observing)

    def learns(self, task: Task) -> bool:
        """Whether a task is among those asked for."""
        return task in (self.tasks or [self.task])

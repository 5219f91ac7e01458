"""The sections of the gate and the canary."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Duration, Section, span


class SliceFloor(Section, frozen=True):
    """What a slice of the traffic must keep to, beside the whole."""

    max_ne: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="largest NE of the candidate in the slice")
    ] = None
    max_excess: Annotated[
        Annotated[float, Meta(ge=-1, le=1)] | None,
        Meta(description="largest NE excess of the candidate over the champion in the slice"),
    ] = None
    calibration: Annotated[
        tuple[float, float] | None, Meta(description="band of sum(p) / sum(y) of the candidate in the slice")
    ] = None
    min_positives: Annotated[int, Meta(description="positives in the slice before it is judged", ge=1)] = 20


class Gate(Section, frozen=True):
    mode: Annotated[
        Literal["superior", "non_inferior", "always"],
        Meta(
            description="superior: proven better than the champion; non_inferior: proven not worse by more than "
            "`margin`, so that fresh models of equal quality are published; always: for benchmarks and tests only"
        ),
    ] = "non_inferior"
    alpha: Annotated[
        float,
        Meta(
            description="chance, from one version to the next and however often the gate is asked, that the proof "
            "`mode` asks for is wrong; the same for the proof that the candidate is worse",
            ge=1e-6,
            le=0.25,
        ),
    ] = 0.05
    margin: Annotated[
        float, Meta(description="in mode non_inferior, the NE by which the candidate may be worse", gt=0, le=1)
    ] = 0.01
    interval: Annotated[Duration, Meta(description="event time between two times the gate is asked")] = span("15m")
    min_interval: Annotated[Duration, Meta(description="least event time between two versions")] = span("30m")
    max_interval: Annotated[
        Duration | None,
        Meta(
            description="age of a version from which its successor need only not be proven worse, all other rules "
            "standing; null = it is never too old"
        ),
    ] = None
    cool_down: Annotated[
        Duration, Meta(description="event time after a rollback before the gate lets another version pass")
    ] = span("1h")
    evidence_window: Annotated[
        Duration,
        Meta(description="span of maturity over which floors and calibration are taken, the last version at most"),
    ] = span("1d")
    min_examples: Annotated[
        int, Meta(description="matured examples scored by both models in the evidence window", ge=1)
    ] = 1000
    min_positives: Annotated[int, Meta(description="positives among them", ge=1)] = 20
    max_ne: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="largest NE of the candidate on them; 1 = the base rate's; null = any"),
    ] = 1.0
    min_auc: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="least AUC of the candidate over the longest of `judging.windows`; null = any"),
    ] = None
    calibration: Annotated[
        tuple[float, float] | None,
        Meta(description="band of sum(p) / sum(y) of the candidate in the evidence window; null = any"),
    ] = (0.8, 1.25)
    slices: Annotated[
        dict[str, SliceFloor],
        Meta(description="floors by slice of `judging.slices`, such as new_user=yes, over the evidence window"),
    ] = msgspec.field(default_factory=dict)
    max_psi: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="largest population stability index of any input feature; null = any"),
    ] = 0.25
    drift_hold: Annotated[
        Duration, Meta(description="longest event time that input drift alone may hold a candidate back")
    ] = span("6h")
    on_degradation: Annotated[
        Literal["hold", "restart_from_champion", "rollback_serving"],
        Meta(
            description="when the candidate is proven worse than the champion: hold it; restart it from the champion "
            "and catch up by replay; or also serve the version before the champion again and restart from that"
        ),
    ] = "hold"
    catch_up_steps: Annotated[
        int, Meta(description="steps on replayed batches after such a restart", ge=0, le=100_000)
    ] = 50


class Canary(Section, frozen=True):
    duration: Annotated[
        Duration | None,
        Meta(
            description="event time after publishing in which the version before scores too, kept in memory, and is "
            "served again should the new one fail; null = no canary"
        ),
    ] = span("1h")
    max_shift: Annotated[
        float, Meta(description="largest ratio of the two versions' mean predictions on arriving examples", gt=1)
    ] = 2.0
    min_examples: Annotated[int, Meta(description="arrived examples before that is judged", ge=1)] = 500
    alpha: Annotated[
        float,
        Meta(
            description="chance, per version and however often it is looked at, of rolling back an equal or better one",
            ge=1e-6,
            le=0.25,
        ),
    ] = 0.01

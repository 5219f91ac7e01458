"""The section of the task `next_item`: which item a session goes on to."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from stream_learner.settings.base import Duration, Section, section, span
from stream_learner.settings.gate import Canary

Task = Literal["conversion", "next_item"]


class Sessions(Section, frozen=True):
    gap: Annotated[
        Duration,
        Meta(
            description="a session ends when its events pause for longer; where topics map a session id, the pause "
            "after which that id begins a new one"
        ),
    ] = span("30m")
    recent: Annotated[int, Meta(description="latest events of a session that a ranking looks at", ge=1, le=100)] = 10
    capacity: Annotated[
        int, Meta(description="events of sessions held for neighbours and replay; the oldest sessions go", ge=1000)
    ] = 1_000_000


class Catalogue(Section, frozen=True):
    capacity: Annotated[int, Meta(description="items that can be recommended at once", ge=16, le=16_000_000)] = 100_000
    admit_after: Annotated[int, Meta(description="events of an item before it can be recommended", ge=1)] = 1
    expire_after: Annotated[
        Duration | None, Meta(description="an item without an event for so long is let go; null = never")
    ] = None
    waiting: Annotated[
        int,
        Meta(description="items counted that have no row; beyond, those longest without an event are forgotten", ge=16),
    ] = 1_000_000


class Popularity(Section, frozen=True):
    half_life: Annotated[Duration, Meta(description="event time after which an event counts half")] = span("1d")


class SessionNeighbours(Section, frozen=True):
    """Session-kNN with sequence, recency and position weights (STAN: Garg et al., SIGIR 2019)."""

    per_item: Annotated[int, Meta(description="latest sessions looked at for each recent item", ge=1)] = 1000
    sequence_decay: Annotated[
        float, Meta(description="steps back in the session over which a recent item counts 1/e", gt=0)
    ] = 2.5
    rarity: Annotated[float, Meta(description="power of log(sessions / sessions with it) of a recent item", ge=0)] = 1.6
    sharpness: Annotated[float, Meta(description="power of what a neighbour shares with the session", gt=0)] = 1.2
    length: Annotated[float, Meta(description="power by which a neighbour's length counts against it", ge=0)] = 0.15
    recency: Annotated[
        Duration | None, Meta(description="age over which a neighbour counts 1/e; null = its age does not matter")
    ] = None
    position_decay: Annotated[
        float, Meta(description="steps from the shared item over which a neighbour's item counts 1/e", gt=0)
    ] = 5.0
    forward: Annotated[float, Meta(description="weight of items behind the shared one, before = 1", gt=0)] = 1.15
    shared: Annotated[float, Meta(description="weight of the shared item itself: people return", ge=0)] = 1.6
    target_rarity: Annotated[float, Meta(description="power of its rarity by which an item counts", ge=0)] = 0.4


class Network(Section, frozen=True):
    """Item vectors, and a network that reads a session (SASRec: Kang, McAuley, ICDM 2018; or the mean of its items)."""

    encoder: Annotated[
        Literal["self_attention", "two_tower"],
        Meta(description="self_attention: of the sequence; two_tower: dense layers over the mean and the latest item"),
    ] = "self_attention"
    dim: Annotated[int, Meta(description="width of the vectors", ge=4, le=1024)] = 64
    blocks: Annotated[int, Meta(description="attention blocks", ge=1, le=8)] = 1
    heads: Annotated[int, Meta(description="attention heads; a divisor of dim", ge=1, le=16)] = 1
    dropout: Annotated[float, Meta(description="dropout of inputs and layers", ge=0, lt=1)] = 0.3
    scale: Annotated[float, Meta(description="of the cosine of session and item, a temperature's inverse", gt=0)] = 14.0
    negatives: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="items sampled per step against each target; null = all of them, for small catalogues"),
    ] = 1024
    negative_power: Annotated[
        float, Meta(description="they are drawn by popularity to this power (0 = uniformly), log-Q corrected", ge=0)
    ] = 0.75
    in_batch: Annotated[
        bool, Meta(description="a target is also held against the other targets of its batch, log-Q corrected")
    ] = False
    learning_rate: Annotated[float, Meta(description="Adam's step of the network", gt=0, le=1)] = 0.002
    table_learning_rate: Annotated[float, Meta(description="Adam's step of the vectors", gt=0, le=1)] = 0.01
    batch_size: Annotated[int, Meta(description="sessions per step, replayed ones on top", ge=1, le=65_536)] = 128
    passes: Annotated[int, Meta(description="times a slide's sessions are gone through", ge=1, le=100)] = 1
    replay: Annotated[float, Meta(description="earlier sessions replayed per new one", ge=0, le=16)] = 1.0
    replay_by: Annotated[
        Literal["session", "item"],
        Meta(description="drawn uniformly, or so that every item is the target equally often (exemplars per item)"),
    ] = "session"
    distillation: Annotated[
        float,
        Meta(
            description="weight of what the network said at the last slide's end about replayed sessions, shrinking "
            "with the share of new items; 0 = none",
            ge=0,
            le=100,
        ),
    ] = 0.0
    features: Annotated[
        list[str],
        Meta(
            description="categorical features (as topics map them) whose vectors join those of their items: an item "
            "that carries one is ranked by it from its first event on, and gets a vector of its own at "
            "`catalogue.admit_after`"
        ),
    ] = msgspec.field(default_factory=list)
    feature_rows: Annotated[
        int, Meta(description="rows of the hashed table of these features' vectors", ge=16, le=16_000_000)
    ] = 4096
    users: Annotated[
        int,
        Meta(
            description="rows of a hashed table of users' vectors, which join that of the session; 0 = users play no "
            "part in rankings, and `recommend` ignores who is asking",
            ge=0,
            le=16_000_000,
        ),
    ] = 0
    own_dropout: Annotated[
        float,
        Meta(
            description="share of the items of a step whose own vectors are left out, so that features learn to speak "
            "alone (DropoutNet: Volkovs, Yu, Poutanen, NIPS 2017); 0 = none",
            ge=0,
            lt=1,
        ),
    ] = 0.2
    distilled: Annotated[int, Meta(description="top logits of it that are kept to", ge=1, le=1000)] = 50


class Blend(Section, frozen=True):
    """Each ranking as shares that sum to 1, times its weight."""

    neighbours: Annotated[float, Meta(description="weight of the session-kNN", ge=0)] = 0.6
    network: Annotated[float, Meta(description="weight of the network", ge=0)] = 0.4
    flatness: Annotated[
        float, Meta(description="power of the network's shares before they are weighed; below 1 = flatter", gt=0)
    ] = 0.65
    popularity: Annotated[float, Meta(description="weight of decayed popularity: it fills empty rankings", ge=0)] = (
        0.001
    )


class RankingGate(Section, frozen=True):
    mode: Annotated[
        Literal["superior", "non_inferior", "always"],
        Meta(
            description="superior: proven better than the champion; non_inferior: proven not worse by more than "
            "`margin`; always: for benchmarks and tests only"
        ),
    ] = "non_inferior"
    alpha: Annotated[
        float, Meta(description="chance, per version and however often asked, of a wrong proof", ge=1e-6, le=0.25)
    ] = 0.05
    margin: Annotated[float, Meta(description="in non_inferior, the MRR by which it may be worse", gt=0, le=1)] = 0.01
    interval: Annotated[Duration, Meta(description="event time between two times the gate is asked")] = span("15m")
    min_interval: Annotated[Duration, Meta(description="least event time between two versions")] = span("30m")
    cool_down: Annotated[Duration, Meta(description="event time after a rollback before another passes")] = span("1h")
    min_examples: Annotated[int, Meta(description="examples judged since the last version", ge=1)] = 1000
    min_recall: Annotated[float, Meta(description="least Recall@k of the candidate on them", ge=0, le=1)] = 0.0
    on_degradation: Annotated[
        Literal["hold", "restart_from_champion", "rollback_serving"],
        Meta(
            description="when the candidate is proven worse than the champion: hold it; let its network go on from the "
            "champion's and catch up by replay; or also serve the version before the champion again and go on from that"
        ),
    ] = "hold"
    catch_up_steps: Annotated[
        int, Meta(description="steps on replayed sessions after such a restart", ge=0, le=100_000)
    ] = 50


class RankingJudging(Section, frozen=True):
    k: Annotated[int, Meta(description="length of the ranking that is judged", ge=1, le=1000)] = 20
    per_slide: Annotated[
        int,
        Meta(
            description="examples judged per slide, on the whole catalogue; of more, a uniform sample is drawn, so "
            "that means are unbiased",
            ge=1,
        ),
    ] = 2000
    short: Annotated[int, Meta(description="the slice `short_session`: at most so many recent items", ge=1)] = 1
    window: Annotated[Duration, Meta(description="sliding window of the reported metrics")] = span("1d")


class NextItem(Section, frozen=True):
    name: Annotated[
        str, Meta(description="name of the model, and of its folder", pattern="^[A-Za-z][A-Za-z0-9_-]{0,63}$")
    ] = "next_item"
    model: Annotated[
        Literal["popularity", "markov", "neighbours", "network", "blend"],
        Meta(description="what ranks: one of the baselines, the session-kNN, the network, or the blend of all"),
    ] = "blend"
    events: Annotated[
        dict[str, Annotated[float, Meta(gt=0)]],
        Meta(description="types that make up sessions, and what each counts as a target", min_length=1),
    ] = msgspec.field(default_factory=lambda: {"click": 1.0, "cart": 2.0, "purchase": 3.0})
    sessions: Annotated[Sessions, Meta(description="what belongs together")] = section(Sessions)
    catalogue: Annotated[Catalogue, Meta(description="what can be recommended")] = section(Catalogue)
    popularity: Annotated[Popularity, Meta(description="popularity, decayed")] = section(Popularity)
    neighbours: Annotated[SessionNeighbours, Meta(description="sessions like this one")] = section(SessionNeighbours)
    network: Annotated[Network, Meta(description="item vectors and a network over the session")] = section(Network)
    blend: Annotated[Blend, Meta(description="how they are weighed")] = section(Blend)
    judging: Annotated[RankingJudging, Meta(description="prequential Recall, MRR and NDCG")] = section(RankingJudging)
    gate: Annotated[RankingGate, Meta(description="when a candidate becomes a version")] = section(RankingGate)
    canary: Annotated[
        Canary,
        Meta(
            description="a new version beside the one before; what may shift is how many of the items that both know "
            "are listed at all, and the loss is of reciprocal ranks"
        ),
    ] = section(Canary)

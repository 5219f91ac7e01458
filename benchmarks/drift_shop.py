"""The shops of the drift benchmark, and a champion in service there.

A shop runs for three days. The champion takes what it knows of items, users and tastes from the first, the weights of
these from the second, and is in service on the third, on which the shop changes at noon. Up to that moment a shop that
changes and its twin that does not are the same, event by event, so they are gone through once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from stream_learner.events import EventBatch, EventSchema, ExampleBatch
from stream_learner.judging.drift import DriftWatch
from stream_learner.judging.drift_inputs import InputColumns
from stream_learner.judging.metrics import probabilities
from stream_learner.judging.slices import Slices
from stream_learner.keys import mix
from stream_learner.settings import Config, Drift, Duration, Judging, Labels, Slides
from stream_learner.settings import Quarantine as QuarantineSettings
from stream_learner.simulate.shop import Shop, ShopEvents
from stream_learner.simulate.world import DRIFT_SIZES, HOUR_US, SOURCES, ShopSettings
from stream_learner.simulate.world import Drift as Change
from stream_learner.windows.attribution import Attribution, select_examples
from stream_learner.windows.quarantine import Quarantine
from stream_learner.windows.slides import Slide

F64 = NDArray[np.float64]

KNOWN_H, LEARNED_H, CHANGED_H, FOUND_WITHIN_H, HOURS = 24, 48, 60, 6, 72
SLIDE_US = HOUR_US // 6


@dataclass(frozen=True)
class Row:
    """What happens to a shop, and to the twin it is held against (None = nothing), as the simulator has it."""

    change: str
    twin: str | None = None

    @property
    def begins(self) -> int:
        """us after the shop's start; until then both are as if nothing were to happen."""
        return Change.parse(self.change).at


_TURNS = CHANGED_H - round(DRIFT_SIZES["season"])
ROWS: dict[str, Row] = {
    **{kind: Row(f"{kind}@{CHANGED_H}") for kind in ("rate", "preference", "items", "price", "missing_feature")},
    "outage": Row(f"outage_purchases@{CHANGED_H}"),
    "season_returns": Row(f"season@{_TURNS}", twin=f"preference@{_TURNS}"),  # its end is to be found; the twin's stays
}
QUARANTINE = "quarantine"
_SHOP: dict[str, Any] = {"users": 5_000, "items": 500, "events_per_hour": 3_000}

SCHEMA = EventSchema(("shop",), ("click", "purchase"), ("user", "item", "session", "category", "source"), ("price",))
CONFIG = Config(
    labels=Labels(horizon=Duration.parse("1h")),
    slides=Slides(slide=Duration.parse("10m")),
    quarantine=QuarantineSettings(warm_up=Duration.parse("2d")),  # a shop of three days has not its default of seven
)
COLUMNS = InputColumns({"price": 0}, {"item": 1, "category": 3, "source": 4}, ("new_user", "new_item"), 0)
_USER, _ITEM, _CATEGORY, _SOURCE = 0, 1, 3, 4
_PRIOR_CLICKS = 20.0  # of a rate, and of a user's share of clicks


class Champion:
    """A logistic model on price, hour, source, the smoothed rates of user, item and category, and the user's taste for
    the category: its share of the user's clicks against that of all."""

    def __init__(self, clicks: ExampleBatch, known_until: int) -> None:
        """From matured clicks; rates and tastes from those before `known_until` (us), weights from the others."""
        cut = int(np.searchsorted(clicks.time, known_until))
        first, second = clicks.take(slice(0, cut)), clicks.take(slice(cut, None))
        self._prior = float(first.label.mean())
        self._rates = [
            (column, *_rates(first.ids[:, column], first.label, self._prior)) for column in (_USER, _ITEM, _CATEGORY)
        ]
        self._tastes = _tastes(first)
        self._mean_price = float(np.nanmean(np.log1p(clicks.numbers[:, 0])))
        rows = self._inputs(second)
        self._weights = np.zeros(rows.shape[1])
        for _ in range(8):  # Newton's method
            chances = probabilities(rows @ self._weights)
            curvature = (rows * (chances * (1 - chances))[:, None]).T @ rows + 1e-3 * np.eye(rows.shape[1])
            self._weights += np.linalg.solve(curvature, rows.T @ (second.label - chances) - 1e-3 * self._weights)

    def score(self, examples: ExampleBatch) -> NDArray[np.float32]:
        return np.asarray(self._inputs(examples) @ self._weights, np.float32)

    def _inputs(self, examples: ExampleBatch) -> F64:
        price = np.log1p(examples.numbers[:, 0].astype(np.float64)) - self._mean_price
        columns = [np.where(np.isnan(price), 0.0, price)]
        columns += [_looked_up(examples.ids[:, column], keys, odds) for column, keys, odds in self._rates]
        columns.append(_looked_up(_pairs(examples.ids), *self._tastes))
        angle = 2 * math.pi * (examples.time % (24 * HOUR_US)) / (24 * HOUR_US)
        columns += [np.sin(angle), np.cos(angle)]
        return np.concatenate([np.stack(columns, 1), examples.ids[:, 4:] == _ids(np.arange(len(SOURCES)))], axis=1)


def _rates(ids: NDArray[np.uint64], labels: NDArray[np.float32], prior: float) -> tuple[NDArray[np.uint64], F64]:
    """Keys, ascending, and the log-odds of each one's smoothed rate less those of the prior."""
    keys, at = np.unique(ids, return_inverse=True)
    rate = (np.bincount(at, labels) + _PRIOR_CLICKS * prior) / (np.bincount(at) + _PRIOR_CLICKS)
    return keys, np.log(rate / (1 - rate)) - math.log(prior / (1 - prior))


def _tastes(clicks: ExampleBatch) -> tuple[NDArray[np.uint64], F64]:
    """By pair of user and category, ascending: log of the category's smoothed share of the user's clicks, over its
    share of all."""
    keys, first, at = np.unique(_pairs(clicks.ids), return_index=True, return_inverse=True)
    _, user, of_user = np.unique(clicks.ids[first, _USER], return_inverse=True, return_counts=True)
    _, category, of_all = np.unique(clicks.ids[first, _CATEGORY], return_inverse=True, return_counts=True)
    counts = np.bincount(at).astype(np.float64)
    of_user, of_all = np.bincount(user, counts), np.bincount(category, counts) / counts.sum()
    usual = of_all[category]
    return keys, np.log((counts + _PRIOR_CLICKS * usual) / (of_user[user] + _PRIOR_CLICKS) / usual)


def _pairs(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return mix(ids[:, _USER] ^ mix(ids[:, _CATEGORY]))


def _looked_up(ids: NDArray[np.uint64], keys: NDArray[np.uint64], values: F64) -> F64:
    """The values [n] of ids, 0 for unknown ones."""
    at = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
    return np.where(keys[at] == ids, values[at], 0.0)


def _ids(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    return mix(numbers.astype(np.uint64) + np.uint64(1))


@dataclass
class Day:
    """The third day of a shop, slide by slide: how many events, the champion's logits and the labels, who alarmed."""

    events: list[int] = field(default_factory=list)  # since the champion went into service
    scores: list[NDArray[np.float32]] = field(default_factory=list)  # of what matured
    labels: list[NDArray[np.float32]] = field(default_factory=list)
    alarms: dict[str, list[int]] = field(default_factory=dict)  # by watch, the slides counted from 0
    said: list[tuple[int, str]] = field(default_factory=list)  # slide, what our watches found

    def add(
        self, events: int, scores: NDArray[np.float32], labels: NDArray[np.float32], said: Mapping[str, str]
    ) -> None:
        """One more slide; `said`: findings and their watches."""
        at = len(self.events)
        self.events.append(events + (self.events[-1] if at else 0))
        self.scores.append(scores)
        self.labels.append(labels)
        for finding, watch in said.items():
            self.alarms.setdefault(watch, []).append(at)
            self.said.append((at, finding))


class Service:
    """A champion and the project's watches, slide by slide as in a worker, on the config's defaults."""

    def __init__(self, seed: int, state: Path, noise: int = 0) -> None:
        """`state`: a folder for what goes into quarantine; `noise`: numbers watched beside the price."""
        config = structs.replace(CONFIG, state=str(state))
        numbers = ("price", *(f"noise_{at}" for at in range(noise)))
        schema = replace(SCHEMA, numbers=numbers)
        columns = replace(COLUMNS, numbers={name: at for at, name in enumerate(numbers)})
        self.day = Day()
        self.champion: Champion | None = None
        self.watching = False
        self._learned: list[ExampleBatch] = []
        self._watch = DriftWatch(columns, Drift(), seed)
        self._attribution, self._slices = Attribution(config, schema), Slices(Judging(), schema)
        self._quarantine = Quarantine(config, schema, lambda record: None)

    def copied(self, other: Service) -> Service:
        """Goes on from where the other is."""
        self.day, self.champion, self.watching = copy.deepcopy(other.day), other.champion, other.watching
        for name in ("_watch", "_attribution", "_slices", "_quarantine"):
            getattr(self, name).restore(getattr(other, name).capture())
        return self

    def take(self, slide: Slide) -> None:
        events = slide.events
        rows = select_examples(events, SCHEMA, CONFIG)
        whole = self._quarantine.inspect(slide, events, rows, self._attribution.matched(events, rows))
        examples = self._examples(events.take(rows))
        if whole and self.watching:
            self._watch.arrived(examples, slide.number, slide.end)
        matured, _ = self._quarantine.sort_out(self._attribution.step(events, rows, examples, slide.end), slide)
        scores, span, found = self._scored(matured.examples), (slide.start, slide.end), []
        if self.watching:
            found = self._watch.matured(matured.examples, matured.delays(), scores, slide.number, span)
        if self.champion is not None:
            said = {str(finding): finding.kind for finding in found} | ({} if whole else {"a broken slide": QUARANTINE})
            self.day.add(len(events), scores, matured.examples.label, said)
        else:
            self._learned.append(matured.examples)

    def begin(self, start: int, at: int) -> None:
        """The champion goes into service at `at` in a shop that began at `start`, us."""
        self.champion = Champion(ExampleBatch.concat(self._learned), start + KNOWN_H * HOUR_US)
        self._learned = []
        self._watch.published(at, self.champion.score)

    def _scored(self, examples: ExampleBatch) -> NDArray[np.float32]:
        return np.full(len(examples), np.nan, np.float32) if self.champion is None else self.champion.score(examples)

    def _examples(self, clicks: EventBatch) -> ExampleBatch:
        nothing = np.full(len(clicks), np.nan, np.float32)
        examples = ExampleBatch(
            time=clicks.time,
            ids=clicks.ids,
            numbers=clicks.numbers,
            label=nothing,
            logit_candidate=nothing,
            logit_champion=nothing,
            logit_served=nothing,
            baseline=np.full((len(clicks), 4), np.nan, np.float32),
            judged=np.ones(len(clicks), bool),
            unseen=self._slices.arrive(clicks.ids),
        )
        scores = self._scored(examples)
        return replace(examples, logit_candidate=scores, logit_champion=scores)


def quiet_day(seed: int, noise: int = 0) -> Day:
    """The third day of a shop in which nothing happens; `noise`: features watched that mean nothing."""
    with TemporaryDirectory(prefix="bench-drift-") as scratch:
        service = Service(seed, Path(scratch), noise)
        for _ in _served(service, ShopSettings(seed=seed, **_SHOP), noise):
            pass
        return service.day


def days(seed: int) -> dict[str | None, tuple[Day, Day]]:
    """By row the third day of the shop to which that happens, up to six hours after its change, and of its twin. None:
    the shop to which nothing happens, twice."""
    settings = ShopSettings(seed=seed, **_SHOP)
    changes = {row.change: row.begins for row in ROWS.values()} | {
        row.twin: row.begins for row in ROWS.values() if row.twin is not None
    }
    parted: dict[str, Service] = {}
    with TemporaryDirectory(prefix="bench-drift-") as scratch:
        service = Service(seed, Path(scratch))
        for at in _served(service, settings):
            for change in [change for change, begins in changes.items() if begins == at]:
                parted[change] = Service(seed, Path(scratch, change)).copied(service)
        changed = {change: _changed(change, settings, other) for change, other in parted.items()}
    quiet = service.day
    twins = {name: quiet if row.twin is None else changed[row.twin] for name, row in ROWS.items()}
    return {None: (quiet, quiet), **{name: (changed[row.change], twins[name]) for name, row in ROWS.items()}}


def _served(service: Service, settings: ShopSettings, noise: int = 0) -> Iterator[int]:
    """Runs a shop of three days. Gives the time since its start, us, before each slide of the third."""
    for slide in slides(settings, HOURS, noise):
        at = slide.start - settings.start
        service.watching = at >= KNOWN_H * HOUR_US  # what rates are made of is no sample of what they will be used on
        if at == LEARNED_H * HOUR_US:
            service.begin(settings.start, slide.start)
        if service.champion is not None:
            yield at
        service.take(slide)


def _changed(change: str, settings: ShopSettings, service: Service) -> Day:
    drift = Change.parse(change)
    for slide in slides(replace(settings, drift=(drift,)), CHANGED_H + FOUND_WITHIN_H):
        if slide.start >= settings.start + drift.at:
            service.take(slide)
    return service.day


def slides(settings: ShopSettings, hours: int, noise: int = 0) -> Iterator[Slide]:
    """The shop's slides, events in the order of event time."""
    shop = ShopEvents.concat(list(Shop(settings).chunks(hours * HOUR_US)))
    events = _batch(shop, noise, settings.seed).in_log_order()
    ends = np.arange(settings.start + SLIDE_US, settings.start + hours * HOUR_US + 1, SLIDE_US)
    cuts = [0, *np.searchsorted(events.time, ends).tolist()]
    for number, end in enumerate(ends.tolist()):
        yield Slide(number, end - SLIDE_US, end, events.take(slice(cuts[number], cuts[number + 1])))


def _batch(events: ShopEvents, noise: int, seed: int) -> EventBatch:
    n = len(events)
    ids = [_ids(column) for column in (events.user, events.item, events.session, events.category, events.source)]
    return EventBatch(
        time=events.time,
        topic=np.zeros(n, np.int16),
        partition=np.zeros(n, np.int32),
        offset=np.arange(n),
        kind=events.kind,
        ids=np.stack(ids, axis=1),
        numbers=np.concatenate([events.price[:, None], _noise(events, noise, seed)], axis=1).astype(np.float32),
        label=np.full(n, np.nan, np.float32),
        event_id=np.zeros(n, np.uint64),
    )


def _noise(events: ShopEvents, count: int, seed: int) -> F64:
    """Numbers [n, count] that mean nothing: every other one belongs to the user."""
    rng = np.random.default_rng([seed, count])
    columns = [
        rng.standard_normal(_SHOP["users"])[events.user] if at % 2 else rng.standard_normal(len(events))
        for at in range(count)
    ]
    return np.stack(columns, axis=1) if columns else np.empty((len(events), 0))

"""Who and what the shop consists of, and how it changes.

Tastes are vectors of independent normals; the match of a user and an item is their inner product, scaled to unit
variance. A click and a purchase are logistic in that match and in a few plain effects, with the intercepts solved so
that the shop starts at the settings' rates. So the best possible score of every click is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Rng = np.random.Generator

HOUR_US = 3_600_000_000
SOURCES = ("ads", "direct", "email", "search", "social")

_WORLD, _DRIFT = 1, 2  # stage constants of the random streams
_CALIBRATION_ROWS = 50_000
_ZIPF_SHIFT = 10.0  # keeps the most popular item near 1 %, so that few sessions click one item twice

# Effects on the log-odds of a purchase, in standard deviations; together they leave the best AUC near .8.
_QUALITY, _PROPENSITY, _TASTE, _PRICE, _SOURCE, _INTENT, _EVENING = 0.6, 0.7, 0.6, 0.5, 0.7, 0.3, 0.15
_CLICK_TASTE, _CLICK_APPEAL = 0.8, 0.4

DriftKind = Literal[
    "preference", "rate", "price", "items", "missing_feature", "season", "outage", "outage_clicks", "outage_purchases"
]

# What a drift of each kind changes, and its size when none is given.
DRIFT_SIZES: dict[str, float] = {
    "preference": 0.8,  # share of the variance of tastes, item quality and source effects drawn anew: P(y|x)
    "rate": 0.8,  # added to the log-odds of a purchase: P(y|x), and with it P(y)
    "price": 0.5,  # prices times 1 + size, with their effect on purchases: P(x) and P(y)
    "items": 0.3,  # share of the items replaced by new ones: P(x)
    "missing_feature": 0.5,  # share of the events without a price: P(x)
    "season": 6.0,  # hours of other tastes (as by preference 0.8), after which the old ones return: P(y|x), twice
    "outage": 1.0,  # hours in which every event is lost
    "outage_clicks": 1.0,  # hours in which every click is lost
    "outage_purchases": 1.0,  # hours in which every purchase is lost
}


OUTAGES = ("outage", "outage_clicks", "outage_purchases")  # the shop loses events; the world does not change


@dataclass(frozen=True)
class Drift:
    """A change `at` microseconds of event time after the start, of a size in the unit its kind has."""

    at: int
    kind: DriftKind
    size: float

    @classmethod
    def parse(cls, text: str) -> Drift:
        """KIND@HOURS or KIND@HOURS:SIZE, as rate@6:1.2. `ValueError` says what is allowed."""
        kind, _, rest = text.partition("@")
        hours, _, size = rest.partition(":")
        if kind not in DRIFT_SIZES:
            raise ValueError(f"unknown drift {kind!r}; allowed: {', '.join(DRIFT_SIZES)}")
        try:
            at = float(hours)
            drift = cls(round(at * HOUR_US), kind, float(size) if size else DRIFT_SIZES[kind])  # type: ignore[arg-type]
        except (ValueError, OverflowError):
            raise ValueError(f"drift {text!r}: expected KIND@HOURS or KIND@HOURS:SIZE, such as rate@6:1.2") from None
        drift.check()
        return drift

    def check(self) -> None:
        """`ValueError` for a size its kind cannot have."""
        hours = (0.0, 8760.0)
        limits = {"rate": (-5.0, 5.0), "price": (-0.9, 9.0), "season": hours} | dict.fromkeys(OUTAGES, hours)
        low, high = limits.get(self.kind, (0.0, 1.0))
        if self.at < 0 or not low <= self.size <= high:
            raise ValueError(
                f"drift {self.kind}: at must be >= 0 and size within [{low:g}, {high:g}], got {self.size:g}"
            )


@dataclass(frozen=True, kw_only=True)
class ShopSettings:
    """The knobs of a shop. Times in microseconds."""

    seed: int = 0
    start: int = 1_704_067_200_000_000  # 2024-01-01T00:00:00Z
    users: int = 20_000
    items: int = 2_000
    categories: int = 20
    taste_dim: int = 8
    events_per_hour: float = 50_000.0  # over a day; the traffic of the hours lies within 40 % of it
    conversion: float = 0.04  # share of the clicks that a purchase follows, at the start
    click_rate: float = 0.3  # share of the items shown that are clicked, at the start
    shown_per_session: float = 10.0
    new_items_per_hour: float = 1.0
    user_skew: float = 0.6  # exponent of the Zipf law of users
    item_skew: float = 0.9
    delay_median_s: float = 480.0  # of the purchase after its click, log-normal: 95 % within an hour
    delay_sigma: float = 1.2
    cancelled: float = 0.0  # share of the purchases that are taken back
    disorder_s: float = 2.0  # an event arrives up to this much after its time
    drift: tuple[Drift, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("users", "items", "categories", "taste_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (self.events_per_hour > 0 and 0 < self.conversion < 1 and 0 < self.click_rate < 1):
            raise ValueError("events_per_hour must be positive, conversion and click_rate between 0 and 1")
        if not 0 <= self.cancelled <= 1:
            raise ValueError(f"cancelled must be between 0 and 1, got {self.cancelled}")
        for drift in self.drift:
            drift.check()


@dataclass(frozen=True, slots=True)
class Tastes:
    """What a season changes, and the intercepts that go with it."""

    user_taste: F64
    quality: F64
    source_effect: F64
    click_base: float
    purchase_base: float


class World:
    """The state of the shop at one moment of event time; `advance` moves it on."""

    def __init__(self, settings: ShopSettings) -> None:
        self._settings = settings
        rng = np.random.default_rng([settings.seed, _WORLD])
        dim = settings.taste_dim
        self.user_taste = rng.standard_normal((settings.users, dim))
        self.propensity = rng.standard_normal(settings.users)
        self.user_source = rng.integers(len(SOURCES), size=settings.users)
        self.user_reach = _zipf_reach(settings.users, settings.user_skew)
        self.source_effect = rng.standard_normal(len(SOURCES))
        self.category_price = rng.normal(3.0, 0.8, settings.categories)  # log of the middle price
        self.category_taste = rng.standard_normal((settings.categories, dim))
        self.category = np.empty(0, np.int64)
        self.item_taste, self.quality, self.appeal = np.empty((0, dim)), np.empty(0), np.empty(0)
        self.price_offset, self.weight = np.empty(0), np.empty(0)
        self._add_items(rng, settings.items, _zipf_weights(rng, settings.items, settings.item_skew))
        self.price_factor, self.rate_shift, self.missing_share = 1.0, 0.0, 0.0
        self._due = sorted(enumerate(settings.drift), key=lambda pair: (pair[1].at, pair[0]))
        self._returns: list[tuple[int, Tastes]] = []  # when a season ends (us), and the tastes before it
        self._calibrate()

    def advance(self, rng: Rng, offset_us: int, span_us: int) -> None:
        """Moves on to `offset_us` after the start: new items of the coming `span_us`, and the drifts that are due."""
        count = int(rng.poisson(self._settings.new_items_per_hour * span_us / HOUR_US))
        if count:
            self._add_items(rng, count, rng.choice(self.weight[self.weight > 0], count))
        for _, tastes in reversed([season for season in self._returns if season[0] <= offset_us]):
            self._return_to(tastes)
        self._returns = [season for season in self._returns if season[0] > offset_us]
        while self._due and self._due[0][1].at <= offset_us:
            number, drift = self._due.pop(0)
            self._apply(drift, np.random.default_rng([self._settings.seed, _DRIFT, number]))

    def price(self, items: I64) -> F64:
        """Current price of each item, to the cent."""
        log_price = self.category_price[self.category[items]] + self.price_offset[items]
        rounded: F64 = np.round(np.exp(log_price) * self.price_factor, 2)
        return rounded

    def match(self, users: I64, items: I64) -> F64:
        """How well each item suits each user; standard normal over random pairs."""
        product: F64 = np.einsum("ij,ij->i", self.user_taste[users], self.item_taste[items])
        return product / math.sqrt(self._settings.taste_dim)

    def click_probability(self, match: F64, items: I64) -> F64:
        return sigmoid(self._click_base + _CLICK_TASTE * match + _CLICK_APPEAL * self.appeal[items])

    def purchase_logit(self, match: F64, users: I64, items: I64, sources: I64, intent: F64) -> F64:
        """Log-odds of a purchase after a click, at noon."""
        price = (self.price_offset[items] + math.log(self.price_factor)) / 0.5
        out: F64 = (
            self._purchase_base
            + self.rate_shift
            + _TASTE * match
            + _QUALITY * self.quality[items]
            + _PROPENSITY * self.propensity[users]
            - _PRICE * price
            + _SOURCE * self.source_effect[sources]
            + _INTENT * intent
        )
        return out

    def draw_users(self, rng: Rng, count: int) -> I64:
        return np.searchsorted(self.user_reach, rng.random(count), side="right").astype(np.int64)

    def draw_items(self, rng: Rng, count: int) -> I64:
        return np.searchsorted(self._item_reach, rng.random(count), side="right").astype(np.int64)

    def draw_sources(self, rng: Rng, users: I64) -> I64:
        """A user's own source seven times in ten, any other."""
        own = rng.random(len(users)) < 0.7
        return np.where(own, self.user_source[users], rng.integers(len(SOURCES), size=len(users)))

    def _add_items(self, rng: Rng, count: int, weight: F64) -> None:
        category = rng.integers(self._settings.categories, size=count)
        own = rng.standard_normal((count, self._settings.taste_dim))
        self.category = np.concatenate([self.category, category])
        self.item_taste = np.concatenate([self.item_taste, _mixed(self.category_taste[category], own, 0.5)])
        self.quality = np.concatenate([self.quality, rng.standard_normal(count)])
        self.appeal = np.concatenate([self.appeal, rng.standard_normal(count)])
        self.price_offset = np.concatenate([self.price_offset, rng.normal(0.0, 0.5, count)])
        self.weight = np.concatenate([self.weight, weight])
        self._item_reach = _reach(self.weight)

    def _apply(self, drift: Drift, rng: Rng) -> None:
        match drift.kind:
            case "preference":
                self._change_tastes(rng, drift.size)
            case "season":
                bases = self._click_base, self._purchase_base
                before = Tastes(self.user_taste, self.quality, self.source_effect, *bases)
                self._returns.append((drift.at + round(drift.size * HOUR_US), before))
                self._change_tastes(rng, DRIFT_SIZES["preference"])
            case "rate":
                self.rate_shift += drift.size
            case "price":
                self.price_factor *= 1.0 + drift.size
            case "items":
                alive = np.flatnonzero(self.weight > 0)
                gone = rng.choice(alive, round(drift.size * len(alive)), replace=False)
                weight = self.weight[gone]
                self.weight[gone] = 0.0
                self._add_items(rng, len(gone), weight)
            case "missing_feature":
                self.missing_share = drift.size
            case "outage" | "outage_clicks" | "outage_purchases":
                pass  # see OUTAGES

    def _change_tastes(self, rng: Rng, share: float) -> None:
        self.user_taste = _mixed(self.user_taste, rng.standard_normal(self.user_taste.shape), share)
        self.quality = _mixed(self.quality, rng.standard_normal(self.quality.shape), share)
        self.source_effect = _mixed(self.source_effect, rng.standard_normal(len(SOURCES)), share)
        self._calibrate()

    def _return_to(self, tastes: Tastes) -> None:
        """The tastes of before; items that came since keep their quality."""
        self.user_taste, self.source_effect = tastes.user_taste, tastes.source_effect
        self.quality = np.concatenate([tastes.quality, self.quality[len(tastes.quality) :]])
        self._click_base, self._purchase_base = tastes.click_base, tastes.purchase_base

    def _calibrate(self) -> None:
        """Solves both intercepts for the settings' rates over random sessions, other drifts left out of account."""
        rng = np.random.default_rng([self._settings.seed, _WORLD, 1])
        users, items = self.draw_users(rng, _CALIBRATION_ROWS), self.draw_items(rng, _CALIBRATION_ROWS)
        sources, intent = self.draw_sources(rng, users), rng.standard_normal(_CALIBRATION_ROWS)
        kept = self.price_factor, self.rate_shift
        self.price_factor, self.rate_shift = 1.0, 0.0
        self._click_base = self._purchase_base = 0.0
        match = self.match(users, items)
        click = _CLICK_TASTE * match + _CLICK_APPEAL * self.appeal[items]
        self._click_base = _intercept(click, np.ones_like(click), self._settings.click_rate)
        weights = self.click_probability(match, items)
        logit = self.purchase_logit(match, users, items, sources, intent)
        self._purchase_base = _intercept(logit, weights, self._settings.conversion)
        self.price_factor, self.rate_shift = kept


def sigmoid(logit: F64) -> F64:
    out: F64 = 0.5 * (1.0 + np.tanh(0.5 * logit))  # never overflows
    return out


def evening_effect(time_us: I64) -> F64:
    """Log-odds added by the hour of day: highest at 20:00 UTC."""
    angle = 2 * math.pi * (time_us / HOUR_US - 20.0) / 24.0
    out: F64 = _EVENING * math.sqrt(2) * np.cos(angle)
    return out


def _mixed(old: F64, new: F64, share: float) -> F64:
    """Keeps the variance: `share` of it comes from `new`."""
    return math.sqrt(1.0 - share) * old + math.sqrt(share) * new


def _zipf_weights(rng: Rng, count: int, skew: float) -> F64:
    """Popularity by the Zipf-Mandelbrot law, ranks dealt out at random."""
    weights: F64 = np.power(rng.permutation(count) + 1.0 + _ZIPF_SHIFT, -skew)
    return weights


def _zipf_reach(count: int, skew: float) -> F64:
    return _reach(np.power(np.arange(1.0, count + 1.0), -skew))


def _reach(weights: F64) -> F64:
    """Cumulative shares, for drawing by `searchsorted`; the last is exactly 1."""
    total = np.cumsum(weights)
    shares: F64 = total / total[-1]
    return shares


def _intercept(logit: F64, weights: F64, rate: float) -> float:
    """b with weighted mean of sigmoid(b + logit) = rate, by bisection to 1e-9."""
    low, high = -30.0, 30.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        mean: Any = np.average(sigmoid(middle + logit), weights=weights)
        low, high = (middle, high) if mean < rate else (low, middle)
    return (low + high) / 2

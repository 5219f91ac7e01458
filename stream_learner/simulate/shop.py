"""Sessions, clicks and purchases: the events of a `World`, column-wise, in order of arrival.

Event time is stepped through in slots of five minutes, each with its own random stream, so the events depend on the
settings alone and not on how many are asked for. Who visits sees a few items one after another, clicks some, and
buys some of those after a log-normal delay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import Columns
from stream_learner.simulate.world import F64, HOUR_US, I64, OUTAGES, Rng, ShopSettings, World, evening_effect, sigmoid

CLICK, PURCHASE, CANCEL = 0, 1, 2
KINDS = ("click", "purchase", "cancel")

_LOST_KIND = {"outage_clicks": CLICK, "outage_purchases": PURCHASE}
_SLOT_US = HOUR_US // 12
_SHOP = 3  # stage constant of the random streams
_SHOWN_EVERY_S = 20.0
_SEEN_AGAIN = 0.05  # share of the items shown that are the one shown just before
_INTENT_LENGTH = 0.3  # who intends to buy stays longer: log of the session's length per standard deviation


@dataclass(frozen=True, slots=True)
class ShopEvents(Columns):
    """Events in order of arrival; all columns have shape [n]. Users, items and so on are numbers counted from 0."""

    time: I64  # us, whole milliseconds
    kind: NDArray[np.int8]  # CLICK, PURCHASE or CANCEL
    user: I64
    item: I64
    category: I64
    source: I64  # index into SOURCES
    session: I64
    price: F64  # NaN where a drift lost it
    probability: F64  # of clicks: that a purchase follows, the truth; NaN for others
    arrival: I64  # us; within `disorder_s` after `time`
    number: I64  # of the event, counted from 0 in order of arrival
    converts: F64  # of clicks: 1 where the label to come is positive, 0 where not; NaN where that is not revealed


class Shop:
    """A stream of `ShopEvents`; the same settings give the same events."""

    def __init__(self, settings: ShopSettings) -> None:
        self.settings = settings

    def chunks(self, span_us: int | None = None) -> Iterator[ShopEvents]:
        """The events of slot after slot, from the settings' start on; slots may be empty.

        With `span_us`, those that arrive within it; without, the stream has no end.
        """
        world = World(self.settings)
        waiting: ShopEvents | None = None
        sessions = events = slot = 0
        while span_us is None or slot * _SLOT_US < span_us:
            rng = np.random.default_rng([self.settings.seed, _SHOP, slot])
            world.advance(rng, slot * _SLOT_US, _SLOT_US)
            clicks, visits = self._clicks(rng, world, slot * _SLOT_US, sessions)
            sessions += visits
            purchases = self._purchases(rng, clicks)
            fresh = [clicks, purchases, self._cancellations(rng, purchases)]
            waiting = ShopEvents.concat(fresh if waiting is None else [waiting, *fresh])
            slot += 1
            end_us = slot * _SLOT_US if span_us is None else min(slot * _SLOT_US, span_us)
            arrived = waiting.arrival < self.settings.start + end_us
            chunk = self._delivered(waiting.take(arrived), events)
            waiting = waiting.take(~arrived)
            events += len(chunk)
            yield chunk

    def _clicks(self, rng: Rng, world: World, offset_us: int, first_session: int) -> tuple[ShopEvents, int]:
        """Clicks of the sessions that begin in a slot, and how many sessions those are."""
        visits = int(rng.poisson(self._sessions_per_slot(offset_us)))
        user = world.draw_users(rng, visits)
        intent = rng.standard_normal(visits)
        length = self.settings.shown_per_session * np.exp(_INTENT_LENGTH * intent - _INTENT_LENGTH**2 / 2)
        shown = rng.geometric(1.0 / np.maximum(length, 1.0))
        session = np.repeat(np.arange(visits), shown)
        begin = self.settings.start + offset_us + rng.integers(_SLOT_US, size=visits)
        time = begin[session] + _elapsed_us(rng, shown)
        time -= time % 1000
        item = _seen_again(rng, world.draw_items(rng, len(session)), shown)
        match = world.match(user[session], item)
        source = world.draw_sources(rng, user)[session]
        logit = world.purchase_logit(match, user[session], item, source, intent[session]) + evening_effect(time)
        lost = rng.random(len(session)) < world.missing_share
        late = rng.integers(self._disorder_us, size=len(session))
        clicked = rng.random(len(session)) < world.click_probability(match, item)
        clicks = ShopEvents(
            time=time,
            kind=np.full(len(session), CLICK, np.int8),
            user=user[session],
            item=item,
            category=world.category[item],
            source=source,
            session=first_session + session,
            price=np.where(lost, np.nan, world.price(item)),
            probability=sigmoid(logit),
            arrival=time + late,
            number=np.zeros(len(session), np.int64),
            converts=np.full(len(session), np.nan),
        )
        return clicks.take(clicked), visits

    def _purchases(self, rng: Rng, clicks: ShopEvents) -> ShopEvents:
        bought = clicks.take(rng.random(len(clicks)) < clicks.probability)
        count = len(bought)
        median_us = self.settings.delay_median_s * 1e6
        delay = median_us * np.exp(self.settings.delay_sigma * rng.standard_normal(count))
        time = bought.time + delay.astype(np.int64)
        time += -time % 1000  # up, so that a purchase never comes before its click
        return ShopEvents(
            time=time,
            kind=np.full(count, PURCHASE, np.int8),
            user=bought.user,
            item=bought.item,
            category=bought.category,
            source=bought.source,
            session=bought.session,
            price=bought.price,
            probability=np.full(count, np.nan),
            arrival=time + rng.integers(self._disorder_us, size=count),
            number=np.zeros(count, np.int64),
            converts=np.full(count, np.nan),
        )

    def _cancellations(self, rng: Rng, purchases: ShopEvents) -> ShopEvents:
        """Of a share of the purchases, as long after them as they were after their clicks on the median."""
        if not self.settings.cancelled:
            return purchases.take(slice(0, 0))
        undone = purchases.take(rng.random(len(purchases)) < self.settings.cancelled)
        time = undone.time + rng.exponential(self.settings.delay_median_s * 1e6, len(undone)).astype(np.int64)
        time += 1000 - time % 1000  # up, so that a cancellation never comes before its purchase
        arrival = time + rng.integers(self._disorder_us, size=len(undone))
        return replace(undone, time=time, arrival=arrival, kind=np.full(len(undone), CANCEL, np.int8))

    def _delivered(self, events: ShopEvents, first_number: int) -> ShopEvents:
        """In order of arrival and numbered, without those that an outage lost."""
        offset = events.time - self.settings.start
        lost = np.zeros(len(events), bool)
        for drift in self.settings.drift:
            if drift.kind in OUTAGES:
                during = (offset >= drift.at) & (offset < drift.at + round(drift.size * HOUR_US))
                lost |= during & (drift.kind == "outage" or events.kind == _LOST_KIND.get(drift.kind))
        kept = events.take(~lost)
        kept = kept.take(np.argsort(kept.arrival, kind="stable"))
        kept.number[:] = first_number + np.arange(len(kept))
        return kept

    @property
    def _disorder_us(self) -> int:
        return max(round(self.settings.disorder_s * 1e6), 1)

    def _sessions_per_slot(self, offset_us: int) -> float:
        """Mean number of sessions; traffic peaks at 19:00 UTC and is lowest twelve hours from it."""
        settings = self.settings
        hour = (settings.start + offset_us + _SLOT_US / 2) / HOUR_US
        season = 1.0 + 0.4 * math.cos(2 * math.pi * (hour - 19.0) / 24.0)
        events_per_session = settings.shown_per_session * settings.click_rate * (1.0 + settings.conversion)
        return settings.events_per_hour * season * _SLOT_US / HOUR_US / events_per_session


def limited(chunks: Iterator[ShopEvents], events: int) -> Iterator[ShopEvents]:
    """The first `events` events."""
    left = events
    for chunk in chunks:
        yield chunk.take(slice(0, left))
        left -= len(chunk)
        if left <= 0:
            return


def _elapsed_us(rng: Rng, shown: I64) -> I64:
    """Time since its session began of each item shown; the first after 0. `shown` counts them per session, all >= 1."""
    gaps = (rng.exponential(_SHOWN_EVERY_S * 1e6, int(shown.sum()))).astype(np.int64)
    first = np.cumsum(shown) - shown
    gaps[first] = 0
    total = np.cumsum(gaps)
    elapsed: I64 = total - np.repeat(total[first], shown)
    return elapsed


def _seen_again(rng: Rng, item: I64, shown: I64) -> I64:
    """Replaces some items by the one shown before them in the session."""
    again = rng.random(len(item)) < _SEEN_AGAIN
    again[np.cumsum(shown) - shown] = False
    shown_at: I64 = np.maximum.accumulate(np.where(again, 0, np.arange(len(item))))
    return item[shown_at]

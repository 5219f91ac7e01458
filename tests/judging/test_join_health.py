"""What is found broken in a made-up source from which clicks, purchases, a feature or everything was taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from outages import (
    CLICK,
    DAY,
    HOUR,
    PURCHASE,
    Watched,
    broken_in,
    config_of,
    funnelled,
    rekeyed,
    slides_of,
    stream,
    within,
    without,
    without_price,
)

OUTAGE = 4 * DAY + 12 * HOUR  # a day and a half after the warm-up of `config_of`
END = OUTAGE + 3 * HOUR
SLIDE = HOUR // 2


def spans(found: Any) -> list[tuple[int, int]]:
    return [(broken.start, broken.end) for broken in found]


@pytest.mark.parametrize("seed", range(2))
def test_a_source_with_seasons_and_bursts_is_whole(seed: int) -> None:
    assert broken_in(stream(seed, 16, 300, bursts=6), config_of(warm_up="7d")) == []


@pytest.mark.parametrize(
    ("take", "kind", "measure"),
    [
        (without, CLICK, "click examples"),
        (without, PURCHASE, "purchase events"),
        (without_price, CLICK, "coverage of price"),
        (rekeyed, PURCHASE, "matched purchase events"),
    ],
)
def test_what_is_missing_is_found_slide_by_slide(take: Any, kind: int, measure: str) -> None:
    events = take(stream(1, 5.5, 2000), within(OUTAGE, END, kind))
    found = broken_in(events, config_of())
    wanted = [(start, start + SLIDE) for start in range(OUTAGE, END, SLIDE)]
    assert spans(found) == wanted
    assert all(measure in broken.measures for broken in found)
    assert [b.number for b in found] == list(range(found[0].number, found[0].number + len(wanted)))
    assert f"{measure}: " in found[0].reason and "were to be expected" in found[0].reason


def test_with_few_events_several_slides_tell_together() -> None:
    events = without(stream(2, 5.5, 600), within(OUTAGE, END, PURCHASE))
    found = broken_in(events, config_of(horizon="1d"))
    assert spans(found)[0][0] <= OUTAGE + SLIDE and spans(found)[-1] == (END - SLIDE, END)
    assert len(set(spans(found))) == len(found) >= 4  # each once, those before the discovery too


def test_silence_is_told_with_the_slide_that_ends_it() -> None:
    events = without(stream(1, 5.5, 2000), within(OUTAGE, END))
    (broken,) = broken_in(events, config_of())
    assert (broken.start, broken.end) == (OUTAGE, END)
    assert "click examples: 0 where" in broken.reason


def test_clicks_without_later_purchases_show_when_they_mature() -> None:
    """Purchases come as ever and follow a click, but always the same one."""
    events = funnelled(stream(1, 5.5, 4000), within(OUTAGE, OUTAGE + 2 * HOUR, PURCHASE))
    found = broken_in(events, config_of(horizon="3h"))
    assert found and all(OUTAGE <= start < OUTAGE + 2 * HOUR for start, _ in spans(found))
    assert {measure for broken in found for measure in broken.measures} == {"positives among the click examples"}


def test_a_click_outage_is_no_reason_to_miss_the_clicks_of_later_purchases() -> None:
    """Purchases after the outage whose clicks lay in it follow none: known, and no outage of its own."""
    events = without(stream(1, 5.5, 2000), within(OUTAGE, OUTAGE + 6 * HOUR, CLICK))
    assert max(end for _, end in spans(broken_in(events, config_of(horizon="12h")))) == OUTAGE + 6 * HOUR


def test_what_lasts_is_the_new_normal_and_its_season_is_learned_anew() -> None:
    events = without(stream(1, 10, 1000), lambda e: (e.time >= OUTAGE) & (e.offset % 20 > 0))
    again = 9 * DAY + 12 * HOUR
    events = without(events, within(again, again + 6 * HOUR))
    found = spans(broken_in(events, config_of(max_span="1d", warm_up="2d")))
    first = [start for start, _ in found if start < again]
    assert first[0] <= OUTAGE + 2 * SLIDE and OUTAGE + DAY // 2 < first[-1] <= OUTAGE + 2 * DAY
    assert found[-1] == (again, again + 6 * HOUR)  # judged again after its warm-up


@pytest.mark.parametrize("options", [{"warm_up": "20d"}, {"enabled": "false"}])
def test_nothing_is_found_before_a_season_is_known_or_where_it_is_not_wanted(options: dict[str, Any]) -> None:
    events = without(stream(1, 5.5, 2000), within(OUTAGE, END, CLICK))
    assert broken_in(events, config_of(**options)) == []


def test_a_restored_watch_goes_on_as_if_nothing_had_happened() -> None:
    events = without(stream(2, 5.5, 600), within(OUTAGE, END, PURCHASE))
    config = config_of(horizon="1d")
    straight, halting = Watched(config), Watched(config)
    rng = np.random.default_rng(0)
    for slide in slides_of(events, config):
        if slide.start > 3 * DAY and rng.random() < 0.3:
            fresh = Watched(config)
            fresh.health.restore(halting.health.capture())
            fresh.attribution.restore(halting.attribution.capture())
            fresh.found = halting.found
            halting = fresh
        assert straight.step(slide) == halting.step(slide)
        assert straight.health.shares() == halting.health.shares()

"""What a ranking version's card tells, and that it is right."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "publishing"))
from test_card import Text
from versions import manifest_of

from stream_learner.next_item.card import Listed, Ranked, Turnover, card, ranked, turnover
from stream_learner.next_item.model import RankingModel
from stream_learner.next_item.sessions import Asked
from stream_learner.publishing.card_text import markdown, page
from stream_learner.settings import NextItem
from stream_learner.settings.next_item import Catalogue, Sessions

NUMBERS = {"n": 400, "recall@20": 0.5, "mrr@20": 0.25}
METRICS = {
    **NUMBERS,
    "lifetime": {"candidate": {**NUMBERS, "mrr@20": 0.21}, "champion": {**NUMBERS, "mrr@20": 0.2}},
    "slices": {"new_item": {**NUMBERS, "n": 7, "mrr@20": 0.01}},
    "catalogue": 1234,
    "coverage": 0.625,
    "novelty_bits": 9.5,
}
MANIFEST = manifest_of(9, model="next_item", parent=8, metrics=METRICS, verdict={"reason": "passed: proven"})


def popularity(items: list[int], shares: list[float]) -> RankingModel:
    """A model that knows nothing but how popular items are."""
    model = RankingModel(NextItem(model="popularity", catalogue=Catalogue(capacity=8), sessions=Sessions(recent=3)), 0)
    share = np.full(9, -1.0, np.float32)
    share[1 : len(items) + 1] = shares
    model.take_in((np.array(items, np.uint64), np.arange(1, len(items) + 1)), share, None)
    return model


def test_it_tells_all_of_a_version() -> None:
    made = card(MANIFEST, "1d", Turnover(3, 2, 0.125), Ranked(20, {"the latest item": 0.4}, 16))
    text = markdown(made)
    for expected in (
        "# next_item, version 9",
        "passed: proven",
        "| Follows version | 8 |",
        "| candidate, last 1d | 0.5 | 0.25 | 400 |",
        "| champion, lifetime | 0.5 | 0.2 | 400 |",
        "| new_item | 0.5 | 0.01 | 7 |",
        "| Items that can be recommended | 1,234 |",
        "3 items are new and 2 are gone; what is popular moved by 0.125 bits",
        "| the latest item | 0.4 |",
    ):
        assert expected in text, expected
    assert Text(page(made)).opened == []


def test_a_first_version_and_a_rollback_say_so() -> None:
    first = markdown(card(MANIFEST, "1d", None, Ranked(20, {}, 0)))
    assert "There was no version before" in first and "No session to look at" in first
    again = manifest_of(10, model="next_item", rollback_of=7, metrics=METRICS)
    told = markdown(card(again, "1d", None, Ranked(20, {}, 0)))
    assert "files of version 7 under a new number" in told and "new_item" not in told


def test_a_turnover_counts_items_and_measures_what_is_popular() -> None:
    before, same = Listed.of(popularity([5, 9], [0.5, 0.5])), Listed.of(popularity([9, 5], [0.5, 0.5]))
    assert turnover(None, before) is None
    assert turnover(before, same) == Turnover(0, 0, 0.0)
    assert turnover(before, Listed.of(popularity([1, 2, 3], [0.2, 0.3, 0.5]))) == Turnover(3, 2, pytest.approx(1.0))
    moved = turnover(before, Listed.of(popularity([5, 9], [0.9, 0.1])))
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    middle = (p + q) / 2
    expected = sum((one * np.log2(one / middle)).sum() for one in (p, q)) / 2
    assert moved is not None and moved.moved_bits == pytest.approx(expected, rel=1e-5)


def test_what_a_session_does_not_decide_stays_when_it_is_left_out() -> None:
    model = popularity([5, 9, 7], [0.5, 0.3, 0.2])
    sessions = np.array([[5, 9, 0], [7, 0, 0]], np.uint64)
    told = ranked(model, Asked.by_nobody(sessions), 4)  # fewer items than asked for
    assert told.sessions == 2 and set(told.kept.values()) == {1.0}
    assert set(told.kept) == {"the latest item", "the item before it", "all but the latest item", "the whole session"}
    assert ranked(model, Asked.by_nobody(sessions[:0]), 4).kept == {}

"""Which columns the model sees."""

from __future__ import annotations

import numpy as np
import pytest
from model_inputs import EVERYTHING, setting

from stream_learner.errors import ConfigError


def test_all_columns_by_default_with_their_place_in_the_example():
    made = setting()
    every = ["price", "rank", *(column.name for column in made.columns)]
    assert [column.name for column in made.features.numbers] == every
    assert [column.source for column in made.features.numbers] == list(range(len(every)))
    assert [column.transform for column in made.features.numbers[:2]] == ["log1p", "none"]
    assert [(c.name, c.column, c.table, c.rows, c.dim) for c in made.features.ids] == [
        ("user", 0, "hashed", 1000, 4),
        ("item", 1, "exact", 100, 4),
        ("category", 3, "hashed", 16, 2),
    ]


def test_groups_go_missing_together_and_recencies_alone():
    features = setting().features
    groups = features.groups()
    assert list(groups) == ["price", "rank", "user", "item", "user*item"]
    assert all(features.numbers[i].name.startswith("user_item_") for i in groups["user*item"])
    own = [features.numbers[i].name for i in features.own_indicators()]
    assert own == [f"{key}_recency_{kind}" for key in ("user", "item", "user_item") for kind in ("click", "purchase")]


def test_chosen_columns_keep_their_source():
    made = setting(
        base=EVERYTHING.replace(
            "{price: {transform: log1p}, rank: {}}", "{rank: {}}\n  aggregates: ['.*_rate_1d', item_click_1h]"
        )
    )
    assert [c.name for c in made.features.numbers] == [
        "rank",
        "user_rate_1d",
        "item_click_1h",
        "item_rate_1d",
        "user_item_rate_1d",
    ]
    names = ["price", "rank", *(column.name for column in made.columns)]
    assert [names[c.source] for c in made.features.numbers] == [c.name for c in made.features.numbers]
    row = np.arange(len(names), dtype=np.float32)[None]
    assert made.features.take_numbers(row).tolist() == [[c.source for c in made.features.numbers]]


def test_a_pattern_must_match_the_whole_name_of_something():
    with pytest.raises(ConfigError, match=r"'item_click' matches no aggregate column; columns: user_click_1h"):
        setting(base=EVERYTHING.replace("  numeric:", "  aggregates: [item_click]\n  numeric:"))


def test_no_aggregates_and_no_times_leave_ids_and_numbers():
    made = setting(
        base=EVERYTHING.replace(
            "  numeric:", "  aggregates: []\n  hour_of_day: false\n  day_of_week: false\n  numeric:"
        )
    )
    assert made.features.dense_names() == ["price", "rank", "price missing", "rank missing"]


def test_nothing_at_all_is_refused():
    nothing = EVERYTHING.split("features:")[0] + (
        "features: {ids: {}, numeric: {}, aggregates: [], hour_of_day: false, day_of_week: false}\n"
    )
    with pytest.raises(ConfigError, match="nothing for the model to see"):
        setting(base=nothing)


def test_ids_are_handed_over_bit_by_bit():
    features = setting().features
    ids = np.array([[2**64 - 1, 2**63, 5, 0]], np.uint64)
    assert features.take_ids(ids).view(np.uint64).tolist() == [[2**64 - 1, 2**63, 0]]

"""The budget that keeps learning to its share of a core: when it changes, and by how much."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stream_learner import config as configs
from stream_learner.errors import ConfigError
from stream_learner.learning.learned import Learned
from stream_learner.pace import Pace


def pace_of(share: float | None = 0.5, budget: int | None = None, batch: int = 10) -> Pace:
    """Slides of 10 s: at half a core 5 CPU-seconds each."""
    text = f"learning: {{core_share: {share or 'null'}, budget: {budget or 'null'}, batch_size: {batch}}}"
    bounds: Any = SimpleNamespace(keep_to=lambda rows: None)
    return Pace(configs.parse(f"slides: {{slide: 10s}}\n{text}"), bounds)


def rows_of(rows: int, skipped: int = 0) -> Learned:
    return Learned(rows, 0, 1, 0.1, skipped, 0)


def test_what_fits_in_is_not_bounded() -> None:
    pace = pace_of()
    assert pace.wanted() is None  # nothing is known yet
    pace.took(4.0, rows_of(1000))
    assert pace.wanted() is None


def test_what_does_not_is_cut_and_freed_again_step_by_step() -> None:
    pace = pace_of()
    pace.took(10.0, rows_of(1000))  # 10 ms a row: 500 rows are half a core
    assert pace.wanted() == 500
    pace.obey(500)
    pace.took(5.0, rows_of(500, 500))
    assert pace.wanted() is None
    for _ in range(30):
        pace.took(0.5, rows_of(500, 500))  # rows have become cheap: 1 ms each, 5,000 would be half a core
    assert pace.wanted() == 1000  # twice as many at most
    pace.obey(1000)
    pace.took(1.0, rows_of(1000))
    assert pace.wanted() is None  # all there is to learn fits in


def test_bounds_and_small_changes() -> None:
    pace = pace_of(budget=400, batch=250)
    pace.took(10.0, rows_of(400, 5000))
    assert pace.wanted() == 250  # 200 would be right; a batch is the least
    pace.obey(250)
    for _ in range(40):
        pace.took(0.25, rows_of(250, 5000))
    assert pace.wanted() == 400  # `learning.budget` is the most
    near = pace_of()
    near.obey(500)
    near.took(5.5, rows_of(500, 500))
    assert near.wanted() is None  # 450: not worth a line


def test_off_it_watches_only_and_obeys_a_journal() -> None:
    told: list[int | None] = []
    pace = pace_of(share=None)
    pace.took(100.0, rows_of(10))
    assert pace.wanted() is None
    pace._contenders = SimpleNamespace(keep_to=told.append)  # type: ignore[assignment]
    pace.obey(70)
    state = pace.capture()
    pace.restore({"budget": None})
    pace.restore(state)
    assert told == [70, None, 70] and pace.budget == 70


def test_slides_by_count_have_no_time_to_share() -> None:
    with pytest.raises(ConfigError, match=r"learning\.core_share: slides by count"):
        configs.parse("learning: {core_share: 0.5}\nslides: {by_count: {size: 100}}")

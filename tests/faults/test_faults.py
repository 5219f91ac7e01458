"""Killed at every numbered step, at any storage operation and at any moment: the worker comes to the same model.

The quick form kills once in each step on a real broker; the long form is sixty seeded trials, each of up to four kills
with damage between them. `python -m tests.faults --kills N --seed S` runs any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .driver import Driver
from .plans import POWER_CUT, Cut, Plan, make_plan
from .trials import Reference, Result, make_reference, missing_announcements, run_plans
from .worlds import World, kafka_world, make_stream

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

SEED = 7
LONG_SEED, LONG_TRIALS = 1, 60

# Where, which of its passes (counted from the last if negative), and what else happens to the state.
STEPS: dict[str, tuple[tuple[str, int, str | None], ...]] = {
    "1 in a slide": (("1 learner/learn/after", 9, None),),
    "2 half a verdict": (("2 verdicts/append/torn", 3, "torn verdicts"),),
    "3 captured": (("3 writer/submit/after", 5, "leftovers"),),
    "4 half a dead letter": (("4 letters/append/torn", 2, "torn letters"),),
    "5 version written": (("5 version/write/after", 4, "torn version"), ("5 files/check/before", 1, None)),
    "6 snapshot named": (("6 snapshot/rename_dir/before", 6, None), ("6 snapshot/rename_dir/after", 2, POWER_CUT)),
    "6 snapshot torn": (("6 snapshot/write/after", 8, "torn snapshot"),),
    "7 pointer moved": (("7 pointer/point/after", 3, POWER_CUT),),
    "8 offsets committed": (("8 source/commit/after", 7, "torn journal"),),
    "9 pruning": (("9 versions/prune/before", -1, None), ("restore/restore/before", 1, None)),
}


def quick_plans(census: dict[str, int]) -> list[Plan]:
    plans = []
    for number, steps in enumerate(STEPS.values()):
        cuts = tuple(Cut(place, nth if nth > 0 else census[place] + 1 + nth) for place, nth, _ in steps)
        damages = tuple(damage for _, _, damage in steps)
        plans.append(Plan((SEED, number), cuts, damages, tuple({} for _ in range(len(cuts) + 1))))
    return plans


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("driver") / "output") as driver:
        yield driver


def reference_on(folder: Path, driver: Driver, seed: int, kafka: Any) -> tuple[World, Reference]:
    world = kafka_world(folder, driver, make_stream(seed), kafka)
    reference = make_reference(world)
    assert reference.verdict.differences == []
    assert (reference.verdict.lost, reference.verdict.duplicated) == (0, 0)
    return world, reference


def unequal(results: list[Result]) -> list[Any]:
    """What to show of those that were not equal."""
    return [(r.plan, r.happened, r.verdict, str(r.folder)) for r in results if not r.verdict.equal]


def test_killed_in_every_step(driver: Driver, kafka: Any, tmp_path: Path) -> None:
    world, reference = reference_on(tmp_path, driver, SEED, kafka)
    assert len(reference.outcome.report["versions"]) >= 6
    results = run_plans(world, reference, quick_plans(reference.census), jobs=2)
    assert unequal(results) == []
    assert [r.killed for r in results] == [len(r.plan.cuts) for r in results]  # every place was reached
    assert missing_announcements(world, reference, results) == []


@pytest.mark.long
def test_killed_anywhere(driver: Driver, kafka: Any, tmp_path: Path) -> None:
    world, reference = reference_on(tmp_path, driver, LONG_SEED, kafka)
    plans = [make_plan(LONG_SEED, number, reference.census) for number in range(LONG_TRIALS)]
    results = run_plans(world, reference, plans, jobs=2)
    assert unequal(results) == []
    assert sum(r.killed for r in results) >= LONG_TRIALS
    assert missing_announcements(world, reference, results) == []

"""Killed at every numbered step, at any storage operation and at any moment, and hurt in other ways: the worker comes
to the same model.

The quick form kills once in each step on a real broker, and tries a few of the faults; the long form is sixty seeded
trials, each of up to four kills with damage between them or of a kill and a fault, and topics that grow.
`python -m tests.faults --kills N --seed S` runs any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .driver import Driver
from .faults import FAULTS, possible
from .growing import run_growing
from .plans import POWER_CUT, Cut, Plan, fault_cut, make_plan
from .trials import Reference, Result, make_reference, missing_announcements, run_plans
from .worlds import World, kafka_world, make_stream

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

SEED = 7
LONG_SEED, LONG_TRIALS, LONG_GROWING = 1, 60, 3
QUICK_FAULTS = (
    "frozen past its lease, standby takes over",
    "SIGKILL, standby takes over",
    "disk: EIO, passing",
    "disk: EIO, lasting",
    "disk full",
    "connections cut",
)

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


def fault_plans(census: dict[str, int], faults: Sequence[str]) -> list[Plan]:
    """One life each, to which the fault happens."""
    plans = []
    for number, fault in enumerate(faults, start=len(STEPS)):
        hurt = fault_cut(fault, census, np.random.default_rng([SEED, number]))
        plans.append(Plan((SEED, number), (hurt,), (None,), ({}, {})))
    return plans


@contextmanager
def reference_on(folder: Path, driver: Driver, seed: int, kafka: Any) -> Iterator[tuple[World, Reference]]:
    world = kafka_world(folder, driver, make_stream(seed), kafka, hurt=True)
    try:
        reference = make_reference(world)
        assert reference.verdict.differences == []
        assert (reference.verdict.lost, reference.verdict.duplicated) == (0, 0)
        yield world, reference
    finally:
        world.close()


def unequal(results: list[Result]) -> list[Any]:
    """What to show of those that were not equal."""
    return [(r.plan, r.happened, r.verdict, str(r.folder)) for r in results if not r.verdict.equal]


@pytest.fixture(scope="module")
def quick(driver: Driver, kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Reference]]:
    with reference_on(tmp_path_factory.mktemp("quick"), driver, SEED, kafka) as both:
        yield both


def test_killed_in_every_step(quick: tuple[World, Reference]) -> None:
    world, reference = quick
    assert len(reference.outcome.report["versions"]) >= 6
    results = run_plans(world, reference, quick_plans(reference.census), jobs=2)
    assert unequal(results) == []
    assert [r.killed for r in results] == [len(r.plan.cuts) for r in results]  # every place was reached
    assert missing_announcements(world, reference, results) == []


def test_hurt_in_other_ways(quick: tuple[World, Reference]) -> None:
    """Those faults that leave a broker alone that others use."""
    world, reference = quick
    faults = [fault for fault in QUICK_FAULTS if fault in possible(world)]
    results = run_plans(world, reference, fault_plans(reference.census, faults), jobs=3)
    assert unequal(results) == []
    assert [list(r.kinds) for r in results] == [[fault] for fault in faults]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_and_hurt_anywhere(driver: Driver, own_kafka: Any, tmp_path: Path) -> None:
    with reference_on(tmp_path, driver, LONG_SEED, own_kafka) as (world, reference):
        plans = [make_plan(LONG_SEED, n, reference.census, possible(world)) for n in range(LONG_TRIALS)]
        results = run_plans(world, reference, plans, jobs=2)
        assert unequal(results) == []
        assert sum(r.killed for r in results) >= LONG_TRIALS
        assert set(FAULTS) <= {kind for r in results for kind in r.kinds}
        assert missing_announcements(world, reference, results) == []
        grown = [run_growing(world, LONG_SEED, number) for number in range(LONG_GROWING)]
        assert unequal(grown) == []

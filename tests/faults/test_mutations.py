"""The harness notices a broken protocol: five ways to break it, and what it says of each.

Reference and killed worker are broken alike, so it is the kill that shows it.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .driver import Driver
from .mutations import MUTATIONS
from .plans import POLL, POWER_CUT, Cut, Plan
from .stream import Stream
from .trials import Result, make_reference, run_trial
from .verdicts import Verdict
from .worlds import files_world, make_stream

SEED = 3
LATE = 6  # a snapshot, or a version, with enough before it that was learned

PLANS: dict[str | None, Plan] = {
    None: Plan((SEED, 0), (Cut("7 pointer/point/before", LATE),), (POWER_CUT,), ({}, {POLL: 400})),
    "commit offsets before the snapshot": Plan(
        (SEED, 1), (Cut("6 snapshot/write/before", LATE + 1),), (None,), ({}, {})
    ),
    "forget the replay buffer": Plan((SEED, 2), (Cut("1 learner/learn/before", 20),), (None,), ({}, {})),
    "forget the optimizer slots": Plan((SEED, 3), (Cut("1 learner/learn/before", 20),), (None,), ({}, {})),
    "publish before fsync": Plan((SEED, 4), (Cut("7 pointer/point/before", LATE),), (POWER_CUT,), ({}, {})),
    "count late events by poll": Plan((SEED, 5), (Cut("1 learner/learn/before", 20),), (None,), ({}, {POLL: 400})),
}

# In the words of the verdict: what must be said, whatever else is.
_OTHER_MODEL = "model_sha256|not those it was made from"  # at the end, or where a version was there before the kill
SYMPTOMS = {
    "commit offsets before the snapshot": "its state had consumed to",
    "forget the replay buffer": _OTHER_MODEL,
    "forget the optimizer slots": _OTHER_MODEL,
    "publish before fsync": "checksum",
    "count late events by poll": "late",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, Result]:
    """One trial per mutation, and one of the product as it is; two at a time."""
    folder, stream = tmp_path_factory.mktemp("mutations"), make_stream(SEED)
    with Driver(folder / "driver") as driver, ThreadPoolExecutor(2) as pool:
        trials = {mutation: pool.submit(one_trial, folder, driver, stream, mutation) for mutation in PLANS}
        return {mutation: trial.result() for mutation, trial in trials.items()}


def one_trial(folder: Path, driver: Driver, stream: Stream, mutation: str | None) -> Result:
    plan = PLANS[mutation]
    place = folder / str(plan.seed[1])
    place.mkdir()
    world = files_world(place, driver, stream, mutation)
    reference = make_reference(world, commands=False)
    return run_trial(world, reference, plan)


def test_every_mutation_is_tried() -> None:
    assert PLANS.keys() == {None, *MUTATIONS} and SYMPTOMS.keys() == MUTATIONS.keys()


def test_an_unbroken_protocol_is_equal(results: dict[str | None, Result]) -> None:
    assert results[None].killed == 1
    assert results[None].verdict == Verdict([], 0, 0)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_protocol_is_noticed(results: dict[str | None, Result], mutation: str) -> None:
    result = results[mutation]
    assert result.killed == 1
    assert not result.verdict.equal
    assert re.search(SYMPTOMS[mutation], " ".join(result.verdict.differences))
    assert (result.verdict.lost > 0) == (mutation == "commit offsets before the snapshot")

"""Every target of the long run, with fewer inputs; and the oracle itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_learner.errors import StateError

from .cases import Case, Check, Target, refusable, scratch
from .mutations import mutated
from .runner import Campaign, input_of
from .targets import TARGETS


@pytest.fixture(scope="module", params=TARGETS, ids=lambda target: target.name)
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Check]]:
    with scratch() as folder:
        yield request.param, request.param.open(folder)


def test_valid_inputs_are_no_fault(opened: tuple[Target, Check]) -> None:
    target, check = opened
    for case in target.seeds:
        check(case)


def test_damaged_inputs_meet_a_fate(opened: tuple[Target, Check]) -> None:
    target, check = opened

    @settings(derandomize=True, max_examples=150, deadline=None, database=None)
    @given(number=st.integers(0, 2**32))
    def damaged(number: int) -> None:
        check(target.case(Random(number)))

    @settings(derandomize=True, max_examples=100, deadline=None, database=None)
    @given(place=st.sampled_from([case.place for case in target.seeds]), content=st.binary(max_size=200))
    def any_bytes(place: str, content: bytes) -> None:
        check(Case(place, content))

    damaged()
    any_bytes()


def test_a_number_names_an_input_for_good() -> None:
    for number in range(200):
        target, case = input_of(TARGETS, 5, number)
        assert (target.name, case) == (input_of(TARGETS, 5, number)[0].name, input_of(TARGETS, 5, number)[1])


def test_most_damage_changes_something() -> None:
    seeds = [case.content for target in TARGETS for case in target.seeds]
    changed = sum(
        mutated(Random(number), seeds[number % len(seeds)], seeds) != seeds[number % len(seeds)]
        for number in range(500)
    )
    assert changed > 430


def test_a_refusal_must_name_its_place() -> None:
    with refusable("/a/b"):
        raise StateError("/a/b is torn")
    with pytest.raises(AssertionError, match="names no place"), refusable("/a/b"):
        raise StateError("something is torn")
    with pytest.raises(KeyError), refusable("/a/b"):
        raise KeyError("/a/b")


def _faulty(how: str) -> Target:
    """A target whose check fails for one input in about ten, in one of the ways that must be noticed."""

    def check(case: Case) -> None:
        if case.content[:1] == b"!":
            if how == "raises":
                raise ValueError("no fate")
            if how == "dies":
                os._exit(3)
            if how == "grows":
                bytearray(8 << 30)

    return Target("faulty", 1000, lambda: [Case("x", b"?" + bytes(8))], lambda _: check, _sometimes)


def _sometimes(rng: Random, case: Case) -> Case:
    return Case(case.place, (b"!" if rng.randrange(5) == 0 else b"?") + case.content)


@pytest.mark.parametrize("how", ["raises", "dies", "grows"])
def test_the_runner_notices_faults(tmp_path: Path, how: str) -> None:
    campaign = Campaign((_faulty(how),), inputs=40, seed=1, jobs=2, out=tmp_path)
    expected = sum(input_of(campaign.targets, 1, number)[1].content[:1] == b"!" for number in range(40))
    campaign.run()
    assert expected > 0
    assert (campaign.done, campaign.crashes, campaign.hangs) == (40, expected, 0)
    assert list(tmp_path.glob("faulty-*.bin"))

"""Which examples are kept out, where they lie, and when they come back: against a list and loops."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from streams import SCHEMA, same_state

from stream_learner import settings
from stream_learner.errors import ConfigError, StateError
from stream_learner.events import EventBatch, ExampleBatch
from stream_learner.judging.join_health import Broken
from stream_learner.settings import Config, Duration
from stream_learner.windows.attribution import Matured
from stream_learner.windows.kept_examples import Kept, KeptExamples, kept_path, read_examples
from stream_learner.windows.quarantine import Quarantine
from stream_learner.windows.quarantined_slides import read_slides
from stream_learner.windows.slides import Slide

WIDTH, HORIZON = 10, 35


def config_of(state: Path, max_bytes: int = 10**9) -> Config:
    return Config(
        state=str(state),
        slides=settings.Slides(slide=Duration(WIDTH)),
        labels=settings.Labels(horizon=Duration(HORIZON)),
        quarantine=settings.Quarantine(max_bytes=max_bytes),
        snapshot=settings.Snapshot(keep=2),
    )


def examples_at(times: np.ndarray, names: np.ndarray) -> ExampleBatch:
    """Examples known by their name, which stands in every column."""
    n, mark = len(times), names.astype(np.float32)
    return ExampleBatch(
        time=times.astype(np.int64),
        ids=np.repeat(names.astype(np.uint64)[:, None], 4, axis=1),
        numbers=np.stack([mark, np.full(n, np.nan, np.float32)], 1),
        label=(names % 5 == 0).astype(np.float32),
        logit_candidate=mark,
        logit_champion=mark,
        logit_served=mark,
        baseline=np.stack([mark] * 3, 1),
        judged=np.ones(n, bool),
        unseen=np.zeros((n, 2), bool),
    )


def matured_of(examples: ExampleBatch) -> Matured:
    nothing = np.zeros(len(examples), np.int64)
    return Matured(examples, nothing, nothing, int(np.sum(examples.label)), 0, 0, nothing == 0)


def names(examples: ExampleBatch) -> list[int]:
    return [int(name) for name in examples.ids[:, 0]]


def slide_at(number: int) -> Slide:
    return Slide(number, number * WIDTH, (number + 1) * WIDTH, EventBatch.empty(SCHEMA))


class Doomed(Quarantine):
    """A quarantine that is told which slides are broken, where a worker's finds out by join health."""

    def tell(self, number: int, start: int, end: int, found: int) -> None:
        self._add([Broken(number, start, end, "told", ("told",))], found)


def quarantine_of(config: Config, lines: list[dict[str, Any]] | None = None) -> Doomed:
    return Doomed(config, SCHEMA, [].append if lines is None else lines.append)


class Life:
    """A stream of examples by a plan made of a seed: which slides are broken, and when they are requeued."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.times = np.sort(rng.integers(0, 60 * WIDTH, 500))
        self.broken = {int(n): int(n) + int(rng.integers(0, 3)) for n in rng.choice(55, 8, replace=False)}
        self.requeued = {n: found + int(rng.integers(1, 9)) for n, found in self.broken.items() if rng.random() < 0.6}

    def span(self, number: int) -> tuple[int, int]:
        """Every third slide was found to follow a silence, which belongs to it."""
        silent = 4 if number % 3 == 0 and number - 1 not in self.broken else 0
        return number * WIDTH - silent, (number + 1) * WIDTH

    def step(self, told: Quarantine, number: int) -> tuple[list[int], list[int]]:
        """(judged and learned, only learned) in slide `number`."""
        assert isinstance(told, Doomed)
        for slide in sorted(n for n, at in self.requeued.items() if at == number):
            told.requeue(slide)
        for slide in sorted(n for n, at in self.broken.items() if at == number):
            told.tell(slide, *self.span(slide), number)
        end = (number + 1) * WIDTH
        due = (self.times + HORIZON < end) & (self.times + HORIZON >= end - WIDTH)
        batch = examples_at(self.times[due], np.flatnonzero(due) + 1)
        trusted, back = told.sort_out(matured_of(batch), slide_at(number))
        return names(trusted.examples), [name for part in back for name in names(part)]

    def wanted(self, number: int) -> tuple[list[int], list[int]]:
        """The same, example by example from the beginning of time."""
        trusted, back = [], []
        for name, time in enumerate(self.times.tolist(), start=1):
            matures = (time + HORIZON) // WIDTH
            met = [n for n in self.broken if self.meets(time, n)]
            for now in range(matures, number + 1):
                known = [n for n in met if self.broken[n] < now + (now == matures)]
                if all(self.requeued.get(n, 10**9) <= now for n in known):
                    if now == number:
                        (back if known else trusted).append(name)
                    break
        return trusted, back

    def meets(self, time: int, number: int) -> bool:
        start, end = self.span(number)
        return any(start <= instant < end for instant in range(time, time + HORIZON + 1))


@pytest.mark.parametrize("seed", range(6))
def test_who_is_kept_out_and_who_comes_back_when(tmp_path: Path, seed: int) -> None:
    life, told = Life(seed), quarantine_of(config_of(tmp_path))
    for number in range(66):
        trusted, back = life.step(told, number)
        wanted_trusted, wanted_back = life.wanted(number)
        assert trusted == wanted_trusted
        assert sorted(back) == wanted_back
    kept = sum(slide.examples for slide in told.slides())
    assert kept > 0 and told.requeued > 0


@pytest.mark.parametrize("seed", range(4))
def test_restored_from_any_snapshot_it_goes_on_as_if_nothing_had_happened(tmp_path: Path, seed: int) -> None:
    """Snapshots now and then; lives that end in between, whatever they had written by then; older snapshots too."""
    rng = np.random.default_rng(seed)
    life, straight = Life(seed), quarantine_of(config_of(tmp_path / "straight"))
    wanted = [life.step(straight, number) for number in range(66)]
    config, snapshots, number = config_of(tmp_path / "halting"), [(0, None)], 0
    halting = quarantine_of(config)
    while number < 66:
        assert life.step(halting, number) == wanted[number]
        number += 1
        if rng.random() < 0.3:
            state = copy.deepcopy(halting.capture())
            snapshots = [*snapshots[-1:], (number, state)]
            assert halting.prune(state) == []
        if rng.random() < 0.15:
            number, kept = snapshots[rng.integers(len(snapshots))]
            snapshots = [s for s in snapshots if s[0] <= number]
            halting.close()
            halting = quarantine_of(config)
            if kept is None:
                halting.begin()
            else:
                halting.restore(copy.deepcopy(kept))
    assert same_state(straight.capture(), halting.capture())
    for slide in straight.slides():
        paths = [kept_path(tmp_path / life / "quarantine", slide.kept) for life in ("straight", "halting")]
        if slide.size_bytes:
            first, second = (read_examples(path, slide.size_bytes) for path in paths)
            assert all(same_state(getattr(first, f.name), getattr(second, f.name)) for f in fields(ExampleBatch))
    assert read_slides(tmp_path / "halting") == {slide.number: slide for slide in straight.slides()}


def test_there_is_room_for_so_many_bytes_and_the_oldest_go_first(tmp_path: Path) -> None:
    one = KeptExamples(tmp_path / "size", 1).frame_bytes(examples_at(np.arange(50), np.arange(50)))
    told = quarantine_of(config_of(tmp_path / "state", max_bytes=3 * one + one // 2))
    for number in (10, 20, 30, 40, 50):
        told.tell(number, number * WIDTH, (number + 1) * WIDTH, number)
        batch = examples_at(np.full(50, number * WIDTH), np.arange(50))
        assert not len(told.sort_out(matured_of(batch), slide_at(number + 4))[0].examples)
    assert [(s.number, s.examples, s.given_up) for s in told.slides()] == [
        (10, 0, 50), (20, 0, 50), (30, 50, 0), (40, 50, 0), (50, 50, 0),
    ]  # fmt: skip
    assert (told.put_aside, told.given_up) == (250, 100)
    told.requeue(10)
    assert told.sort_out(matured_of(batch.take(slice(0, 0))), slide_at(55))[1] == []  # nothing is left of it
    assert told.size_bytes <= 3 * one + one // 2


def test_one_slide_too_large_keeps_what_came_first(tmp_path: Path) -> None:
    one = KeptExamples(tmp_path / "size", 1).frame_bytes(examples_at(np.arange(50), np.arange(50)))
    told = quarantine_of(config_of(tmp_path / "state", max_bytes=2 * one))
    told.tell(10, 10 * WIDTH, 11 * WIDTH, 10)
    for number in range(11, 15):
        told.sort_out(matured_of(examples_at(np.full(50, 10 * WIDTH), np.arange(50))), slide_at(number))
    (slide,) = told.slides()
    assert (slide.examples, slide.given_up, told.given_up) == (100, 100, 100)


def test_what_an_operator_may_not_requeue_is_refused_with_what_there_is(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    told = quarantine_of(config_of(tmp_path), lines)
    with pytest.raises(ConfigError, match="slide 7 is not in quarantine; there are: none"):
        told.require(7)
    told.tell(7, 70, 80, 7)
    told.tell(9, 90, 100, 9)
    with pytest.raises(ConfigError, match="slide 8 is not in quarantine; there are: 7, 9"):
        told.require(8)
    told.requeue(7)
    with pytest.raises(ConfigError, match="slide 7 was requeued before"):
        told.require(7)
    assert [(line["verdict"], line["slide"]) for line in lines] == [
        ("quarantined", 7), ("quarantined", 9), ("requeued", 7),
    ]  # fmt: skip
    assert [slide["slide"] for slide in told.since_version()] == [7, 9]
    told.published()
    assert told.since_version() == []


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    kept = KeptExamples(tmp_path, 1)
    size_bytes = kept.append(Kept(3), examples_at(np.arange(5), np.arange(5)))
    path = kept_path(tmp_path, Kept(3))
    content = bytearray(path.read_bytes())
    for place, damaged in ((40, "checksum"), (len(content) - 1, "checksum")):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(StateError, match=f"slide-000000000003.examples is not as it was written.*{damaged}"):
            kept.read(Kept(3), size_bytes)
    path.write_bytes(content[:-4])
    with pytest.raises(StateError, match="it has"):
        kept.read(Kept(3), size_bytes)
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / "slides.json").write_bytes(msgspec.json.encode([{"number": 1}]))
    with pytest.raises(StateError, match=r"slides.json is not as it was written"):
        read_slides(tmp_path)

"""A user taken out of windows, pending and quarantined examples: as if they had never come, but for sums over many."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streams import SCHEMA, Slide, by_time, examples_of, random_events, same_state
from test_early_labels import EARLY_MODES, config_of, run, stream_of
from test_quarantine import config_of as quarantine_config
from test_quarantine import examples_at, matured_of, names, quarantine_of, slide_at

from stream_learner import settings
from stream_learner.events import ExampleBatch
from stream_learner.keys import U64
from stream_learner.settings import Config, Distinct, Duration, LabelMode, Neighbours, Within
from stream_learner.windows.aggregates import Aggregates
from stream_learner.windows.attribution import Attribution
from stream_learner.windows.kept_examples import kept_path
from stream_learner.windows.quarantine import Quarantine

GONE = np.array([2, 5], np.uint64)
FOREVER = 10**15
WITHIN = [Within(key="user", of="item")]
WATCHED = Config(
    slides=settings.Slides(slide=Duration(10)),
    aggregates=settings.Aggregates(
        keys=["user", "item", "user*item", "category*user"],
        windows=[Duration(30), Duration(100)],
        half_lives=[Duration(20)],
        expire_after=Duration(FOREVER),
        label_rates=True,
        rates=False,
        distinct=[Distinct(key="user", of="item")],
        ranks=WITHIN,
        neighbours=[Neighbours(key="user", of="item", items=100, recent=5)],
    ),
)


def told(aggregates: Aggregates, slides: list[Slide]) -> None:
    """Goes through slides; the examples of each mature at its end."""
    for slide in slides:
        rows = np.flatnonzero(slide.events.kind == 0)
        aggregates.step(slide.events, rows, slide.start, slide.end)
        examples = examples_of(slide.events, rows)
        labels = (slide.events.offset[rows] % 3 == 0).astype(np.float32)
        aggregates.take_in_labels(ExampleBatch(**{**vars_of(examples), "label": labels}), slide.end)


def vars_of(examples: ExampleBatch) -> dict[str, Any]:
    return {name: getattr(examples, name) for name in ExampleBatch.__dataclass_fields__}


def without(slides: list[Slide], users: U64) -> list[Slide]:
    return [Slide(s.events.take(~np.isin(s.events.ids[:, 0], users)), s.start, s.end) for s in slides]


@pytest.mark.parametrize("seed", range(3))
def test_users_and_their_pairs_are_as_if_erased_users_had_never_come(seed: int) -> None:
    events = random_events(np.random.default_rng(seed), 400, 400, users=8, items=6, missing=0.05)
    slides = by_time(events, 10)
    half, now = slides[: len(slides) // 2], slides[-1].end
    erased, never = Aggregates(WATCHED, SCHEMA), Aggregates(WATCHED, SCHEMA)
    told(erased, half)
    assert erased.erase(GONE) > 0
    assert erased.erase(GONE) == 0
    told(erased, without(slides[len(half) :], GONE))
    told(never, without(slides, GONE))
    assert erased.sizes() == never.sizes()
    for key in ("user", "user*item", "category*user"):
        (keys, one), (others, other) = (aggregates.table(key, 1000, now) for aggregates in (erased, never))
        assert np.array_equal(keys, others)
        # Label rates are smoothed by the rate of everybody, which an erasure leaves as it is.
        names_of = [column.name for column in erased.columns if column.key == key]
        own = [n for n, name in enumerate(names_of) if "rate" not in name]
        assert np.array_equal(one[:, own], other[:, own], equal_nan=True)
    there = np.array([[2, 1, 1, 1], [1, 1, 1, 1]], np.uint64)
    voted = erased._neighbours[0].read(there)
    assert np.array_equal(voted[0], [0, 0])  # nothing that the erased user said is there to vote


def test_restored_after_an_erasure_it_goes_on_alike() -> None:
    events = random_events(np.random.default_rng(3), 400, 400, users=8, items=6, missing=0.05)
    slides = by_time(events, 10)
    one = Aggregates(WATCHED, SCHEMA)
    told(one, slides[:20])
    one.erase(GONE)
    other = Aggregates(WATCHED, SCHEMA)
    other.restore(copy.deepcopy(one.capture()))
    for aggregates in (one, other):
        told(aggregates, slides[20:])
        aggregates.erase(GONE)
    assert same_state(one.capture(), other.capture())


MODES: tuple[LabelMode, ...] = ("wait", *EARLY_MODES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_what_others_pending_examples_become_is_what_it_would_have_been(mode: LabelMode, seed: int) -> None:
    config, slides, gone = config_of(mode), stream_of(seed), GONE[:1]
    half = len(slides) // 2
    erased, never = Attribution(config, SCHEMA), Attribution(config, SCHEMA)
    for number, slide in enumerate(slides):
        if number == half:
            held = int(np.count_nonzero(erased.pending().ids[:, 0] == gone[0]))
            assert erased.erase(gone) == held
            assert not np.isin(erased.pending().ids[:, 0], gone).any()
        left = without([slide], gone)[0]
        one = run(erased, slide if number < half else left, config, early=True)
        other = run(never, left, config, early=True)
        if number >= half:
            assert np.array_equal(one.examples.time, other.examples.time)
            assert np.array_equal(one.examples.ids, other.examples.ids)
            assert np.array_equal(one.positive_time, other.positive_time)
            assert np.array_equal(one.waited, other.waited)
            if mode != "wait":
                assert one.told is not None and other.told is not None
                assert np.array_equal(one.told.examples.ids, other.told.examples.ids)
                assert np.array_equal(one.told.positive, other.told.positive)


def test_kept_examples_go_on_in_another_edition_and_an_older_snapshot_finds_its_own(tmp_path: Path) -> None:
    config = quarantine_config(tmp_path)
    held = quarantine_of(config)
    held.tell(0, 0, 10, 0)
    held.tell(1, 10, 20, 1)
    held.sort_out(matured_of(examples_at(np.arange(20), np.arange(20) % 6 + 1)), slide_at(2))
    before = copy.deepcopy(held.capture())
    assert held.prune(before) == []
    assert held.erase(GONE) == 7
    assert [(slide.kept.edition, slide.examples) for slide in held.slides()] == [(1, 7), (1, 6)]
    held.sort_out(matured_of(examples_at(np.arange(3), np.array([1, 2, 3]))), slide_at(3))  # new ones are new
    after = copy.deepcopy(held.capture())
    held.close()

    older = quarantine_of(config)
    older.restore(copy.deepcopy(before))
    assert sorted(names(requeued(older))) == sorted(np.arange(20) % 6 + 1)
    older.close()

    again = quarantine_of(config)
    again.restore(copy.deepcopy(before))
    again.erase(GONE)
    again.sort_out(matured_of(examples_at(np.arange(3), np.array([1, 2, 3]))), slide_at(3))
    assert same_state(again.capture(), after)
    assert kept_path(tmp_path / "quarantine", again.slides()[0].kept._replace(edition=0)).exists()
    for _ in range(config.snapshot.keep):
        assert again.prune(again.capture()) == []
    assert not kept_path(tmp_path / "quarantine", again.slides()[0].kept._replace(edition=0)).exists()
    assert sorted(names(requeued(again))) == sorted([1, 3, 4, 6, 1, 3, 4, 1, 2, 3, 6, 1, 3, 4, 6, 1])
    again.close()


def requeued(quarantine: Quarantine) -> ExampleBatch:
    """All that is kept, let into learning."""
    for number in (0, 1):
        quarantine.requeue(number)
    nothing = matured_of(examples_at(np.arange(0), np.arange(0)))
    return ExampleBatch.concat(quarantine.sort_out(nothing, slide_at(4))[1])


def test_what_was_requeued_and_waits_for_the_next_slide_is_erased_too(tmp_path: Path) -> None:
    held = quarantine_of(quarantine_config(tmp_path))
    held.tell(0, 0, 10, 0)
    held.sort_out(matured_of(examples_at(np.arange(6), np.arange(6) + 1)), slide_at(2))
    held.requeue(0)
    assert held.erase(GONE) == 2
    [back] = held.sort_out(matured_of(examples_at(np.arange(0), np.arange(0))), slide_at(3))[1]
    assert names(back) == [1, 3, 4, 6]
    held.close()

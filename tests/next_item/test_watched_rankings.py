"""Rankings are watched as scores are: canary, restarts of what got worse, drift, and slides in quarantine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import yaml

from stream_learner import config as configs
from stream_learner.events import EventBatch
from stream_learner.journal import Command
from stream_learner.learning.runtime import configure_tensorflow
from stream_learner.lease import Lease
from stream_learner.next_item.names import ItemNames
from stream_learner.next_item.publisher import RankingVersion
from stream_learner.next_item.task import NextItemTask
from stream_learner.publishing.publisher import Occasion
from stream_learner.tally import Tally
from stream_learner.windows.slides import Slide, open_slides

ITEMS, SESSIONS, LENGTH = 60, 40, 5
HOUR_US = 3_600_000_000
TASK: dict[str, Any] = {
    "model": "network",
    "events": {"click": 1.0},
    "sessions": {"recent": 4, "capacity": 10_000},
    "catalogue": {"capacity": 128},
    "network": {
        "dim": 8,
        "dropout": 0.0,
        "negatives": None,
        "batch_size": 16,
        "passes": 4,
        "table_learning_rate": 0.05,
    },
    "judging": {"k": 5},
    "gate": {"interval": "1h", "min_interval": "1h", "min_examples": 100, "margin": 0.05, "cool_down": "100h"},
    "canary": {"duration": "3h", "min_examples": 100},
}


class Life:
    """A task on a folder of its own, and slides of an hour in which item i is followed by i + 1."""

    def __init__(self, folder: Path, lease: Lease, **changed: dict[str, Any]) -> None:
        task = {
            name: {**TASK[name], **changed.get(name, {})} if isinstance(TASK[name], dict) else TASK[name]
            for name in TASK
        }
        drift = {"window": "2h", "min_examples": 100, "run_length": "1h", "interval": "1h"}
        told = {"task": "next_item", "state": str(folder), "slides": {"slide": "1h"}, "drift": drift, "next_item": task}
        self.config = configs.parse(yaml.safe_dump(told))
        configure_tensorflow(self.config)
        self.schema = configs.event_schema(self.config)
        self.lines: list[dict[str, Any]] = []
        names = ItemNames()
        names.note(np.arange(1, 2 * ITEMS + 1, dtype=np.uint64), [f"i{n}" for n in range(1, 2 * ITEMS + 1)])
        self.task = NextItemTask(self.config, self.schema, names, lease, self.lines.append)
        self.task.publisher.start()
        self.number = 0

    def clicks(self, start: int, shift: int) -> EventBatch:
        """Sessions of a slide; those of a `shift` are of a dozen other items."""
        rng = np.random.default_rng(self.number)
        first = rng.integers(0, 8 if shift else ITEMS, SESSIONS)
        items = 1 + shift + (first[:, None] + np.arange(LENGTH)) % ITEMS
        n = SESSIONS * LENGTH
        ids = np.zeros((n, len(self.schema.ids)), np.uint64)
        ids[:, self.schema.id_column("user")] = np.repeat(self.number * SESSIONS + 1 + np.arange(SESSIONS), LENGTH)
        ids[:, self.schema.id_column("item")] = items.ravel()
        zeros = np.zeros(n, np.int64)
        return EventBatch(
            time=start + np.arange(n, dtype=np.int64) * 1_000_000,
            topic=zeros.astype(np.int16),
            partition=zeros.astype(np.int32),
            offset=np.arange(n, dtype=np.int64),
            kind=np.full(n, self.schema.kinds.index("click"), np.int8),
            ids=ids,
            numbers=np.zeros((n, len(self.schema.numbers)), np.float32),
            label=np.full(n, np.nan, np.float32),
            event_id=zeros.astype(np.uint64),
        )

    def slide(self, *, shift: int = 0, broken: dict[str, Any] | None = None) -> RankingVersion | None:
        start = (100 + self.number) * HOUR_US
        slide = Slide(self.number, start, start + HOUR_US, self.clicks(start, shift))
        self.task.step(slide, slide.events, open_slides(self.config.slides, self.schema), broken)
        version = self.task.at_slide_end(slide, self.occasion, lambda: None)
        self.number += 1
        return self.written(version)

    def until_published(self) -> int:
        for _ in range(12):
            if (version := self.slide()) is not None:
                return version.manifest.version
        raise AssertionError([line["reason"] for line in self.lines])

    def command(self, name: str, **arguments: str | int) -> RankingVersion | None:
        entry = Command(name=name, slide=self.number, id=name, arguments=arguments)  # type: ignore[call-arg]
        end = (100 + self.number) * HOUR_US
        return self.written(self.task.carry_out(entry, end, self.occasion, lambda: None))

    def occasion(self, verdict: dict[str, Any]) -> Occasion:
        return Occasion(self.number, (101 + self.number) * HOUR_US, Tally(), {}, verdict, [])

    def written(self, version: RankingVersion | None) -> RankingVersion | None:
        if version is not None:
            self.task.publisher.write(version)
        return version

    def kinds(self) -> list[str]:
        return [str(line.get("kind", "verdict")) for line in self.lines]


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    with Lease(tmp_path / "lease", configs.parse("{}").lease) as held:
        assert held.acquire(lambda _: True, lambda _: None)
        yield held


@pytest.fixture
def watched(tmp_path: Path, lease: Lease) -> Life:
    """Two versions, the second of them under watch."""
    life = Life(tmp_path / "life", lease)
    life.until_published()
    life.until_published()
    assert life.task.canary.watching and life.task.learner.has_previous
    return life


def ruined(life: Life, name: str) -> None:
    """The version in service, with its vectors as damage leaves them."""
    champion = life.task.learner.champion
    assert champion.network is not None
    held = champion.network.outputs
    if name == "nan":
        held.assign(tf.fill(held.shape, np.nan))
    elif name == "same":  # recommends the same to everybody
        first = champion.network.table
        first.assign(tf.ones_like(first))
    else:  # knows all items, but which is which
        held.assign(tf.gather(held, np.random.default_rng(0).permutation(held.shape[0])))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("nan", "examples have no finite score"),
        ("same", "times as many of the items that both know"),
        ("mixed", "proven worse: MRR@5 gain -"),
    ],
)
def test_a_version_that_fails_beside_the_one_before_is_rolled_back(watched: Life, damage: str, reason: str) -> None:
    before, number = watched.task.publisher.previous, watched.task.publisher.champion
    ruined(watched, damage)
    version = watched.slide()
    assert version is not None and version.manifest.rollback_of == before and version.manifest.parent == number
    verdict = next(line for line in watched.lines if line.get("kind") == "canary")
    assert not verdict["passed"] and reason in verdict["reason"] and verdict["model"] == "next_item"
    assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict
    assert not watched.task.canary.watching and not watched.task.learner.has_previous
    assert watched.task.decisions.made["canary_rolled_back"] == 1
    assert np.isfinite(watched.task.learner.champion.top(watched.task._sample, 5)[1]).all()
    held = watched.slide()
    assert held is None and "nothing is published for" in watched.lines[-1]["reason"]  # the cool-down


def test_an_equal_version_is_kept_after_its_time(tmp_path: Path, lease: Lease) -> None:
    life = Life(tmp_path / "life", lease, gate={"min_interval": "5h"})
    life.until_published()
    life.until_published()
    for _ in range(3):
        life.slide()
    assert life.task.decisions.made["canary_passed"] == 1 and "canary" in life.kinds()
    assert not life.task.learner.has_previous


@pytest.mark.parametrize("action", ["restart_from_champion", "rollback_serving"])
def test_a_candidate_that_got_worse_is_dealt_with_as_configured(tmp_path: Path, lease: Lease, action: str) -> None:
    gate = {"on_degradation": action, "catch_up_steps": 3, "cool_down": "0s"}
    life = Life(
        tmp_path / "life",
        lease,
        gate=gate,
        network={"learning_rate": 1e-6, "table_learning_rate": 1e-6, "passes": 1},
        canary={"duration": None},
    )
    teach(life)
    first = life.until_published()
    second = life.until_published()
    candidate = life.task.learner.candidate.network
    assert candidate is not None
    mixed = np.random.default_rng(0).permutation(candidate.table.shape[0])
    candidate.table.assign(tf.gather(candidate.table, mixed))
    candidate.settle()
    found = None
    for _ in range(6):
        found = life.slide() or found
        if any(line.get("degraded") for line in life.lines):
            break
    assert any(line.get("degraded") for line in life.lines)
    told = [line for line in life.lines if line.get("kind") == "degradation"]
    assert life.task.learner.previous is None  # no canary is wanted, and no third model held
    assert told[0]["action"] == action and told[0]["replayed"] == 3 * 16 and "proven worse" in told[0]["reason"]
    assert life.task.decisions.made[action] == 1
    if action == "rollback_serving":
        assert found is not None and found.manifest.rollback_of == first and found.manifest.parent == second
    champion = life.task.learner.champion.network
    assert champion is not None
    assert np.allclose(candidate.table.numpy(), champion.table.numpy(), atol=1e-3)  # but for three small steps
    assert candidate.outputs.numpy() == pytest.approx(tf.math.l2_normalize(candidate.table, axis=1).numpy(), abs=1e-6)


def teach(life: Life) -> None:
    """The answer as vectors, for a network that is not to learn by itself: a test of deciding, not of learning."""
    life.slide()
    network = life.task.learner.candidate.network
    assert network is not None
    rows = life.task.learner.candidate.known(np.arange(1, ITEMS + 1, dtype=np.uint64))
    angle = 2 * np.pi * np.arange(ITEMS) / ITEMS
    vectors = network.table.numpy()
    vectors[rows] = 0.0
    vectors[rows, 0], vectors[rows, 1] = np.cos(angle), np.sin(angle)
    network.table.assign(vectors)
    network.settle()


def test_of_a_slide_in_quarantine_nothing_is_learned(tmp_path: Path, lease: Lease) -> None:
    life = Life(tmp_path / "life", lease)
    life.until_published()
    before, examples = life.task.learner.model_sha256(), life.task.examples
    brief = {"slide": life.number, "start_us": 0, "end_us": 1, "reason": "clicks fell short"}
    seen, lines = life.task.catalogue.seen, len(life.task.store)
    life.slide(shift=ITEMS, broken=brief)
    assert life.task.learner.model_sha256() == before and life.task.examples == examples
    assert life.task.catalogue.seen == seen and len(life.task.store) == lines
    assert life.task.report()["slides_kept_out"] == 1
    checkpoints = life.task.publisher.checkpoints
    assert checkpoints.require(life.until_published()).quarantined == [brief]
    assert checkpoints.require(life.until_published()).quarantined == []


def test_drift_of_what_is_popular_is_found_and_told(tmp_path: Path, lease: Lease) -> None:
    life = Life(tmp_path / "life", lease)
    life.until_published()
    for _ in range(3):
        life.slide()
    assert life.task.drift.alarms == 0
    life.slide(shift=ITEMS)
    found = {finding.name for finding in life.task.drift.current}
    assert {"inputs/item/psi", "inputs/new_item/new"} <= found
    told = life.task.report()["drift"]
    assert told["alarms"] >= 2 and told["tests"]["inputs/item/psi"]["value"] > 0.1
    life.until_published()
    verdicts = [line for line in life.lines if "evidence" in line]
    assert verdicts[-1]["psi"].keys() == {"item", "event_type"} and verdicts[-1]["drift"]["reference"] == "champion"


def test_in_the_middle_of_a_canary_it_goes_on_alike(watched: Life, tmp_path: Path, lease: Lease) -> None:
    whole, changes = watched.task.capture(), watched.task.changes()
    assert changes["learner"]["previous"].keys() == whole["learner"]["previous"].keys()
    assert all(not len(part.rows) for part in changes["learner"]["previous"].values())  # as captured
    other = Life(tmp_path / "other", lease)
    other.task.restore(whole)
    other.number = watched.number
    for shift in (0, 0, ITEMS, 0):
        one, two = watched.slide(shift=shift), other.slide(shift=shift)
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert one.arrays.keys() == two.arrays.keys()
            assert all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)
    assert watched.task.report() == other.task.report()


def test_an_operator_rolls_back_and_the_canary_ends(watched: Life) -> None:
    first = watched.task.publisher.versions[0]
    version = watched.command("rollback", version=first)
    assert version is not None and version.manifest.rollback_of == first
    assert not watched.task.canary.watching and watched.task.publisher.previous is None
    assert watched.lines[-1]["kind"] == "rollback" and watched.lines[-1]["model"] == "next_item"

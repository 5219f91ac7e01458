"""A topic that gets more partitions while a live worker reads it, and the worker killed before and after.

Which slide a partition joins at is the worker's own decision and stands in its journal; so there is no uninterrupted
worker to compare with, but a replay: a new state, given that journal, must come to the same.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stream_learner.journal import AnyEntry, PartitionAdded, PartitionWoken, read_journal
from stream_learner.simulate import Shop, limited

from .driver import DriverEndedError
from .ledger import History, read_history
from .plans import Cut, Plan
from .stages import LifeError, Stage
from .stream import PARTITIONS, Floors, Record, Stream, records_of, shop_settings
from .trials import Result, outcome_in
from .verdicts import Verdict, judge
from .worlds import EVENTS, World, topic_config

KIND = "partitions added, compared with a replay"
_STAGE = 97  # stage constant of the seeds
_ADDED = 2
_PLACES = ("3 writer/submit/after", "5 version/write/before", "6 snapshot/write/before", "8 source/commit/after")
_LIVE = {"source.kafka.refresh_partitions": "200ms"}


def run_growing(world: World, seed: int, number: int) -> Result:
    """A trial on a topic of its own, by `world`'s driver and broker."""
    rng = np.random.default_rng([seed, _STAGE, number])
    folder = world.folder / f"growing-{number:04d}"
    stage = Stage(world, folder / "live", rng)
    result = Result(Plan((seed, number), (), (), ()), folder, Verdict([], 0, 0), 0, stage.happened, stage.kinds)
    try:
        result.verdict = _run(world, stage, seed * 1000 + number)
    except (LifeError, DriverEndedError) as error:
        result.verdict = Verdict([str(error)], 0, 0)
    result.killed = stage.killed
    if result.verdict.equal:
        shutil.rmtree(folder)
    return result


def _run(world: World, stage: Stage, seed: int) -> Verdict:
    topic = world.kafka.topic(PARTITIONS)
    made: Counter[str] = Counter()
    first, rest = _halves(seed, made)
    stage.world = replace(world, folder=stage.folder, config=topic_config(world.kafka, topic), mutation=None)
    world.kafka.produce(topic, first)
    cut = Cut(_PLACES[stage.rng.integers(len(_PLACES))], 1 + int(stage.rng.integers(3)))
    stage.end(stage.begin(_LIVE, place=cut.place, nth=cut.nth, until_end=False), str(cut), -signal.SIGKILL)
    _grow(stage, topic, rest)
    stage.end(stage.begin({}), "the end of the log", 0)
    stage.note(KIND, f"{cut}; {_ADDED} partitions added, SIGKILL")
    return compare_with_replay(stage, first + rest)


def _halves(seed: int, made: Counter[str]) -> tuple[list[Record], list[Record]]:
    """The records before and after the topic grows; users move to other partitions then, as a keyed producer has it."""

    def partitions() -> int:
        made["chunks"] += 1
        return PARTITIONS if made["chunks"] <= 5 else PARTITIONS + _ADDED

    chunks = limited(Shop(shop_settings(seed)).chunks(), EVENTS)
    records = list(records_of(seed, chunks, partitions))
    at = next(n for n, (partition, _, _) in enumerate(records) if partition >= PARTITIONS)
    return records[:at], records[at:]


def _grow(stage: Stage, topic: str, records: list[Record]) -> None:
    """A live worker sees new partitions, and is killed at some moment after they are in its journal."""
    life = stage.begin(_LIVE, until_end=False)
    stage.world.kafka.grow(topic, PARTITIONS + _ADDED)
    stage.world.kafka.produce(topic, records)
    if not stage.wait_for(life, lambda: len(added(stage.state)) == _ADDED):
        raise LifeError(f"partitions that were added were not taken in: {added(stage.state)}")
    time.sleep(stage.rng.uniform(0.0, 2.0))
    life.send(signal.SIGKILL)
    stage.end(life, "its death after partitions were added", -signal.SIGKILL)


def added(state: Path) -> list[AnyEntry]:
    return [entry for entry in read_journal(state / "journal.jsonl") if isinstance(entry, PartitionAdded)]


def compare_with_replay(stage: Stage, records: list[Record], patience_s: float | None = None) -> Verdict:
    """A new state is given the journal of the finished one and reads the same log; both, and brute force."""
    history = read_history(stage.folder / "ledger")
    journal = stage.state / "journal.jsonl"
    stream = Stream(records, _floors(read_journal(journal), history))
    world = replace(stage.world, stream=stream)
    again = Stage(world, stage.folder.parent / "replay", stage.rng, patience_s=patience_s or stage.patience_s)
    again.end(again.begin({}, journal=str(journal)), "the end of a replay", 0)
    live, seen = outcome_in(world, stage.folder)
    replayed, _ = outcome_in(world, again.folder)
    verdict = judge(replayed, live, seen, stream)
    if (again.state / "journal.jsonl").read_bytes() != journal.read_bytes():
        verdict.differences.append("the replay decided something that the journal does not hold")
    return verdict


def _floors(entries: tuple[AnyEntry, ...], history: History) -> Floors:
    """Where partitions joined or woke, and the end of the slide before."""
    floors: Floors = {}
    for entry in entries:
        if isinstance(entry, (PartitionAdded, PartitionWoken)) and entry.slide > 0:
            place: Any = entry.partition
            floors.setdefault(place.index, []).append((place.offset, history.slides[entry.slide - 1]["end"] // 1000))
    return floors

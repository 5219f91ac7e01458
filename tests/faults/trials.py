"""A trial: a fresh state, some lives that end badly, one that reaches the end of the log; all from one seed."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stream_learner.journal import Command, FileJournal, Start, read_journal

from .damage import DAMAGES
from .driver import Driver, DriverEndedError, Order
from .places import STORAGE
from .power import cut_power
from .stream import Stream, changed, write_config
from .verdicts import Outcome, Verdict, judge, read_outcome

LIFE_S = 120.0  # a life that takes longer hangs
_PLAN_STAGE = 91  # stage constant of the seeds

_POLL_RECORDS = 15  # fewer than a slide's records of a partition, so that positions move with the slides
POLL = "poll"  # records at a time, whatever the source calls it

# After these slides an operator pins the first version, and later rolls back to it.
COMMANDS = ((12, "pin", 0), (15, "rollback", 0))

_OPERATIONAL: dict[str, tuple[Any, ...]] = {
    POLL: (3, 50, 150, 5000),
    "source.queue_records": (20, 400, 20_000),
    "snapshot.interval": ("2m", "4m", "10m"),
    "snapshot.max_waiting": (1, 2, 4),
    "snapshot.max_increments": (0, 2, 24),
    "snapshot.max_increment_share": (0.5, 1000.0),
}


POWER_CUT = "power cut"
_DAMAGES = (*[None] * 6, *[POWER_CUT] * 4, *DAMAGES)  # nothing but the kill, mostly


@dataclass(frozen=True)
class Cut:
    """How a life ends: killed at the nth pass through a place, or by a signal after some seconds. With `broker` it does
    not: after those seconds the broker is stopped and started, for this and all other lives of the moment."""

    place: str | None = None
    nth: int = 1
    after_s: float = 0.0
    signal: signal.Signals = signal.SIGKILL
    broker: bool = False

    def __str__(self) -> str:
        if self.broker:
            return f"broker stopped after {self.after_s:.2f} s, and started"
        return f"{self.place} #{self.nth}" if self.place else f"{self.signal.name} after {self.after_s:.2f} s"


@dataclass(frozen=True)
class Plan:
    """What happens to a worker, life by life; after the last cut it runs to the end."""

    seed: tuple[int, int]
    cuts: tuple[Cut, ...]
    damages: tuple[str | None, ...]  # after each cut
    settings: tuple[dict[str, Any], ...]  # operational keys of each life, the last one's too


@dataclass
class Result:
    """A trial that is over."""

    plan: Plan
    folder: Path
    verdict: Verdict
    killed: int = 0  # lives that ended by SIGKILL
    happened: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """What all trials of a run share: the log, the config, the journal, and the worker that nobody interrupted."""

    folder: Path
    driver: Driver
    stream: Stream
    config: dict[str, Any]
    mutation: str | None = None
    server: Any = None  # a broker that can be stopped and started; None where there is none
    outages: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))  # one at a time

    @property
    def journal(self) -> Path:
        """What an earlier run of the log was told: start offsets and operator commands."""
        return self.folder / "given.jsonl"

    def order(self, folder: Path, settings: dict[str, Any], **how: Any) -> Order:
        folder.mkdir(parents=True, exist_ok=True)
        poll = settings.get(POLL, _POLL_RECORDS)
        values = {name: value for name, value in settings.items() if name != POLL}
        values["source.kafka.max_poll_records"] = poll
        config = write_config(folder / "config.yaml", changed(self.config, values))
        paths = {name: str(folder / name) for name in ("state", "report", "ledger", "fsyncs", "output")}
        own = folder / "state" / "journal.jsonl"
        adopt = self.journal.exists() and not (own.exists() and own.stat().st_size)
        journal = str(self.journal) if adopt else None
        return Order(config=str(config), journal=journal, mutation=self.mutation, poll=poll, **paths, **how)


@dataclass(frozen=True)
class Reference:
    """The uninterrupted worker: what it left, and how often it passed each place."""

    outcome: Outcome
    census: dict[str, int]
    verdict: Verdict  # by brute force


def make_reference(world: World, *, commands: bool = True) -> Reference:
    """Runs the worker that nobody interrupts. With `commands` it runs before that with an operator at hand, and the
    journal that this leaves is given to the reference and to all trials; both must be equal."""
    told = world.folder / "told"
    if commands:
        _finish(world, world.order(told, {}, commands=COMMANDS))
        _give(told / "state" / "journal.jsonl", world.journal)
    folder, census = world.folder / "reference", world.folder / "census.json"
    _finish(world, world.order(folder, {}, census=str(census)))
    outcome, history = _outcome(world, folder)
    first = _outcome(world, told)[0] if commands else outcome
    return Reference(outcome, json.loads(census.read_text()), judge(first, outcome, history, world.stream))


def _give(left: Path, given: Path) -> None:
    """The part of a journal that trials are to obey: where to start, and what the operator said."""
    journal = FileJournal(given)
    for entry in read_journal(left):
        if isinstance(entry, (Start, Command)):
            journal.append(entry)
    journal.close()


def make_plan(seed: int, number: int, census: dict[str, int], *, broker: bool = False) -> Plan:
    """The plan of trial `number`. The first life ends at a place that it is sure to reach: in three trials of five at
    one of those that come round in turn, so that many trials miss none, else at any storage operation. In every fifth
    the next one ends at any moment, by SIGTERM every other time; with `broker`, every twentieth sees an outage.
    """
    rng = np.random.default_rng([seed, _PLAN_STAGE, number])
    places = np.random.default_rng([seed, _PLAN_STAGE]).permutation(sorted(census)).tolist()
    if number % 5 in (2, 4):
        cuts = [Cut(STORAGE, 1 + int(rng.integers(census[STORAGE] * 9 // 10)))]
    else:
        place = places[(number // 5 * 3 + number % 5) % len(places)]
        cuts = [Cut(place, 1 + int(rng.integers(census[place])))]
    if number % 5 == 4:
        ending = signal.SIGTERM if number % 10 == 9 else signal.SIGKILL
        cuts.append(Cut(after_s=float(rng.uniform(0.2, 4.0)), signal=ending))
    if broker and number % 20 == 6:
        cuts.append(Cut(after_s=float(rng.uniform(0.5, 3.0)), broker=True))
    while len(cuts) < 4 and rng.random() < 0.35:
        place = places[rng.integers(len(places))]
        cuts.append(Cut(place, 1 + int(rng.integers(min(census[place], 6)))))
    damages = tuple(_DAMAGES[rng.integers(len(_DAMAGES))] for _ in cuts)
    settings = [_settings(rng) for _ in range(len(cuts) + 1)]
    settings[0].pop("snapshot.interval", None)  # decides how often the reference passed most places
    return Plan((seed, number), tuple(cuts), damages, tuple(settings))


def _settings(rng: np.random.Generator) -> dict[str, Any]:
    return {name: values[rng.integers(len(values))] for name, values in _OPERATIONAL.items() if rng.random() < 0.5}


def run_trial(world: World, reference: Reference, plan: Plan) -> Result:
    """Runs a plan and judges what comes of it. The folder of an equal trial is removed."""
    folder = world.folder / f"trial-{plan.seed[1]:04d}"
    result = Result(plan, folder, Verdict([], 0, 0))
    rng = np.random.default_rng([*plan.seed, _PLAN_STAGE])
    try:
        for cut, damage, settings in zip(plan.cuts, plan.damages, plan.settings, strict=False):
            _cut_life(world, folder, cut, settings, result)
            done = _damage(folder, damage, rng)
            if done:
                result.happened.append(done)
        _finish(world, world.order(folder, plan.settings[-1]))
        outcome, history = _outcome(world, folder)
        result.verdict = judge(reference.outcome, outcome, history, world.stream)
        if not result.killed:
            result.verdict.differences.append("no life ended by SIGKILL")
    except (LifeError, DriverEndedError) as error:
        result.verdict = Verdict([str(error)], 0, 0)
    if result.verdict.equal:
        shutil.rmtree(folder)
    return result


def _damage(folder: Path, name: str | None, rng: np.random.Generator) -> str | None:
    """Does what the plan says, where there is something to do it to; says what was done."""
    if name is None or not (folder / "state").exists():
        return None
    if name == POWER_CUT:
        return cut_power(folder / "state", folder / "fsyncs", rng)
    return DAMAGES[name](folder / "state", rng)


def run_plans(
    world: World,
    reference: Reference,
    plans: Sequence[Plan],
    jobs: int,
    report: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """All plans, some at a time; `report` is told of each as it is over, in the order of the plans."""
    results = []
    with ThreadPoolExecutor(jobs) as pool:
        for result in pool.map(lambda plan: run_trial(world, reference, plan), plans):
            report(result)
            results.append(result)
    return results


class LifeError(Exception):
    """A life ended as none should."""


def _cut_life(world: World, folder: Path, cut: Cut, settings: dict[str, Any], result: Result) -> None:
    """One life that ends as the cut says, or at the end of the log where the place is not reached."""
    life = world.driver.begin(world.order(folder, settings, place=cut.place, nth=cut.nth))
    code = life.wait(LIFE_S if cut.place else cut.after_s)
    if code is None and cut.place is None:
        _outage(world) if cut.broker else life.send(cut.signal)
        code = life.wait(LIFE_S)
    if code is None:
        life.send(signal.SIGKILL)
        raise LifeError(f"a life that was to end at {cut} hung for {LIFE_S:.0f} s")
    if code not in (0, -signal.SIGKILL, -signal.SIGTERM):
        raise LifeError(f"a life that was to end at {cut} ended with code {code}: {_last_words(folder)}")
    result.killed += code == -signal.SIGKILL
    result.happened.append(f"{cut}{'' if code else ' (reached the end)' if cut.place else ' (code 0)'}")


def _outage(world: World) -> None:
    """The broker goes, and comes back with all it had. By a thread that stays: the broker goes with its starter."""
    world.outages.submit(world.server.stop).result()
    world.outages.submit(world.server.start).result()


def _finish(world: World, order: Order) -> None:
    """A life to the end of the log."""
    life = world.driver.begin(order)
    code = life.wait(LIFE_S)
    if code is None:
        life.send(signal.SIGKILL)
    if code != 0:
        raise LifeError(f"the last life ended with code {code}: {_last_words(Path(order.output).parent)}")


def _last_words(folder: Path) -> str:
    lines = (folder / "output").read_text(errors="replace").splitlines()
    return " | ".join(lines[-3:])


def _outcome(world: World, folder: Path) -> Any:
    return read_outcome(folder / "state", folder / "report", folder / "ledger", world.stream)

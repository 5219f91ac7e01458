"""A trial: a fresh state, some lives that end badly, one that reaches the end of the log; all from one seed."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import numpy as np

from stream_learner.journal import Command, FileJournal, Start, read_journal

from .damage import DAMAGES
from .driver import DriverEndedError
from .faults import FAULTS, volume_for
from .plans import PLAN_STAGE, POWER_CUT, Cut, Plan
from .power import cut_power
from .stages import LifeError, Stage
from .verdicts import Outcome, Verdict, judge, read_outcome
from .worlds import World, announced

# After these slides an operator pins the first version, and later rolls back to it.
COMMANDS = ((12, "pin", 0), (15, "rollback", 0))


@dataclass
class Result:
    """A trial that is over."""

    plan: Plan
    folder: Path
    verdict: Verdict
    killed: int = 0  # lives that ended by SIGKILL
    happened: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)  # rows of the table


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
        _finish(_stage(world, told), commands=COMMANDS)
        _give(told / "state" / "journal.jsonl", world.journal)
    folder, census = world.folder / "reference", world.folder / "census.json"
    _finish(_stage(world, folder), census=str(census))
    outcome, history = outcome_in(world, folder)
    first = outcome_in(world, told)[0] if commands else outcome
    return Reference(outcome, json.loads(census.read_text()), judge(first, outcome, history, world.stream))


def _give(left: Path, given: Path) -> None:
    """The part of a journal that trials are to obey: where to start, and what the operator said."""
    journal = FileJournal(given)
    for entry in read_journal(left):
        if isinstance(entry, (Start, Command)):
            journal.append(entry)
    journal.close()


def _stage(world: World, folder: Path) -> Stage:
    return Stage(world, folder, np.random.default_rng(0))


def _finish(stage: Stage, settings: dict[str, Any] | None = None, **how: Any) -> None:
    """A life to the end of the log."""
    stage.end(stage.begin(settings or {}, **how), "the end of the log", 0)


def run_trial(world: World, reference: Reference, plan: Plan) -> Result:
    """Runs a plan and judges what comes of it. The folder of an equal trial is removed."""
    folder = world.folder / f"trial-{plan.seed[1]:04d}"
    rng = np.random.default_rng([*plan.seed, PLAN_STAGE])
    stage = Stage(world, folder, rng, volume_for(plan.faults))
    result = Result(plan, folder, Verdict([], 0, 0), happened=stage.happened, kinds=stage.kinds)
    try:
        with stage:
            result.verdict = _verdict(stage, reference, plan)
    except (LifeError, DriverEndedError, CalledProcessError) as error:
        result.verdict = Verdict([str(error)], 0, 0)
    result.killed = stage.killed
    if result.verdict.equal:
        shutil.rmtree(folder)
    return result


def _verdict(stage: Stage, reference: Reference, plan: Plan) -> Verdict:
    for cut, damage, settings in zip(plan.cuts, plan.damages, plan.settings, strict=False):
        if cut.fault is None:
            _cut_life(stage, cut, settings)
        else:
            FAULTS[cut.fault](stage, cut, settings)
            stage.note(cut.kind, str(cut))
        _damage(stage, damage)
    _finish(stage, plan.settings[-1])
    outcome, history = outcome_in(stage.world, stage.folder)
    verdict = judge(reference.outcome, outcome, history, stage.world.stream)
    if not stage.killed and not plan.faults:
        verdict.differences.append("no life ended by SIGKILL")
    return verdict


def _cut_life(stage: Stage, cut: Cut, settings: dict[str, Any]) -> None:
    """One life that ends as the cut says, or at the end of the log where the place is not reached."""
    life = stage.begin(settings, place=cut.place, nth=cut.nth)
    if cut.place is None and life.wait(cut.after_s) is None:
        life.send(cut.signal)
    code = stage.end(life, str(cut), 0, -signal.SIGKILL, -signal.SIGTERM)
    reached = code if cut.place or cut.signal == signal.SIGKILL else True
    stage.note(cut.kind if reached else "none", f"{cut}{'' if reached else ' (reached the end)'}")


def _damage(stage: Stage, name: str | None) -> None:
    """Does what the plan says, where there is something to do it to; says what was done."""
    if name is None or not stage.state.exists():
        return
    if name == POWER_CUT:
        done = cut_power(stage.state, stage.folder / "fsyncs", stage.rng)
    else:
        done = DAMAGES[name](stage.state, stage.rng)
    if done:
        stage.note(name, done)


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


def outcome_in(world: World, folder: Path) -> Any:
    return read_outcome(folder / "state", folder / "report", folder / "ledger", world.stream)


def missing_announcements(world: World, reference: Reference, results: Sequence[Result]) -> list[str]:
    """Versions of equal trials that nobody was told of. Announcements come at least once, so repeats are right."""
    if "announce" not in world.config:
        return []
    told = announced(world)
    versions = reference.outcome.report["versions"]
    places = [(r.folder / "state" / "checkpoints" / "shop", n) for r in results if r.verdict.equal for n in versions]
    return [f"{folder}: version {n} was not announced" for folder, n in places if (str(folder / str(n)), n) not in told]

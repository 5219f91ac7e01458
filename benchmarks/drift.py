"""Which changes are found, how soon, and at what price: the drift watches on the simulator, River's detectors beside.

    python -m benchmarks.drift [--out d.json] [--shops 6] [--quiet 18] [--first 5001]

The project's watches get a shop's examples slide by slide as in a worker, on the config's defaults; River's detectors
get the same matured losses one by one, on theirs (the ones for errors get whether p > 1/2 was wrong). A change is
found when a detector alarms within six hours after it and, in the same six hours, not in the shop's twin that is
spared it: who alarms in both has found the time of day, or nothing. False alarms are counted in shops to which nothing
happens.

Finding by alarming all the time is no art, so each of River's detectors is also run less sensitive, step by step, and
where its defaults give more false alarms than ours, the most sensitive one that keeps to our rate has a row of its own.
Ours is on the frontier of a kind of change unless one of all these finds some, at least as many and as soon, at no more
false alarms, and one of the three better. The shops are others than those (100 to 107) on which thresholds were chosen.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from benchmarks.drift_peers import PEERS, listen, variants
from benchmarks.drift_shop import (
    CHANGED_H,
    COLUMNS,
    FOUND_WITHIN_H,
    LEARNED_H,
    QUARANTINE,
    ROWS,
    SLIDE_US,
    days,
    quiet_day,
)
from benchmarks.drift_shop import Day as Listened
from stream_learner.judging.drift_tests import KINDS
from stream_learner.simulate.world import HOUR_US

OURS = "all five"
FEATURES, NOISE = len(COLUMNS.names), 40  # features that mean nothing, for the budget
_WATCHES = (*KINDS, QUARANTINE)
_CHANGED, _UNTIL = ((hour - LEARNED_H) * HOUR_US // SLIDE_US for hour in (CHANGED_H, CHANGED_H + FOUND_WITHIN_H))


@dataclass(frozen=True)
class Day:
    """What is needed of a shop's third day: events up to each slide's end, and by detector the slides of its alarms."""

    events: list[int]
    alarms: Mapping[str, list[int]]

    @classmethod
    def of(cls, day: Listened) -> Day:
        return cls(day.events, day.alarms)

    def of_these(self, detectors: Iterable[str]) -> list[int]:
        return sorted(at for name in detectors for at in self.alarms.get(name, []))

    def after_change(self, detectors: Iterable[str]) -> list[int]:
        """Slides of the alarms within the hours in which a change counts as found."""
        return [at for at in self.of_these(detectors) if _CHANGED <= at < _UNTIL]


Made = TypeVar("Made")
Pair = tuple[Day, Day]  # a shop to which something happens, and its twin


def changed_shops(seed: int) -> dict[str | None, Pair]:
    """By row; None: nothing happens. Until a shop and its twin part, both are heard at once."""
    made = days(seed)
    quiet = made[None][0]
    parted: dict[int, list[Listened]] = {}
    for name, row in ROWS.items():
        begins = (row.begins - LEARNED_H * HOUR_US) // SLIDE_US
        parted.setdefault(begins, []).extend(day for day in made[name] if day is not quiet)
    listen(quiet, parted)
    return {name: (Day.of(day), Day.of(twin)) for name, (day, twin) in made.items()}


def quiet_shop(seed: int) -> Day:
    day = quiet_day(seed)
    listen(day)
    return Day.of(day)


def noisy_shop(seed: int) -> Day:
    """One with features beside that mean nothing."""
    return Day.of(quiet_day(seed, NOISE))


def table(runs: Mapping[str, list[Pair]], quiet: list[Day], noisy: list[Day]) -> dict[str, Any]:
    """{"detectors": {name: {"false_alarms_per_100k": x, kind: {"found": share, "median_delay_events": n or None}}},
    "frontier": {kind: bool}, "dominated_by": {kind: [detectors]}, "found_by": {kind: {watch: share}},
    "false_alarms_per_100k_by_features": {n: x}}, and how many shops and events there were."""
    names = {f"{watch} drift" if watch in KINDS else watch: (watch,) for watch in _WATCHES} | {OURS: _WATCHES}
    names |= {name: (name,) for name, _, _ in variants()}
    rows = {name: _row(parts, runs, quiet) for name, parts in names.items()}
    rivals = [name for name, _, _ in variants()]
    dominated = {kind: [name for name in rivals if _better(rows[name], rows[OURS], kind)] for kind in ROWS}
    counts = {FEATURES: _false_alarms(_WATCHES, quiet), FEATURES + NOISE: _false_alarms(_WATCHES, noisy)}
    return {
        "detectors": {name: rows[name] for name in _shown(rows)},
        "frontier": {kind: not names for kind, names in dominated.items()},
        "dominated_by": dominated,
        "false_alarms_per_100k_by_features": counts,
        "shops": {kind: len(pairs) for kind, pairs in runs.items()},
        "quiet": {"shops": len(quiet), "events": sum(day.events[-1] for day in quiet)},
    }


def _row(detectors: tuple[str, ...], runs: Mapping[str, list[Pair]], quiet: list[Day]) -> dict[str, Any]:
    row: dict[str, Any] = {"false_alarms_per_100k": _false_alarms(detectors, quiet)}
    for kind, pairs in runs.items():
        delays = [delay for delay in (_delay(detectors, *pair) for pair in pairs) if delay is not None]
        row[kind] = {"found": len(delays) / len(pairs), "median_delay_events": median(delays) if delays else None}
    return row


def _false_alarms(detectors: tuple[str, ...], quiet: list[Day]) -> float:
    return 1e5 * sum(len(day.of_these(detectors)) for day in quiet) / sum(day.events[-1] for day in quiet)


def _delay(detectors: tuple[str, ...], day: Day, twin: Day) -> int | None:
    """Events from the change to the end of the slide in which it is found; None = not found."""
    alarms = day.after_change(detectors)
    return day.events[alarms[0]] - day.events[_CHANGED - 1] if alarms and not twin.after_change(detectors) else None


def _better(one: Mapping[str, Any], other: Mapping[str, Any], kind: str) -> bool:
    """Whether the one finds some, at least as many, as soon, with as few false alarms, and one of these better."""

    def merit(row: Mapping[str, Any]) -> tuple[float, float, float]:
        delay = row[kind]["median_delay_events"]
        return row[kind]["found"], -math.inf if delay is None else -delay, -row["false_alarms_per_100k"]

    better = merit(one) != merit(other) and one[kind]["found"] > 0
    return better and all(a >= b for a, b in zip(merit(one), merit(other), strict=True))


def _shown(rows: Mapping[str, Any]) -> list[str]:
    """The project's, and of each of River's the defaults and, where these alarm more, the first that does not."""
    limit = rows[OURS]["false_alarms_per_100k"]
    shown = [name for name in rows if name.partition(", ")[0] not in PEERS]
    for peer in PEERS:
        mine = [name for name, _, _ in variants() if name.partition(", ")[0] == peer]
        kept = [name for name in mine if rows[name]["false_alarms_per_100k"] <= limit]
        shown += dict.fromkeys([mine[0], *kept[:1]])
    return shown


def shown(content: Mapping[str, Any]) -> str:
    """The table for people: share found / median delay in events; a star where ours is on the frontier."""
    lines = ["| detector | false alarms per 100,000 events | " + " | ".join(ROWS) + " |"]
    lines.append("|---" * (2 + len(ROWS)) + "|")
    for name, row in content["detectors"].items():
        stars = content["frontier"] if name == OURS else {}
        cells = [_cell(row[kind]) + " *" * bool(stars.get(kind) and row[kind]["found"]) for kind in ROWS]
        lines.append(f"| {name} | {row['false_alarms_per_100k']:.2f} | " + " | ".join(cells) + " |")
    for kind, names in content["dominated_by"].items():
        if names:
            lines.append(f"{kind}: not on the frontier, for {', '.join(names)}")
    budget = content["false_alarms_per_100k_by_features"]
    lines.append(
        "false alarms per 100,000 events with " + ", ".join(f"{n} features {x:.2f}" for n, x in budget.items())
    )
    return "\n".join(lines)


def _cell(cell: Mapping[str, Any]) -> str:
    return f"{cell['found']:.0%} / {cell['median_delay_events']:,.0f}" if cell["found"] else "-"


def _each(make: Callable[[int], Made], seeds: Iterable[int], pool: ProcessPoolExecutor, what: str) -> list[Made]:
    made = []
    for seed, result in zip(seeds, pool.map(make, seeds), strict=True):
        print(f"{what} {seed}", flush=True)
        made.append(result)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="the table as JSON")
    parser.add_argument("--shops", type=int, default=6, help="shops, each with every change (default: %(default)s)")
    parser.add_argument("--quiet", type=int, default=18, help="shops to which nothing happens (default: %(default)s)")
    parser.add_argument("--noisy", type=int, default=6, help="of these also with more features (default: %(default)s)")
    parser.add_argument("--first", type=int, default=5001, help="seed of the first (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at once (default: %(default)s)")
    arguments = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of the processes: more threads would only wait for each other
    seeds = range(arguments.first, arguments.first + arguments.shops)
    calm = range(seeds.stop, seeds.stop + arguments.quiet)
    silent = partial(logging.disable, logging.ERROR)
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), initializer=silent) as pool:
        made = _each(changed_shops, seeds, pool, "shop and changes")
        quiet = [run[None][0] for run in made] + _each(quiet_shop, calm, pool, "quiet shop")
        noisy = _each(noisy_shop, calm[: arguments.noisy], pool, "quiet shop with more features")
    content = table({kind: [run[kind] for run in made] for kind in ROWS}, quiet, noisy)
    print(shown(content))
    if arguments.out:
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

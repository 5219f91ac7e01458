"""Which changes are found, how soon, and at what price: the drift detectors on the simulator, River's beside them.

    python -m benchmarks.drift [--out d.json] [--seeds 4] [--first 4001] [--kept runs.jsonl]

A shop runs for two days. A logistic model is learned from the first; from then on it is scored on what matures, and
the shop changes 12 hours into the second day. The project's detectors get the examples slide by slide as in a worker,
with the config's defaults; River's get the same matured losses one by one, with theirs (the ones for errors get
whether p > 1/2 was wrong). An alarm before the change, or in a shop that does not change, is false; one in the six
hours after it has found it.

Finding by alarming all the time is no art, so each of River's detectors that gives more false alarms than ours is run
beside itself with its threshold raised, step by step, and the most sensitive one that keeps to our rate is a row of
its own. The shops are others than those (100 to 102) on which the project's thresholds were chosen.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import drift as river
from river.drift import binary

from stream_learner.events import EventBatch, EventSchema, ExampleBatch
from stream_learner.judging.drift import DriftWatch
from stream_learner.judging.drift_inputs import InputColumns
from stream_learner.judging.drift_tests import KINDS
from stream_learner.judging.metrics import losses, probabilities
from stream_learner.judging.slices import Slices
from stream_learner.keys import mix
from stream_learner.settings import Config, Drift, Duration, Judging, Labels
from stream_learner.simulate.shop import Shop, ShopEvents
from stream_learner.simulate.world import DRIFT_SIZES, HOUR_US, SOURCES, ShopSettings
from stream_learner.simulate.world import Drift as Change
from stream_learner.windows.attribution import Attribution, select_examples

F64 = NDArray[np.float64]

LEARNED_H, CHANGED_H, FOUND_WITHIN_H, HOURS = 24, 36, 6, 48
EVENTS_PER_HOUR = 3_000
SLIDE_US = HOUR_US // 6
ROWS: dict[str, tuple[str, int]] = {  # the simulator's kind of change, and the hour from which nothing is quiet
    "rate": ("rate", CHANGED_H),
    "preference": ("preference", CHANGED_H),
    "items": ("items", CHANGED_H),
    "price": ("price", CHANGED_H),
    "missing_feature": ("missing_feature", CHANGED_H),
    "outage_purchases": ("outage_purchases", CHANGED_H),
    "season_returns": ("season", CHANGED_H - round(DRIFT_SIZES["season"])),  # its end is what is to be found
}
OURS = "all four"
_PROCESSES = 2

SCHEMA = EventSchema(("shop",), ("click", "purchase"), ("user", "item", "session", "category", "source"), ("price",))
CONFIG = Config(labels=Labels(horizon=Duration.parse("1h")))
COLUMNS = InputColumns({"price": 0}, {"item": 1, "category": 3, "source": 4}, ("new_user", "new_item"), 0)


@dataclass(frozen=True)
class Peer:
    """One of River's detectors: with its defaults, and ever less sensitive."""

    make: Callable[..., Any]
    key: str  # of its threshold
    raised: tuple[float, ...]
    errors: bool = False  # fed with errors in place of losses
    step: int = 1  # gets every so many-th value


PEERS: dict[str, Peer] = {
    "River ADWIN": Peer(river.ADWIN, "delta", (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6, 1e-8)),
    "River PageHinkley": Peer(river.PageHinkley, "threshold", (75.0, 100.0, 150.0, 200.0, 300.0, 450.0, 700.0)),
    # half a millisecond a value: it gets every fiftieth
    "River KSWIN": Peer(partial(river.KSWIN, seed=1), "alpha", (1e-3, 1e-5), step=50),
    "River DDM": Peer(binary.DDM, "drift_threshold", (3.5, 4.0, 4.5, 5.0, 6.0, 8.0), errors=True),
    "River EDDM": Peer(binary.EDDM, "beta", (0.85, 0.8, 0.7, 0.6, 0.5, 0.3), errors=True),
    "River HDDM_A": Peer(binary.HDDMA, "drift_confidence", (), errors=True),
    "River HDDM_W": Peer(binary.HDDMW, "drift_confidence", (), errors=True),
}


def _peers() -> dict[str, Any]:
    """Every detector, by name and raised threshold (None = its defaults)."""
    made = {}
    for name, peer in PEERS.items():
        made[name] = peer.make()
        made |= {_raised(name, at): peer.make(**{peer.key: peer.raised[at]}) for at in range(len(peer.raised))}
    return made


def _raised(name: str, at: int) -> str:
    peer = PEERS[name]
    return f"{name}, {peer.key} {peer.raised[at]:g}"


@dataclass
class Heard:
    """Alarms of one run by detector, as numbers of events since the model went into service."""

    alarms: dict[str, list[int]] = field(default_factory=dict)
    events: int = 0
    quiet_until: int = 0  # events before which every alarm is false
    changed_at: int = 0  # events before the change that is to be found
    found_until: int = 0  # events within which an alarm counts as found


class Model:
    """A logistic model on price, source, hour, and smoothed rates per user and item."""

    def __init__(self, clicks: ExampleBatch) -> None:
        half = len(clicks) // 2
        first, second = clicks.take(slice(0, half)), clicks.take(slice(half, None))
        self._prior = float(first.label.mean())
        self._rates = [_rates(first.ids[:, column], first.label, self._prior) for column in (0, 1)]
        self._mean_price = float(np.nanmean(np.log1p(clicks.numbers[:, 0])))
        rows, self._weights = self._inputs(second), np.zeros(5 + len(SOURCES))
        for _ in range(8):  # Newton's method
            chances = probabilities(rows @ self._weights)
            curvature = (rows * (chances * (1 - chances))[:, None]).T @ rows + 1e-3 * np.eye(rows.shape[1])
            self._weights += np.linalg.solve(curvature, rows.T @ (second.label - chances) - 1e-3 * self._weights)

    def score(self, examples: ExampleBatch) -> NDArray[np.float32]:
        return np.asarray(self._inputs(examples) @ self._weights, np.float32)

    def _inputs(self, examples: ExampleBatch) -> F64:
        price = np.log1p(examples.numbers[:, 0].astype(np.float64)) - self._mean_price
        columns = [np.where(np.isnan(price), 0.0, price)]
        for column, (keys, odds) in enumerate(self._rates):
            ids = examples.ids[:, column]
            at = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
            columns.append(np.where(keys[at] == ids, odds[at], 0.0))
        angle = 2 * math.pi * (examples.time % (24 * HOUR_US)) / (24 * HOUR_US)
        columns += [np.sin(angle), np.cos(angle)]
        return np.concatenate([np.stack(columns, 1), examples.ids[:, 4:] == _ids(np.arange(len(SOURCES)))], axis=1)


def _rates(ids: NDArray[np.uint64], labels: NDArray[np.float32], prior: float) -> tuple[NDArray[np.uint64], F64]:
    """Keys, ascending, and the log-odds of each one's smoothed rate less those of the prior."""
    keys, at = np.unique(ids, return_inverse=True)
    rate = (np.bincount(at, labels) + 20 * prior) / (np.bincount(at) + 20)
    return keys, np.log(rate / (1 - rate)) - math.log(prior / (1 - prior))


def _ids(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    return mix(numbers.astype(np.uint64) + np.uint64(1))


def _batch(events: ShopEvents) -> EventBatch:
    n = len(events)
    ids = [_ids(column) for column in (events.user, events.item, events.session, events.category, events.source)]
    return EventBatch(
        time=events.time,
        topic=np.zeros(n, np.int16),
        partition=np.zeros(n, np.int32),
        offset=np.arange(n),
        kind=events.kind,
        ids=np.stack(ids, axis=1),
        numbers=events.price.astype(np.float32)[:, None],
        label=np.full(n, np.nan, np.float32),
        event_id=np.zeros(n, np.uint64),
    )


def _slides(settings: ShopSettings) -> Iterator[tuple[int, EventBatch]]:
    """Ends (us) and events, in event-time order."""
    events = ShopEvents.concat(list(Shop(settings).chunks(HOURS * HOUR_US)))
    batch = _batch(events).in_log_order()
    ends = np.arange(settings.start + SLIDE_US, settings.start + HOURS * HOUR_US + 1, SLIDE_US)
    cuts = np.searchsorted(batch.time, ends)
    for start, stop, end in zip([0, *cuts[:-1].tolist()], cuts.tolist(), ends.tolist(), strict=True):
        yield end, batch.take(slice(start, stop))


def run(row: str | None, seed: int) -> Heard:
    """One shop, with the change of that row or none."""
    kind, begins_h = (None, HOURS) if row is None else ROWS[row]
    change = () if kind is None else (Change.parse(f"{kind}@{begins_h}:{max(DRIFT_SIZES[kind], 0.3)}"),)
    settings = ShopSettings(seed=seed, events_per_hour=EVENTS_PER_HOUR, drift=change)
    watch, attribution = DriftWatch(COLUMNS, Drift(), seed), Attribution(CONFIG, SCHEMA)
    slices = Slices(Judging(), SCHEMA)
    peers = _peers()
    heard, model, learned = Heard({name: [] for name in (*KINDS, *peers)}), None, []
    for number, (end, events) in enumerate(_slides(settings)):
        hour = (end - settings.start) / HOUR_US
        rows = select_examples(events, SCHEMA, CONFIG)
        examples = _examples(events.take(rows), slices, model)
        watch.arrived(examples, number, end)
        matured = attribution.step(events, rows, examples, end)
        scores = _scored(model, matured.examples)
        found = watch.matured(matured.examples, matured.delays(), scores, number, (end - SLIDE_US, end))
        if model is None:
            learned.append(matured.examples)
            if hour == LEARNED_H:
                model = Model(ExampleBatch.concat(learned))
                watch.published(end, model.score)
            continue
        heard.events += len(events)
        heard.quiet_until = heard.events if hour <= begins_h else heard.quiet_until
        heard.changed_at = heard.events if hour <= CHANGED_H else heard.changed_at
        heard.found_until = heard.events if hour <= CHANGED_H + FOUND_WITHIN_H else heard.found_until
        for finding in found:
            heard.alarms[finding.kind].append(heard.events)
        _ask(peers, scores, matured.examples.label, heard)
    return heard


def _scored(model: Model | None, examples: ExampleBatch) -> NDArray[np.float32]:
    return np.full(len(examples), np.nan, np.float32) if model is None else model.score(examples)


def _examples(clicks: EventBatch, slices: Slices, model: Model | None) -> ExampleBatch:
    nothing = np.full(len(clicks), np.nan, np.float32)
    examples = ExampleBatch(
        time=clicks.time,
        ids=clicks.ids,
        numbers=clicks.numbers,
        label=nothing,
        logit_candidate=nothing,
        logit_champion=nothing,
        logit_served=nothing,
        baseline=np.full((len(clicks), 4), np.nan, np.float32),
        judged=np.ones(len(clicks), bool),
        unseen=slices.arrive(clicks.ids),
    )
    scores = _scored(model, examples)
    return replace(examples, logit_candidate=scores, logit_champion=scores)


def _ask(peers: dict[str, Any], scores: NDArray[np.float32], labels: NDArray[np.float32], heard: Heard) -> None:
    """Gives River's detectors the slide's losses and errors, one by one as they want them."""
    loss, error = losses(scores, labels).tolist(), ((scores > 0) != (labels > 0.5)).tolist()
    for name, detector in peers.items():
        peer = PEERS[name.partition(", ")[0]]
        values: list[Any] = error if peer.errors else loss[:: peer.step]
        for value in values:
            detector.update(value)
            if detector.drift_detected:
                heard.alarms[name].append(heard.events)


Task = tuple[str | None, int]


def _heard(tasks: list[Task], kept: Path | None) -> dict[Task, Heard]:
    """The runs by row and seed; those in the file `kept` are not made again, and the others are added to it."""
    lines = kept.read_text().splitlines() if kept is not None and kept.exists() else []
    heard = {(line["row"], line["seed"]): Heard(**line["heard"]) for line in map(json.loads, lines)}
    left = [task for task in tasks if task not in heard]
    with ProcessPoolExecutor(_PROCESSES, mp_context=get_context("spawn")) as pool:
        runs = pool.map(run, *zip(*left, strict=True)) if left else iter(())
        for (row, seed), made in zip(left, runs, strict=True):
            heard[row, seed] = made
            if kept is not None:
                with kept.open("a") as file:
                    file.write(json.dumps({"row": row, "seed": seed, "heard": asdict(made)}) + "\n")
    return heard


def table(seeds: range, kept: Path | None = None) -> dict[str, Any]:
    """{detector: {"false_alarms_per_100k": x, "dominated_by": {kind: detector or None},
    kind: {"found": share, "median_delay_events": n or None}}}."""
    heard = _heard([(row, seed) for seed in seeds for row in (None, *ROWS)], kept)
    runs = {row: [heard[row, seed] for seed in seeds] for row in (None, *ROWS)}
    rows = {f"{kind} drift": _row((kind,), runs) for kind in KINDS} | {OURS: _row(KINDS, runs)}
    limit = rows[OURS]["false_alarms_per_100k"]
    for name, peer in PEERS.items():
        rows[name] = _row((name,), runs)
        raised = [_raised(name, at) for at in range(len(peer.raised))]
        if rows[name]["false_alarms_per_100k"] > limit:
            quieter = ((other, _row((other,), runs)) for other in raised)
            kept = next((pair for pair in quieter if pair[1]["false_alarms_per_100k"] <= limit), None)
            rows |= {} if kept is None else dict([kept])
    for name, row in rows.items():
        row["dominated_by"] = {kind: _dominating(name, kind, rows) for kind in ROWS}
    return rows


def _dominating(name: str, kind: str, rows: dict[str, Any]) -> str | None:
    """A detector that finds at least as many, as soon, with as few false alarms, and one of these better."""

    def merit(row: dict[str, Any]) -> tuple[float, float, float]:
        delay = row[kind]["median_delay_events"]
        return row[kind]["found"], -math.inf if delay is None else -delay, -row["false_alarms_per_100k"]

    mine = merit(rows[name])
    return next((o for o, r in rows.items() if merit(r) != mine and _at_least(merit(r), mine)), None)


def _at_least(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))


def _row(parts: tuple[str, ...], runs: dict[str | None, list[Heard]]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    false = quiet = 0
    for kind, heards in runs.items():
        delays: list[int | None] = []
        for heard in heards:
            alarms = sorted(at for part in parts for at in heard.alarms[part])
            false, quiet = false + sum(at <= heard.quiet_until for at in alarms), quiet + heard.quiet_until
            delays.append(
                next((at - heard.changed_at for at in alarms if heard.changed_at < at <= heard.found_until), None)
            )
        if kind is not None:
            soon = [delay for delay in delays if delay is not None]
            row[kind] = {"found": len(soon) / len(delays), "median_delay_events": median(soon) if soon else None}
    return {"false_alarms_per_100k": 1e5 * false / quiet, **row}


def shown(content: dict[str, Any]) -> str:
    """The table for people: share found / median delay in events; a star where nothing dominates."""
    lines = [
        "| detector | false alarms per 100,000 events | " + " | ".join(ROWS) + " |",
        "|---" * (2 + len(ROWS)) + "|",
    ]
    for name, row in content.items():
        cells = [_cell(row, kind) for kind in ROWS]
        lines.append(f"| {name} | {row['false_alarms_per_100k']:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any], kind: str) -> str:
    found = row[kind]["found"]
    star = "" if row["dominated_by"][kind] is not None else " *"
    return f"{found:.0%} / {row[kind]['median_delay_events']:,.0f}{star}" if found else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, help="the table as JSON")
    parser.add_argument("--seeds", type=int, default=4, help="shops per kind of change (default: %(default)s)")
    parser.add_argument("--first", type=int, default=4001, help="seed of the first (default: %(default)s)")
    parser.add_argument("--kept", type=Path, help="what runs found, a line each: those there are not made again")
    arguments = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of the processes: more threads would only wait for each other
    logging.disable(logging.INFO)
    content = table(range(arguments.first, arguments.first + arguments.seeds), arguments.kept)
    print(shown(content))
    if arguments.out:
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

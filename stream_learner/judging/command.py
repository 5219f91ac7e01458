"""`stream-learner gate`: what this config's gate would do, before it does it; and the operator's word against it."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from stream_learner import config as configs
from stream_learner.errors import ConfigError
from stream_learner.judging import rehearsal
from stream_learner.judging.checks import asked_gain
from stream_learner.judging.metrics import finite_or_none
from stream_learner.judging.rehearsal import Pool, Schedule, World
from stream_learner.publishing.commands import Commands
from stream_learner.publishing.operating import noted
from stream_learner.publishing.rendering import table
from stream_learner.settings import Config

_GAINS = (0.01, 0.005, 0.002)  # NE, true gains beside 0 and the losses that a margin forgives
_SHARES = {"median": 0.5, "p80": 0.8}


def add_actions(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    simulate = actions.add_parser(
        "simulate", help="how often it publishes falsely, misses a gain, and how long it takes"
    )
    simulate.add_argument("-c", "--config", required=True, metavar="FILE")
    simulate.add_argument("--scores", type=Path, metavar="FILE", help="a score log (judging.score_log) to draw from")
    simulate.add_argument("--runs", type=int, default=1000, help="simulated runs a row (default: %(default)s)")
    simulate.add_argument("--looks", type=int, default=48, help="times the gate is asked (default: %(default)s)")
    simulate.add_argument("--examples-per-look", type=int, default=2000, help="matured (default: %(default)s)")
    simulate.add_argument("--base-rate", type=float, help="of positives (default: the log's, or 0.03)")
    simulate.add_argument("--apart", type=float, default=0.3, help="spread of logit differences, without --scores")
    simulate.add_argument("--json", action="store_true", help="for programs")
    simulate.set_defaults(command=_simulate)
    override = actions.add_parser("override", help="publish at the next verdict, whatever the rules say")
    what = override.add_mutually_exclusive_group(required=True)
    what.add_argument("--next", action="store_true", help="the next verdict passes (finite weights are still needed)")
    what.add_argument("--cancel", action="store_true", help="it does not after all")
    override.add_argument("--reason", metavar="TEXT", help="why; recorded with the override and the verdict")
    override.add_argument("--model", metavar="NAME", help="default: that of the first task")
    override.add_argument("--state", required=True, type=Path, metavar="DIR", help="the worker's state folder")
    override.add_argument("--json", action="store_true", help="for programs")
    override.set_defaults(command=_override)


def _override(args: argparse.Namespace) -> int:
    """Leaves the command for the worker, which journals it; exit code 0."""
    model = noted(args.state).named(args.model)
    commands = Commands(args.state / "commands")
    reason = (args.reason or "").strip()
    if args.next and not reason:
        raise ConfigError("--reason: needed with --next; say why, it is recorded with the verdict")
    what, given = ("override", {"reason": reason}) if args.next else ("cancel_override", {})
    command_id = commands.submit(what, **given, model=model)
    text = f"{what} of {model} left for the worker on {args.state}; it acts between two slides, or at its start"
    print(json.dumps({"command": command_id}) if args.json else text)
    return 0


def _simulate(args: argparse.Namespace) -> int:
    config = configs.load(args.config)
    _require_sense(args)
    pool = (
        Pool.recorded(args.scores)
        if args.scores is not None
        else Pool.made_up(args.base_rate or 0.03, args.apart, config.seed)
    )
    content = simulated(config, pool, args.base_rate or pool.base_rate, _schedule(config, args))
    print(json.dumps(finite_or_none(content), indent=2) if args.json else _rendered(content))
    return 0


def _require_sense(args: argparse.Namespace) -> None:
    for name in ("runs", "looks", "examples_per_look"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')}: {getattr(args, name)}; at least 1")
    if args.base_rate is not None and not 0 < args.base_rate < 1:
        raise ConfigError(f"--base-rate: {args.base_rate}; must lie between 0 and 1")
    if not 0 < args.apart <= 10:
        raise ConfigError(f"--apart: {args.apart}; must lie between 0 and 10")


def _schedule(config: Config, args: argparse.Namespace) -> Schedule:
    gate = config.gate
    return Schedule(args.runs, args.looks, args.examples_per_look, gate.min_examples, gate.min_positives)


def simulated(config: Config, pool: Pool, base_rate: float, schedule: Schedule) -> dict[str, Any]:
    """A row for each true gain (NE) and rule: the config's gate first, then the other mode, half and twice the margin,
    and the rules it is there to replace."""
    rules = _variants(config)
    gains = sorted({0.0, *_GAINS, -config.gate.margin, -2 * config.gate.margin}, reverse=True)
    rows: list[dict[str, Any]] = []
    unreachable: list[float] = []
    for number, gain in enumerate(gains):
        try:
            world = World.of(pool, base_rate, gain)
        except ConfigError:
            if gain == 0.0:
                raise
            unreachable.append(gain)  # these scores are too alike to differ so much, so it cannot happen to them
            continue
        gate, rivals = rehearsal.rehearse(world, schedule, config.gate.alpha, rules, config.seed + number)
        for name, first in {**gate, **rivals}.items():
            rows.append(
                _row(name, next(iter(rules.values())) if name in rivals else rules[name], world, first, schedule)
            )
            rows[-1]["fixed_sample_examples"] = world.fixed_sample(config.gate.alpha, rows[-1]["asked_gain"])
    return {
        "rule": next(iter(rules)),
        "alpha": config.gate.alpha,
        "base_rate": base_rate,
        "runs": schedule.runs,
        "looks": schedule.looks,
        "examples_per_look": schedule.examples_per_look,
        "rows": rows,
        "unreachable_gains": unreachable,
    }


def _variants(config: Config) -> dict[str, float]:
    """The gain that each rule asks to be proven, by name, the configured one first."""
    margin = config.gate.margin
    variants = {f"non_inferior {share * margin:g}": -share * margin for share in (0.5, 1.0, 2.0)}
    variants["superior"] = 0.0
    own = asked_gain(config.gate)
    return dict(sorted(variants.items(), key=lambda pair: pair[1] != own))


def _row(name: str, asked: float, world: World, first: rehearsal.Looks, schedule: Schedule) -> dict[str, Any]:
    looks = {key: rehearsal.looks_for(first, share) for key, share in _SHARES.items()}
    return {
        "rule": name,
        "asked_gain": asked,
        "true_gain": world.gain,
        "false": world.gain <= asked,  # whether publishing is a mistake by this rule's own measure
        "published": rehearsal.published(first),
        **{f"{key}_looks": value for key, value in looks.items()},
        **{f"{key}_examples": value * schedule.examples_per_look for key, value in looks.items()},
    }


def _rendered(content: dict[str, Any]) -> str:
    rows = [["rule", "true NE gain", "publishing is", "published", "median", "80 %", "examples a fixed test needs"]]
    for row, before in zip(content["rows"], [None, *content["rows"]], strict=False):
        if before is not None and before["true_gain"] != row["true_gain"]:
            rows.append([""] * len(rows[0]))
        waits = [f"{row[f'{key}_examples']:,.0f}" if math.isfinite(row[f"{key}_looks"]) else "-" for key in _SHARES]
        needed = row["fixed_sample_examples"]
        rows.append(
            [
                row["rule"],
                f"{row['true_gain']:+.4f}",
                "false" if row["false"] else "right",
                f"{row['published']:.1%}",
                *waits,
                f"{needed:,.0f}" if math.isfinite(needed) else "-",
            ]
        )
    head = (
        f"{content['runs']:,} runs of {content['looks']} looks at {content['examples_per_look']:,} examples each, base "
        f"rate {content['base_rate']:.4f}, gate.alpha {content['alpha']:g}\n{_answer(content)}"
        "median and 80 %: examples by which so many of the runs had published\n"
        + "".join(
            f"no truth makes these scores differ by an NE of {gain:+g}\n" for gain in content["unreachable_gains"]
        )
        + "\n"
    )
    return head + table(rows)


def _answer(content: dict[str, Any]) -> str:
    """What the config's own gate did, in a line or two."""
    own = [row for row in content["rows"] if row["rule"] == content["rule"]]
    false = max((row["published"] for row in own if row["false"]), default=math.nan)
    told = [f"published falsely in {false:.1%} of the runs at the most"] if math.isfinite(false) else []
    missed = [f"{r['true_gain']:g} in {1 - r['published']:.1%}" for r in own if r["true_gain"] > 0 and not r["false"]]
    told += [f"missed a true gain of {', '.join(missed)}"] if missed else []
    return f"the config's gate, {content['rule']}, {' and '.join(told) or 'had nothing to prove'}\n"

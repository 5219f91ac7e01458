"""How often a gate would publish falsely, miss a real gain, and how long each takes: many simulated runs at once.

A run is a stream of examples that two models scored, drawn with replacement from a pool of score pairs, which is made
up here or recorded (`judging.score_log`). Labels are drawn from a truth on the line through the two models' logits,
`middle + level + tilt * (candidate - champion)`, solved so that base rate and expected gain are exactly those asked
for: at a gain of 0 the models are equally good, and the truth lies between them. At each look the gate's own bounds
(`sequence`) are held against the gain its mode asks for, beside the rules it is there to replace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from stream_learner.errors import ConfigError
from stream_learner.judging.metrics import F64, entropy, losses, probabilities
from stream_learner.judging.sequence import PairedGains

_STAGE = 7401  # stage constant of the seeds
_POOL_ROWS = 50_000
_SPREAD = 1.0  # standard deviation of the true logits of the made-up pool
_CHUNK = 400_000  # examples drawn at once
_NEWTON_STEPS = 100
_LONGEST_STEP = 0.5  # of level and tilt
_POWER = 0.8  # of the fixed-sample test that the gate is compared with

Looks = NDArray[np.int64]  # [runs] number of the look, from 1, at which a rule first published; 0 = never


@dataclass(frozen=True, slots=True)
class Pool:
    """Logits of candidate and champion on the same examples, [m]."""

    candidate: F64
    champion: F64
    base_rate: float

    @classmethod
    def made_up(cls, base_rate: float, apart: float, seed: int) -> Pool:
        """True logits of spread 1, and two models that see them with independent noise; `apart` is the standard
        deviation of the difference between their logits."""
        rng = np.random.default_rng([seed, _STAGE])
        truth = rng.normal(0.0, _SPREAD, _POOL_ROWS)
        truth += _level(truth, base_rate)
        noise = rng.normal(0.0, apart / np.sqrt(2.0), (2, _POOL_ROWS))
        return cls(truth + noise[0], truth + noise[1], base_rate)

    @classmethod
    def recorded(cls, path: Path) -> Pool:
        """All pairs of a score log. ConfigError when it holds none."""
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            columns = {
                name: np.concatenate([np.empty(0), *(np.asarray(line[name], np.float64) for line in lines)])
                for name in ("candidate", "champion", "label")
            }
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ConfigError(f"{path}: no score log as judging.score_log writes it: {error}") from error
        if len({len(column) for column in columns.values()}) != 1 or not 0 < columns["label"].mean() < 1:
            raise ConfigError(f"{path}: a score log needs columns of equal length, with positives and negatives")
        return cls(columns["candidate"], columns["champion"], float(columns["label"].mean()))


@dataclass(frozen=True, slots=True)
class World:
    """A pool and a truth in which the candidate has the gain that was asked for."""

    if_positive: F64  # [m] gain in nats with either label
    if_negative: F64
    chance: F64  # [m] of a positive
    unit: float  # nats of one NE: the entropy of the base rate
    gain: float  # NE

    @classmethod
    def of(cls, pool: Pool, base_rate: float, gain: float) -> World:
        """ConfigError when the pool's models are too alike to differ so much."""
        better, worse, unit = pool.candidate, pool.champion, entropy(base_rate)
        if_positive = losses(worse, np.ones(1)) - losses(better, np.ones(1))
        if_negative = losses(worse, np.zeros(1)) - losses(better, np.zeros(1))
        chance = _truth((better + worse) / 2, better - worse, if_negative, base_rate, gain * unit)
        return cls(if_positive, if_negative, chance, unit, gain)

    def fixed_sample(self, alpha: float, asked: float) -> float:
        """Examples that a z-test looking once needs to show a gain above `asked` (NE) with power 0.8, when it knows
        mean and variance before; NaN where there is nothing to show."""
        mean = (self.gain - asked) * self.unit
        squares = self.chance * np.square(self.if_positive) + (1 - self.chance) * np.square(self.if_negative)
        variance = float(squares.mean()) - (self.gain * self.unit) ** 2
        z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(_POWER)
        return variance * (z / mean) ** 2 if mean > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a run is, and how often it is looked at."""

    runs: int
    looks: int
    examples_per_look: int
    min_examples: int = 1
    min_positives: int = 1


def rehearse(
    world: World, schedule: Schedule, alpha: float, asked: Mapping[str, float], seed: int
) -> tuple[dict[str, Looks], dict[str, Looks]]:
    """Plays all runs: the look at which the gate first publishes, for each named gain (NE) that it may ask for; and
    the same for the naive rule (the mean is above it) and a one-sided z-test at `alpha` repeated at each look."""
    rng = np.random.default_rng([seed, _STAGE, 1])
    z, sums = NormalDist().inv_cdf(1 - alpha), PairedGains.none()
    gate = {name: np.zeros(schedule.runs, np.int64) for name in asked}
    rivals = {name: np.zeros(schedule.runs, np.int64) for name in ("naive", "repeated_z")}
    for look in range(1, schedule.looks + 1):
        sums += _slide(world, schedule, rng)
        enough = (sums.n >= schedule.min_examples) & (sums.positives >= schedule.min_positives)
        lower = sums.lower(alpha)
        for name, least in asked.items():
            _note(gate[name], enough & (lower > least * world.unit), look)
        above = sums.mean - next(iter(asked.values())) * world.unit
        _note(rivals["naive"], enough & (above > 0), look)
        _note(rivals["repeated_z"], enough & (above > z * sums.standard_error), look)
        if all(first.all() for first in gate.values()):
            break
    return gate, rivals


def _note(first: Looks, now: NDArray[np.bool_], look: int) -> None:
    first[(first == 0) & now] = look


def _slide(world: World, schedule: Schedule, rng: np.random.Generator) -> PairedGains:
    """What matures between two looks, in all runs: sums of shape [runs]."""
    each = max(1, _CHUNK // schedule.examples_per_look)
    parts = []
    for start in range(0, schedule.runs, each):
        shape = (min(each, schedule.runs - start), schedule.examples_per_look)
        rows = rng.integers(0, len(world.chance), shape)
        positive = rng.random(shape) < world.chance[rows]
        parts.append(PairedGains.of_gains(world.if_positive[rows], world.if_negative[rows], positive))
    return PairedGains.joined(parts)


def published(first: Looks) -> float:
    """Share of the runs in which a version was published."""
    return float(np.mean(first > 0))


def looks_for(first: Looks, share: float) -> float:
    """Looks after which `share` of all runs had published; infinite when fewer did so at all."""
    waits = np.sort(np.where(first > 0, first.astype(np.float64), np.inf))
    return float(waits[max(0, int(np.ceil(share * len(waits))) - 1)])


def _level(logits: F64, base_rate: float) -> float:
    """What to add to logits for a mean chance of `base_rate`."""
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if probabilities(logits + middle).mean() < base_rate else (low, middle)
    return (low + high) / 2


def _truth(middle: F64, apart: F64, if_negative: F64, base_rate: float, gain: float) -> F64:
    """Chances of mean `base_rate` under which the expected gain is `gain` nats, by Newton's method on the level and
    the tilt (a gain is `if_negative`, and `apart` more with a positive label)."""
    level, tilt = _level(middle, base_rate), 0.0
    chance = probabilities(middle + level)
    for _ in range(_NEWTON_STEPS):
        wrong = np.array([chance.mean() - base_rate, (chance * apart + if_negative).mean() - gain])
        if np.abs(wrong).max() < 1e-12:
            return chance
        slope = chance * (1 - chance)
        cross = (slope * apart).mean()
        curve = np.array([[slope.mean(), cross], [cross, (slope * apart * apart).mean()]])
        if np.linalg.det(curve) < 1e-14 * curve[0, 0]:
            break
        step = np.linalg.solve(curve, wrong)
        step *= min(1.0, _LONGEST_STEP / float(np.abs(step).max()))
        level, tilt = level - step[0], tilt - step[1]
        chance = probabilities(middle + level + tilt * apart)
    raise ConfigError(
        f"these two models' scores are too alike for a gain of {gain:.2g} nats at a base rate of {base_rate:g}: "
        "ask for a smaller gain, or for scores further apart"
    )

"""What is to happen to a worker, life by life: drawn from a seed, before anything runs."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .damage import DAMAGES
from .places import STORAGE

Rng = np.random.Generator

PLAN_STAGE = 91  # stage constant of the seeds
POLL = "poll"  # records at a time, whatever the source calls it
POWER_CUT = "power cut"

_OPERATIONAL: dict[str, tuple[Any, ...]] = {
    POLL: (3, 50, 150, 5000),
    "source.queue_records": (20, 400, 20_000),
    "snapshot.interval": ("2m", "4m", "10m"),
    "snapshot.max_waiting": (1, 2, 4),
    "snapshot.max_increments": (0, 2, 24),
    "snapshot.max_increment_share": (0.5, 1000.0),
}
_DAMAGES = (*[None] * 6, *[POWER_CUT] * 4, *DAMAGES)  # nothing but the kill, mostly
_DISK = "disk"  # in the names of faults that may not be told apart by inodes: see `_fault_plan`


@dataclass(frozen=True)
class Cut:
    """How a life ends: killed at the nth pass through a place, or by a signal after some seconds. With `fault` it does
    not end there: that befalls it (see faults.py), and it goes on as far as it can."""

    place: str | None = None
    nth: int = 1
    after_s: float = 0.0
    signal: signal.Signals = signal.SIGKILL
    fault: str | None = None

    def __str__(self) -> str:
        if self.fault:
            return f"{self.fault} at {self.place} #{self.nth}"
        return f"{self.place} #{self.nth}" if self.place else f"{self.signal.name} after {self.after_s:.2f} s"

    @property
    def kind(self) -> str:
        """Its row in the table."""
        if self.fault:
            return self.fault
        if self.place is None:
            return f"{self.signal.name} at any moment"
        return "SIGKILL at a storage operation" if self.place == STORAGE else f"SIGKILL in step {step(self.place)}"


def step(place: str) -> str:
    """The steps of the commit protocol have a number; the others a name."""
    return place[0] if place[0].isdigit() else place.split("/")[0]


@dataclass(frozen=True)
class Plan:
    """What happens to a worker, life by life; after the last cut it runs to the end."""

    seed: tuple[int, int]
    cuts: tuple[Cut, ...]
    damages: tuple[str | None, ...]  # after each cut
    settings: tuple[dict[str, Any], ...]  # operational keys of each life, the last one's too

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(cut.fault for cut in self.cuts if cut.fault)


def make_plan(seed: int, number: int, census: dict[str, int], faults: Sequence[str] = ()) -> Plan:
    """The plan of trial `number`. The first life is killed at a place that it is sure to reach: in three trials of five
    at one of those that come round in turn, so that many trials miss none, else at any storage operation. In every
    second trial one of `faults`, which come round in turn too, befalls the life after that; in the others come more
    kills.
    """
    rng = np.random.default_rng([seed, PLAN_STAGE, number])
    places = np.random.default_rng([seed, PLAN_STAGE]).permutation(sorted(census)).tolist()
    if number % 5 in (2, 4):
        first = Cut(STORAGE, 1 + int(rng.integers(census[STORAGE] * 9 // 10)))
    else:
        place = places[(number // 5 * 3 + number % 5) % len(places)]
        first = Cut(place, 1 + int(rng.integers(_sure(place, census))))
    if faults and number % 2:
        return _with_fault(seed, number, census, first, faults[number // 2 % len(faults)], rng)
    cuts = [first]
    if number % 5 == 4:
        ending = signal.SIGTERM if number % 20 == 14 else signal.SIGKILL
        cuts.append(Cut(after_s=float(rng.uniform(0.2, 4.0)), signal=ending))
    while len(cuts) < 4 and rng.random() < 0.35:
        place = places[rng.integers(len(places))]
        cuts.append(Cut(place, 1 + int(rng.integers(min(census[place], 6)))))
    damages = tuple(_DAMAGES[rng.integers(len(_DAMAGES))] for _ in cuts)
    settings = [_settings(rng) for _ in range(len(cuts) + 1)]
    _as_the_reference(settings[0])
    return Plan((seed, number), tuple(cuts), damages, tuple(settings))


def _as_the_reference(settings: dict[str, Any]) -> None:
    """Takes out what decides how often most places are passed."""
    for name in [name for name in settings if name.startswith("snapshot.") and name != "snapshot.max_waiting"]:
        del settings[name]


def _sure(place: str, census: dict[str, int]) -> int:
    """Passes of a place that a first life makes at the least: partitions that end together have one journal entry."""
    return max(census[place] // 3, 1) if place.startswith("journal/") else census[place]


def _with_fault(seed: int, number: int, census: dict[str, int], first: Cut, fault: str, rng: Rng) -> Plan:
    """A kill in the first third of the log, and the fault in the half that follows."""
    kill = Cut(first.place, 1 + (first.nth - 1) // 3)
    settings = [{}, *(_settings(rng) for _ in range(2))]
    for some in settings:
        _as_the_reference(some)
    hurt = fault_cut(fault, census, rng)
    # An inode names a file on one file system only, and so do the notes of fsyncs that a power cut goes by.
    damages = (None if _DISK in fault else _DAMAGES[rng.integers(len(_DAMAGES))], None)
    return Plan((seed, number), (kill, hurt), damages, tuple(settings))


def fault_cut(fault: str, census: dict[str, int], rng: Rng) -> Cut:
    """Where a fault begins: for those of single operations at one of them, else at any place, early in a life."""
    whole = [place for place in sorted(census) if not place.endswith("torn") and census[place] >= 4]
    place = STORAGE if _DISK in fault else whole[rng.integers(len(whole))]
    return Cut(place, 1 + int(rng.integers(max(census[place] // 4, 1))), fault=fault)


def _settings(rng: Rng) -> dict[str, Any]:
    return {name: values[rng.integers(len(values))] for name, values in _OPERATIONAL.items() if rng.random() < 0.5}

"""River's detectors on the champion's matured losses, with their defaults and ever less sensitive."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from river import drift as river
from river.drift import binary

from benchmarks.drift_shop import Day
from stream_learner.judging.metrics import losses


@dataclass(frozen=True)
class Peer:
    """One detector: how it is made, and the thresholds at which it is tried besides."""

    make: Callable[..., Any]
    key: str  # of its threshold
    raised: tuple[float, ...]
    errors: bool = False  # fed with errors (p > 1/2 was wrong) in place of losses
    step: int = 1  # gets every so many-th value

    def made(self, threshold: float | None) -> Any:
        """None = its defaults."""
        return self.make() if threshold is None else self.make(**{self.key: threshold})


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


def variants() -> Iterator[tuple[str, Peer, float | None]]:
    """Every detector by name and threshold, its defaults first."""
    for name, peer in PEERS.items():
        yield name, peer, None
        for threshold in peer.raised:
            yield f"{name}, {peer.key} {threshold:g}", peer, threshold


class Panel:
    """All of them, given a day's values in order."""

    def __init__(self) -> None:
        self._detectors = {name: peer.made(threshold) for name, peer, threshold in variants()}
        self.alarms: dict[str, list[int]] = {name: [] for name in self._detectors}  # slides

    def hear(self, day: Day, slides: range) -> None:
        for at in slides:
            loss = losses(day.scores[at], day.labels[at]).tolist()
            error = ((day.scores[at] > 0) != (day.labels[at] > 0.5)).tolist()
            for name, peer, _ in variants():
                values = error if peer.errors else loss
                self.alarms[name] += [at] * _alarms(self._detectors[name], values[:: peer.step])


def listen(day: Day, parted: Mapping[int, Sequence[Day]] | None = None) -> None:
    """Adds to a day who of them alarmed in which slides, and to the days that went other ways from a slide on."""
    panel, done = Panel(), 0
    for begins, others in sorted((parted or {}).items()):
        panel.hear(day, range(done, begins))
        done = begins
        for other in others:
            copied = copy.deepcopy(panel)
            copied.hear(other, range(begins, len(other.events)))
            other.alarms.update(copied.alarms)
    panel.hear(day, range(done, len(day.events)))
    day.alarms.update(panel.alarms)


def _alarms(detector: Any, values: list[Any]) -> int:
    """How often it alarms on a slide's values."""
    count = 0
    for value in values:
        detector.update(value)
        count += detector.drift_detected
    return count

"""Event time per partition, and which partitions hold slides back.

All that decides here is the log (times and offsets of one partition, in order) and the journal (partitions gone
idle, woken, added, or ended): never the clock, never how polls fell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.ingest.source import Partition
from stream_learner.settings import Slides

NEVER = -(2**63)
ALWAYS = 2**63 - 1
Mask = NDArray[np.bool_]
I64 = NDArray[np.int64]


@dataclass(slots=True)
class PartitionClock:
    """What is known of one partition's time."""

    highest: int = NEVER  # highest event time seen, us
    floor: int = NEVER  # events of slides that start before are late: the partition woke or joined here
    counts: bool = True  # False while idle: slides do not wait for it
    ended: bool = False  # nothing more will come (bounded log): holds nothing back

    def watermark(self, lateness: int) -> int:
        if self.ended:
            return ALWAYS
        return self.highest if self.highest == NEVER else self.highest - lateness


class Watermark:
    """The worker's watermark: the minimum over the partitions that count."""

    def __init__(self, settings: Slides) -> None:
        self._settings = settings
        self._clocks: dict[Partition, PartitionClock] = {}

    def join(self, partition: Partition, floor: int = NEVER) -> None:
        """A partition read from now on; its events of slides that start before `floor` are late."""
        self._clocks[partition] = PartitionClock(floor=floor)

    def rest(self, partition: Partition) -> None:
        """The partition is idle: it no longer holds slides back."""
        self._clocks[partition].counts = False

    def wake(self, partition: Partition, floor: int) -> None:
        """The partition counts again; what belongs to slides that start before `floor` is late."""
        clock = self._clocks[partition]
        clock.counts, clock.ended, clock.floor = True, False, max(clock.floor, floor)

    def end(self, partitions: Iterable[Partition]) -> None:
        """These partitions have nothing more to give: they hold nothing back."""
        for partition in partitions:
            self._clocks[partition].ended = True

    def ended(self) -> tuple[Partition, ...]:
        return tuple(sorted(p for p, clock in self._clocks.items() if clock.ended))

    def resting(self, partition: Partition) -> bool:
        """Whether slides do not wait for this partition: idle, or at its end."""
        clock = self._clocks[partition]
        return clock.ended or not clock.counts

    def observe(self, partition: Partition, times: I64, timestamped: Mask) -> tuple[Mask, Mask]:
        """Judges events of one partition in offset order; returns (late, ahead) masks, [n] each.

        `timestamped` marks events whose record had a timestamp (judged against it when decoded); the others are
        ahead when they jump more than `slides.max_jump` beyond the partition's highest time. What is ahead moves
        no clock.
        """
        clock = self._clocks[partition]
        ahead = self._jumps(clock.highest, times, timestamped)
        seen = np.where(ahead, NEVER, times)
        before = np.maximum.accumulate(np.concatenate(([clock.highest], seen)))
        clock.highest = int(before[-1])
        late = ~ahead & self._is_late(times, before[:-1], clock.floor)
        return late, ahead

    def _jumps(self, highest: int, times: I64, timestamped: Mask) -> Mask:
        """Rejected events raise no bar, so each rejection changes what follows: one pass per rejected event."""
        ahead = np.zeros(len(times), bool)
        limit = int(self._settings.max_jump)
        while True:
            seen = np.where(ahead, NEVER, times)
            before = np.maximum.accumulate(np.concatenate(([highest], seen)))[:-1]
            known = before != NEVER
            jumped = known & ~timestamped & ~ahead & (times > np.where(known, before, 0) + limit)
            if not jumped.any():
                return ahead
            ahead[np.argmax(jumped)] = True

    def _is_late(self, times: I64, before: I64, floor: int) -> Mask:
        mark = np.where(before == NEVER, NEVER, before - min(int(self._settings.allowed_lateness), 2**62))
        if self._settings.by_count is not None:
            return (times < mark) | (times < floor)
        slide = int(self._settings.slide)
        start = times // slide * slide
        return (start + slide <= mark) | (start < floor)

    def value(self) -> int:
        """Event time up to which every partition that counts is complete: ALWAYS when all have ended; NEVER while one
        that counts has said nothing, or while none counts (those that are only idle may speak again)."""
        lateness, clocks = int(self._settings.allowed_lateness), self._clocks.values()
        if clocks and all(clock.ended for clock in clocks):
            return ALWAYS
        return min((c.watermark(lateness) for c in clocks if c.counts and not c.ended), default=NEVER)

    def laggards(self) -> frozenset[Partition]:
        """The partitions that hold the watermark where it is, with those that rest."""
        mark, lateness = self.value(), int(self._settings.allowed_lateness)
        return frozenset(p for p, c in self._clocks.items() if not c.counts or c.watermark(lateness) == mark)

    def highest(self) -> int:
        """Newest event time of all partitions; NEVER before the first event."""
        return max((c.highest for c in self._clocks.values()), default=NEVER)

    def partitions(self) -> tuple[Partition, ...]:
        return tuple(sorted(self._clocks))

    def capture(self) -> dict[str, Any]:
        return {
            f"{p.topic}:{p.index}": [c.highest, c.floor, c.counts, c.ended] for p, c in sorted(self._clocks.items())
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._clocks = {}
        for name, (highest, floor, counts, ended) in state.items():
            topic, index = name.rsplit(":", 1)
            self._clocks[Partition(topic, int(index))] = PartitionClock(highest, floor, counts, ended)

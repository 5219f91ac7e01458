"""Counts of everything that happened, since the state began: part of the state, shown by report and metrics.

Each consumed record has exactly one fate: consumed = ignored + late + dead + duplicate + skipped + quarantined +
accepted + open, where open events wait for their slide, skipped are offsets that the log had lost (`--on-gap skip`),
and quarantined are the events of slides found broken at their close.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stream_learner.events import EventBatch, EventSchema
from stream_learner.ingest.dead_letters import DeadLetter
from stream_learner.ingest.decode import Decoded
from stream_learner.ingest.source import Partition, RecordBatch


@dataclass
class Tally:
    consumed: int = 0
    ignored: int = 0
    late: int = 0
    dead: int = 0
    duplicate: int = 0
    skipped: int = 0
    quarantined: int = 0
    accepted: int = 0
    examples: int = 0
    matured: int = 0
    positives: int = 0
    purchases: int = 0
    unmatched: int = 0
    cancelled: int = 0
    slides: int = 0
    passed: int = 0
    held: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    topics: Counter[str] = field(default_factory=Counter)
    offsets: dict[str, list[int]] = field(default_factory=dict)  # "topic:partition" -> first, last offset in slides
    gaps: list[dict[str, Any]] = field(
        default_factory=list
    )  # what the log had lost, oldest first; never changed in place
    first_time: int | None = None  # event time of the first and last accepted event of closed slides, us
    last_time: int | None = None

    def took(
        self, batch: RecordBatch, decoded: Decoded, *, late: int, letters: Sequence[DeadLetter], dead: int
    ) -> None:
        """A batch of records was read and judged."""
        self.consumed += len(batch)
        self.ignored += decoded.ignored
        self.late += late
        self.dead += dead
        self.topics[batch.partition.topic] += len(batch)
        self.reasons.update(letter.reason for letter in letters)

    def lost(self, partition: Partition, position: int, until: int, why: str, slide: int) -> None:
        """Reading a partition went on at `until` instead of `position`, before the slide of this number. A log that
        was made anew or cut back (`until` not beyond `position`) skips the offsets before its beginning only."""
        place = {"topic": partition.topic, "index": partition.index, "from": position, "until": until}
        self.gaps = [*self.gaps, {**place, "decision": why, "slide": slide}]
        skipped = max(0, until - position) if why == "skip" else 0
        self.consumed += skipped
        self.skipped += skipped

    def closed(self, events: EventBatch, duplicates: int, schema: EventSchema) -> None:
        """A slide closed with these events, after duplicates were taken out."""
        self.slides += 1
        self.duplicate += duplicates
        self.accepted += len(events)
        if not len(events):
            return
        first, last = int(events.time[0]), int(events.time[-1])
        self.first_time = first if self.first_time is None else min(self.first_time, first)
        self.last_time = last if self.last_time is None else max(self.last_time, last)
        self._extend_offsets(events, schema)

    def _extend_offsets(self, events: EventBatch, schema: EventSchema) -> None:
        places = events.topic.astype("int64") << 32 | events.partition
        for place in sorted(set(places.tolist())):
            offsets = events.offset[places == place]
            name = f"{schema.topics[place >> 32]}:{place & 0xFFFFFFFF}"
            low, high = self.offsets.get(name, [int(offsets.min()), -1])
            self.offsets[name] = [min(low, int(offsets.min())), max(high, int(offsets.max()))]

    def inspected(self, events: int, *, whole: bool) -> None:
        """The slide that just closed with so many events is whole, or broken and in quarantine."""
        if not whole:
            self.accepted -= events
            self.quarantined += events

    def joined(
        self, arrived: int, matured: int, positives: int, purchases: int, unmatched: int, cancelled: int
    ) -> None:
        """A slide's clicks became examples, and earlier ones matured or were negative again."""
        self.examples += arrived
        self.matured += matured
        self.positives += positives
        self.purchases += purchases
        self.unmatched += unmatched
        self.cancelled += cancelled

    def judged(self, passed: bool) -> None:
        """A verdict was given."""
        self.passed += passed
        self.held += not passed

    def capture(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in vars(self).items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, Counter(value) if name in ("reasons", "topics") else _plain(value))


def _plain(value: Any) -> Any:
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value

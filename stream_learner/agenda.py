"""What the journal holds and has not taken effect yet: obeyed in order, each entry at its slide and places."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from stream_learner.ingest.source import Partition
from stream_learner.journal import AnyEntry, End, Gap, PartitionIdle, PartitionWoken, Position, Rewound


class Agenda:
    """Journal entries still to be obeyed, and where reading each partition stops for them.

    A partition that went idle, woke, ended or lost records did so at a place: it is read up to there before the
    entry takes effect, and no further.
    """

    def __init__(self, entries: Iterable[AnyEntry] = ()) -> None:
        self._entries = deque(entries)
        self._stops: dict[Partition, deque[int]] = {}
        for entry in self._entries:
            for place in places(entry):
                self._stops.setdefault(place.partition, deque()).append(place.offset)

    def __len__(self) -> int:
        return len(self._entries)

    def next(self, slide: int) -> AnyEntry | None:
        """The oldest entry, if it takes effect before the slide of this number."""
        return self._entries[0] if self._entries and self._entries[0].slide <= slide else None

    def pop(self) -> AnyEntry:
        """Takes the oldest entry off."""
        entry = self._entries.popleft()
        for place in places(entry):
            self._stops[place.partition].popleft()
        return entry

    def stop(self, partition: Partition) -> int | None:
        """The offset at which reading waits for the partition's next entry; None = nothing stops it."""
        stops = self._stops.get(partition)
        return stops[0] if stops else None

    def __str__(self) -> str:
        """The oldest entry, for a message."""
        if not self._entries:
            return "nothing"
        entry = self._entries[0]
        where = ", ".join(f"{place.partition} at {place.offset}" for place in places(entry))
        return f"{type(entry).__name__} for slide {entry.slide}{where and ': '}{where}"


def places(entry: AnyEntry) -> tuple[Position, ...]:
    """Places up to which the entry's partitions must have been read when it takes effect."""
    if isinstance(entry, End):
        return entry.partitions
    if isinstance(entry, Rewound):
        return entry.old
    return (entry.partition,) if isinstance(entry, (PartitionIdle, PartitionWoken, Gap)) else ()

"""Open events, cut into slides: by event time, or by number of events where times mean nothing.

A slide's content and order are decided by the log and the journal alone: it is closed only when no event that
belongs to it can still be accepted, and its events are sorted by (time, topic, partition, offset).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import EventBatch, EventSchema
from stream_learner.settings import CountSlides, Slides
from stream_learner.windows.watermark import ALWAYS, NEVER


@dataclass(frozen=True, slots=True)
class Slide:
    """A closed slide. Times in us; `end` is exclusive for slides cut by time, the last event's time otherwise."""

    number: int  # 0, 1, 2, ... in the order they close
    start: int
    end: int
    events: EventBatch


class OpenSlides(Protocol):
    """Events waiting for their slide to close."""

    number: int  # of the next slide
    floor: int  # no event of a slide that starts before can be accepted any more

    def add(self, events: EventBatch) -> None:
        """Takes accepted events, in any order."""

    def close(self, watermark: int) -> Slide | None:
        """The next slide, if the watermark has passed its end."""

    def __len__(self) -> int: ...

    def ids(self, column: int) -> NDArray[np.uint64]:
        """One id column of the events that wait, in any order."""

    def capture(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


def open_slides(settings: Slides, schema: EventSchema) -> OpenSlides:
    if settings.by_count is not None:
        return CountedSlides(settings.by_count, schema)
    return TimedSlides(int(settings.slide), schema)


class TimedSlides:
    """Slides [k * slide, (k + 1) * slide). One without events is never closed: the next one does its work."""

    def __init__(self, slide: int, schema: EventSchema) -> None:
        self._slide = slide
        self._schema = schema
        self._open: dict[int, list[EventBatch]] = {}
        self._count = 0
        self.number = 0
        self.floor = NEVER

    def __len__(self) -> int:
        return self._count

    def add(self, events: EventBatch) -> None:
        slides = events.time // self._slide
        for slide in np.unique(slides).tolist():
            part = events.take(slides == slide)
            self._open.setdefault(slide, []).append(part)
        self._count += len(events)

    def close(self, watermark: int) -> Slide | None:
        first = min(self._open, default=None)
        if first is None or (first + 1) * self._slide > watermark:
            return None
        events = EventBatch.concat(self._open.pop(first)).in_log_order()
        self._count -= len(events)
        slide = Slide(self.number, first * self._slide, (first + 1) * self._slide, events)
        self.number, self.floor = self.number + 1, slide.end
        return slide

    def ids(self, column: int) -> NDArray[np.uint64]:
        parts = [part.ids[:, column] for held in self._open.values() for part in held]
        return np.concatenate([np.empty(0, np.uint64), *parts])

    def capture(self) -> dict[str, Any]:
        parts = [part for slide in sorted(self._open) for part in self._open[slide]]
        events = EventBatch.concat([EventBatch.empty(self._schema), *parts])
        return {"number": self.number, "floor": self.floor, "events": events.capture()}

    def restore(self, state: dict[str, Any]) -> None:
        self.number, self.floor = state["number"], state["floor"]
        self._open, self._count = {}, 0
        self.add(EventBatch.restored(state["events"]))


class CountedSlides:
    """Slides cut at floor(first + k * size) events of the whole log's order, before `first` at floor(k * first_size);
    the last one may be shorter."""

    def __init__(self, settings: CountSlides, schema: EventSchema) -> None:
        self._size = Fraction(str(settings.size))
        self._first = settings.first or int(self._size)
        self._first_size = Fraction(str(settings.first_size)) or Fraction(self._first)
        self._before = math.ceil(self._first / self._first_size)  # slides among the first events
        self._sorted = EventBatch.empty(schema)
        self._taken = 0  # rows of _sorted already given out
        self._fresh: list[EventBatch] = []
        self.number = 0
        self.floor = NEVER

    def __len__(self) -> int:
        return len(self._sorted) - self._taken + sum(len(part) for part in self._fresh)

    def _cut(self, number: int) -> int:
        """Events before the end of slide `number`."""
        if number < self._before:
            return min(self._first, math.floor((number + 1) * self._first_size))
        return int(self._first + (number + 1 - self._before) * self._size)

    def add(self, events: EventBatch) -> None:
        if len(events):
            self._fresh.append(events)

    def close(self, watermark: int) -> Slide | None:
        size = self._cut(self.number) - (self._cut(self.number - 1) if self.number else 0)
        if watermark == ALWAYS:
            size = min(size, len(self))
        if size == 0 or self._complete(watermark) < size:
            return None
        self._sort()
        events = self._sorted.take(slice(self._taken, self._taken + size))
        self._taken += size
        slide = Slide(self.number, int(events.time[0]), int(events.time[-1]), events)
        self.number, self.floor = self.number + 1, slide.end + 1
        return slide

    def _complete(self, watermark: int) -> int:
        """Open events that none still to come can precede: counted without sorting, for this is asked every poll."""
        if watermark == ALWAYS:
            return len(self)
        fresh = sum(int((part.time < watermark).sum()) for part in self._fresh)
        return int(np.searchsorted(self._sorted.time[self._taken :], watermark)) + fresh

    def _sort(self) -> None:
        if self._fresh:
            rest = self._sorted.take(slice(self._taken, None))
            self._sorted = EventBatch.concat([rest, *self._fresh]).in_log_order()
            self._taken, self._fresh = 0, []

    def ids(self, column: int) -> NDArray[np.uint64]:
        parts = [part.ids[:, column] for part in self._fresh]
        return np.concatenate([self._sorted.ids[self._taken :, column], *parts])

    def capture(self) -> dict[str, Any]:
        events = EventBatch.concat([self._sorted.take(slice(self._taken, None)), *self._fresh])
        return {"number": self.number, "floor": self.floor, "events": events.capture()}

    def restore(self, state: dict[str, Any]) -> None:
        self.number, self.floor = state["number"], state["floor"]
        self._sorted, self._taken, self._fresh = EventBatch.restored(state["events"]).in_log_order(), 0, []

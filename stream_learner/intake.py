"""records -> decode -> slides: reads until the next slide can close, under the journal.

What the log does not hold is decided here once, journaled, and then only obeyed: after a restart or in a replay
the journal's entries are applied at their slides, and nothing new is decided before the last of them has been.
A partition of a bounded log that ends before the others is such a decision too: the log may have grown by the time
a killed run is taken up again. So is going on where the log has lost records (`gaps`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from stream_learner.agenda import Agenda, places
from stream_learner.config_change import ConfigSwitched, new_values
from stream_learner.errors import DataError, StateError
from stream_learner.events import EventSchema
from stream_learner.gaps import OnGap, decided
from stream_learner.ingest.burial import Burial
from stream_learner.ingest.dead_letters import DeadLetterSink
from stream_learner.ingest.decode import Decoder, NoteItems
from stream_learner.ingest.positions import GapError
from stream_learner.ingest.source import Partition, RecordBatch, Source
from stream_learner.journal import (
    AnyEntry,
    Command,
    ConfigChange,
    End,
    Gap,
    Journal,
    PartitionAdded,
    PartitionIdle,
    PartitionWoken,
    Position,
    Rewound,
    Start,
)
from stream_learner.retry import retrying
from stream_learner.settings import Config
from stream_learner.tally import Tally
from stream_learner.windows.slides import OpenSlides, Slide, open_slides
from stream_learner.windows.watermark import Watermark

log = logging.getLogger(__name__)

_POLL_S = 0.1
_LOOK_S = 0.5  # while records flow: how often to look for new, ended and idle partitions


class Intake:
    """The source's side of the worker: positions, watermark, open slides, dead letters."""

    def __init__(
        self,
        config: Config,
        schema: EventSchema,
        source: Source,
        journal: Journal,
        letters: DeadLetterSink,
        tally: Tally,
        *,
        until_end: bool,
        on_gap: OnGap = "stop",
        note_items: NoteItems | None = None,
    ) -> None:
        self._config = config
        self._schema = schema
        self._source = source
        self._journal = journal
        self._tally = tally
        self._until_end = until_end
        self._on_gap = on_gap
        self._decoder = Decoder(config, schema, note_items)
        self._burial = Burial(config, letters, tally)
        self._timed = frozenset(name for name, topic in config.topics.items() if topic.time_format != "integer")
        self.watermark = Watermark(config.slides)
        self.slides: OpenSlides = open_slides(config.slides, schema)
        self.positions: dict[Partition, int] = {}
        self.applied = 0  # journal entries that have taken effect
        self._topic_ids: dict[str, str] = {}  # of the logs that the positions are in
        self._agenda = Agenda()
        self._settled = 0  # number of the first slide about which something new may be decided
        self._held: dict[Partition, RecordBatch] = {}  # read past a journaled stop, waiting for its slide
        self._resuming = False  # partitions that an earlier run read to their ends have not been woken yet
        self._ended = False
        self._next_look = 0.0

    # ---- starting -------------------------------------------------------------------------------------------

    def start(self, settled: int = 0) -> None:
        """Begins reading: from the restored positions, the journal's, or the configured start.

        Slides before `settled` have been seen from outside (a version was made of the last of them): they are worked
        again as they were, so nothing new is decided before, even where the log now has more.
        """
        self._settled = settled
        self._resuming = True
        due = list(self._journal.from_position(self.applied))
        if self.applied == 0 and not due:
            begin = self._source.start(None, until_end=self._until_end)
            self._topic_ids = self._source.topic_ids()
            self._record(Start(slide=0, partitions=_positions(begin)))
            self._begin(begin)
            return
        if self.applied == 0:
            first = due.pop(0)
            if not isinstance(first, Start):
                raise StateError("the journal does not begin with a start entry; put the whole journal back")
            self._begin(_offsets(first.partitions))
        self._agenda = Agenda(due)
        self._connect()

    def _begin(self, positions: dict[Partition, int]) -> None:
        self.positions = dict(positions)
        self.applied = 1
        for partition in sorted(positions):
            self.watermark.join(partition)

    def _connect(self) -> None:
        """Begins reading at the positions, behind what the log had lost by the journal or has lost by now."""
        self._held.clear()
        while (entry := self._agenda.next(self.slides.number)) is not None and self._is_passed(entry):
            self._apply(self._agenda.pop())
        while True:
            try:
                self._source.start(self.positions, until_end=self._until_end, topic_ids=self._topic_ids)
            except GapError as error:
                self._bridge(error)
            else:
                self._topic_ids |= self._source.topic_ids()
                return

    def _is_passed(self, entry: AnyEntry) -> bool:
        """Whether it moves positions that are exactly here: decided, but not in the snapshot any more."""
        here = all(self.positions[place.partition] == place.offset for place in places(entry))
        return here and isinstance(entry, (Gap, Rewound))

    def _bridge(self, error: GapError) -> None:
        """Decides to go on behind what the log has lost, where that is asked for and can still be decided."""
        if self.repeating:
            raise GapError(error.missing, settled=True) from error
        for entry in decided(error, self._on_gap, self.positions, self.slides.number):
            self._decide(entry)

    def _reconnect(self, error: GapError, keep: Callable[[], None]) -> None:
        """Records were lost while reading. All that was read is in a snapshot before anything is decided: a restart
        could not read it again."""
        keep()
        if self._on_gap == "stop":
            self._bridge(error)
        self._connect()  # looks again: the reader may have been told of a log's new end before its new id
        ends = {missing: missing.end for missing in error.missing if missing.why == "beyond"}
        left = [missing for missing, end in ends.items() if end is not None and self.positions[missing.partition] > end]
        if left:  # a log cut back, and longer again since: only the reader knew where
            self._bridge(GapError(left))
            self._connect()

    # ---- the journal ----------------------------------------------------------------------------------------

    def decide(self, name: str, arguments: dict[str, int | str | bool | None], command_id: str) -> Command | None:
        """Journals an operator command to take effect now; None while older entries are still being obeyed."""
        if self.repeating:
            return None
        entry = Command(slide=self.slides.number, id=command_id, name=name, arguments=arguments)
        self._record(entry)
        self.applied += 1
        return entry

    @property
    def repeating(self) -> bool:
        """Whether earlier decisions are still being obeyed, so that none may be added."""
        return bool(self._agenda) or self.slides.number < self._settled

    def journaled(self, command_id: str) -> bool:
        """Whether the journal holds this command already."""
        return any(isinstance(entry, Command) and entry.id == command_id for entry in self._journal.entries)

    def _decide(self, entry: AnyEntry) -> None:
        self._record(entry)
        self._apply(entry)

    def _record(self, entry: AnyEntry) -> None:
        """Journals an entry; a disk that fails is waited for, since nothing may take effect before it is there."""
        retrying(lambda: self._journal.append(entry), "journal.jsonl", self._config.storage.retry_timeout)

    def _apply(self, entry: AnyEntry) -> None:
        if isinstance(entry, PartitionIdle):
            self.watermark.rest(entry.partition.partition)
        elif isinstance(entry, PartitionWoken):
            self.watermark.wake(entry.partition.partition, self.slides.floor)
        elif isinstance(entry, PartitionAdded):
            self._add(entry.partition)
        elif isinstance(entry, End):
            self.watermark.end(p.partition for p in entry.partitions)
        elif isinstance(entry, Gap):
            self._move(entry.partition, entry.until, "skip", entry.slide)
        elif isinstance(entry, Rewound):
            for old, new in zip(entry.old, entry.new, strict=True):
                self._move(old, new.offset, "rewind", entry.slide)
                self._topic_ids.pop(old.topic, None)
        else:
            raise StateError(f"journal entry {type(entry).__name__} for slide {entry.slide} is not known here")
        self.applied += 1

    def _add(self, place: Position) -> None:
        self._source.add(place.partition, place.offset)
        self.positions[place.partition] = place.offset
        self.watermark.join(place.partition, self.slides.floor)

    def _move(self, old: Position, until: int, decision: str, slide: int) -> None:
        self.positions[old.partition] = until
        self._tally.lost(old.partition, old.offset, until, decision, slide)
        log.warning(
            "%s: by --on-gap %s, reading goes on at %d instead of %d", old.partition, decision, until, old.offset
        )

    def _obey(self, act: Callable[[Command], None], keep: Callable[[], None]) -> bool:
        """Applies the entries of this slide; False while one of them waits for records still to be read."""
        while (entry := self._agenda.next(self.slides.number)) is not None:
            if any(self.positions[place.partition] < place.offset for place in places(entry)):
                return False
            if isinstance(entry, Rewound):
                keep()
                where = ", ".join(f"{place.partition} offset {place.offset}" for place in entry.new)
                raise DataError(
                    f"the journal goes on in a new log: {self._agenda}. Point the source at that log, from {where} on, "
                    "and start again on the same state: what was read of the old one is in its snapshot"
                )
            if isinstance(entry, ConfigChange):
                keep()
                raise ConfigSwitched(new_values(entry))
            self._agenda.pop()
            if isinstance(entry, Command):
                self.applied += 1
                act(entry)
            else:
                self._apply(entry)
        return True

    # ---- reading --------------------------------------------------------------------------------------------

    def next_slide(
        self, act: Callable[[Command], None], turn: Callable[[], bool], keep: Callable[[], None] = lambda: None
    ) -> Slide | None:
        """Reads until a slide closes. None when `turn` (called on every round) says stop, or at the end of the log.

        `act` carries out journaled operator commands as their slide comes; `keep` makes the state durable as it is.
        """
        while turn():
            if self._obey(act, keep):
                slide = self.slides.close(self.watermark.value())
                if slide is not None:
                    return slide
                if self._ended:
                    return None
            try:
                self._read()
            except GapError as error:
                self._reconnect(error, keep)
        return None

    def _read(self) -> None:
        wanted = self._wanted()
        for partition in sorted(wanted & self._held.keys()):
            self._take(self._held.pop(partition))
            return
        batch = self._source.poll(wanted, _POLL_S)
        if batch is not None:
            self._take(batch)
        if self.repeating:
            if batch is None and wanted <= self._source.ended():
                raise DataError(
                    f"the log ends before {self._missing()}. Put the missing records back (from an archive of the "
                    "topic), or give `state` a new folder, which begins anew"
                )
        elif batch is None or time.monotonic() >= self._next_look:
            self._look_around()
            self._next_look = time.monotonic() + _LOOK_S

    def _missing(self) -> str:
        if self._agenda:
            return f"the journal does, which goes on with {self._agenda}"
        return f"the versions do, the newest of which was made of slide {self._settled - 1}"

    def _wanted(self) -> frozenset[Partition]:
        """Partitions to read from. When many events are open, those that hold slides back go first, with those that
        a journaled entry waits for."""
        wanted = frozenset(p for p in self.positions if self._may_read(p))
        if len(self.slides) < self._config.slides.max_open_events:
            return wanted
        entry = self._agenda.next(self.slides.number)
        awaited = {place.partition for place in places(entry)} if entry is not None else frozenset()
        return wanted & (self.watermark.laggards() | awaited) or wanted

    def _may_read(self, partition: Partition) -> bool:
        """While the journal is obeyed, no partition is read beyond its next entry, and none that rests: it gave
        nothing more until it woke."""
        if self.repeating and self.watermark.resting(partition):
            return False
        stop = self._agenda.stop(partition)
        return stop is None or self.positions[partition] < stop

    def _take(self, batch: RecordBatch) -> None:
        partition = batch.partition
        if batch.next_offset <= self.positions[partition]:
            return  # skipped once, and here again in a replay of the whole log
        if len(batch) and batch.offsets[0] < self.positions[partition]:
            _, batch = batch.split(self.positions[partition])
        stop = self._agenda.stop(partition)
        if stop is not None and batch.next_offset > stop:
            batch, rest = batch.split(stop)
            self._held[partition] = rest
        if not self.repeating:
            self._go_on()
            if self.watermark.resting(partition):
                self._wake(partition)
        decoded = self._decoder.decode(batch)
        timestamped = batch.timestamps[decoded.rows] >= 0
        if partition.topic not in self._timed:
            timestamped[:] = False
        late, ahead = self.watermark.observe(partition, decoded.events.time, timestamped)
        self._burial.bury(batch, decoded, late, ahead)
        self.slides.add(decoded.events.take(~(late | ahead)))
        self.positions[partition] = batch.next_offset

    # ---- what only a live worker decides --------------------------------------------------------------------

    def _look_around(self) -> None:
        for partition, offset in sorted(self._source.new_partitions().items()):
            self._go_on()
            place = Position.of(partition, offset)
            self._decide(PartitionAdded(slide=self.slides.number, partition=place))
        if self._until_end:
            self._look_for_ends()
        elif self._config.slides.idle_timeout is not None:
            self._look_for_idle(self._config.slides.idle_timeout.seconds)

    def _go_on(self) -> None:
        """The log has more than earlier runs read: partitions that ended then count again, all at once, so that
        what becomes late does not depend on which is read first. Their open slides have closed by now."""
        if self._resuming:
            self._resuming = False
            for partition in self.watermark.ended():
                self._wake(partition)

    def _wake(self, partition: Partition) -> None:
        self._decide(PartitionWoken(slide=self.slides.number, partition=self._position(partition)))

    def _look_for_ends(self) -> None:
        ended = self._source.ended() - self._held.keys()
        self._ended = ended >= self.positions.keys()
        if not self._ended:
            self._go_on()
        fresh = ended & self.positions.keys() - set(self.watermark.ended())
        if fresh:
            at = _positions({partition: self.positions[partition] for partition in fresh})
            self._decide(End(slide=self.slides.number, partitions=at))

    def _look_for_idle(self, timeout_s: float) -> None:
        counting = [p for p in sorted(self.positions) if not self.watermark.resting(p)]
        idle = [p for p in counting if p not in self._held and self._source.idle_s(p) >= timeout_s]
        if len(idle) < len(counting):
            for partition in idle:
                self._decide(PartitionIdle(slide=self.slides.number, partition=self._position(partition)))

    def _position(self, partition: Partition) -> Position:
        return Position.of(partition, self.positions[partition])

    # ---- state ----------------------------------------------------------------------------------------------

    def capture(self) -> dict[str, Any]:
        return {
            "watermark": self.watermark.capture(),
            "slides": self.slides.capture(),
            "positions": [[p.topic, p.index, offset] for p, offset in sorted(self.positions.items())],
            "applied": self.applied,
            "topic_ids": dict(self._topic_ids),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.watermark.restore(state["watermark"])
        self.slides.restore(state["slides"])
        self.positions = {Partition(topic, index): offset for topic, index, offset in state["positions"]}
        self.applied = state["applied"]
        self._topic_ids = dict(state["topic_ids"])


def _offsets(places: tuple[Position, ...]) -> dict[Partition, int]:
    return {place.partition: place.offset for place in places}


def _positions(offsets: dict[Partition, int]) -> tuple[Position, ...]:
    return tuple(Position.of(p, offset) for p, offset in sorted(offsets.items()))

"""Offsets that must lie in the log, and the configured start: what every source shares."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from stream_learner.errors import ConfigError, DataError
from stream_learner.ingest.source import Partition

EARLIEST, LATEST = "earliest", "latest"
_LEARNED = "the state was learned from a log that is no longer there"
_ANEW = "give `state` a new folder, which begins anew at `source.start`"
_SETTLED = (
    "The journal or a published version holds decisions that were taken after these records were read, and that only "
    "they can lead to again, so it is too late to leave them out"
)
_CURES = {
    "before": "start again with --on-gap skip, which goes on at {go_on} and leaves {lost} offsets out for good",
    "beyond": "start again with --on-gap rewind, which goes on at {go_on}: what follows there is new, and what was "
    "learned beyond it stays learned",
    "recreated": "start again with --on-gap rewind, which goes on at {go_on}, the beginning of the new log",
}


@dataclass(frozen=True, slots=True)
class Missing:
    """A position that cannot be read from, and what the log holds instead."""

    partition: Partition
    position: int
    why: Literal["before", "beyond", "recreated"]
    begin: int
    end: int | None  # None = not known

    @property
    def goes_on(self) -> int:
        """Where reading can go on: at the first record there is, or behind the last that was read already."""
        return self.begin if self.why != "beyond" or self.end is None else self.end

    @property
    def cure(self) -> str:
        """The `--on-gap` that goes on from here."""
        return "skip" if self.why == "before" else "rewind"

    def __str__(self) -> str:
        span = f"[{self.begin}, {'?' if self.end is None else self.end}]"
        if self.why == "recreated":
            made = "the topic was deleted and created again"
            return f"{self.partition}: {made}; position {self.position} is of its old log, not of {span}"
        return f"{self.partition}: position {self.position} lies {self.why} the log, {span}"


class GapError(DataError):
    """Positions that the log no longer has. Says for each what can be done."""

    def __init__(self, missing: Sequence[Missing], *, settled: bool = False) -> None:
        """`settled`: what is missing was learned once, and what came of it is journaled or published."""
        self.missing = tuple(missing)
        places = "; ".join(map(str, self.missing))
        cures = [*map(_cure, self.missing)] if not settled else []
        note = "" if not settled else f"{_SETTLED}. "
        ways = "; or ".join(["put the records back (from an archive of the topic)", *cures, _ANEW])
        super().__init__(f"{places}: {_LEARNED}. {note}Either {ways}")


def _cure(missing: Missing) -> str:
    where = f"{missing.partition} offset {missing.goes_on}"
    return _CURES[missing.why].format(go_on=where, lost=missing.goes_on - missing.position)


def parse_start(start: str) -> str | int:
    """`source.start` as EARLIEST, LATEST or a record timestamp in ms since the epoch (naive = UTC).

    Raises `ConfigError` for anything else.
    """
    if start in (EARLIEST, LATEST):
        return start
    try:
        moment = datetime.fromisoformat(start)
    except ValueError as error:
        raise ConfigError(f"source.start: {start!r} is not earliest, latest or an ISO 8601 time") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    milliseconds = int(moment.timestamp() * 1000)
    if milliseconds < 0:
        raise ConfigError(f"source.start: {start!r} lies before 1970")
    return milliseconds


def check_position(partition: Partition, position: int, begin: int, end: int | None) -> None:
    """Raises `GapError` where `position` is outside [begin, end]; an `end` of None is not known yet."""
    check_positions({partition: position}, {partition: (begin, end)})


def check_positions(positions: Mapping[Partition, int], bounds: Mapping[Partition, tuple[int, int | None]]) -> None:
    """Raises one `GapError` for all positions outside the bounds of their partitions."""
    missing = []
    for partition, position in sorted(positions.items()):
        begin, end = bounds[partition]
        if position < begin:
            missing.append(Missing(partition, position, "before", begin, end))
        elif end is not None and position > end:
            missing.append(Missing(partition, position, "beyond", begin, end))
    if missing:
        raise GapError(missing)


def check_topics(
    positions: Mapping[Partition, int],
    bounds: Mapping[Partition, tuple[int, int | None]],
    known: Mapping[str, str],
    now: Mapping[str, str],
) -> None:
    """Raises `GapError` for the positions in topics whose id is another than the one `known`: deleted, made anew."""
    anew = {topic for topic, identity in known.items() if now.get(topic, identity) != identity}
    missing = [Missing(p, positions[p], "recreated", *bounds[p]) for p in sorted(positions) if p.topic in anew]
    if missing:
        raise GapError(missing)


def check_present(positions: Mapping[Partition, int], present: Collection[Partition]) -> None:
    """Raises `DataError` for a position in a partition that does not exist."""
    missing = sorted(set(positions) - set(present))
    if missing:
        raise DataError(
            f"no such partition any more: {', '.join(map(str, missing))}: {_LEARNED}. Create it again, the topic with "
            f"at least as many partitions as before, or {_ANEW}"
        )

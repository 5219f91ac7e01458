"""Offsets that must lie in the log, and the configured start: what every source shares."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from stream_learner.errors import ConfigError, DataError
from stream_learner.ingest.source import Partition

EARLIEST, LATEST = "earliest", "latest"
_REMEDY = (
    "the state was learned from a log that is no longer there. Put the records back (from an archive of the topic), "
    "or give `state` a new folder, which begins anew at `source.start`"
)


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
    """Raises `DataError` where `position` is outside [begin, end]; an `end` of None is not known yet."""
    if position < begin:
        raise DataError(f"{partition}: position {position} lies before the log, [{begin}, {_text(end)}]: {_REMEDY}")
    if end is not None and position > end:
        raise DataError(f"{partition}: position {position} lies beyond the log, [{begin}, {end}]: {_REMEDY}")


def check_present(positions: Mapping[Partition, int], present: Collection[Partition]) -> None:
    """Raises `DataError` for a position in a partition that does not exist."""
    missing = sorted(set(positions) - set(present))
    if missing:
        raise DataError(f"no such partition any more: {', '.join(map(str, missing))}: {_REMEDY}")


def _text(end: int | None) -> str:
    return "?" if end is None else str(end)

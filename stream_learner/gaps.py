"""What the log has lost: the operator's word on it (`--on-gap`), turned into journal entries.

    before     retention has overtaken the position          skip: go on at the first record there is
    beyond     the log was cut back behind the position      rewind: go on at its end; what follows there is new
    recreated  the topic was deleted and created again       rewind: go on at the beginning of the new log

Nothing below the end of a log that was cut back is read again: it is what was learned before. A log made anew holds
other records under the same offsets; those of slides that have closed are late, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from stream_learner.ingest.positions import GapError, Missing
from stream_learner.ingest.source import Partition
from stream_learner.journal import Gap, Position, Rewound

OnGap = Literal["stop", "skip", "rewind"]
ON_GAP: tuple[OnGap, ...] = ("stop", "skip", "rewind")


def decided(error: GapError, on_gap: OnGap, positions: Mapping[Partition, int], slide: int) -> list[Gap | Rewound]:
    """The entries that lead from `positions` to where the log goes on. Raises `error` where `on_gap` is not its cure.

    The rewound partitions are in one entry: a topic is made anew as a whole.
    """
    if any(missing.cure != on_gap for missing in error.missing):
        raise error
    lost = [missing for missing in error.missing if _is_lost(missing, positions[missing.partition])]
    if on_gap == "skip":
        return [
            Gap(slide=slide, partition=Position.of(m.partition, positions[m.partition]), until=m.goes_on) for m in lost
        ]
    if not lost:
        return []
    old = tuple(Position.of(m.partition, positions[m.partition]) for m in lost)
    return [Rewound(slide=slide, old=old, new=tuple(Position.of(m.partition, m.goes_on) for m in lost))]


def _is_lost(missing: Missing, position: int) -> bool:
    """Whether the gap is there for a position that may lie before the one found missing (fetched, but not taken)."""
    if missing.why == "recreated":
        return True
    return position < missing.begin or (missing.end is not None and position > missing.end)

"""What only a simulator knows: of every click, whether its label will be positive. For `labels.mode: oracle`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stream_learner.keys import mix
from stream_learner.simulate.shop import CANCEL, CLICK, ShopEvents
from stream_learner.windows.grouping import NEVER
from stream_learner.windows.outcomes import Outcomes


def revealed(chunks: Iterator[ShopEvents], horizon_us: int, disorder_us: int) -> Iterator[ShopEvents]:
    """The same chunks with `converts`, each held back until all that may follow its clicks within the horizon is there.

    A click converts as a worker's join will find it (`labels.match: item`). `disorder_us`: how long after its time an
    event may arrive.
    """
    held: list[ShopEvents] = []
    for chunk in chunks:
        if not len(chunk):
            continue
        held.append(chunk)
        while int(held[0].time.max()) + horizon_us + disorder_us < int(chunk.arrival.max()):
            yield _labelled(held, horizon_us)
            held.pop(0)
    while held:
        yield _labelled(held, horizon_us)
        held.pop(0)


def _labelled(held: list[ShopEvents], horizon_us: int) -> ShopEvents:
    """The first of the held chunks, labelled by all of them."""
    known = ShopEvents.concat(held)
    order = np.lexsort((known.number, known.time))  # the log's: a user's events lie in one partition
    row = np.empty(len(order), np.int64)
    row[order] = np.arange(len(order))
    keys = np.maximum(mix(known.user.astype(np.uint64), known.item.astype(np.uint64)), np.uint64(1))
    joined = np.flatnonzero(known.kind != CLICK)
    outcomes = Outcomes(row[joined], keys[joined], known.kind[joined] == CANCEL, known.time[order])
    first, chunk = slice(0, len(held[0])), held[0]
    converts = outcomes.of(keys[first], row[first], chunk.time, horizon_us).positive_time != NEVER
    return replace(chunk, converts=np.where(chunk.kind == CLICK, converts, np.nan))

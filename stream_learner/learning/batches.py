"""How a slide's examples are gone through: in batches, with so many replayed rows each, within the budget."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64
from stream_learner.settings import Config

THIN_STAGE = 35
BUDGET_STAGE = 33  # stage constants of the seeds, so that no two stages share a random stream


@dataclass(frozen=True, slots=True)
class Batches:
    """What a slide's learning consists of."""

    fresh: list[I64]  # per step the examples, by their place in the slide
    replayed: list[int]  # per step the rows drawn from the buffer
    skipped_fresh: int  # examples times passes that the budget left out
    skipped_replay: int

    @property
    def rows(self) -> int:
        return sum(len(rows) for rows in self.fresh)


def batches(
    time: NDArray[np.int64], learned: int, config: Config, slide: int, budget: int | None, *, replay: bool
) -> Batches:
    """The batches of a slide whose examples were clicked at `time` [n] (us).

    `learned`: rows learned from ever before; with them a fraction of a replayed row is carried over from batch to
    batch. `replay`: whether there is anything to draw. The `budget` (rows, None = no bound) takes replayed rows first,
    evenly from all batches, then the last passes, then the oldest clicks; among equally old ones the seed decides.
    """
    learning = config.learning
    passes = _passes(time, learning.passes, budget, np.random.default_rng([config.seed, BUDGET_STAGE, slide]))
    fresh = [rows[i : i + learning.batch_size] for rows in passes for i in range(0, len(rows), learning.batch_size)]
    ends = np.cumsum([0, *map(len, fresh)])
    ratio = config.replay.ratio if replay else 0.0
    wanted = [int((learned + int(end)) * ratio) - int(learned * ratio) for end in ends]  # up to each batch's end
    most = wanted[-1] if budget is None else min(wanted[-1], budget - int(ends[-1]))
    up_to = [count * most // max(wanted[-1], 1) for count in wanted]
    replayed = [after - before for before, after in pairwise(up_to)]
    return Batches(fresh, replayed, len(time) * learning.passes - int(ends[-1]), wanted[-1] - most)


def kept(negative: NDArray[np.bool_], config: Config, slide: int, draw: int) -> NDArray[np.bool_]:
    """All but those negatives that are left out (He et al.: ADKDD 2014, section 6.2), [n]. `draw`: 0 for what a slide
    learns, 1 for what it remembers."""
    share = config.learning.negative_share
    if share == 1:
        return np.ones(len(negative), bool)
    random = np.random.default_rng([config.seed, THIN_STAGE, slide, draw])
    return ~negative | (random.random(len(negative)) < share)


def _passes(time: NDArray[np.int64], count: int, budget: int | None, random: np.random.Generator) -> list[I64]:
    """Per pass the examples it takes, in order."""
    rows = np.arange(len(time))
    passes = []
    for number in range(count):
        room = len(time) if budget is None else max(0, budget - number * len(time))
        if room < len(time):
            newest = np.lexsort((random.random(len(time)), time))[len(time) - room :]
            passes.append(np.sort(newest))
        else:
            passes.append(rows)
    return passes

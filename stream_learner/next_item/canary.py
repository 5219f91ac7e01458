"""A new ranking version beside the one before: what the canary is told of a slide."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.judging.canary import Canary, Yardstick
from stream_learner.next_item.card import Listed
from stream_learner.next_item.gate import RankComparison, paired
from stream_learner.next_item.metrics import ranks
from stream_learner.next_item.model import RankingModel
from stream_learner.next_item.sessions import F32, I64, NextItems

_LISTED = "it lists {:.3f} times as many of the items that both know as the version before"

Bools = NDArray[np.bool_]
Top = tuple[NDArray[np.int32], F32]  # rows and scores, [n, k] each


def ranking_canary(config: settings.NextItem) -> Canary:
    """What may shift is the variety of what is listed: a version that recommends the same to everybody, or anything
    to anybody, is found before the first hundred misses are counted."""
    return Canary(config.canary, Yardstick(_LISTED, partial(RankComparison.of, k=config.judging.k)))


def watch(canary: Canary, new: tuple[RankingModel, Top], previous: RankingModel, examples: NextItems, k: int) -> None:
    """A slide's examples, ranked by both as they arrived; by the new version they have been already."""
    sides = (new, (previous, previous.top(examples.asked, k)))
    scored = [np.isfinite(top[1][:, 0]) for _, top in sides]
    both = np.logical_and(*scored)
    common = np.intersect1d(Listed.of(new[0]).items, Listed.of(previous).items, assume_unique=True)
    kinds = [_kinds(model, top, both, common) for model, top in sides]
    canary.saw(int(np.count_nonzero(both)), int(np.count_nonzero(~scored[0])), (kinds[0], kinds[1]))
    found = [ranks(top[0], model.known(examples.target))[both] for model, top in sides]
    canary.gained(paired(found[0], found[1]))


def _kinds(model: RankingModel, top: Top, examples: Bools, among: I64) -> float:
    """How many different items are listed for these examples, of those `among` which they are looked for."""
    rows, scores = top[0][examples], top[1][examples]
    listed = np.unique(model.by_row()[rows[np.isfinite(scores)]])
    return float(len(np.intersect1d(listed, among, assume_unique=True)))

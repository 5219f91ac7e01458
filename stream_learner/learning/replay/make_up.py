"""What a replay buffer is made of, for people to look at: examples by age and by stratum. Nothing here reaches the
model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64
from stream_learner.learning.replay.store import Column, RowStore

_HOUR_US = 3_600_000_000
_UP_TO = {"1h": 1, "6h": 6, "1d": 24, "3d": 72, "7d": 168, "30d": 720}  # hours
AGES = (*(f"to {name}" for name in _UP_TO), "older")
STRATA_SHOWN = 20  # the fullest; the rest are one

_BOUNDS = np.array([hours * _HOUR_US for hours in _UP_TO.values()], np.int64)


@dataclass(frozen=True)
class MakeUp:
    """Examples held: by age, each of AGES, and by stratum, the fullest first."""

    ages: dict[str, int]
    strata: dict[str, int]


def held(store: RowStore, name: str) -> Column:
    """A column of the rows in use, holes left out; may be a view."""
    live = store.live()
    return store.columns[name][: store.height] if live is None else store.take(name, live)


def by_age(store: RowStore, now: int) -> dict[str, int]:
    """Examples by the event time that has passed since their click; `now` in us."""
    ages = now - held(store, "time")
    counts = np.bincount(np.searchsorted(_BOUNDS, ages), minlength=len(AGES))
    return dict(zip(AGES, counts.tolist(), strict=True))


def by_label(store: RowStore) -> dict[str, int]:
    """Examples without and with a purchase: the strata of every policy that knows no other."""
    positives = int(np.count_nonzero(held(store, "label") > 0))
    return {"negative": len(store) - positives, "positive": positives}


def by_value(counts: I64, values: NDArray[np.uint64], names: Mapping[int, str]) -> dict[str, int]:
    """Examples by value of a feature, the fullest strata first and the rest as one; a value whose text is not known is
    shown by its fingerprint. `counts`: [strata] of `values`."""
    ranked = np.argsort(-counts, kind="stable")
    shown = {names.get(value := int(values[at]), f"#{value:016x}"): int(counts[at]) for at in ranked[:STRATA_SHOWN]}
    rest = int(counts[ranked[STRATA_SHOWN:]].sum())
    return {**shown, "other": rest} if rest else shown

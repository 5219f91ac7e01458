"""Slices: the parts of the traffic that metrics and the gate look at separately, few in number whatever comes in.

A slice is named `feature=value`. `new_user` and `new_item` split by whether the id occurred in an earlier example, as
known at click time. A categorical feature is split into the values named in `judging.slice_values`, then the most
frequent others up to `judging.slice_top` in all, the rest (`other`) and `missing`; a value that is not named is shown
by its fingerprint, for texts are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import MISSING_ID, EventSchema, ExampleBatch
from stream_learner.ingest.identity import fingerprints
from stream_learner.keys import U64, KeyIndex
from stream_learner.settings import NOVELTY, Judging

_TRACKED = 4096  # values of a feature whose counts are kept, far more than are ever shown
_HALVED_EVERY = 1_000_000  # examples after which counts are halved, so that a new season's values can rise
_TAKEOVER = 2  # a newcomer must be so many times as frequent as the value it replaces: slices should last
_EVICTED_SHARE = 16  # one in so many ids goes at once, so that choosing whom is rare


@dataclass(frozen=True, slots=True)
class Membership:
    """Examples [n] divided among the slices of one feature."""

    names: tuple[str, ...]  # source=ads, ..., source=other, source=missing
    codes: NDArray[np.int64]  # [n] index into `names`


class Slices:
    """Says which slices examples belong to. What it has seen is part of the state."""

    def __init__(self, settings: Judging, schema: EventSchema) -> None:
        self._numbers: dict[str, int] = {}
        self._columns = {name: schema.id_column(NOVELTY.get(name, name)) for name in settings.slices}
        self._known = {name: _KnownIds(settings.known_max) for name in settings.slices if name in NOVELTY}
        self._values = {
            name: _TopValues(settings.slice_values.get(name, []), settings.slice_top)
            for name in settings.slices
            if name not in NOVELTY
        }

    def arrive(self, ids: U64) -> NDArray[np.bool_]:
        """Takes in a slide's clicks, ids [n, k] in log order: bool [n, 2], whether user and item are unseen so far.

        False where the id is missing, and where `judging.slices` does not ask. Once per slide.
        """
        unseen = np.zeros((len(ids), len(NOVELTY)), bool)
        for at, name in enumerate(NOVELTY):
            if name in self._known:
                unseen[:, at] = self._known[name].meet(ids[:, self._columns[name]])
        for name, values in self._values.items():
            values.count(ids[:, self._columns[name]])
        return unseen

    def erase(self, users: U64) -> None:
        """Users, by fingerprint, are unseen again."""
        if (known := self._known.get("new_user")) is not None:
            known.erase(users)

    def of(self, examples: ExampleBatch) -> dict[str, Membership]:
        """The slices of each example by feature, in the order of `judging.slices`."""
        return {name: self._membership(name, examples) for name in self._columns}

    def numbered(self, examples: ExampleBatch) -> NDArray[np.int16]:
        """The slices of each example by feature as numbers, [n, features]; a name keeps its number for life."""
        columns = []
        for member in self.of(examples).values():
            numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in member.names]
            columns.append(np.array(numbers, np.int16)[member.codes])
        return np.stack(columns, axis=1) if columns else np.empty((len(examples), 0), np.int16)

    def numbers(self) -> dict[str, int]:
        """The number of every slice there is now and that an example has been put into a feature of."""
        return {name: self._numbers[name] for name in self.names() if name in self._numbers}

    def names(self) -> list[str]:
        """Every slice there is now, empty ones included."""
        return [name for feature in self._columns for name in self._labels(feature)]

    def sizes(self) -> dict[str, int]:
        """Ids remembered by new_user and new_item, where they are asked for: `judging.known_max` each at the most."""
        return {name: len(known) for name, known in self._known.items()}

    def _membership(self, feature: str, examples: ExampleBatch) -> Membership:
        ids = examples.ids[:, self._columns[feature]]
        if feature in self._values:
            codes = self._values[feature].codes(ids)
        else:
            codes = examples.unseen[:, list(NOVELTY).index(feature)].astype(np.int64)
            codes[ids == MISSING_ID] = 2
        return Membership(self._labels(feature), codes)

    def _labels(self, feature: str) -> tuple[str, ...]:
        if feature in self._values:
            return tuple(f"{feature}={value}" for value in self._values[feature].labels())
        return f"{feature}=no", f"{feature}=yes", f"{feature}=missing"

    def capture(self) -> dict[str, Any]:
        return {
            "numbers": dict(self._numbers),
            "known": {name: known.capture() for name, known in self._known.items()},
            "values": {name: values.capture() for name, values in self._values.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._numbers = {str(name): int(number) for name, number in state["numbers"].items()}
        for name, known in self._known.items():
            known.restore(state["known"][name])
        for name, values in self._values.items():
            values.restore(state["values"][name])


class _KnownIds:
    """The ids met so far; beyond `most` of them those met longest ago are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._index = KeyIndex()
        self._met = np.zeros(0, np.int64)  # per row: number of the last call that met it
        self._calls = 0

    def __len__(self) -> int:
        return len(self._index)

    def meet(self, ids: U64) -> NDArray[np.bool_]:
        """Which of these ids [n], in order, occur for the first time."""
        present = np.flatnonzero(ids != MISSING_ID)
        rows, new = self._index.find_or_add(ids[present])
        fresh = np.zeros(len(ids), bool)
        if len(new):
            added = np.zeros(self._index.row_limit, bool)
            added[self._index.find(new)] = True
            unknown = np.flatnonzero(added[rows])
            fresh[present[unknown[np.unique(rows[unknown], return_index=True)[1]]]] = True
        if self._index.row_limit > len(self._met):
            self._met = np.concatenate([self._met, np.zeros(2 * self._index.row_limit - len(self._met), np.int64)])
        self._calls += 1
        self._met[rows] = self._calls
        self._evict()
        return fresh

    def erase(self, ids: U64) -> None:
        rows = self._index.find(np.unique(ids))
        self._index.remove_rows(rows[rows >= 0])
        self._met[rows[rows >= 0]] = 0

    def _evict(self) -> None:
        if len(self._index) <= self._most:
            return
        rows = np.sort(self._index.items()[1])
        excess = len(rows) - (self._most - self._most // _EVICTED_SHARE)
        self._index.remove_rows(rows[np.argsort(self._met[rows], kind="stable")[:excess]])

    def capture(self) -> dict[str, Any]:
        met = self._met[: self._index.row_limit].copy()
        return {"index": self._index.capture(), "met": met, "calls": self._calls}

    def restore(self, state: dict[str, Any]) -> None:
        self._index.restore(state["index"])
        self._met = state["met"].astype(np.int64)
        self._calls = int(state["calls"])


class _TopValues:
    """The named values of a categorical feature, and its most frequent others.

    Counts are those of the 4,096 most frequent values, halved now and then (after lossy counting, Manku and Motwani,
    VLDB 2002). A place once taken is kept until a value twice as frequent wants it.
    """

    def __init__(self, named: list[str], top: int) -> None:
        self._texts = tuple(named)
        self._named = fingerprints(named)
        self._top = max(top, len(named))
        self._keys = np.empty(0, np.uint64)  # ascending
        self._counts = np.empty(0, np.int64)
        self._since_halved = 0
        self._chosen = np.empty(0, np.uint64)  # unnamed values with a slice of their own, by place

    def labels(self) -> list[str]:
        return [*self._texts, *(f"#{key:016x}" for key in self._chosen.tolist()), "other", "missing"]

    def codes(self, ids: U64) -> NDArray[np.int64]:
        """Index into `labels` of each id [n]."""
        values = np.concatenate([self._named, self._chosen])
        codes = np.full(len(ids), len(values), np.int64)
        if len(values):
            order = np.argsort(values)
            at = np.minimum(np.searchsorted(values[order], ids), len(values) - 1)
            codes = np.where(values[order[at]] == ids, order[at], codes)
        return np.where(ids == MISSING_ID, len(values) + 1, codes)

    def count(self, ids: U64) -> None:
        ids = ids[(ids != MISSING_ID) & ~np.isin(ids, self._named)]
        keys, inverse = np.unique(np.concatenate([self._keys, ids]), return_inverse=True)
        weights = np.concatenate([self._counts, np.ones(len(ids), np.int64)])
        counts = np.bincount(inverse, weights, minlength=len(keys)).astype(np.int64)
        kept = np.sort(np.argsort(-counts, kind="stable")[:_TRACKED])
        self._keys, self._counts = keys[kept], counts[kept]
        self._since_halved += len(ids)
        if self._since_halved >= _HALVED_EVERY:
            self._counts, self._since_halved = self._counts // 2, 0
        self._choose()

    def _choose(self) -> None:
        """Fills free places, then lets the strongest outsider replace the weakest insider while it is far stronger."""
        chosen = self._chosen.tolist()
        frequency = dict(zip(self._keys.tolist(), self._counts.tolist(), strict=True)) if len(self._keys) else {}
        ranked = self._keys[np.argsort(-self._counts, kind="stable")[: 2 * self._top]].tolist()
        for key in (key for key in ranked if key not in chosen):
            if len(chosen) < self._top - len(self._named):
                chosen.append(key)
                continue
            weakest = min(chosen, key=lambda one: frequency.get(one, 0), default=None)
            if weakest is None or frequency[key] < _TAKEOVER * frequency.get(weakest, 0) + 1:
                break
            chosen[chosen.index(weakest)] = key
        self._chosen = np.array(chosen, np.uint64)

    def capture(self) -> dict[str, Any]:
        columns = {"keys": self._keys.copy(), "counts": self._counts.copy(), "chosen": self._chosen.copy()}
        return {**columns, "since_halved": self._since_halved}

    def restore(self, state: dict[str, Any]) -> None:
        self._keys, self._counts = state["keys"].copy(), state["counts"].copy()
        self._chosen = state["chosen"].copy()
        self._since_halved = int(state["since_halved"])

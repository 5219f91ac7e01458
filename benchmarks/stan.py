"""A session-kNN of its own in numpy, beside the published models: STAN's form, over all sessions of the periods before.

Garg, Gupta, Malhotra, Vig, Shroff: Sequence and Time Aware Neighborhood for Session-based Recommendations (SIGIR 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.sessions import Log, Prefixes

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

CHUNK = 400  # prefixes at once


@dataclass(frozen=True)
class Settings:
    """The best found on periods 1 to 3; the same as the defaults of `next_item.neighbours`."""

    sequence_decay: float = 2.5
    rarity: float = 1.6
    sharpness: float = 1.2
    length: float = 0.15
    position_decay: float = 5.0
    forward: float = 1.15
    shared: float = 1.6
    target_rarity: float = 0.4
    neighbours: int = 1000


class SessionNeighbours:
    """All sessions of at least two events before a period."""

    def __init__(self, log: Log, period: int, settings: Settings) -> None:
        self._how = settings
        rows = np.flatnonzero(log.period < period)
        order = rows[np.argsort(log.session[rows], kind="stable")]
        self.items, item = np.unique(log.item[order], return_inverse=True)
        session = np.unique(log.session[order], return_inverse=True)[1]
        lengths = np.bincount(session)
        place = np.arange(len(session)) - (np.cumsum(lengths) - lengths)[session]
        kept = _latest(session, item, place)
        kept = kept[lengths[session[kept]] > 1]
        sessions, self._session = np.unique(session[kept], return_inverse=True)
        self._item, self._place = item[kept], place[kept]
        self._distinct = np.bincount(self._session)
        self._starts = np.concatenate([[0], np.cumsum(self._distinct)])
        self._by_item = np.argsort(self._item, kind="stable")
        held = np.bincount(self._item, minlength=len(self.items))
        self._pointers = np.concatenate([[0], np.cumsum(held)])
        self._rarity = np.log(len(sessions) / np.maximum(held, 1))

    def top(self, prefixes: Prefixes, k: int) -> I64:
        """The k best items of each prefix, [n, k], -1 where there are fewer."""
        at = np.searchsorted(self.items, prefixes.recent)
        known = self.items[np.minimum(at, len(self.items) - 1)] == prefixes.recent
        recent = np.where(known, at, -1)
        parts = [self._top(recent[start : start + CHUNK], k) for start in range(0, len(recent), CHUNK)]
        best = np.concatenate(parts)
        return np.where(best >= 0, self.items[np.maximum(best, 0)], -1)

    def _top(self, recent: I64, k: int) -> I64:
        how = self._how
        row, column = np.nonzero(recent >= 0)
        item = recent[row, column]
        kept = _latest(row, item, -column)
        row, column, item = row[kept], column[kept], item[kept]
        weight = np.exp(-column / how.sequence_decay) * self._rarity[item] ** how.rarity
        slot, posting = _ranges(self._pointers[item], self._pointers[item + 1])
        entry = self._by_item[posting]
        pair = row[slot] * len(self._distinct) + self._session[entry]
        order = np.lexsort((column[slot], pair))
        first = np.flatnonzero(np.concatenate([[True], np.diff(pair[order]) != 0]))
        similarity = np.add.reduceat(weight[slot][order], first) ** how.sharpness
        session, target = pair[order][first] % len(self._distinct), pair[order][first] // len(self._distinct)
        similarity = similarity / self._distinct[session] ** how.length
        near = _first(target, similarity, how.neighbours)
        shared = self._place[entry][order][first][near]
        which, other = _ranges(self._starts[session[near]], self._starts[session[near] + 1])
        steps = self._place[other] - shared[which]
        value = similarity[near][which] * _kernel(steps, how) * self._rarity[self._item[other]] ** how.target_rarity
        return _best(target[near][which], self._item[other], value, len(recent), len(self.items), k)


def _kernel(steps: I64, how: Settings) -> F64:
    weight = np.exp(-(np.abs(steps) - 1) / how.position_decay) * np.where(steps > 0, how.forward, 1.0)
    return np.where(steps == 0, how.shared, weight)


def _latest(group: I64, item: I64, place: I64) -> I64:
    """Rows of the latest place of every (group, item), sorted by group and place."""
    order = np.lexsort((place, item, group))
    last = np.concatenate([(np.diff(group[order]) != 0) | (np.diff(item[order]) != 0), [True]])
    kept = order[last]
    return kept[np.lexsort((place[kept], group[kept]))]


def _ranges(starts: I64, limits: I64) -> tuple[I64, I64]:
    """All numbers of every range, and which range each is of."""
    counts = limits - starts
    which = np.repeat(np.arange(len(starts)), counts)
    return which, np.arange(counts.sum()) - (np.cumsum(counts) - counts)[which] + starts[which]


def _first(group: I64, value: F64, count: int) -> I64:
    """Rows of the `count` largest values of every group."""
    order = np.lexsort((-value, group))
    begins = np.searchsorted(group[order], group[order])
    return order[np.arange(len(order)) - begins < count]


def _best(row: I64, item: I64, value: F64, rows: int, items: int, k: int) -> I64:
    """The k items with the largest sums of values by row, [rows, k], -1 where there are fewer."""
    cell, inverse = np.unique(row * items + item, return_inverse=True)
    total = np.bincount(inverse, weights=value, minlength=len(cell))
    chosen = _first(cell // items, total, k)
    out = np.full((rows, k), -1)
    line = cell[chosen] // items
    out[line, np.arange(len(line)) - np.searchsorted(line, line)] = cell[chosen] % items
    return out

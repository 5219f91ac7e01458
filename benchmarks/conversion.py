"""Protocol P1 for the peers: Tmall's click days, their labels, and 51 features of each as of the end of its day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

FIRST_DAY = datetime(2013, 4, 15)
JUDGED = range(28, 116)
LATER_WEEKS = range(56, 116)  # weeks 4-12; settings are chosen on weeks 0-3
HORIZON = 7
_DAYS = 123
_WINDOWS = (1, 3, 7, 28)  # days before the example's own
CLICK, PURCHASE, INTEREST = 0, 1, 2  # the last one: carts and favourites
_TYPES = {"click": CLICK, "purchase": PURCHASE, "cart": INTEREST, "favourite": INTEREST}


@dataclass(frozen=True)
class ClickDays:
    """One row per user, item and day with a click, by day. `x`: raw counts and days, NaN = never."""

    day: I64  # [n]
    user: I64  # [n] dense numbers, as `item`
    item: I64  # [n]
    label: F32  # [n] a purchase within the next 7 days
    x: F32  # [n, 51]

    def scaled(self) -> F32:
        """log1p of `x`, standardised by the days before the judged ones, missing = 0."""
        logged = np.log1p(self.x.astype(np.float64))
        warm = logged[self.day < JUDGED.start]
        scaled = (logged - np.nanmean(warm, axis=0)) / (np.nanstd(warm, axis=0) + 1e-6)
        return np.nan_to_num(np.clip(scaled, -8, 8)).astype(np.float32)


def click_days(path: Path) -> ClickDays:
    """Reads events.parquet of the data folder and goes through it day by day."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["ts", "user", "item", "event"]).to_pydict()
    day = np.array([(ts - FIRST_DAY).days for ts in table["ts"]])
    kind = np.array([_TYPES[event] for event in table["event"]])
    users, items = (np.unique(table[name], return_inverse=True)[1].astype(np.int64) for name in ("user", "item"))
    wide = int(items.max()) + 1
    pairs, pair = np.unique(users * wide + items, return_inverse=True)
    keys = [_Key(users), _Key(items), _Key(pair)]
    bought = [np.unique(pair[(day == d) & (kind == PURCHASE)]) for d in range(_DAYS)]
    parts = []
    for d in range(_DAYS):
        today = np.flatnonzero(day == d)
        clicked = np.unique(pair[today[kind[today] == CLICK]])
        of = [pairs[clicked] // wide, pairs[clicked] % wide, clicked]
        for key in keys:
            key.see(today[kind[today] == CLICK], CLICK, d)
        own = [np.bincount(ids, minlength=int(ids.max(initial=0)) + 1)[ids] for ids in of[:2]]  # distinct, today
        columns = [column for key, ids in zip(keys, of, strict=True) for column in key.columns(ids, d)]
        columns += [*own, np.full(len(clicked), d % 7)]
        following = [bought[later] for later in range(d + 1, min(d + 1 + HORIZON, _DAYS))]
        label = np.isin(clicked, np.concatenate([np.empty(0, np.int64), *following]))
        parts.append((np.full(len(clicked), d), of[0], of[1], label, np.stack(columns, axis=1)))
        for key in keys:
            for other in (PURCHASE, INTEREST):
                key.see(today[kind[today] == other], other, d)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return ClickDays(columns[0], columns[1], columns[2], columns[3].astype(np.float32), columns[4].astype(np.float32))


def write_labelled(source: Path, days: ClickDays, target: Path) -> None:
    """The same events with a column `label`: of a click what its day's label will be, as `labels.mode: oracle` reads
    it, of all else 0."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    columns = table.select(["ts", "user", "item", "event"]).to_pydict()
    day = np.array([(ts - FIRST_DAY).days for ts in columns["ts"]])
    users, items = (np.unique(columns[name], return_inverse=True)[1].astype(np.int64) for name in ("user", "item"))
    clicks = np.array([_TYPES[event] == CLICK for event in columns["event"]])

    def place(day: I64, user: I64, item: I64) -> I64:
        return (day * (int(users.max()) + 1) + user) * (int(items.max()) + 1) + item

    known = place(days.day, days.user, days.item)
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], place(day, users, items)), len(order) - 1)
    label = np.where(clicks, days.label[order][at], 0.0)
    pq.write_table(table.append_column("label", pa.array(label)), target)


class _Key:
    """Daily counts of every user, item or pair: [ids, days, types]."""

    def __init__(self, ids: I64) -> None:
        self._ids = ids
        self._counts = np.zeros((int(ids.max()) + 1, _DAYS, 3), np.int16)
        self._last = np.full((int(ids.max()) + 1, 2), np.nan)

    def see(self, events: I64, kind: int, day: int) -> None:
        np.add.at(self._counts, (self._ids[events], day, kind), 1)
        if kind != INTEREST:
            self._last[self._ids[events], kind] = day

    def columns(self, ids: I64, day: int) -> list[NDArray[np.float64]]:
        """16 per key: today's clicks; clicks and purchases of the days before, by window and ever; carts and
        favourites over 28 days and ever; days since the last click and purchase; click days in 28."""
        counts = self._counts[ids]
        out = [counts[:, day, CLICK].astype(np.float64)]
        for kind in (CLICK, PURCHASE):
            out += [counts[:, max(0, day - w) : day, kind].sum(axis=1) for w in _WINDOWS]
            out.append(counts[:, :day, kind].sum(axis=1))
        out += [counts[:, max(0, day - 28) : day, INTEREST].sum(axis=1), counts[:, :day, INTEREST].sum(axis=1)]
        out += [day - self._last[ids, CLICK], day - self._last[ids, PURCHASE]]
        out.append((counts[:, max(0, day - 27) : day + 1, CLICK] > 0).sum(axis=1))
        return out

"""Protocol P3 (ADER): a Parquet file of (seq, period, session, item), as events to learn from and prefixes to rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

I64 = NDArray[np.int64]

PERIOD_S = 1_000_000  # of event time per period: one slide
COLUMNS = ("seq", "period", "session", "item")


@dataclass(frozen=True)
class Log:
    """Events in order of `seq`. Shapes are [n]."""

    period: I64  # 0, 1, 2, ...
    session: I64
    item: I64  # as in the file

    @classmethod
    def read(cls, path: Path) -> Log:
        """ValueError names the columns that are missing."""
        table = pq.read_table(path)
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
        columns = {name: table[name].to_numpy().astype(np.int64) for name in COLUMNS}
        order = np.argsort(columns["seq"], kind="stable")
        period = np.unique(columns["period"][order], return_inverse=True)[1]
        return cls(period.astype(np.int64), columns["session"][order], columns["item"][order])

    @property
    def periods(self) -> int:
        return int(self.period.max()) + 1

    def write_events(self, path: Path, periods: NDArray[np.bool_] | None = None) -> None:
        """Events with a time in seconds, those of period p within slide p; all but the last period, which is tested."""
        first = np.searchsorted(self.period, np.arange(self.periods))
        place = np.arange(len(self.period)) - first[self.period]
        if place.max() >= PERIOD_S:
            raise ValueError(f"a period of {place.max() + 1} events; at most {PERIOD_S} fit a slide")
        kept = self.period < self.periods - 1 if periods is None else periods[self.period]
        columns = {"time": self.period * PERIOD_S + place, "session": self.session, "item": self.item}
        pq.write_table(pa.table({name: column[kept] for name, column in columns.items()}), path)


@dataclass(frozen=True)
class Prefixes:
    """What is ranked in one period: every prefix of every session, and what came next."""

    recent: I64  # [n, width] items, latest first; -1 beyond the session's beginning
    target: I64  # [n]

    @classmethod
    def of(cls, log: Log, known: I64, period: int, width: int) -> Prefixes:
        """`known`: items that may be ranked, ascending; events of others are dropped, then sessions of one event."""
        inside = np.flatnonzero((log.period == period) & np.isin(log.item, known))
        order = inside[np.argsort(log.session[inside], kind="stable")]
        session, item = log.session[order], log.item[order]
        start = np.flatnonzero(np.concatenate([[True], session[1:] != session[:-1]]))
        begins = start[np.searchsorted(start, np.arange(len(item)), side="right") - 1]
        targets = np.flatnonzero(np.arange(len(item)) > begins)
        at = targets[:, None] - 1 - np.arange(width)
        recent = np.where(at >= begins[targets][:, None], item[np.maximum(at, 0)], -1)
        return cls(recent, item[targets])


def tested(log: Log, period: int, width: int) -> Prefixes:
    """The prefixes of a period, among items of the periods before."""
    return Prefixes.of(log, np.unique(log.item[log.period < period]), period, width)


def quality(top: I64, target: I64) -> dict[str, float]:
    """Percent; `top` [n, 20] items, best first, -1 for none."""
    hit = top == target[:, None]
    rank = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)
    out = {}
    for k in (20, 10):
        inside = (rank > 0) & (rank <= k)
        out[f"recall@{k}"] = 100 * float(inside.mean())
        out[f"mrr@{k}"] = 100 * float(np.where(inside, 1 / np.maximum(rank, 1), 0.0).mean())
    return out

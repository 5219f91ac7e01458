"""Counts by row and event type over several sliding windows at once, exact to a pane at the trailing edge.

Adding an event touches its row; leaving a window subtracts what was added when its pane was current. Nothing is
done per row and slide, so the cost is linear in the events, once when they come and once per window when they go.
This is the pane scheme of Li, Maier, Tufte, Papadimos and Tucker, "No pane, no gain" (SIGMOD Record 2005), with the
panes' partial counts kept as a log of (cell, count).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import Touched
from stream_learner.windows.tape import Tape

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


def grown(array: NDArray[Any], rows: int, fill: int) -> NDArray[Any]:
    """`array`, or a copy with room for at least `rows` rows, the new ones holding `fill`."""
    if rows <= len(array):
        return array
    out = np.full((max(rows, 2 * len(array), 1024), *array.shape[1:]), fill, array.dtype)
    out[: len(array)] = array
    return out


class PaneCounts:
    """`values`: int32[rows, windows, types].

    `spans` and `panes` are microseconds, one per window; a window with span None never loses anything. An event of
    time t lies in pane t // pane, which leaves when its end is at or before edge - span.
    """

    def __init__(self, spans: Sequence[int | None], panes: Sequence[int], types: int) -> None:
        self._spans = tuple(spans)
        self._panes = tuple(panes)
        self._types = types
        self._stride = len(spans) * types  # cells of one row in the flat view
        self.values: I32 = np.zeros((0, len(spans), types), np.int32)
        self._touched = Touched()
        self._chunks = (
            Tape()
        )  # time: of any event in the chunk, stop: where its cells end; one pane of every window each
        self._cells = Tape()  # cell: row * stride + type, count
        self._next_chunk = [0] * len(spans)  # per window: the first chunk still counted
        self._next_cell = [0] * len(spans)

    def reserve(self, rows: int) -> None:
        self.values = grown(self.values, rows, 0)
        self._touched.reach(rows)

    def add(self, rows: I64, group: I64, types: I64, times: I64) -> I32:
        """Counts one slide's events; returns int32[u, types], what each row of `rows` (distinct, shape [u]) gained.

        Per event (shape [e], any order): `group`, its index into `rows`, its type, and its time, none of them before
        the last pane of any earlier slide.
        """
        local = group * self._types + types
        totals = np.bincount(local, minlength=len(rows) * self._types).astype(np.int32).reshape(-1, self._types)
        self.values[rows] += totals[:, None, :]
        self._touched.add(rows)
        if len(local) and any(span is not None for span in self._spans):
            self._log(rows, totals, local, times)
        return totals

    def expire(self, edge: int, watched: int | None = None) -> list[tuple[int, I64]]:
        """Takes out of every window what lies before its trailing edge, for a leading edge at `edge` (us).

        Returns (window, distinct rows whose count of the `watched` type fell to 0 in it). An edge behind an earlier
        one changes nothing.
        """
        emptied = []
        for window, span in enumerate(self._spans):
            if span is None:
                continue
            pane = self._panes[window]
            chunk = self._chunks.first_at_least("time", (edge - span) // pane * pane, self._next_chunk[window])
            if chunk > self._next_chunk[window]:
                cells = self._subtract(window, chunk)
                if watched is not None:
                    rows = np.unique(cells[cells % self._stride == watched] // self._stride)
                    emptied.append((window, rows[self.values[rows, window, watched] == 0]))
        self._drop()
        return emptied

    def clear(self, rows: I64) -> None:
        """Zeroes these rows, and what is logged of them: a row's next owner must not pay for its last."""
        self.values[rows] = 0
        self._touched.add(rows)
        gone = np.zeros(len(self.values), bool)
        gone[rows] = True
        for block in self._cells.blocks():
            block["count"][gone[block["cell"] // self._stride]] = 0

    def capture(self) -> dict[str, Any]:
        logged = {"chunks": self._chunks.capture(), "cells": self._cells.capture()}
        return {**self._touched.whole(values=self.values), **logged, **self._next()}

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only what was counted or uncounted since the last of either, or since `restore`."""
        logged = {"chunks": self._chunks.changes(), "cells": self._cells.changes()}
        return {**self._touched.changes(values=self.values), **logged, **self._next()}

    def _next(self) -> dict[str, Any]:
        return {"next_chunk": list(self._next_chunk), "next_cell": list(self._next_cell)}

    def restore(self, state: dict[str, Any]) -> None:
        self.values = state["values"].astype(np.int32)
        self._touched.restored(len(self.values))
        self._chunks.restore(state["chunks"])
        self._cells.restore(state["cells"])
        self._next_chunk = [int(n) for n in state["next_chunk"]]
        self._next_cell = [int(n) for n in state["next_cell"]]

    def _log(self, rows: I64, totals: I32, local: I64, times: I64) -> None:
        """Remembers what was added, cut into chunks that lie within one pane of every window."""
        cuts = self._cuts(times)
        if len(cuts):
            # Chunk numbers above the cell, so that one sort gives the cells chunk by chunk.
            chunk = np.searchsorted(cuts, times, side="right")
            joint, counts = np.unique(chunk * totals.size + local, return_counts=True)
            chunk, local = joint // totals.size, joint % totals.size
            present, sizes = np.unique(chunk, return_counts=True)
            first_times = np.concatenate([[times.min()], cuts])[present]
        else:
            local = np.flatnonzero(totals)
            counts = totals.ravel()[local]
            sizes, first_times = np.array([len(local)]), times.min(keepdims=True)
        stops = self._cells.stop + np.cumsum(sizes)
        cell = rows[local // self._types] * self._stride + local % self._types
        self._cells.append(cell=cell, count=counts.astype(np.int32))
        self._chunks.append(time=first_times.astype(np.int64), stop=stops.astype(np.int64))

    def _cuts(self, times: I64) -> I64:
        """Pane starts, of any window, after the first event and up to the last: usually none within a slide."""
        low, high = int(times.min()), int(times.max())
        panes = {p for p, span in zip(self._panes, self._spans, strict=True) if span is not None}
        crossed = [pane for pane in panes if low // pane != high // pane]
        if not crossed:
            return np.empty(0, np.int64)
        # Only panes with events in them matter: a slide cut by count may span far more panes than it has events.
        return np.unique(
            np.concatenate([starts[starts > low] for p in crossed for starts in [np.unique(times // p) * p]])
        )

    def _subtract(self, window: int, chunk: int) -> I64:
        """Takes the chunks up to `chunk` out of a window; returns the cells that lost something."""
        start, stop = self._next_cell[window], int(self._chunks.at("stop", chunk - 1))
        leaving = self._cells.read(start, stop)
        flat = self.values.reshape(-1)
        np.subtract.at(flat, leaving["cell"] + window * self._types, leaving["count"])
        self._touched.add(leaving["cell"] // self._stride)
        self._next_chunk[window], self._next_cell[window] = chunk, stop
        cells: I64 = leaving["cell"][leaving["count"] > 0]
        return cells

    def _drop(self) -> None:
        kept = [window for window, span in enumerate(self._spans) if span is not None]
        if kept:
            self._chunks.drop(min(self._next_chunk[window] for window in kept))
            self._cells.drop(min(self._next_cell[window] for window in kept))

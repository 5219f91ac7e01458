"""Maturity: which share of the clicks of a span of event time has its label, in all and by slice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging.growing import GrowingColumn

I64 = NDArray[np.int64]
Numbers = NDArray[np.int16]  # [n, features]: the slice of each example by feature, as numbered by `Slices`


class Maturity:
    """Clicks and matured clicks by the slide they arrived in. Number 0 counts all, number 1 + s those of slice s."""

    def __init__(self, longest: int) -> None:
        self._longest = longest  # us
        self._ends = GrowingColumn(np.empty(0, np.int64))
        self._counts = GrowingColumn(np.zeros((0, 2, 1), np.int64))  # arrived, matured
        self._ever = np.zeros((2, 1), np.int64)
        self._since = -(2**63)  # end of the last slide that was forgotten, us

    def arrived(self, slices: Numbers, at: int) -> None:
        """The clicks of a slide ending at `at`, us: their slices [n, k]."""
        counts = _counted(slices)
        self._widen(len(counts))
        self._ends.append(np.array([at]))
        row = np.zeros((1, *self._ever.shape), np.int64)
        row[0, 0, : len(counts)] = counts
        self._counts.append(row)
        self._ever[0] += row[0, 0]
        gone = int(np.searchsorted(self._ends.view, at - self._longest, side="right"))
        if gone:
            self._since = int(self._ends.view[gone - 1])
        self._ends.drop(gone)
        self._counts.drop(gone)

    def matured(self, times: I64, slices: Numbers) -> None:
        """Labels came for clicks at `times` [n], us."""
        counts = _counted(slices)
        self._widen(len(counts))
        self._ever[1, : len(counts)] += counts
        slide = np.searchsorted(self._ends.view, times, side="right")
        slide[times < self._since] = len(self._ends)  # forgotten
        for number in np.unique(slide[slide < len(self._ends)]).tolist():  # slides, not events
            counts = _counted(slices[slide == number])
            self._counts.view[number, 1, : len(counts)] += counts

    def share(self, after: int | None = None, number: int = 0) -> float:
        """Matured share of the clicks in slides that ended after `after` (us; None = of all ever); NaN without any."""
        if number >= self._ever.shape[1]:
            return float("nan")
        if after is None:
            clicks, matured = self._ever[:, number]
        else:
            first = int(np.searchsorted(self._ends.view, after, side="right"))
            clicks, matured = self._counts.view[first:, :, number].sum(axis=0)
        return float(matured / clicks) if clicks else float("nan")

    def _widen(self, width: int) -> None:
        more = width - self._ever.shape[1]
        if more > 0:
            self._ever = np.pad(self._ever, ((0, 0), (0, more)))
            self._counts.reset(np.pad(self._counts.view, ((0, 0), (0, 0), (0, more))))

    def capture(self) -> dict[str, Any]:
        columns = {"ends": self._ends.view.copy(), "counts": self._counts.view.copy()}
        return {**columns, "ever": self._ever.copy(), "since": self._since}

    def restore(self, state: dict[str, Any]) -> None:
        self._ends.reset(state["ends"])
        self._counts.reset(state["counts"])
        self._ever = state["ever"].copy()
        self._since = int(state["since"])


def _counted(slices: Numbers) -> I64:
    """[1 + highest slice number + 1]: all, then each slice."""
    numbers = slices.ravel()
    return np.concatenate([[len(slices)], np.bincount(numbers[numbers >= 0])]).astype(np.int64)

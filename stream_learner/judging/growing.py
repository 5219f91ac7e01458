"""Arrays that grow at the end and shrink at the front, one slide at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class GrowingColumn:
    """Rows in order of arrival (axis 0 of any shape and dtype); appending costs amortised O(1) a row, dropping O(1)."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self.reset(rows)

    def reset(self, rows: NDArray[Any]) -> None:
        self._rows = rows.copy()
        self._start, self._stop = 0, len(rows)

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def view(self) -> NDArray[Any]:
        return self._rows[self._start : self._stop]

    def append(self, rows: NDArray[Any]) -> None:
        if self._stop + len(rows) > len(self._rows):
            live = self.view
            self._rows = np.empty((2 * (len(live) + len(rows)), *live.shape[1:]), live.dtype)
            self._rows[: len(live)] = live
            self._start, self._stop = 0, len(live)
        self._rows[self._stop : self._stop + len(rows)] = rows
        self._stop += len(rows)

    def drop(self, count: int) -> None:
        self._start += count

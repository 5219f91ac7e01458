"""A bounded history of chosen numbers, for the lines of the dashboard.

When it is full every other point goes and points come half as often, so it covers the whole life of a worker in bounded
memory, at a resolution that falls with age.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

CAPACITY = 720
FIRST_STEP_S = 2.0


class History:
    """Points of named series, taken by a thread of its own from `read` at a growing step. Use as a context.

    `read` gives name -> number as of now; a series that is missing at a point is None there.
    """

    def __init__(self, read: Callable[[], Mapping[str, float]], step_s: float = FIRST_STEP_S) -> None:
        self._read = read
        self._step_s = step_s
        self._lock = threading.Lock()
        self._points: list[tuple[float, Mapping[str, float]]] = []  # seconds since the start, values
        self._began = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def take(self) -> None:
        """One point as of now."""
        point = (round(time.monotonic() - self._began, 3), self._read())
        with self._lock:
            self._points.append(point)
            if len(self._points) >= CAPACITY:
                del self._points[1::2]
                self._step_s *= 2

    def series(self) -> dict[str, Any]:
        """{"seconds": [...], "values": {name: [...]}}; seconds count back from now, which is 0."""
        with self._lock:
            points, now = list(self._points), time.monotonic() - self._began
        names = sorted({name for _, values in points for name in values})
        return {
            "seconds": [round(at - now, 1) for at, _ in points],
            "values": {name: [values.get(name) for _, values in points] for name in names},
        }

    def close(self) -> None:
        """Ends the thread. Idempotent."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._step_s):
            self.take()

"""Resident memory of the worker that learns, sampled; and whether it grows."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import numpy as np

_EVERY_S = 2.0
_WARM_UP = 1 / 3  # of a life: until then buffers and arenas fill


class Memory(threading.Thread):
    """Samples the holder of the lease on a state folder until stopped."""

    def __init__(self, state: Path) -> None:
        super().__init__(name="memory", daemon=True)
        self._lease = state / "lease"
        self._stopping = threading.Event()
        self.samples: dict[int, list[tuple[float, float]]] = {}  # process -> moments (s) and resident MiB

    def run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            process = holder(self._lease)
            resident = None if process is None else resident_mib(process)
            if process is not None and resident is not None:
                self.samples.setdefault(process, []).append((time.monotonic(), resident))

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def slope(self) -> float:
        """MiB per hour by least squares, over the longest life without its warm-up; NaN for fewer than ten samples."""
        longest = max(self.samples.values(), key=len, default=[])
        warm = np.array(longest[int(len(longest) * _WARM_UP) :])
        if len(warm) < 10:
            return float("nan")
        return float(np.polyfit((warm[:, 0] - warm[0, 0]) / 3600, warm[:, 1], 1)[0])

    def described(self) -> str:
        longest = [mib for _, mib in max(self.samples.values(), key=len, default=[])]
        if not longest:
            return "no samples"
        minutes = len(longest) * _EVERY_S / 60
        warm = longest[int(len(longest) * _WARM_UP) :]
        return f"{minutes:.0f} min, {longest[0]:.0f} MiB at first, then {min(warm):.0f} to {max(warm):.0f} MiB"


def holder(lease: Path) -> int | None:
    """Process of the newest lease; None while it cannot be told."""
    try:
        newest = max(lease.glob("lease-*"), default=None)
        return None if newest is None else int(json.loads(newest.read_bytes())["pid"])
    except (OSError, ValueError, KeyError):
        return None


def resident_mib(process: int) -> float | None:
    """None when it is gone."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

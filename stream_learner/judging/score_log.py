"""`scores.jsonl`: what candidate and champion said of every matured example, for `gate simulate --scores`.

One JSON object per slide with examples that both scored: `slide`, `slide_end` (us), and the columns `label` (0 or 1),
`candidate` and `champion` (logits, to 4 decimals), equally long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.durable import Fence, unfenced
from stream_learner.publishing.verdict_log import VerdictLog

Logits = NDArray[np.float32]


class ScoreLog:
    """Written where `judging.score_log` says so; cut with the snapshots as the verdict log is."""

    def __init__(self, path: Path, *, wanted: bool, fence: Fence = unfenced) -> None:
        self._lines = VerdictLog(path, fence) if wanted else None

    def line(self, slide: int, slide_end: int, candidate: Logits | None, champion: Logits, label: Logits) -> None:
        """Appends a slide's pairs, all [n]; nothing where there are none. A failed disk is a `RetryableError`."""
        if self._lines is None or candidate is None:
            return
        both = np.isfinite(candidate) & np.isfinite(champion)
        if not both.any():
            return
        columns = {"candidate": candidate, "champion": champion}
        rounded = {name: np.round(column[both].astype(np.float64), 4).tolist() for name, column in columns.items()}
        labels = label[both].astype(int).tolist()
        self._lines.append({"slide": slide, "slide_end": slide_end, "label": labels, **rounded})

    def capture(self) -> dict[str, Any]:
        return {"length": 0 if self._lines is None else self._lines.length}

    def restore(self, state: dict[str, Any]) -> None:
        """A log that was switched on since then begins after the snapshot."""
        if self._lines is not None:
            self._lines.cut(int(state["length"]))

    def begin(self) -> None:
        """For a worker without a snapshot."""
        if self._lines is not None:
            self._lines.cut(0)

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()

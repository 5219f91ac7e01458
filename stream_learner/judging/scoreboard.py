"""Running metrics of several models on the same examples: over a lifetime and over sliding windows.

Up to `exact_max` examples everything is exact. Beyond, ranks are taken on 65,536 levels of the logit in [-16, 16]
(equal steps of the logit keep their resolution at low base rates, equal steps of the probability do not), and
`auc_error_bound` says how far the AUC may be off; log loss, NE and calibration are sums and stay exact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.judging import metrics
from stream_learner.judging.growing import GrowingColumn
from stream_learner.judging.metrics import Sums
from stream_learner.settings import Duration

LEVELS = 65_536
_LOGIT_LIMIT = 16.0
_PER_LOGIT = LEVELS / (2 * _LOGIT_LIMIT)

Counts = NDArray[np.int64]  # [2, LEVELS]: negatives, positives


class Scoreboard:
    """Prequential metrics by model name. A window holds the slides whose end lies in (now - span, now]."""

    def __init__(self, names: tuple[str, ...], windows: Sequence[Duration], exact_max: int) -> None:
        self.names = names
        self.windows = tuple(windows)
        self._exact_max = exact_max
        self._now: int | None = None
        self._tracks = {name: _Track(max(windows, default=Duration(0)), exact_max) for name in names}

    def add(self, logits: Mapping[str, NDArray[np.float32]], labels: NDArray[np.float32], at: int) -> None:
        """Judges one slide's examples: logits [n] per name (NaN or an absent name = did not score), labels [n].

        `at` is the slide's end in us. An empty slide is worth adding: it moves the windows.
        """
        self._now = at if self._now is None else max(self._now, at)
        for name, track in self._tracks.items():
            if name in logits:
                scored = ~np.isnan(logits[name])
                track.add(logits[name][scored], labels[scored] > 0.5, self._now)
            track.expire(self._now)

    def lifetime(self, name: str) -> dict[str, float]:
        """`metrics.summary` of everything added, with `auc_error_bound` (0 = exact)."""
        return self._tracks[name].lifetime()

    def window(self, name: str, span: Duration) -> dict[str, float]:
        """The same over the last `span` of event time, which is not longer than the longest of `windows`."""
        return self._tracks[name].window((self._now or 0) - span)

    def __len__(self) -> int:
        """Examples held of the model that has most."""
        return max(len(track) for track in self._tracks.values())

    def capture(self) -> dict[str, Any]:
        return {"now": self._now, "tracks": {name: track.capture() for name, track in self._tracks.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        self._now = None if state["now"] is None else int(state["now"])
        for name, track in self._tracks.items():
            track.restore(state["tracks"][name])


@dataclass(frozen=True, slots=True)
class _Levelled:
    """One slide whose scores are kept as counts on levels only."""

    levels: NDArray[np.uint16]  # [k] distinct, ascending
    counts: NDArray[np.int64]  # [2, k] negatives, positives


class _Track:
    """One model's judged examples, oldest first.

    While all of them are at most `exact_max`, all are kept; afterwards the lifetime lives on in `_ever` and only the
    slides within `span` are kept, the older ones on levels where more than `exact_max` rows would remain.
    """

    def __init__(self, span: int, exact_max: int) -> None:
        self._span = span
        self._exact_max = exact_max
        self._total = Sums()
        self._ever: Counts | None = None
        self._levelled: deque[_Levelled] = deque()  # the first slides of those below
        self._ends = GrowingColumn(np.empty(0, np.int64))
        self._sizes = GrowingColumn(np.empty(0, np.int64))  # rows kept of each slide
        self._sums = GrowingColumn(np.empty((0, 4), np.float64))
        self._logits = GrowingColumn(np.empty(0, np.float32))
        self._positive = GrowingColumn(np.empty(0, np.bool_))

    def __len__(self) -> int:
        return len(self._logits)

    def add(self, logits: NDArray[np.float32], positive: NDArray[np.bool_], at: int) -> None:
        if not len(logits):
            return
        sums = Sums.of(logits, positive)
        self._total += sums
        self._ends.append(np.array([at]))
        self._sizes.append(np.array([len(logits)]))
        self._sums.append(np.array([[sums.n, sums.positives, sums.loss, sums.predicted]]))
        self._logits.append(logits)
        self._positive.append(positive)
        if self._ever is not None:
            self._ever += _on_levels(logits, positive)
        elif self._total.n > self._exact_max:
            self._ever = _on_levels(self._logits.view, self._positive.view)

    def expire(self, now: int) -> None:
        """Drops what only an exact lifetime would need, then puts the oldest slides on levels."""
        if self._ever is None:
            return
        gone = int(np.searchsorted(self._ends.view, now - self._span, side="right"))
        rows = int(self._sizes.view[:gone].sum())
        for column in (self._ends, self._sizes, self._sums):
            column.drop(gone)
        for _ in range(min(gone, len(self._levelled))):
            self._levelled.popleft()
        self._drop_rows(rows)
        while len(self._logits) > self._exact_max:
            self._level_oldest()

    def lifetime(self) -> dict[str, float]:
        if self._ever is not None:
            return _levelled_summary(self._total, self._ever)
        return {**metrics.summary(self._logits.view, self._positive.view), "auc_error_bound": 0.0}

    def window(self, after: int) -> dict[str, float]:
        first = int(np.searchsorted(self._ends.view, after, side="right"))
        skipped = int(self._sizes.view[:first].sum())
        logits, positive = self._logits.view[skipped:], self._positive.view[skipped:]
        if first >= len(self._levelled):
            return {**metrics.summary(logits, positive), "auc_error_bound": 0.0}
        counts = _on_levels(logits, positive)
        for slide in list(self._levelled)[first:]:
            counts[:, slide.levels] += slide.counts
        return _levelled_summary(Sums(*self._sums.view[first:].sum(axis=0).tolist()), counts)

    def _level_oldest(self) -> None:
        at = len(self._levelled)
        size = int(self._sizes.view[at])
        counts = _on_levels(self._logits.view[:size], self._positive.view[:size])
        used = np.flatnonzero(counts.any(axis=0))
        self._levelled.append(_Levelled(used.astype(np.uint16), counts[:, used]))
        self._sizes.view[at] = 0
        self._drop_rows(size)

    def _drop_rows(self, count: int) -> None:
        self._logits.drop(count)
        self._positive.drop(count)

    def capture(self) -> dict[str, Any]:
        total = self._total
        return {
            "total": np.array([total.n, total.positives, total.loss, total.predicted]),
            "ever": None if self._ever is None else self._ever.copy(),
            "levels": np.concatenate([np.empty(0, np.uint16), *(s.levels for s in self._levelled)]),
            "counts": np.concatenate([np.empty((2, 0), np.int64), *(s.counts for s in self._levelled)], axis=1),
            "level_sizes": np.array([len(s.levels) for s in self._levelled], np.int64),
            **{name: column.view.copy() for name, column in self._columns().items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._total = Sums(*state["total"].tolist())
        self._ever = None if state["ever"] is None else state["ever"].copy()
        cuts = np.cumsum(state["level_sizes"])[:-1]
        parts = zip(np.split(state["levels"], cuts), np.split(state["counts"], cuts, axis=1), strict=True)
        self._levelled = deque(_Levelled(*part) for part in parts) if len(state["level_sizes"]) else deque()
        for name, column in self._columns().items():
            column.reset(state[name])

    def _columns(self) -> dict[str, GrowingColumn]:
        return {
            "ends": self._ends,
            "sizes": self._sizes,
            "sums": self._sums,
            "logits": self._logits,
            "positive": self._positive,
        }


def _on_levels(logits: NDArray[np.float32], positive: NDArray[np.bool_]) -> Counts:
    """Both classes counted on the levels, [2, LEVELS]."""
    steps = (np.clip(logits.astype(np.float64), -_LOGIT_LIMIT, _LOGIT_LIMIT) + _LOGIT_LIMIT) * _PER_LOGIT
    levels = np.minimum(steps.astype(np.int64), LEVELS - 1)
    return np.bincount(levels + LEVELS * positive, minlength=2 * LEVELS).reshape(2, LEVELS)


def _levelled_summary(sums: Sums, counts: Counts) -> dict[str, float]:
    negatives, positives = counts.astype(np.float64)
    bound = metrics.auc_error_bound(negatives, positives)
    return {**metrics.summary_of(sums, negatives, positives), "auc_error_bound": bound}

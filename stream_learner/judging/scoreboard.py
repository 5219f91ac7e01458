"""Running metrics of several models on the same examples: over a lifetime, over sliding windows, and by slice.

Up to `exact_max` examples everything is exact. Beyond, ranks are taken on 65,536 levels of the logit
(`levels.py`), and `auc_error_bound` says how far the AUC may be off; log loss, NE and calibration are sums and stay
exact. GAUC needs the users and slices need their rows: they are taken over the rows still held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import MISSING_ID
from stream_learner.judging import levels, metrics
from stream_learner.judging.growing import GrowingColumn
from stream_learner.judging.levels import LEVELS, Counts, LevelledSlide, on_levels
from stream_learner.judging.maturity import Maturity
from stream_learner.judging.metrics import Owners, Sums
from stream_learner.settings import Duration

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where examples [n] come from."""

    times: NDArray[np.int64]  # click times, us
    users: NDArray[np.uint64]
    slices: NDArray[np.int16]  # [n, features] as numbered by `Slices`
    judged: NDArray[np.bool_]  # counts in the lifetime metrics

    @classmethod
    def unknown(cls, count: int, features: int) -> Origin:
        """Of examples about which nothing else is known: all judged, of one user, in no slice."""
        nobody = np.zeros(count, np.uint64)
        slices = np.full((count, features), -1, np.int16)
        return cls(np.zeros(count, np.int64), nobody, slices, np.ones(count, bool))


class Scoreboard:
    """Prequential metrics by model name. A window holds the slides whose end lies in (now - span, now].

    Rows are held oldest first. While there are at most `exact_max` ever, all are; afterwards the lifetime lives on in
    `_ever` and only the slides within the longest window are kept, the older ones on levels where more than
    `exact_max` rows would remain. `features`: how many slice numbers an example has.
    """

    def __init__(self, names: tuple[str, ...], windows: Sequence[Duration], exact_max: int, features: int = 0) -> None:
        self.names = names
        self.windows = tuple(windows)
        self._features = features
        self._exact_max = exact_max
        self._longest = max(windows, default=Duration(0))
        self.maturity = Maturity(self._longest)
        self._now: int | None = None
        self._told: dict[tuple[int, int], dict[str, float]] = {}  # summaries asked for since the last `add`
        self._owners: tuple[NDArray[np.bool_], Owners] | None = None  # the rows last asked for, and whose they are
        self._rows_ever = 0
        self._total = np.zeros((len(names), 4))  # lifetime sums: n, positives, loss, predicted
        self._ever: Counts | None = None  # [models, 2, LEVELS]
        self._levelled: deque[LevelledSlide] = deque()  # the first slides of those below
        self._ends = GrowingColumn(np.empty(0, np.int64))
        self._sizes = GrowingColumn(np.empty(0, np.int64))  # rows kept of each slide
        self._sums = GrowingColumn(np.zeros((0, len(names), 4)))
        self._logits = GrowingColumn(np.empty((0, len(names)), np.float32))  # NaN = not scored
        self._positive = GrowingColumn(np.empty(0, np.bool_))
        self._judged = GrowingColumn(np.empty(0, np.bool_))
        self._users = GrowingColumn(np.empty(0, np.uint64))
        self._slices = GrowingColumn(np.empty((0, features), np.int16))

    def add(
        self, logits: Mapping[str, Logits], labels: NDArray[np.float32], at: int, origin: Origin | None = None
    ) -> None:
        """Judges one slide's examples: logits [n] per name (NaN or an absent name = did not score), labels [n].

        `at` is the slide's end in us. An empty slide is worth adding: it moves the windows.
        """
        self._now = at if self._now is None else max(self._now, at)
        self._forget()
        if len(labels):
            origin = Origin.unknown(len(labels), self._features) if origin is None else origin
            nothing = np.full(len(labels), np.nan, np.float32)
            scores = np.stack([logits.get(name, nothing) for name in self.names], axis=1)
            self._append(scores, labels > 0.5, origin)
        self._expire()

    def erase(self, users: NDArray[np.uint64]) -> None:
        """Whose examples those of these users (by fingerprint) were is no longer known; their scores stay counted."""
        held = self._users.view
        held[np.isin(held, users)] = MISSING_ID
        self._forget()

    def __len__(self) -> int:
        """Examples held."""
        return len(self._positive)

    def lifetime(self, name: str) -> dict[str, float]:
        """Every metric of all judged examples, with `maturity` and with `auc_error_bound` (0 = exact)."""
        model, judged = self.names.index(name), self._judged.view
        sums = Sums(*self._total[model].tolist())
        if (ever := self._ever) is not None:
            found = self._once(model, -1, lambda: levels.summary(sums, ever[model]))
        elif judged.all():  # what a window that reaches back to the first slide holds, to the bit
            found = self._once(model, 0, lambda: self._last(model, 0, judged.copy()))
        else:
            found = self._once(model, -1, lambda: self._exact(model, judged.copy(), sums))
        return {**found, "maturity": self.maturity.share()}

    def window(self, name: str, span: Duration) -> dict[str, float]:
        """The same of the last `span` of event time, which is not longer than the longest of `windows`, judged or not.

        `maturity` is the share of the clicks that arrived in that span whose label is known by now.
        """
        model, after = self.names.index(name), (self._now or 0) - span
        first, chosen = self._within(after)
        found = self._once(model, first, lambda: self._last(model, first, chosen))
        return {**found, "maturity": self.maturity.share(after)}

    def _once(self, model: int, first: int, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The summary of a model over the slides from `first` on (-1 = over its lifetime), made once between two calls
        of `add`."""
        if (model, first) not in self._told:
            self._told[model, first] = make()
        return self._told[model, first]

    def _last(self, model: int, first: int, chosen: NDArray[np.bool_]) -> dict[str, float]:
        sums = Sums(*self._sums.view[first:, model].sum(axis=0).tolist())
        if first >= len(self._levelled):
            return self._exact(model, chosen, sums)
        counts = on_levels(self._logits.view[chosen, model], self._positive.view[chosen])
        for slide in list(self._levelled)[first:]:
            slide.add_to(counts, model)
        return levels.summary(sums, counts)

    def slice(self, name: str, number: int, span: Duration | None = None) -> dict[str, float]:
        """The same of one slice, by its number; without `span` of the lifetime. Of the rows still held."""
        after = None if span is None else (self._now or 0) - span
        chosen = self._judged.view.copy() if after is None else self._within(after)[1]
        chosen &= (self._slices.view == number).any(axis=1)
        return {
            **self._exact(self.names.index(name), chosen),
            "maturity": self.maturity.share(after, 1 + number),
        }

    def reliability(self, name: str, span: Duration | None = None) -> list[dict[str, float]]:
        """Predicted against observed rate in bins of equal mass, of the rows still held; without `span` of all."""
        model = self.names.index(name)
        chosen = self._judged.view if span is None else self._within((self._now or 0) - span)[1]
        chosen = chosen & ~np.isnan(self._logits.view[:, model])
        return metrics.reliability(self._logits.view[chosen, model], self._positive.view[chosen])

    def _within(self, after: int) -> tuple[int, NDArray[np.bool_]]:
        """The first slide that ended after `after`, and which of the rows held came in it or later."""
        first = int(np.searchsorted(self._ends.view, after, side="right"))
        chosen = np.ones(len(self._positive), bool)
        chosen[: int(self._sizes.view[:first].sum())] = False
        return first, chosen

    def _exact(self, model: int, chosen: NDArray[np.bool_], sums: Sums | None = None) -> dict[str, float]:
        """From the rows held, a mask of which is given (and changed); `sums`: theirs, where they are known."""
        logits = self._logits.view[:, model]
        chosen &= ~np.isnan(logits)
        positive = self._positive.view[chosen]
        found = metrics.summary(logits[chosen], positive, self._owners_among(chosen, positive), sums)
        return {**found, "auc_error_bound": 0.0}

    def _owners_among(self, chosen: NDArray[np.bool_], positive: NDArray[np.bool_]) -> Owners:
        """Of the rows chosen, whose labels are given. One model after the other is asked of the same rows, so the last
        answer is remembered."""
        if self._owners is None or not np.array_equal(self._owners[0], chosen):
            self._owners = chosen, Owners.of(positive, self._users.view[chosen])
        return self._owners[1]

    def _forget(self) -> None:
        """What was found of the rows held, which are others now."""
        self._told.clear()
        self._owners = None

    def _append(self, logits: Logits, positive: NDArray[np.bool_], origin: Origin) -> None:
        sums, judged = _sums(logits, positive), origin.judged
        self._ends.append(np.array([self._now]))
        self._sizes.append(np.array([len(logits)]))
        self._sums.append(sums[None])
        columns: tuple[NDArray[Any], ...] = (logits, positive, judged, origin.users, origin.slices)
        for column, rows in zip(self._row_columns().values(), columns, strict=True):
            column.append(rows)
        self.maturity.matured(origin.times, origin.slices)
        self._rows_ever += len(logits)
        self._total += sums if judged.all() else _sums(logits[judged], positive[judged])
        if self._ever is not None:
            self._ever += _all_on_levels(logits[judged], positive[judged])
        elif self._rows_ever > self._exact_max:
            judged = self._judged.view
            self._ever = _all_on_levels(self._logits.view[judged], self._positive.view[judged])

    def _expire(self) -> None:
        """Drops what only an exact lifetime would need, then puts the oldest slides on levels."""
        if self._ever is None:
            return
        gone = int(np.searchsorted(self._ends.view, (self._now or 0) - self._longest, side="right"))
        rows = int(self._sizes.view[:gone].sum())
        for column in (self._ends, self._sizes, self._sums):
            column.drop(gone)
        for _ in range(min(gone, len(self._levelled))):
            self._levelled.popleft()
        self._drop_rows(rows)
        while len(self._positive) > self._exact_max:
            self._level_oldest()

    def _level_oldest(self) -> None:
        at = len(self._levelled)
        size = int(self._sizes.view[at])
        self._levelled.append(LevelledSlide.of(_all_on_levels(self._logits.view[:size], self._positive.view[:size])))
        self._sizes.view[at] = 0
        self._drop_rows(size)

    def _drop_rows(self, count: int) -> None:
        for column in self._row_columns().values():
            column.drop(count)

    def capture(self) -> dict[str, Any]:
        count = len(self.names)
        return {
            "now": self._now,
            "rows_ever": self._rows_ever,
            "total": self._total.copy(),
            "ever": None if self._ever is None else self._ever.copy(),
            "levels": np.concatenate([np.empty(0, np.uint16), *(s.levels for s in self._levelled)]),
            "counts": np.concatenate([np.empty((2, 0), np.int64), *(s.counts for s in self._levelled)], axis=1),
            "level_sizes": np.array([s.sizes for s in self._levelled], np.int64).reshape(-1, count),
            "maturity": self.maturity.capture(),
            **{name: column.view.copy() for name, column in self._columns().items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._forget()
        self._now = None if state["now"] is None else int(state["now"])
        self._rows_ever = int(state["rows_ever"])
        self._total = state["total"].copy()
        self._ever = None if state["ever"] is None else state["ever"].copy()
        sizes = state["level_sizes"]
        cuts = np.cumsum(sizes.sum(axis=1))[:-1]
        parts = zip(np.split(state["levels"], cuts), np.split(state["counts"], cuts, axis=1), sizes, strict=False)
        self._levelled = deque(LevelledSlide(*part) for part in parts)
        self.maturity.restore(state["maturity"])
        for name, column in self._columns().items():
            column.reset(state[name])

    def _columns(self) -> dict[str, GrowingColumn]:
        return {"ends": self._ends, "sizes": self._sizes, "sums": self._sums, **self._row_columns()}

    def _row_columns(self) -> dict[str, GrowingColumn]:
        return {
            "logits": self._logits,
            "positive": self._positive,
            "judged": self._judged,
            "users": self._users,
            "slices": self._slices,
        }


def _sums(logits: Logits, positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`Sums` of each model, [models, 4], over what it scored; logits [n, models]."""
    out = np.zeros((logits.shape[1], 4))
    for model in range(logits.shape[1]):
        scored = ~np.isnan(logits[:, model])
        if scored.any():
            sums = Sums.of(logits[scored, model], positive[scored])
            out[model] = sums.n, sums.positives, sums.loss, sums.predicted
    return out


def _all_on_levels(logits: Logits, positive: NDArray[np.bool_]) -> Counts:
    counts = [on_levels(logits[:, model], positive) for model in range(logits.shape[1])]
    return np.stack(counts) if counts else np.zeros((0, 2, LEVELS), np.int64)

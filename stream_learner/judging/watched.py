"""Streams of sketches: what has arrived lately, held against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stream_learner.judging.sketch import Codes, ColumnKind, Distance, Reference, Shares, Sketch
from stream_learner.settings import Drift

_HOUR_US = 3_600_000_000
_WEEK_US = 7 * 24 * _HOUR_US
_PIECES = 48  # of a reference; enough to see how much its slides differ


class SketchHistory:
    """The sketches of the last slides by slide end; those older than `fine` (us) are merged within an hour."""

    def __init__(self, fine: int) -> None:
        self._fine = fine
        self._ends: list[int] = []
        self._parts: list[Sketch] = []
        self._merged = 0  # the first so many have been merged within their hour

    def add(self, codes: Codes, at: int) -> None:
        """The rows [n, columns] of a slide that ended at `at` (us); slides without rows leave nothing."""
        if len(codes):
            self._ends.append(at)
            self._parts.append(Sketch.of(codes))
        while self._merged < len(self._ends) and self._ends[self._merged] <= at - self._fine:
            self._merge_next()

    def _merge_next(self) -> None:
        at = self._merged
        if at and (self._ends[at] - 1) // _HOUR_US == (self._ends[at - 1] - 1) // _HOUR_US:
            self._parts[at - 1 : at + 1] = [Sketch.merged(self._parts[at - 1 : at + 1])]
            del self._ends[at - 1]
        else:
            self._merged += 1

    def keep_after(self, at: int) -> None:
        """Forgets what ended at or before `at`."""
        gone = int(np.searchsorted(np.array(self._ends, np.int64), at, side="right"))
        del self._ends[:gone], self._parts[:gone]
        self._merged = max(0, self._merged - gone)

    def between(self, after: int, upto: int) -> list[Sketch]:
        """The sketches whose slides ended in (after, upto]."""
        return [part for end, part in zip(self._ends, self._parts, strict=True) if after < end <= upto]

    def capture(self) -> dict[str, Any]:
        parts = [part.capture() for part in self._parts]
        return {"ends": list(self._ends), "parts": parts, "merged": self._merged}

    def restore(self, state: dict[str, Any]) -> None:
        self._ends = [int(end) for end in state["ends"]]
        self._parts = [Sketch.restored(part) for part in state["parts"]]
        self._merged = int(state["merged"])


class WatchedColumns:
    """Some columns of a stream: the last `drift.window` of it against the reference that `drift.reference` names."""

    def __init__(self, kinds: Sequence[ColumnKind], settings: Drift, least: int) -> None:
        """`least`: rows on each side before anything is said."""
        self._kinds = tuple(kinds)
        self._least = least
        self._settings = settings
        self._recent = SketchHistory(settings.window)
        self._training = SketchHistory(settings.window)
        self._frozen: list[Sketch] = []
        self._reference: Reference | None = None  # of `_frozen`, made when first asked for
        self._rebased_at: int | None = None
        self._began: int | None = None

    def observe(self, codes: Codes, at: int) -> None:
        """Rows [n, columns] arrived in a slide ending at `at` (us)."""
        settings = self._settings
        self._recent.add(codes, at)
        self._began = at if self._began is None else self._began
        if settings.reference == "fixed" and not self._frozen and at >= self._began + settings.fixed:
            self.freeze(self._recent.between(-(2**63), at))
        kept = {"champion": 0, "last_week": _WEEK_US, "fixed": 0 if self._frozen else int(settings.fixed)}
        self._recent.keep_after(at - settings.window - kept[settings.reference])

    def learned(self, codes: Codes, at: int) -> None:
        """Rows were learned from in that slide: the next version's training window."""
        self._training.add(codes, at)
        if self._rebased_at is not None:
            self._training.keep_after(min(self._rebased_at, at - self._settings.window))

    def rebase(self, at: int) -> None:
        """A version was made of the slide ending at `at`: what it learned since the version before, and at least over
        the last `drift.window`, is the reference where that is the champion's training window."""
        self._rebased_at = at
        if self._settings.reference == "champion":
            self.freeze(self._training.between(-(2**63), at))

    def freeze(self, parts: Sequence[Sketch]) -> None:
        """Makes these the reference, in at most 48 pieces of neighbouring slides."""
        step = -(-len(parts) // _PIECES) if parts else 1
        groups = [parts[at : at + step] for at in range(0, len(parts), step)]
        self._frozen = [Sketch.merged(group) for group in groups]
        self._reference = None

    def distances(self, at: int) -> list[Distance] | None:
        """One per column; None while either side holds fewer than `least` rows."""
        sides = self._sides(at)
        return None if sides is None else sides[0].distances(sides[1])

    def shares(self, at: int) -> list[Shares] | None:
        """How both sides are spread, one per column; None as above."""
        sides = self._sides(at)
        return None if sides is None else sides[0].shares(sides[1])

    def _sides(self, at: int) -> tuple[Reference, list[Sketch]] | None:
        """The reference and the recent sketches; None while either holds fewer than `least` rows."""
        now = self._recent.between(at - self._settings.window, at)
        if sum(part.rows for part in now) < self._least:
            return None
        reference = self._reference_at(at)
        return None if reference is None or reference.rows < self._least else (reference, now)

    def _reference_at(self, at: int) -> Reference | None:
        if self._settings.reference == "last_week":
            then = at - _WEEK_US
            parts = self._recent.between(then - self._settings.window, then)
            return Reference(parts, self._kinds, self._settings.bins) if parts else None
        if self._reference is None and self._frozen:
            self._reference = Reference(self._frozen, self._kinds, self._settings.bins)
        return self._reference

    def capture(self) -> dict[str, Any]:
        return {
            "recent": self._recent.capture(),
            "training": self._training.capture(),
            "frozen": [part.capture() for part in self._frozen],
            "rebased_at": self._rebased_at,
            "began": self._began,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._recent.restore(state["recent"])
        self._training.restore(state["training"])
        self._frozen = [Sketch.restored(part) for part in state["frozen"]]
        self._rebased_at, self._began = state["rebased_at"], state["began"]
        self._reference = None

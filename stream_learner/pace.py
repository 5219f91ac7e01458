"""`learning.core_share`: how many rows a slide may cost, so that learning keeps to its share of a core.

What the machine does decides, so nothing of it may reach the model but by the journal: a new budget is journaled before
the slide it takes effect at, and a replay obeys the journal whatever its own machine is like.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from stream_learner.learning.contenders import Contenders
from stream_learner.learning.learned import Learned
from stream_learner.settings import Config

log = logging.getLogger(__name__)

_NEWEST = 0.3  # weight of the last slide in the cost of a row
_BAND = 0.25  # changes of less than this share are not worth a line in the journal
_STEP = 2.0  # at most so many times more, or fewer, at once


class Pace:
    """Watches what learning costs, and holds the budget that the journal has set."""

    def __init__(self, config: Config, contenders: Contenders) -> None:
        self._share, self._slide_s = config.learning.core_share, config.slides.slide.seconds
        self._least, self._most = config.learning.batch_size, config.learning.budget
        self._contenders = contenders
        self.budget: int | None = None  # rows per slide, by the journal; None = `learning.budget` alone
        self._per_row_s: float | None = None  # CPU-seconds, of late; measured anew by every process
        self._asked = 0  # rows that the last slides would have cost without a bound, the most of late

    def took(self, cpu_s: float, learned: Learned) -> None:
        """What a slide's learning cost."""
        rows = learned.rows + learned.replayed
        self._asked = max(rows + learned.skipped + learned.skipped_replay, self._asked * 9 // 10)
        if rows:
            now, before = cpu_s / rows, self._per_row_s
            self._per_row_s = now if before is None else before + _NEWEST * (now - before)

    def wanted(self) -> int | None:
        """The budget to be journaled; None = it stays what it is."""
        if self._share is None or not self._per_row_s:
            return None
        allowed = self._share * self._slide_s / self._per_row_s
        standing = self.budget if self.budget is not None else self._most
        if standing is None and self._asked <= allowed:
            return None  # nothing would be skipped
        before = float(standing if standing is not None else self._asked)
        wanted = min(max(allowed, before / _STEP), before * _STEP)
        if standing is not None and wanted > before and self._asked <= before:
            return None  # what there is to learn fits in already
        rows = max(_rounded(wanted), self._least)
        if self._most is not None:
            rows = min(rows, self._most)
        return None if abs(rows - before) <= _BAND * before and standing is not None else rows

    def obey(self, rows: int) -> None:
        """A budget that was journaled takes effect."""
        log.info("learning keeps to %d rows a slide", rows)
        self.budget = rows
        self._contenders.keep_to(rows)

    def capture(self) -> dict[str, Any]:
        return {"budget": self.budget}

    def restore(self, state: dict[str, Any]) -> None:
        self.budget = state["budget"]
        self._contenders.keep_to(self.budget)


def _rounded(rows: float) -> int:
    """Two significant digits: finer differences are noise."""
    unit = 10 ** max(math.floor(math.log10(max(rows, 1.0))) - 1, 0)
    return int(rows // unit * unit)

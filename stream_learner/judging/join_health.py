"""Join health: whether a slide brought what clicks, purchases and their join need, or something upstream is broken.

Looked at when a slide closes, before anything of it is counted or learned: the number of examples and of events of
every other type, the purchases that follow an example (`matched`), and the examples that carry each feature
(`coverage`). Looked at when examples mature, before they are learned: how many of them are positive. Each is held
against its own season (`shortfall.py`). A slide in which one of them fell short is broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream_learner.events import MISSING_ID, EventBatch, EventSchema
from stream_learner.judging.seasons import F64, I64
from stream_learner.judging.shortfall import Shortfall, Shortfalls
from stream_learner.settings import Config
from stream_learner.windows.slides import Slide


@dataclass(frozen=True, slots=True)
class Broken:
    """A slide with an outage in it. The span (us) reaches back over silent slides before it, which have no number."""

    number: int
    start: int
    end: int
    reason: str  # in plain words
    measures: tuple[str, ...]


class JoinHealth:
    """Watches slides cut by time; slides by count have no season, and none of them is ever found broken."""

    def __init__(self, config: Config, schema: EventSchema) -> None:
        self._settings = config.quarantine
        self._schema = schema
        self._enabled = config.quarantine.enabled and config.slides.by_count is None
        self._slide = int(config.slides.slide)
        by_field = config.labels.source == "field"
        self._horizon = 0 if by_field else int(config.labels.horizon)
        positive, example = config.labels.positive, config.examples.of
        self._example = example
        self._kinds = [kind for kind in range(len(schema.kinds)) if schema.kinds[kind] != example]
        counts = [f"{example} examples", *(f"{schema.kinds[kind]} events" for kind in self._kinds)]
        self._counts = len(counts)
        covered = [f"coverage of {name}" for name in (*schema.ids, *schema.numbers)]
        names = (*counts, f"matched {positive} events", *covered)
        rule = self._slide, self._settings.least_share, self._settings.alpha
        self.closing = Shortfalls(names, *rule)
        self.maturing = Shortfalls((f"positives among the {example} examples",), *rule)
        self._first: int | None = None  # start of the first slide of the season, us
        self._end: int | None = None  # of the last slide, us
        self._broken_since: int | None = None
        self._clicks_lost_until = -(2**62)  # end of the last slide short of examples, us
        self._recent: I64 = np.empty((0, 3), np.int64)  # number, start, end of whole slides within a horizon

    def examples(self, events: EventBatch) -> I64:
        """The rows of a slide's events that are of the examples' type."""
        kinds = [kind for kind, name in enumerate(self._schema.kinds) if name == self._example]
        return np.flatnonzero(np.isin(events.kind, kinds))

    def closed(self, slide: Slide, events: EventBatch, rows: I64, matched: int, purchases: int) -> list[Broken]:
        """Judges a slide by its `events` and its examples (`rows`); `matched` of its `purchases` follow an example.

        Returns the slides found broken, this one last: earlier ones too, where only several together could tell.
        """
        if not self._enabled:
            return []
        gap, short = self._silence(slide)
        exposure = self._exposure(1, len(rows), purchases if self._joins(slide.start) else 0)
        seen = self._seen(events, rows, matched)
        if fell := self._look(slide.start, slide.end, seen, exposure):
            short = [*short, *fell]
            gap = (gap[0] if gap else slide.start, slide.end)
        found = self._earlier(short)
        if gap is not None:
            found.append(_broken(slide.number, gap, short))
            if any(fall.measure == self.closing.names[0] for fall in short):
                self._clicks_lost_until = gap[1]
        self._end = slide.end
        self._remember(slide, broken=bool(fell))
        return found

    def matured(self, times: I64, arrived: I64, positives: int) -> list[Broken]:
        """Judges the examples that mature, clicked at `times` in the slides `arrived` ([n]): clicks without later
        purchases. Returns the slides they came in, where these fell short."""
        if not self._enabled or not len(times):
            return []
        seen, exposure = np.array([float(positives)]), np.array([float(len(times))])
        if self._learning(int(times[0])):
            self.maturing.learn(int(times[0]), seen, exposure)
            return []
        short = self.maturing.look(int(times[0]), seen, exposure)
        if not short:
            return []
        numbers, first = np.unique(arrived, return_index=True)
        starts = times[first] // self._slide * self._slide
        spans = zip(numbers.tolist(), starts.tolist(), strict=True)
        return [_broken(number, (start, start + self._slide), short) for number, start in spans]

    def shares(self) -> dict[str, float]:
        """What the last slide brought of what was expected, by measure; without those nothing is expected of."""
        named = [*zip(self.closing.names, self.closing.shares.tolist(), strict=True)]
        named += zip(self.maturing.names, self.maturing.shares.tolist(), strict=True)
        return {name: share for name, share in named if share == share}  # NaN is not itself

    def capture(self) -> dict[str, Any]:
        return {
            "closing": self.closing.capture(),
            "maturing": self.maturing.capture(),
            "times": [self._first, self._end, self._broken_since, self._clicks_lost_until],
            "recent": self._recent.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.closing.restore(state["closing"])
        self.maturing.restore(state["maturing"])
        self._first, self._end, self._broken_since, self._clicks_lost_until = state["times"]
        self._recent = state["recent"].copy()

    # what is measured

    def _seen(self, events: EventBatch, rows: I64, matched: int) -> F64:
        kinds = np.bincount(events.kind, minlength=len(self._schema.kinds))[self._kinds]
        ids = np.count_nonzero(events.ids[rows] != MISSING_ID, axis=0)
        numbers = np.count_nonzero(~np.isnan(events.numbers[rows]), axis=0)
        return np.concatenate([[len(rows)], kinds, [matched], ids, numbers]).astype(np.float64)

    def _exposure(self, slides: int, examples: int, purchases: int) -> F64:
        covered = len(self.closing.names) - self._counts - 1
        return np.repeat([float(slides), purchases, examples], [self._counts, 1, covered])

    def _joins(self, start: int) -> bool:
        """Whether the purchases of a slide can be expected to find their clicks: none of these lay in an outage."""
        return start - self._horizon >= self._clicks_lost_until

    # the season

    def _silence(self, slide: Slide) -> tuple[tuple[int, int] | None, list[Shortfall]]:
        """Judges the slides without any event before this one, a block of the season at a time. Returns the span of
        those that are broken, and why."""
        span, found = None, []
        at = slide.start if self._end is None else self._end
        nothing = np.zeros(len(self.closing.names))
        while at < slide.start:
            end = min(at + self._slide * max(self.closing.block // self._slide, 1), slide.start)
            if short := self._look(at, end, nothing, self._exposure((end - at) // self._slide, 0, 0)):
                begun = max(min(fall.since for fall in short), self._end or at)
                span = (span[0] if span else begun, end)
                found += short
            at = end
        return span, found

    def _look(self, start: int, end: int, seen: F64, exposure: F64) -> list[Shortfall]:
        if self._first is None:
            self._first = start
        if self._learning(start):
            self.closing.learn(start, seen, exposure)
            return []
        short = self.closing.look(start, seen, exposure)
        if not short:
            self._broken_since = None
            return []
        if self._broken_since is None:
            self._broken_since = start
        if end - self._broken_since > self._settings.max_span:
            self._begin_again(start)
            self.closing.learn(start, seen, exposure)
            return []
        return short

    def _learning(self, time: int) -> bool:
        """Whether too little of the season is known yet to judge."""
        return self._first is None or time - self._first < self._settings.warm_up

    def _begin_again(self, start: int) -> None:
        """What has been so for `max_span` is the new normal, to be learned from the start."""
        self.closing.begin_again()
        self.maturing.begin_again()
        self._first, self._broken_since = start, None

    # slides found broken with this one

    def _earlier(self, short: Sequence[Shortfall]) -> list[Broken]:
        """The slides before this one that belong to its runs, as far as an example in them is not learned yet."""
        since = min((fall.since for fall in short), default=2**62)
        mine = self._recent[:, 1] >= since
        rows, self._recent = self._recent[mine], self._recent[~mine]
        return [_broken(number, (start, end), short) for number, start, end in rows.tolist()]

    def _remember(self, slide: Slide, *, broken: bool) -> None:
        within = self._recent[self._recent[:, 2] > slide.end - self._horizon]
        fresh = [] if broken or not self._horizon else [[slide.number, slide.start, slide.end]]
        self._recent = np.concatenate([within, np.array(fresh, np.int64).reshape(-1, 3)])


def _broken(number: int, span: tuple[int, int], short: Sequence[Shortfall]) -> Broken:
    parts = [f"{fall.measure}: {fall.seen:.0f} where {fall.expected:.0f} were to be expected" for fall in short]
    measures = tuple(dict.fromkeys(fall.measure for fall in short))
    return Broken(number, *span, "; ".join(dict.fromkeys(parts)), measures)

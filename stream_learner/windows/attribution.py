"""Clicks become examples, purchases make them positive, and the horizon makes them mature.

An example is positive if an event of `labels.positive` by the same user (and of the same item, where `match` is item)
follows it no later than click time + horizon, the end included. It matures, positive or not, in the first slide whose
end lies beyond click time + horizon, so that everything up to and including that instant has been seen. An event of
`labels.cancel` takes back the positives before it, as long as the example has not matured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.errors import DataError
from stream_learner.events import EventBatch, EventSchema, ExampleBatch
from stream_learner.keys import I64, U64, mix
from stream_learner.windows.early_labels import OPEN, WAITS, EarlyLabels, Told
from stream_learner.windows.grouping import NEVER
from stream_learner.windows.outcomes import Outcomes
from stream_learner.windows.pending import Pending


def select_examples(events: EventBatch, schema: EventSchema, config: settings.Config) -> I64:
    """Rows of a slide (in log order) that are examples, ascending: int64[m].

    With `examples.per: slide`, the first per user and item. With labels from a field, only rows that carry one.
    """
    chosen = events.kind == schema.kinds.index(config.examples.of)
    if config.labels.source == "field":
        chosen &= ~np.isnan(events.label)
    rows = np.flatnonzero(chosen)
    if config.examples.per == "slide":
        pairs = mix(*_ids(events, schema, ("user", "item"), rows))
        rows = rows[np.sort(np.unique(pairs, return_index=True)[1])]
    return rows


@dataclass(frozen=True, slots=True)
class Matured:
    """What one slide's attribution brought."""

    examples: ExampleBatch  # those that matured, labels 0 or 1, in order of arrival
    positive_time: I64  # [n] time of the first positive, us; NEVER (the least int64) where there was none
    arrived_slide: I64  # [n] in which step they arrived; the first step is 0
    positives: int  # examples with label 1 among them
    purchases: int  # events of `labels.positive` in this slide
    unmatched: int  # those among them that follow no example within the horizon
    waited: NDArray[np.bool_]  # [n] whether nothing was told of them before
    told: Told | None = None  # what is to be learned early; None in `labels.mode: wait`
    cancelled: int = 0  # pending examples that a cancellation made negative again

    def take(self, rows: NDArray[np.bool_]) -> Matured:
        """The matured examples named by a mask; the slide's purchases stay."""
        examples = self.examples.take(rows)
        positives = int(np.count_nonzero(examples.label == 1))
        return replace(
            self,
            examples=examples,
            positive_time=self.positive_time[rows],
            arrived_slide=self.arrived_slide[rows],
            positives=positives,
            waited=self.waited[rows],
        )

    def counts(self) -> tuple[int, int, int, int, int]:
        """Examples that matured, positives among them, purchases, unmatched ones, and examples made negative again."""
        return len(self.examples), self.positives, self.purchases, self.unmatched, self.cancelled

    def delays(self) -> NDArray[np.float32]:
        """Seconds from click to purchase, [n]; NaN where there was none, and where the label came with the click."""
        waited = (self.positive_time - self.examples.time) / 1e6
        return np.where(self.positive_time > self.examples.time, waited, np.nan).astype(np.float32)


class Attribution:
    """Joins every slide's positives to the examples waiting for them."""

    def __init__(self, config: settings.Config, schema: EventSchema) -> None:
        self._schema = schema
        self._source = config.labels.source
        self._horizon = int(config.labels.horizon)
        self._max_pending = config.labels.max_pending
        self._match = ("user", "item") if config.labels.match == "item" else ("user",)
        # No such type in the log: labels come from a field, or there are only negatives.
        positive = config.labels.positive
        self._positive = schema.kinds.index(positive) if positive in schema.kinds else -1
        self._cancel = schema.kinds.index(config.labels.cancel) if config.labels.cancel in schema.kinds else -1
        self._pending = Pending(schema)
        self._early = EarlyLabels(config.labels) if config.labels.early else None
        self._slides = 0

    def __len__(self) -> int:
        """Pending examples."""
        return len(self._pending)

    def step(
        self, events: EventBatch, rows: I64, examples: ExampleBatch, slide_end: int, *, early: bool = False
    ) -> Matured:
        """One slide, in log order; `rows` (int64[m]) are the events that are its `examples`. Later slides are later.

        `early`: whether its examples are told before they mature (in the early-learning modes; else they wait).
        """
        positives = np.flatnonzero(events.kind == self._positive)
        if self._source == "field":
            matured = self._label_by_field(events, rows, examples, len(positives))
        else:
            matured = self._label_by_join(events, rows, examples, slide_end, OPEN if early and self._early else WAITS)
        if len(self) > self._max_pending:
            limit = f"labels.max_pending {self._max_pending:,}"
            raise DataError(
                f"{len(self):,} examples wait for their label, more than {limit}: raise it, "
                "or shorten labels.horizon, which is part of the model. The state is as of the last snapshot"
            )
        self._slides += 1
        return matured

    def matched(self, events: EventBatch, rows: I64) -> NDArray[np.bool_]:
        """Which events of `labels.positive` of a slide follow an example within the horizon; `step` will find the same.
        Changes nothing. bool[p], all True where labels come from a field."""
        positives = np.flatnonzero(events.kind == self._positive)
        if self._source == "field":
            return np.ones(len(positives), bool)
        keys = self._keys(events, positives)
        known = np.flatnonzero(keys)
        matched = np.zeros(len(positives), bool)
        matched[known] = self._pending.reached(keys[known], events.time[positives[known]], self._horizon)
        if self._source == "at_once":
            example_keys = self._keys(events, rows)
            followed = np.isin(example_keys, keys)
            joined = _Followers(rows[followed], example_keys[followed], positives, keys)
            matched |= joined.matched(events.time, self._horizon)
        return matched

    def oldest_time(self) -> int | None:
        """Click time of the oldest pending example, us."""
        return self._pending.oldest_time()

    def pending(self) -> ExampleBatch:
        """A copy of the pending examples in order of arrival, labels NaN. As costly as they are many."""
        return self._pending.examples()

    def forget(self, since: int) -> None:
        """The model no longer knows what it was told of examples clicked at or after `since` (us): they wait."""
        if self._early is not None:
            self._early.forget(self._pending.tape, since)

    def erase(self, ids: U64) -> int:
        """Forgets the pending examples of users, by fingerprint; returns how many."""
        gone = self._pending.erase(self._schema.id_column("user"), ids)
        if self._early is not None:
            self._early.erased(gone)
        return len(gone)

    def capture(self) -> dict[str, Any]:
        return self._state(self._pending.capture())

    def changes(self) -> dict[str, Any]:
        """As `capture`, but of the pending examples only what changed since the last of either, or since `restore`."""
        return self._state(self._pending.changes())

    def _state(self, pending: dict[str, Any]) -> dict[str, Any]:
        early = {} if self._early is None else {"early": self._early.capture()}
        return {"pending": pending, "slides": self._slides, **early}

    def restore(self, state: dict[str, Any]) -> None:
        self._pending.restore(state["pending"])
        self._slides = int(state["slides"])
        if self._early is not None:
            self._early.restore(state["early"])

    def _label_by_field(self, events: EventBatch, rows: I64, examples: ExampleBatch, purchases: int) -> Matured:
        labels = events.label[rows]
        return Matured(
            examples=replace(examples, label=labels),
            positive_time=np.where(labels == 1, examples.time, NEVER),
            arrived_slide=np.full(len(rows), self._slides, np.int64),
            positives=int(np.count_nonzero(labels == 1)),
            purchases=purchases,
            unmatched=0,
            waited=np.ones(len(rows), bool),
        )

    def _label_by_join(
        self, events: EventBatch, rows: I64, examples: ExampleBatch, slide_end: int, told: int
    ) -> Matured:
        matched = self.matched(events, rows)
        joined = np.flatnonzero((events.kind == self._positive) | (events.kind == self._cancel))
        cancels = events.kind[joined] == self._cancel
        keys = self._keys(events, joined)
        outcomes = Outcomes(joined, keys, cancels, events.time)
        changed, cancelled = self._reach_back(joined, keys, cancels, outcomes, events.time)
        example_keys, positive_time = self._keys(events, rows), np.full(len(rows), NEVER, np.int64)
        if self._source == "at_once":
            positive_time = outcomes.of(example_keys, rows, events.time[rows], self._horizon).positive_time
        self._pending.add(examples, example_keys, positive_time, self._slides, told)
        tell = None if self._early is None else self._early.step(self._pending.tape, changed, slide_end)
        mature = self._pending.take_matured(slide_end - self._horizon)
        labels = (mature.positive_time != NEVER).astype(np.float32)
        return Matured(
            examples=replace(mature.examples, label=labels),
            positive_time=mature.positive_time,
            arrived_slide=mature.slide,
            positives=int(np.count_nonzero(labels)),
            purchases=len(matched),
            unmatched=int(np.count_nonzero(~matched)),
            waited=mature.told == WAITS,
            told=tell,
            cancelled=cancelled,
        )

    def _reach_back(
        self, rows: I64, keys: U64, cancels: NDArray[np.bool_], outcomes: Outcomes, times: I64
    ) -> tuple[I64, int]:
        """What a slide's purchases and cancellations (their `rows` and join keys, [e]) make of pending examples: the
        positions whose label may be another now, and how many are negative again."""
        revised = np.unique(keys[cancels & (keys != 0)])
        plain = np.flatnonzero((keys != 0) & ~np.isin(keys, revised))
        changed = self._pending.attribute(keys[plain], times[rows[plain]], self._horizon)
        if not len(revised):
            return changed, 0
        more, cancelled = self._pending.revise(revised, outcomes, self._horizon)
        return np.concatenate([changed, more]), cancelled

    def _keys(self, events: EventBatch, rows: I64) -> U64:
        """Join keys, shape [len(rows)]; 0 where an id is missing."""
        ids = _ids(events, self._schema, self._match, rows)
        present = np.logical_and.reduce([column != 0 for column in ids])
        return np.where(present, mix(*ids), np.uint64(0))


class _Followers:
    """Examples and positives of one slide, side by side: by key and, within a key, in log order."""

    def __init__(self, rows: I64, example_keys: U64, positives: I64, positive_keys: U64) -> None:
        """Rows within the slide, ascending, and join keys: of the examples [m] and of the positives [p]."""
        row = np.concatenate([rows, positives])
        key = np.concatenate([example_keys, positive_keys])
        is_positive = np.arange(len(row)) >= len(rows)
        # An event that is both an example and a positive does not precede itself.
        order = np.lexsort((~is_positive, row, key))
        order = order[key[order] != 0]
        self._examples, self._positives = len(rows), len(positives)
        self._order, self._row, self._key = order, row[order], key[order]
        self._is_positive = is_positive[order]

    def matched(self, times: I64, horizon: int) -> NDArray[np.bool_]:
        """Per positive: whether it follows an example within the slide and the horizon: bool[p]."""
        out = np.zeros(self._positives, bool)
        preceding = np.maximum.accumulate(np.where(self._is_positive, -1, np.arange(len(self._order))))
        at = np.flatnonzero(self._is_positive & (preceding >= 0))
        good = self._pair_up(preceding[at], at, times, horizon)
        out[self._order[at[good]] - self._examples] = True
        return out

    def _pair_up(self, examples: I64, positives: I64, times: I64, horizon: int) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = self._key[examples] == self._key[positives]
        passed = times[self._row[positives]] - times[self._row[examples]]
        same &= passed <= horizon
        return same


def _ids(events: EventBatch, schema: EventSchema, names: tuple[str, ...], rows: I64) -> list[U64]:
    return [events.ids[rows, schema.id_column(name)] for name in names]

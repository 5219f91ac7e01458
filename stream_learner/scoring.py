"""Clicks -> examples with the scores they are judged by: taken as they arrive, before anything is learned from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import EventBatch, ExampleBatch
from stream_learner.judging.judge import Judge
from stream_learner.learning.contenders import Contenders
from stream_learner.publishing.publisher import Publisher
from stream_learner.settings import Labels


class Scoring:
    """Asks candidate, champion, the version in service as its callers see it, and the do-nothing baselines."""

    def __init__(self, contenders: Contenders, judge: Judge, publisher: Publisher, labels: Labels) -> None:
        self._contenders = contenders
        self._learner = contenders.own
        self._judge = judge
        self._publisher = publisher
        self._labelled = labels.in_events
        self._early = labels.early or labels.source == "field"

    def arrived(self, clicks: EventBatch, numbers: NDArray[np.float32], slide: int) -> ExampleBatch:
        """The slide's examples as of now. `numbers`: aggregates [n, columns], as they were at each click."""
        nothing = np.full(len(clicks), np.nan, np.float32)
        examples = ExampleBatch(
            time=clicks.time,
            ids=clicks.ids,
            numbers=np.concatenate([clicks.numbers, numbers], axis=1),
            label=clicks.label if self._labelled else nothing,
            logit_candidate=nothing,
            logit_champion=nothing,
            logit_served=nothing,
            baseline=self._judge.baselines.score(clicks.ids),
            judged=self._judge.in_span(clicks.time, slide),
            unseen=self._judge.slices.arrive(clicks.ids),
        )
        return replace(
            examples,
            logit_served=self._publisher.score_served(examples),
            logit_candidate=self._learner.score(examples),  # the same rows for one model after the other
            logit_champion=self._contenders.score_champion(examples),
        )

    def candidate_at_maturity(self, examples: ExampleBatch) -> NDArray[np.float32] | None:
        """The candidate's logits before these are learned, [n]; None as long as it has learned nothing.

        Where labels come with their events nothing was learned since they arrived; where examples are told early, what
        they got as they arrived is all that is free of their labels.
        """
        if not self._learner.has_learned:
            return None
        return examples.logit_candidate if self._early else self._learner.score(examples)

    def champion_at_maturity(self, examples: ExampleBatch) -> NDArray[np.float32]:
        """The champion's logits, [n]; NaN where there is none, and where it may have been told of an example early."""
        return self._judge.where_fair(examples, self._contenders.score_champion(examples))

"""The path of a slide's events through the task conversion: from aggregates to what was learned."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from stream_learner.decisions import Decisions
from stream_learner.events import EventBatch, EventSchema, ExampleBatch
from stream_learner.judging.judge import Judge
from stream_learner.judging.score_log import ScoreLog
from stream_learner.keys import I64
from stream_learner.learning.contenders import Contenders
from stream_learner.learning.learned import Learned
from stream_learner.lessons import to_learn
from stream_learner.pace import Pace
from stream_learner.retry import retrying
from stream_learner.scoring import Scoring
from stream_learner.settings import Config
from stream_learner.tally import Tally
from stream_learner.windows.aggregates import Aggregates
from stream_learner.windows.attribution import Attribution, Matured, select_examples
from stream_learner.windows.quarantine import Quarantine
from stream_learner.windows.slides import Slide


@dataclass(frozen=True, kw_only=True)
class ConversionPath:
    """The stages, in order. Has no state of its own: that of its parts is the worker's."""

    config: Config
    schema: EventSchema
    tally: Tally
    quarantine: Quarantine
    aggregates: Aggregates
    attribution: Attribution
    scoring: Scoring
    contenders: Contenders
    judge: Judge
    scores: ScoreLog
    decisions: Decisions
    pace: Pace
    stage: Callable[[str], AbstractContextManager[None]]  # shows where the loop is

    def step(self, slide: Slide, events: EventBatch, last_end: int | None) -> Learned:
        """One slide; `events` are its own without repeats, `last_end` is the end of the slide before, us."""
        found = self.quarantine.found
        with self.stage("aggregates"):
            rows = select_examples(events, self.schema, self.config)
            whole = self.quarantine.inspect(slide, events, rows, self.attribution.matched(events, rows))
            self.tally.inspected(len(events), whole=whole)
            numbers = self.aggregates.step(events, rows, slide.start, slide.end, whole=whole)
        with self.stage("score"):
            examples = self._arrived(slide, events.take(rows), numbers, whole=whole)
        with self.stage("attribution"):
            matured, requeued = self._matured(slide, events, rows, examples, whole=whole, found=found)
        with self.stage("judge"):
            self._judge(slide, matured)
        with self.stage("learn"):
            return self._learn(slide, matured, requeued, last_end)

    def _arrived(self, slide: Slide, clicks: EventBatch, numbers: NDArray[np.float32], *, whole: bool) -> ExampleBatch:
        examples = self.scoring.arrived(clicks, numbers, slide.number)
        if whole:
            self.judge.arrived(examples, slide)
            self.judge.canary.arrived(examples.logit_champion, self.contenders.score_previous(examples))
        return examples

    def _matured(
        self, slide: Slide, events: EventBatch, rows: I64, examples: ExampleBatch, *, whole: bool, found: int
    ) -> tuple[Matured, list[ExampleBatch]]:
        early = whole and self.contenders.own.has_learned
        came = self.attribution.step(events, rows, examples, slide.end, early=early)
        self.tally.joined(len(rows), *came.counts())
        matured, requeued = self.quarantine.sort_out(came, slide)
        matured = self.decisions.after_outage(slide, matured, self.quarantine.found - found)
        self.aggregates.take_in_labels(ExampleBatch.concat([*requeued, matured.examples]), slide.end)
        return matured, requeued

    def _judge(self, slide: Slide, matured: Matured) -> None:
        examples = matured.examples
        candidate = self.scoring.candidate_at_maturity(examples)
        champion = self.scoring.champion_at_maturity(examples)
        challengers = self.contenders.challengers_at_maturity(examples)
        self.judge.matured(matured, candidate, champion, slide, challengers)
        self.judge.canary.matured(champion, self.contenders.score_previous(examples), examples.label)
        line = partial(self.scores.line, slide.number, slide.end, candidate, champion, examples.label)
        retrying(line, "scores.jsonl", self.config.storage.retry_timeout)

    def _learn(self, slide: Slide, matured: Matured, requeued: list[ExampleBatch], last_end: int | None) -> Learned:
        self.contenders.look_back(matured.examples, slide.end, drifted=self.judge.relation_moved)
        fresh, early = to_learn(matured, requeued, self.config.labels)
        left, began = partial(self.decisions.left_race, slide), time.process_time()
        learned = self.contenders.learn(fresh, slide.number, early, left)
        self.pace.took(time.process_time() - began, learned)
        again = self.decisions.warm_start(slide, last_end)
        return replace(learned, replayed=learned.replayed + again)

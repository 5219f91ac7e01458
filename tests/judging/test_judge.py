"""A judge that was restored answers as the one that was captured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from model_inputs import examples, setting

from stream_learner.events import EventBatch
from stream_learner.judging.judge import Judge
from stream_learner.windows.attribution import Matured
from stream_learner.windows.slides import Slide

ROWS = 400
FEW = "drift: {min_examples: 50}\n"


def test_what_a_card_tells_does_not_depend_on_a_restart_since_the_last_verdict() -> None:
    made = setting(FEW)
    judge = Judge(made.config, made.schema, made.features)
    for number in range(4):
        batch = replace(examples(made, ROWS, seed=number), logit_champion=np.full(ROWS, -1, np.float32))
        slide = Slide(number, number * 10, number * 10 + 10, EventBatch.empty(made.schema))
        nothing = np.zeros(ROWS, np.int64)
        matured = Matured(batch, nothing, nothing, int(batch.label.sum()), 0, 0, np.zeros(ROWS, bool))
        judge.arrived(batch, slide)
        judge.matured(matured, batch.logit_champion, batch.logit_champion, slide)
        if number == 1:
            judge.published(slide.end, lambda batch: batch.logit_champion)
    judge.verdict(slide, finite=True, champion=1)
    again = Judge(made.config, made.schema, made.features)
    again.restore(judge.capture())
    told = judge.observed(slide.end)
    assert told.psi
    assert replace(again.observed(slide.end), matured=None) == replace(told, matured=None)
    assert again.drift_numbers(slide.end) == judge.drift_numbers(slide.end)

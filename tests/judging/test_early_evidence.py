"""What the gate, drift and the canary are shown of examples that were told early."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from model_inputs import examples, setting

from stream_learner.events import EventBatch
from stream_learner.judging.judge import Judge
from stream_learner.windows.attribution import Matured
from stream_learner.windows.slides import Slide

ROWS = 400


def judge_of(mode):
    made = setting(f"labels: {{mode: {mode}}}\n")
    return made, Judge(made.config, made.schema, made.features)


def matured_of(made):
    batch = replace(examples(made, ROWS, seed=1), logit_champion=np.full(ROWS, -1, np.float32))
    nothing = np.zeros(ROWS, np.int64)
    return Matured(batch, nothing, nothing, int(batch.label.sum()), 0, 0, np.zeros(ROWS, bool))


@pytest.mark.parametrize("mode", ["fnw", "wait"])
@pytest.mark.parametrize("act", ["published", "restarted"])
def test_told_early_they_are_evidence_where_they_arrived_since_the_models_are_what_they_are(mode, act) -> None:
    made, judge = judge_of(mode)
    matured = matured_of(made)
    middle = int(np.median(matured.examples.time))
    if act == "published":
        judge.published(middle, lambda batch: batch.logit_champion)
    else:
        judge.gate.restarted(middle)
    slide = Slide(5, middle, middle + 10, EventBatch.empty(made.schema))
    champion = judge.where_fair(matured.examples, matured.examples.logit_champion)
    judge.matured(matured, matured.examples.logit_candidate, champion, slide)
    since = matured.examples.time >= middle
    wanted = since if mode == "fnw" else np.ones(ROWS, bool)
    assert np.isfinite(champion).tolist() == wanted.tolist()
    verdict = judge.verdict(slide, finite=True, champion=1)
    assert verdict.evidence["n"] == np.count_nonzero(wanted)
    assert judge.board.lifetime("candidate")["n"] == ROWS  # reported metrics are of arrival scores in any mode


def test_it_is_remembered_since_when() -> None:
    _, judge = judge_of("fnw")
    judge.gate.restarted(77)
    _, other = judge_of("fnw")
    other.gate.restore(judge.gate.capture())
    assert other.gate.since == 77 and judge_of("fnw")[1].gate.since < 0

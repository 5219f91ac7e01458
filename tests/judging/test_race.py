"""Who is published when several ask: equal parts of alpha, the same examples, the largest gain."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_gate import HOUR, evidence, question, rules

from stream_learner.judging.gate import Gate
from stream_learner.judging.race import OWN, Race, shared
from stream_learner.judging.verdict import Question, Verdict

SKILLS = {"weak": 0.3, "strong": 1.0, "middling": 0.6}


def judged(own: float, champion: float | None, n: int = 2000, **skills: float) -> tuple[Race, Verdict]:
    config = shared(rules(), len(skills))
    gate, race = Gate(config), Race(config, tuple(skills))
    labels = evidence(n)[1]
    old = np.full(n, np.nan, np.float32) if champion is None else evidence(n, champion)[0]
    gate.observe(evidence(n, own)[0], old, labels, HOUR)
    race.observe({name: evidence(n, skill)[0] for name, skill in skills.items()}, old, labels, HOUR, {})
    asked: Question = question(parent=None if champion is None else 17)
    return race, race.judge(gate.judge(asked), asked, dict.fromkeys(skills, True))


def test_alpha_is_divided_among_all() -> None:
    assert shared(rules(alpha=0.04), 3).alpha == pytest.approx(0.01)
    assert shared(rules(), 0) == rules()


@pytest.mark.parametrize("champion", [None, 0.1])
def test_the_best_of_those_that_pass_is_published(champion: float | None) -> None:
    _, verdict = judged(0.2, champion, **SKILLS)
    assert verdict.passed and verdict.challenger == "strong"
    assert verdict.reason.startswith("passed: challenger strong: ")
    told = json.loads(json.dumps(verdict.to_json()))
    assert list(verdict.race or {}) == [OWN, *SKILLS] and told["challenger"] == "strong"
    assert all(found["passed"] for found in told["race"].values())
    losses = {name: found["candidate_log_loss"] for name, found in told["race"].items()}
    assert min(losses, key=losses.__getitem__) == "strong"


def test_the_config_s_own_wins_where_it_is_best_and_of_equals() -> None:
    assert judged(1.0, 0.1, **{**SKILLS, "strong": 0.9})[1].challenger is None
    _, verdict = judged(1.0, 0.1, twin=1.0)
    assert verdict.passed and verdict.challenger is None and verdict.race is not None


def test_where_nobody_passes_the_own_verdict_stands_with_all_reasons() -> None:
    _, verdict = judged(0.1, 1.0, n=20_000, other=0.2)
    assert not verdict.passed and verdict.challenger is None and verdict.race is not None
    assert verdict.race["other"]["reason"].startswith("held: proven worse than the champion")


def test_a_challenger_whose_weights_are_not_finite_never_wins() -> None:
    config = shared(rules(), 1)
    gate, race = Gate(config), Race(config, ("broken",))
    good, labels = evidence()
    old = evidence(skill=0.1)[0]
    gate.observe(evidence(skill=0.5)[0], old, labels, HOUR)
    race.observe({"broken": good}, old, labels, HOUR, {})
    verdict = race.judge(gate.judge(question()), question(), {"broken": False})
    assert verdict.challenger is None and verdict.race is not None and not verdict.race["broken"]["passed"]


def test_one_that_left_the_race_is_not_asked() -> None:
    config = shared(rules(), 2)
    gate, race = Gate(config), Race(config, ("gone", "there"))
    good, labels = evidence()
    gate.observe(good, evidence(skill=0.1)[0], labels, HOUR)
    race.observe({"there": good}, evidence(skill=0.1)[0], labels, HOUR, {})
    verdict = race.judge(gate.judge(question()), question(), {"there": True})
    assert list(verdict.race or {}) == [OWN, "there"]


def test_without_challengers_a_verdict_is_what_it_was() -> None:
    gate = Gate(rules())
    good, labels = evidence()
    gate.observe(good, evidence(skill=0.1)[0], labels, HOUR)
    own = gate.judge(question())
    verdict = Race(rules(), ()).judge(own, question(), {})
    assert verdict is own and {"race", "challenger"}.isdisjoint(verdict.to_json())


def test_evidence_starts_afresh_for_all_and_is_restored() -> None:
    race, _ = judged(0.5, 0.1, other=0.9)
    again = Race(shared(rules(), 1), ("other",))
    again.restore(race.capture())
    assert again.gates["other"].standing() == race.gates["other"].standing()
    assert race.gates["other"].standing()["gain"] > 0
    race.published(HOUR, rollback=False)
    assert np.isnan(race.gates["other"].standing()["gain"])

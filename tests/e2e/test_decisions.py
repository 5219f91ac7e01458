"""What is decided beside verdicts, in whole runs: overrides, canaries, restarts; and that a replay decides the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from processes import assert_equal, changed, learner, outcome, write_config
from shops import CONFIG, grow, write_shop

from stream_learner.publishing.verdict_log import read_verdicts

EVENTS = 12_000
OFTEN = changed(CONFIG, gate__interval="10m", gate__min_interval="20m")
# A learning rate this high makes some candidates much worse than the best before them.
RECKLESS = changed(
    OFTEN,
    learning__learning_rate=0.2,
    gate__mode="superior",
    gate__on_degradation="restart_from_champion",
    gate__catch_up_steps=3,
    judging__score_log=True,
)


def lines(state: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_verdicts(state / "verdicts.jsonl") if line["kind"] == kind]


def run(folder: Path, config: Path, events: Path, *more: object) -> Any:
    state, report = folder / "state", folder / "report.json"
    learner("backtest", "-c", config, "--events", events, "--state", state, "--report", report, *more)
    return outcome(state, report)


def test_an_override_is_journaled_obeyed_and_recorded(tmp_path: Path) -> None:
    events = write_shop(tmp_path / "events", EVENTS)
    state = tmp_path / "live" / "state"
    config = write_config(tmp_path / "config.yaml", changed(OFTEN, gate__max_ne=0.01))  # nothing passes by the rules
    asked = "gate", "override", "--next", "--state", state
    assert "no worker has run" in learner(*asked, "--reason", "x", expect=2).stderr
    grow(half := tmp_path / "half", events, 0.0, 0.5)
    assert run(tmp_path / "live", config, half).versions == []

    assert "--reason: needed" in learner(*asked, expect=2).stderr
    learner(*asked, "--reason", "by mistake")
    learner("gate", "override", "--cancel", "--state", state)
    learner(*asked, "--reason", "the launch cannot wait")
    grow(half, events, 0.5, 1.0)
    live = run(tmp_path / "live", config, half)
    assert [line["reason"] for line in lines(state, "override")] == [
        "override: the next verdict passes: by mistake",
        "override: cancelled",
        "override: the next verdict passes: the launch cannot wait",
    ]
    passed = [line for line in lines(state, "verdict") if line["passed"]]
    assert len(passed) == 1 == len(live.versions)
    assert passed[0]["reason"].startswith("passed: by override (the launch cannot wait); by the rules: ")
    shown = learner("checkpoints", "show", str(live.versions[0]), "--state", state).stdout
    assert "by override (the launch cannot wait)" in shown


def test_a_degraded_candidate_starts_again_and_a_replay_does_the_same(tmp_path: Path) -> None:
    events, config = write_shop(tmp_path / "events", EVENTS), write_config(tmp_path / "config.yaml", RECKLESS)
    live = run(tmp_path / "live", config, events)
    state = tmp_path / "live" / "state"
    again = lines(state, "degradation")
    assert again and all(line["action"] == "restart_from_champion" and line["replayed"] > 0 for line in again)
    assert all(line["reason"].startswith("degraded: the candidate was restarted from the champion: ") for line in again)
    held = {line["slide"]: line for line in lines(state, "verdict")}
    assert all(held[line["slide"]]["degraded"] and not held[line["slide"]]["passed"] for line in again)
    replayed = run(tmp_path / "again", config, events, "--journal", state / "journal.jsonl")
    assert_equal(live, replayed)

    scores = state / "scores.jsonl"
    assert scores.read_bytes() == (tmp_path / "again" / "state" / "scores.jsonl").read_bytes()
    asked = ("gate", "simulate", "-c", config, "--scores", scores, "--runs", "20", "--looks", "5", "--json")
    assert json.loads(learner(*asked).stdout)["runs"] == 20


def test_a_canary_that_fails_serves_the_version_before_again(tmp_path: Path) -> None:
    """A shift of predictions that no two versions keep to: every canary fails."""
    events = write_shop(tmp_path / "events", EVENTS)
    strict = changed(OFTEN, canary={"duration": "1h", "max_shift": 1.0001, "min_examples": 100})
    config = write_config(tmp_path / "config.yaml", strict)
    live = run(tmp_path / "live", config, events)
    failed = lines(tmp_path / "live" / "state", "canary")
    assert failed and not any(line["passed"] for line in failed)
    manifests = {version: json.loads(content) for version, content in live.manifests.items()}
    for line in failed:
        rolled = next(m for m in manifests.values() if m["rollback_of"] == line["previous"])
        assert rolled["parent"] == line["version"] and rolled["verdict"]["reason"] == line["reason"]
        assert live.content[rolled["version"]] == live.content[line["previous"]]
    assert_equal(live, run(tmp_path / "again", config, events))

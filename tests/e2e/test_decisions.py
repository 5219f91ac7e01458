"""What is decided beside verdicts, in whole runs: overrides, canaries, restarts; and that another run decides the same.

The runs share a process, for what is tested is what they decide.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import Outcome, changed, outcome
from shops import CONFIG, grow, write_shop

from stream_learner.cli import main
from stream_learner.publishing.verdict_log import read_verdicts

pytestmark = pytest.mark.timeout(900)  # of a machine that has other things to do

EVENTS = 8000
OFTEN = changed(
    CONFIG, gate__interval="10m", gate__min_interval="20m", learning__threads=1, observing__log_level="error"
)
# A network that goes bad by itself, and hardly learns.
ADRIFT = changed(
    OFTEN,
    learning__network="networks_adrift:build",
    learning__batch_size=32,
    learning__learning_rate=1e-6,
    gate__catch_up_steps=3,
)


def lines(state: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_verdicts(state / "verdicts.jsonl") if line["kind"] == kind]


def learned(folder: Path, config: dict[str, Any], events: Path, *more: object) -> Outcome:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    state, report = folder / "state", folder / "report.json"
    command = "backtest", "-c", folder / "config.yaml", "--events", events, "--state", state, "--report", report, *more
    assert main([str(part) for part in command]) == 0
    return outcome(state, report)


def test_an_override_is_journaled_obeyed_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events, folder = write_shop(tmp_path / "events", EVENTS), tmp_path / "live"
    strict = changed(OFTEN, gate__max_ne=0.01)  # nothing passes by the rules
    asked = ["gate", "override", "--state", str(folder / "state")]
    assert main([*asked, "--next", "--reason", "x"]) == 2
    assert "no worker has run on this folder" in capsys.readouterr().err
    grow(half := tmp_path / "half", events, 0.0, 0.5)
    assert learned(folder, strict, half).versions == []

    assert main([*asked, "--next"]) == 2
    assert "--reason: needed" in capsys.readouterr().err
    for more in (["--next", "--reason", "by mistake"], ["--cancel"], ["--next", "--reason", "the launch cannot wait"]):
        assert main([*asked, *more]) == 0
    grow(half, events, 0.5, 1.0)
    live = learned(folder, strict, half)
    assert [line["reason"] for line in lines(folder / "state", "override")] == [
        "override: the next verdict passes: by mistake",
        "override: cancelled",
        "override: the next verdict passes: the launch cannot wait",
    ]
    passed = [line for line in lines(folder / "state", "verdict") if line["passed"]]
    assert len(passed) == 1 == len(live.versions)
    assert passed[0]["reason"].startswith("passed: by override (the launch cannot wait); by the rules: ")
    capsys.readouterr()
    assert main(["checkpoints", "show", str(live.versions[0]), "--state", str(folder / "state")]) == 0
    assert capsys.readouterr().out.splitlines()[1] == passed[0]["reason"]


def test_a_degraded_candidate_starts_again_and_a_replay_does_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, state = write_shop(tmp_path / "events", EVENTS), tmp_path / "live" / "state"
    adrift = changed(
        ADRIFT, gate__mode="superior", gate__on_degradation="restart_from_champion", judging__score_log=True
    )
    live = learned(tmp_path / "live", adrift, events)
    again = lines(state, "degradation")
    assert again and all(line["action"] == "restart_from_champion" and line["replayed"] == 3 * 32 for line in again)
    told = "degraded: the candidate was restarted from the champion: proven worse than the champion: NE gain -"
    assert all(line["reason"].startswith(told) for line in again)
    asked = {line["slide"]: line for line in lines(state, "verdict")}
    assert all(asked[line["slide"]]["degraded"] and not asked[line["slide"]]["passed"] for line in again)
    assert {line["slide"] for line in asked.values() if line["degraded"]} == {line["slide"] for line in again}
    replayed = learned(tmp_path / "again", adrift, events, "--journal", state / "journal.jsonl")
    # Keras counts the layers of a process in their names, and so in a graph: not the files, but all else is equal.
    assert replayed.report["model_sha256"] == live.report["model_sha256"]
    assert (replayed.versions, replayed.verdicts) == (live.versions, live.verdicts)

    scores = state / "scores.jsonl"
    assert scores.read_bytes() == (tmp_path / "again" / "state" / "scores.jsonl").read_bytes()
    config = str(tmp_path / "live" / "config.yaml")
    capsys.readouterr()
    assert (
        main(["gate", "simulate", "-c", config, "--scores", str(scores), "--runs", "9", "--looks", "3", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["runs"] == 9


def test_a_degraded_candidate_has_the_version_before_served_again(tmp_path: Path) -> None:
    """The version before the champion comes back under a new number, and the candidate goes on from that one."""
    events, state = write_shop(tmp_path / "events", EVENTS), tmp_path / "live" / "state"
    adrift = changed(ADRIFT, gate__on_degradation="rollback_serving", canary={"duration": None})
    live = learned(tmp_path / "live", adrift, events)
    manifests = {version: json.loads(content) for version, content in live.manifests.items()}
    again = lines(state, "degradation")
    served = [line for line in again if line["action"] == "rollback_serving"]
    assert served, again
    for line in served:
        rolled = next(m for m in manifests.values() if m["verdict"]["reason"] == line["reason"])
        number, target = rolled["version"], rolled["rollback_of"]
        assert rolled["parent"] == line["parent"] and target < line["parent"] < number
        assert live.content[number] == live.content[target]
        told = f"degraded: version {target} is served again, and the candidate was restarted from it: proven worse"
        assert line["reason"].startswith(f"{told} than the champion: NE gain -")
    replayed = learned(tmp_path / "again", adrift, events, "--journal", state / "journal.jsonl")
    assert (replayed.versions, replayed.verdicts) == (live.versions, live.verdicts)
    assert replayed.report["model_sha256"] == live.report["model_sha256"]


def test_a_canary_that_fails_serves_the_version_before_again(tmp_path: Path) -> None:
    """A shift of predictions that no two versions keep to: every canary fails."""
    events = write_shop(tmp_path / "events", EVENTS)
    strict = changed(OFTEN, canary={"duration": "1h", "max_shift": 1.0001, "min_examples": 100})
    live = learned(tmp_path / "live", strict, events)
    failed = lines(tmp_path / "live" / "state", "canary")
    assert failed and not any(line["passed"] for line in failed)
    manifests = {version: json.loads(content) for version, content in live.manifests.items()}
    for line in failed:
        rolled = next(m for m in manifests.values() if m["parent"] == line["version"])
        assert rolled["rollback_of"] == line["previous"] and rolled["verdict"]["reason"] == line["reason"]
        assert live.content[rolled["version"]] == live.content[line["previous"]]

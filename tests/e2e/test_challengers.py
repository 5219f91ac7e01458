"""A race: a badly configured model loses to its challengers, whoever is killed, replayed or rolled back."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import Background, Outcome, assert_equal, changed, learner, side_by_side, to_the_end, write_config
from shops import CONFIG, write_shop

from stream_learner import config as configs
from stream_learner.errors import ConfigError

EVENTS = 12_000
RACE = changed(
    CONFIG,
    gate__interval="10m",
    gate__min_interval="20m",
    learning__learning_rate=1e-6,  # learns nothing to speak of
    learning__table_learning_rate=1e-6,
    challengers={
        "quick": {"learning": {"learning_rate": 0.003, "table_learning_rate": 0.003}},
        "linear": {
            "learning": {"network": "logistic", "hidden": [], "dropout": 0, "learning_rate": 0.01},
            "replay": {"ratio": 0.5, "capacity": 1000},
        },
        "lost": {"learning": {"network": "networks_adrift:build_failing", "hidden": [], "dropout": 0}},
    },
)


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def manifests(outcome: Outcome) -> dict[int, dict[str, Any]]:
    return {number: json.loads(content) for number, content in outcome.manifests.items()}


def verdicts(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.verdicts.splitlines()]


@pytest.mark.timeout(900)  # seven runs of four models, one after the other
def test_a_bad_model_loses_and_a_killed_race_comes_to_the_same_winners(tmp_path: Path) -> None:
    events = write_shop(tmp_path / "events", EVENTS)
    path = write_config(tmp_path / "config.yaml", RACE)
    state = tmp_path / "killed"

    def killed() -> Outcome:
        command = ("backtest", "-c", path, "--events", events, "--state", state)
        for moment in ("challenger lost is out", "challenger quick: "):
            with Background(tmp_path / moment, *command) as worker:
                worker.wait_for_log(moment)
                worker.end(signal.SIGKILL)
        return to_the_end(tmp_path / "finished", path, events, state)

    whole, again = side_by_side([lambda: to_the_end(tmp_path / "whole", path, events, tmp_path / "straight"), killed])
    assert_equal(whole, again)

    won = [manifest["challenger"] for manifest in manifests(whole).values()]
    assert len(won) >= 4 and set(won[1:]) <= {"quick", "linear"}, won
    asked = [line for line in verdicts(whole) if "race" in line]
    assert [line["challenger"] for line in asked if line["passed"]] == won
    late = asked[-1]["race"]
    assert late["quick"]["candidate_normalized_entropy"] < late["candidate"]["candidate_normalized_entropy"]
    [left] = [line for line in verdicts(whole) if line.get("kind") == "challenger"]
    assert left["challenger"] == "lost" and "is not finite" in left["reason"] and "lost" not in late
    told = whole.report["challengers"]
    assert told["lost"]["out"] is not None and [name for name in told if told[name]["serving"]] == won[-1:]
    assert whole.report["champion_metrics"]["normalized_entropy"] < whole.report["normalized_entropy"]

    # An older version, of whoever made it, is served again; a replay of the journal does the same.
    target = whole.versions[0]
    learner("checkpoints", "rollback", str(target), "--state", state)
    back = to_the_end(tmp_path / "back", path, events, state)
    newest = manifests(back)[back.versions[-1]]
    assert (newest["rollback_of"], newest["challenger"]) == (target, manifests(back)[target]["challenger"])
    assert newest["content_sha256"] == whole.content[target]
    replayed = to_the_end(tmp_path / "replayed", path, events, tmp_path / "fresh", "--journal", state / "journal.jsonl")
    assert_equal(back, replayed)


TWICE = {"a": {"learning": {"passes": 2}}}


@pytest.mark.parametrize(
    ("challengers", "values", "message"),
    [
        ({"a": {}}, {}, r"challengers\.a: differs in nothing"),
        (
            {"a": {"labels": {"mode": "fnw"}}},
            {},
            r"challengers\.a\.labels: unknown key; allowed here: learning, replay",
        ),
        ({"a": {"learning": {"rate": 1}}}, {}, r"challengers\.a: learning\.rate: unknown key; allowed"),
        ({"a": {"replay": {"ratio": -1}}}, {}, r"challengers\.a: replay\.ratio: -1 is not allowed"),
        ({"a": {"learning": {"threads": 1}}}, {}, r"challengers\.a: learning\.threads: 1; threads are the process"),
        ({"a": {"learning": {"optimizer": "ftrl"}}}, {}, r"challengers\.a: learning\.optimizer: ftrl forgets"),
        ({"A b": TWICE["a"]}, {}, r"challengers\.A b: not a name"),
        ({f"a{n}": {"learning": {"passes": n + 2}} for n in range(9)}, {}, r"challengers: 9; at most 8"),
        (TWICE, {"gate__on_degradation": "rollback_serving"}, r"gate\.on_degradation: rollback_serving, but"),
        (TWICE, {"gate__min_auc": 0.5}, r"gate\.min_auc: 0\.5, but no AUC"),
        (TWICE, {"labels__mode": "fnw"}, r"challengers: labels\.mode is fnw, where"),
        (TWICE, {"learning__calibration_rows": 5}, r"challengers: learning\.calibration_rows"),
    ],
)
def test_what_cannot_be_raced_is_refused(challengers: dict[str, Any], values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.parse(json.dumps(changed(CONFIG, challengers=challengers, **values)))


def test_a_challenger_is_the_config_but_for_its_keys() -> None:
    config = configs.parse(yaml.safe_dump(RACE))
    variants = configs.variants(config)
    assert set(variants) == {"quick", "linear", "lost"}
    quick = variants["quick"]
    assert quick.learning.learning_rate == 0.003 and quick.learning.hidden == config.learning.hidden
    assert quick.replay == config.replay and quick.features == config.features and not quick.challengers
    assert configs.model_hash(config) != configs.model_hash(
        configs.parse(yaml.safe_dump(changed(RACE, challengers={})))
    )

"""The rehearsal: its worlds are what was asked for, and it decides as the gate itself does."""

import json

import numpy as np
import pytest

from stream_learner import settings
from stream_learner.cli import main
from stream_learner.errors import ConfigError
from stream_learner.judging import rehearsal
from stream_learner.judging.gate import Gate
from stream_learner.judging.rehearsal import Pool, Schedule, World
from stream_learner.judging.sequence import PairedGains
from stream_learner.judging.verdict import Question


@pytest.mark.parametrize("rate", [0.002, 0.03, 0.2])
@pytest.mark.parametrize("gain", [0.01, 0.0, -0.02])
def test_a_world_has_the_base_rate_and_the_gain_asked_for(rate, gain):
    world = World.of(Pool.made_up(rate, 0.3, 1), rate, gain)
    assert world.chance.mean() == pytest.approx(rate, rel=1e-6)
    expected = world.chance * world.if_positive + (1 - world.chance) * world.if_negative
    assert expected.mean() / world.unit == pytest.approx(gain, abs=1e-8)


def test_models_too_alike_for_a_gain_are_refused():
    with pytest.raises(ConfigError, match="too alike for a gain"):
        World.of(Pool.made_up(0.03, 1e-4, 1), 0.03, 0.01)


def test_it_decides_as_the_gate_does():
    """The same slides, through the gate itself: it passes at the look at which the rehearsal published first."""
    pool = Pool.made_up(0.1, 0.4, 2)
    world, schedule = World.of(pool, 0.1, 0.02), Schedule(6, 25, 500, 1000, 20)
    first, _ = rehearsal.rehearse(world, schedule, 0.05, {"superior": 0.0}, 3)
    config = settings.Gate(mode="superior", max_ne=99.0, calibration=None, min_interval=settings.Duration(0))
    rng = np.random.default_rng([3, 7401, 1])
    gates, passed = [Gate(config) for _ in range(6)], np.zeros(6, np.int64)
    for look in range(1, 26):
        rows = rng.integers(0, len(pool.candidate), (6, 500))
        labels = (rng.random((6, 500)) < world.chance[rows]).astype(np.float32)
        for run, gate in enumerate(gates):
            gate.observe(pool.candidate[rows[run]], pool.champion[rows[run]], labels[run], look)
            verdict = gate.judge(Question(slide=look, slide_end=look, finite=True, psi={}, parent=1))
            passed[run] = passed[run] or look * verdict.passed
    assert passed.tolist() == first["superior"].tolist() and np.count_nonzero(passed) > 0


def test_waits_are_quantiles_over_all_runs():
    first = np.array([3, 0, 1, 2])
    assert rehearsal.published(first) == 0.75
    assert rehearsal.looks_for(first, 0.5) == 2.0 and rehearsal.looks_for(first, 0.8) == np.inf


def test_the_command_makes_a_table_of_thresholds(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("gate: {mode: superior, margin: 0.02}\n")
    asked = ["gate", "simulate", "-c", str(tmp_path / "c.yaml"), "--runs", "40", "--looks", "8", "--apart", "0.5"]
    assert main([*asked, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["rule"] == "superior" and content["runs"] == 40
    rows = {(row["rule"], row["true_gain"]): row for row in content["rows"]}
    assert rows["superior", 0.0]["false"] and not rows["superior", 0.01]["false"]
    assert rows["naive", 0.0]["published"] > 0.5 > rows["superior", 0.0]["published"]
    assert rows["non_inferior 0.04", 0.01]["published"] > rows["superior", 0.01]["published"]
    assert main(asked) == 0
    table = capsys.readouterr().out
    false, missed = (rows["superior", gain]["published"] for gain in (0.0, 0.01))
    assert f"the config's gate, superior, published falsely in {false:.1%} of the runs at the most and missed" in table
    assert f"missed a true gain of 0.01 in {1 - missed:.1%}, 0.005 in " in table
    assert "publishing is" in table and "non_inferior 0.01" in table and "nan" not in table


def test_a_score_log_can_be_rehearsed_with(tmp_path, capsys):
    rng = np.random.default_rng(4)
    log = tmp_path / "scores.jsonl"
    with log.open("w") as file:
        for slide in range(3):
            truth = rng.normal(-2, 1, 400)
            pair = {name: np.round(truth + rng.normal(0, 0.3, 400), 4).tolist() for name in ("candidate", "champion")}
            label = (rng.random(400) < 1 / (1 + np.exp(-truth))).astype(int).tolist()
            file.write(json.dumps({"slide": slide, "slide_end": slide, "label": label, **pair}) + "\n")
    (tmp_path / "c.yaml").write_text("gate: {mode: superior}\n")
    asked = ["gate", "simulate", "-c", str(tmp_path / "c.yaml"), "--runs", "5", "--looks", "2", "--scores"]
    assert main([*asked, str(log), "--json"]) == 0
    assert 0.1 < json.loads(capsys.readouterr().out)["base_rate"] < 0.25
    (tmp_path / "bad.jsonl").write_text('{"candidate": [1]}\n')
    assert main([*asked, str(tmp_path / "bad.jsonl")]) == 2
    assert "no score log as judging.score_log writes it" in capsys.readouterr().err


def test_parts_side_by_side_are_the_whole():
    rng = np.random.default_rng(5)
    a, b, labels = rng.normal(-2, 1, (4, 50)), rng.normal(-2, 1, (4, 50)), rng.random((4, 50)) < 0.1
    whole = PairedGains.of(a, b, labels)
    joined = PairedGains.joined([PairedGains.of(a[:1], b[:1], labels[:1]), PairedGains.of(a[1:], b[1:], labels[1:])])
    assert joined.lower(0.05).tolist() == whole.lower(0.05).tolist()

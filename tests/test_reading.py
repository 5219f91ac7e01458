"""A state folder as DataFrames, from files as a worker leaves them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "publishing"))
from versions import MODEL, Disk, Files, manifest_of, publish

import stream_learner
from stream_learner.durable import canonical_json
from stream_learner.errors import ConfigError
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.storage import LocalStorage

pandas = pytest.importorskip("pandas", reason="pandas is not here: the extra `notebooks`")

START_US = 1_704_067_200_000_000
SLICE = {"auc": 0.7, "n": 100}
METRICS = {"auc": 0.75, "lifetime": {"candidate": SLICE, "prior": SLICE}, "windows": {"1h": {"champion": SLICE}}}


def verdict(slide: int, passed: bool, **evidence: float | None) -> dict[str, Any]:
    rules = [{"name": "auc", "value": 0.7, "threshold": 0.6, "passed": passed, "asked": True, "text": "AUC"}]
    told: dict[str, Any] = {"kind": "verdict", "slide": slide, "slide_end": START_US + slide * 60_000_000}
    told |= {"passed": passed, "reason": "passed" if passed else "held", "parent": None, "psi": {"price": 0.1 * slide}}
    return told | {"evidence": {"gain": None, **evidence}, "rules": rules}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    store = Checkpoints(Disk(tmp_path).storage(), MODEL, keep=9)
    publish(store, 1_704_067_200, metrics=METRICS)
    publish(store, 1_704_070_800, metrics=METRICS, parent=1_704_067_200, slide=24)
    store.point(1_704_070_800)
    where = {"model": MODEL, "checkpoints": str(tmp_path / "checkpoints")}
    (tmp_path / "worker.json").write_text(json.dumps(where))
    canary = {"kind": "canary", "slide": 3, "slide_end": START_US, "passed": True, "reason": "kept", "rules": []}
    broken = {"verdict": "quarantined", "slide": 9, "reason": "no clicks"}
    lines = [verdict(1, False), verdict(2, True, gain=0.01), canary, broken]
    (tmp_path / "verdicts.jsonl").write_bytes(b"".join(canonical_json(line) + b"\n" for line in lines))
    return tmp_path


def test_verdicts_hold_the_evidence_by_time(state):
    frame = stream_learner.open_state(state).verdicts()
    assert list(frame.passed) == [False, True]
    assert list(frame.failed) == ["auc", ""]
    assert frame.index[0] == pandas.Timestamp("2024-01-01 00:01", tz="UTC")
    assert frame.gain.iloc[1] == 0.01 and pandas.isna(frame.gain.iloc[0])


def test_other_decisions_rules_and_drift_are_frames_of_their_own(state):
    opened = stream_learner.open_state(state)
    assert list(opened.decisions().reason) == ["kept", "no clicks"]
    assert list(opened.rules().passed) == [False, True]
    assert list(opened.drift().price) == [0.1, 0.2]


def test_versions_and_their_metrics(state):
    opened = stream_learner.open_state(state)
    versions = opened.versions()
    assert (opened.model, opened.champion) == (MODEL, 1_704_070_800)
    assert list(versions.index) == [1_704_067_200, 1_704_070_800]
    assert list(versions.champion) == [False, True] and list(versions.auc) == [0.75, 0.75]
    assert Path(versions.path.iloc[0]).is_dir() and versions.size_bytes.min() > 4000
    assert versions.slide_end.iloc[0] == pandas.Timestamp("2024-01-01", tz="UTC")
    metrics = opened.metrics().set_index(["version", "model", "span"])
    assert len(metrics) == 6 and metrics.auc[1_704_067_200, "champion", "1h"] == 0.7
    assert opened.broken() == {}


def test_the_model_of_another_task_has_its_own_versions_and_verdicts(state):
    store = Checkpoints(LocalStorage(state / "checkpoints" / "next_item"), "next_item", keep=9)
    metrics = {"mrr@20": 0.2, "lifetime": {"candidate": {"mrr@20": 0.19}}}
    store.publish(1_704_070_800, Files().write, manifest_of(1_704_070_800, model="next_item", metrics=metrics), idle)
    tasks = {MODEL: "conversion", "next_item": "next_item"}
    where = {"model": MODEL, "checkpoints": str(state / "checkpoints"), "tasks": tasks}
    (state / "worker.json").write_text(json.dumps(where))
    with (state / "verdicts.jsonl").open("ab") as log:
        log.write(canonical_json({**verdict(5, True, gain=0.03), "psi": {}, "model": "next_item"}) + b"\n")
    opened = stream_learner.open_state(state, model="next_item")
    assert list(opened.verdicts().gain) == [0.03] and len(opened.decisions()) == len(opened.drift()) == 0
    assert list(opened.versions()["mrr@20"]) == [0.2] and list(opened.metrics()["mrr@20"]) == [0.19]
    assert len(stream_learner.open_state(state).verdicts()) == 2
    with pytest.raises(ConfigError, match="this worker learns conversion, next_item"):
        stream_learner.open_state(state, model="x")


def idle(folder: Path) -> None:
    """Checks nothing."""


def test_a_state_without_anything_gives_empty_frames(state):
    (state / "verdicts.jsonl").unlink()
    opened = stream_learner.open_state(state)
    assert all(len(frame) == 0 for frame in (opened.verdicts(), opened.decisions(), opened.rules(), opened.drift()))


def test_a_folder_no_worker_has_seen_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no worker has run on this folder"):
        stream_learner.open_state(tmp_path)


def test_without_pandas_the_remedy_is_told(state, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"stream-learner\[notebooks\]"):
        stream_learner.open_state(state)

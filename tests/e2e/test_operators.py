"""What operators do to a worker, running or stopped: roll back, pin, unpin; and the replay of its journal."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from processes import Background, assert_equal, changed, learner, to_the_end, version_numbers, write_config
from shops import CONFIG, grow, last_closed_slide_end, write_shop

from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.manifest import Manifest
from stream_learner.publishing.storage import LocalStorage
from stream_learner.publishing.verdict_log import read_log

EVENTS = 12_000
KEEP = 2
OFTEN = changed(CONFIG, gate__interval="10m", gate__min_interval="20m", checkpoints__keep=KEEP)


def test_commands_to_a_running_worker_and_the_replay_of_its_journal(tmp_path: Path) -> None:
    whole, live, state = write_shop(tmp_path / "whole", EVENTS), tmp_path / "live", tmp_path / "state"
    grow(live, whole, 0.0, 0.6)
    config = changed(OFTEN, source__files={"path": str(live), "follow": True, "poll_interval": "20ms"})
    path = write_config(tmp_path / "config.yaml", config)
    with Background(tmp_path / "run", "run", "-c", path, "--state", state) as worker:
        worker.wait_for_log(f"end_us={last_closed_slide_end(live)} ")
        refused = write_config(tmp_path / "refused.yaml", changed(config, lease__standby=False))
        refusal = learner("run", "-c", refused, "--state", state, expect=4).stderr
        assert f"{state} is in use by process" in refusal

        before = listed(state)
        target, parent = before["versions"][0]["version"], before["champion"]
        assert target < parent
        for action in ("pin", "rollback"):
            command(state, action, target)
            worker.wait_for_log(f": {action} version {target}")
        worker.wait_for("the pointer to move", lambda: listed(state)["champion"] > parent)
        assert_rolled_back(state, target, parent)
        [told] = [line for line in read_log(state / "verdicts.jsonl") if line.get("kind") == "rollback"]
        assert told["reason"].startswith(f"rolled back: version {target} is served again, as version ")

        grow(live, whole, 0.6, 1.0)
        worker.wait_for_log(f"end_us={last_closed_slide_end(live)} ")
        command(state, "unpin", target)
        worker.wait_for_log(f": unpin version {target}")
        assert_pruned(state, target)
        assert worker.end(signal.SIGTERM) == 0

    finished = to_the_end(tmp_path / "finished", path, whole, state)
    assert len(finished.versions) >= 6 and target not in finished.manifests
    replayed = to_the_end(tmp_path / "replayed", path, whole, tmp_path / "fresh", "--journal", state / "journal.jsonl")
    assert_equal(finished, replayed)


def test_commands_to_a_stopped_worker_wait_for_its_start(tmp_path: Path) -> None:
    events, state = write_shop(tmp_path / "events", 2 * EVENTS // 3), tmp_path / "state"
    path = write_config(tmp_path / "config.yaml", OFTEN)
    first = to_the_end(tmp_path / "first", path, events, state)
    target, parent = first.versions[0], first.versions[-1]
    assert target < parent
    assert "there is no version 7" in learner("checkpoints", "rollback", "7", "--state", state, expect=2).stderr
    command(state, "rollback", target)
    assert listed(state)["champion"] == parent

    second = to_the_end(tmp_path / "second", path, events, state)
    assert second.versions[:-1] == first.versions  # there was nothing new in the log
    assert second.report["model_sha256"] == first.report["model_sha256"]  # the candidate stays as it was
    assert_rolled_back(state, target, parent)


def command(state: Path, action: str, version: int) -> None:
    answer = json.loads(learner("checkpoints", action, str(version), "--state", state, "--json").stdout)
    assert set(answer) == {"command"}


def listed(state: Path) -> dict[str, Any]:
    out: dict[str, Any] = json.loads(learner("checkpoints", "list", "--state", state, "--json").stdout)
    return out


def assert_rolled_back(state: Path, target: int, parent: int) -> None:
    """The champion is a new version with the target's files."""
    checkpoints = Checkpoints(LocalStorage(state / "checkpoints" / OFTEN["name"]), OFTEN["name"], KEEP)
    pointer = checkpoints.pointer()
    assert pointer is not None and pointer.version > parent
    new, old = checkpoints.read(pointer.version), checkpoints.read(target)
    assert (new.rollback_of, new.parent, new.verdict["verdict"]) == (target, parent, "rollback")
    assert new.content_sha256 == old.content_sha256 == pointer.content_sha256
    assert sums(new) == sums(old)
    assert checkpoints.verify(new.version) == []


def sums(manifest: Manifest) -> dict[str, str]:
    """Of the model's files; card and delta tell of the rollback."""
    return {name: file.sha256 for name, file in manifest.files.items() if not name.startswith(("card.", "delta."))}


def assert_pruned(state: Path, pinned: int) -> None:
    """On disk: the champion, its parent, the pinned one, and the newest `KEEP` of the others."""
    there = version_numbers(state)
    versions = listed(state)["versions"]
    champion, parent = versions[-1]["version"], versions[-1]["parent"]
    others = [version for version in there if version not in (champion, parent, pinned)]
    assert pinned < min(others) and len(others) == KEEP
    assert {champion, parent, pinned} < set(there)

"""Stopped, killed, damaged: a worker that starts again comes to the versions of one that was never interrupted."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import (
    Background,
    Outcome,
    assert_equal,
    changed,
    learner,
    outcome,
    side_by_side,
    snapshot_slides,
    version_numbers,
    write_config,
)
from shops import CONFIG, write_shop

EVENTS = 12_000
OFTEN = changed(CONFIG, gate__interval="10m", gate__min_interval="20m")
ALL_THE_SAME: dict[str, Any] = {  # operational keys: none of them reaches the model
    "source__queue_records": 1234,
    "snapshot__interval": "1h",
    "snapshot__keep": 2,
    "dead_letters__late": "dead_letter",
    "observing__log_format": "json",
}


@dataclass(frozen=True)
class Place:
    """A state folder that learns `events` to their end."""

    folder: Path
    events: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def command(self, **values: Any) -> tuple[str | Path, ...]:
        """Arguments of `stream-learner`, with these config values changed."""
        path = write_config(self.folder / "config.yaml", changed(OFTEN, **values))
        where = ("--events", self.events, "--state", self.state, "--report", self.folder / "report.json")
        return ("backtest", "-c", path, *where)

    def finish(self, **values: Any) -> Outcome:
        done = learner(*self.command(**values))
        (self.folder / "stderr").write_text(done.stderr)
        return outcome(self.state, self.folder / "report.json")

    def copied(self, folder: Path) -> Place:
        shutil.copytree(self.state, folder / "state")
        return Place(folder, self.events)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Outcome]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    place = Place(folder, write_shop(folder / "events", EVENTS))
    whole = place.finish()
    assert len(whole.versions) >= 4 and whole.report["verdicts"]["held"] >= 3
    return place, whole


# ---- SIGTERM ---------------------------------------------------------------------------------------------------------


def test_a_stopped_worker_goes_on_where_it_was(uninterrupted: tuple[Place, Outcome], tmp_path: Path) -> None:
    place, whole = uninterrupted
    stopped = Place(tmp_path / "stopped", place.events)
    with Background(stopped.folder, *stopped.command()) as worker:
        worker.wait_for("the second version", lambda: len(version_numbers(stopped.state)) >= 2)
        assert worker.end(signal.SIGTERM) == 0
    half = outcome(stopped.state, stopped.folder / "report.json")
    assert 0 < half.report["slides"] < whole.report["slides"]
    assert half.versions == whole.versions[: len(half.versions)] and half.champion == half.versions[-1]

    torn, other = stopped.copied(tmp_path / "torn"), stopped.copied(tmp_path / "other")
    damage(sorted((torn.state / "snapshots").glob("slide-*"))[-1] / "arrays.bin")
    resumed, fallen_back, refusal = side_by_side(
        [
            lambda: stopped.finish(**ALL_THE_SAME),
            torn.finish,
            lambda: learner(*other.command(learning__learning_rate=0.01), expect=4).stderr,
        ]
    )
    assert_equal(whole, resumed, fallen_back)
    assert "is not whole (arrays.bin does not match its checksum)" in (torn.folder / "stderr").read_text()
    assert "was made under other model keys: learning.learning_rate." in refusal
    assert outcome(other.state, stopped.folder / "report.json").manifests == half.manifests  # nothing was touched


def damage(path: Path) -> None:
    """Flips one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# ---- SIGKILL ---------------------------------------------------------------------------------------------------------

Moment = Callable[[Path], Callable[[], bool]]
"""Given the state folder as it is when a worker starts, the question whether to kill it now."""


def new_snapshot(state: Path) -> Callable[[], bool]:
    before = max(snapshot_slides(state), default=0)
    return lambda: max(snapshot_slides(state), default=0) > before


def version_being_written(state: Path) -> Callable[[], bool]:
    folder = state / "checkpoints" / OFTEN["name"]
    return lambda: any(not path.name.startswith(".tmp-removed") for path in folder.glob(".tmp-*"))


def new_version(state: Path) -> Callable[[], bool]:
    """Its folder stands; its snapshot may not, nor the pointer."""
    before = len(version_numbers(state))
    return lambda: len(version_numbers(state)) > before


MOMENTS: dict[str, Moment] = {
    "a new version": new_version,
    "a version being written": version_being_written,
    "a new snapshot": new_snapshot,
}


@pytest.mark.parametrize("seed", [pytest.param(1), pytest.param(2, marks=pytest.mark.long)])
def test_a_killed_worker_comes_to_the_same_versions(
    uninterrupted: tuple[Place, Outcome], tmp_path: Path, seed: int
) -> None:
    """Killed at three moments, in an order and up to 60 ms after them as the seed has it, each time started again."""
    place, whole = uninterrupted
    killed = Place(tmp_path, place.events)
    rng = np.random.default_rng(seed)
    for name in rng.permutation(list(MOMENTS)):
        moment = MOMENTS[name](killed.state)
        with Background(killed.folder, *killed.command()) as worker:
            worker.wait_for(name, moment)
            time.sleep(rng.uniform(0.0, 0.06))
            assert worker.end(signal.SIGKILL) == -signal.SIGKILL
    assert_equal(whole, killed.finish())


def test_a_worker_that_cannot_reach_its_broker_stops_when_told(tmp_path: Path) -> None:
    nowhere = changed(OFTEN, source={"kind": "kafka", "kafka": {"bootstrap_servers": "127.0.0.1:1"}})
    config = write_config(tmp_path / "config.yaml", nowhere)
    with Background(tmp_path / "out", "run", "-c", config, "--state", tmp_path / "state") as worker:
        worker.wait_for_log("holding the lease")
        assert worker.end(signal.SIGTERM) == 0

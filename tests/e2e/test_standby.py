"""Two workers on one state: one learns, one stands by. Whatever happens to the first, the models are the same."""

from __future__ import annotations

import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from processes import Background, Outcome, assert_equal, changed, learner, outcome, version_numbers, write_config
from shops import CONFIG, write_shop

EVENTS = 12_000
TIMEOUT_S = 1.5
SOON = changed(
    CONFIG,
    gate__interval="10m",
    gate__min_interval="20m",
    lease={"timeout": f"{TIMEOUT_S}s", "heartbeat": "300ms"},
)


@dataclass(frozen=True)
class Pair:
    """A state folder and the workers that want it."""

    folder: Path
    events: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def worker(self, name: str, **values: Any) -> Background:
        config = write_config(self.folder / f"{name}.yaml", changed(SOON, **values))
        where = ("--events", self.events, "--state", self.state, "--report", self.folder / f"{name}.json")
        return Background(self.folder / name, "backtest", "-c", config, *where)

    def outcome(self, name: str) -> Outcome:
        return outcome(self.state, self.folder / f"{name}.json")

    @contextmanager
    def both(self) -> Iterator[tuple[Background, Background]]:
        """The first has published once, the second stands by."""
        with self.worker("first") as first:
            first.wait_for_log("token 1")
            with self.worker("second") as second:
                second.wait_for_log("standing by")
                first.wait_for("a version", lambda: version_numbers(self.state))
                yield first, second


def told(worker: Background, path: str) -> tuple[int, str]:
    """Status and body of what a worker says of itself."""
    line = worker.wait_for_log("metrics and health at http://")
    address = re.search(r"http://[\d.:]+", line)
    assert address is not None
    try:
        with urllib.request.urlopen(f"{address[0]}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def contents(state: Path) -> dict[str, bytes]:
    """All that must not change any more: versions, pointer, snapshots, journal, verdicts, lease."""
    return {str(path.relative_to(state)): path.read_bytes() for path in sorted(state.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    folder = tmp_path_factory.mktemp("alone")
    pair = Pair(folder, write_shop(folder / "events", EVENTS))
    with pair.worker("alone") as worker:
        assert worker.end_code() == 0
    whole = pair.outcome("alone")
    assert len(whole.versions) >= 4
    return pair.events, whole


def test_a_standby_takes_over_from_a_killed_worker(uninterrupted: tuple[Path, Outcome], tmp_path: Path) -> None:
    events, whole = uninterrupted
    pair = Pair(tmp_path, events)
    with pair.both() as (first, second):
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        second.wait_for_log("holding the lease on")
        assert second.end_code() == 0
        assert "token 2" in second.log()
    assert_equal(whole, pair.outcome("second"))


def test_a_worker_that_wakes_too_late_changes_nothing(uninterrupted: tuple[Path, Outcome], tmp_path: Path) -> None:
    """Stopped for longer than the timeout, and woken when its follower has ended."""
    events, whole = uninterrupted
    pair = Pair(tmp_path, events)
    with pair.both() as (first, second):
        first.send(signal.SIGSTOP)
        second.wait_for_log("holding the lease on")
        assert second.end_code() == 0
        assert_equal(whole, pair.outcome("second"))
        before = contents(pair.state)
        assert first.end(signal.SIGCONT) == 4
        assert "another worker may have taken over" in first.log()
    assert contents(pair.state) == before
    assert_equal(whole, pair.outcome("second"))
    assert not (pair.folder / "first.json").exists()


@pytest.mark.long
def test_a_worker_that_wakes_while_its_follower_works(uninterrupted: tuple[Path, Outcome], tmp_path: Path) -> None:
    events, whole = uninterrupted
    pair = Pair(tmp_path, events)
    with pair.both() as (first, second):
        first.send(signal.SIGSTOP)
        second.wait_for_log("restored the snapshot")
        assert first.end(signal.SIGCONT) == 4
        assert second.end_code() == 0
    assert_equal(whole, pair.outcome("second"))


def test_a_stopped_worker_hands_over_at_once(uninterrupted: tuple[Path, Outcome], tmp_path: Path) -> None:
    """With a timeout beyond the test's patience, only the release can let the standby in."""
    events, whole = uninterrupted
    pair = Pair(tmp_path, events)
    long = {"lease": {"timeout": "1h", "heartbeat": "1s"}}
    with pair.worker("first", **long) as first:
        first.wait_for_log("token 1")
        with pair.worker("second", **long) as second:
            second.wait_for_log("standing by")
            status, body = told(second, "/readyz")
            assert (status, json.loads(body)["state"]) == (200, "standby")
            assert re.match(r"waiting for process \d+ on .* \(token 1\)", json.loads(body)["stage"])
            assert "stream_learner_lease_token 0.0" in told(second, "/metrics")[1]
            first.wait_for("a version", lambda: version_numbers(pair.state))
            assert first.end(signal.SIGTERM) == 0
            second.wait_for_log("token 2")
            assert "stream_learner_lease_token 2.0" in told(second, "/metrics")[1]
            assert second.end_code() == 0
    assert_equal(whole, pair.outcome("second"))


@pytest.mark.long
def test_a_standby_that_is_not_needed_ends_well_and_one_that_is_not_wanted_is_refused(
    uninterrupted: tuple[Path, Outcome], tmp_path: Path
) -> None:
    events, _ = uninterrupted
    pair = Pair(tmp_path, events)
    grown = changed(SOON, source__files={"path": str(events), "follow": True}, lease__standby=False)
    path = write_config(tmp_path / "follow.yaml", grown)
    with Background(tmp_path / "first", "run", "-c", path, "--state", pair.state) as first:
        first.wait_for_log("token 1")
        with pair.worker("second") as second:
            second.wait_for_log("standing by")
            refusal = learner("run", "-c", path, "--state", pair.state, expect=4).stderr
            assert f"{pair.state} is in use by process" in refusal and "lease.standby: true" in refusal
            assert second.end(signal.SIGTERM) == 0
            assert not (tmp_path / "second.json").exists()
        assert first.end(signal.SIGTERM) == 0

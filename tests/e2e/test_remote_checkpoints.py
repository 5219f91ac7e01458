"""The whole worker with its versions in an S3 bucket: killed while uploading, with the store away for a while, rolled
back and pruned, it leaves what an undisturbed worker leaves on a disk, byte for byte."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from processes import Background, Outcome, assert_equal, changed, learner, outcome, side_by_side, write_config
from s3_server import Bucket, S3Server
from shops import CONFIG, write_shop

EVENTS = 12_000
OFTEN = changed(CONFIG, gate__interval="10m", gate__min_interval="20m", checkpoints__keep=2)
SECRET = "hush-hush-of-the-environment"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@dataclass(frozen=True)
class Learning:
    """A worker on a folder of events, with its config, state and reports in `folder`."""

    folder: Path
    config: dict[str, Any]

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    def command(self) -> tuple[str | Path, ...]:
        path = write_config(self.folder / "config.yaml", {**self.config, "state": str(self.state)})
        return ("run", "-c", path, "--until-end", "--report", self.report)

    def finish(self, expect: int = 0) -> str:
        return learner(*self.command(), expect=expect).stderr

    def checkpoints(self, *action: str | Path, expect: int = 0) -> str:
        done = learner("checkpoints", *action, "-c", self.folder / "config.yaml", expect=expect)
        return done.stdout + done.stderr

    def rolled_back(self) -> None:
        """To the oldest version there is; carried out by the next start."""
        listed = json.loads(self.checkpoints("list", "--json"))
        self.checkpoints("rollback", str(listed["versions"][0]["version"]))
        self.finish()


@dataclass
class Troubles:
    """What happens to the requests of a worker: held at one object, refused for a while."""

    server: S3Server
    uploading: threading.Event = field(default_factory=threading.Event)
    killed: threading.Event = field(default_factory=threading.Event)
    refusing: threading.Event = field(default_factory=threading.Event)
    learned: threading.Event = field(default_factory=threading.Event)
    refusals: int = 12  # two rounds of what s3fs tries by itself, and some
    versions: list[str] = field(default_factory=list)

    def hold_second_graph(self, method: str, path: str, environ: dict[str, Any]) -> int | None:
        if method == "PUT" and path.endswith("saved_model.pb") and self._nth(path) == 2:
            self.uploading.set()
            self.killed.wait(120)
            return 503
        return None

    def refuse_third(self, method: str, path: str, environ: dict[str, Any]) -> int | None:
        """Holds one object until learning was seen to go on, then refuses it for a while."""
        if not (method == "PUT" and path.endswith("variables.index") and self._nth(path) == 3) or self.refusals == 0:
            return None
        self.refusals -= 1
        self.refusing.set()
        self.learned.wait(120)
        return 503

    def _nth(self, path: str) -> int:
        version = path.split("/")[4]
        if version not in self.versions:
            self.versions.append(version)
        return self.versions.index(version) + 1


def last_end_us(log: str) -> int:
    """End of the last slide that a log tells of."""
    return max((int(end) for end in re.findall(r"slide closed .*end_us=(\d+)", log)), default=0)


@dataclass(frozen=True)
class Pair:
    """The same events learned with versions on a disk, undisturbed, and in a bucket, through kill and outage."""

    local: Learning
    remote: Learning
    bucket: Bucket


@pytest.fixture(scope="module")
def pair(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    config = changed(OFTEN, source__files={"path": str(write_shop(folder / "events", EVENTS))})
    bucket = server.bucket()
    options = {**server.options, "secret": "${S3_SECRET}"}
    root = {"root": f"s3://{bucket.name}/models", "options": options, "keep": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S3_SECRET", SECRET)
        found = Pair(
            Learning(folder / "local", config), Learning(folder / "remote", changed(config, checkpoints=root)), bucket
        )
        side_by_side([found.local.finish, lambda: disturbed(found.remote, bucket, server)])
        yield found


def disturbed(remote: Learning, bucket: Bucket, server: S3Server) -> None:
    """Killed with its second version on the way; then, with the third, refused by the store for a while."""
    troubles = Troubles(server)
    server.before = troubles.hold_second_graph
    with Background(remote.folder / "killed", *remote.command()) as worker:
        worker.wait_for("the second version on its way", troubles.uploading.is_set)
        assert worker.end(signal.SIGKILL) == -signal.SIGKILL
    troubles.killed.set()
    assert troubles.versions[1] not in versions_in(bucket)

    server.before = troubles.refuse_third
    with Background(remote.folder / "outage", *remote.command()) as worker:
        worker.wait_for("the third version refused", troubles.refusing.is_set)
        end_us = int(troubles.versions[2]) * 1_000_000
        worker.wait_for("learning to go on meanwhile", lambda: last_end_us(worker.log()) > end_us)
        assert troubles.versions[2] not in versions_in(bucket)
        troubles.learned.set()
        assert worker.end_code() == 0
        assert f"a part of s3://{bucket.name}/models/shop/{troubles.versions[1]}" in worker.log()
        assert "the store or the way to it is failing" in worker.log()
        assert SECRET not in worker.log()
    server.whole()


@pytest.mark.timeout(900)
def test_a_bucket_through_kill_and_outage_is_equal_to_a_disk(pair: Pair) -> None:
    undisturbed = outcome(pair.local.state, pair.local.report)
    assert len(undisturbed.versions) >= 4
    assert_equal(undisturbed, remote_outcome(pair.remote, pair.bucket))
    assert contents(pair.bucket) == on_disk(pair.local.state / "checkpoints")


@pytest.mark.timeout(900)
def test_a_bucket_rolled_back_and_pruned_is_equal_to_a_disk(pair: Pair) -> None:
    side_by_side([pair.local.rolled_back, pair.remote.rolled_back])
    assert_equal(outcome(pair.local.state, pair.local.report), remote_outcome(pair.remote, pair.bucket))
    assert contents(pair.bucket) == on_disk(pair.local.state / "checkpoints")
    read_and_refused(pair.remote, pair.bucket)


def read_and_refused(remote: Learning, bucket: Bucket) -> None:
    """What an operator sees; and what a worker says that cannot get there."""
    listed = json.loads(remote.checkpoints("list", "--json"))
    newest, oldest = listed["versions"][-1], listed["versions"][0]
    assert listed["champion"] == newest["version"] and newest["rollback_of"] is not None
    assert str(newest["rollback_of"]) in remote.checkpoints("show", str(newest["version"]))
    assert "rollback_of" in remote.checkpoints("diff", str(oldest["version"]), str(newest["version"]))
    assert "there is no version 7" in remote.checkpoints("rollback", "7", expect=2)
    refusal = learner("checkpoints", "list", "--state", remote.state, expect=2).stderr
    assert f"its versions are at s3://{bucket.name}/models" in refusal and "-c FILE" in refusal
    nowhere = changed(remote.config, checkpoints__root="s3://no-such-bucket/models")
    assert "make the bucket, or correct checkpoints.root" in Learning(remote.folder / "no", nowhere).finish(expect=2)


def contents(bucket: Bucket) -> dict[str, bytes]:
    """Every object, by its name below the root."""
    return {key.removeprefix("models/"): bucket.read(key) for key in bucket.listed()}


def on_disk(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def versions_in(bucket: Bucket) -> set[str]:
    """Numbers that have a manifest."""
    return {key.split("/")[2] for key in bucket.listed() if key.endswith("/manifest.json")}


def remote_outcome(learning: Learning, bucket: Bucket) -> Outcome:
    """As `outcome`, of a copy of the bucket."""
    assert not (learning.state / "checkpoints").exists()
    copy = learning.folder / "copy"
    for name, content in contents(bucket).items():
        path = copy / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (copy / "verdicts.jsonl").write_bytes((learning.state / "verdicts.jsonl").read_bytes())
    found = outcome(copy, learning.report)
    shutil.rmtree(copy)
    return found

"""States that earlier releases left: this one reads their versions and goes on with their snapshots.

`tests/fixtures/releases/make.py` makes the fixture of a release, just before it.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from processes import PROGRAM, learner, snapshot_slides, version_numbers
from shops import grow

from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.storage import LocalStorage

RELEASES = sorted((Path(__file__).parents[1] / "fixtures" / "releases").glob("*.tar.xz"))
LEARNED = 0.8  # of the events, by the release that made the fixture
MOST_BYTES = 400_000


@pytest.fixture(params=RELEASES, ids=[path.name.removesuffix(".tar.xz") for path in RELEASES])
def left(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder as the release left it."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    grow(tmp_path / "events", tmp_path / "whole", 0.0, LEARNED)
    return tmp_path


def test_there_is_one_and_they_are_small() -> None:
    assert RELEASES and all(path.stat().st_size < MOST_BYTES for path in RELEASES)


def test_its_versions_are_read(left: Path) -> None:
    store = Checkpoints(LocalStorage(left / "state" / "checkpoints" / "shop"), "shop", keep=2)
    manifests = store.versions()
    assert manifests and {m.version: problems for m in manifests if (problems := store.verify(m.version))} == {}
    shown = learner("checkpoints", "show", str(manifests[-1].version), "--state", left / "state")
    assert "version" in shown.stdout
    event = json.dumps({"user": "u1", "item": "i1", "time": manifests[-1].slide_end_us})
    told = learner("explain", "--model", store.location(manifests[-1].version), "--event", event, "--json")
    assert 0 < json.loads(told.stdout)["probability"] < 1


def test_this_release_goes_on_with_its_snapshot(left: Path) -> None:
    state = left / "state"
    before, versions = snapshot_slides(state), version_numbers(state)
    grow(left / "events", left / "whole", LEARNED, 1.0)
    command = [PROGRAM, "run", "-c", "config.yaml", "--until-end", "--report", "report.json"]
    done = subprocess.run(command, cwd=left, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"restored the snapshot before slide {before[-1]}" in done.stderr
    report = json.loads((left / "report.json").read_text())
    lines = sum(len(path.read_bytes().splitlines()) for path in (left / "whole").iterdir())
    assert report["consumed"] == lines
    assert set(versions) <= set(report["versions"]) and max(snapshot_slides(state)) > max(before)

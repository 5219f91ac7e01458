"""Versions appear whole or not at all, never change, and the pointer never moves back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_learner.errors import ConfigError, RetryableError, StateError
from stream_learner.publishing.checkpoints import Checkpoints, diff, next_version
from stream_learner.publishing.manifest import LearnedRange, Machine, Manifest, Pointer, manifest_from, to_json
from stream_learner.publishing.rendering import list_json, manifest_json, render_diff, render_list, render_show


def _manifest(version: int, content: str = "aa", **changes: Any) -> Manifest:
    manifest = Manifest(
        model="conversion",
        version=version,
        parent=None,
        slide=12,
        slide_end_us=1_704_067_200_000_000,
        event_time_span=(1_704_060_000_000_000, 1_704_067_199_999_000),
        offsets=[LearnedRange(topic="events", index=0, first=5, last=99)],
        metrics={"auc": 0.75, "normalized_entropy": 0.9, "champion": {"auc": 0.74}},
        verdict={"passed": True, "rules": [{"name": "finite", "passed": True}]},
        config_hash="cafe",
        seed=3,
        content_sha256=content * 32,
        signature={"inputs": {"user": "string"}},
        libraries={"numpy": "2.4.0"},
        machine=Machine(cpu_features=["avx2"], threads=2),
    )
    return msgspec.structs.replace(manifest, **changes)


class Files:
    """Writes two files of a version and counts how often; `check` looks at what was written."""

    def __init__(self, text: str = "graph") -> None:
        self.text = text
        self.written: list[Path] = []
        self.checked: list[Path] = []

    def write(self, folder: Path) -> None:
        self.written.append(folder)
        (folder / "variables").mkdir()
        (folder / "saved_model.pb").write_text(self.text)
        (folder / "variables" / "variables.index").write_text("index")

    def check(self, folder: Path) -> None:
        self.checked.append(folder)
        assert (folder / "saved_model.pb").read_text() == self.text
        assert set(manifest_from((folder / "manifest.json").read_bytes()).files) == {
            "saved_model.pb",
            "variables/variables.index",
        }


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, "conversion", keep=2, token=7)


def _publish(store: Checkpoints, version: int, **changes: Any) -> Files:
    files = Files(f"graph {version}")
    store.publish(version, files.write, _manifest(version, **changes), files.check)
    return files


def test_a_version_is_written_aside_checked_and_named(store: Checkpoints) -> None:
    files = _publish(store, 100)
    assert [p.name for p in files.written] == [p.name for p in files.checked] == [".tmp-100-7"]
    assert [p.name for p in store.folder.iterdir()] == ["100"]
    manifest = store.read(100)
    assert manifest.files["variables/variables.index"].size == 5
    assert msgspec.structs.replace(manifest, files={}) == _manifest(100)
    assert store.verify(100) == []


def test_equal_versions_give_equal_manifests(tmp_path: Path) -> None:
    for name in "ab":
        _publish(Checkpoints(tmp_path / name, "conversion", keep=2), 1)
    left, right = (tmp_path / name / "conversion" / "1" / "manifest.json" for name in "ab")
    assert left.read_bytes() == right.read_bytes()
    assert manifest_from(left.read_bytes()) == manifest_from(right.read_bytes())


def test_a_version_that_exists_with_equal_content_is_kept(store: Checkpoints) -> None:
    _publish(store, 100)
    before = (store.folder / "100").stat().st_ino
    assert _publish(store, 100).written == []
    assert (store.folder / "100").stat().st_ino == before


def test_a_version_that_exists_with_other_content_stops_the_worker(store: Checkpoints) -> None:
    _publish(store, 100)
    with pytest.raises(StateError, match="exists with other content"):
        _publish(store, 100, content="bb")
    assert store.read(100).content_sha256 == "aa" * 32


@pytest.mark.parametrize("harm", ["cut", "gone", "extra"])
def test_a_damaged_version_of_equal_content_is_written_again(store: Checkpoints, harm: str) -> None:
    _publish(store, 100)
    path = store.folder / "100" / "saved_model.pb"
    if harm == "cut":
        path.write_text("g")
    elif harm == "gone":
        path.unlink()
    else:
        path.with_name("stray").write_text("")
    [problem] = store.verify(100)
    assert {"cut": "does not match", "gone": "is missing", "extra": "not in the manifest"}[harm] in problem
    assert len(_publish(store, 100).written) == 1
    assert store.verify(100) == []
    assert [p.name for p in store.folder.iterdir()] == ["100"]


def test_a_folder_without_a_readable_manifest_is_not_overwritten(store: Checkpoints) -> None:
    _publish(store, 100)
    (store.folder / "100" / "manifest.json").write_text("{")
    with pytest.raises(StateError, match="missing or damaged"):
        _publish(store, 100)


@pytest.mark.parametrize("step", ["write", "check"])
def test_a_failed_attempt_leaves_nothing(store: Checkpoints, step: str) -> None:
    files = Files()

    def refuse(folder: Path) -> None:
        files.write(folder) if step == "write" else None
        raise StateError("scores differ")

    steps = {"write": files.write, "check": files.check} | {step: refuse}
    with pytest.raises(StateError, match="scores differ"):
        store.publish(5, steps["write"], _manifest(5), steps["check"])
    assert list(store.folder.iterdir()) == []


def test_a_full_disk_is_retryable_and_leaves_nothing(store: Checkpoints) -> None:
    def full(folder: Path) -> None:
        (folder / "part").write_text("x")
        raise OSError(28, os.strerror(28))

    with pytest.raises(RetryableError, match="free some space"):
        store.publish(5, full, _manifest(5), lambda _: None)
    assert list(store.folder.iterdir()) == []
    assert len(_publish(store, 5).written) == 1


def test_leftovers_are_cleared_at_the_start_of_a_worker(store: Checkpoints) -> None:
    _publish(store, 1)
    (store.folder / ".tmp-2-6").mkdir()
    (store.folder / "1").rename(store.folder / ".replaced-1")
    assert store.recover() == [".tmp-2-6"]
    assert store.verify(1) == []


def test_the_pointer_moves_forward_only(store: Checkpoints) -> None:
    assert store.pointer() is None
    for version in (10, 20):
        _publish(store, version)
        assert store.point(version)
    assert json.loads((store.folder / "champion.json").read_bytes()) == {"version": 20, "content_sha256": "aa" * 32}
    assert not store.point(10)
    assert not store.point(20)
    assert store.pointer() == Pointer(version=20, content_sha256="aa" * 32)
    with pytest.raises(StateError):
        store.point(30)
    (store.folder / "champion.json").write_text("{}")
    with pytest.raises(StateError, match=r"champion\.json is damaged"):
        store.pointer()


def test_a_rollback_republishes_the_files_under_a_new_number(store: Checkpoints) -> None:
    _publish(store, 10)
    store.publish(20, store.copier(10), _manifest(20, rollback_of=10), lambda _: None)
    assert store.read(20).rollback_of == 10
    assert store.read(20).files == store.read(10).files
    assert store.verify(20) == []
    assert (store.folder / "20" / "saved_model.pb").read_text() == "graph 10"


def test_versions_are_ascending_and_what_is_none_is_reported(store: Checkpoints) -> None:
    assert store.versions() == []
    for version in (100, 9, 20):
        _publish(store, version)
    for name in ("notes", "007", ".tmp-5-1", "30"):
        (store.folder / name).mkdir()
    shutil.copytree(store.folder / "9", store.folder / "40")
    scan = store.scan()
    assert [m.version for m in scan.manifests] == [9, 20, 100]
    assert list(scan.broken) == ["30", "40"]
    assert "is of conversion version 9" in scan.broken["40"]
    assert store.require(20).version == 20
    with pytest.raises(ConfigError, match=r"no version 21 .* versions: 9, 20, 100"):
        store.require(21)


def test_prune_keeps_champion_parent_pins_and_the_newest_others(store: Checkpoints) -> None:
    for version in range(1, 9):
        _publish(store, version, parent=2 if version == 3 else None)
    store.point(3)
    pruned = store.prune(protect={1})
    assert (pruned.removed, pruned.failed) == ([4, 5, 6], {})
    assert [m.version for m in store.versions()] == [1, 2, 3, 7, 8]
    assert store.prune(protect={1}).removed == []


def test_a_failed_prune_is_told_not_raised(store: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2, 3):
        _publish(store, version)

    def refuse(path: Path, *_: object) -> None:
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        pruned = store.prune()
    assert pruned.removed == [] and "/1" in pruned.failed[1]
    assert [m.version for m in store.versions()] == [2, 3]  # no half-removed integer folder is ever seen
    (store.folder / "champion.json").write_text("{}")
    assert "damaged" in store.prune().failed[0]


@pytest.mark.parametrize(
    ("slide_end_us", "last", "expected"),
    [
        (1_704_067_200_999_999, 0, 1_704_067_200),
        (1_704_067_200_000_000, 1_704_067_200, 1_704_067_201),
        (0, 0, 1),
        (-5_000_000, 3, 4),
    ],
)
def test_numbers_only_grow(slide_end_us: int, last: int, expected: int) -> None:
    assert next_version(slide_end_us, last) == expected


def test_diff_shows_what_differs_side_by_side(store: Checkpoints) -> None:
    _publish(store, 1)
    _publish(
        store,
        2,
        parent=1,
        metrics={"auc": 0.8, "normalized_entropy": 0.9, "champion": {}},
        offsets=[LearnedRange(topic="events", index=0, first=100, last=150)],
        config_hash="beef",
    )
    found = diff(store.read(1), store.read(2))
    assert found["metrics"] == {"auc": [0.75, 0.8], "champion.auc": [0.74, None]}
    assert found["offsets"] == {"events/0": [[5, 99], [100, 150]]}
    assert found["facts"]["config_hash"] == ["cafe", "beef"]
    assert list(found["files"]) == ["saved_model.pb"]
    assert found["verdict"] == found["libraries"] == found["machine"] == {}
    text = render_diff(store.read(1), store.read(2))
    assert "auc" in text and "0.75  0.8" in text and "normalized_entropy" not in text
    assert render_diff(store.read(1), store.read(1)) == "versions 1 and 1 are equal"


def test_rendering_for_people_and_programs(store: Checkpoints) -> None:
    assert render_list([], None) == "no versions yet"
    for version in (1, 2):
        _publish(store, version, parent=1 if version == 2 else None)
    store.point(1)
    lines = render_list(store.versions(), store.pointer()).splitlines()
    assert len(lines) == 3 and lines[1].startswith("*  1") and lines[2].startswith("   2")
    assert "2024-01-01T00:00:00Z" in lines[1] and "0.7500" in lines[1]
    shown = render_show(store.read(2))
    for fact in ("metrics.champion.auc", "5 to 99", "saved_model.pb", "2024-01-01T00:00:00Z", "config_hash"):
        assert fact in shown
    rule = {"name": "calibration", "passed": True, "asked": True, "text": "calibration 1.010 is within 0.8 to 1.25"}
    unasked = {**rule, "name": "cool_down", "asked": False, "text": "no rollback yet"}
    verdict = {"reason": "passed: proven better than the champion", "rules": [rule, unasked], "passed": True}
    first, why, *rules = render_show(_manifest(9, verdict=verdict)).splitlines()[:4]
    assert first == "version 9, of the slide ending 2024-01-01T00:00:00Z"
    assert why == "passed: proven better than the champion"
    assert [line.split() for line in rules] == [
        ["ok", *["calibration", "calibration", "1.010", "is", "within", "0.8", "to", "1.25"]],
        ["-", *["cool_down", "no", "rollback", "yet"]],
    ]
    listed = list_json(store.versions(), store.pointer())
    assert listed["champion"] == 1 and [v["version"] for v in listed["versions"]] == [1, 2]
    assert json.loads(json.dumps(manifest_json(store.read(1)))) == json.loads(to_json(store.read(1)))

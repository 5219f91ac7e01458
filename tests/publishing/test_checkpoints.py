"""Versions on a disk: written aside and renamed; and what operators are shown of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from versions import MODEL, manifest_of, publish

from stream_learner.errors import RetryableError
from stream_learner.publishing import storage
from stream_learner.publishing.checkpoints import Checkpoints, diff, next_version
from stream_learner.publishing.manifest import LearnedRange, to_json
from stream_learner.publishing.rendering import list_json, manifest_json, render_diff, render_list, render_show
from stream_learner.publishing.storage import LocalStorage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / MODEL


@pytest.fixture
def store(folder: Path) -> Checkpoints:
    return Checkpoints(LocalStorage(folder, token=7), MODEL, keep=2)


def test_a_version_is_written_aside_and_named(store: Checkpoints, folder: Path) -> None:
    files = publish(store, 100)
    assert [p.name for p in files.written] == [p.name for p in files.checked] == [".tmp-100-7"]
    assert files.written[0].parent == folder
    assert [p.name for p in folder.iterdir()] == ["100"]


def test_a_version_that_exists_with_equal_content_is_kept(store: Checkpoints, folder: Path) -> None:
    publish(store, 100)
    before = (folder / "100").stat().st_ino
    assert publish(store, 100).written == []
    assert (folder / "100").stat().st_ino == before


def test_a_full_disk_is_retryable_and_leaves_nothing(store: Checkpoints, folder: Path) -> None:
    def full(aside: Path) -> None:
        (aside / "part").write_text("x")
        raise OSError(28, os.strerror(28))

    with pytest.raises(RetryableError, match="free some space"):
        store.publish(5, full, manifest_of(5), lambda _: None)
    assert list(folder.iterdir()) == []
    assert len(publish(store, 5).written) == 1


def test_what_an_attempt_could_not_clean_up_hinders_no_other(store: Checkpoints, folder: Path) -> None:
    (folder / ".tmp-5-7" / "variables").mkdir(parents=True)
    publish(store, 5)
    assert [path.name for path in folder.iterdir()] == ["5"] and store.verify(5) == []


def test_a_version_found_standing_has_a_durable_name(
    store: Checkpoints, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt that gave it its number may have failed at the fsync right after."""
    publish(store, 5)
    flushed: list[Path] = []
    monkeypatch.setattr(storage, "fsync_path", flushed.append)
    assert publish(store, 5).written == []
    assert flushed == [folder]


def test_leftovers_are_cleared_at_the_start_of_a_worker(store: Checkpoints, folder: Path) -> None:
    publish(store, 1)
    (folder / ".tmp-2-6").mkdir()
    (folder / "1").rename(folder / ".replaced-1")
    assert store.recover() == [".tmp-2-6"]
    assert store.verify(1) == []


def test_a_failed_prune_is_told_not_raised(store: Checkpoints, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2, 3):
        publish(store, version)

    def refuse(path: Path, *_: object) -> None:
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        pruned = store.prune()
    assert pruned.removed == [] and "/1" in pruned.failed[1]
    assert [m.version for m in store.versions()] == [2, 3]  # no half-removed integer folder is ever seen
    (folder / "champion.json").write_text("{}")
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
    publish(store, 1)
    publish(
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
    assert list(found["files"]) == ["saved_model.pb", "variables/variables.data-00000-of-00001"]
    assert found["verdict"] == found["libraries"] == found["machine"] == {}
    text = render_diff(store.read(1), store.read(2))
    assert "auc" in text and "0.75  0.8" in text and "normalized_entropy" not in text
    assert render_diff(store.read(1), store.read(1)) == "versions 1 and 1 are equal"


def test_rendering_for_people_and_programs(store: Checkpoints) -> None:
    assert render_list([], None) == "no versions yet"
    for version in (1, 2):
        publish(store, version, parent=1 if version == 2 else None)
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
    first, why, *rules = render_show(manifest_of(9, verdict=verdict)).splitlines()[:4]
    assert first == "version 9, of the slide ending 2024-01-01T00:00:00Z"
    assert why == "passed: proven better than the champion"
    assert [line.split() for line in rules] == [
        ["ok", *["calibration", "calibration", "1.010", "is", "within", "0.8", "to", "1.25"]],
        ["-", *["cool_down", "no", "rollback", "yet"]],
    ]
    listed = list_json(store.versions(), store.pointer())
    assert listed["champion"] == 1 and [v["version"] for v in listed["versions"]] == [1, 2]
    assert json.loads(json.dumps(manifest_json(store.read(1)))) == json.loads(to_json(store.read(1)))


def test_models_are_shown_a_line_each_and_so_are_signatures() -> None:
    models: dict[str, dict[str, Any]] = {
        "candidate": {"auc": 0.75, "n": 40, "ece": None},
        "prior": {"auc": 0.5, "n": 41, "ece": 0.1},
    }
    metrics = {**models["candidate"], "lifetime": models, "windows": {"1h": {"served": {"n": 3}}}}
    sides = {"inputs": {"user": "string", "item": "string"}, "outputs": {"probability": "float32"}}
    shown = render_show(manifest_of(9, metrics=metrics, signature={"serving_default": sides, "odd": 7}))
    lines = [line.split() for line in shown.splitlines()]
    at = lines.index(["metrics", "at", "arrival", "n", "auc", "ece"])
    assert lines[at + 1 : at + 4] == [
        ["lifetime", "candidate", "40", "0.75", "-"],
        ["lifetime", "prior", "41", "0.5", "0.1"],
        ["1h", "served", "3", "-", "-"],
    ]
    assert "metrics." not in shown and ["signature.odd", "7"] in lines
    assert ["signature", "serving_default", "item,", "user", "->", "probability"] in lines

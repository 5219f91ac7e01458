"""Folders that outlive a worker: snapshots, versions with their pointer, operator commands, the lease."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np

from stream_learner import lease, settings
from stream_learner.changes import Changed
from stream_learner.durable import canonical_json
from stream_learner.publishing import operating
from stream_learner.publishing.checkpoints import Checkpoints, diff
from stream_learner.publishing.commands import Commands
from stream_learner.publishing.manifest import LearnedRange, Machine, Manifest
from stream_learner.publishing.rendering import list_json, render_diff, render_list, render_show
from stream_learner.publishing.storage import LocalStorage
from stream_learner.snapshots import Chain, Snapshots

from .cases import Case, Check, refusable, scratch

_SLIDES = (7, 9, 12)  # of the snapshots: whole; merged, so that it shares nothing with the first; linked
_MOVED = np.array([0, 2])
_VERSIONS = (1_704_067_200, 1_704_070_800)
_MODEL = "shop"
_TOKEN = 7
_COMMAND_ID = "00000001-abcdef01"


def _files(folder: Path) -> list[Case]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [Case(str(path.relative_to(folder)), path.read_bytes()) for path in paths]


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return isinstance(right, dict) and list(left) == list(right) and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and left.dtype == right.dtype and left.tobytes() == right.tobytes()
    return type(left) is type(right) and left == right


def _state(slide: int) -> dict[str, Any]:
    rng = np.random.default_rng(slide)
    weights = np.ones((3, 4), np.float32)
    weights[_MOVED] = slide
    table = {"ids": rng.integers(0, 2**64, 5, dtype=np.uint64), "weights": weights}
    return {"learner": {"table": table, "steps": slide}, "tally": {"a": 1, "b": [1.5, None, "x"]}, "when": np.arange(3)}


def _with(state: dict[str, Any], weights: Any) -> dict[str, Any]:
    table = {**state["learner"]["table"], "weights": weights}
    return {**state, "learner": {**state["learner"], "table": table}}


def valid_snapshots() -> list[Case]:
    with scratch() as folder:
        snapshots = Snapshots(folder, keep=2, chain=Chain(max_share=1000.0))
        for slide in _SLIDES:
            state = _state(slide)
            if slide != _SLIDES[0]:
                weights = state["learner"]["table"]["weights"]
                state = _with(state, Changed(_MOVED, weights[_MOVED], len(weights)))
            snapshots.write(slide, state, {"journal": slide, "verdicts": 100, "offsets": {"events/0": 40}})
        files = _files(folder)
        assert any("link-000.bin" in file.place for file in files)
        return files


def mend_snapshot(_: Random, case: Case) -> Case:
    """A manifest in canonical spelling, with the checksum of what it says."""
    try:
        manifest = json.loads(case.content)
        manifest.pop("sha256", None)
        manifest["sha256"] = hashlib.sha256(canonical_json(manifest)).hexdigest()
        return Case(case.place, canonical_json(manifest))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return case


def open_snapshots(folder: Path) -> Check:
    """Damage is always seen: what is read is what was written, or nothing; the older one steps in for the newer."""
    whole = {case.place: case.content for case in valid_snapshots()}
    for place, content in whole.items():
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(content)

    def check(case: Case) -> None:
        (folder / case.place).write_bytes(case.content)
        snapshots = Snapshots(folder, keep=2)
        try:
            with refusable(folder):
                found = snapshots.latest()
                assert found is not None
                mended = case.place.endswith("manifest.json") and case == mend_snapshot(Random(0), case)
                assert mended or _same(found.state, _state(found.slide)), "damaged state was accepted"
                assert all(rejected.reason for rejected in snapshots.rejected)
        finally:
            (folder / case.place).write_bytes(whole[case.place])

    return check


def _manifest(version: int) -> Manifest:
    return Manifest(
        model=_MODEL,
        version=version,
        parent=version - 3600,
        slide=12,
        slide_end_us=version * 1_000_000,
        event_time_span=(1_704_060_000_000_000, 1_704_067_199_999_000),
        offsets=[LearnedRange(topic="events", index=0, first=5, last=99)],
        metrics={"auc": 0.75, "normalized_entropy": 0.9, "champion": {"auc": 0.74}},
        verdict={"passed": True, "rules": [{"name": "finite", "passed": True}]},
        config_hash="cafe",
        seed=3,
        content_sha256=f"{version:064d}",
        signature={"inputs": {"user": "string"}},
        libraries={"numpy": "2.4.0"},
        machine=Machine(cpu_features=["avx2"], threads=2),
    )


def _write_version(folder: Path) -> None:
    (folder / "variables").mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"index")


def valid_versions() -> list[Case]:
    """The files of two versions, the pointer, and the note that leads an operator to them."""
    with scratch() as folder:
        store = Checkpoints(LocalStorage(folder / "checkpoints" / _MODEL), _MODEL, keep=2)
        for version in _VERSIONS:
            store.publish(version, _write_version, _manifest(version), lambda _: None)
        store.point(_VERSIONS[1])
        note = msgspec.json.encode(operating.Whereabouts(_MODEL, "checkpoints"))
        return [*_files(folder), Case("worker.json", note + b"\n")]


def open_versions(folder: Path) -> Check:
    """Whatever stands there, an operator can list, show and compare what is readable."""
    whole = {case.place: case.content for case in valid_versions()}
    for place, content in whole.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    listing = argparse.Namespace(config=None, state=folder, model=None, action="list", json=False)

    def check(case: Case) -> None:
        (folder / case.place).write_bytes(case.content)
        try:
            _look_at(Checkpoints(LocalStorage(folder / "checkpoints" / _MODEL), _MODEL, keep=2), folder)
            with refusable(folder), contextlib.redirect_stdout(io.StringIO()):
                operating.main(listing)
        finally:
            (folder / case.place).write_bytes(whole[case.place])

    return check


def _look_at(store: Checkpoints, folder: Path) -> None:
    scan = store.scan()
    assert {str(manifest.version) for manifest in scan.manifests} | set(scan.broken) == set(map(str, _VERSIONS))
    assert all(str(folder) in reason for reason in scan.broken.values()), scan.broken
    pointer = None
    with refusable(folder):
        pointer = store.pointer()
    json.dumps(list_json(scan.manifests, pointer))
    assert render_list(scan.manifests, pointer)
    for manifest in scan.manifests:
        with refusable(folder):
            store.verify(manifest.version)
        assert render_show(manifest)
    if len(scan.manifests) == 2:
        assert diff(*scan.manifests) and render_diff(*scan.manifests)


def valid_commands() -> list[Case]:
    contents = [{"id": _COMMAND_ID, "name": name, "version": _VERSIONS[0]} for name in ("rollback", "pin", "unpin")]
    return [Case(f"{_COMMAND_ID}.json", json.dumps(content).encode() + b"\n") for content in contents]


def open_commands(folder: Path) -> Check:
    """A file that is no command is set aside, never taken and never in the way."""
    commands = Commands(folder / "inbox")
    (folder / "inbox").mkdir()

    def check(case: Case) -> None:
        path = folder / "inbox" / case.place
        path.write_bytes(case.content)
        taken = commands.pending()
        assert path.exists() == bool(taken)
        assert [command.id for command in taken] in ([], [_COMMAND_ID])
        assert commands.pending() == taken
        path.unlink(missing_ok=True)

    return check


def valid_leases() -> list[Case]:
    """The lease of a process that is gone, one of another host, one released, one of this very process."""
    record = {"token": _TOKEN, "holder": "ab" * 8, "host": "a", "pid": 2**22 + 1, "machine": None, "started": "1"}
    here = {"machine": lease._machine(), "pid": os.getpid(), "started": lease._started(os.getpid())}
    records = (
        record,
        {**record, **here, "pid": 2**22 + 1},
        {**record, "released": True, "counter": 3},
        {**record, **here},
    )
    return [Case(f"lease-{_TOKEN:012d}", json.dumps(one).encode().ljust(511) + b"\n") for one in records]


def open_lease(folder: Path) -> Check:
    """Whatever a lease file holds, it lapses when it does not change, and the next token is higher."""
    terms = settings.Lease()

    def check(case: Case) -> None:
        shutil.rmtree(folder / "leases", ignore_errors=True)
        (folder / "leases").mkdir()
        (folder / "leases" / case.place).write_bytes(case.content)
        now = 100.0
        with lease.Lease(folder / "leases", terms, clock=lambda: now) as mine:
            if not mine.try_claim():
                assert mine.holder()
                now += terms.timeout.seconds
                assert mine.try_claim(), "a lease that does not change never lapses"
            assert mine.token == _TOKEN + 1

    return check

"""Snapshots: exact round trips, and damage to any file falls back to the one before."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_learner.durable import canonical_json
from stream_learner.errors import RetryableError, StateError
from stream_learner.settings import Duration
from stream_learner.snapshots import Snapshots, newest_token


def _state(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "arrays": {
            "floats": rng.standard_normal((3, 4)).astype(np.float32),
            "ids": rng.integers(0, 2**64, 7, dtype=np.uint64),
            "bools": rng.random(9) < 0.5,
            "small": np.arange(5, dtype=np.int8),
            "empty": np.empty((0, 3), np.float64),
            "scalar": np.array(2.5),
            "times": np.array(["2024-01-01", "NaT"], "datetime64[us]"),
            "texts": np.array(["a", "bcd", "é"]),
            "no text": np.array([""], "<U0"),
            "bytes": np.array([b"x", b"yz"]),
            "halves": np.array([0.1, np.nan, np.inf], np.float16),
            "complex": np.array([1 + 2j]),
            "records": np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
            "odd bits": np.array([0x7FF8000000000123], np.uint64).view(np.float64),  # a NaN with a payload
            "negative zero": np.array([-0.0]),
        },
        "": {"nothing": {}, "a/b": None},
        "list": [1, [2.5, None], {"x": np.arange(3)}, "y", True],
        "big": 2**80,
        "negative": -(2**63),
        "pi": math.pi,
        "tiny": 5e-324,
        "nan": math.nan,
        "inf": [math.inf, -math.inf],
        "text": "line\nbreak \ud800 é \0",
        "false": False,
    }


def _assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            _assert_same(left[key], right[key])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            _assert_same(a, b)
    elif isinstance(left, np.ndarray):
        assert (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    elif isinstance(left, float) and math.isnan(left):
        assert math.isnan(right)
    else:
        assert left == right


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    written = Snapshots(tmp_path, keep=2).write(7, _state(), {"config": "abc", "journal": 3})
    snapshot = Snapshots(tmp_path, keep=2).latest()
    assert snapshot is not None
    assert (snapshot.slide, snapshot.head, snapshot.path) == (7, {"config": "abc", "journal": 3}, written.path)
    _assert_same(snapshot.state, _state())
    assert written.size_bytes == sum(p.stat().st_size for p in written.path.iterdir())
    assert sorted(p.name for p in written.path.iterdir()) == ["arrays.bin", "manifest.json", "state.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["slide-000000000007-000000"]


def test_restored_arrays_are_writable_copies(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    state = _state()
    snapshots.write(1, state, {})
    for _ in range(2):
        snapshot = snapshots.latest()
        assert snapshot is not None
        _assert_same(snapshot.state, _state())
        for array in snapshot.state["arrays"].values():
            assert array.flags.writeable and array.flags.aligned and array.flags.c_contiguous
            array[...] = array.flat[0] if array.size else 0
    _assert_same(state, _state())


def test_unusual_leaves_become_plain_ones(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    state = {
        "big endian": np.arange(3, dtype=">i4"),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "strided": np.arange(10)[::3],
        "numpy": [np.int64(3), np.float32(0.1), np.bool_(True)],
        "duration": Duration.parse("5m"),
    }
    snapshots.write(1, state, {})
    snapshot = snapshots.latest()
    assert snapshot is not None
    _assert_same(
        snapshot.state,
        {
            "big endian": np.arange(3, dtype="<i4"),
            "fortran": np.arange(6).reshape(2, 3),
            "strided": np.array([0, 3, 6, 9]),
            "numpy": [3, float(np.float32(0.1)), True],
            "duration": 300_000_000,
        },
    )


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"a": {"b": (1, 2)}}, "a/b: a tuple"),
        ({"a": [{"b": {1}}]}, "a/0/b: a set"),
        ({"a": {1: 2}}, "a: keys"),
        ({"__array__": 1}, "/: keys"),
        ({"a": np.array([None])}, "a: arrays of dtype object"),
        ({"a": b"x"}, "a: a bytes"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_place(tmp_path: Path, state: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        Snapshots(tmp_path, keep=2).write(1, state, {})
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_refused_rather_than_mangled(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(TypeError, match="bfloat16"):
        Snapshots(tmp_path, keep=2).write(1, {"a": np.zeros(2, ml_dtypes.bfloat16)}, {})


def test_equal_states_give_equal_bytes_and_arrays_are_aligned(tmp_path: Path) -> None:
    infos = [Snapshots(tmp_path / name, keep=2).write(1, _state(), {"h": 1}) for name in "ab"]
    for name in ("arrays.bin", "state.json", "manifest.json"):
        assert (infos[0].path / name).read_bytes() == (infos[1].path / name).read_bytes()
    manifest = json.loads((infos[0].path / "manifest.json").read_bytes())
    assert all(offset % 64 == 0 for array in manifest["arrays"] for _, offset, _, _ in array["pieces"])
    assert manifest["arrays"][0]["name"] == "arrays/floats"


def test_the_newest_wins_and_the_same_slide_is_replaced(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    assert snapshots.latest() is None
    for slide, value in ((2, 0), (10, 1), (9, 2), (10, 3)):
        snapshots.write(slide, {"value": value}, {})
    snapshot = snapshots.latest()
    assert snapshot is not None
    assert (snapshot.slide, snapshot.state) == (10, {"value": 3})
    assert snapshots.rejected == []
    assert len(list(tmp_path.iterdir())) == 3


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("name", ["arrays.bin", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", [_cut, _empty, _grow, Path.unlink])
def test_a_damaged_file_falls_back_to_the_one_before(tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    for slide in (1, 2, 3):
        snapshots.write(slide, _state(slide), {})
    harm(tmp_path / "slide-000000000003-000000" / name)
    snapshot = snapshots.latest()
    assert snapshot is not None and snapshot.slide == 2
    _assert_same(snapshot.state, _state(2))
    [rejected] = snapshots.rejected
    assert rejected.path.name == "slide-000000000003-000000" and name in rejected.reason


@pytest.mark.parametrize("name", ["arrays.bin", "state.json", "manifest.json"])
def test_every_flipped_bit_is_seen(tmp_path: Path, name: str) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    snapshots.write(1, {"value": 1}, {})
    snapshots.write(2, {"a": np.arange(40), "b": [1.5, "x"]}, {"format": 1})
    path = tmp_path / "slide-000000000002-000000" / name
    content = path.read_bytes()
    for at in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        path.write_bytes(flipped)
        snapshot = snapshots.latest()
        assert snapshot is not None and snapshot.slide == 1, f"byte {at}"
    path.write_bytes(content)
    snapshot = snapshots.latest()
    assert snapshot is not None and snapshot.slide == 2


def test_all_damaged_is_no_fresh_start(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    snapshots.write(1, {"value": 1}, {})
    _cut(tmp_path / "slide-000000000001-000000" / "state.json")
    with pytest.raises(StateError, match=r"no snapshot in .* is whole"):
        snapshots.latest()


def test_another_format_is_refused_with_a_remedy(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    path = snapshots.write(1, {"value": 1}, {}).path / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["format"] = 99
    del manifest["sha256"]
    manifest["sha256"] = hashlib.sha256(canonical_json(manifest)).hexdigest()
    path.write_bytes(canonical_json(manifest))
    with pytest.raises(StateError, match="snapshot format 99, this release reads 2: run the release"):
        snapshots.latest()


KILLED_WRITER = """
import os, sys
from pathlib import Path
import numpy as np
from stream_learner import durable, snapshots
left = int(sys.argv[2])
def dying(call):
    def step(*args, **kwargs):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return call(*args, **kwargs)
    return step
store = snapshots.Snapshots(Path(sys.argv[1]), keep=2)
os.fsync, Path.rename, os.open, Path.mkdir = dying(os.fsync), dying(Path.rename), dying(os.open), dying(Path.mkdir)
store.write(2, {"value": "new", "array": np.arange(100)}, {})
"""


def test_killed_at_any_step_the_older_or_the_newer_one_is_whole(tmp_path: Path) -> None:
    """A child writes over slide 2 and dies at its n-th system call, for every n: either content, never a mixture."""
    seen, steps = [], 0
    while True:
        folder = tmp_path / str(steps)
        store = Snapshots(folder, keep=2)
        store.write(1, {"value": "first"}, {})
        store.write(2, {"value": "old"}, {})
        child = subprocess.run(
            [sys.executable, "-c", KILLED_WRITER, str(folder), str(steps)], cwd=Path(__file__).parent.parent
        )
        after = Snapshots(folder, keep=2)
        snapshot = after.latest()
        assert snapshot is not None and snapshot.slide == 2 and after.rejected == []
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]
        seen.append(snapshot.state["value"])
        if child.returncode == 0:
            break
        assert child.returncode == 9
        steps += 1
    assert steps >= 8
    assert sorted(seen, reverse=True) == seen and set(seen) == {"old", "new"}


def test_prune_keeps_the_newest_whole_ones(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    for slide in range(1, 6):
        snapshots.write(slide, {"value": slide}, {})
    for slide in (4, 5):
        _cut(tmp_path / f"slide-{slide:012d}-000000" / "state.json")
    snapshot = snapshots.latest()
    assert snapshot is not None and snapshot.slide == 3
    assert snapshots.prune() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slide-000000000002-000000", "slide-000000000003-000000"]
    assert snapshots.rejected == []


def test_a_rejected_slide_written_again_counts_as_whole(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    for slide in (1, 2, 3):
        snapshots.write(slide, {"value": slide}, {})
    _cut(tmp_path / "slide-000000000003-000000" / "state.json")
    assert snapshots.latest() is not None
    snapshots.write(3, {"value": 3}, {})
    assert snapshots.prune() == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slide-000000000002-000000", "slide-000000000003-000000"]


def test_what_an_attempt_could_not_clean_up_hinders_no_other(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    (tmp_path / ".tmp-slide-000000000001-000000" / "half").mkdir(parents=True)
    snapshots.write(1, {"value": 1}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["slide-000000000001-000000"]


def test_a_failed_prune_is_told_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    for slide in (1, 2, 3):
        snapshots.write(slide, {"value": slide}, {})

    def refuse(path: Path, *_: object) -> None:
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        [failure] = snapshots.prune()
    assert "slide-000000000001-000000" in failure
    snapshot = Snapshots(tmp_path, keep=2).latest()
    assert snapshot is not None and snapshot.slide == 3
    assert len(list(tmp_path.iterdir())) == 2


# ---- tokens ----------------------------------------------------------------------------------------------------------


def test_the_newest_has_the_highest_token_then_the_highest_slide(tmp_path: Path) -> None:
    assert newest_token(tmp_path / "none") == newest_token(tmp_path) == 0
    for token, slide in ((3, 10), (3, 12), (4, 9), (3, 14)):
        Snapshots(tmp_path, keep=2, token=token).write(slide, {"at": [token, slide]}, {})
    (tmp_path / "slide-99").mkdir()  # not a name of ours
    snapshots = Snapshots(tmp_path, keep=2, token=5)
    snapshot = snapshots.latest()
    assert snapshot is not None and snapshot.state == {"at": [4, 9]} and snapshot.slide == 9
    assert newest_token(tmp_path) == 4
    assert snapshots.prune() == []
    names = ["slide-000000000009-000004", "slide-000000000014-000003", "slide-99"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_a_renamed_snapshot_is_not_taken_for_the_newest(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2, token=1)
    for slide in (1, 2):
        snapshots.write(slide, {}, {})
    (tmp_path / "slide-000000000001-000001").rename(tmp_path / "slide-000000000001-000009")
    snapshot = snapshots.latest()
    assert snapshot is not None and snapshot.slide == 2
    assert "is of another snapshot" in snapshots.rejected[0].reason


def test_an_earlier_writer_that_was_stopped_before_its_rename_writes_nothing(tmp_path: Path) -> None:
    """The newcomer opens the folder between the fence and the rename."""
    newcomers: list[Snapshots] = []

    def stopped_here() -> None:
        if (tmp_path / ".tmp-slide-000000000002-000001").exists():
            newcomers.append(Snapshots(tmp_path, keep=2, token=2))

    earlier = Snapshots(tmp_path, keep=2, token=1, fence=stopped_here)
    earlier.write(1, {}, {})
    with pytest.raises(RetryableError):
        earlier.write(2, {}, {})
    snapshot = newcomers[0].latest()
    assert snapshot is not None and snapshot.slide == 1
    assert [p.name for p in tmp_path.iterdir()] == ["slide-000000000001-000001"]


def test_a_lost_lease_stops_writing_and_pruning(tmp_path: Path) -> None:
    for slide in (1, 2, 3):
        Snapshots(tmp_path, keep=2).write(slide, {}, {})
    lost: list[str] = []

    def fence() -> None:
        if lost:
            raise StateError("lost")

    snapshots = Snapshots(tmp_path, keep=2, fence=fence)
    lost.append("lost")
    with pytest.raises(StateError, match="lost"):
        snapshots.write(4, {}, {})
    with pytest.raises(StateError, match="lost"):
        snapshots.prune()
    assert len(list(tmp_path.iterdir())) == 3

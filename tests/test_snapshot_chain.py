"""Snapshots that build on earlier ones: any sequence of changes, merges, prunes, takeovers and damage gives back a
state that was captured, the newest that can be had."""

from __future__ import annotations

import copy
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_learner.changes import Changed, RowSet, differing
from stream_learner.errors import RetryableError, StateError
from stream_learner.snapshot_files import NotWholeError
from stream_learner.snapshots import Chain, Snapshots, _read

Rng = np.random.Generator


class Part:
    """A table with a slot, and a buffer that grows: changed at random, captured as the worker's parts are."""

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self.arrays = {"table": rng.random((60, 3), np.float32), "slot": np.zeros((60, 3), np.float32)}
        self.buffer = np.zeros((0, 2), np.int64)
        self._moved, self._written = RowSet(), RowSet()

    def change(self) -> None:
        rows = np.unique(self._rng.integers(0, 60, int(self._rng.integers(0, 12))))
        for array in self.arrays.values():
            array[rows] = self._rng.random((len(rows), 3), np.float32)
        self._moved.add(rows)
        grown = np.concatenate([self.buffer, self._rng.integers(0, 9, (int(self._rng.integers(0, 4)), 2))])
        replaced = np.unique(self._rng.integers(0, max(len(self.buffer), 1), 2))[: len(self.buffer)]
        grown[replaced] = self._rng.integers(0, 9, (len(replaced), 2))
        self._written.add(np.union1d(replaced, np.arange(len(self.buffer), len(grown))))
        self.buffer = grown

    def capture(self) -> dict[str, Any]:
        self._moved.take(), self._written.take()
        return copy.deepcopy({**self.arrays, "buffer": self.buffer, "height": len(self.buffer)})

    def changes(self) -> dict[str, Any]:
        moved, written = self._moved.take(), self._written.take()
        told: dict[str, Any] = {name: Changed(moved, array[moved], 60) for name, array in self.arrays.items()}
        return {
            **told,
            "buffer": Changed(written, self.buffer[written], len(self.buffer)),
            "height": len(self.buffer),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._moved, self._written = RowSet(), RowSet()
        self.arrays = {name: state[name] for name in ("table", "slot")}
        self.buffer = state["buffer"]


def _same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    arrays = (np.array_equal(left[name], right[name]) for name in ("table", "slot", "buffer"))
    return all(arrays) and left["height"] == right["height"]


def _harm(path: Path, rng: Rng) -> None:
    content = bytearray(path.read_bytes())
    way = rng.integers(3)
    if way == 0:
        path.unlink()
    elif way == 1 or not content:
        path.write_bytes(content[:-1] if content else b"x")
    else:
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _spared(file: Path, folders: list[Path]) -> bool:
    """Whether a snapshot does not have the file."""
    inode = file.stat().st_ino
    return any(all(other.stat().st_ino != inode for other in folder.iterdir()) for folder in folders)


class Life:
    """What a worker does with its snapshots, beside the states that it captured."""

    def __init__(self, folder: Path, seed: int, chain: Chain) -> None:
        self.folder, self._chain = folder, chain
        self.rng = np.random.default_rng(seed)
        self.part = Part(self.rng)
        self.captured: dict[str, dict[str, Any]] = {}  # by name of the snapshot
        self._token, self._slide, self._known_whole = 0, 0, False
        self.start()

    def start(self) -> None:
        """Another worker takes over from what stands."""
        self._token += 1
        self.snapshots = Snapshots(self.folder, keep=2, chain=self._chain, token=self._token)
        found = self.snapshots.latest()
        self._known_whole = found is not None
        if found is not None:
            assert _same(found.state, self.captured[found.path.name])
            self._slide = found.slide
            self.part.restore(found.state)
            assert self.snapshots.prune() == []

    def snapshot(self, slides: int | None = None) -> None:
        """So many slides later; unless told, now and then none."""
        self._slide += int(self.rng.integers(0, 2)) if slides is None else slides
        state = self.part.changes() if self._known_whole else self.part.capture()
        self._known_whole = True
        info = self.snapshots.write(self._slide, state, {})
        assert info.increments == _links(info.path) <= self._chain.max_increments
        self.captured[info.path.name] = copy.deepcopy(
            {**self.part.arrays, "buffer": self.part.buffer, "height": len(self.part.buffer)}
        )

    def damage(self) -> None:
        """One file of one snapshot; those that share it are damaged too, unless it loses only a name. What was damaged
        before, and not come upon, is out of the way: two damaged files may well be too many."""
        for path in sorted(self.folder.glob("slide-*")):
            try:
                _read(path)
            except NotWholeError:
                shutil.rmtree(path)
        standing = sorted(self.folder.glob("slide-*"))
        files = [file for path in standing for file in sorted(path.iterdir()) if _spared(file, standing)]
        if files:
            _harm(files[int(self.rng.integers(len(files)))], self.rng)
        self.start()


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**32),
    actions=st.lists(st.sampled_from(["change", "snapshot", "snapshot", "prune", "start", "damage"]), max_size=40),
    chain=st.sampled_from([Chain(), Chain(0), Chain(1, 1e9), Chain(3, 1e9), Chain(1000, 1e9)]),
)
def test_what_is_restored_was_captured(
    tmp_path_factory: pytest.TempPathFactory, seed: int, actions: list[str], chain: Chain
) -> None:
    """One damaged file never leaves nothing; `Life.start` compares what comes back."""
    folder = tmp_path_factory.mktemp("chain")
    life = Life(folder, seed, chain)
    for action in actions:
        {
            "change": life.part.change,
            "snapshot": life.snapshot,
            "prune": life.snapshots.prune,
            "start": life.start,
            "damage": life.damage,
        }[action]()
    life.start()
    shutil.rmtree(folder)


def _life(folder: Path, chain: Chain, snapshots: int) -> Life:
    life = Life(folder, 0, chain)
    for _ in range(snapshots):
        life.part.change()
        life.snapshot(1)
    return life


def _links(path: Path) -> int:
    return len(list(path.glob("link-*.bin")))


def test_a_chain_is_bounded_and_the_second_snapshot_stands_alone(tmp_path: Path) -> None:
    _life(tmp_path, Chain(4, 1e9), 13)
    chains = [_links(path) for path in sorted(tmp_path.glob("slide-*"))]
    assert chains == [0, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_a_chain_is_merged_when_its_changes_outweigh_what_they_build_on(tmp_path: Path) -> None:
    life = _life(tmp_path, Chain(1000, 0.5), 30)
    for path in sorted(tmp_path.glob("slide-*"))[1:]:
        first, *links = sorted(path.glob("link-*.bin")) or [path / "rows.bin"]
        padding = 64 * 6 * len(links)
        assert sum(link.stat().st_size for link in links) <= 0.5 * first.stat().st_size + padding
    chains = [_links(path) for path in sorted(tmp_path.glob("slide-*"))]
    assert max(chains) > 1 and chains.count(0) > 3 and len(life.captured) == 30


def test_a_broken_link_spares_what_does_not_need_it(tmp_path: Path) -> None:
    life = _life(tmp_path, Chain(1000, 1e9), 6)
    standing = sorted(tmp_path.glob("slide-*"))
    _flip(standing[3] / "rows.bin")  # what 5 and 6 build on
    found = life.snapshots.latest()
    assert found is not None and found.slide == 3 and _same(found.state, life.captured[found.path.name])
    assert [rejected.path for rejected in life.snapshots.rejected] == standing[:2:-1]
    assert "link-002.bin" in life.snapshots.rejected[0].reason


def test_prune_keeps_one_that_shares_nothing_with_the_newest(tmp_path: Path) -> None:
    life = _life(tmp_path, Chain(1000, 1e9), 7)
    assert life.snapshots.prune() == []
    assert [int(path.name.split("-")[1]) for path in sorted(tmp_path.glob("slide-*"))] == [1, 6, 7]
    base = sorted(tmp_path.glob("slide-*"))[-1] / "link-000.bin"
    _flip(base)
    found = life.snapshots.latest()
    assert found is not None and found.slide == 1


def test_a_merge_never_spreads_damage(tmp_path: Path) -> None:
    life = _life(tmp_path, Chain(2, 1e9), 4)
    _flip(sorted(tmp_path.glob("slide-*"))[-1] / "link-000.bin")
    with pytest.raises(StateError, match=r"was damaged while it was in use \(link-000.bin"):
        life.part.change()
        life.snapshot(1)
    life.start()
    assert life._slide == 1


def test_changes_after_a_takeover_build_on_the_earlier_holders_files(tmp_path: Path) -> None:
    """The earlier holder, waking, may write and remove what it likes under its own token."""
    earlier = _life(tmp_path, Chain(1000, 1e9), 4)
    later = Life.__new__(Life)
    later.__dict__.update({**earlier.__dict__, "part": Part(earlier.rng), "captured": dict(earlier.captured)})
    later.start()
    for _ in range(3):
        later.part.change()
        later.snapshot(1)
        earlier.part.change()
        earlier.snapshot(5)
    for path in tmp_path.glob("*-000001"):
        shutil.rmtree(path)
    later.start()
    assert later._slide == 7


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_without_hard_links_there_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    life = _life(tmp_path, Chain(1000, 1e9), 5)
    assert _links(sorted(tmp_path.glob("slide-*"))[-1]) == 3
    life.start()
    assert life._slide == 5


def test_a_rename_that_was_not_flushed_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a snapshot that takes the place of one of the same slide, whose files it builds on."""
    life = _life(tmp_path, Chain(1000, 1e9), 5)
    life.part.change()
    state, fsync = life.part.changes(), os.fsync
    failures = [OSError(errno.EIO, os.strerror(errno.EIO))]

    def failing(descriptor: int) -> None:
        if failures and not list(tmp_path.glob(".tmp-*")) and list(tmp_path.glob(".replaced-*")):
            raise failures.pop()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(RetryableError):
        life.snapshots.write(life._slide, state, {})
    life.snapshots.write(life._slide, state, {})
    found = life.snapshots.latest()
    expected = {**life.part.arrays, "buffer": life.part.buffer, "height": len(life.part.buffer)}
    assert not failures and found is not None and found.slide == life._slide and _same(found.state, expected)


def test_changes_with_nothing_before_them_are_refused(tmp_path: Path) -> None:
    changed = Changed(np.array([0]), np.zeros((1, 2)), 5)
    with pytest.raises(ValueError, match="what changed of a was captured, but nothing stands before it"):
        Snapshots(tmp_path, keep=2).write(1, {"a": changed}, {})
    assert list(tmp_path.iterdir()) == []


# ---- sets of rows ----------------------------------------------------------------------------------------------------


@settings(derandomize=True, max_examples=100, deadline=None, database=None)
@given(st.lists(st.sets(st.integers(0, 5000)) | st.sampled_from(["take", "pack"]), max_size=20))
def test_a_set_of_rows_is_a_set(steps: list[set[int] | str]) -> None:
    held, oracle = RowSet(), set[int]()
    for step in steps:
        if isinstance(step, set):
            held.add(np.array(sorted(step), np.int64))
            oracle |= step
        elif step == "take":
            assert held.take().tolist() == sorted(oracle)
            oracle = set()
        else:
            held = RowSet.unpacked(held.packed())
        assert len(held) == len(oracle) and held.rows().tolist() == sorted(oracle)


def test_rows_differ_by_their_bits() -> None:
    one = np.array([[0.0, 1.0], [np.nan, 2.0], [3.0, 4.0]], np.float32)
    other = np.array([[-0.0, 1.0], [np.nan, 2.0], [3.0, 5.0]], np.float32)
    assert differing(one, other).tolist() == [0, 2]

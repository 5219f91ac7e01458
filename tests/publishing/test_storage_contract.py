"""What holds wherever versions lie: on a disk, in memory behind fsspec, on a real S3-speaking server."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from s3_server import S3Server
from versions import MODEL, S3, Disk, Files, Memory, Place, manifest_of, publish

from stream_learner.durable import Fence
from stream_learner.errors import ConfigError, RetryableError, StateError
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.manifest import Pointer, manifest_from

PLACES = ("disk", "memory", "s3")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, server: S3Server) -> Place:
    server.whole()
    kinds: dict[str, Callable[[], Place]] = {
        "disk": lambda: Disk(tmp_path),
        "memory": lambda: Memory(tmp_path),
        "s3": lambda: S3(tmp_path, server),
    }
    return kinds[request.param]()


@pytest.fixture
def store(place: Place) -> Checkpoints:
    return opened(place)


def opened(place: Place, *, token: int = 7, fence: Fence = lambda: None) -> Checkpoints:
    return Checkpoints(place.storage(token=token, fence=fence), MODEL, keep=2)


def names_of(version: int) -> set[str]:
    return {f"{version}/{name}" for name in (*Files.NAMES, "manifest.json")}


# ---- publishing ------------------------------------------------------------------------------------------------------


def test_a_version_is_checked_before_anybody_can_see_it(place: Place, store: Checkpoints) -> None:
    files = Files("graph 100")

    def check(folder: Path) -> None:
        files.check(folder)
        assert place.names() & names_of(100) == set()

    store.publish(100, files.write, manifest_of(100), check)
    assert len(files.written) == len(files.checked) == 1
    assert not files.written[0].exists()
    assert place.names() == names_of(100)
    manifest = store.read(100)
    assert manifest.files["variables/variables.index"].size == 5
    assert msgspec.structs.replace(manifest, files={}) == manifest_of(100)
    assert store.verify(100) == []


def test_the_bytes_are_the_same_in_every_place(tmp_path: Path, server: S3Server) -> None:
    places = [Disk(tmp_path / "a"), Memory(tmp_path / "b"), S3(tmp_path / "c", server)]
    for place in places:
        publish(opened(place), 5)
        opened(place).point(5)
    first, *others = [{name: place.read(name) for name in place.names()} for place in places]
    assert set(first) == names_of(5) | {"champion.json"}
    assert all(other == first for other in others)


def test_a_version_with_equal_content_is_kept(place: Place, store: Checkpoints) -> None:
    publish(store, 100)
    assert publish(store, 100).written == []
    assert publish(opened(place, token=8), 100).written == []


def test_a_version_with_other_content_stops_the_worker(place: Place, store: Checkpoints) -> None:
    publish(store, 100)
    before = {name: place.read(name) for name in place.names()}
    with pytest.raises(StateError, match="exists with other content"):
        publish(store, 100, content="bb")
    assert {name: place.read(name) for name in place.names()} == before


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone", "extra"])
def test_a_torn_version_is_found_out_and_written_again(place: Place, store: Checkpoints, harm: str) -> None:
    publish(store, 100)
    name, wanted = "100/variables/variables.data-00000-of-00001", place.read("100/saved_model.pb") * 1000
    damaged = {"flipped": b"G" + wanted[1:], "cut": wanted[:-1]}
    if harm in damaged:
        place.put(name, damaged[harm])
    elif harm == "gone":
        place.delete(name)
    else:
        place.put("100/stray", b"x")
    [problem] = store.verify(100)
    told = {"flipped": "does not match", "cut": "does not match", "gone": "is missing", "extra": "not in the manifest"}
    assert told[harm] in problem
    if harm != "extra":
        with pytest.raises(StateError, match="is damaged"), store.files(100):
            pass
    assert len(publish(store, 100).written) == 1
    assert store.verify(100) == []
    assert place.names() == names_of(100)


def test_what_is_nobodys_is_neither_taken_for_a_version_nor_overwritten(place: Place, store: Checkpoints) -> None:
    publish(store, 90)
    place.put("100/saved_model.pb", b"of somebody else")
    for found in (store, opened(place, token=8)):
        found.recover()
        assert [m.version for m in found.versions()] == [90]
        assert "missing or damaged" in found.scan().broken["100"]
        with pytest.raises(StateError, match="missing or damaged"):
            publish(found, 100)
    assert place.read("100/saved_model.pb") == b"of somebody else"
    assert place.names() == names_of(90) | {"100/saved_model.pb"}


@pytest.mark.parametrize("step", ["write", "check"])
def test_a_failed_attempt_leaves_nothing(place: Place, store: Checkpoints, step: str) -> None:
    files = Files()

    def refuse(folder: Path) -> None:
        files.write(folder) if step == "write" else None
        raise StateError("scores differ")

    steps = {"write": files.write, "check": files.check} | {step: refuse}
    with pytest.raises(StateError, match="scores differ"):
        store.publish(5, steps["write"], manifest_of(5), steps["check"])
    assert place.names() == set()


class Killed(StateError):
    """Stands for the kill: nothing catches it, nothing is cleaned up."""


def dying(after: int) -> Fence:
    left = itertools.count(after, -1)

    def fence() -> None:
        if next(left) <= 0:
            raise Killed

    return fence


def test_killed_at_every_step_of_an_upload_it_comes_to_the_same_version(place: Place) -> None:
    """At each proof of the fence: before every name that is given or taken away, that is."""
    opened(place).recover()
    kills = 0
    for kills in itertools.count():
        try:
            publish(opened(place, fence=dying(kills)), 100)
            break
        except Killed:
            seen = [m.version for m in opened(place).versions()]
            assert seen == [] or opened(place).verify(100) == [], "a part was taken for a version"
        again = opened(place, token=8)
        again.recover()
        assert place.names() <= names_of(100) - ({"100/manifest.json"} if not seen else set())
        publish(again, 100)
        assert again.verify(100) == [] and place.names() == names_of(100)
        place.storage().remove(100)
        assert place.names() == set()
    assert kills >= 1 if isinstance(place, Disk) else kills >= 6
    assert place.names() == names_of(100)


def test_what_a_killed_upload_left_goes_even_if_another_version_follows(place: Place) -> None:
    for kills in itertools.count():
        try:
            publish(opened(place, fence=dying(kills)), 100 + kills)
            break
        except Killed:
            pass
    again = opened(place, token=8)
    again.recover()
    publish(again, 500)
    whole = [m.version for m in again.versions()]
    assert whole[-1] == 500 and place.names() == set().union(*map(names_of, whole))


def test_killed_while_pruning_nothing_half_is_left(place: Place) -> None:
    for kills in itertools.count():
        publish(opened(place), 100)
        try:
            place.storage(fence=dying(kills)).remove(100)
            break
        except Killed:
            again = opened(place, token=8)
            again.recover()
            assert place.names() in (set(), names_of(100))
    assert place.names() == set()


# ---- fencing ---------------------------------------------------------------------------------------------------------


def test_a_worker_that_lost_its_lease_changes_nothing_more(place: Place, store: Checkpoints) -> None:
    publish(store, 90)
    store.point(90)
    before = {name: place.read(name) for name in place.names()}

    def lost() -> None:
        raise StateError("the lease was taken")

    zombie = opened(place, token=6, fence=lost)
    for act in (
        lambda: publish(zombie, 95),
        lambda: place.storage(fence=lost).remove(90),
        lambda: place.storage(fence=lost).replace("champion.json", before["champion.json"], b"{}"),
    ):
        with pytest.raises(StateError, match="the lease was taken"):
            act()
    assert {name: place.read(name) for name in place.names()} == before


# ---- the pointer -----------------------------------------------------------------------------------------------------


def test_the_pointer_moves_forward_only(place: Place, store: Checkpoints) -> None:
    assert store.pointer() is None
    for version in (10, 20):
        publish(store, version)
        assert store.point(version)
    assert json.loads(place.read("champion.json")) == {"version": 20, "content_sha256": "aa" * 32}
    assert not store.point(10)
    assert not store.point(20)
    assert store.pointer() == Pointer(version=20, content_sha256="aa" * 32)
    with pytest.raises(StateError):
        store.point(30)
    place.put("champion.json", b"{}")
    with pytest.raises(StateError, match=r"champion\.json is damaged"):
        store.pointer()


def test_a_pointer_that_was_moved_meanwhile_is_read_again(place: Place) -> None:
    if isinstance(place, Disk):
        pytest.skip("on a disk the fence keeps a second writer out")
    storage = place.storage()
    storage.replace("champion.json", None, b"one")
    for old in (None, b"two"):
        with pytest.raises(RetryableError, match="changed by another writer"):
            storage.replace("champion.json", old, b"three")
    storage.replace("champion.json", b"one", b"two")
    assert place.read("champion.json") == b"two"


# ---- reading and pruning ---------------------------------------------------------------------------------------------


def test_versions_are_ascending_and_what_is_none_is_reported(place: Place, store: Checkpoints) -> None:
    assert store.versions() == []
    for version in (100, 9, 20):
        publish(store, version)
    for name in ("notes", "007", ".tmp-5-1", "30"):
        place.put(f"{name}/some", b"thing")
    place.put("40/manifest.json", place.read("9/manifest.json"))
    scan = store.scan()
    assert [m.version for m in scan.manifests] == [9, 20, 100]
    assert list(scan.broken) == ["30", "40"]
    assert f"is of {MODEL} version 9" in scan.broken["40"]
    assert store.require(20).version == 20
    with pytest.raises(ConfigError, match=r"no version 21 .* versions: 9, 20, 100"):
        store.require(21)


def test_a_rollback_reads_the_files_of_an_older_version(store: Checkpoints) -> None:
    publish(store, 10)
    with store.files(10) as folder:
        held = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    held.pop("manifest.json", None)
    assert set(held) == set(Files.NAMES) and held["saved_model.pb"] == b"graph 10"


def test_a_manifest_cannot_lead_out_of_its_version(place: Place, store: Checkpoints, tmp_path: Path) -> None:
    publish(store, 10)
    manifest = place.read("10/manifest.json").replace(b'"saved_model.pb"', b'"../../escaped"')
    assert set(manifest_from(manifest).files) != set(Files.NAMES)
    place.put("10/manifest.json", manifest)
    with pytest.raises(StateError), store.files(10):
        pass
    assert not list(tmp_path.rglob("escaped"))


def test_prune_keeps_champion_parent_pins_and_the_newest_others(place: Place, store: Checkpoints) -> None:
    for version in range(1, 9):
        publish(store, version, parent=2 if version == 3 else None)
    store.point(3)
    pruned = store.prune(protect={1})
    assert (pruned.removed, pruned.failed) == ([4, 5, 6], {})
    assert [m.version for m in store.versions()] == [1, 2, 3, 7, 8]
    assert place.names() == set().union({"champion.json"}, *(names_of(v) for v in (1, 2, 3, 7, 8)))
    assert store.prune(protect={1}).removed == []
    place.put("champion.json", b"{}")
    assert "damaged" in store.prune().failed[0]


def test_starting_clears_up_and_leaves_what_counts(
    place: Place, store: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    store.recover()
    publish(store, 1)
    with caplog.at_level(logging.WARNING):
        assert opened(place, token=9).recover() == []
    assert caplog.text == ""
    assert place.names() == names_of(1)

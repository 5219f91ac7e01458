"""Object stores at their worst: failing, slow, torn, refusing; and what a reader without manifests sees meanwhile."""

from __future__ import annotations

import logging
import re
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import Look, S3Server
from versions import MODEL, S3, Files, manifest_of, publish

from stream_learner.errors import ConfigError, StateError, UnavailableError
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.objects import Objects
from stream_learner.publishing.opening import open_storage
from stream_learner.publishing.storage import file_sum
from stream_learner.settings import Duration, Secret

DATA = "variables/variables.data-00000-of-00001"


@pytest.fixture(scope="module")
def module_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def server(module_server: S3Server) -> Iterator[S3Server]:
    module_server.whole()
    yield module_server
    module_server.whole()


def opened(place: S3, **options: Any) -> Checkpoints:
    return Checkpoints(place.storage(**options), MODEL, keep=2)


def answering(error: int | None, times: int, methods: str = "PUT", seen: Callable[[str], Any] = str) -> Look:
    """Answers the first `times` requests of these methods with an error."""
    left = [times]

    def look(method: str, path: str, environ: dict[str, Any]) -> int | None:
        if method not in methods.split() or left[0] <= 0:
            return None
        left[0] -= 1
        seen(path)
        return error

    return look


# ---- the order -------------------------------------------------------------------------------------------------------


def test_the_graph_comes_after_the_variables_and_the_manifest_last(tmp_path: Path, server: S3Server) -> None:
    """With each object that appears, a reader that lists sees either no graph or everything that the graph needs."""
    place, appeared = S3(tmp_path, server), []

    def look(method: str, path: str, environ: dict[str, Any]) -> None:
        if method == "PUT" and "/100/" in path:
            appeared.append(path.partition("/100/")[2])
            names = place.names()
            assert "100/saved_model.pb" not in names or f"100/{DATA}" in names

    server.after = look
    publish(opened(place), 100)
    assert appeared == [DATA, "variables/variables.index", "saved_model.pb", "manifest.json"]


def test_what_may_be_in_service_already_is_not_taken_away_again(tmp_path: Path, server: S3Server) -> None:
    """Killed with the manifest alone missing: nothing is deleted or put twice, it is found equal and completed."""
    place = S3(tmp_path, server)

    def die(method: str, path: str, environ: dict[str, Any]) -> int | None:
        return 403 if method == "PUT" and path.endswith("manifest.json") else None

    server.before = die
    with pytest.raises(ConfigError):
        publish(opened(place), 100)
    requests = []
    server.before = lambda method, path, environ: requests.append((method, path))  # type: ignore[func-returns-value]
    again = opened(place, token=8)
    assert again.recover() == []
    publish(again, 100)
    changed = [path.partition("/100/")[2] for method, path in requests if method in ("DELETE", "POST")]
    assert [name for name in changed if name] == []
    assert again.verify(100) == []


# ---- what may pass ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [500, 503])
def test_a_store_that_fails_for_a_while_is_waited_for(
    tmp_path: Path, server: S3Server, error: int, caplog: pytest.LogCaptureFixture
) -> None:
    place = S3(tmp_path, server)
    store = opened(place)
    server.before = answering(error, 7, "PUT GET")
    with caplog.at_level(logging.WARNING):
        files = publish(store, 100)
    assert len(files.written) == 1, "made again for nothing"
    assert "the store or the way to it is failing" in caplog.text
    server.before = answering(error, 7, "PUT GET HEAD")
    assert store.point(100)
    assert store.verify(100) == [] and opened(place).pointer() == store.pointer()


@pytest.mark.parametrize("error", [500, 503])
def test_an_answer_that_is_lost_does_no_harm(tmp_path: Path, server: S3Server, error: int) -> None:
    """What was put is there, but the worker is told that it is not: it finds its own object and goes on."""
    place = S3(tmp_path, server)
    server.after = answering(error, 4)
    publish(opened(place), 100)
    assert opened(place).verify(100) == []


def test_a_store_that_hangs_is_given_up_on_and_asked_again(tmp_path: Path, server: S3Server) -> None:
    place = S3(tmp_path, server, config_kwargs={"read_timeout": 1})
    released = threading.Event()
    server.before = answering(503, 1, seen=lambda _: released.wait(60))
    try:
        publish(opened(place), 100)
    finally:
        released.set()
    assert opened(place).verify(100) == []


def test_a_store_that_stays_away_stops_the_worker_and_the_upload_goes_on_later(
    tmp_path: Path, server: S3Server
) -> None:
    place = S3(tmp_path, server)
    server.before = answering(503, 10_000)
    with pytest.raises(UnavailableError, match=r"checkpoints: still failing after 1s: cannot write s3://bucket-\d+/"):
        publish(opened(place, patience="1s"), 100)
    server.whole()
    again = opened(place, token=8)
    again.recover()
    publish(again, 100)
    assert again.verify(100) == []


def test_an_object_that_arrives_torn_is_put_again(tmp_path: Path, server: S3Server) -> None:
    place = S3(tmp_path, server)
    torn: list[str] = []

    def tear(method: str, path: str, environ: dict[str, Any]) -> None:
        if method == "PUT" and path.endswith(DATA) and not torn:
            torn.append(path)
            place.put(f"100/{DATA}", b"half")

    server.after = tear
    publish(opened(place), 100)
    assert torn and opened(place).verify(100) == []


# ---- what somebody must act on ---------------------------------------------------------------------------------------


def test_a_missing_bucket_is_told_with_its_remedy(tmp_path: Path, server: S3Server) -> None:
    patience = Duration.parse("60s")
    storage = open_storage("s3://no-such-bucket/models", MODEL, server.options, tmp_path, patience)
    for act in (storage.recover, storage.versions, lambda: storage.read("champion.json")):
        with pytest.raises(ConfigError, match=r"s3://no-such-bucket/models/conversion.*; make the bucket, or correct"):
            act()


def test_wrong_credentials_are_told_and_never_shown(tmp_path: Path, server: S3Server) -> None:
    place = S3(tmp_path, server)
    options = {**server.options, "key": Secret("AKIA-wrong"), "secret": Secret("very-hush")}
    storage = open_storage(place.root, MODEL, options, tmp_path, Duration.parse("60s"))
    reset_auth(server, "0")
    try:
        with pytest.raises(ConfigError, match=r"check the credentials in checkpoints\.options") as caught:
            storage.recover()
    finally:
        reset_auth(server, "inf")
    assert "very-hush" not in str(caught.value) and "AKIA-wrong" not in str(caught.value)


def reset_auth(server: S3Server, free: str) -> None:
    """Tells moto after how many requests it is to check signatures and rights."""
    request = urllib.request.Request(
        f"{server.url}/moto-api/reset-auth", data=free.encode(), headers={"Content-Type": "text/plain"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def test_missing_credentials_are_told(tmp_path: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    options = {"client_kwargs": server.options["client_kwargs"]}
    storage = open_storage("s3://bucket/models", MODEL, options, tmp_path, Duration.parse("60s"))
    with pytest.raises(ConfigError, match="check the credentials"):
        storage.recover()


def test_a_right_that_is_missing_is_told_at_the_start(tmp_path: Path, server: S3Server) -> None:
    place = S3(tmp_path, server)
    server.before = answering(403, 1000)
    with pytest.raises(ConfigError, match=r"cannot write .*the bucket's policy"):
        opened(place).recover()


def test_a_prune_that_is_not_allowed_is_told_not_raised(tmp_path: Path, server: S3Server) -> None:
    place = S3(tmp_path, server)
    store = opened(place)
    for version in (1, 2, 3):
        publish(store, version)
    server.before = answering(403, 1000, "DELETE POST")
    pruned = store.prune()
    assert pruned.removed == [] and "the bucket's policy" in pruned.failed[1]
    server.before = answering(503, 1000, "DELETE POST")
    assert "is failing" in store.prune().failed[1]
    server.whole()
    assert store.prune().removed == [1]
    assert [m.version for m in store.versions()] == [2, 3]


def test_a_url_without_what_it_needs_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"unknown://bucket/models/conversion cannot be opened"):
        Objects("unknown://bucket/models", MODEL, {})
    with pytest.raises(ConfigError, match=r"gs://bucket/models/conversion needs another package: .*gcsfs"):
        monkeypatch.setitem(sys.modules, "gcsfs", None)
        Objects("gs://bucket/models", MODEL, {})
    with pytest.raises(ConfigError, match=r"cannot be opened.*checkpoints\.options"):
        Objects("s3://bucket/models", MODEL, {"max_concurrency": 0})
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'stream-learner[remote]', or name a folder")):
        Objects("s3://bucket/models", MODEL, {})


@pytest.mark.parametrize("given", [{"nonsense": 1}, {"endpoint_url": "nowhere"}])
def test_an_option_that_the_client_refuses_is_told(tmp_path: Path, given: dict[str, Any]) -> None:
    storage = open_storage("s3://bucket/models", MODEL, {"client_kwargs": given}, tmp_path, Duration.parse("60s"))
    with pytest.raises(ConfigError, match=r"correct checkpoints\.root or checkpoints\.options"):
        storage.recover()


# ---- a second writer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrives", ["before the successor's upload", "after it"])
def test_a_put_of_a_zombie_that_arrives_late_spoils_nothing(tmp_path: Path, server: S3Server, arrives: str) -> None:
    """It was on the way when the lease was lost; the successor clears up and publishes under the same number."""
    place = S3(tmp_path, server)
    arrived, released = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def hold(method: str, path: str, environ: dict[str, Any]) -> None:
        if method == "PUT" and path.endswith(DATA) and not arrived.is_set():
            arrived.set()
            assert released.wait(60)

    def fence() -> None:
        if arrived.is_set():
            raise StateError("the lease was taken")

    def publish_late() -> None:
        zombie, files = opened(place, token=6, fence=fence), Files("of a zombie")
        try:
            zombie.publish(100, files.write, manifest_of(100), files.check)
        except StateError as error:
            failures.append(error)

    def arrive() -> None:
        released.set()
        late.join()

    server.before = hold
    late = threading.Thread(target=publish_late)
    late.start()
    assert arrived.wait(60)
    successor = opened(place, token=7)
    successor.recover()
    if arrives != "after it":
        arrive()
        assert place.names() == {f"100/{DATA}"}
    publish(successor, 100, content="bb")
    arrive()
    assert [str(failure) for failure in failures] == ["the lease was taken"]
    assert successor.verify(100) == []
    assert successor.read(100).content_sha256 == "bb" * 32


def test_a_manifest_of_another_writer_is_never_replaced(tmp_path: Path, server: S3Server) -> None:
    place = S3(tmp_path, server)

    def intrude(method: str, path: str, environ: dict[str, Any]) -> None:
        if method == "PUT" and path.endswith("saved_model.pb"):
            place.put("100/manifest.json", b"of another state")

    server.after = intrude
    with pytest.raises(StateError, match="two states publish to one place"):
        publish(opened(place), 100)
    assert place.read("100/manifest.json") == b"of another state"


def test_a_store_without_conditional_writes_is_used_and_said_to_be_one(
    tmp_path: Path, server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    def unconditional(method: str, path: str, environ: dict[str, Any]) -> int | None:
        return 501 if {"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"} & set(environ) and method == "PUT" else None

    place = S3(tmp_path, server)
    server.before = unconditional
    with caplog.at_level(logging.WARNING):
        for version in (100, 200):
            publish(opened(place), version)
            assert opened(place).point(version)
    assert opened(place).verify(200) == []
    assert caplog.text.count("has no conditional writes: only the lease keeps a second writer out") == 1


def test_an_intent_for_another_place_says_nothing_of_this_one(tmp_path: Path, server: S3Server) -> None:
    """The root was changed between a kill and the next start: objects of another owner there are left alone."""
    before, place = S3(tmp_path, server), S3(tmp_path, server)
    server.before = answering(403, 1)
    with pytest.raises(ConfigError):
        publish(opened(before), 100)
    server.whole()
    place.put("100/variables/variables.index", b"of somebody else")
    store = opened(place, token=8)
    assert store.recover() == []
    with pytest.raises(StateError, match="missing or damaged"):
        publish(store, 100)
    publish(store, 200)
    assert place.read("100/variables/variables.index") == b"of somebody else"


@pytest.mark.long
def test_an_object_of_many_parts_is_put_in_one_step_too(tmp_path: Path, server: S3Server) -> None:
    """From 100 MB on s3fs uploads parts; the condition then holds for the request that completes them."""
    place, file = S3(tmp_path, server), tmp_path / "large"
    file.write_bytes(b"0123456789abcdef" * (7 << 20))
    objects = Objects(place.root, MODEL, server.options)
    assert objects.create("large", file)
    assert not objects.create("large", tmp_path / "large")
    assert objects.measure("large") == file_sum(file)

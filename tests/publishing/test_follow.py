"""A follower answers as the version in service does, bit for bit, however it came there."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tensorflow as tf
from model_inputs import EVERYTHING, examples, setting, texts
from versions import MODEL, Disk, Memory, manifest_of

from stream_learner.durable import write_file
from stream_learner.errors import StateError
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay
from stream_learner.publishing import deltas, loaded
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.export import Exporter
from stream_learner.publishing.standing import Standing
from stream_learner.publishing.storage import file_sum
from stream_learner.serving import Follower, follow

SMALL = "learning: {network: mlp, hidden: [8], batch_size: 100}\n"
OF_AN_HOUR = EVERYTHING.replace("rows: 100, dim: 4}", "rows: 100, dim: 4, expire_after: 1h}")
PATIENCE_S = 60.0
ALWAYS = 99.0  # share of the whole that a delta may take: of tiny models the file's frame is most


class Shop:
    """Publishes one version after the other, as the worker does; `expected` holds what each says of the same rows."""

    def __init__(self, place: Disk | Memory, scratch: Path, *, extra: str = SMALL) -> None:
        self.made = setting(extra, OF_AN_HOUR)
        self.learner, self.replay = Learner(self.made.config, self.made.features), Replay(1000, 1)
        self.exporter = Exporter(self.made.config, self.made.features, self.made.columns, scratch / "template")
        self.exporter.prepare(self.learner)
        self.store = Checkpoints(place.storage(), MODEL, keep=9)
        self.standing = Standing()
        self.batch = examples(self.made, 50, seed=9, ids=texts(50, seed=9))
        self.expected: dict[int, np.ndarray] = {}
        self.delta: deltas.Delta | None = None  # of the last version

    def learn(self, seed: int) -> None:
        self.learner.learn(examples(self.made, 300, seed=seed), self.replay, seed)

    def publish(self, version: int, *, learn: bool = True, whole: bool = False) -> None:
        if learn:
            self.learn(version)
            self.learner.promote()
        against = None if whole else self.standing.version
        told = self.learner.version_variables() if against is None else self.learner.version_changes()
        self.learner.changes()  # a capture follows each version
        self.expected[version] = self.learner.score_champion(self.batch)
        self.standing.advance(
            version, {**told, **self.exporter.padded(self.tables(version))}, against, self.exporter.content_sha256
        )
        beside = self.standing.beside(ALWAYS)
        self.delta = None if beside is None else self.standing.delta[1]

        def write(folder: Path) -> None:
            self.exporter.write(folder, self.standing.arrays)
            if beside is not None:
                (folder / deltas.FILE).write_bytes(beside[1])

        manifest = msgspec.structs.replace(
            manifest_of(version), content_sha256=self.standing.content, delta=None if beside is None else beside[0]
        )
        self.store.publish(
            version, write, manifest, lambda folder: self.exporter.check(folder, self.batch, self.expected[version])
        )
        self.store.point(version)

    def tables(self, version: int) -> dict:
        """What travels: keys that come and go."""
        rng, tables = np.random.default_rng(version), {}
        for entry in self.exporter.entries:
            keys = np.sort(rng.choice(np.arange(1, 400, dtype=np.uint64), rng.integers(0, 300), replace=False))
            tables[entry.key] = keys, rng.integers(0, 4, (len(keys), len(entry.names))).astype(np.float32)
        return tables

    def answer(self, follower: Follower) -> np.ndarray:
        features = self.made.features
        ids, numbers = features.take_ids(self.batch.ids), features.take_numbers(self.batch.numbers)
        signature = follower._model.signatures["from_fingerprints"]
        return signature(ids=ids, numbers=numbers, time=self.batch.time)["logit"].numpy()

    def served(self, follower: Follower) -> None:
        """What the follower holds is what the version holds that it says it is."""
        with self.store.files(follower.version) as folder:
            reader = tf.train.load_checkpoint(str(folder / loaded.PREFIX))
            for name, value in follower._model.values().items():
                assert value.tobytes() == np.asarray(reader.get_tensor(loaded.key(name))).tobytes(), name
        content = self.exporter.content_sha256(follower._model.values())
        assert content == self.store.read(follower.version).content_sha256
        np.testing.assert_allclose(self.answer(follower), self.expected[follower.version], atol=1e-5)


class Reads:
    """Counts how a follower came to its versions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.along, self.whole = [], 0
        along, whole = loaded.LoadedModel.along, loaded.LoadedModel.whole

        def counted_along(model, steps):
            ready = along(model, steps)
            self.along.append(len(steps))
            return ready

        def counted_whole(model, folder):
            self.whole += 1
            return whole(model, folder)

        monkeypatch.setattr(loaded.LoadedModel, "along", counted_along)
        monkeypatch.setattr(loaded.LoadedModel, "whole", counted_whole)


@pytest.fixture
def place(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / MODEL


@pytest.fixture
def shop(place: Disk, tmp_path: Path) -> Shop:
    return Shop(place, tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    monkeypatch.setattr(loaded, "_SCATTERED_ROWS", 64)  # so that small tables are large ones
    return Reads(monkeypatch)


def test_a_follower_moves_with_the_champion_by_deltas(shop: Shop, folder: Path, reads: Reads) -> None:
    with pytest.raises(StateError, match="no version"):
        follow(folder)
    shop.publish(10)
    with follow(folder, every_s=3600) as follower:
        assert follower.version == 10 and not follower.refresh()
        gone = 0
        for version in range(11, 16):
            shop.publish(version)
            gone += len(shop.delta.maps["exact/item"].gone)
            assert follower.refresh() and follower.version == version
            shop.served(follower)
        assert reads.along == [1] * 5 and not reads.whole
        assert gone > 10  # ids expired
        assert np.abs(shop.expected[15] - shop.expected[10]).max() > 1e-3
        specs = follower._model.signatures["serving_default"].structured_input_signature[1]
        row = {name: ["x"] if spec.dtype.name == "string" else [0] for name, spec in specs.items()}
        assert 0 < follower.predict(**row)["probability"][0] < 1


def test_missed_versions_are_made_up_for_and_missing_ones_read_whole(shop: Shop, folder: Path, reads: Reads) -> None:
    shop.publish(10)
    with follow(folder, every_s=3600) as follower:
        for version in range(11, 14):
            shop.publish(version)
        assert follower.refresh()
        shop.served(follower)
        assert (reads.along, reads.whole) == ([3], 0)
        for version in range(14, 17):
            shop.publish(version)
        shop.store._storage.remove(15)
        assert follower.refresh() and follower.version == 16
        shop.served(follower)
        assert (reads.along, reads.whole) == ([3], 1)
        shop.publish(17)
        assert follower.refresh()
        shop.served(follower)
        assert (reads.along, reads.whole) == ([3, 1], 1)


def test_a_torn_delta_costs_no_more_than_reading_the_whole(shop: Shop, folder: Path, reads: Reads, caplog) -> None:
    shop.publish(10)
    with follow(folder, every_s=3600) as follower:
        for version, torn in enumerate(("cut", "flipped", "missing", "garbage", "unchecked garbage"), start=11):
            shop.publish(version)
            path = folder / str(version) / deltas.FILE
            content = path.read_bytes()
            flipped = bytearray(content)
            flipped[len(content) // 2] ^= 1
            if torn == "missing":
                path.unlink()
            else:
                path.write_bytes({"cut": content[:-9], "flipped": bytes(flipped)}.get(torn, bytes(1000)))
            if torn == "unchecked garbage":  # whoever wrote it wrote a manifest for it too
                manifest = shop.store.read(version)
                manifest = msgspec.structs.replace(manifest, files={**manifest.files, deltas.FILE: file_sum(path)})
                write_file(path.parent / "manifest.json", msgspec.json.encode(manifest))
            assert follower.refresh() and follower.version == version
            shop.served(follower)
            assert (reads.along, reads.whole) == ([], version - 10)
            assert f"version {version} is read whole" in caplog.text


def test_a_delta_of_other_variables_is_refused_before_anything_is_written(shop: Shop, folder: Path) -> None:
    shop.publish(10)
    with follow(folder, every_s=3600) as follower:
        before = follower._model.values()
        rows, values = np.array([3]), before["table/user"][:1]
        for table in (
            {"table/stranger": (rows, values)},
            {"table/user": (rows, values[:, :1])},
            {"table/user": (rows, values.astype(np.float64))},
            {"table/user": (rows + 10**6, values)},
            {"table/user": (rows - 9, values)},
            {"table/user": (np.array([5, 5]), np.repeat(values, 2, axis=0))},
        ):
            with pytest.raises(StateError, match=r"another model|not there"):
                follower._model.along([deltas.Delta(table, {}, {})])
        with pytest.raises(StateError, match="another model"):
            follower._model.along([deltas.Delta({}, {}, {"offset": np.zeros(3, np.float32)})])
        shop.served(follower)


def test_a_rollback_is_followed_like_any_version(shop: Shop, folder: Path, reads: Reads) -> None:
    shop.publish(10)
    shop.publish(20)
    with follow(folder, every_s=3600) as follower, shop.store.files(10) as files:
        shop.learner.load_champion(shop.exporter.load(files)[0])
        shop.publish(30, learn=False)
        assert follower.refresh() and reads.along == [1]
        shop.served(follower)
        np.testing.assert_array_equal(shop.expected[30], shop.expected[10])
        shop.publish(40)
        assert follower.refresh() and reads.along == [1, 1]
        shop.served(follower)


def test_another_config_is_loaded_anew(shop: Shop, place: Disk, folder: Path, tmp_path: Path, reads: Reads) -> None:
    shop.publish(10)
    with follow(folder, every_s=3600) as follower:
        wider = Shop(place, tmp_path / "wider", extra=SMALL.replace("[8]", "[9]"))
        wider.publish(20)
        assert follower.refresh() and follower.version == 20
        wider.served(follower)
        wider.publish(30)
        assert follower.refresh() and reads.along == [1]
        wider.served(follower)


def test_a_version_without_a_delta_is_read_whole_in_place(shop: Shop, folder: Path, reads: Reads) -> None:
    shop.publish(10)
    with follow(folder, every_s=3600) as follower:
        shop.publish(20, whole=True)
        assert shop.store.read(20).delta is None
        assert follower.refresh() and (reads.along, reads.whole) == ([], 1)
        shop.served(follower)


def test_a_delta_is_a_function_of_the_two_versions(tmp_path: Path) -> None:
    """However rows were touched, and from wherever a process went on."""
    written = []
    for name in ("one", "other"):
        shop = Shop(Disk(tmp_path / name), tmp_path / name)
        shop.publish(10)
        if name == "other":  # a restart: what moved is found by comparing, the content is the state's
            state = shop.learner.capture()
            again = Shop(Disk(tmp_path / name), tmp_path / name)
            again.learner.restore(state)
            variables = again.learner.version_variables()
            again.standing.begin(10, {**variables, **again.exporter.padded(again.tables(10))})
            again.replay = shop.replay
            shop = again
        shop.publish(20)
        files = shop.store.read(20).files
        written.append((shop.store.read(20), files))
    assert written[0] == written[1] and deltas.FILE in written[0][1]


def test_a_damaged_version_is_not_served(shop: Shop, folder: Path) -> None:
    shop.publish(10)
    with follow(folder, every_s=3600) as follower:
        shop.publish(20, whole=True)
        data = next((folder / "20" / "variables").glob("*.data-*"))
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
        with pytest.raises(StateError, match="damaged"):
            follower.refresh()
        assert follower.version == 10
        shop.served(follower)


def test_an_object_store_is_followed_too(tmp_path: Path, reads: Reads) -> None:
    place = Memory(tmp_path)
    shop = Shop(place, tmp_path)
    shop.publish(10)
    with follow(f"{place._root}/{MODEL}", every_s=3600) as follower:
        shop.publish(20)
        assert follower.refresh() and reads.along == [1]
        shop.served(follower)
        shop.publish(30, whole=True)
        assert follower.refresh() and reads.whole == 1
        shop.served(follower)


def test_one_request_is_answered_by_one_version(shop: Shop, folder: Path, reads: Reads) -> None:
    """Requests without a pause while one version after the other is applied: each answer is one version's."""
    shop.publish(1)
    with follow(folder, every_s=3600) as follower:
        stopping, answered, answers = threading.Event(), threading.Event(), []

        def ask() -> None:
            while not stopping.is_set():
                with follower._turns.shared():
                    answers.append((follower.version, shop.answer(follower)))
                answered.set()

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for version in range(2, 10):
            shop.publish(version)
            assert follower.refresh()
            answered.clear()
            assert answered.wait(PATIENCE_S)
        stopping.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert reads.along == [1] * 8
    for version, answer in answers:
        np.testing.assert_allclose(answer, shop.expected[version], atol=1e-5)
    assert {version for version, _ in answers} >= {2, 9}

"""A follower answers as the version in service does, and moves to the next one between two requests."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from model_inputs import examples, setting, texts
from versions import MODEL, manifest_of

from stream_learner.errors import StateError
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.export import Exporter
from stream_learner.publishing.storage import LocalStorage
from stream_learner.serving import Follower, follow

SMALL = "learning: {network: mlp, hidden: [8], batch_size: 100}\n"
PATIENCE_S = 60.0


class Shop:
    """Publishes one version after the other; `expected` holds what each says of the same rows."""

    def __init__(self, folder: Path) -> None:
        self.made = setting(SMALL)
        self.learner, self.replay = Learner(self.made.config, self.made.features), Replay(1000, 1)
        self.exporter = Exporter(self.made.config, self.made.features, self.made.columns, folder / "template")
        self.exporter.prepare(self.learner)
        self.folder = folder / MODEL
        self.store = Checkpoints(LocalStorage(self.folder), MODEL, keep=9)
        ids = texts(50, seed=9)
        self.batch = examples(self.made, 50, seed=9, ids=ids)
        self.tables = {}
        for key in self.made.config.export.aggregates:
            width = sum(column.key == key for column in self.made.columns)
            self.tables[key] = np.empty(0, np.uint64), np.empty((0, width), np.float32)
        self.expected: dict[int, np.ndarray] = {}

    def publish(self, version: int) -> None:
        self.learner.learn(examples(self.made, 300, seed=version), self.replay, version)
        self.learner.promote()
        variables = self.learner.version_variables()
        self.expected[version] = self.learner.score_champion(self.batch)
        self.store.publish(
            version,
            lambda folder: self.exporter.write(folder, variables, self.tables),
            manifest_of(version),
            lambda folder: self.exporter.check(folder, self.batch, self.expected[version]),
        )
        self.store.point(version)

    def asked(self, follower: Follower) -> np.ndarray:
        features = self.made.features
        ids, numbers = features.take_ids(self.batch.ids), features.take_numbers(self.batch.numbers)
        with follower._turns.shared():
            signature = follower._model.signatures["from_fingerprints"]
            return signature(ids=ids, numbers=numbers, time=self.batch.time)["logit"].numpy()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_follower_moves_with_the_champion(shop: Shop) -> None:
    with pytest.raises(StateError, match="no version"):
        follow(shop.folder)
    shop.publish(10)
    with follow(shop.folder, every_s=3600) as follower:
        assert follower.version == 10 and not follower.refresh()
        np.testing.assert_allclose(shop.asked(follower), shop.expected[10], atol=1e-5)
        shop.publish(20)
        assert follower.refresh() and follower.version == 20
        np.testing.assert_allclose(shop.asked(follower), shop.expected[20], atol=1e-5)
        assert np.abs(shop.expected[20] - shop.expected[10]).max() > 1e-3
        specs = follower._model.signatures["serving_default"].structured_input_signature[1]
        row = {name: ["x"] if spec.dtype.name == "string" else [0] for name, spec in specs.items()}
        assert 0 < follower.predict(**row)["probability"][0] < 1


def test_a_damaged_version_is_not_served(shop: Shop) -> None:
    shop.publish(10)
    with follow(shop.folder, every_s=3600) as follower:
        shop.publish(20)
        data = next((shop.folder / "20" / "variables").glob("*.data-*"))
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
        with pytest.raises(StateError, match="damaged"):
            follower.refresh()
        assert follower.version == 10
        np.testing.assert_allclose(shop.asked(follower), shop.expected[10], atol=1e-5)


def test_one_request_is_answered_by_one_version(shop: Shop) -> None:
    shop.publish(1)
    shop.publish(2)
    with follow(shop.folder, every_s=3600) as follower:
        folders = [shop.folder / "1", shop.folder / "2"]
        values = [follower._model.read(folder) for folder in folders]
        stopping, answered, answers = threading.Event(), threading.Event(), []

        def ask() -> None:
            while not stopping.is_set():
                answers.append(shop.asked(follower))
                answered.set()

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for turn in range(20):
            answered.clear()
            with follower._turns.alone():
                follower._model.exchange(values[turn % 2])
            assert answered.wait(PATIENCE_S)
        stopping.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    seen = {
        version: sum(np.allclose(answer, expected, atol=1e-5) for answer in answers)
        for version, expected in shop.expected.items()
    }
    assert sum(seen.values()) == len(answers) and min(seen.values()) > 0

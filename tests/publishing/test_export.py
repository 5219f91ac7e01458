"""Versions as files: they answer as the worker does, and equal ones are equal byte for byte."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from model_inputs import EVERYTHING, Setting, examples, setting, texts

from stream_learner import keys
from stream_learner.errors import RetryableError, StateError
from stream_learner.events import ExampleBatch
from stream_learner.ingest.identity import fingerprints
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay
from stream_learner.publishing import artefact, serving
from stream_learner.publishing.export import Exporter, served_numbers

SMALL = "learning: {network: mlp, hidden: [8], batch_size: 100, dropout: 0.1}\n"


@dataclass
class Published:
    made: Setting
    learner: Learner
    exporter: Exporter
    tables: dict
    folder: Path
    ids: dict[str, list[str]]
    batch: ExampleBatch

    def arrays(self, variables: dict | None = None, tables: dict | None = None) -> dict:
        variables = self.learner.version_variables() if variables is None else variables
        return {**variables, **self.exporter.padded(self.tables if tables is None else tables)}


def _tables(made: Setting, batch: ExampleBatch) -> dict:
    """Travelling values for the keys of the first half of a batch: what `Aggregates.table` gives."""
    tables = {}
    rng = np.random.default_rng(5)
    for key in made.config.export.aggregates:
        columns = [made.schema.id_column(part) for part in key.split("*")]
        parts = [batch.ids[: len(batch) // 2, column] for column in columns]
        parts = [part[np.all([p != 0 for p in parts], axis=0)] for part in parts]
        found = np.unique(keys.mix(*parts) if len(parts) > 1 else parts[0])[: made.config.export.capacity]
        width = sum(column.key == key for column in made.columns)
        values = rng.poisson(4, (len(found), width)).astype(np.float32)
        values[rng.random(values.shape) < 0.1] = np.nan
        tables[key] = (found, values)
    return tables


def _publish(made: Setting, folder: Path, *, slides: int = 3) -> Published:
    learner = Learner(made.config, made.features)
    replay = Replay(made.config.replay.capacity, made.config.seed)
    for slide in range(slides):
        learner.learn(examples(made, 300, seed=slide), replay, slide)
    learner.promote()
    ids = texts(200, seed=77)
    batch = examples(made, 200, seed=77, ids=ids)
    tables = _tables(made, batch)
    exporter = Exporter(made.config, made.features, made.columns, folder / "template")
    exporter.prepare(learner)
    published = Published(made, learner, exporter, tables, folder / "1", ids, batch)
    exporter.write(folder / "1", published.arrays())
    return published


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Published:
    return _publish(setting(SMALL), tmp_path_factory.mktemp("export"))


def _fields(p: Published, *, aggregates: bool = False) -> dict:
    fields = {name: tf.constant(p.ids[name]) for name in ("user", "item", "category")}
    fields |= {"price": tf.constant(p.batch.numbers[:, 0]), "rank": tf.constant(p.batch.numbers[:, 1])}
    fields["time"] = tf.constant(p.batch.time)
    if aggregates:
        fields |= {c.name: tf.constant(p.batch.numbers[:, 2 + i]) for i, c in enumerate(p.made.columns)}
    return fields


def _served(p: Published) -> np.ndarray:
    return served_numbers(p.made.config, p.made.features, p.made.columns, p.batch, p.tables)


def _probability(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def test_a_callers_text_and_an_event_have_the_same_fingerprint():
    ids = ["", "a", "12", "käse", "x" * 1000, "0"]
    got = serving.fingerprints(tf.constant(ids)).numpy().view(np.uint64)
    np.testing.assert_array_equal(got, fingerprints(ids))
    assert got[0] == 0


def test_pair_keys_are_mixed_as_everywhere():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 2**64, (2, 1000), dtype=np.uint64)
    one[0], two[1] = 2**64 - 1, 0
    got = serving.mix(tf.constant(one.view(np.int64)), tf.constant(two.view(np.int64))).numpy().view(np.uint64)
    np.testing.assert_array_equal(got, keys.mix(one, two))


def test_raw_fields_and_aggregates_get_the_workers_own_scores(published):
    loaded = tf.saved_model.load(str(published.folder))
    answer = loaded.signatures["with_aggregates"](**_fields(published, aggregates=True))
    # A key whose every aggregate is missing cannot be told from one that is not given: it falls back to what travels.
    batch = published.batch.with_numbers(_with_fallback(published))
    expected = published.learner.score_champion(batch)
    np.testing.assert_allclose(answer["probability"].numpy(), _probability(expected), atol=1e-6)
    np.testing.assert_allclose(answer["logit"].numpy(), expected, atol=1e-5)


def _with_fallback(p: Published) -> np.ndarray:
    numbers, served = p.batch.numbers.copy(), _served(p)
    for entry in p.exporter.entries:
        columns = slice(entry.first, entry.first + len(entry.names))
        unknown = np.isnan(numbers[:, columns]).all(axis=1)
        numbers[unknown, columns] = served[unknown, columns]
    return numbers


def test_raw_fields_alone_get_the_aged_aggregates(published):
    loaded = tf.saved_model.load(str(published.folder))
    answer = loaded.signatures["serving_default"](**_fields(published))
    served = published.batch.with_numbers(_served(published))
    expected = published.learner.score_champion(served)
    np.testing.assert_allclose(answer["probability"].numpy(), _probability(expected), atol=1e-6)
    live = published.learner.score_champion(published.batch)
    assert np.abs(_probability(live) - _probability(expected)).max() > 0.01


def test_served_numbers_row_by_row(published):
    p, got = published, _served(published)
    by_key = {key: dict(zip(found.tolist(), values, strict=True)) for key, (found, values) in p.tables.items()}
    for row in range(len(p.batch)):
        for offset, column in enumerate(p.made.columns, 2):
            parts = [p.batch.ids[row : row + 1, p.made.schema.id_column(part)] for part in column.key.split("*")]
            expected = np.nan
            if column.key in by_key and all(part[0] for part in parts):
                key = int((keys.mix(*parts) if len(parts) > 1 else parts[0])[0])
                position = [c.name for c in p.made.columns if c.key == column.key].index(column.name)
                absent = 0.0 if column.kind in ("count", "distinct") else np.nan
                expected = by_key[column.key][key][position] if key in by_key[column.key] else absent
            np.testing.assert_array_equal(got[row, offset], np.float32(expected))
    np.testing.assert_array_equal(got[:, :2], p.batch.numbers[:, :2])


def test_the_check_passes_the_worker_and_refuses_others(published, tmp_path):
    expected = published.learner.score_champion(published.batch)
    published.exporter.check(published.folder, published.batch, expected)
    published.exporter.check(published.folder, published.batch.take(slice(0, 0)), expected[:0])
    with pytest.raises(StateError, match=r"scores differ from the worker's by up to .*, allowed 1e-06"):
        published.exporter.check(published.folder, published.batch, expected + np.float32(0.001))
    with pytest.raises(StateError, match="by up to nan"):
        published.exporter.check(published.folder, published.batch, expected * np.float32(np.nan))
    with pytest.raises(StateError, match="does not load or answer"):
        published.exporter.check(tmp_path / "nowhere", published.batch, expected)


def test_a_version_that_answers_with_nan_is_refused(published, tmp_path):
    variables = published.learner.version_variables()
    variables[max(name for name in variables if name.endswith("bias"))][:] = (
        np.nan
    )  # of the logit: a ReLU would swallow it
    published.exporter.write(tmp_path, published.arrays(variables))
    with pytest.raises(StateError, match="by up to nan"):
        published.exporter.check(tmp_path, published.batch, published.learner.score_champion(published.batch))
    with pytest.raises(StateError, match="serving_default answers"):
        published.exporter.check(tmp_path, published.batch.take(slice(0, 0)), np.empty(0, np.float32))


def test_what_is_loaded_is_what_was_written(published):
    variables, tables = published.exporter.load(published.folder)
    written = published.learner.version_variables()
    assert variables.keys() == written.keys() and tables.keys() == published.tables.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(variables[name], value)
        assert variables[name].dtype == value.dtype
    for key, pair in published.tables.items():
        for value, back in zip(pair, tables[key], strict=True):
            np.testing.assert_array_equal(value, back)
    digest = published.exporter.content_sha256(published.arrays(written))
    assert published.exporter.content_sha256(published.arrays(variables, tables)) == digest
    other = {key: (found, values + 1) for key, (found, values) in tables.items()}
    assert published.exporter.content_sha256(published.arrays(variables, other)) != digest


def test_a_rollback_makes_an_old_version_the_champion_again(published):
    old = published.learner.score_champion(published.batch)
    later = Learner(published.made.config, published.made.features)
    later.learn(examples(published.made, 300, seed=50), Replay(0, 0), 0)
    later.promote()
    variables, _ = published.exporter.load(published.folder)
    later.load_champion(variables)
    np.testing.assert_array_equal(later.score_champion(published.batch), old)


@pytest.mark.parametrize("name", ["variables/variables.index", "variables/variables.data-00000-of-00001"])
def test_torn_variables_are_a_clear_stop(published, tmp_path, name):
    published.exporter.write(tmp_path, published.arrays())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StateError, match="variables cannot be read"):
        published.exporter.load(tmp_path)


def test_foreign_versions_and_variables_are_refused(published, tmp_path):
    other = _publish(
        setting(SMALL, EVERYTHING.replace("[item, user*item], capacity: 300", "[item], capacity: 9")), tmp_path
    )
    with pytest.raises(StateError, match="holds no aggregates of 'item' as this config has them"):
        other.exporter.load(published.folder)
    with pytest.raises(StateError, match="the graph does not hold"):
        published.exporter.write(tmp_path / "2", published.arrays({}))
    unprepared = Exporter(published.made.config, published.made.features, published.made.columns, tmp_path)
    with pytest.raises(StateError, match="prepare it first"):
        unprepared.content_sha256(published.arrays())


def test_a_disk_that_refuses_may_be_tried_again(published, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RetryableError, match="cannot be written"):
        published.exporter.write(tmp_path / "file", published.arrays())


def _sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_equal_versions_are_equal_bytes_whatever_else_was_traced_and_from_any_thread(published, tmp_path):
    for number in range(12):
        tf.function(lambda x, add=number: x + add)(tf.constant(1.0))
    again = _publish(published.made, tmp_path)
    assert set(_sums(again.folder)) == {
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    }
    assert _sums(again.folder) == _sums(published.folder)
    writer = threading.Thread(target=again.exporter.write, args=(tmp_path / "2", again.arrays()))
    writer.start()
    writer.join()
    assert _sums(tmp_path / "2") == _sums(published.folder)


def test_large_arrays_are_written_from_where_they_lie_to_the_same_bytes(published, tmp_path, monkeypatch):
    monkeypatch.setattr(artefact, "_LENT_BYTES", 64)
    arrays = published.arrays()
    arrays["table/user"] = arrays["table/user"].copy()
    assert arrays["table/user"].nbytes > 64
    published.exporter.write(tmp_path, arrays)
    assert _sums(tmp_path) == _sums(published.folder)
    arrays["table/user"][:] = 0  # the array is its owner's again
    published.exporter.write(tmp_path / "zero", arrays)
    assert not published.exporter.load(tmp_path / "zero")[0]["table/user"].any()


_OTHER_PROCESS = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_export import SMALL, _publish, _sums
from model_inputs import setting
made = _publish(setting(SMALL), Path(sys.argv[1]))
digest = made.exporter.content_sha256(made.arrays())
print(json.dumps([_sums(made.folder), digest, made.learner.model_sha256()]))
"""


def test_another_process_makes_the_same_bytes(published, tmp_path):
    here = Path(__file__).parent
    command = [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path), str(here), str(here.parent)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    sums, digest, model = json.loads(out.splitlines()[-1])
    assert model == published.learner.model_sha256()
    assert sums == _sums(published.folder)
    assert digest == published.exporter.content_sha256(published.arrays())


_TENSORFLOW_ALONE = """
import sys, numpy as np, tensorflow as tf
given = np.load(sys.argv[2])
loaded = tf.saved_model.load(sys.argv[1])
fields = {name: tf.constant(given[name]) for name in given.files}
np.save(sys.argv[3], loaded.signatures["serving_default"](**fields)["probability"].numpy())
assert not any(name.startswith("stream_learner") for name in sys.modules)
"""


def test_a_fresh_process_with_tensorflow_alone_gets_the_same_answer(published, tmp_path):
    np.savez(
        tmp_path / "fields.npz",
        **{
            name: tensor.numpy().astype(str) if tensor.dtype == tf.string else tensor.numpy()
            for name, tensor in _fields(published).items()
        },
    )
    files = [str(published.folder), str(tmp_path / "fields.npz"), str(tmp_path / "answer.npy")]
    subprocess.run([sys.executable, "-c", _TENSORFLOW_ALONE, *files], cwd=tmp_path, check=True, timeout=120)
    expected = published.learner.score_champion(published.batch.with_numbers(_served(published)))
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), _probability(expected), atol=1e-6)


def test_the_signature_asks_only_for_what_is_used(published, tmp_path):
    inputs = published.exporter.signature()["serving_default"]["inputs"]
    assert inputs == {
        "user": "string", "item": "string", "category": "string", "price": "float32", "rank": "float32", "time": "int64"
    }  # fmt: skip
    more = published.exporter.signature()["with_aggregates"]["inputs"]
    assert more == inputs | {column.name: "float32" for column in published.made.columns}
    assert published.exporter.signature()["serving_default"]["outputs"] == {
        "probability": "float32",
        "logit": "float32",
    }


@pytest.mark.parametrize(
    ("features", "asked"),
    [
        ("{ids: {}, aggregates: [item_click_1h], numeric: {}}", {"item", "time"}),
        ("{ids: {user: {rows: 10}}, aggregates: [], numeric: {}}", {"user", "time"}),
        (
            "{ids: {}, aggregates: [user_item_click_1h, user_click_1h], numeric: {rank: {}}}",
            {"user", "item", "rank", "time"},
        ),
        ("{ids: {}, aggregates: [], numeric: {}}", {"time"}),
    ],
)
def test_small_models_are_served_too(tmp_path, features, asked):
    base = (
        EVERYTHING.split("features:")[0]
        + f"features: {features}\nexport: {{aggregates: [item, user*item], capacity: 300}}\n"
    )
    made = _publish(setting("learning: {network: logistic}\n", base), tmp_path, slides=1)
    assert set(made.exporter.signature()["serving_default"]["inputs"]) == asked
    made.exporter.check(made.folder, made.batch, made.learner.score_champion(made.batch))
    loaded = tf.saved_model.load(str(made.folder))
    fields = {name: value for name, value in _fields(made).items() if name in asked}
    answer = loaded.signatures["serving_default"](**fields)["probability"].numpy()
    expected = made.learner.score_champion(made.batch.with_numbers(_served(made)))
    np.testing.assert_allclose(answer, _probability(expected), atol=1e-6)


def test_a_users_network_with_batch_statistics_is_exported_as_it_scores(tmp_path):
    sys.path.insert(0, str(Path(__file__).parent.parent / "learning"))
    made = _publish(setting("learning: {network: 'networks_of_users:good', batch_size: 50}\n"), tmp_path)
    made.exporter.check(made.folder, made.batch, made.learner.score_champion(made.batch))


def test_tables_larger_than_nothing_and_as_large_as_allowed(published, tmp_path):
    empty = {
        entry.key: (np.empty(0, np.uint64), np.empty((0, len(entry.names)), np.float32))
        for entry in published.exporter.entries
    }
    published.exporter.write(tmp_path / "empty", published.arrays(tables=empty))
    assert all(len(found) == 0 for found, _ in published.exporter.load(tmp_path / "empty")[1].values())
    full = {}
    for entry in published.exporter.entries:
        found = np.sort(np.random.default_rng(1).integers(1, 2**64 - 1, entry.capacity, dtype=np.uint64))
        full[entry.key] = (found, np.ones((len(found), len(entry.names)), np.float32))
    published.exporter.write(tmp_path / "full", published.arrays(tables=full))
    for key, (found, values) in published.exporter.load(tmp_path / "full")[1].items():
        np.testing.assert_array_equal(found, full[key][0])
        np.testing.assert_array_equal(values, full[key][1])
    batch = replace(published.batch, ids=published.batch.ids.copy())
    batch.ids[:, 1] = full["item"][0][:200]
    served = served_numbers(published.made.config, published.made.features, published.made.columns, batch, full)
    entry = published.exporter.entries[0]
    assert np.all(served[:, entry.first : entry.first + len(entry.names)] == 1)

"""A published version, loaded in a fresh process with TensorFlow alone, gives raw fields the worker's own scores."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from processes import changed, learner
from shops import CONFIG, events_in, write_shop

from stream_learner import config as configs
from stream_learner.events import ExampleBatch
from stream_learner.explaining.command import explain
from stream_learner.ingest.dead_letters import MemoryDeadLetters
from stream_learner.ingest.identity import fingerprints
from stream_learner.ingest.opening import open_source
from stream_learner.learning.runtime import configure_tensorflow
from stream_learner.lease import Lease
from stream_learner.observing.health import Health
from stream_learner.observing.metrics import WorkerMetrics
from stream_learner.publishing.announce import NoAnnouncer
from stream_learner.worker import Surroundings, Worker

EVENTS = 12_000
TOLERANCE = 1e-6

# What a caller has: TensorFlow, the folder of a version, and columns of raw fields.
CALLER = """
import sys
import numpy as np
import tensorflow as tf

version, given, answers = sys.argv[1:]
columns = dict(np.load(given))
text = {name: tf.constant([t.encode() for t in values]) for name, values in columns.items() if values.dtype.kind == "U"}
plain = {name: tf.constant(values) for name, values in columns.items() if values.dtype.kind != "U"}
every = {**text, **plain}
loaded = tf.saved_model.load(version)
answer = {}
for name in ("serving_default", "with_aggregates"):
    signature = loaded.signatures[name]
    wanted = signature.structured_input_signature[1]
    answer[name] = signature(**{field: every[field] for field in wanted})["probability"].numpy()
nobody = {}
for field, spec in loaded.signatures["serving_default"].structured_input_signature[1].items():
    filler = {tf.string: "", tf.float32: float("nan"), tf.int64: 0}[spec.dtype]
    nobody[field] = tf.constant([filler], spec.dtype)
answer["nobody"] = loaded.signatures["serving_default"](**nobody)["probability"].numpy()
assert not any(module.startswith("stream_learner") for module in sys.modules)
np.savez(answers, **answer)
"""


class Asked:
    """A worker that has learned the shop, examples it knows, and what a caller gets for their raw fields."""

    def __init__(self, folder: Path) -> None:
        events = write_shop(folder / "events", EVENTS)
        plain = changed(CONFIG, state=str(folder / "state"), source__files={"path": str(events)})
        self.config = configs.parse(msgspec.json.encode(plain).decode())
        configure_tensorflow(self.config)
        self.records = events_in(events)
        metrics, health = WorkerMetrics(), Health(self.config.observing.stuck_after)
        around = Surroundings(open_source(self.config), MemoryDeadLetters(), NoAnnouncer(), metrics, health)
        lease = Lease(folder / "lease", self.config.lease)
        assert lease.acquire(threading.Event().wait, lambda holder: None)
        with lease, Worker(self.config, around, lease, until_end=True) as worker:
            worker.start()
            worker.run()
            self.examples = worker.attribution.pending()
            self.own = probability(worker.learner.score_champion(self.examples))
            self.served = probability(worker.publisher.score_served(self.examples))
            self.columns = [column.name for column in worker.aggregates.columns]
            self.version = Path(worker.publisher.checkpoints.location(worker.publisher.champion))
        self.fields = self._raw_fields()
        np.savez(folder / "given.npz", **self.fields)
        command = [sys.executable, "-I", "-c", CALLER, self.version, folder / "given.npz", folder / "answers.npz"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        self.answers = dict(np.load(folder / "answers.npz"))

    def _raw_fields(self) -> dict[str, NDArray[Any]]:
        """The examples as callers would write them: texts looked up in the log, aggregates as of the event."""
        schema, examples = configs.event_schema(self.config), self.examples
        fields: dict[str, NDArray[Any]] = {"time": examples.time}
        sources = {"user": "user_id", "item": "item_id", "category": "category"}
        for name, path in sources.items():
            texts = sorted({str(record[path]) for record in self.records})
            known = dict(zip(fingerprints(texts).tolist(), texts, strict=True))
            fields[name] = np.array([known[i] for i in examples.ids[:, schema.id_column(name)].tolist()])
        for index, name in enumerate([*schema.numbers, *self.columns]):
            fields[name] = examples.numbers[:, index]
        return fields


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(tmp_path_factory.mktemp("asked"))


def probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return out


def test_a_caller_gets_the_workers_scores(asked: Asked) -> None:
    """With the aggregates as of the event; and without them, what the worker says of that under `served`."""
    assert len(asked.examples) > 500 and np.isnan(asked.fields["price"]).any()
    assert np.ptp(asked.own) > 0.01  # scores that differ, so that the comparison means something
    assert np.abs(asked.answers["with_aggregates"] - asked.own).max() <= TOLERANCE
    assert np.abs(asked.answers["serving_default"] - asked.served).max() <= TOLERANCE
    assert np.abs(asked.answers["serving_default"] - asked.own).max() > TOLERANCE  # aged aggregates do differ


def test_scores_stored_at_arrival_are_those_of_the_version(asked: Asked) -> None:
    """Where the champion was this version already when the click came in."""
    stored = probability(asked.examples.logit_champion)
    same = np.abs(stored - asked.own) <= TOLERANCE
    first = int(np.argmax(same))
    assert same[first:].all() and same.sum() > 50


def test_the_aggregates_given_are_those_of_the_log(asked: Asked) -> None:
    """Counted from the records anew: the clicks and purchases of a user before the click."""
    examples: ExampleBatch = asked.examples
    for kind in ("click", "purchase"):
        times: dict[str, list[int]] = {}
        for record in asked.records:
            if record["event_type"] == kind:
                times.setdefault(record["user_id"], []).append(record["timestamp"] * 1000)
        counted = [
            sum(t < time for t in times.get(str(user), []))
            for user, time in zip(asked.fields["user"], examples.time.tolist(), strict=True)
        ]
        np.testing.assert_array_equal(asked.fields[f"user_{kind}_ever"], counted)


def test_with_nothing_known_the_answer_is_a_probability(asked: Asked) -> None:
    assert 0.0 < float(asked.answers["nobody"][0]) < 1.0


@pytest.mark.parametrize("full", [False, True], ids=["raw fields", "with aggregates"])
def test_an_explanation_adds_up_to_the_score_the_caller_gets(asked: Asked, full: bool) -> None:
    names = ["user", "item", "category", "price", *(asked.columns if full else [])]
    row = int(np.flatnonzero(~np.isnan(asked.fields["price"]))[-1])
    values = {name: asked.fields[name][row].item() for name in names}
    event = {name: value for name, value in values.items() if isinstance(value, str) or not math.isnan(value)}
    content = explain(asked.version, {**event, "time": int(asked.fields["time"][row])})
    wanted = asked.answers["with_aggregates" if full else "serving_default"][row]
    assert content["probability"] == pytest.approx(float(wanted), abs=TOLERANCE)
    base = math.log(content["base_probability"] / (1 - content["base_probability"]))
    assert sum(one["logit"] for one in content["inputs"]) == pytest.approx(content["logit"] - base, abs=1e-4)
    assert {one["name"] for one in content["inputs"]} == set(event)
    assert content["base_probability"] == pytest.approx(float(asked.answers["nobody"][0]), abs=0.2)


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        ('{"itm": "1", "time": 1}', "no input 'itm'; inputs: category, item, price, time, user"),
        ('{"item": "1"}', "time is missing"),
        ('{"price": "dear", "time": 1}', "price is 'dear'; expected a number"),
        ("[1]", "expected an object of fields"),
        ("{", "not JSON"),
    ],
)
def test_an_event_that_cannot_be_explained_is_refused_by_name(asked: Asked, event: str, complaint: str) -> None:
    assert complaint in learner("explain", "--model", asked.version, "--event", event, expect=2).stderr

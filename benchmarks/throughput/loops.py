"""The usual ways of learning from a topic, each a process of its own that reads what the worker reads.

    python -m benchmarks.throughput.loops NAME --kafka BOOTSTRAP --topic TOPIC --events N

Prints one JSON object: events, CPU and wall seconds from the first record to the last, peak memory. Models and graphs
are built before the first record is asked for. Every event is a row, labelled 1 where it is a purchase.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np

USER_ROWS, ITEM_ROWS, DIM = 1_000_000, 300_000, 16
HIDDEN = (128, 64)
_POLL_MS = 1000


class Row(msgspec.Struct, gc=False):
    """A record, as a typed decoder reads it."""

    user: str
    item: str
    type: str
    category: str
    price: float
    time: int


Polls = Iterator[list[bytes]]


def kafka_python(bootstrap: str, topic: str, events: int) -> Polls:
    from kafka import KafkaConsumer, TopicPartition

    consumer: Any = KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=5000,
        max_partition_fetch_bytes=4_194_304,
    )
    consumer.assign([TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))])
    try:
        while events > 0:
            values = [r.value for records in consumer.poll(timeout_ms=_POLL_MS).values() for r in records]
            events -= len(values)
            yield values
    finally:
        consumer.close()


def confluent(bootstrap: str, topic: str, events: int) -> Polls:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    settings = {"bootstrap.servers": bootstrap, "group.id": "loop", "enable.auto.commit": False}
    consumer = Consumer(settings | {"check.crcs": True})
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in sorted(partitions)])
    try:
        while events > 0:
            values = [record.value() for record in consumer.consume(5000, _POLL_MS / 1000)]
            events -= len(values)
            yield values
    finally:
        consumer.close()


def poll(values: list[bytes]) -> None:
    """Nothing but having them."""


def decode(values: list[bytes], read: Callable[[bytes], Row]) -> None:
    """Typed rows, then a column a field."""
    rows = list(map(read, values))
    np.array([row.time for row in rows], np.int64)
    np.array([row.price for row in rows], np.float32)
    [[row.user for row in rows], [row.item for row in rows], [row.type for row in rows], [row.category for row in rows]]


def poll_only() -> Callable[[list[bytes]], None]:
    return poll


def poll_decode() -> Callable[[list[bytes]], None]:
    return partial(decode, read=msgspec.json.Decoder(Row).decode)


def tutorial(batch: int = 256) -> Callable[[list[bytes]], None]:
    """`json.loads`, a batch of 256, `train_on_batch` with Adam."""
    import keras

    keras.utils.set_random_seed(1)
    user, item, price = keras.Input((), dtype="int32"), keras.Input((), dtype="int32"), keras.Input((1,))
    vectors = [keras.layers.Embedding(rows, DIM)(one) for rows, one in ((USER_ROWS, user), (ITEM_ROWS, item))]
    out = keras.layers.Concatenate()([*vectors, price])
    for width in HIDDEN:
        out = keras.layers.Dense(width, activation="relu")(out)
    model = keras.Model([user, item, price], keras.layers.Dense(1, activation="sigmoid")(out))
    model.compile(keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
    nothing = np.zeros(batch, np.int32)
    model.train_on_batch([nothing, nothing, np.zeros((batch, 1), np.float32)], np.zeros(batch, np.float32))
    waiting: list[dict[str, Any]] = []

    def learn(values: list[bytes]) -> None:
        for value in values:
            waiting.append(json.loads(value))
            if len(waiting) == batch:
                inputs = [
                    np.array([hash(row["user"]) % USER_ROWS for row in waiting], np.int32),
                    np.array([hash(row["item"]) % ITEM_ROWS for row in waiting], np.int32),
                    np.log1p(np.array([[row["price"]] for row in waiting], np.float32)),
                ]
                model.train_on_batch(inputs, np.array([row["type"] == "purchase" for row in waiting], np.float32))
                waiting.clear()

    return learn


def river() -> Callable[[list[bytes]], None]:
    """Four features, logistic regression, `predict_proba_one` and `learn_one`."""
    from river.linear_model import LogisticRegression
    from river.optim import AdaGrad

    model = LogisticRegression(AdaGrad(0.05), intercept_lr=0.01)
    read = msgspec.json.Decoder(Row).decode

    def learn(values: list[bytes]) -> None:
        for row in map(read, values):
            features = {row.user: 1.0, row.item: 1.0, row.category: 1.0, "price": row.price / 100}
            model.predict_proba_one(features)
            model.learn_one(features, row.type == "purchase")

    return learn


def vw() -> Callable[[list[bytes]], None]:
    """The same four features, one line an event: `learn` predicts first."""
    from vowpalwabbit import Workspace

    model = Workspace("--loss_function logistic --link logistic -b 22 --quiet")
    read = msgspec.json.Decoder(Row).decode

    def learn(values: list[bytes]) -> None:
        for row in map(read, values):
            label = 1 if row.type == "purchase" else -1
            model.learn(f"{label} |u {row.user} |i {row.item} |c {row.category} |p price:{row.price}")

    return learn


CLIENTS = {"kafka-python": kafka_python, "confluent": confluent}
LOOPS: dict[str, Callable[[], Callable[[list[bytes]], None]]] = {
    "poll": poll_only,
    "poll_decode": poll_decode,
    "tutorial_loop": tutorial,
    "river": river,
    "vw": vw,
}


def measure(name: str, polls: Polls) -> dict[str, float]:
    """Takes `polls` to their end."""
    work = LOOPS[name]()
    gc.collect()
    events, began_s, began_cpu_s = 0, time.monotonic(), time.process_time()
    for values in polls:
        if not events:
            began_s, began_cpu_s = time.monotonic(), time.process_time()
        work(values)
        events += len(values)
    return {
        "events": events,
        "cpu_seconds": time.process_time() - began_cpu_s,
        "wall_seconds": time.monotonic() - began_s,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput.loops")
    parser.add_argument("name", choices=LOOPS)
    parser.add_argument("--kafka", required=True, metavar="BOOTSTRAP")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--client", choices=CLIENTS, default="kafka-python")
    args = parser.parse_args()
    print(json.dumps(measure(args.name, CLIENTS[args.client](args.kafka, args.topic, args.events))))


if __name__ == "__main__":
    main()

"""A shop with known truth: click and purchase events to files or to Kafka, drift on demand.

world.py      who and what there is: users, items, tastes, prices, and the drifts that change them
shop.py       sessions, clicks and purchases of that world, column-wise, in order of arrival
reveal.py     what is to come of every click, for the upper bound of learning from delayed labels
outputs.py    JSON lines, a Kafka topic, the side file with the truth
command.py    `stream-learner simulate`
"""

from stream_learner.simulate.command import add_arguments, main
from stream_learner.simulate.outputs import (
    JsonlFiles,
    KafkaTopic,
    TruthFile,
    deliver,
    encode,
    produce_kafka,
    write_jsonl,
)
from stream_learner.simulate.reveal import revealed
from stream_learner.simulate.shop import CANCEL, CLICK, PURCHASE, Shop, ShopEvents, limited
from stream_learner.simulate.world import DRIFT_SIZES, Drift, ShopSettings

__all__ = [
    "CANCEL",
    "CLICK",
    "DRIFT_SIZES",
    "PURCHASE",
    "Drift",
    "JsonlFiles",
    "KafkaTopic",
    "Shop",
    "ShopEvents",
    "ShopSettings",
    "TruthFile",
    "add_arguments",
    "deliver",
    "encode",
    "limited",
    "main",
    "produce_kafka",
    "revealed",
    "write_jsonl",
]

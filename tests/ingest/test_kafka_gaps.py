"""What a worker decides about a real Kafka log that lost records, was made anew, or got partitions; and its replay."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from broker import KafkaBroker
from kafka import TopicPartition
from lives import EPOCH_S, Shown, Worker
from worlds import kafka_settings

from stream_learner import config as configs
from stream_learner.gaps import OnGap
from stream_learner.ingest.kafka import KafkaSource
from stream_learner.ingest.memory import MemorySource
from stream_learner.ingest.positions import GapError
from stream_learner.ingest.source import Partition
from stream_learner.journal import Gap, MemoryJournal, PartitionAdded, Position, Rewound
from stream_learner.settings import Config

pytestmark = pytest.mark.kafka

_DEADLINE_S = 150.0
_PAD = "x" * 20_000  # so that a fetch of 30 kB holds one record, and the client cannot read far ahead
Record = tuple[int, int, bytes]  # partition, record timestamp in ms (-1 = none), value


def config_for(topic: str) -> Config:
    return configs.parse(f"""
topics: {{{topic}: {{types: {{click: click, buy: purchase}}}}}}
slides: {{slide: 10s, allowed_lateness: 3s, max_jump: 1000s}}
dead_letters: {{max_rate: 1}}
aggregates: {{windows: [1m]}}
""")


def clicks(first: int, count: int, partition: int = 0, pad: str = "") -> list[Any]:
    """A click a second, as (partition, value, timestamp in ms)."""
    seconds = range(first, first + count)
    shared = {"user": "u", "item": "i", "type": "click", "pad": pad}
    times = [(EPOCH_S + s) * 1000 for s in seconds]
    return [(partition, json.dumps({**shared, "time": t}).encode(), t) for t in times]


class Log:
    """A topic, and a copy of all that was ever written to it."""

    def __init__(self, kafka: KafkaBroker, partitions: int = 1) -> None:
        self.kafka = kafka
        self.topic = kafka.topic(partitions)
        self.copy: dict[Partition, list[tuple[int, int, bytes]]] = {self.at(n): [] for n in range(partitions)}

    def at(self, index: int) -> Partition:
        return Partition(self.topic, index)

    def produce(self, records: list[Any]) -> None:
        self.kafka.produce(self.topic, records)
        for index, value, timestamp in records:
            mine = self.copy.setdefault(self.at(index), [])
            mine.append((len(mine), timestamp, value))

    def delete_before(self, offset: int) -> None:
        with self.kafka.admin() as admin:
            admin.delete_records({TopicPartition(self.topic, 0): offset})

    def recreate(self) -> None:
        with self.kafka.admin() as admin:
            admin.delete_topics([self.topic])
        patient(lambda: self.topic not in self._topics())
        self.kafka.create(self.topic)

    def _topics(self) -> list[str]:
        with self.kafka.admin() as admin:
            return list(admin.list_topics())


def patient(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


Open = Callable[..., Worker]


@pytest.fixture(params=["kafka-python", "confluent"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Makes workers on a log; their sources are closed at the end."""
    sources: list[KafkaSource] = []

    def open_one(log: Log, journal: MemoryJournal, on_gap: OnGap = "stop", **options: Any) -> Worker:
        state, until_end = options.pop("state", None), options.pop("until_end", False)
        deadline = time.monotonic() + options.pop("deadline_s", _DEADLINE_S)
        settings = kafka_settings(log.kafka.bootstrap, client=request.param, **options)
        sources.append(KafkaSource(settings, [log.topic]))

        def turn(_: Worker) -> bool:
            assert time.monotonic() < deadline, "the intake is stuck"
            return True

        return Worker(config_for(log.topic), sources[-1], journal, until_end, state, turn, on_gap=on_gap)

    yield open_one
    for source in sources:
        source.close()


def slides(life: Worker, count: int) -> Worker:
    while len(life.slides) < count:
        assert life.next()
    return life


def replayed(log: Log, journal: MemoryJournal) -> list[Shown]:
    """The whole log again, from a copy, under the journal."""
    again = Worker(config_for(log.topic), MemorySource(log.copy, 9), MemoryJournal(journal.entries), until_end=True)
    return again.all()


def test_retention_overtakes_a_running_worker_that_goes_on(apache_kafka: KafkaBroker, opened: Open) -> None:
    log, journal = Log(apache_kafka), MemoryJournal()
    log.produce(clicks(0, 200, pad=_PAD))
    few = {"queue_records": 5, "max_poll_records": 1, "fetch_max_bytes": 30_000}
    live = slides(opened(log, journal, "skip", **few), 2)
    log.delete_before(150)
    log.produce(clicks(200, 20))
    slides(live, 5)
    gap = journal.entries[1]
    assert isinstance(gap, Gap) and gap.until == 150 and 20 < gap.partition.offset < 100
    assert live.kept[0]["intake"]["positions"] == [[log.topic, 0, gap.partition.offset]]
    assert live.tally.skipped == 150 - gap.partition.offset
    resumed = slides(opened(log, MemoryJournal(journal.entries), state=live.kept[0]), 3)
    assert live.slides_when_kept[0] + resumed.slides[: len(live.slides) - len(live.slides_when_kept[0])] == live.slides
    assert replayed(log, journal)[: len(live.slides)] == live.slides


@pytest.mark.parametrize("running", [False, True])
def test_a_topic_made_anew_is_rewound_when_asked(apache_kafka: KafkaBroker, opened: Open, running: bool) -> None:
    """The new log is longer than the old one was: only the topic's id tells."""
    log, journal = Log(apache_kafka), MemoryJournal()
    log.produce(clicks(0, 50))
    live = slides(opened(log, journal, "rewind"), 4)
    patient(lambda: live.intake.positions[log.at(0)] == 50 or live.intake._read() or False)
    if not running:
        live.source.close()
    log.recreate()
    log.produce(clicks(50, 70))
    if running:
        slides(live, 11)
    else:
        for on_gap in ("stop", "skip"):
            with pytest.raises(
                GapError, match=r"deleted and created again.*--on-gap rewind, which goes on at .*offset 0"
            ):
                opened(log, journal, on_gap, state=live.capture())
        live = slides(opened(log, journal, "rewind", state=live.capture()), 7)
    assert journal.entries[1:] == (
        Rewound(slide=4, old=(Position(log.topic, 0, 50),), new=(Position(log.topic, 0, 0),)),
    )
    ends = [slide[2] // 1_000_000 - EPOCH_S for slide in live.slides]
    assert ends[-7:] == list(range(50, 120, 10))
    assert live.tally.late == 0


def test_partitions_added_while_running_are_read_and_a_replay_does_the_same(
    apache_kafka: KafkaBroker, opened: Open
) -> None:
    log, journal = Log(apache_kafka), MemoryJournal()
    log.produce(clicks(0, 40))
    live = slides(opened(log, journal), 2)
    apache_kafka.grow(log.topic, 2)
    patient(lambda: len(live.intake.positions) == 2 or live.intake._read() or False)
    log.produce(clicks(40, 60) + clicks(40, 60, partition=1))
    slides(live, 9)
    added = journal.entries[1]
    assert isinstance(added, PartitionAdded) and added.partition == Position(log.topic, 1, 0)
    assert {event[2] for slide in live.slides[5:] for event in slide[3]} == {0, 1}
    assert replayed(log, journal)[: len(live.slides)] == live.slides
    fresh = opened(log, MemoryJournal(journal.entries), until_end=True)  # from Kafka too, where both are there at once
    assert fresh.all()[: len(live.slides)] == live.slides

"""KafkaSource against a real broker: transactions, back-pressure, outages, logs that change under our feet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import kafka
import pytest
from broker import SASL_PASSWORD, SASL_USER, ApacheKafka, KafkaBroker
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata
from worlds import kafka_settings, row

from stream_learner import settings
from stream_learner.errors import ConfigError, DataError, FatalError, UnavailableError
from stream_learner.ingest.kafka import KafkaSource
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.settings import Duration, Secret

pytestmark = pytest.mark.kafka

_DEADLINE_S = 30.0
Open = Callable[..., KafkaSource]


CLIENTS = ("kafka-python", "confluent")


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Each client that may stand behind the source."""
    return str(request.param)


@pytest.fixture
def opened(client: str) -> Iterator[Open]:
    """Makes sources and closes them."""
    sources: list[KafkaSource] = []

    def open_one(bootstrap: str, topic: str, **options: Any) -> KafkaSource:
        sources.append(KafkaSource(kafka_settings(bootstrap, client=client, **options), [topic]))
        return sources[-1]

    yield open_one
    for source in sources:
        source.close()


def wait_until(true: Callable[[], bool], deadline_s: float = _DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def read_to_end(source: KafkaSource, begin: Mapping[Partition, int]) -> list[RecordBatch]:
    batches: list[RecordBatch] = []
    deadline = time.monotonic() + _DEADLINE_S
    while not source.ended() >= set(begin):
        assert time.monotonic() < deadline
        batch = source.poll(set(begin), 0.2)
        batches += [batch] if batch is not None else []
    return batches


def read(source: KafkaSource, begin: Mapping[Partition, int], count: int) -> list[RecordBatch]:
    batches: list[RecordBatch] = []
    deadline = time.monotonic() + _DEADLINE_S
    while sum(map(len, batches)) < count:
        assert time.monotonic() < deadline
        batch = source.poll(set(begin), 0.2)
        batches += [batch] if batch is not None else []
    return batches


def values(batches: list[RecordBatch]) -> list[bytes | None]:
    return [value for batch in batches for value in batch.values]


def numbered(count: int, first: int = 0, partition: int = 0) -> list[tuple[int, bytes | None, int | None]]:
    return [(partition, row(n), 1000 + n) for n in range(first, first + count)]


# Transactions.


def transaction(broker: KafkaBroker, topic: str, count: int, first: int, *, commit: bool) -> None:
    producer = broker.producer(transactional_id=f"{topic}-{first}")
    producer.init_transactions()
    producer.begin_transaction()
    for n in range(first, first + count):
        producer.send(topic, value=row(n), partition=0)
    producer.flush()
    producer.commit_transaction() if commit else producer.abort_transaction()
    producer.close(timeout=5)


def test_aborted_transactions_are_not_seen_and_markers_are_passed(kafka: KafkaBroker, opened: Open) -> None:
    topic = kafka.topic()
    transaction(kafka, topic, 5, 0, commit=True)  # offsets 0-4, marker 5
    transaction(kafka, topic, 5, 100, commit=False)  # 6-10, marker 11
    transaction(kafka, topic, 5, 200, commit=True)  # 12-16, marker 17
    transaction(kafka, topic, 5, 300, commit=False)  # 18-22, marker 23
    source = opened(kafka.bootstrap, topic)
    begin = source.start(None, until_end=True)
    batches = read_to_end(source, begin)
    assert values(batches) == [row(n) for n in (*range(5), *range(200, 205))]
    assert [n for b in batches for n in b.offsets.tolist()] == [*range(5), *range(12, 17)]
    assert batches[-1].next_offset == 24


def test_a_log_of_aborted_records_only_ends(kafka: KafkaBroker, opened: Open) -> None:
    topic = kafka.topic()
    transaction(kafka, topic, 5, 0, commit=False)
    source = opened(kafka.bootstrap, topic)
    batches = read_to_end(source, source.start(None, until_end=True))
    assert values(batches) == []
    assert batches[-1].next_offset == 6


def test_an_open_transaction_keeps_a_partition_awake(kafka: KafkaBroker, opened: Open) -> None:
    topic = kafka.topic()
    producer = kafka.producer(transactional_id=f"{topic}-open")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, value=row(0), partition=0).get(timeout=10)
    source = opened(kafka.bootstrap, topic)
    begin = source.start(None, until_end=False)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        assert source.poll(set(begin), 0.1) is None
        assert source.idle_s(Partition(topic, 0)) == 0.0
    producer.commit_transaction()
    producer.close(timeout=5)
    assert values(read(source, begin, 1)) == [row(0)]


# Back-pressure.


def test_a_full_queue_pauses_the_partition_and_a_drained_one_resumes(kafka: KafkaBroker, opened: Open) -> None:
    topic = kafka.topic(2)
    kafka.produce(topic, numbered(3000) + numbered(3000, partition=1))
    source = opened(kafka.bootstrap, topic, queue_records=200, max_poll_records=50)
    begin = source.start(None, until_end=True)
    time.sleep(1.5)
    waiting = {p: lane.waiting for p, lane in source._lanes._lanes.items()}
    assert all(200 <= n < 250 for n in waiting.values()), waiting
    one = {Partition(topic, 1): 0}
    assert values(read(source, one, 3000)) == [row(n) for n in range(3000)]  # with partition 0 full all the while
    assert source.lag()[Partition(topic, 0)] == 3000
    assert values(read_to_end(source, begin)) == [row(n) for n in range(3000)]


def test_a_worker_that_is_busy_for_long_loses_nothing(kafka: KafkaBroker, opened: Open) -> None:
    topic = kafka.topic()
    kafka.produce(topic, numbered(1000))
    # Limits a member of a group would break by being away: nobody throws out an assigned consumer.
    limits = {"max_poll_interval_ms": 1000, "session_timeout_ms": 1000, "heartbeat_interval_ms": 300}
    source = opened(kafka.bootstrap, topic, queue_records=100, max_poll_records=20, options=limits)
    begin = source.start(None, until_end=True)
    first = read(source, begin, 40)
    time.sleep(4.0)
    assert values(first + read_to_end(source, begin)) == [row(n) for n in range(1000)]


@pytest.mark.parametrize(("poll", "queue"), [(1, 1), (3, 10), (40, 50), (5000, 20_000)])
def test_poll_and_queue_sizes_do_not_show(kafka: KafkaBroker, opened: Open, poll: int, queue: int) -> None:
    topic = kafka.topic(3)
    kafka.produce(topic, [(n % 3, row(n), 1000 + n) for n in range(300)])
    source = opened(kafka.bootstrap, topic, max_poll_records=poll, queue_records=queue, fetch_max_bytes=1024)
    batches = read_to_end(source, source.start(None, until_end=True))
    for index in range(3):
        mine = [batch for batch in batches if batch.partition.index == index]
        assert values(mine) == [row(n) for n in range(index, 300, 3)]
        assert [t for b in mine for t in b.timestamps.tolist()] == list(range(1000 + index, 1300, 3))


# What others see.


def test_commits_are_seen_by_lag_tools(kafka: KafkaBroker, opened: Open) -> None:
    topic = kafka.topic(2)
    kafka.produce(topic, numbered(10))
    source = opened(kafka.bootstrap, topic, group_id=f"group-{topic}")
    source.start(None, until_end=False)
    source.commit({Partition(topic, 0): 7})
    source.commit({Partition(topic, 0): 10, Partition(topic, 1): 0})
    source.close()  # the last word is sent before the connection goes
    with kafka.admin() as admin:
        (offsets,) = admin.list_group_offsets(f"group-{topic}").values()
    assert {tp.partition: found.offset for tp, found in offsets.items()} == {0: 10, 1: 0}
    assert source.group.commit_failures == 0


def test_committed_offsets_do_not_decide_where_reading_starts(kafka: KafkaBroker, opened: Open) -> None:
    topic = kafka.topic()
    kafka.produce(topic, numbered(10))
    first = opened(kafka.bootstrap, topic, group_id=f"group-{topic}")
    first.start(None, until_end=False)
    first.commit({Partition(topic, 0): 7})
    first.close()
    second = opened(kafka.bootstrap, topic, group_id=f"group-{topic}")
    assert second.start(None, until_end=True) == {Partition(topic, 0): 0}


def test_others_in_the_group_are_reported(
    apache_kafka: KafkaBroker, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    topic, group = apache_kafka.topic(), f"group-{apache_kafka.topic()}"
    apache_kafka.produce(topic, numbered(10))
    source = opened(apache_kafka.bootstrap, topic, group_id=group)
    begin = source.start(None, until_end=False)
    read(source, begin, 10)
    source.commit({Partition(topic, 0): 5})
    wait_until(lambda: bool(source.group._committed))
    with apache_kafka.admin() as admin:
        admin.alter_group_offsets(group, {TopicPartition(topic, 0): OffsetAndMetadata(2, "", -1)})
    wait_until(lambda: source.group.foreign_commits == 1)
    assert "somebody else committed offset 2" in caplog.text and "(this worker: 5)" in caplog.text

    options = {"bootstrap_servers": apache_kafka.bootstrap, "group_id": group, "client_id": "a-dashboard"}
    stranger = kafka.KafkaConsumer(topic, **options)
    try:

        def joined() -> bool:
            stranger.poll(timeout_ms=100)
            return source.group.foreign_members == 1

        wait_until(joined)
        assert f"consumer group {group} has 1 member(s)" in caplog.text and "a-dashboard at" in caplog.text
        source.commit({Partition(topic, 0): 10})
        wait_until(lambda: source.group.commit_failures > 0)
    finally:
        stranger.close()
    wait_until(lambda: source.group.foreign_members == 0)
    source.commit({Partition(topic, 0): 10})
    wait_until(lambda: source.group._committed[Partition(topic, 0)] == 10)


def test_idle_time_grows_while_the_topic_is_quiet(kafka: KafkaBroker, opened: Open) -> None:
    topic = kafka.topic()
    kafka.produce(topic, numbered(10))
    source = opened(kafka.bootstrap, topic)
    begin = source.start(None, until_end=False)
    wait_until(lambda: source.lag()[Partition(topic, 0)] == 10)
    time.sleep(1.5)
    assert source.idle_s(Partition(topic, 0)) == 0.0  # records are waiting here
    read(source, begin, 10)
    before = time.monotonic()
    wait_until(lambda: source.idle_s(Partition(topic, 0)) >= 2.0)
    assert time.monotonic() - before >= 1.9
    kafka.produce(topic, numbered(1, first=10))
    read(source, begin, 1)
    assert source.idle_s(Partition(topic, 0)) == 0.0


# Logs that are not what they were.


def test_a_position_that_retention_has_overtaken_is_an_error(kafka: KafkaBroker, opened: Open) -> None:
    topic = kafka.topic()
    kafka.produce(topic, numbered(100))
    with kafka.admin() as admin:
        admin.delete_records({TopicPartition(topic, 0): 60})
    with pytest.raises(DataError, match=rf"{topic}/0: position 59 lies before the log, \[60, 100\]"):
        opened(kafka.bootstrap, topic).start({Partition(topic, 0): 59}, until_end=False)
    source = opened(kafka.bootstrap, topic)
    assert source.start(None, until_end=True) == {Partition(topic, 0): 60}


def test_retention_overtaking_a_running_reader_is_an_error(apache_kafka: KafkaBroker, opened: Open) -> None:
    topic = apache_kafka.topic()
    apache_kafka.produce(topic, [(0, bytes(20_000), None) for _ in range(200)])
    source = opened(apache_kafka.bootstrap, topic, queue_records=5, max_poll_records=1, fetch_max_bytes=30_000)
    begin = source.start(None, until_end=False)
    read(source, begin, 1)
    with apache_kafka.admin() as admin:
        admin.delete_records({TopicPartition(topic, 0): 200})
    apache_kafka.produce(topic, [(0, row(0), None)])
    with pytest.raises(DataError, match=r"lies before the log, \[200"):
        read(source, begin, 200)


def test_a_topic_made_anew_while_it_is_read_is_an_error(apache_kafka: KafkaBroker, opened: Open) -> None:
    topic = apache_kafka.topic()
    apache_kafka.produce(topic, numbered(20))
    source = opened(apache_kafka.bootstrap, topic)
    begin = source.start(None, until_end=False)
    read(source, begin, 20)
    with apache_kafka.admin() as admin:
        admin.delete_topics([topic])
    wait_until(lambda: _gone(apache_kafka, topic))
    apache_kafka.create(topic)
    apache_kafka.produce(topic, numbered(50, first=1000))  # grown past the old position: nothing but the id tells
    with pytest.raises(DataError, match=r"created again|lies beyond"):
        read(source, begin, 1000)


def _gone(kafka: KafkaBroker, topic: str) -> bool:
    with kafka.admin() as admin:
        return topic not in admin.list_topics()


# Wrong settings.


def test_a_topic_that_the_broker_knows_a_little_later_is_waited_for(apache_kafka: KafkaBroker, opened: Open) -> None:
    """As right after the broker's own start."""
    topic = f"late-{time.time_ns()}"
    source = opened(apache_kafka.bootstrap, topic)
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(source.start, None, until_end=False)
        wait_until(lambda: source._unknown_since is not None)
        apache_kafka.create(topic, 2)
        assert started.result(_DEADLINE_S) == {Partition(topic, 0): 0, Partition(topic, 1): 0}


def test_a_topic_that_does_not_exist_is_a_config_error_and_is_not_created(
    apache_kafka: KafkaBroker, opened: Open
) -> None:
    with pytest.raises(ConfigError, match="no-such-topic not found"):
        opened(apache_kafka.bootstrap, "no-such-topic").start(None, until_end=False)
    assert _gone(apache_kafka, "no-such-topic")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fetch_min_bites": 1}, "fetch_min_bites: not an option"),
        ({"group_id": "x"}, "group_id: set by the worker itself"),
        ({"isolation_level": "read_uncommitted"}, "isolation_level: set by the worker"),
        ({"security_protocol": "NONSENSE"}, "security_protocol"),
        ({"request_timeout_ms": 1}, "request_timeout_ms"),
        ({"security_protocol": "SSL", "ssl_cafile": "/no/such/file"}, "No such file"),
    ],
)
def test_bad_options_are_config_errors(kafka: KafkaBroker, client: str, options: dict[str, Any], message: str) -> None:
    source = None
    with pytest.raises(ConfigError, match=message):
        source = KafkaSource(kafka_settings(kafka.bootstrap, client=client, options=options), ["events"])
        source.start(None, until_end=False)
    if source is not None:
        source.close()


def _sasl(**options: Any) -> dict[str, Any]:
    plain = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": SASL_USER}
    return plain | {"sasl_plain_password": Secret(SASL_PASSWORD)} | options


def test_sasl_options_are_passed_through(kafka: KafkaBroker, opened: Open) -> None:
    if kafka.server.sasl_bootstrap is None:
        pytest.skip("this broker has no SASL listener")
    topic = kafka.topic()
    kafka.produce(topic, numbered(5))
    source = opened(kafka.server.sasl_bootstrap, topic, options=_sasl())
    assert len(values(read_to_end(source, source.start(None, until_end=True)))) == 5


def test_a_refused_password_names_the_options(kafka: KafkaBroker, opened: Open) -> None:
    """A ConfigError, unless the broker hangs up each time before the client has read its refusal."""
    if kafka.server.sasl_bootstrap is None:
        pytest.skip("this broker has no SASL listener")
    options = _sasl(sasl_plain_password="guess")
    source = opened(kafka.server.sasl_bootstrap, "events", options=options, retry_timeout=Duration(10_000_000))
    with pytest.raises(FatalError, match=r"source\.kafka\.options"):
        source.start(None, until_end=False)


def test_an_unknown_mechanism_is_said_to_be_one(kafka: KafkaBroker, opened: Open) -> None:
    """The broker may hang up before its answer is read: then it ends as unavailable, with the hint."""
    if kafka.server.sasl_bootstrap is None:
        pytest.skip("this broker has no SASL listener")
    options = _sasl(sasl_mechanism="SCRAM-SHA-256")
    source = opened(kafka.server.sasl_bootstrap, "events", options=options, retry_timeout=Duration(1_000_000))
    with pytest.raises(FatalError, match=r"source\.kafka\.options|UnsupportedSaslMechanism"):
        source.start(None, until_end=False)


# A broker that is away.


def test_no_broker_is_unavailable_after_the_deadline(client: str) -> None:
    source = KafkaSource(kafka_settings("127.0.0.1:1", client=client, retry_timeout=Duration(1_000_000)), ["events"])
    with pytest.raises(UnavailableError, match="retry_timeout"):
        source.start(None, until_end=False)
    source.close()


def test_close_ends_a_start_that_waits(client: str) -> None:
    source = KafkaSource(kafka_settings("127.0.0.1:1", client=client, retry_timeout=Duration(600_000_000)), ["events"])
    errors: list[FatalError] = []

    def begin() -> None:
        try:
            source.start(None, until_end=False)
        except FatalError as error:
            errors.append(error)

    thread = threading.Thread(target=begin)
    thread.start()
    time.sleep(0.3)
    source.close()
    thread.join(6.0)
    assert not thread.is_alive()
    assert isinstance(errors[0], UnavailableError)


def test_a_source_that_never_got_to_read_can_be_closed_twice(kafka: KafkaBroker, client: str) -> None:
    source = KafkaSource(kafka_settings(kafka.bootstrap, client=client), [topic := kafka.topic()])
    with pytest.raises(DataError, match="no such partition"):
        source.start({Partition(topic, 7): 0}, until_end=False)
    source.close()
    source.close()


def test_a_broker_that_restarts_or_hangs(own_kafka: KafkaBroker, client: str) -> None:
    """One broker's life: stopped and started (nothing lost, nothing twice), hung (nobody idle, a quick close)."""
    server = own_kafka.server
    assert isinstance(server, ApacheKafka)
    topic = own_kafka.topic()
    own_kafka.produce(topic, numbered(100))
    patient = kafka_settings(own_kafka.bootstrap, client=client, retry_timeout=Duration(60_000_000))
    source = KafkaSource(patient, [topic])
    begin = source.start(None, until_end=False)
    got = read(source, begin, 100)

    server.stop()
    outage = time.monotonic() + 1.5
    while time.monotonic() < outage:
        assert source.poll(set(begin), 0.1) is None
    server.start()
    own_kafka.produce(topic, numbered(100, first=100))
    got += read(source, begin, 100)
    assert values(got) == [row(n) for n in range(200)]

    wait_until(lambda: source.idle_s(Partition(topic, 0)) > 0.0)
    server.freeze()
    source.commit({Partition(topic, 0): 200})
    wait_until(lambda: source.idle_s(Partition(topic, 0)) == 0.0)
    before = time.monotonic()
    source.close()
    assert time.monotonic() - before < 4.0
    server.thaw()


def test_a_broker_that_hangs_for_too_long_is_unavailable(own_kafka: KafkaBroker, client: str) -> None:
    server = own_kafka.server
    assert isinstance(server, ApacheKafka)
    topic = own_kafka.topic()
    hasty = kafka_settings(own_kafka.bootstrap, client=client, retry_timeout=Duration(3_000_000))
    source = KafkaSource(hasty, [topic])
    begin = source.start(None, until_end=False)
    server.freeze()
    before = time.monotonic()
    with pytest.raises(UnavailableError, match="retry_timeout"):
        while time.monotonic() - before < _DEADLINE_S:
            assert source.poll(set(begin), 0.2) is None
    source.close()
    server.thaw()


def test_settings_are_the_ones_in_use(client: Literal["kafka-python", "confluent"]) -> None:
    """The defaults a worker runs with by itself can be opened: no option of ours is unknown to the client."""
    KafkaSource(settings.Source(kind="kafka", kafka=settings.KafkaSource(client=client)), ["events"]).close()


def test_an_option_that_confluent_has_no_word_for_is_told() -> None:
    socks = kafka_settings("127.0.0.1:1", client="confluent", options={"socks5_proxy": "socks5://127.0.0.1:1"})
    with pytest.raises(ConfigError, match=r"options\.socks5_proxy: confluent-kafka has no counterpart.*kafka-python"):
        KafkaSource(socks, ["events"])


def test_a_state_may_change_clients(kafka: KafkaBroker) -> None:
    """Positions and topic ids of one are those of the other."""
    topic = kafka.topic()
    kafka.produce(topic, numbered(20))
    positions: dict[Partition, int] | None = None
    ids: dict[str, str] = {}
    for turn, name in enumerate(CLIENTS * 2):
        source = KafkaSource(kafka_settings(kafka.bootstrap, client=name), [topic])
        source.start(positions, until_end=False, topic_ids=ids)
        batches = read(source, {Partition(topic, 0): 0}, 1)
        assert batches[0].offsets[0] == turn
        positions, ids = {Partition(topic, 0): turn + 1}, source.topic_ids()
        source.close()

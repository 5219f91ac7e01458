"""What archive writes is read back as the log it came from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from broker import KafkaBroker

from stream_learner import settings
from stream_learner.archive import archive
from stream_learner.errors import ConfigError, StreamLearnerError, UnavailableError
from stream_learner.ingest.files import FilesSource
from stream_learner.ingest.kafka import KafkaSource
from stream_learner.ingest.memory import MemoryRecord, MemorySource
from stream_learner.ingest.opening import open_source
from stream_learner.ingest.source import Partition, RecordBatch, Source

LOGS: dict[Partition, list[MemoryRecord]] = {
    Partition("buys", 0): [(n, 1000 + n, b'{"n":%d}' % n) for n in range(2500)],
    Partition("clicks", 0): [(10, -1, b"\x00\xff not text"), (12, 5, None), (13, 5, b"")],
    Partition("clicks", 2): [],
    Partition("clicks", 11): [(2**40, 2**40, "käse".encode())],
}
FORMS = pytest.mark.parametrize("parquet", [False, True], ids=["jsonl.gz", "parquet"])


def config(**source: Any) -> settings.Config:
    return settings.Config(
        source=settings.Source(**source), topics={"clicks": settings.Topic(), "buys": settings.Topic()}
    )


def replayed(folder: Path, *topics: str) -> FilesSource:
    files = settings.FilesSource(path=str(folder))
    return FilesSource(settings.Source(files=files), topics)


def contents(source: Source) -> dict[Partition, list[MemoryRecord]]:
    """Every record of a bounded read, by partition."""
    begin = source.start(None, until_end=True)
    found: dict[Partition, list[MemoryRecord]] = {partition: [] for partition in begin}
    while not source.ended() >= set(begin):
        batch: RecordBatch | None = source.poll(set(begin), 1.0)
        if batch is not None:
            rows = zip(batch.offsets.tolist(), batch.timestamps.tolist(), batch.values, strict=True)
            found[batch.partition] += rows
    source.close()
    return found


@FORMS
def test_records_offsets_and_timestamps_come_back(tmp_path: Path, parquet: bool) -> None:
    counts = archive(config(), tmp_path / "out", parquet=parquet, source=MemorySource(LOGS, 100))
    assert counts == {partition: len(records) for partition, records in LOGS.items()}
    assert contents(replayed(tmp_path / "out", "clicks", "buys")) == LOGS


@FORMS
def test_one_topic_of_an_archive_can_be_read_alone(tmp_path: Path, parquet: bool) -> None:
    archive(config(), tmp_path / "out", parquet=parquet, source=MemorySource(LOGS))
    expected = {p: records for p, records in LOGS.items() if p.topic == "clicks"}
    assert contents(replayed(tmp_path / "out", "clicks")) == expected
    assert contents(replayed(tmp_path / "out" / "clicks", "clicks")) == expected  # and without the index


@FORMS
def test_the_size_of_polls_does_not_show_in_what_is_read(tmp_path: Path, parquet: bool) -> None:
    for batch_records in (1, 7, 1000):
        folder = tmp_path / str(batch_records)
        archive(config(), folder, parquet=parquet, source=MemorySource(LOGS, batch_records))
        assert contents(replayed(folder, "clicks", "buys")) == LOGS


def test_equal_logs_give_equal_files(tmp_path: Path) -> None:
    for name, batch_records in (("a", 100), ("b", 1000)):
        archive(config(), tmp_path / name, source=MemorySource(LOGS, batch_records))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    for name in files:
        content = [(tmp_path / side / name).read_bytes() for side in "ab"]
        if name.suffix == ".gz":
            content = [gzip.decompress(body) for body in content]
        assert content[0] == content[1], name


def test_the_layout(tmp_path: Path) -> None:
    archive(config(), tmp_path / "out", source=MemorySource(LOGS))
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert names == [
        "archive.json",
        "buys/0.jsonl.gz",
        "clicks/0.jsonl.gz",
        "clicks/11.jsonl.gz",
        "clicks/2.jsonl.gz",
    ]
    first = gzip.decompress((tmp_path / "out/clicks/0.jsonl.gz").read_bytes()).splitlines()[0]
    assert json.loads(first) == {
        "topic": "clicks",
        "partition": 0,
        "offset": 10,
        "timestamp": -1,
        "value": "AP8gbm90IHRleHQ=",
    }
    index = json.loads((tmp_path / "out/archive.json").read_bytes())
    assert index["topics"]["clicks"]["0"] == {"begin": 10, "end": 14, "records": 3}


def test_an_archive_of_an_archive_is_the_same(tmp_path: Path) -> None:
    archive(config(), tmp_path / "first", source=MemorySource(LOGS))
    archive(config(files=settings.FilesSource(path=str(tmp_path / "first"))), tmp_path / "second")
    assert (tmp_path / "first/archive.json").read_bytes() == (tmp_path / "second/archive.json").read_bytes()
    assert contents(replayed(tmp_path / "second", "clicks", "buys")) == LOGS


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="is not empty"):
        archive(config(), tmp_path, source=MemorySource(LOGS))


def test_progress_ends_with_nothing_left(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    source = MemorySource(LOGS, 1000)
    archive(config(), tmp_path / "out", source=source, progress=lambda done, left: told.append((done, left)))
    total = sum(map(len, LOGS.values()))
    assert told[-1] == (total, 0)
    assert all(done + left == total for done, left in told)


class FailingSource(MemorySource):
    """Its broker goes away after the first records."""

    def poll(self, wanted: Any, timeout_s: float) -> RecordBatch | None:
        if any(log.taken for log in self._logs.values()):
            raise UnavailableError("gone")
        return super().poll(wanted, timeout_s)


def test_an_archive_cut_short_does_not_look_whole(tmp_path: Path) -> None:
    with pytest.raises(StreamLearnerError, match="gone"):
        archive(config(), tmp_path / "out", source=FailingSource(LOGS, 100))
    assert not (tmp_path / "out/archive.json").exists()
    assert not list((tmp_path / "out").rglob("*.gz"))
    with pytest.raises(ConfigError, match="holds no partition"):
        replayed(tmp_path / "out", "clicks", "buys").start(None, until_end=True)


@pytest.mark.kafka
@FORMS
def test_a_topic_replays_from_its_archive(kafka: KafkaBroker, tmp_path: Path, parquet: bool) -> None:
    topic = kafka.topic(4)
    kafka.produce(topic, [(n % 3, None if n % 50 == 0 else b"%d" % n, 1000 + n) for n in range(600)])
    producer = kafka.producer(transactional_id=f"{topic}-archive")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, value=b"never seen", partition=1)
    producer.flush()
    producer.abort_transaction()
    producer.close(timeout=5)
    live = settings.Source(kind="kafka", kafka=settings.KafkaSource(bootstrap_servers=kafka.bootstrap))
    made = settings.Config(source=live, topics={topic: settings.Topic()})
    archive(made, tmp_path / "out", parquet=parquet)
    assert contents(replayed(tmp_path / "out", topic)) == contents(KafkaSource(live, [topic]))
    span = json.loads((tmp_path / "out/archive.json").read_bytes())["topics"][topic]
    assert span["1"] == {"begin": 0, "end": 202, "records": 200}  # past the aborted record and its marker
    assert span["3"] == {"begin": 0, "end": 0, "records": 0}


def test_open_source_takes_the_kind_and_the_topics(tmp_path: Path) -> None:
    made = open_source(config(files=settings.FilesSource(path=str(tmp_path))))
    assert isinstance(made, FilesSource)
    made = open_source(config(kind="kafka"))
    assert isinstance(made, KafkaSource)
    made.close()

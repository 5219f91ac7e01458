"""A worker ten times slower than its producer: nothing grows, nothing is lost, the lag is told, the backlog drained."""

from __future__ import annotations

import pytest
from broker import KafkaBroker
from lives import Worker
from test_kafka_gaps import Log, Open, clicks, opened, patient

from stream_learner.journal import MemoryJournal
from stream_learner.observing.metric_list import resident_bytes

__all__ = ["opened"]  # the fixture

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1800)]

QUEUE, POLL, PARTITIONS = 50, 20, 2
SLOWER = 10  # slides the producer writes while the worker learns one
SLIDE_S = 10  # a click a second and partition
PAD = "x" * 2000
GROWTH_BYTES = 48e6  # far below the backlog, far above what an allocator keeps for itself


def ahead(life: Worker, log: Log, slide: int) -> None:
    """The producer writes the next `SLOWER` slides."""
    first, count = slide * SLOWER * SLIDE_S, SLOWER * SLIDE_S
    records = [clicks(first, count, partition, PAD) for partition in range(PARTITIONS)]
    log.kafka.produce(log.topic, [record for pair in zip(*records, strict=True) for record in pair])


@pytest.mark.parametrize("slides", [15, pytest.param(600, marks=pytest.mark.long)])
def test_a_slow_worker_holds_no_more_than_its_bounds_and_drains_the_backlog(
    kafka: KafkaBroker, opened: Open, slides: int
) -> None:
    """Counted in events, not in minutes: each slide learned stands for the time in which ten are written."""
    log = Log(kafka, PARTITIONS)
    life = opened(log, MemoryJournal(), queue_records=QUEUE, max_poll_records=POLL, deadline_s=1500.0)
    bound, written, warm = PARTITIONS * (QUEUE + POLL), 0, 0.0
    for slide in range(slides):
        ahead(life, log, slide)
        written += PARTITIONS * SLOWER * SLIDE_S
        assert life.next()
        life.slides.clear()
        assert life.source.waiting()[0] <= bound
        assert len(life.intake.slides) <= bound + 2 * PARTITIONS * SLIDE_S
        warm = resident_bytes() if slide == slides // 3 else warm
    assert resident_bytes() - warm < GROWTH_BYTES
    patient(lambda: sum(life.source.lag().values()) == written - life.tally.consumed)
    assert sum(life.source.lag().values()) > written * (1 - 2 / SLOWER)

    while life.tally.accepted < written - 2 * PARTITIONS * SLIDE_S:  # the last slides stay open: more may come
        assert life.next()
    patient(lambda: life.tally.consumed == written or life.intake._read() or False)
    assert life.tally.accepted + len(life.intake.slides) == written
    assert life.tally.late == life.tally.dead == life.tally.skipped == 0
    patient(lambda: sum(life.source.lag().values()) == 0)

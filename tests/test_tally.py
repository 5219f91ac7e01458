"""Every record has one fate, and counts survive a restart."""

from __future__ import annotations

import copy
import json

import numpy as np

from stream_learner.events import EventBatch, EventSchema
from stream_learner.ingest.dead_letters import DeadLetter
from stream_learner.ingest.decode import Decoded
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.tally import Tally

SCHEMA = EventSchema(topics=("a", "b:c"), kinds=("click", "purchase"), ids=("user", "item", "session"), numbers=())


def batch(topic: str, records: int) -> RecordBatch:
    offsets = np.arange(records, dtype=np.int64)
    return RecordBatch(Partition(topic, 0), offsets, offsets, [b""] * records, records)


def decoded(ignored: int) -> Decoded:
    return Decoded(EventBatch.empty(SCHEMA), np.empty(0, np.int64), [], ignored)


def letters(*reasons: str) -> list[DeadLetter]:
    return [DeadLetter(reason, "", "a", 0, 0, -1, b"") for reason in reasons]


def events(*places: tuple[int, int, int, int]) -> EventBatch:
    """Events at (time, topic, partition, offset)."""
    columns = np.array(places, np.int64).reshape(-1, 4)
    n = len(columns)
    return EventBatch(
        time=columns[:, 0],
        topic=columns[:, 1].astype(np.int16),
        partition=columns[:, 2].astype(np.int32),
        offset=columns[:, 3],
        kind=np.zeros(n, np.int8),
        ids=np.zeros((n, 3), np.uint64),
        numbers=np.empty((n, 0), np.float32),
        label=np.zeros(n, np.float32),
        event_id=np.zeros(n, np.uint64),
    )


def filled() -> Tally:
    tally = Tally()
    tally.took(batch("a", 10), decoded(2), late=1, letters=letters("not_json", "late"), dead=1)
    tally.took(batch("b:c", 5), decoded(0), late=0, letters=[], dead=0)
    tally.closed(events((50, 0, 3, 7), (60, 1, 0, 2), (70, 0, 3, 5)), 1, SCHEMA)
    tally.joined(6, 4, 2, 3, 1, 1)
    tally.judged(True)
    tally.judged(False)
    tally.judged(False)
    return tally


def test_fates_add_up() -> None:
    tally = filled()
    assert (tally.consumed, tally.ignored, tally.late, tally.dead) == (15, 2, 1, 1)
    assert (tally.accepted, tally.duplicate, tally.slides) == (3, 1, 1)
    waiting = 15 - 2 - 1 - 1 - 1 - 3
    assert tally.consumed == tally.ignored + tally.late + tally.dead + tally.duplicate + tally.accepted + waiting
    assert tally.reasons == {"not_json": 1, "late": 1}
    assert tally.topics == {"a": 10, "b:c": 5}
    assert (tally.examples, tally.matured, tally.positives, tally.purchases) == (6, 4, 2, 3)
    assert (tally.unmatched, tally.cancelled) == (1, 1)
    assert (tally.passed, tally.held) == (1, 2)


def test_offsets_and_times_are_those_of_closed_slides() -> None:
    tally = filled()
    assert tally.offsets == {"a:3": [5, 7], "b:c:0": [2, 2]}
    assert (tally.first_time, tally.last_time) == (50, 70)
    tally.closed(events((40, 0, 3, 6), (90, 0, 3, 11), (95, 0, 4, 0)), 0, SCHEMA)
    assert tally.offsets == {"a:3": [5, 11], "a:4": [0, 0], "b:c:0": [2, 2]}
    assert (tally.first_time, tally.last_time) == (40, 95)


def test_a_slide_whose_every_event_was_a_repeat_counts_as_a_slide() -> None:
    tally = Tally()
    tally.closed(EventBatch.empty(SCHEMA), 4, SCHEMA)
    assert (tally.slides, tally.duplicate, tally.accepted, tally.offsets, tally.first_time) == (1, 4, 0, {}, None)


def test_capture_is_plain_and_a_copy_and_restores_all() -> None:
    tally = filled()
    state = tally.capture()
    kept = copy.deepcopy(state)
    assert json.loads(json.dumps(state)) == state
    restored = Tally()
    restored.restore(state)
    assert restored == tally
    for one in (tally, restored):
        one.took(batch("a", 1), decoded(0), late=0, letters=letters("empty"), dead=1)
        one.closed(events((99, 0, 3, 99), (99, 0, 8, 1)), 0, SCHEMA)
    assert restored == tally
    assert state == kept  # neither of the two reaches back into it


def test_the_events_of_a_broken_slide_are_quarantined_and_not_accepted() -> None:
    tally = Tally(accepted=10)
    tally.inspected(4, whole=True)
    assert (tally.accepted, tally.quarantined) == (10, 0)
    tally.inspected(4, whole=False)
    assert (tally.accepted, tally.quarantined) == (6, 4)

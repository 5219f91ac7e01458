"""Logs that have lost records: when a worker stops, when it goes on, and that a replay does the same."""

from __future__ import annotations

from typing import Any

import pytest
from lives import EPOCH_S, Logs, Worker, config_of, patiently, value

from stream_learner import intake as intakes
from stream_learner.errors import DataError
from stream_learner.gaps import OnGap
from stream_learner.ingest.memory import MemoryRecord, MemorySource
from stream_learner.ingest.positions import GapError
from stream_learner.ingest.source import Partition
from stream_learner.journal import Gap, MemoryJournal, PartitionIdle, Position, Rewound

A, B = Partition("a", 0), Partition("b", 0)
CONFIG = config_of()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intakes, "_POLL_S", 0.0)
    monkeypatch.setattr(intakes, "_LOOK_S", 0.0)


def records(first: int, count: int, at: int | None = None) -> list[MemoryRecord]:
    """A click a second; the first at second `at`, which is `first` unless given."""
    begin = first if at is None else at
    return [(first + n, -1, value(EPOCH_S + begin + n)) for n in range(count)]


def worker(source: MemorySource, journal: MemoryJournal, on_gap: OnGap = "stop", **options: Any) -> Worker:
    """Reads until told to stop by `slides`, or to the end."""
    until_end = options.pop("until_end", False)
    return Worker(CONFIG, source, journal, until_end, turn=patiently(), on_gap=on_gap, **options)


def read(life: Worker, slides: int) -> Worker:
    for _ in range(slides):
        assert life.next()
    return life


def times(life: Worker) -> list[int]:
    """Seconds of all events of closed slides."""
    return [event[0] // 1_000_000 - EPOCH_S for slide in life.slides for event in slide[3]]


def both(count: int) -> Logs:
    return {A: records(0, count), B: records(0, count)}


def stopped_after(slides: int, logs: Logs, journal: MemoryJournal) -> Worker:
    """A worker that stopped with a snapshot after some slides, both partitions read to their ends."""
    source = MemorySource(logs, 10)
    life = read(worker(source, journal), slides)
    while any(source.lag().values()):
        life.intake._read()
    return life


def test_every_start_refuses_an_overtaken_position_and_names_the_remedy() -> None:
    journal = MemoryJournal()
    before = stopped_after(3, both(50), journal)
    source = MemorySource(both(200), 10)
    source.drop_before(A, 120)
    refusals = []
    for on_gap in ("stop", "rewind", "stop"):
        with pytest.raises(GapError) as refusal:
            worker(source, journal, on_gap, state=before.capture())
        refusals.append(str(refusal.value))
    assert len(set(refusals)) == 1
    assert "a/0: position 50 lies before the log, [120, 200]" in refusals[0]
    assert "--on-gap skip, which goes on at a/0 offset 120 and leaves 70 offsets out" in refusals[0]
    assert refusals[0].endswith("or give `state` a new folder, which begins anew at `source.start`")
    assert refusal.value.exit_code == 3
    assert journal.length == 1


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_skipped_offsets_are_counted_and_a_replay_of_the_whole_log_skips_them_too(batch: int) -> None:
    journal = MemoryJournal()
    before = stopped_after(3, both(50), journal)
    source = MemorySource(both(200), batch)
    source.drop_before(A, 120)
    live = worker(source, journal, "skip", state=before.capture(), until_end=True)
    live.all()
    assert journal.entries[1] == Gap(slide=3, partition=Position("a", 0, 50), until=120)
    assert live.tally.skipped == 70 and live.tally.late == 0
    assert live.tally.consumed == 400 == live.tally.skipped + live.tally.accepted
    gap = {"topic": "a", "index": 0, "from": 50, "until": 120, "decision": "skip", "slide": 3}
    assert live.tally.gaps == [gap]
    assert sorted(times(before) + times(live)) == sorted([*range(200), *range(50), *range(120, 200)])

    for log in (both(200), {A: records(0, 50) + records(120, 80), B: records(0, 200)}):
        again = worker(MemorySource(log, batch), MemoryJournal(journal.entries), until_end=True)
        assert again.all() == before.slides + live.slides
        assert again.tally.capture() == live.tally.capture()


def test_a_gap_met_while_reading_is_kept_first_then_journaled() -> None:
    """What was read up to the gap cannot be read again: it is in a snapshot before anything is decided."""
    journal, kept = MemoryJournal(), []
    source = MemorySource(both(60), 10)
    live = worker(source, journal, "skip", kept=kept)
    read(live, 3)
    source.append(A, *records(60, 140))
    source.append(B, *records(60, 140))
    source.drop_before(A, 150)
    read(live, 8)
    (state,) = kept
    assert state["intake"]["applied"] == 1 and journal.length == 2
    start = {(topic, index): offset for topic, index, offset in state["intake"]["positions"]}[("a", 0)]
    assert journal.entries[1] == Gap(slide=len(live.slides_when_kept[0]), partition=Position("a", 0, start), until=150)

    # A crash right after the journal: the snapshot is at the gap, and a start goes on behind it without being told.
    resumed = worker(source, MemoryJournal(journal.entries), "stop", state=state)
    read(resumed, len(live.slides) - len(live.slides_when_kept[0]))
    assert live.slides_when_kept[0] + resumed.slides == live.slides
    again = worker(MemorySource(both(200), 9), MemoryJournal(journal.entries), until_end=True)
    assert again.all()[: len(live.slides)] == live.slides


def test_a_reader_told_to_stop_keeps_its_state_and_can_be_told_to_skip_later() -> None:
    journal, kept = MemoryJournal(), []
    source = MemorySource(both(60), 10)
    live = read(worker(source, journal, "stop", kept=kept), 2)
    source.append(A, *records(60, 140))
    source.drop_before(A, 100)
    with pytest.raises(GapError, match=r"lies before the log, \[100, 200\].*--on-gap skip"):
        live.all()
    assert journal.length == 1 and len(kept) == 1
    later = worker(source, journal, "skip", state=kept[0])
    assert isinstance(journal.entries[1], Gap) and later.intake.positions[A] == 100


def test_no_gap_is_decided_while_decisions_are_being_repeated() -> None:
    journal = MemoryJournal()
    before = stopped_after(3, both(50), journal)
    journal.append(PartitionIdle(slide=4, partition=Position("b", 0, 50)))
    source = MemorySource(both(200), 10)
    source.drop_before(A, 120)
    with pytest.raises(GapError, match="too late to leave them out") as refusal:
        worker(source, journal, "skip", state=before.capture())
    assert "--on-gap" not in str(refusal.value) and journal.length == 2
    with pytest.raises(GapError, match="too late to leave them out"):  # a version was made of slide 5
        worker(source, MemoryJournal(journal.entries[:1]), "skip", state=before.capture(), settled=6)


def test_the_watermark_waits_for_the_partition_that_lost_records() -> None:
    """B is far ahead; its slides stay open until A has passed them, gap or not."""
    journal = MemoryJournal()
    before = stopped_after(3, both(50), journal)
    source = MemorySource({A: records(0, 130), B: records(0, 200)}, 10)
    source.drop_before(A, 120)
    live = worker(source, journal, "skip", state=before.capture())
    assert live.intake.watermark.value() == before.intake.watermark.value()
    while any(source.lag().values()):
        live.intake._read()
    assert live.intake.watermark.value() == (EPOCH_S + 129 - 3) * 1_000_000
    read(live, 9)  # slides [30, 40) to [110, 120)
    assert live.slides[-1][2] == (EPOCH_S + 120) * 1_000_000
    assert live.tally.late == 0


def test_a_topic_made_anew_is_told_by_its_id_and_read_from_its_beginning() -> None:
    """Longer than the old one, so that nothing but the id tells; what belongs to closed slides is late."""
    journal = MemoryJournal()
    source = MemorySource(both(50), 10)
    before = read(worker(source, journal), 3)
    while any(source.lag().values()):
        before.intake._read()
    source.recreate("a")
    source.append(A, *records(0, 20, at=0), *records(20, 150, at=50))
    source.append(B, *records(50, 150))
    for on_gap in ("stop", "skip"):
        with pytest.raises(
            GapError, match=r"deleted and created again; position 50 is of its old log.*--on-gap rewind"
        ):
            worker(source, journal, on_gap, state=before.capture())
    live = worker(source, journal, "rewind", state=before.capture(), until_end=True)
    live.all()
    at = Position("a", 0, 50), Position("a", 0, 0)
    assert journal.entries[1] == Rewound(slide=3, old=at[:1], new=at[1:])
    assert live.tally.late == 20 and live.tally.skipped == 0
    assert sorted(times(before) + times(live)) == sorted([*range(200), *range(200)])
    assert live.tally.gaps[0]["decision"] == "rewind"
    assert worker(source, journal, state=live.capture()).intake.positions[A] == 170  # the new id is known now


def test_a_replay_over_a_log_made_anew_takes_the_old_log_first_and_then_the_new() -> None:
    journal, kept = MemoryJournal(), []
    source = MemorySource(both(50), 10)
    before = read(worker(source, journal), 3)
    while any(source.lag().values()):
        before.intake._read()
    source.recreate("a")
    source.append(A, *records(0, 150, at=50))
    source.append(B, *records(50, 150))
    live = worker(source, journal, "rewind", state=before.capture(), until_end=True)
    live.all()

    old = worker(MemorySource({A: records(0, 50), B: records(0, 200)}, 9), MemoryJournal(journal.entries), kept=kept)
    with pytest.raises(DataError, match=r"goes on in a new log: Rewound for slide 3: a/0 at 50.*from a/0 offset 0 on"):
        old.all()
    new = MemorySource({A: records(0, 150, at=50), B: records(0, 200)}, 9)
    again = worker(new, MemoryJournal(journal.entries), state=kept[0], until_end=True)
    assert old.slides + again.all() == before.slides + live.slides
    assert again.tally.capture() == live.tally.capture()


def test_a_log_cut_back_goes_on_at_its_end_and_nothing_is_learned_twice() -> None:
    journal = MemoryJournal()
    source = MemorySource(both(50), 10)
    before = read(worker(source, journal), 3)
    while any(source.lag().values()):
        before.intake._read()
    source.drop_from(A, 40)
    for on_gap in ("stop", "skip"):
        with pytest.raises(
            GapError, match=r"a/0: position 50 lies beyond the log, \[0, 40\].*rewind, which goes on at a/0"
        ):
            worker(source, journal, on_gap, state=before.capture())
    live = worker(source, journal, "rewind", state=before.capture())
    source.append(A, *records(40, 160, at=50))
    source.append(B, *records(50, 150))
    read(live, 14)
    assert journal.entries[1] == Rewound(slide=3, old=(Position("a", 0, 50),), new=(Position("a", 0, 40),))
    assert sorted(times(before) + times(live)) == sorted([*range(170), *range(170)])


def test_all_partitions_of_a_topic_made_anew_are_rewound_by_one_entry() -> None:
    one = Partition("a", 1)
    logs = {A: records(0, 50), one: records(0, 50), B: records(0, 50)}
    journal = MemoryJournal()
    source = MemorySource(logs, 10)
    before = read(worker(source, journal), 3)
    source.recreate("a")
    source.append(A, *records(0, 10, at=50))
    worker(source, journal, "rewind", state=before.capture())
    (entry,) = journal.entries[1:]
    assert isinstance(entry, Rewound)
    assert [place.partition for place in entry.old] == [A, one] == [place.partition for place in entry.new]


def test_a_partition_that_is_gone_is_refused_whatever_is_said() -> None:
    journal = MemoryJournal()
    before = stopped_after(3, both(50), journal)
    for on_gap in ("stop", "skip", "rewind"):
        with pytest.raises(DataError, match=r"no such partition any more: b/0.*at least as many partitions"):
            worker(MemorySource({A: records(0, 50)}), journal, on_gap, state=before.capture())


def test_a_topic_made_anew_while_it_is_read_is_told_from_one_cut_back() -> None:
    """The reader only sees that its position lies beyond the log; a fresh look finds the new id."""
    journal, kept = MemoryJournal(), []
    source = MemorySource(both(50), 10)
    live = worker(source, journal, "rewind", kept=kept)
    read(live, 4)
    source.recreate("a")
    source.append(A, *records(0, 40, at=50))
    source.append(B, *records(50, 40))
    read(live, 4)
    assert journal.entries[1] == Rewound(slide=4, old=(Position("a", 0, 50),), new=(Position("a", 0, 0),))
    assert len(kept) == 1 and live.tally.late == 0
    assert sorted(times(live)) == sorted([*range(80), *range(80)])

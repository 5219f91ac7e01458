"""The heart of the tenet: slides are decided by log, journal and config, whatever happened on the way."""

from __future__ import annotations

from collections import defaultdict

import pytest
from lives import (
    EPOCH_S,
    JUMP_S,
    LATENESS_S,
    SLIDE_S,
    Haphazard,
    Life,
    Logs,
    S,
    Shown,
    Worker,
    config_of,
    patiently,
    random_logs,
    replay,
    value,
)

from stream_learner import intake as intakes
from stream_learner.errors import RetryableError
from stream_learner.ingest.memory import MemorySource
from stream_learner.ingest.source import Partition
from stream_learner.journal import (
    Command,
    End,
    MemoryJournal,
    PartitionAdded,
    PartitionIdle,
    PartitionWoken,
    Position,
    Start,
)
from stream_learner.settings import Config

A, B = Partition("a", 0), Partition("b", 0)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intakes, "_POLL_S", 0.0)
    monkeypatch.setattr(intakes, "_LOOK_S", 0.0)


def bounded(logs: Logs, source: MemorySource | None = None, **options: object) -> Worker:
    config = options.pop("config", None) or config_of()
    worker = Worker(config, source or MemorySource(logs), MemoryJournal(), True, turn=patiently(), **options)
    worker.all()
    return worker


def brute_force(logs: Logs) -> list[Shown]:
    """One record after the other, by the words of the design."""
    slides: dict[int, list[tuple[int, str, int, int]]] = defaultdict(list)
    for partition, records in logs.items():
        highest = None
        for offset, timestamp, body in records:
            if b"click" not in body:
                continue
            time = int(body.split(b'"time": ')[1].split(b",")[0]) * 1000
            if timestamp >= 0 and time > timestamp * 1000 + 3600 * S:
                continue
            if timestamp < 0 and highest is not None and time > highest + JUMP_S * S:
                continue
            slide = time // (SLIDE_S * S)
            late = highest is not None and (slide + 1) * SLIDE_S * S <= highest - LATENESS_S * S
            highest = time if highest is None else max(highest, time)
            if not late:
                slides[slide].append((time, partition.topic, partition.index, offset))
    return [
        (number, slide * SLIDE_S * S, (slide + 1) * SLIDE_S * S, tuple(sorted(slides[slide])))
        for number, slide in enumerate(sorted(slides))
    ]


def whole(worker: Worker) -> bool:
    """Every record has one fate."""
    tally, waiting = worker.tally, len(worker.intake.slides)
    return tally.consumed == tally.ignored + tally.late + tally.dead + tally.accepted + waiting


@pytest.mark.parametrize("seed", range(4))
def test_slides_are_those_of_the_log_whatever_the_polls(seed: int) -> None:
    logs = random_logs(seed)
    expected = brute_force(logs)
    assert len(expected) > 15
    for size in (1, 7, 1000):
        worker = bounded(logs, MemorySource(logs, size))
        assert worker.slides == expected
        assert whole(worker)
        assert worker.tally.consumed == sum(map(len, logs.values()))
        assert worker.tally.late == worker.tally.reasons["late"] > 0
        assert worker.tally.reasons["not_json"] > 0
        assert worker.tally.reasons["time_ahead"] > 0
        assert len(worker.letters.letters) == worker.tally.late + worker.tally.dead
    for shuffle in range(5):
        assert bounded(logs, Haphazard(logs, shuffle)).slides == expected
        assert bounded(logs, Haphazard(logs, shuffle), config=config_of(max_open=20)).slides == expected


@pytest.mark.parametrize("size", ["37", "40/3"])
def test_counted_slides_are_those_of_the_log_too(size: str) -> None:
    logs = random_logs(5)
    counted = config_of(f"{{by_count: {{size: {size}, first: 11}}, allowed_lateness: 3s, max_jump: 1000s}}")
    expected = bounded(logs, config=counted).slides
    rows = [event for slide in expected for event in slide[3]]
    assert rows == sorted(rows)
    assert len(rows) > 300
    assert [len(slide[3]) for slide in expected][:3] == ([11, 37, 37] if size == "37" else [11, 13, 13])
    for shuffle in range(4):
        assert bounded(logs, Haphazard(logs, shuffle), config=counted).slides == expected


@pytest.mark.parametrize("config", [config_of(), config_of("{by_count: {size: 23}, max_jump: 1000s}")])
def test_a_restart_at_any_slide_goes_on_as_if_nothing_had_been(config: Config) -> None:
    logs = random_logs(7)
    expected = bounded(logs, config=config)
    journal = MemoryJournal()
    first = Worker(config, Haphazard(logs, 1), journal, True, turn=patiently())
    states = [first.capture()]
    while first.next():
        states.append(first.capture())
    assert first.slides == expected.slides
    for done, state in enumerate(states):
        # Killed right then; and killed much later, when the journal had grown beyond the snapshot.
        for entries in (journal.entries[: state["intake"]["applied"]], journal.entries):
            source = Haphazard(logs, done)
            second = Worker(config, source, MemoryJournal(entries), True, state, patiently())
            assert second.all() == expected.slides[done:]
            assert whole(second)
            assert second.tally.accepted == expected.tally.accepted
            assert second.tally.late == expected.tally.late


def test_an_empty_partition_holds_nobody_back_live_or_in_a_replay() -> None:
    logs = {**random_logs(3), Partition("b", 9): []}
    worker = bounded(logs)
    assert worker.slides == brute_force(logs)
    assert {p.index for e in worker.journal.entries if isinstance(e, End) for p in e.partitions} == {0, 1, 9}
    again = replay(config_of(), logs, worker.journal.entries)
    assert again.slides == worker.slides
    assert again.journal.entries == worker.journal.entries


def test_a_log_without_records_or_partitions_ends() -> None:
    assert bounded({A: []}).slides == []
    assert bounded({}).slides == []


def test_a_run_with_nothing_new_changes_nothing() -> None:
    logs = random_logs(2)
    first = bounded(logs)
    second = Worker(config_of(), MemorySource(logs), first.journal, True, first.capture(), patiently())
    entries = first.journal.entries
    assert second.all() == []
    assert first.journal.entries == entries


def test_after_a_bounded_run_all_partitions_count_again() -> None:
    logs = {A: [(0, -1, value(EPOCH_S + 5))], B: [(0, -1, value(EPOCH_S + 35))]}
    first = bounded(logs)
    assert [slide[3] for slide in first.slides] == [
        (((EPOCH_S + 5) * S, "a", 0, 0),),
        (((EPOCH_S + 35) * S, "b", 0, 0),),
    ]
    ends = [e for e in first.journal.entries if isinstance(e, End)]
    assert {place.partition for end in ends for place in end.partitions} == {A, B}
    # b runs far ahead; a, which is behind, may still give what is not of a closed slide.
    logs[B] += [(n, -1, value(EPOCH_S + 40 + 10 * n)) for n in range(1, 9)]
    logs[A] += [(1, -1, value(EPOCH_S + 12)), (2, -1, value(EPOCH_S + 50)), (3, -1, value(EPOCH_S + 70))]
    for order in range(6):
        journal = MemoryJournal(first.journal.entries)
        second = Worker(config_of(), Haphazard(logs, order), journal, True, first.capture(), patiently())
        second.all()
        assert second.tally.late == 1  # 12 s: its slide starts before the end of the last closed one
        assert second.slides[0][3] == (((EPOCH_S + 50) * S, "a", 0, 2), ((EPOCH_S + 50) * S, "b", 0, 1))
        assert second.slides[0][0] == 2
        woken = [entry for entry in journal.entries if isinstance(entry, PartitionWoken)]
        assert [(entry.slide, entry.partition.partition) for entry in woken[:2]] == [(2, A), (2, B)]
        assert replay(config_of(), logs, journal.entries).slides == first.slides + second.slides


def scripted(source: MemorySource, *steps: object) -> Worker:
    """An unbounded run: each step is done when the intake has read all there is; then it stops."""
    left = list(steps)

    def turn(worker: Worker) -> bool:
        turn_number[0] += 1
        if turn_number[0] % 10:
            return True
        if not left:
            return False
        left.pop(0)(worker)  # type: ignore[operator]
        return True

    turn_number = [0]
    worker = Worker(config_of(), source, MemoryJournal(), False, turn=turn)
    worker.all()
    return worker


def test_a_silent_partition_goes_idle_wakes_and_is_late_for_closed_slides() -> None:
    clock = [0.0]
    logs: Logs = {A: [(0, -1, value(EPOCH_S + 1))], B: [(0, -1, value(EPOCH_S + 2))]}
    source = MemorySource(logs, clock=lambda: clock[0])
    held: list[int] = []

    def later(_: Worker) -> None:
        logs[B] += [(1, -1, value(EPOCH_S + 25))]
        source.append(B, *logs[B][1:])

    def quiet(worker: Worker) -> None:
        held.append(len(worker.slides))
        clock[0] += 31
        source.append(B, fresh := (2, -1, value(EPOCH_S + 26)))
        logs[B].append(fresh)

    def back(_: Worker) -> None:
        logs[A] += [(1, -1, value(EPOCH_S + 3)), (2, -1, value(EPOCH_S + 27)), (3, -1, value(EPOCH_S + 60))]
        source.append(A, *logs[A][1:])

    def on(_: Worker) -> None:
        logs[B] += [(3, -1, value(EPOCH_S + 61))]
        source.append(B, *logs[B][3:])

    worker = scripted(source, later, quiet, back, on)
    assert held == [0]  # nobody was idle yet: the silent one held the first slide
    kinds = [(type(e), e.slide, e.partition) for e in worker.journal.entries[1:] if not isinstance(e, End)]
    assert kinds == [(PartitionIdle, 0, Position("a", 0, 1)), (PartitionWoken, 1, Position("a", 0, 1))]
    assert worker.tally.late == 1
    assert [slide[3] for slide in worker.slides] == [
        (((EPOCH_S + 1) * S, "a", 0, 0), ((EPOCH_S + 2) * S, "b", 0, 0)),
        (((EPOCH_S + 25) * S, "b", 0, 1), ((EPOCH_S + 26) * S, "b", 0, 2), ((EPOCH_S + 27) * S, "a", 0, 2)),
    ]
    for order in range(5):
        again = replay(config_of(), logs, worker.journal.entries, Haphazard(logs, order))
        assert again.slides[:2] == worker.slides
        assert again.tally.late == 1


def test_slides_that_a_version_was_made_of_are_not_decided_anew() -> None:
    """A crash between a version and its snapshot: the idle partition has woken since, but not for those slides."""
    times = [1, 15, 25, 35, 45, 55]
    logs: Logs = {A: [(0, -1, value(EPOCH_S + 1))], B: [(i, -1, value(EPOCH_S + t)) for i, t in enumerate(times)]}
    clock = [0.0]
    source = MemorySource({A: logs[A], B: logs[B][:1]}, clock=lambda: clock[0])

    def quiet(_: Worker) -> None:
        clock[0] += 31
        source.append(B, *logs[B][5:])

    first = scripted(source, lambda _: source.append(B, *logs[B][1:5]), quiet)
    journal = first.journal.entries
    assert PartitionIdle in [type(entry) for entry in journal]
    seen = len(first.slides)
    assert seen >= 2
    logs[A] += [(1, -1, value(EPOCH_S + 16)), (2, -1, value(EPOCH_S + 70))]
    again = Worker(config_of(), MemorySource(logs), MemoryJournal(journal), True, turn=patiently(), settled=seen)
    again.all()
    assert again.slides[:seen] == first.slides
    woken = [entry for entry in again.journal.entries if isinstance(entry, PartitionWoken)]
    assert [entry.slide for entry in woken] == [seen]
    assert again.tally.late == 1
    hasty = Worker(config_of(), MemorySource(logs), MemoryJournal(journal), True, turn=patiently())
    hasty.all()
    assert hasty.slides[:seen] != first.slides


class Stumbling(MemoryJournal):
    """A journal on a disk that refuses every entry once."""

    refused = False

    def _persist(self, line: bytes) -> None:
        self.refused = not self.refused
        if self.refused:
            raise RetryableError("cannot append")


def test_a_journal_that_cannot_be_written_now_is_waited_for() -> None:
    logs = random_logs(3)
    worker = Worker(config_of(), MemorySource(logs), Stumbling(), True, turn=patiently())
    worker.all()
    usual = bounded(logs)
    assert worker.slides == usual.slides
    assert [type(entry) for entry in worker.journal.entries] == [type(entry) for entry in usual.journal.entries]


def test_all_idle_closes_nothing() -> None:
    clock = [0.0]
    source = MemorySource({A: [(0, -1, value(EPOCH_S))], B: [(0, -1, value(EPOCH_S + 99))]}, clock=lambda: clock[0])

    def quiet(_: Worker) -> None:
        clock[0] += 1000

    worker = scripted(source, quiet, quiet)
    assert worker.slides == []
    assert [type(entry) for entry in worker.journal.entries] == [Start]


def test_a_new_partition_joins_at_a_slide_and_a_replay_joins_it_there() -> None:
    logs: Logs = {A: [(n, -1, value(EPOCH_S + 5 * n)) for n in range(10)]}
    source = MemorySource(logs)
    new = Partition("a", 1)

    def appear(_: Worker) -> None:
        logs[new] = [(7, -1, value(EPOCH_S + 3)), (8, -1, value(EPOCH_S + 47)), (9, -1, value(EPOCH_S + 90))]
        source.append(new, *logs[new])

    def on(_: Worker) -> None:
        logs[A].append((10, -1, value(EPOCH_S + 90)))
        source.append(A, logs[A][-1])

    worker = scripted(source, appear, on)
    assert worker.journal.entries[1:] == (PartitionAdded(slide=4, partition=Position("a", 1, 7)),)
    assert worker.tally.late == 1
    assert [(t - EPOCH_S * S) // S for t, *_ in worker.slides[-1][3]] == [40, 45, 47]
    again = replay(config_of(), logs, worker.journal.entries)
    assert again.slides[: len(worker.slides)] == worker.slides


@pytest.mark.parametrize("seed", range(25))
def test_a_life_of_many_runs_is_replayed_to_the_same_slides(seed: int) -> None:
    """Seeded lives: 5 runs, bounded or not, stopped or killed, on growing logs with partitions that fall silent, wake
    and appear. Then everything again from the journal, in other polls, from the beginning and from each snapshot."""
    config = config_of(max_open=(60 if seed % 3 == 0 else 100_000))
    life = Life(seed, config)
    for _ in range(5):
        life.run(until_end=bool(life.rng.random() < 0.5), rounds=80, killed=bool(life.rng.random() < 0.4))
        life.grow(None)
    life.run(until_end=True, rounds=80, killed=False)
    assert len(life.slides) > 10
    for order in range(3):
        source = Haphazard(life.logs, order) if order else MemorySource(life.logs, 10_000)
        again = replay(config, life.logs, life.journal.entries, source)
        assert again.slides[: len(life.slides)] == life.slides
        assert again.acts == life.acts
        assert whole(again)
    for done, state in life.states[::5]:
        journal = MemoryJournal(life.journal.entries)
        late = Worker(config, Haphazard(life.logs, done), journal, True, state, patiently())
        late.all()
        assert late.slides[: len(life.slides) - done] == life.slides[done:]


def test_commands_take_effect_before_their_slide_live_and_in_a_replay() -> None:
    logs: Logs = {A: [(n, -1, value(EPOCH_S + 5 * n)) for n in range(12)]}
    journal = MemoryJournal()
    live = Worker(config_of(), MemorySource(logs, 1), journal, True, turn=patiently())
    for name in ("one", "two"):
        assert live.next()
        entry = live.intake.decide("rollback", {"version": 7}, name)
        assert entry == Command(slide=len(live.slides), id=name, name="rollback", arguments={"version": 7})
        assert live.intake.journaled(name)
    live.all()
    assert not live.intake.journaled("three")
    again = replay(config_of(), logs, journal.entries)
    assert again.acts == [(1, "one"), (2, "two")]
    assert again.slides == live.slides


def test_nothing_is_decided_while_older_entries_are_obeyed() -> None:
    logs = random_logs(4)
    live = bounded(logs)
    again = Worker(config_of(), MemorySource(logs, 1), MemoryJournal(live.journal.entries), True, turn=patiently())
    assert again.intake.decide("pin", {"version": 1}, "x") is None
    again.all()
    assert again.intake.decide("pin", {"version": 1}, "x") is not None


def test_a_stop_leaves_what_is_open_for_the_next_run() -> None:
    logs = random_logs(8)
    expected = brute_force(logs)
    for rounds in range(1, 40, 6):
        left = [rounds]

        def few(_: Worker, left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] >= 0

        first = Worker(config_of(), MemorySource(logs, 20), MemoryJournal(), True, turn=few)
        first.all()
        second = Worker(config_of(), Haphazard(logs, rounds), first.journal, True, first.capture(), patiently())
        assert first.slides + second.all() == expected
        assert whole(second)

"""The lease: one holder, tokens that grow, a holder that notices when it is one no more. Clocks are turned by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from stream_learner import settings
from stream_learner.durable import AppendFile, recover_folder
from stream_learner.errors import RetryableError, StateError
from stream_learner.lease import Lease, Record
from stream_learner.settings import Duration

TIMEOUT_S = 30.0
HOLD = """
import sys
from pathlib import Path
from stream_learner.lease import Lease
from stream_learner.settings import Lease as Terms
assert Lease(Path(sys.argv[1]), Terms()).try_claim()
print("held", flush=True)
sys.stdin.read()
"""


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def lease(folder: Path, clock: Clock | None = None, *, standby: bool = True, floor: int = 0) -> Lease:
    return Lease(folder, settings.Lease(standby=standby), floor=floor, clock=clock or Clock(1000.0))


def elsewhere(folder: Path) -> None:
    """What is held becomes held on another machine."""
    path = files(folder)[-1]
    record = msgspec.json.decode(path.read_bytes(), type=Record)
    with path.open("r+b") as file:
        file.write(msgspec.json.encode(msgspec.structs.replace(record, machine=None)).ljust(511) + b"\n")


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def held_elsewhere(folder: Path, clock: Clock) -> Lease:
    """Held by a worker of which only heartbeats can be seen, as if on another machine."""
    held = lease(folder, clock)
    assert held.try_claim()
    held._record = msgspec.structs.replace(held._record, machine=None)
    held.renew()
    return held


def nobody_waits(_: float) -> bool:
    raise AssertionError("it waited")


def unheard(_: str) -> None:
    raise AssertionError("it stood by")


# ---- taking and letting go -------------------------------------------------------------------------------------------


def test_a_released_lease_is_taken_at_once_and_its_token_grows(tmp_path: Path) -> None:
    for token in (1, 2, 3):
        with lease(tmp_path / "lease") as held:
            assert held.acquire(nobody_waits, unheard)
            assert held.token == token
            held.prove()
    held.release()
    assert [path.name for path in files(tmp_path / "lease")] == ["lease-000000000003"]


def test_a_holder_that_renews_is_left_alone_however_long(tmp_path: Path) -> None:
    first, second = Clock(1000.0), Clock(5.0)  # two machines have nothing in common
    held, standby = held_elsewhere(tmp_path, first), lease(tmp_path, second)
    for _ in range(20):
        assert not standby.try_claim()
        first.now += TIMEOUT_S - 1
        second.now += TIMEOUT_S - 1
        held.renew()
    held.prove()
    assert standby.token == 0 and f"process {os.getpid()} on " in standby.holder()


def test_it_lapses_when_it_has_not_changed_for_the_timeout_on_the_watchers_clock(tmp_path: Path) -> None:
    first, second = Clock(1000.0), Clock(5.0)
    held, standby = held_elsewhere(tmp_path, first), lease(tmp_path, second)
    second.now += 10 * TIMEOUT_S  # before its first look nothing counts
    assert not standby.try_claim()
    second.now += TIMEOUT_S - 0.1
    assert not standby.try_claim()
    held.renew()
    second.now += 0.2
    assert not standby.try_claim()  # it did change
    second.now += TIMEOUT_S
    assert standby.try_claim()
    assert standby.token == 2
    standby.prove()
    for asked in (held.prove, held.renew, held.check):
        with pytest.raises(StateError, match="another worker may have taken over"):
            asked()
    before = [path.read_bytes() for path in files(tmp_path)]
    held.release()
    assert [path.read_bytes() for path in files(tmp_path)] == before and len(before) == 1


def test_of_many_watchers_one_takes_a_lapsed_lease(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    held_elsewhere(tmp_path, clock)
    watchers = [lease(tmp_path, clock) for _ in range(8)]
    assert not any(watcher.try_claim() for watcher in watchers)
    elsewhere(tmp_path)
    clock.now += TIMEOUT_S
    together, took = threading.Barrier(len(watchers)), []

    def take(watcher: Lease) -> None:
        together.wait()
        if watcher.try_claim():
            took.append(watcher)

    threads = [threading.Thread(target=take, args=(watcher,)) for watcher in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (taker,) = took
    assert taker.token == 2
    taker.prove()


def test_the_lease_of_a_killed_process_is_taken_at_once(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    second = lease(tmp_path, standby=False)
    with pytest.raises(StateError, match=f"in use by process {child.pid} on .*, or let it stand by"):
        second.acquire(nobody_waits, unheard)
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    with second:
        assert second.acquire(nobody_waits, unheard)
        assert second.token == 2


def test_without_standby_a_heartbeat_is_enough_to_be_refused_and_silence_to_begin(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    held = held_elsewhere(tmp_path, clock)
    looks: list[str] = []

    def renewed(_: float) -> bool:
        held.renew()
        return False

    with pytest.raises(StateError, match="is in use by process"):
        lease(tmp_path, clock, standby=False).acquire(renewed, looks.append)
    assert len(looks) == 1  # the first look cannot tell

    def silent(seconds: float) -> bool:
        clock.now += seconds
        return False

    with lease(tmp_path, clock, standby=False) as second:
        assert second.acquire(silent, looks.append) and second.token == 2


def test_a_standby_told_to_stop_takes_nothing(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    held, looks = held_elsewhere(tmp_path, clock), []
    with lease(tmp_path, clock) as standby:
        assert not standby.acquire(lambda _: len(looks) == 3, looks.append)
    assert len(looks) == 3 and all(f"process {os.getpid()} " in look for look in looks)
    held.prove()


# ---- noticing --------------------------------------------------------------------------------------------------------


def test_a_holder_that_slept_past_the_timeout_stops_though_nobody_came(tmp_path: Path) -> None:
    clock = Clock(1000.0)
    held = lease(tmp_path, clock)
    assert held.try_claim()
    clock.now += TIMEOUT_S
    held.check()
    held.renew()
    clock.now += TIMEOUT_S + 0.1
    with pytest.raises(StateError, match=r"was not renewed for 30\.1 s"):
        held.renew()  # the thread that renews may be the first to wake
    clock.now -= 1
    with pytest.raises(StateError, match="was not renewed"):
        held.check()
    assert lease(tmp_path).try_claim() is False  # its process lives: only the timeout lets another in


def test_time_counts_from_the_beginning_of_a_renewal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1000.0)
    held = lease(tmp_path, clock)
    assert held.try_claim()
    slow = held._write

    def stopped_after_the_write() -> None:
        slow()
        clock.now += TIMEOUT_S + 1

    monkeypatch.setattr(held, "_write", stopped_after_the_write)
    held.renew()
    with pytest.raises(StateError, match="was not renewed"):
        held.check()


@pytest.mark.parametrize(
    "taken",
    [
        pytest.param(lambda folder: (folder / "lease-000000000002").touch(), id="followed"),
        pytest.param(lambda folder: (folder / "lease-000000000001").unlink(), id="gone"),
    ],
)
def test_either_sign_of_a_newcomer_ends_it_for_good(tmp_path: Path, taken: Callable[[Path], None]) -> None:
    held = lease(tmp_path)
    assert held.try_claim()
    taken(tmp_path)
    held.check()
    with pytest.raises(StateError, match="may have taken over"):
        held.prove()
    for path in files(tmp_path):
        path.unlink()
    with pytest.raises(StateError, match="may have taken over"):
        held.check()


def test_a_disk_that_fails_does_not_end_it_before_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1000.0)
    held = lease(tmp_path, clock)
    assert held.try_claim()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", _fails)
        with pytest.raises(RetryableError, match="renew the lease"):
            held.renew()
    clock.now += TIMEOUT_S - 1
    held.renew()
    held.prove()


def test_a_claim_that_failed_half_way_is_no_obstacle_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = lease(tmp_path, standby=False)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", _fails)
        with pytest.raises(RetryableError, match="take the lease"):
            held.acquire(nobody_waits, unheard)
    with held:
        assert held.acquire(nobody_waits, unheard) and held.token == 2


def _fails(_: int) -> None:
    raise OSError(5, "Input/output error")


def test_the_thread_renews_and_stops_when_the_lease_is_lost(tmp_path: Path) -> None:
    terms = settings.Lease(timeout=Duration.parse("3s"), heartbeat=Duration.parse("10ms"))
    with Lease(tmp_path, terms) as held:
        assert held.acquire(nobody_waits, unheard)
        (path,) = files(tmp_path)
        seen = {path.read_bytes()}
        while len(seen) < 4:
            seen.add(path.read_bytes())
        assert {len(content) for content in seen} == {512}
        (tmp_path / "lease-000000000002").touch()
        held._thread.join(10)
        assert not held._thread.is_alive()
        with pytest.raises(StateError, match="has been followed by token 2"):
            held.check()


# ---- files -----------------------------------------------------------------------------------------------------------


def test_lost_lease_files_do_not_bring_a_token_back(tmp_path: Path) -> None:
    held = lease(tmp_path, floor=7)
    assert held.try_claim() and held.token == 8
    held.release()
    again = lease(tmp_path, floor=7)
    assert again.try_claim() and again.token == 9


@pytest.mark.parametrize("content", [b"", b"\0" * 512, b'{"token":'])
def test_a_damaged_lease_lapses_like_any_other(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lease-000000000004").write_bytes(content)
    (tmp_path / "lease-0x4").touch()
    clock = Clock(1000.0)
    standby = lease(tmp_path, clock)
    assert not standby.try_claim() and standby.holder() == "an unknown worker"
    clock.now += TIMEOUT_S
    assert standby.try_claim() and standby.token == 5


def test_a_process_id_used_again_does_not_hold_the_lease(tmp_path: Path) -> None:
    held = lease(tmp_path)
    assert held.try_claim()
    (path,) = files(tmp_path)
    record = msgspec.json.decode(path.read_bytes(), type=Record)
    if record.machine is None or record.started is None:
        pytest.skip("this system does not tell when a process started")
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, started="1")))
    assert lease(tmp_path).try_claim()


def test_an_entry_appended_by_a_holder_that_woke_reaches_nobody(tmp_path: Path) -> None:
    """Stopped between its proof and its write; the newcomer takes the lease, cleans and opens."""
    clock = Clock(1000.0)
    held = lease(tmp_path / "lease", clock)
    assert held.try_claim()
    stopped: list[Callable[[], None]] = []

    def prove_and_be_stopped() -> None:
        held.prove()
        for take_over in stopped:
            take_over()

    log = AppendFile(tmp_path / "journal.jsonl", prove_and_be_stopped)
    log.append(b"one\n")
    newcomer = lease(tmp_path / "lease", clock)
    opened: list[AppendFile] = []

    def take_over() -> None:
        elsewhere(tmp_path / "lease")
        assert not newcomer.try_claim()
        clock.now += TIMEOUT_S
        assert newcomer.try_claim()
        recover_folder(tmp_path, newcomer.prove)
        opened.append(AppendFile(tmp_path / "journal.jsonl", newcomer.prove))
        opened[0].append(b"two\n")

    stopped.append(take_over)
    log.append(b"late\n")
    stopped.clear()
    with pytest.raises(StateError, match="may have taken over"):
        log.append(b"later\n")
    assert (tmp_path / "journal.jsonl").read_bytes() == opened[0].read() == b"one\ntwo\n"
    log.close()
    opened[0].close()

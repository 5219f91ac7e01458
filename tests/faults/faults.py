"""What befalls a life beside a kill: the broker, the network, the disk, the clock, and a second worker.

Each fault begins at a place that the life has reached: it is stopped there until the harm is done, so that a seed
means the same on any machine. Then it goes on, through the fault and beyond it.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .driver import Life
from .plans import Cut
from .stages import LifeError, Stage
from .volume import can_mount
from .worlds import World

Settings = dict[str, Any]
Fault = Callable[[Stage, Cut, Settings], None]

_LEASE_S = 4.0
_SHORT_LEASE = {"lease.timeout": f"{_LEASE_S}s", "lease.heartbeat": "500ms"}
_NOTICED_S = 20.0  # how long a worker may take to come to a disk that fails it
_PATIENT, _IMPATIENT = {"storage.retry_timeout": "90s"}, {"storage.retry_timeout": "500ms"}
_LASTING = 1e9  # operations, all there are
_EXIT_STATE, _EXIT_UNAVAILABLE = 4, 6


# ---- broker and network ----------------------------------------------------------------------------------------------


def meanwhile(harm: Callable[[Stage], contextlib.AbstractContextManager[None]], **settings: Any) -> Fault:
    """A fault that is there for half a second to three, while the life goes on."""

    def befall(stage: Stage, cut: Cut, own: Settings) -> None:
        life = stage.held(cut, {**own, **{name: value(stage) for name, value in settings.items()}})
        with harm(stage):
            life.resume()
            time.sleep(stage.rng.uniform(0.5, 3.0))
        stage.end(life, str(cut), 0)

    return befall


@contextlib.contextmanager
def broker_stopped(stage: Stage) -> Iterator[None]:
    """The broker goes, and comes back with all it had. By a thread that stays: the broker goes with its starter."""
    server, thread = stage.world.server, stage.world.outages
    with stage.world.outage:
        thread.submit(server.stop).result()
        try:
            yield
        finally:
            thread.submit(server.start).result()


@contextlib.contextmanager
def broker_killed(stage: Stage) -> Iterator[None]:
    server, thread = stage.world.server, stage.world.outages
    with stage.world.outage:
        thread.submit(server.kill).result()
        try:
            yield
        finally:
            thread.submit(server.start).result()


@contextlib.contextmanager
def connections_cut(stage: Stage) -> Iterator[None]:
    """Three times, and for a moment none can be made."""
    proxy = stage.world.proxy
    proxy.cut()
    yield
    with proxy.refused():
        time.sleep(stage.rng.uniform(0.1, 1.0))
    proxy.cut()


@contextlib.contextmanager
def connections_slowed(stage: Stage) -> Iterator[None]:
    """To some KB/s, and then nothing comes through at all for a while."""
    proxy = stage.world.proxy
    with proxy.slowed(bytes_per_s=40_000.0, delay_s=0.05):
        yield
    with proxy.hanging():
        time.sleep(stage.rng.uniform(0.5, 3.0))


def _through_proxy(stage: Stage) -> str:
    address: str = stage.world.server.proxied_bootstrap
    return address


# ---- the disk --------------------------------------------------------------------------------------------------------


def volume_full(stage: Stage, cut: Cut, own: Settings) -> None:
    """The state's disk is full for as long as the worker takes to notice, and then has room again."""
    life = stage.held(cut, {**own, **_PATIENT})
    stage.volume.fill()
    _noticed(stage, life, stage.volume.free)
    stage.end(life, str(cut), 0)


def volume_read_only(stage: Stage, cut: Cut, own: Settings) -> None:
    """The folder of checkpoints cannot be written to."""
    life = stage.held(cut, {**own, **_PATIENT})
    stage.volume.set_read_only(partial(_go_on_a_little, life))
    _noticed(stage, life, stage.volume.set_writable)
    stage.end(life, str(cut), 0)


def _go_on_a_little(life: Life) -> None:
    life.send(signal.SIGCONT)
    time.sleep(0.02)
    life.send(signal.SIGSTOP)


def _noticed(stage: Stage, life: Life, undo: Callable[[], None]) -> None:
    seen = stage.output().count("trying again")
    life.resume()
    stage.wait_for(life, lambda: stage.output().count("trying again") > seen, _NOTICED_S)
    time.sleep(stage.rng.uniform(0.0, 1.0))
    undo()


def operations_fail(error: str, *, lasting: bool) -> Fault:
    """Storage operations fail from the nth on: a few, and the worker tries again; or all, and it leaves with code 6."""

    def befall(stage: Stage, cut: Cut, own: Settings) -> None:
        amount = _LASTING if lasting else 1 + int(stage.rng.integers(6))
        settings = {**own, **(_IMPATIENT if lasting else _PATIENT)}
        life = stage.begin(settings, place=cut.place, nth=cut.nth, hurt=error, amount=amount)
        stage.end(life, str(cut), _EXIT_UNAVAILABLE if lasting else 0)

    return befall


# ---- the clock -------------------------------------------------------------------------------------------------------


def clock_jumps(stage: Stage, cut: Cut, own: Settings) -> None:
    """Up to three days forward or back."""
    seconds = float(stage.rng.uniform(-3.0, 3.0)) * 86_400
    life = stage.begin(own, place=cut.place, nth=cut.nth, hurt="clock", amount=seconds)
    stage.end(life, str(cut), 0)


# ---- a second worker -------------------------------------------------------------------------------------------------


def frozen(stage: Stage, cut: Cut, own: Settings) -> None:
    """Stopped until its lease has lapsed and a standby has it; woken while that one works, or when it is done."""
    first = stage.held(cut, {**own, **_SHORT_LEASE})
    if first.over.is_set():
        raise LifeError(f"{cut} was not reached")
    standby = stage.begin({**own, **_SHORT_LEASE}, name="standby")
    if stage.rng.random() < 0.5:
        stage.wait_for(standby, lambda: "restored the snapshot" in stage.output("standby"))
        first.resume()
        stage.end(first, str(cut), _EXIT_STATE)
        stage.end(standby, "the standby's life", 0, name="standby")
        return
    stage.end(standby, "the standby's life", 0, name="standby")
    before = contents(stage.state)
    first.resume()
    stage.end(first, str(cut), _EXIT_STATE)
    if changed := {path for path, content in contents(stage.state).items() ^ before.items()}:
        raise LifeError(f"a worker that woke too late wrote {sorted(changed)}")


def taken_over(stage: Stage, cut: Cut, own: Settings) -> None:
    """Killed while another worker stands by, which goes on."""
    first = stage.held(cut, own)
    standby = stage.begin(own, name="standby")
    stage.wait_for(standby, lambda: "standing by" in stage.output("standby"))
    first.send(signal.SIGKILL)
    stage.end(first, str(cut), -signal.SIGKILL)
    stage.end(standby, "the standby's life", 0, name="standby")


def contents(state: Path) -> dict[str, bytes]:
    """All that a worker without the lease may not change: everything but dead letters, which are at least once."""
    paths = (path for path in state.rglob("*") if path.is_file() and path.name != "dead_letters.jsonl")
    return {str(path.relative_to(state)): path.read_bytes() for path in paths}


_SOFT = {"source.kafka.bootstrap_servers": _through_proxy}

FAULTS: dict[str, Fault] = {
    "broker stopped and started": meanwhile(broker_stopped),
    "frozen past its lease, standby takes over": frozen,
    "disk full": volume_full if can_mount() else operations_fail("ENOSPC", lasting=False),
    "connections cut": meanwhile(connections_cut, **_SOFT),
    "disk: EIO, passing": operations_fail("EIO", lasting=False),
    "SIGKILL, standby takes over": taken_over,
    "broker killed and restarted": meanwhile(broker_killed),
    "disk: checkpoints read-only": volume_read_only if can_mount() else operations_fail("EROFS", lasting=False),
    "clock jumps": clock_jumps,
    "connections slowed and hanging": meanwhile(connections_slowed, **_SOFT),
    "disk: EIO, lasting": operations_fail("EIO", lasting=True),
}

_VOLUMES = {"disk full": "", "disk: checkpoints read-only": "checkpoints"}


def volume_for(faults: tuple[str, ...]) -> str | None:
    """The folder of a state that must be a disk of its own for these faults; None = none."""
    return next((_VOLUMES[fault] for fault in faults if fault in _VOLUMES and can_mount()), None)


def possible(world: World) -> list[str]:
    """The faults that this world has the means for."""
    missing = [] if world.server is not None else ["broker", "connections"]
    return [name for name in FAULTS if not name.startswith(tuple(missing))]

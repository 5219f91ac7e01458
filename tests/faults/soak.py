"""python -m tests.faults.soak --minutes M --seed S: a live worker and its standby, a steady producer, mixed faults.

Faults come one after another as the seed has it; after each the worker must close slides again before the next one
comes. In the first part of the time some of them end the worker, and the standby takes over; after that the worker
lives through the rest, so that its memory says something. At the end the log is replayed under the journal that is
left, and must give the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests import broker

from .complaints import Complaints
from .driver import Driver, Life
from .faults import broker_killed, broker_stopped, connections_cut, connections_slowed
from .growing import added, compare_with_replay
from .memory import Memory
from .stages import LifeError, Stage
from .steady import Steady, read_back
from .stream import PARTITIONS, Stream, changed
from .verdicts import Verdict
from .volume import can_mount, unwind_when_terminated
from .worlds import World, announced, kafka_world, topic_config

_STAGE = 101  # stage constant of the seeds
_RATE_PER_S = 40.0
_ENDING_PART = 0.4  # of the time, in which faults may end the worker
_GROW_AT = (0.2, 0.5)  # of the time: a partition is added
_RECOVERY_S = 240.0  # within which more slides must have closed
_QUIET_S = (3.0, 10.0)
_SLIDES = 3  # closed since: the worker is back
_SHOWN = 20
_LAST_S = 1800.0  # for the end of the log, and for the replay
_LIVE = {
    "source.kafka.refresh_partitions": "1s",
    "source.queue_records": 2000,
    "lease.timeout": "15s",
    "lease.heartbeat": "2s",
    "storage.retry_timeout": "2m",
    "gate.interval": "20m",
    "gate.min_interval": "20m",
}


class Soak:
    """Two lives on one state, of which one learns; and what is done to them."""

    def __init__(self, stage: Stage, producer: Steady) -> None:
        self._stage, self._producer = stage, producer
        self._rng = stage.rng
        self._complaints = Complaints(stage.folder)
        self._ledger = stage.folder / "ledger"
        self._seen_bytes = self._slides = 0
        self._lives: dict[str, Life] = {}
        self.counts: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        """Faults for so long, then a stop. Raises LifeError when the worker does not come back."""
        begun, grown = time.monotonic(), 0
        self._fill_up()
        self._recovered("the start")
        while (part := (time.monotonic() - begun) / seconds) < 1:
            if grown < len(_GROW_AT) and part >= _GROW_AT[grown]:
                grown += 1
                self._do("partitions added", self._grow)
            else:
                faults = FAULTS if part < _ENDING_PART else LASTING
                name = list(faults)[self._rng.integers(len(faults))]
                self._do(name, lambda name=name: FAULTS[name](self))  # type: ignore[misc]
            self._wait_quietly(self._rng.uniform(*_QUIET_S))
        self._complaints.read("")
        self._producer.stop()
        for name in list(self._lives):
            self._end(name, signal.SIGTERM, 0)
        self._complaints.read("SIGTERM")

    @property
    def unexplained(self) -> list[str]:
        return self._complaints.unexplained

    # ---- one fault after the other --------------------------------------------------------------------------

    def _do(self, name: str, fault: Callable[[], None]) -> None:
        self._complaints.read("")
        moment = time.monotonic()
        fault()
        self._fill_up()
        self._recovered(name)
        self._complaints.read(name)
        self.counts[name] += 1
        print(f"{name}: {time.monotonic() - moment:.0f} s, slide {self._slides}", flush=True)

    def _recovered(self, what: str) -> None:
        """More slides have closed since now."""
        self._count_slides()
        wanted, deadline = self._slides + _SLIDES, time.monotonic() + _RECOVERY_S
        while self._slides < wanted:
            self._none_ended()
            if time.monotonic() > deadline:
                raise LifeError(f"no slide closed within {_RECOVERY_S:.0f} s after {what}")
            time.sleep(0.1)
            self._count_slides()

    def _count_slides(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._ledger.open("rb") as file:
            file.seek(self._seen_bytes)
            content = file.read()
            self._seen_bytes += len(content)
            self._slides += content.count(b'{"at": "slide"')

    def _wait_quietly(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._none_ended()
            time.sleep(0.2)

    # ---- lives ----------------------------------------------------------------------------------------------

    def _fill_up(self) -> None:
        """Always two: one that learns, one that stands by."""
        while len(self._lives) < 2:
            name = f"life-{self.counts['lives']:04d}-"
            self.counts["lives"] += 1
            self._lives[name] = self._stage.begin(_LIVE, name=name, until_end=False, signals=True)
            if len(self._lives) == 1:
                self._until(lambda name=name: self._holds(name), "a worker holds the lease")  # type: ignore[misc]

    def _none_ended(self) -> None:
        for name, life in self._lives.items():
            if life.over.is_set():
                raise LifeError(f"{name} ended by itself with {life.wait(0)}: {self._stage.output(name)[-600:]}")

    def _end(self, name: str, how: signal.Signals, code: int) -> None:
        life = self._lives.pop(name)
        life.send(how)
        self._stage.end(life, f"{how.name}", code, name=name)

    def _holds(self, name: str) -> bool:
        return "holding the lease on" in self._stage.output(name)

    def _learner(self) -> str:
        """Name of the life that holds the lease; when one has just gone, the next."""
        self._until(lambda: sum(map(self._holds, self._lives)) == 1, "one worker holds the lease")
        return next(name for name in self._lives if self._holds(name))

    def _until(self, happened: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _RECOVERY_S
        while not happened():
            if time.monotonic() > deadline:
                raise LifeError(f"waited in vain until {what}")
            time.sleep(0.05)

    # ---- the faults -----------------------------------------------------------------------------------------

    def kill(self) -> None:
        self._end(self._learner(), signal.SIGKILL, -signal.SIGKILL)

    def hand_over(self) -> None:
        self._end(self._learner(), signal.SIGTERM, 0)

    def freeze(self) -> None:
        """Until the standby holds the lease; the first one wakes a moment later, and must leave."""
        name = self._learner()
        follower = next(other for other in self._lives if other != name)
        self._lives[name].send(signal.SIGSTOP)
        self._until(lambda: self._holds(follower), "the standby takes over")
        time.sleep(self._rng.uniform(0.0, 4.0))
        self._end(name, signal.SIGCONT, 4)

    def nap(self) -> None:
        """Stopped for less than the lease's timeout: nobody notices."""
        life = self._lives[self._learner()]
        life.send(signal.SIGSTOP)
        time.sleep(self._rng.uniform(0.5, 4.0))
        life.send(signal.SIGCONT)

    def meanwhile(self, harm: Callable[[Stage], contextlib.AbstractContextManager[None]]) -> None:
        with harm(self._stage):
            time.sleep(self._rng.uniform(0.5, 8.0))

    def signal(self, number: signal.Signals) -> None:
        self._lives[self._learner()].send(number)

    def _grow(self) -> None:
        before = len(added(self._stage.state))
        self._producer.grow(PARTITIONS + before + 1)
        self._until(lambda: len(added(self._stage.state)) > before, "a partition that was added is in the journal")


@contextlib.contextmanager
def _volume_full(stage: Stage) -> Iterator[None]:
    stage.volume.fill()
    try:
        yield
    finally:
        stage.volume.free()


Act = Callable[[Soak], None]

LASTING: dict[str, Act] = {
    "broker stopped": lambda soak: soak.meanwhile(broker_stopped),
    "broker killed": lambda soak: soak.meanwhile(broker_killed),
    "connections cut": lambda soak: soak.meanwhile(connections_cut),
    "connections slowed and hanging": lambda soak: soak.meanwhile(connections_slowed),
    "disk: EIO": lambda soak: soak.signal(signal.SIGRTMIN),
    "clock jumps": lambda soak: soak.signal(signal.SIGUSR2),
    "frozen for a moment": Soak.nap,
    **({"disk full": lambda soak: soak.meanwhile(_volume_full)} if can_mount() else {}),
}
FAULTS: dict[str, Act] = {
    **LASTING,
    "SIGKILL": Soak.kill,
    "SIGTERM": Soak.hand_over,
    "frozen past its lease": Soak.freeze,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    unwind_when_terminated()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with ExitStack() as stack:
        driver = stack.enter_context(Driver(folder / "driver"))
        server = broker.open_broker()
        stack.callback(server.remove)
        if not hasattr(server, "behind_proxy"):
            print(f"{server.name} cannot be stopped and killed here: needs Java 17 and mvn", flush=True)
            return 1
        print(f"seed {args.seed}, state in {folder}", flush=True)
        world = kafka_world(folder, driver, Stream([]), broker.KafkaBroker(server), hurt=True)
        stack.callback(world.close)
        return _soak(world, args.minutes, args.seed)


def _soak(world: World, minutes: float, seed: int) -> int:
    kafka: Any = world.kafka
    topic = kafka.topic(PARTITIONS)
    through = {"source.kafka.bootstrap_servers": kafka.server.proxied_bootstrap}
    world = replace(world, config=changed(topic_config(kafka, topic), {**_LIVE, **through}))
    disk = "" if can_mount() else None
    stage = Stage(world, world.folder / "live", np.random.default_rng([seed, _STAGE]), disk)
    memory, producer = Memory(stage.state), Steady(kafka, topic, seed, _RATE_PER_S)
    soak = Soak(stage, producer)
    with stage:
        memory.start()
        producer.start()
        try:
            soak.run(minutes * 60)
            verdict = _finish(stage, topic)
        except LifeError as error:
            verdict = Verdict([str(error)], 0, 0)
        finally:
            producer.stop()
            memory.stop()
        if not verdict.equal:  # the disk of its own goes with the run
            shutil.copytree(stage.state, world.folder / "state", dirs_exist_ok=True)
    return _conclude(world, minutes, seed, soak, memory, verdict)


def _finish(stage: Stage, topic: str) -> Verdict:
    """One life to the end of the log; then a replay of it all, and what nobody was told of."""
    stage.patience_s = _LAST_S
    stage.end(stage.begin({}, name="last-"), "the end of the log", 0, name="last-")
    verdict = compare_with_replay(stage, read_back(stage.world.kafka, topic))
    told = announced(stage.world)
    versions = json.loads((stage.folder / "report").read_text())["versions"]
    folder = stage.state / "checkpoints" / "shop"
    verdict.differences.extend(
        f"version {n} was not announced" for n in versions if (str(folder / str(n)), n) not in told
    )
    return verdict


def _conclude(world: World, minutes: float, seed: int, soak: Soak, memory: Memory, verdict: Verdict) -> int:
    """The table of what was done, whatever is wrong, the last line, and the exit code."""
    faults = {name: count for name, count in sorted(soak.counts.items()) if name != "lives"}
    print(f"faults: {', '.join(f'{name} {count}' for name, count in faults.items())}; {soak.counts['lives']} lives")
    print(f"resident memory of the longest life: {memory.described()}")
    unexplained = soak.unexplained
    good = verdict.equal and not unexplained
    for problem in [*unexplained[:_SHOWN], *verdict.differences]:
        print(f"  {problem}")
    if good:
        shutil.rmtree(world.folder)
    else:
        print(f"  seed {seed}, kept in {world.folder}")
    print(
        f"soak minutes={minutes:g} faults={sum(faults.values())} equal={int(verdict.equal)} lost={verdict.lost} "
        f"duplicated={verdict.duplicated} unexplained={len(unexplained)} "
        f"rss_slope_mib_per_hour={memory.slope():.1f}",
        flush=True,
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

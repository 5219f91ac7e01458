"""Processes that work through numbered inputs under limits, and the one that watches over them.

Input n is a function of (seed, n), so the watcher needs only the number of an input that killed or froze its process.
"""

from __future__ import annotations

import logging
import mmap
import os
import resource
import signal
import struct
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from .cases import Case, Check, Target, scratch

MEMORY_BYTES = 2 << 30  # address space a process may take on top of what it starts with
HANG_S = 30.0  # a process that starts takes some seconds, on a busy machine more
_KEPT_PER_PLACE = 3  # crash files of the same origin
_WATCH_S = 0.2
_SLOT = struct.Struct("<qqqd")  # input at work, inputs done, crashes, since (monotonic s)


def input_of(targets: tuple[Target, ...], seed: int, number: int) -> tuple[Target, Case]:
    rng = Random((seed << 48) + number)
    target = rng.choices(targets, [target.share for target in targets])[0]
    return target, target.case(rng)


@dataclass(slots=True)
class _Place:
    """A process's place in the shared page."""

    page: mmap.mmap
    index: int

    def write(self, number: int, done: int, crashes: int) -> None:
        at = self.index * _SLOT.size  # one copy: pack_into would show the reader zeros in between
        self.page[at : at + _SLOT.size] = _SLOT.pack(number, done, crashes, time.monotonic())

    def still_s(self) -> float:
        """For how long the process has been at one input."""
        return time.monotonic() - self.read()[3]

    def read(self) -> tuple[int, int, int, float]:
        return _SLOT.unpack_from(self.page, self.index * _SLOT.size)  # type: ignore[return-value]


@dataclass(slots=True)
class Campaign:
    """A run of `inputs` inputs on `jobs` processes; crashing inputs go to `out`."""

    targets: tuple[Target, ...]
    inputs: int
    seed: int
    jobs: int
    out: Path
    crashes: int = 0
    hangs: int = 0
    done: int = 0
    peak_rss_bytes: int = 0
    _running: dict[int, int] = field(default_factory=dict)  # pid -> index
    _places: list[_Place] = field(default_factory=list)
    _folder: Path = Path()

    def run(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        for target in self.targets:
            assert target.seeds
        page = mmap.mmap(-1, self.jobs * _SLOT.size)
        self._places = [_Place(page, index) for index in range(self.jobs)]
        with scratch() as self._folder:  # the watcher's, so that a killed process leaves nothing behind
            self._run()
        self.done, self.crashes = self._sum(1), self._sum(2)

    def _run(self) -> None:
        started = told = time.monotonic()
        for index, place in enumerate(self._places):
            place.write(index, 0, 0)
            self._start(index)
        while self._running:
            time.sleep(_WATCH_S)
            self._watch()
            if time.monotonic() - told > 10:
                told = time.monotonic()
                print(f"{self._sum(1):9d} inputs, {self._sum(2)} crashes, {told - started:.0f} s", flush=True)

    def _sum(self, column: int) -> int:
        return sum(int(place.read()[column]) for place in self._places)

    def _start(self, index: int) -> None:
        pid = os.fork()
        if pid:
            self._running[pid] = index
            return
        status = 1
        try:
            _work(self, self._places[index], self._folder / str(os.getpid()))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _watch(self) -> None:
        for pid, index in list(self._running.items()):
            frozen = self._places[index].still_s() > HANG_S
            if frozen:
                os.kill(pid, signal.SIGKILL)
            gone, status, used = os.wait4(pid, 0 if frozen else os.WNOHANG)
            number, done, crashes, _ = self._places[index].read()  # of a process that writes no more
            if not gone:
                continue
            del self._running[pid]
            self.peak_rss_bytes = max(self.peak_rss_bytes, used.ru_maxrss * 1024)
            if not frozen and status == 0:
                continue
            self.hangs += frozen
            how = "hang" if frozen else f"process ended with status {os.waitstatus_to_exitcode(status)}"
            keep(self.out, number, *input_of(self.targets, self.seed, number), how)
            self._places[index].write(number + self.jobs, done + 1, crashes + (not frozen))
            self._start(index)


def _work(campaign: Campaign, place: _Place, folder: Path) -> None:
    """Inputs from the place's number on, every `jobs`-th, until all are done."""
    logging.disable(logging.CRITICAL)
    number, done, crashes, _ = place.read()
    seen: dict[str, int] = {}
    folder.mkdir()
    checks = _opened(campaign.targets, folder)
    _limit_memory()
    while number < campaign.inputs:
        place.write(number, done, crashes)
        target, case = input_of(campaign.targets, campaign.seed, number)
        try:
            checks[target.name](case)
        except Exception as error:  # whatever a check raises is what is looked for
            crashes += 1
            origin = f"{target.name} {type(error).__name__} {traceback.extract_tb(error.__traceback__)[-1][:2]}"
            seen[origin] = seen.get(origin, 0) + 1
            if seen[origin] <= _KEPT_PER_PLACE:
                keep(campaign.out, number, target, case, traceback.format_exc())
        number, done = number + campaign.jobs, done + 1
    place.write(number, done, crashes)


def _opened(targets: tuple[Target, ...], folder: Path) -> dict[str, Check]:
    checks = {}
    for target in targets:
        (folder / target.name).mkdir()
        checks[target.name] = target.open(folder / target.name)
        checks[target.name](target.seeds[0])  # what is made once is made before the limits
    return checks


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def keep(out: Path, number: int, target: Target, case: Case, why: str) -> None:
    """The input and what it did, to be looked at."""
    name = f"{target.name}-{number}"
    (out / f"{name}.bin").write_bytes(case.content)
    (out / f"{name}.txt").write_text(f"target {target.name}, place {case.place}, {len(case.content)} bytes\n{why}\n")
    print(f"{name}: {why.strip().splitlines()[-1][:300]}", flush=True)

"""What can befall a worker at a place, from within its own process: a signal, a disk that fails, a clock that jumps."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from .places import STORAGE_CALLS, die

Hurt = Callable[[], None]

_FAILING_CALLS = (*STORAGE_CALLS, "pwrite")


def hurt(name: str, amount: float) -> Hurt:
    """The mishap of this name, or the signal, sent to the own process."""
    if name == "SIGKILL":
        return die
    if name in MISHAPS:
        return MISHAPS[name](amount)
    number = signal.Signals[name]
    return lambda: os.kill(os.getpid(), number)


def failing(code: int) -> Callable[[float], Hurt]:
    """From a storage operation on, so many of them fail with this error of the operating system, whichever thread
    they are made by. The wrapped calls are the ones below every durable write."""

    def with_amount(amount: float) -> Hurt:
        lock, left = threading.Lock(), [amount]

        def fail() -> None:
            with lock:
                if left[0] <= 0:
                    return
                left[0] -= 1
            raise OSError(code, os.strerror(code))

        def begin() -> None:
            arm(fail)
            fail()  # the operation that it begins with

        return begin

    return with_amount


def arm(fail: Callable[[], None]) -> None:
    """Has every storage operation from now on do `fail` before anything else."""
    for name in _FAILING_CALLS:
        setattr(os, name, _after(fail, getattr(os, name)))


def install_signals() -> None:
    """For a life that is hurt from outside at any moment: SIGRTMIN makes the next four storage operations fail with
    EIO, SIGUSR2 sets the clock forward by a day and back by two in turn."""
    left, jumps = [0], [86_400.0, -2 * 86_400.0]

    def fail() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def jump(*_: object) -> None:
        clock_jump(jumps[0])()
        jumps.reverse()

    arm(fail)
    signal.signal(signal.SIGRTMIN, lambda *_: left.__setitem__(0, 4))
    signal.signal(signal.SIGUSR2, jump)


def _after(check: Callable[[], None], call: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*args: Any, **options: Any) -> Any:
        check()
        return call(*args, **options)

    return checked


def clock_jump(seconds: float) -> Hurt:
    """The wall clock is set forward, or back; monotonic clocks go on, as they do in such a case."""

    def jump() -> None:
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + seconds
        time.time_ns = lambda: now_ns() + int(seconds * 1e9)

    return jump


MISHAPS: dict[str, Callable[[float], Hurt]] = {
    "EIO": failing(errno.EIO),
    "ENOSPC": failing(errno.ENOSPC),
    "EROFS": failing(errno.EROFS),
    "clock": clock_jump,
}

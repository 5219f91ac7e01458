"""The thread that makes captures durable, in the order in which they were taken."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")

_LOOK_S = 0.2  # how often a wait for room looks whether the thread has failed


class Writer(Generic[C]):
    """Runs `write` on each submitted capture, one after the other, none skipped.

    `submit` waits while `max_waiting` captures wait: then learning waits, and no version is lost. The first error
    stops the thread and is raised again by the next `submit`, `drain` or `check`.
    """

    def __init__(self, write: Callable[[C], None], max_waiting: int) -> None:
        self._write = write
        self._queue: queue.Queue[C | None] = queue.Queue(maxsize=max_waiting)
        self._error: BaseException | None = None
        self._idle = threading.Condition()
        self._unwritten = 0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Captures submitted and not yet durable."""
        return self._unwritten

    def submit(self, capture: C) -> None:
        with self._idle:
            self._unwritten += 1
        self.check()
        while not self._offered(capture):
            self.check()

    def check(self) -> None:
        """Raises what stopped the thread, if anything did."""
        if self._error is not None:
            raise self._error

    def drain(self) -> None:
        """Returns when everything submitted is durable."""
        with self._idle:
            self._idle.wait_for(lambda: self._unwritten == 0 or self._error is not None)
        self.check()

    def close(self) -> None:
        """Ends the thread after what is queued; does not raise (call `drain` first to know)."""
        while self._thread.is_alive() and not self._offered(None):
            continue
        self._thread.join()

    def _offered(self, capture: C | None) -> bool:
        """Whether there was room in time."""
        try:
            self._queue.put(capture, timeout=_LOOK_S)
        except queue.Full:
            return False
        return True

    def _run(self) -> None:
        while (capture := self._queue.get()) is not None:
            try:
                self._write(capture)
            except BaseException as error:  # whatever it is: handed to the thread that submits, and raised there
                with self._idle:
                    self._error = error
                    self._idle.notify_all()
                return
            with self._idle:
                self._unwritten -= 1
                self._idle.notify_all()

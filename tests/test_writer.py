"""Captures are written in order, none skipped; what goes wrong is raised where captures are made."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from stream_learner.errors import StateError
from stream_learner.writer import Writer


class Store:
    """Takes captures while its gate is open; refuses those it is told to."""

    def __init__(self, refused: int | None = None, error: BaseException | None = None) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.written: list[int] = []
        self._refused, self._error = refused, error

    def write(self, capture: int) -> None:
        assert self.gate.wait(10)
        if capture == self._refused and self._error is not None:
            raise self._error
        self.written.append(capture)


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.gate.set()


def eventually(what: object, *, equals: object) -> None:
    deadline = time.monotonic() + 5
    while what() != equals:  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_all_in_the_order_of_submission(store: Store) -> None:
    writer: Writer[int] = Writer(store.write, max_waiting=2)
    for capture in range(50):
        writer.submit(capture)
    writer.drain()
    assert store.written == list(range(50))
    assert writer.waiting == 0
    writer.close()


def test_submitting_waits_when_enough_wait_and_skips_none(store: Store) -> None:
    store.gate.clear()
    writer: Writer[int] = Writer(store.write, max_waiting=2)
    submitted: list[int] = []

    def submit() -> None:
        for capture in range(6):
            writer.submit(capture)
            submitted.append(capture)

    learning = threading.Thread(target=submit)
    learning.start()
    eventually(lambda: len(submitted), equals=3)  # one is being written, two wait
    time.sleep(0.3)
    assert len(submitted) == 3
    assert writer.waiting == 4
    store.gate.set()
    learning.join(5)
    writer.drain()
    assert store.written == list(range(6))
    writer.close()


def test_draining_waits_for_the_last(store: Store) -> None:
    store.gate.clear()
    writer: Writer[int] = Writer(store.write, max_waiting=4)
    writer.submit(1)
    threading.Timer(0.1, store.gate.set).start()
    writer.drain()
    assert store.written == [1]
    writer.close()


@pytest.mark.parametrize("error", [StateError("torn"), OSError("disk"), AssertionError("a bug"), MemoryError()])
def test_the_first_error_stops_it_and_is_raised_by_everything(error: BaseException) -> None:
    store = Store(refused=1, error=error)
    writer: Writer[int] = Writer(store.write, max_waiting=2)
    writer.submit(0)
    writer.submit(1)
    with pytest.raises(type(error)):
        writer.drain()
    with pytest.raises(type(error)):
        writer.check()
    for _ in range(5):
        with pytest.raises(type(error)):
            writer.submit(2)
    writer.close()
    assert store.written == [0]


def test_an_error_frees_who_waits_for_room() -> None:
    store = Store(refused=0, error=StateError("torn"))
    store.gate.clear()
    writer: Writer[int] = Writer(store.write, max_waiting=1)
    writer.submit(0)
    writer.submit(1)
    threading.Timer(0.1, store.gate.set).start()
    with pytest.raises(StateError, match="torn"):
        writer.submit(2)
    writer.close()  # the queue is full and nobody empties it any more


def test_closing_writes_what_is_queued_and_may_be_repeated(store: Store) -> None:
    writer: Writer[int] = Writer(store.write, max_waiting=4)
    for capture in range(3):
        writer.submit(capture)
    writer.close()
    writer.close()
    assert store.written == [0, 1, 2]
    writer.drain()

"""A RetryableError is tried again until a monotonic deadline, and no other error is."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from stream_learner import retry
from stream_learner.errors import RetryableError, StateError, UnavailableError
from stream_learner.retry import retrying
from stream_learner.settings import Duration

MINUTE = Duration.parse("1m")


class Clock:
    """Monotonic seconds that pass only in sleep."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


def failing(times: int, error: Exception | None = None) -> Callable[[], str]:
    left = [times]

    def action() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise error or RetryableError(f"{left[0]} more")
        return "done"

    return action


def test_what_works_is_done_once(clock: Clock) -> None:
    assert retrying(failing(0), "a write", MINUTE) == "done"
    assert clock.waits == []


def test_waits_double_with_jitter_up_to_ten_seconds(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert retrying(failing(12), "a write", Duration.parse("10m")) == "done"
    for number, wait in enumerate(clock.waits):
        longest = min(0.1 * 2**number, 10.0)
        assert longest / 2 <= wait <= longest
    assert len(clock.waits) == len(caplog.records) == 12
    assert "a write failed, trying again for 600 s more: 11 more" in caplog.text


def test_after_the_deadline_it_is_unavailable(clock: Clock) -> None:
    cause = RetryableError("disk full")
    with pytest.raises(UnavailableError, match=r"snapshot: still failing after 1m: disk full") as raised:
        retrying(failing(10_000, cause), "snapshot", MINUTE)
    assert raised.value.__cause__ is cause
    assert raised.value.exit_code == 6
    assert sum(clock.waits) == pytest.approx(60)


def test_a_timeout_of_nothing_tries_once(clock: Clock) -> None:
    with pytest.raises(UnavailableError):
        retrying(failing(1), "a write", Duration(0))
    assert clock.waits == []


@pytest.mark.parametrize("error", [StateError("torn"), ValueError("a bug"), UnavailableError("gone")])
def test_other_errors_go_up_at_once(clock: Clock, error: Exception) -> None:
    with pytest.raises(type(error)):
        retrying(failing(1, error), "a write", MINUTE)
    assert clock.waits == []

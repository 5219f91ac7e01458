"""Bounded retries against one monotonic deadline: what becomes of every RetryableError."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from stream_learner.errors import RetryableError, UnavailableError
from stream_learner.settings import Duration

log = logging.getLogger(__name__)
T = TypeVar("T")

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0


def retrying(action: Callable[[], T], what: str, timeout: Duration) -> T:
    """Does `action`, again after each RetryableError, until `timeout` has passed; then UnavailableError.

    Waits double from 0.1 s to at most 10 s, with full jitter (no two workers in step on a shared store). The jitter
    is drawn from the process's own generator and reaches nothing but the waiting.
    """
    deadline = time.monotonic() + timeout.seconds
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return action()
        except RetryableError as error:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise UnavailableError(f"{what}: still failing after {timeout}: {error}") from error
            log.warning("%s failed, trying again for %.0f s more: %s", what, left_s, error)
            time.sleep(min(left_s, random.uniform(wait_s / 2, wait_s)))
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

"""Health from progress: a worker is alive while its loop turns, whatever the far side says or does not say.

A hung broker raises nothing and a deadlock logs nothing; both show as a loop that no longer beats.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from stream_learner.settings import Duration

State = Literal["standby", "starting", "running", "stopping", "failed"]


class Health:
    """What /healthz and /readyz answer. Beaten by the worker, read by the HTTP thread."""

    def __init__(self, stuck_after: Duration, clock: Callable[[], float] = time.monotonic) -> None:
        self._stuck_after_s = stuck_after.seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._state: State = "starting"
        self._stage = "start"
        self._reason = ""
        self._beaten_at = clock()

    def standing_by(self, holder: str) -> None:
        """Waiting for the lease that `holder` has; said again at every look at it."""
        self._enter("standby", f"waiting for {holder}")

    def starting(self, stage: str) -> None:
        """Getting ready: reading the config, restoring state. Every change of state counts as a beat."""
        self._enter("starting", stage)

    def running(self) -> None:
        """State is restored, slides are worked on."""
        self._enter("running", "reading")

    def stopping(self) -> None:
        """Asked to stop, or at the end of a bounded log."""
        self._enter("stopping", "stopping")

    def failed(self, reason: str) -> None:
        """A fatal error. Final: what the shutdown does afterwards does not hide the cause."""
        with self._lock:
            self._state, self._reason = "failed", reason

    def _enter(self, state: State, stage: str) -> None:
        with self._lock:
            if self._state != "failed":
                self._state, self._stage, self._beaten_at = state, stage, self._clock()

    def beat(self, stage: str) -> None:
        """Says that the loop moves, and where it is; called at every turn, also while waiting for events."""
        with self._lock:
            self._stage, self._beaten_at = stage, self._clock()

    def live(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process is worth keeping, and why (plain values for JSON)."""
        with self._lock:
            still_s = self._clock() - self._beaten_at
            alive = self._state != "failed" and still_s <= self._stuck_after_s
            reason = self._reason
            if not alive and self._state != "failed":
                reason = f"the loop has not moved for {still_s:.0f} s in {self._stage}"
            return alive, {
                "state": self._state,
                "stage": self._stage,
                "seconds_since_beat": round(still_s, 3),
                "stuck_after_seconds": self._stuck_after_s,
                "reason": reason,
            }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether slides are being worked on, or will be as soon as the lease is free.

        A standby is ready: a rolling update that waits for the new worker before it stops the old one would otherwise
        wait for ever. The `state` in the answer tells the two apart.
        """
        alive, reasons = self.live()
        return alive and reasons["state"] in ("running", "standby"), reasons

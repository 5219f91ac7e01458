"""A small disk of a trial's own: a tmpfs that can be filled to the last byte and mounted read-only."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SIZE_BYTES = 256 << 20
_BALLAST = "ballast"
_BUSY_S = 90.0  # how long a file that is open for writing may hold up a remount


class Volume:
    """A tmpfs at `path`, which is made if need be."""

    def __init__(self, path: Path, size_bytes: int = SIZE_BYTES) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "faults", str(path))

    def fill(self) -> None:
        """Not a byte is left."""
        with (self.path / _BALLAST).open("ab", buffering=0) as file:
            for block in (bytes(1 << 20), bytes(1 << 12), b"\0"):
                try:
                    while True:
                        file.write(block)
                except OSError:
                    continue

    def free(self) -> None:
        (self.path / _BALLAST).unlink(missing_ok=True)

    def set_read_only(self, nudge: Callable[[], None]) -> None:
        """Waits for files that are open for writing to be closed, and nudges whoever was stopped with one in hand.
        Raises `CalledProcessError` when one stays open."""
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                return _run("mount", "-o", "remount,ro", str(self.path))
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
                nudge()

    def set_writable(self) -> None:
        _run("mount", "-o", "remount,rw", str(self.path))

    def remove(self) -> None:
        """What was in it is gone."""
        _run("umount", "-l", str(self.path))


@functools.cache
def can_mount() -> bool:
    """Whether this process may: root, in most containers not."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(prefix="faults-mount-") as folder:
        try:
            Volume(Path(folder), 1 << 20).remove()
        except (OSError, subprocess.CalledProcessError):
            return False
    return True


def unwind_when_terminated() -> None:
    """SIGTERM ends this process as an exception does: no disk stays mounted, no broker running."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)

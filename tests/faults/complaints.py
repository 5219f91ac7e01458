"""Which lines of the workers' logs a fault explains; all others from a warning upwards are unexplained."""

from __future__ import annotations

import re
from pathlib import Path

_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+ (\w+) +(\S+): (.*)")
_KAFKA = r"kafka|Kafka|offsets not committed|announcement failed, trying again|dead letters failed, trying again"
_DISK = r"failed, trying again for|the lease was not renewed|could not be pruned|cannot remove|cannot (write|read)"
_LEASE = r"the lease on .* another worker may have taken over|the lease was not released"

EXPLAINED = {
    "broker": _KAFKA,
    "connections": _KAFKA,
    "disk": _DISK,
    "frozen": f"{_LEASE}|{_KAFKA}",
    "SIGTERM": r"Metadata refresh: failed Cancelled",  # by the closing of the client
}
# What the worker finds in the data; the replay must find the same.
_FINDINGS = r"slide \d+: (inputs|labels|predictions|relation) drift: "
# What TensorFlow's C++ side says of a machine without a GPU, and kafka-python of one that is busy.
_HARMLESS = r"cuInit|All log messages before absl|It is blocking the event loop"


class Complaints:
    """Reads what lives say, piece by piece, each piece under the fault that was there at the time ("" = none), or the
    one before it: a retry may tell of a failure when the fault is over.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self._before = ""
        self.unexplained: list[str] = []

    def read(self, fault: str) -> None:
        """Everything said since the last time."""
        for path in sorted(self._folder.glob("*output")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                content = file.read()
            whole = content.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + whole
            for line in content[:whole].decode(errors="replace").splitlines():
                if not _explained(line, fault) and not _explained(line, self._before):
                    self.unexplained.append(f"{path.name}, {fault or 'no fault'}: {line[:300]}")
        self._before = fault or self._before


def _explained(line: str, fault: str) -> bool:
    """Lines that are no log lines are tracebacks, or what C libraries say; they need a reason too."""
    found = _LINE.match(line)
    if found and found[1] in ("INFO", "DEBUG"):
        return True
    if not line.strip() or re.search(f"{_HARMLESS}|{_FINDINGS}", line):
        return True
    reason = next((pattern for name, pattern in EXPLAINED.items() if fault.startswith(name)), None)
    if found is None:  # the traceback of a life that was to end so
        return fault.startswith("frozen past")
    return reason is not None and re.search(reason, line) is not None

"""Logs on stderr, one line a record, as JSON or text; and a progress line on a terminal.

Numbers travel beside the message: `log.info("slide closed", extra={"fields": {"slide": 7, "events": 812}})`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from stream_learner.settings import Observing

_log = logging.getLogger(__name__)
_OURS = "stream_learner"
_NOISY = {
    "kafka": logging.WARNING,
    "librdkafka": logging.CRITICAL,  # every try again; what comes of it is told by our own errors
    "tensorflow": logging.ERROR,
    "absl": logging.ERROR,
    "h5py": logging.WARNING,
}
_ERASE_LINE = "\r\x1b[2K"
_REDRAW_S = 0.2


def configure_logging(settings: Observing, stream: TextIO | None = None) -> None:
    """Sends all records to `stream` (stderr by default). Called before TensorFlow is imported, to quieten its C++ side
    too; a second call replaces the first."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # 2 would still report, as an error, that there is no GPU
    stream_handler = _LineHandler(stream or sys.stderr)
    stream_handler.setFormatter(_JsonLines() if settings.log_format == "json" else _TextLines())
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _LineHandler)]:
        root.removeHandler(old)
    root.addHandler(stream_handler)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root.setLevel(level)
    logging.getLogger(_OURS).setLevel(level)
    for name, least in _NOISY.items():
        logging.getLogger(name).setLevel(max(level, least))
    logging.captureWarnings(True)


def switch_debug(settings: Observing) -> None:
    """Debug for everything of ours, or back to `observing.log_level`; when it goes on, the log tells where every thread
    is, which shows what a stuck slide hangs on. For a signal handler, which may have interrupted a write to the log:
    what is logged is logged by a thread of its own."""
    configured = logging.getLevelNamesMapping()[settings.log_level.upper()]
    ours = logging.getLogger(_OURS)
    on = ours.level != logging.DEBUG
    ours.setLevel(logging.DEBUG if on else configured)
    threading.Thread(target=_tell_switch, args=(on, settings.log_level), name="debug", daemon=True).start()


def _tell_switch(on: bool, level: str) -> None:
    _log.warning("debug is on until the next SIGUSR1" if on else "debug is off: %s again", *([] if on else [level]))
    if not on:
        return
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            _log.debug("thread %s:\n%s", names.get(ident, ident), "".join(traceback.format_stack(frame)))


@contextmanager
def importing_quietly() -> Iterator[None]:
    """Keeps stderr for log lines while TensorFlow is imported: its C++ side writes there before it reads any setting.

    What goes wrong with the import itself is raised by Python as ever.
    """
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


class _LineHandler(logging.StreamHandler[TextIO]):
    """Ours, so that a second configuration finds it; on a terminal a record takes the progress line's place."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return _ERASE_LINE + line if self.stream.isatty() else line


class _JsonLines(logging.Formatter):
    """{"time", "level", "logger", "message", ...fields, "exception"}; a field never hides one of ours."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line = {**line, **{key: value for key, value in _fields(record).items() if key not in line}}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _TextLines(logging.Formatter):
    """time LEVEL logger: message key=value ...; line breaks are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_utc(record)} {record.levelname:<7} {record.name}: {record.getMessage()}"
        line += "".join(f" {key}={value}" for key, value in _fields(record).items())
        if record.exc_info:
            line += f"\n{self.formatException(record.exc_info)}"
        return line.replace("\r", "\\r").replace("\n", "\\n")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _utc(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Progress:
    """One line, redrawn at most five times a second; silent where `stream` is no terminal or the end is not known."""

    def __init__(
        self, total_records: int | None, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._total = total_records
        self._shown = bool(total_records) and self._stream.isatty()
        self._clock = clock
        self._started = clock()
        self._drawn: float | None = None

    def update(self, records: int, note: str = "") -> None:
        """Shows how many records are done, their rate, the time left, and a note such as the last verdict."""
        now = self._clock()
        if self._shown and (self._drawn is None or now - self._drawn >= _REDRAW_S):
            self._drawn = now
            self._stream.write(f"{_ERASE_LINE}{self._line(records, now - self._started)}{note and f' · {note}'}")
            self._stream.flush()

    def close(self) -> None:
        """Clears the line. Idempotent."""
        if self._shown and self._drawn is not None:
            self._stream.write(_ERASE_LINE)
            self._stream.flush()
        self._shown = False

    def _line(self, records: int, elapsed_s: float) -> str:
        total = self._total or 1
        rate = records / elapsed_s if elapsed_s > 0 else 0.0
        left = f", {max(0.0, total - records) / rate:,.0f} s left" if rate else ""
        return f"{min(1.0, records / total):6.1%} of {total:,} records, {rate:,.0f}/s{left}"

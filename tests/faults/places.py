"""Where a worker can be hurt: around every numbered step of the commit protocol and inside those that write, and
before every single storage operation. The real objects are wrapped in the worker's own process; the product has no
hooks.

A place is named `<step>/<what>/<moment>`; moments are `before`, `after` and, where bytes are appended, `torn`: half of
them are on the disk. `storage` counts all operations that change names or flush, whatever step they belong to.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

STORAGE = "storage"
STORAGE_CALLS = ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "link", "ftruncate")


def die() -> None:
    """As an OOM killer would: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process went on")


class Stop:
    """Counts passes through places, and does `hurt` at the wanted one: kills the process, if nothing else is said."""

    def __init__(self, place: str | None = None, nth: int = 1, hurt: Callable[[], None] = die) -> None:
        self._place, self._nth, self._hurt = place, nth, hurt
        self._lock = threading.Lock()
        self.passes: Counter[str] = Counter()

    def reached(self, place: str) -> bool:
        """Counts a pass; whether it is the wanted one."""
        with self._lock:
            self.passes[place] += 1
            return place == self._place and self.passes[place] == self._nth

    def at(self, place: str) -> None:
        if self.reached(place):
            self._hurt()


def around(owner: Any, name: str, step: str, stop: Stop) -> None:
    """Makes `owner.name` a place: before and after."""
    inner = getattr(owner, name)
    place = f"{step}/{name.strip('_')}"

    @functools.wraps(inner)
    def passed(*args: Any, **options: Any) -> Any:
        stop.at(f"{place}/before")
        result = inner(*args, **options)
        stop.at(f"{place}/after")
        return result

    setattr(owner, name, passed)


def install(stop: Stop) -> None:
    """Wraps everything, once, in a process that is about to run a worker."""
    from stream_learner import journal, snapshot_writing, snapshots, worker, writer
    from stream_learner.ingest import dead_letters, files, kafka
    from stream_learner.learning.learner import Learner
    from stream_learner.publishing import announce, checkpoints, export, publisher, storage, verdict_log

    around(worker.Worker, "run_slide", "1 slide", stop)
    around(worker.Aggregates, "step", "1 aggregates", stop)
    around(worker.Attribution, "step", "1 attribution", stop)
    around(Learner, "learn", "1 learner", stop)
    around(verdict_log.VerdictLog, "append", "2 verdict", stop)
    around(Learner, "promote", "2 learner", stop)
    around(publisher.Publisher, "promoted", "2 publisher", stop)
    around(worker.Parts, "capture", "3 parts", stop)
    around(Learner, "changes", "3 learner", stop)
    around(writer.Writer, "submit", "3 writer", stop)
    around(dead_letters.FileDeadLetters, "flush", "4 letters", stop)
    around(publisher.Publisher, "write", "5 version", stop)
    around(export.Exporter, "write", "5 files", stop)
    around(export.tf.raw_ops, "SaveV2", "5 variables", stop)
    around(export.Exporter, "check", "5 files", stop)
    for module, names in ((checkpoints, ("write_file", "fsync_tree")), (storage, ("write_file", "rename_dir"))):
        for name in names:
            around(module, name, "5 and 7 checkpoints", stop)
    around(snapshots.Snapshots, "write", "6 snapshot", stop)
    for name in ("write_files", "fsync_tree", "rename_dir"):
        around(snapshots, name, "6 snapshot", stop)
    for name in ("_link", "_merged", "write_manifest"):
        around(snapshot_writing, name, "6 snapshot", stop)
    around(checkpoints.Checkpoints, "point", "7 pointer", stop)
    for kind in (announce.NoAnnouncer, announce.KafkaAnnouncer):
        around(kind, "announce", "7 announcer", stop)
    for source in (files.FilesSource, kafka.KafkaSource):
        around(source, "commit", "8 source", stop)
    around(checkpoints.Checkpoints, "prune", "9 versions", stop)
    around(snapshots.Snapshots, "prune", "9 snapshots", stop)
    around(journal.FileJournal, "append", "journal", stop)
    around(worker.Worker, "restore", "restore", stop)
    around(worker.Intake, "start", "restore", stop)
    _install_torn_appends(stop)
    for name in STORAGE_CALLS:
        _install_storage(name, stop)


def _install_torn_appends(stop: Stop) -> None:
    """Half of what is appended to journal, verdicts or dead letters, and then nothing more."""
    from stream_learner import durable
    from stream_learner.ingest import dead_letters

    append, append_letters = durable.AppendFile.append, dead_letters._append

    def append_torn(self: durable.AppendFile, content: bytes) -> None:
        if stop.reached(f"{'2' if self.path.stem == 'verdicts' else ''} {self.path.stem}/append/torn".strip()):
            os.pwrite(self._descriptor, content[: len(content) // 2], self.size_bytes)
            die()
        append(self, content)

    def append_letters_torn(path: Any, lines: bytes) -> None:
        if stop.reached("4 letters/append/torn"):
            with path.open("ab") as file:
                file.write(lines[: len(lines) // 2])
            die()
        append_letters(path, lines)

    durable.AppendFile.append = append_torn  # type: ignore[method-assign]
    dead_letters._append = append_letters_torn


def _install_storage(name: str, stop: Stop) -> None:
    call = getattr(os, name)

    def counted(*args: Any, **options: Any) -> Any:
        stop.at(STORAGE)
        return call(*args, **options)

    setattr(os, name, counted)

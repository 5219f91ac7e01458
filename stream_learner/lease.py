"""One learner, one standby: a lease with a fencing token on the state folder.

    <folder>/lease-000000000007   token 7: its holder, and a counter that the holder rewrites every `heartbeat`

The folder may lie on a shared POSIX volume, where neither flock nor clocks can be trusted, so nothing here needs more
than exclusive creation. The newest file is the lease. A worker takes it by creating the file of the next token, once
the newest is released, or its process is known to be gone (same boot, same PID namespace), or its bytes have not
changed for `timeout` on the watcher's own monotonic clock (the lease of Gray and Cheriton, SOSP 1989). Whoever creates
a file removes the older ones. The newest file always stays, so tokens only grow.

The holder counts `timeout` from the beginning of its last renewal, on its own clock; no watcher saw that renewal any
earlier. When it runs out (the process was stopped, the disk was away), or when a newer token stands, the lease is lost
for good, and `check` and `prove` raise StateError.

A clock cannot stop a process between its last check and its write: it may be stopped right there and wake when the
lease is another's. Four rules make the one write that may then slip through harmless:

1. What appears under a final name (snapshot, version, pointer) is first written under a temporary name; then the lease
   is proved on disk; then it is renamed. A newcomer first takes the lease, and then takes all temporary names away
   (`durable.recover_folder`), before it looks at final names. So a late rename finds nothing to rename; one that came
   before is seen by the newcomer and is as good as its own, since it was proved under the older token.
2. Journal and verdicts are replaced by copies of themselves when they are opened (`durable.AppendFile`, by rule 1), so
   what a holder that lost the lease still appends ends in a file that has no name. What it then decided reaches no
   version or snapshot: those are proved again.
3. Names are listed, then the lease is proved, then listed names are removed: nothing made by a newcomer can go. (A
   prune stopped in between may remove one old version more than wanted, never the champion of its time.)
4. Snapshots carry the token in their names, and readers take those of the highest token.

Dead letters, announcements and offset commits are at least once anyway, and name what they are about.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NoReturn, Self

import msgspec

from stream_learner import settings
from stream_learner.durable import BAD_JSON, fsync_path, make_folder, storage_errors
from stream_learner.errors import RetryableError, StateError

log = logging.getLogger(__name__)

_NAME = "lease-"
_RECORD_BYTES = 512  # rewritten in place, always as long, within one sector
_LOOK_S = 0.2  # between two looks of a standby
_JOIN_S = 5.0  # a renewal that hangs longer on its disk is left behind


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lease."""

    token: int
    holder: str  # random, of one claim
    host: str
    pid: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    machine: str | None  # boot and PID namespace in which `pid` counts; None = unknown
    started: str | None  # when the process did, in ticks since boot
    counter: int = 0
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (token {self.token})"


class Lease:
    """A worker's hold on one state folder; the standby's way to it. One thread acquires, any may check.

    `floor` is a token known to have been used (on snapshots), should the lease files have been lost.
    """

    def __init__(
        self, folder: Path, terms: settings.Lease, *, floor: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._terms = terms
        self._floor = floor
        self._clock = clock
        self.token = 0  # 0 = not held
        self._seen: tuple[int, bytes] | None = None  # the newest lease as last looked at, and since when
        self._seen_at = 0.0
        self._heartbeats = 0  # changes seen
        self._record = _own_record(0)
        self._descriptor = -1
        self._renewed_at = 0.0
        self._lost = ""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # ---- taking it ------------------------------------------------------------------------------------------

    def acquire(self, wait: Callable[[float], bool], standing_by: Callable[[str], None]) -> bool:
        """Takes the lease and keeps it by a thread of its own; True when held, False when told to stop waiting.

        `wait` sleeps for so many seconds and says whether to stop; `standing_by` hears at every look who holds the
        lease. Without `standby` a holder that lives is a StateError: at once where that can be known, else at its
        first heartbeat. RetryableError when the folder cannot be read or written.
        """
        while not self.try_claim():
            holder = self.holder()
            if not self._terms.standby and self._lives():
                raise StateError(
                    f"{self._folder.parent} is in use by {holder}: stop that worker, give this one another state "
                    "folder, or let it stand by (lease.standby: true)"
                )
            standing_by(holder)
            if wait(_LOOK_S):
                return False
        self._thread.start()
        return True

    def try_claim(self) -> bool:
        """One look, and one claim if the lease is free. Does not begin to renew."""
        make_folder(self._folder)
        newest = self._newest()
        if newest != self._seen:
            self._heartbeats += self._seen is not None
            self._seen, self._seen_at = newest, self._clock()
        if newest is not None and not self._lapsed(newest[1]):
            return False
        return self._claim(max(0 if newest is None else newest[0], self._floor) + 1)

    def holder(self) -> str:
        """Who holds the lease, as last looked at."""
        record = None if self._seen is None else _decoded(self._seen[1])
        return "an unknown worker" if record is None else str(record)

    def _newest(self) -> tuple[int, bytes] | None:
        """Token and bytes of the newest lease; None = there was never any."""
        with storage_errors(self._folder, "read the lease in"):
            while tokens := _tokens(self._folder):
                try:
                    return tokens[-1], _path(self._folder, tokens[-1]).read_bytes()
                except FileNotFoundError:
                    continue  # a newer one stands, by now
        return None

    def _lapsed(self, content: bytes) -> bool:
        record = _decoded(content)
        if record is not None and (record.released or _fate(record) == "gone" or record.holder == self._record.holder):
            return True  # the last is a claim of its own that failed half way
        return self._clock() - self._seen_at >= self._terms.timeout.seconds

    def _lives(self) -> bool:
        record = None if self._seen is None else _decoded(self._seen[1])
        return self._heartbeats > 0 or (record is not None and _fate(record) == "alive")

    def _claim(self, token: int) -> bool:
        """Creates the next file; False when another worker was quicker."""
        path, began = _path(self._folder, token), self._clock()
        with storage_errors(path, "take the lease"):
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                return False
            try:
                self._record = _own_record(token)
                self._write()
                fsync_path(self._folder)
                for older in _tokens(self._folder):
                    if older < token:
                        _path(self._folder, older).unlink(missing_ok=True)
            except (OSError, RetryableError):
                os.close(self._descriptor)
                self._descriptor = -1
                raise
        self.token, self._renewed_at = token, began
        return True

    # ---- keeping it -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """StateError when the lease is known to be lost, or has not been renewed for `timeout`. Touches no disk."""
        if self._lost:
            raise StateError(self._lost)
        still_s = self._clock() - self._renewed_at
        if still_s > self._terms.timeout.seconds:
            self._lose(f"was not renewed for {still_s:.1f} s (this process was stopped, or its disk away)")

    def prove(self) -> None:
        """`check`, and that the newest token on disk is this one. Before every durable step."""
        self.check()
        path = _path(self._folder, self.token)
        with storage_errors(path, "prove the lease"):
            try:
                # On a network mount opening asks the server; a look for a newer name may be answered from a cache.
                os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESTALE):
                    raise
                self._lose("is gone")
        if os.path.lexists(_path(self._folder, self.token + 1)):
            self._lose(f"has been followed by token {self.token + 1}")

    def renew(self) -> None:
        """Rewrites the counter, unless the lease is lost (StateError). A failed disk is a RetryableError."""
        began = self._clock()
        self.prove()
        self._record = msgspec.structs.replace(self._record, counter=self._record.counter + 1)
        with storage_errors(self._folder, "renew the lease in"):
            self._write()
        self._renewed_at = began

    def release(self) -> None:
        """Lets another worker in at once. Idempotent; a lease that is lost or cannot be written is left to lapse."""
        if self._descriptor < 0:
            return
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        try:
            if not self._lost and not self._thread.is_alive():
                self.prove()
                self._record = msgspec.structs.replace(self._record, released=True)
                self._write()
        except (OSError, RetryableError, StateError) as error:
            log.warning("the lease was not released: %s", error)
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def _keep(self) -> None:
        """The thread that renews."""
        while not self._closing.wait(self._terms.heartbeat.seconds):
            try:
                self.renew()
            except RetryableError as error:
                log.warning("the lease was not renewed: %s", error)
            except StateError as error:
                log.error("%s", error)
                return

    def _write(self) -> None:
        os.pwrite(self._descriptor, msgspec.json.encode(self._record).ljust(_RECORD_BYTES - 1) + b"\n", 0)
        os.fsync(self._descriptor)

    def _lose(self, why: str) -> NoReturn:
        self._lost = (
            f"the lease on {self._folder.parent} (token {self.token}) {why}: another worker may have taken over, so "
            "nothing more is written here. Start this worker again: it goes on, or stands by"
        )
        raise StateError(self._lost)


def _own_record(token: int) -> Record:
    pid = os.getpid()
    host = socket.gethostname()[:100]
    return Record(
        token=token, holder=secrets.token_hex(8), host=host, pid=pid, machine=_machine(), started=_started(pid)
    )


def _path(folder: Path, token: int) -> Path:
    return folder / f"{_NAME}{token:012d}"


def _tokens(folder: Path) -> list[int]:
    """Ascending."""
    names = (path.name.removeprefix(_NAME) for path in folder.iterdir() if path.name.startswith(_NAME))
    return sorted(int(digits) for digits in names if digits.isascii() and digits.isdigit())


def _decoded(content: bytes) -> Record | None:
    """None for a record that is just being written, or damaged: it counts as long as its bytes change."""
    try:
        return msgspec.json.decode(content, type=Record)
    except BAD_JSON:
        return None


def _machine() -> str | None:
    """Where process ids mean the same: this boot, this PID namespace. None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Start time of a process, in ticks since boot (proc(5), field 22 of stat)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _fate(record: Record) -> Literal["alive", "gone", "unknown"]:
    """What can be known of a holder without waiting for its heartbeat."""
    if record.machine is None or record.machine != _machine():
        return "unknown"
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        log.debug("process %d is another user's", record.pid)
    started = _started(record.pid)
    return "gone" if None not in (started, record.started) and started != record.started else "alive"

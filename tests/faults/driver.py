"""A process that has imported everything and forks a worker for each life it is told of.

Importing TensorFlow takes longer than many a life, and a process that has not computed anything with it yet can be
forked. Orders come as JSON lines on standard input: {"id", "order"} begins a life, {"id", "signal"} is for one that is
not over. {"id", "status"} (as of `os.waitpid`) goes to standard output when it is, {"id", "stopped": its process} when
it has been stopped. When standard input ends, all lives end.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

ROOT = Path(__file__).parents[len(__package__.split("."))]


@dataclass(frozen=True)
class Order:
    """One life of a worker. Paths are absolute."""

    config: str
    state: str
    report: str
    ledger: str
    fsyncs: str
    output: str  # standard output and error go here
    journal: str | None = None  # to be adopted by a new state
    place: str | None = None  # where to be hurt, and at which pass
    nth: int = 1
    hurt: str = "SIGKILL"  # the signal it gets there, or one of `mishaps.MISHAPS`
    amount: float = 0.0  # how much of a mishap
    signals: bool = False  # whether SIGRTMIN and SIGUSR2 hurt it, see mishaps.py
    until_end: bool = True  # of the log as it is; else until a signal comes
    census: str | None = None  # the passes through all places are written here at the end
    mutation: str | None = None
    poll: int = 8192  # rows at a time, where the source is files
    commands: tuple[tuple[int, str, int], ...] = ()  # after a slide: command and which version, counted from the first


def live(order: Order) -> None:
    """In the forked process: runs a worker to the end of the log, or of itself."""
    from stream_learner import config as configs
    from stream_learner.ingest.files import FilesSource
    from stream_learner.observing.logs import configure_logging
    from stream_learner.running import run

    from .ledger import Ledger
    from .mishaps import hurt, install_signals
    from .mutations import MUTATIONS
    from .places import Stop, install
    from .power import Fsyncs

    config = configs.with_state(configs.load(order.config), order.state)
    configure_logging(config.observing)
    Ledger(Path(order.ledger)).install()
    Fsyncs(Path(order.fsyncs)).install()
    FilesSource.__init__.__kwdefaults__["batch_rows"] = order.poll
    if order.mutation is not None:
        MUTATIONS[order.mutation]()
    stop = Stop(order.place, order.nth, hurt(order.hurt, order.amount))
    install(stop)
    _install_commands(order)
    if order.signals:
        install_signals()
    run(config, until_end=order.until_end, journal=order.journal, report_path=order.report)
    if order.census is not None:
        Path(order.census).write_text(json.dumps(stop.passes))


def _install_commands(order: Order) -> None:
    """An operator who gives commands after certain slides."""
    from stream_learner.worker import Worker

    run_slide = Worker.run_slide

    def then_command(self: Any, slide: Any) -> None:
        run_slide(self, slide)
        for number, name, which in order.commands:
            if number == slide.number:
                self.commands.submit(name, version=self.publisher.versions[which])

    Worker.run_slide = then_command  # type: ignore[method-assign]


def _fork(order: Order) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        _die_with_parent()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        with Path(order.output).open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.setsid()
        live(order)
        code = 0
    except BaseException as error:  # whatever it is: the exit code says it, and the output
        import traceback

        traceback.print_exc()
        code = getattr(error, "exit_code", 70)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Server:
    """The driver's side: one thread, so that a process is never signalled after it was waited for."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}  # process -> number of its life, from the fork until it is waited for
        self._waiting = b""
        self._changes, wakeup = socket.socketpair()
        for end in (self._changes, wakeup):
            end.setblocking(False)
        self._wakeup = wakeup  # a byte for each signal that came
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ)
        self._selector.register(self._changes, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until standard input ends."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == 0:
                    content = os.read(0, 1 << 16)
                    if not content:
                        return
                    self._take(content)
                else:
                    self._changes.recv(1 << 10)
                    self._look()

    def _take(self, content: bytes) -> None:
        *lines, self._waiting = (self._waiting + content).split(b"\n")
        for line in lines:
            message = json.loads(line)
            number = message["id"]
            if "order" in message:
                self._numbers[_fork(Order(**message["order"]))] = number
            else:
                for process in [process for process, life in self._numbers.items() if life == number]:
                    os.kill(process, message["signal"])

    def _look(self) -> None:
        """What has become of the lives."""
        for process in list(self._numbers):
            found, status = os.waitpid(process, os.WNOHANG | os.WUNTRACED)
            if not found:
                continue
            if os.WIFSTOPPED(status):
                answer = {"id": self._numbers[process], "stopped": process}
            else:
                answer = {"id": self._numbers.pop(process), "status": status}
            os.write(1, json.dumps(answer).encode() + b"\n")


def serve() -> None:
    """Imports everything, then forks and watches."""
    import kafka  # noqa: F401
    import tensorflow  # noqa: F401

    import stream_learner.running  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Server().serve()


class Life:
    """A running life, as the harness sees it: by its number. Only the driver, whose child it is, knows its process."""

    def __init__(self, driver: Driver, number: int) -> None:
        self._driver, self._number = driver, number
        self.over = threading.Event()
        self.still = threading.Event()  # over, or stopped by SIGSTOP
        self.status: int | None = None  # None though it is over: the driver has ended

    def wait(self, timeout_s: float) -> int | None:
        """Exit code, minus the signal that ended it; None = it goes on. Raises DriverEndedError."""
        if not self.over.wait(timeout_s):
            return None
        if self.status is None:
            raise DriverEndedError(f"the driver has ended; its output: {self._driver.output}")
        return os.waitstatus_to_exitcode(self.status)

    def wait_still(self, timeout_s: float) -> bool:
        """Waits until it is stopped or over; False when it goes on."""
        return self.still.wait(timeout_s)

    def resume(self) -> None:
        """After SIGSTOP."""
        if not self.over.is_set():
            self.still.clear()
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Has the driver send a signal; nothing happens when the life is over, or never began."""
        self._driver.tell({"id": self._number, "signal": int(number)})


class DriverEndedError(Exception):
    """No life can be begun or watched any more."""


class Driver:
    """The harness's end of the driver. Any thread may begin a life."""

    def __init__(self, output: Path) -> None:
        self.output = output
        with output.open("ab") as log:
            self._process = Popen(
                [sys.executable, "-m", f"{__package__}.driver"], cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=log
            )
        self._lives: list[Life] = []
        self._lock = threading.Lock()
        self._ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def begin(self, order: Order) -> Life:
        with self._lock:
            life = Life(self, len(self._lives))
            self._lives.append(life)
            if self._ended:
                life.over.set()
        self.tell({"id": life._number, "order": asdict(order)})
        return life

    def tell(self, message: dict[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):  # ended: `wait` says so
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()

    def close(self) -> None:
        """Ends all lives; they are killed with their parent."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._listener.join()
        self._process.stdout.close()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            life = self._lives[answer["id"]]
            if "status" in answer:
                life.status = answer["status"]
                life.over.set()
            life.still.set()
        with self._lock:
            self._ended = True
            for life in self._lives:
                life.over.set()
                life.still.set()


if __name__ == "__main__":
    _die_with_parent()
    serve()

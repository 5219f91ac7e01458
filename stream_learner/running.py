"""A worker wired to the real far sides, run until stopped or until the end of the log."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from stream_learner import config as configs
from stream_learner.allocation import freeze_objects, keep_freed_memory
from stream_learner.config_change import ConfigSwitched
from stream_learner.durable import make_folder, write_file
from stream_learner.errors import ConfigError, FatalError, UnavailableError
from stream_learner.gaps import OnGap
from stream_learner.ingest.dead_letters import DeadLetterSink, FileDeadLetters
from stream_learner.ingest.opening import open_source
from stream_learner.learning.runtime import configure_tensorflow
from stream_learner.lease import Lease
from stream_learner.observing.health import Health
from stream_learner.observing.logs import Progress, switch_debug
from stream_learner.observing.metrics import WorkerMetrics
from stream_learner.observing.routes import Routes
from stream_learner.observing.server import ObservingServer
from stream_learner.observing.traces import open_traces
from stream_learner.publishing.announce import Announcer, KafkaAnnouncer, NoAnnouncer
from stream_learner.report import Stopwatch, report
from stream_learner.report import write as write_report
from stream_learner.retry import retrying
from stream_learner.settings import Config, Observing
from stream_learner.snapshots import newest_token
from stream_learner.worker import Surroundings, Worker

log = logging.getLogger(__name__)

EXIT_SHUTDOWN_TIMEOUT = 7
_LOOK_S = 0.2


def run(
    config: Config,
    *,
    until_end: bool,
    journal: str | None = None,
    report_path: str | None = None,
    on_gap: OnGap = "stop",
) -> dict[str, Any]:
    """Learns until SIGTERM or SIGINT, or with `until_end` to the ends the log has now. Returns the report.

    Stands by first, while another worker holds the lease on the state. Told to stop then, or before the source could be
    reached, it returns an empty report.
    """
    keep_freed_memory()
    configure_tensorflow(config)
    with ExitStack() as stack:
        traces = stack.enter_context(closing(open_traces(config)))
        metrics, health = WorkerMetrics(traces), Health(config.observing.stuck_after)
        state = Path(config.state)
        routes = Routes(state, config.observing.token, metrics, health, config.checkpoints.options)
        server = stack.enter_context(ObservingServer(config.observing, routes))
        log.info("metrics and health at http://%s:%d, dashboard at http://%s:%d/dashboard", *server.address * 2)
        stopping = stack.enter_context(_signals(config.shutdown.timeout.seconds, config.observing))
        lease = stack.enter_context(Lease(state / "lease", config.lease, floor=newest_token(state / "snapshots")))
        if not _hold(lease, config, stopping, health):
            return {}
        metrics.lease_token.set(lease.token)
        if journal is not None:
            _adopt_journal(Path(journal), state)
        watch = Stopwatch()
        content, wanted = None, config
        while content is None:
            around = Surroundings(open_source(config), dead_letters(config), announcer(config), metrics, health)
            open_state = partial(Worker, config, around, lease, until_end=until_end, on_gap=on_gap, wanted=wanted)
            with retrying(open_state, "opening the state", config.storage.retry_timeout) as worker:
                try:
                    content = _learn(worker, stopping, watch, bounded=until_end)
                except ConfigSwitched as switched:
                    log.info("going on under other model keys: %s", switched)
                    config, wanted = configs.with_values(config, switched.values), worker.wanted
                except FatalError as error:
                    health.failed(str(error))
                    raise
        if content and report_path is not None:
            write_report(content, Path(report_path))
        return content


def _hold(lease: Lease, config: Config, stopping: threading.Event, health: Health) -> bool:
    """Takes the lease, standing by for as long as another worker has it; False when told to stop before."""
    before = ""

    def stand_by(holder: str) -> None:
        nonlocal before
        health.standing_by(holder)
        if holder != before:
            log.info("standing by: %s is held by %s", config.state, holder)
            before = holder

    held = retrying(lambda: lease.acquire(stopping.wait, stand_by), "lease", config.storage.retry_timeout)
    if held:
        health.starting("opening")
        log.info("holding the lease on %s, token %d", config.state, lease.token)
    return held


def _start(worker: Worker, stopping: threading.Event) -> bool:
    """Restores and connects; False when told to stop while the source could not be reached."""
    started = threading.Event()

    def give_up() -> None:
        while not started.wait(_LOOK_S):
            if stopping.is_set():
                return worker.around.source.close()
        return None

    watcher = threading.Thread(target=give_up, name="stop", daemon=True)
    watcher.start()
    try:
        worker.start()
    except UnavailableError as error:
        if not stopping.is_set():
            raise
        log.info("stopped before it began: %s", error)
        return False
    finally:
        started.set()
        watcher.join()
    return True


def _learn(worker: Worker, stopping: threading.Event, watch: Stopwatch, *, bounded: bool) -> dict[str, Any]:
    if not _start(worker, stopping):
        return {}
    before = worker.tally.accepted, worker.tally.consumed
    progress = Progress(sum(worker.around.source.lag().values()) if bounded else None, sys.stderr)

    def stop() -> bool:
        progress.update(worker.tally.consumed - before[1], f"champion {worker.publisher.champion or '-'}")
        return stopping.is_set()

    freeze_objects()
    watch.reading()
    try:
        worker.run(stop, watch.learned)
    finally:
        progress.close()
    content = report(worker, watch, before[0])
    summary = ("events", "examples", "positives", "auc", "normalized_entropy", "champion", "model_sha256")
    log.info("finished", extra={"fields": {name: content[name] for name in summary}})
    return content


def dead_letters(config: Config) -> DeadLetterSink:
    """The sink the config names."""
    if config.dead_letters.kind == "kafka":
        from stream_learner.ingest.kafka_letters import KafkaDeadLetters

        return KafkaDeadLetters(config.source.kafka, config.dead_letters.topic)
    return FileDeadLetters(Path(config.state) / "dead_letters.jsonl")


def announcer(config: Config) -> Announcer:
    """Kafka when the source is Kafka and a topic is named; else nobody."""
    if config.source.kind == "kafka" and config.announce.topic is not None:
        return KafkaAnnouncer(config.source.kafka, config.announce.topic)
    return NoAnnouncer()


def _adopt_journal(journal: Path, state: Path) -> None:
    """Gives a new state the journal of an earlier run, to be obeyed from its first slide on."""
    if not journal.is_file():
        raise ConfigError(f"--journal {journal}: no such file")
    own = state / "journal.jsonl"
    if own.exists() and own.stat().st_size:
        raise ConfigError(f"--journal: {state} has a journal already; a replay needs a new state folder")
    make_folder(state)
    write_file(own, journal.read_bytes())


@contextmanager
def _signals(timeout_s: float, observing: Observing) -> Iterator[threading.Event]:
    """An event set by SIGTERM and SIGINT. When stopping takes longer than `timeout_s`, the process ends with
    exit code 7, its state as of the last snapshot. SIGUSR1 switches debug logs on and off."""
    stopping = threading.Event()
    timer = threading.Timer(timeout_s, os._exit, [EXIT_SHUTDOWN_TIMEOUT])
    timer.daemon = True

    def stop(number: int, _: object) -> None:
        if not stopping.is_set():
            stopping.set()
            timer.start()

    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda *_: switch_debug(observing))
    try:
        yield stopping
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)

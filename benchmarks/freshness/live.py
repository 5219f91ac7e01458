"""A worker on a live topic, and what is seen of its versions from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from benchmarks.datasets import PROGRAM
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.storage import LocalStorage
from stream_learner.serving import follow

_LOOK_S = 0.02
_PATIENCE_S = 600.0
_QUIET = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True)
class Seen:
    """When a version was found to be the champion and the end of its slide (epoch s), and the last offset per partition
    that it has learned."""

    at_s: float
    slide_end_s: float
    learned: dict[int, int]


@dataclass
class Sightings:
    """A thread that looks at the champion pointer, and at a follower of it, every 20 ms."""

    folder: Path
    published: dict[int, Seen] = field(default_factory=dict)
    served: dict[int, float] = field(default_factory=dict)
    _closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def _look(self) -> None:
        checkpoints = Checkpoints(LocalStorage(self.folder), self.folder.name, keep=2)
        while not self._closing.wait(_LOOK_S):
            if self._find(checkpoints):
                break
        else:
            return
        with follow(self.folder) as follower:
            while not self._closing.wait(_LOOK_S):
                self._find(checkpoints)
                self.served.setdefault(follower.version, time.time())

    def _find(self, checkpoints: Checkpoints) -> bool:
        pointer, now_s = checkpoints.pointer(), time.time()
        if pointer is not None and pointer.version not in self.published:
            manifest = checkpoints.read(pointer.version)
            learned = {one.index: one.last for one in manifest.offsets}
            self.published[pointer.version] = Seen(now_s, manifest.slide_end_us / 1e6, learned)
        return pointer is not None


class Process:
    """A worker that runs until the end of the block; told to end by a signal where it is not bounded."""

    def __init__(self, config: dict[str, Any], folder: Path, *, until_end: bool) -> None:
        self.report = folder / "report.json"
        path, self._log = folder / "config.yaml", folder / "log"
        path.write_text(yaml.safe_dump(config | {"state": str(folder / "state")}))
        command = [str(PROGRAM), "run", "-c", str(path), "--report", str(self.report)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *(["--until-end"] if until_end else [])], stdout=log, stderr=log, env=_QUIET
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait(_PATIENCE_S)

    def end(self) -> dict[str, Any]:
        """Waits for a bounded run's end, or ends one that is not, and gives the report."""
        self._process.wait(_PATIENCE_S)
        if self._process.returncode:
            raise SystemExit(f"the worker ended with {self._process.returncode}:\n{self._log.read_text()[-3000:]}")
        found: dict[str, Any] = json.loads(self.report.read_text())
        return found

    def stop(self) -> dict[str, Any]:
        self._process.send_signal(signal.SIGTERM)
        return self.end()

    def until(self, happened: Callable[[], bool], patience_s: float = _PATIENCE_S) -> bool:
        """Waits for it; False when patience ends before. The worker must live."""
        deadline_s = time.monotonic() + patience_s
        while not happened():
            if self._process.poll() is not None:
                raise SystemExit(f"the worker ended:\n{self._log.read_text()[-3000:]}")
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_LOOK_S)
        return True

    def says(self, text: str) -> bool:
        return text in self._log.read_text()


class Writer:
    """The process of `events.write_live`."""

    def __init__(self, bootstrap: str, topic: str, per_second: float) -> None:
        where = ["--kafka", bootstrap, "--topic", topic, "--per-second", str(per_second)]
        command = [sys.executable, "-m", "benchmarks.freshness.events", *where]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_PATIENCE_S)


def appended(bootstrap: str, topic: str) -> dict[int, np.ndarray[Any, np.dtype[np.float64]]]:
    """When the broker appended each record, epoch s, by partition and offset."""
    from kafka import KafkaConsumer, TopicPartition

    consumer: Any = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, max_poll_records=20_000)
    try:
        places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        found: dict[int, list[int]] = {place.partition: [] for place in places}
        while any(len(found[place.partition]) < ends[place] for place in places):
            for place, records in consumer.poll(timeout_ms=1000).items():
                found[place.partition] += [record.timestamp for record in records]
        return {partition: np.array(times) / 1000 for partition, times in found.items()}
    finally:
        consumer.close()

"""Workers as their users run them: the console script in processes of its own, and what those leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.storage import LocalStorage

PROGRAM = Path(sys.executable).parent / "stream-learner"
FINISH_S = 400.0
_LOOK_S = 0.005
_RESOURCES = (
    "wall_seconds",
    "cpu_seconds",
    "learning_wall_seconds",
    "learning_cpu_seconds",
    "peak_rss_bytes",
    "events_per_second",
)


def write_config(path: Path, config: Mapping[str, Any]) -> Path:
    """A config file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    return path


def changed(config: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """The config with other values; a name such as gate__interval is a path."""
    out: dict[str, Any] = json.loads(json.dumps(config))
    for name, value in values.items():
        *sections, key = name.split("__")
        place = out
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return out


def learner(*arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end. Its exit code must be `expect`."""
    command = [str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FINISH_S, check=False)
    assert done.returncode == expect, f"{command} ended with {done.returncode}, not {expect}:\n{done.stderr[-3000:]}"
    return done


def side_by_side(runs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of independent runs, two at a time: starting a worker keeps one core busy only."""
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(run) for run in runs]]


class Background:
    """A worker that runs beside the test. Leaving the block kills what is still there."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            command = [str(PROGRAM), *map(str, arguments)]
            self._process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        return self.stderr.read_text()

    def wait_for(self, what: str, happened: Callable[[], Any]) -> Any:
        """Looks until `happened` gives something; the worker must not end before it does."""
        deadline = time.monotonic() + FINISH_S
        while True:
            ended = self._process.poll() is not None
            if found := happened():
                return found
            assert not ended, f"the worker ended before {what}:\n{self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"waited in vain for {what}:\n{self.log()[-3000:]}"
            time.sleep(_LOOK_S)

    def wait_for_log(self, text: str) -> str:
        """The first log line that holds `text`."""
        line = self.wait_for(f"log line {text!r}", lambda: next((t for t in self._lines() if text in t), ""))
        return str(line)

    def _lines(self) -> list[str]:
        return self.log().splitlines()

    def send(self, number: signal.Signals) -> None:
        assert self._process.poll() is None, f"the worker ended by itself:\n{self.log()[-3000:]}"
        os.kill(self._process.pid, number)

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and returns the exit code."""
        self.send(number)
        return self.end_code()

    def end_code(self) -> int:
        """The exit code, once it has ended."""
        return self._process.wait(FINISH_S)


@dataclass(frozen=True)
class Outcome:
    """All of a finished run that must be equal in every run of the same log, journal, config and seed."""

    report: dict[str, Any]  # without what the machine's speed decides
    manifests: dict[int, bytes]
    content: dict[int, str]
    verdicts: bytes
    champion: int | None

    @property
    def versions(self) -> list[int]:
        return list(self.report["versions"])


def outcome(state: Path, report: Path, model: str = "shop") -> Outcome:
    """What a run left in its state folder. Every file of every version must match its manifest."""
    folder = state / "checkpoints" / model
    checkpoints = Checkpoints(LocalStorage(folder), model, keep=2)
    numbers = [manifest.version for manifest in checkpoints.versions()]
    assert {n: problems for n in numbers if (problems := checkpoints.verify(n))} == {}
    pointer = checkpoints.pointer()
    content = json.loads(report.read_text())
    return Outcome(
        report={name: value for name, value in content.items() if name not in _RESOURCES},
        manifests={n: (folder / str(n) / "manifest.json").read_bytes() for n in numbers},
        content={n: checkpoints.read(n).content_sha256 for n in numbers},
        verdicts=(state / "verdicts.jsonl").read_bytes(),
        champion=None if pointer is None else pointer.version,
    )


def to_the_end(folder: Path, config: Path, events: Path, state: Path, *more: str | Path) -> Outcome:
    """A back-test of `events` on a state folder."""
    folder.mkdir()
    report = folder / "report.json"
    learner("backtest", "-c", config, "--events", events, "--state", state, "--report", report, *more)
    return outcome(state, report)


def assert_equal(first: Outcome, *others: Outcome) -> None:
    """Compares part by part, so that a difference is told in a few words."""
    for other in others:
        assert other.report["model_sha256"] == first.report["model_sha256"]
        assert other.versions == first.versions
        assert other.content == first.content
        assert other.manifests == first.manifests
        assert other.verdicts == first.verdicts
        assert other.report == first.report
        assert other.champion == first.champion


def snapshot_slides(state: Path) -> list[int]:
    """Slide numbers of the snapshots that stand there under their final names."""
    folder = state / "snapshots"
    return sorted({int(path.name.split("-")[1]) for path in folder.glob("slide-*")}) if folder.exists() else []


def version_numbers(state: Path, model: str = "shop") -> list[int]:
    """Numbers of the version folders, whole or not, oldest first."""
    folder = state / "checkpoints" / model
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []

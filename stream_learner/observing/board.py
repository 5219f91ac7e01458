"""What the dashboard shows: the state folder's verdicts and versions, and the live metrics, as JSON.

All of it is read: from files that are whole whenever they are there, and from the closed list of metrics. Nothing asks
the worker's loop for anything.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stream_learner.durable import BAD_JSON
from stream_learner.errors import ConfigError, StreamLearnerError
from stream_learner.observing.health import Health
from stream_learner.observing.history import History
from stream_learner.observing.metric_list import PREFIX
from stream_learner.observing.metrics import WorkerMetrics
from stream_learner.publishing.card import HTML
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.operating import Whereabouts, noted, reading
from stream_learner.publishing.rendering import manifest_json
from stream_learner.publishing.verdict_log import read_log

SHOWN_VERDICTS = 1000  # the newest; the log itself keeps all
SHOWN_SPREADS = 48  # of these, the newest that tell how each feature is spread
_EVIDENCE = (
    *("gain", "gain_lower", "gain_upper"),
    *(f"{model}_{name}" for model in ("candidate", "champion") for name in ("normalized_entropy", "calibration")),
)
_BOARD_METRICS = ("auc", "normalized_entropy", "calibration", "n", "n_pos", "log_loss", "average_precision")


class Board:
    """One worker's board. `metrics` and `health` are None for a state folder nobody works on at the moment; `options`
    are its `checkpoints.options`, where known."""

    def __init__(
        self,
        state: Path,
        metrics: WorkerMetrics | None,
        health: Health | None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._state = state
        self._options = options
        self._opened: tuple[Whereabouts, dict[str, Checkpoints]] | None = None  # to open a store anew takes a second
        self._metrics = metrics
        self._health = health
        self._lock = threading.Lock()
        self._told: tuple[tuple[int, int], list[dict[str, Any]]] = ((-1, -1), [])
        self._history = None if metrics is None else History(lambda: _lines(_samples(metrics)))

    def close(self) -> None:
        if self._history is not None:
            self._history.close()

    def now(self) -> dict[str, Any]:
        """State of the worker and every metric: {"worker", "metrics": {name: [[labels, value]]}, "history"}."""
        samples = {} if self._metrics is None else _samples(self._metrics)
        return {
            "worker": {"state": "stopped"} if self._health is None else self._health.live()[1],
            "metrics": samples,
            "history": {"seconds": [], "values": {}} if self._history is None else self._history.series(),
        }

    def verdicts(self, after: int = -1) -> list[dict[str, Any]]:
        """The newest lines of the verdict log, oldest first, from the place `after` (as of "place") on, without what
        the page does not show. An unreadable log is empty."""
        with self._lock:
            path = self._state / "verdicts.jsonl"
            stamp = _stamp(path)
            if stamp != self._told[0]:
                self._told = (stamp, _numbered(path))
            return [verdict for verdict in self._told[1] if verdict["place"] > after]

    def versions(self) -> dict[str, Any]:
        """{"models": [{"model", "task", "champion", "versions": [what a version says of itself, without its files],
        "broken"}]}, that of the first task first."""
        try:
            models = noted(self._state).models
        except StreamLearnerError as error:
            return {"models": [_unread(None, "conversion", error)]}
        return {"models": [self._versions(model, task) for model, task in models.items()]}

    def _versions(self, model: str, task: str) -> dict[str, Any]:
        try:
            checkpoints = self.checkpoints(model)
            scan, pointer = checkpoints.scan(), checkpoints.pointer()
        except StreamLearnerError as error:
            return _unread(model, task, error)
        return {
            "model": model,
            "task": task,
            "champion": None if pointer is None else pointer.version,
            "versions": [_version(manifest_json(manifest), task) for manifest in scan.manifests],
            "broken": scan.broken,
        }

    def card(self, version: int, model: str | None) -> bytes:
        """A version's card as a page. A ConfigError where there is none."""
        page = self.checkpoints(model).file(version, HTML)
        if page is None:
            raise ConfigError(f"version {version} has no card")
        return page

    def checkpoints(self, model: str | None) -> Checkpoints:
        """The versions of a model, or of the first task's. A ConfigError where there is no such model."""
        where = noted(self._state)
        if self._opened is None or self._opened[0] != where:
            self._opened = where, {}
        name, opened = where.named(model), self._opened[1]
        if name not in opened:
            opened[name] = reading(where, self._state, self._options, name)
        return opened[name]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


def _numbered(path: Path) -> list[dict[str, Any]]:
    try:
        verdicts = read_log(path)
    except (StreamLearnerError, OSError, *BAD_JSON):
        return []  # cut by a restore at this very moment; whole again at the next look
    first, spread = max(0, len(verdicts) - SHOWN_VERDICTS), len(verdicts) - SHOWN_SPREADS
    return [
        {"place": place, **_shown(verdict, spread=place >= spread)}
        for place, verdict in enumerate(verdicts[first:], start=first)
    ]


def _shown(line: dict[str, Any], *, spread: bool) -> dict[str, Any]:
    """What the page shows of a line of the verdict log; a thousand of them must be light."""
    if "evidence" not in line:
        return {name: value for name, value in line.items() if not isinstance(value, (dict, list))}
    if "model" in line:  # of rankings: few numbers, and no drift
        whole = ("model", "slide", "slide_end", "passed", "reason", "parent", "evidence")
        return {**{name: line.get(name) for name in whole}, "rules": _against(line), "failed": _failed(line)}
    drift = {"shares": {}, **line.get("drift", {})}
    item_rate = line.get("baselines", {}).get("item_rate", {})
    shown = {name: line.get(name) for name in ("slide", "slide_end", "passed", "reason", "parent")}
    return {
        **shown,
        "evidence": {name: line["evidence"].get(name) for name in _EVIDENCE},
        "challenger": line.get("challenger"),
        "race": line.get("race"),
        "rules": _against(line),
        "failed": _failed(line),
        "baselines": {"item_rate": {"normalized_entropy": item_rate.get("normalized_entropy")}},
        "psi": {name: round(value, 4) for name, value in line.get("psi", {}).items()},
        "drift": {
            "reference": drift.get("reference"),
            "findings": drift.get("findings", []),
            "shares": drift["shares"] if spread else {},
        },
    }


def _against(line: dict[str, Any]) -> list[dict[str, Any]]:
    """The rule whose threshold is drawn."""
    return [rule for rule in line.get("rules", []) if rule["name"] == "against_champion"]


def _failed(line: dict[str, Any]) -> list[str]:
    """Names of the rules that held a version back."""
    return [rule["name"] for rule in line.get("rules", []) if rule.get("asked") and not rule["passed"]]


def _unread(model: str | None, task: str, error: StreamLearnerError) -> dict[str, Any]:
    return {"model": model, "task": task, "champion": None, "versions": [], "broken": {"": str(error)}}


def _version(manifest: dict[str, Any], task: str) -> dict[str, Any]:
    """What the page shows of a version; its size instead of its files."""
    kept = ("version", "parent", "rollback_of", "challenger", "slide", "slide_end_us", "event_time_span", "gaps")
    told = manifest["metrics"]
    scalars = {name: value for name, value in told.items() if not isinstance(value, (dict, list))}
    metrics = {name: told.get(name) for name in _BOARD_METRICS} if task == "conversion" else scalars
    return {
        **{name: manifest[name] for name in (*kept, "content_sha256")},
        "metrics": metrics,
        "reason": manifest["verdict"].get("reason", ""),
        "size_bytes": sum(file["size"] for file in manifest["files"].values()),
        "config_hash": manifest["config_hash"],
    }


def _samples(metrics: WorkerMetrics) -> dict[str, list[list[Any]]]:
    """Every sample of the registry but the buckets, as name without prefix -> [[labels, value], ...]."""
    out: dict[str, list[list[Any]]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            name = sample.name.removeprefix(f"{PREFIX}_")
            if not name.endswith(("_bucket", "_created")):
                value = sample.value if math.isfinite(sample.value) else None
                out.setdefault(name, []).append([sample.labels, value])
    return out


def _lines(samples: Mapping[str, list[list[Any]]]) -> dict[str, float]:
    """The numbers that the page draws over time."""

    def total(name: str) -> float:
        return float(sum(value or 0.0 for _, value in samples.get(name, [])))

    lines = {
        name: total(name) for name in ("records_total", "lag_records", "resident_memory_bytes", "pending_examples")
    }
    lines |= {f"learned {labels['source']}": value for labels, value in samples.get("learned_rows_total", [])}
    return lines


def command(body: bytes) -> tuple[str, int, str | None]:
    """Name, version and model of what the page asks for: {"name": "rollback", "version": 7, "model": "conversion"},
    where the model may be left out for that of the first task. ConfigError when it is none."""
    try:
        asked = json.loads(body)
        model = asked.get("model")
        return str(asked["name"]), int(asked["version"]), None if model is None else str(model)
    except (*BAD_JSON, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"expected {{name, version, model}}: {error}") from error

"""A state folder as pandas DataFrames, for notebooks: `stream_learner.open_state(path)`.

Everything is read from files that are whole whenever they are there, so a worker may go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_learner.errors import ConfigError
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.operating import noted, reading
from stream_learner.publishing.rendering import manifest_json
from stream_learner.publishing.verdict_log import read_log

if TYPE_CHECKING:
    from pandas import DataFrame

_LOG = "verdicts.jsonl"


class State:
    """One worker's state folder. Each method reads anew; times are UTC timestamps of event time."""

    def __init__(self, path: Path, checkpoints: Checkpoints, *, unnamed: bool) -> None:
        """`unnamed`: lines of verdicts.jsonl that name no model are about this one."""
        self.path = path
        self._checkpoints = checkpoints
        self._unnamed = unnamed

    @property
    def model(self) -> str:
        return self._checkpoints.model

    @property
    def champion(self) -> int | None:
        """The version in service; None before the first."""
        pointer = self._checkpoints.pointer()
        return None if pointer is None else pointer.version

    def verdicts(self) -> DataFrame:
        """A row per answer of the gate, indexed by the end of its slide: passed, reason, parent, the evidence's numbers
        (gain, gain_lower, gain_upper, candidate_normalized_entropy, ...) and the rules that failed."""
        rows = [_verdict(line) for line in self._lines() if line.get("evidence") is not None]
        return _frame(rows, "slide_end", times=("slide_end",))

    def decisions(self) -> DataFrame:
        """A row per other line of verdicts.jsonl: canaries, degradations, overrides, slides in quarantine or requeued;
        indexed by the end of the slide where the line has one."""
        rows = [_flat_only(line) for line in self._lines() if line.get("evidence") is None]
        return _frame(rows, "slide_end", times=("slide_end",))

    def rules(self) -> DataFrame:
        """A row per rule of every verdict: slide_end, name, value, threshold, passed, asked, text."""
        rows = [
            {"slide_end": line["slide_end"], **rule}
            for line in self._lines()
            if line.get("evidence") is not None
            for rule in line.get("rules", [])
        ]
        return _frame(rows, None, times=("slide_end",))

    def drift(self) -> DataFrame:
        """PSI by feature (columns) and verdict (index: the end of its slide); NaN where it was not told."""
        rows = [{"slide_end": line["slide_end"], **line["psi"]} for line in self._lines() if line.get("psi")]
        return _frame(rows, "slide_end", times=("slide_end",))

    def versions(self) -> DataFrame:
        """A row per version, indexed by number: lineage, data span, the metrics it was published with, its size and
        folder, and whether it is in service. Versions that cannot be read are left out; `broken` names them."""
        champion = self.champion
        rows = [
            {**_version(manifest_json(manifest)), "path": self._checkpoints.location(manifest.version)}
            for manifest in self._checkpoints.scan().manifests
        ]
        for row in rows:
            row["champion"] = row["version"] == champion
        return _frame(rows, "version", times=("slide_end", "first_event", "last_event"))

    def broken(self) -> dict[str, str]:
        """Versions whose manifest cannot be read, and why."""
        return self._checkpoints.scan().broken

    def metrics(self) -> DataFrame:
        """A row per version, model (candidate, champion, served, baselines) and span (lifetime, windows): every metric
        as of the version's slide. Of rankings the lifetime alone; the window stands in `versions`."""
        rows = [row for m in self._checkpoints.scan().manifests for row in _metrics(m.version, m.metrics)]
        return _frame(rows, None)

    def _lines(self) -> list[dict[str, Any]]:
        lines = read_log(self.path / _LOG)
        return [line for line in lines if (line["model"] == self.model if "model" in line else self._unnamed)]


def open_state(path: str | Path, options: dict[str, Any] | None = None, model: str | None = None) -> State:
    """The state folder of a worker, running or not.

    `options`: `checkpoints.options` of the worker's config, for versions on an object store that needs them. `model`:
    of a worker that learns two tasks, the one that is looked at; None = the first task's. Raises ConfigError where no
    worker has run on the folder, where it learns no such model, and where pandas is not installed.
    """
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise ConfigError("open_state needs pandas: pip install 'stream-learner[notebooks]'") from error
    folder = Path(path)
    where = noted(folder)
    checkpoints = reading(where, folder, options, model)
    return State(folder, checkpoints, unnamed=where.models[checkpoints.model] == "conversion")


def _verdict(line: dict[str, Any]) -> dict[str, Any]:
    failed = [rule["name"] for rule in line.get("rules", []) if not rule["passed"]]
    kept = ("slide_end", "slide", "passed", "reason", "parent")
    return {**{name: line.get(name) for name in kept}, **line["evidence"], "failed": ", ".join(failed)}


def _flat_only(line: dict[str, Any]) -> dict[str, Any]:
    """A line without its nested parts."""
    return {name: value for name, value in line.items() if not isinstance(value, (dict, list))}


def _version(manifest: dict[str, Any]) -> dict[str, Any]:
    first, last = manifest["event_time_span"] or (None, None)
    kept = ("version", "parent", "rollback_of", "slide", "config_hash", "content_sha256")
    metrics = {name: value for name, value in manifest["metrics"].items() if not isinstance(value, dict)}
    return {
        **{name: manifest[name] for name in kept},
        "slide_end": manifest["slide_end_us"],
        "first_event": first,
        "last_event": last,
        **metrics,
        "size_bytes": sum(file["size"] for file in manifest["files"].values()),
        "reason": manifest["verdict"].get("reason", ""),
    }


def _metrics(version: int, metrics: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for span, models in {"lifetime": metrics.get("lifetime", {}), **metrics.get("windows", {})}.items():
        for model, values in models.items():
            yield {"version": version, "model": model, "span": span, **values}


def _frame(rows: list[dict[str, Any]], index: str | None, times: tuple[str, ...] = ()) -> DataFrame:
    """Rows as a frame; `times` (us since the epoch) become timestamps. Without rows an empty frame."""
    import pandas

    frame = pandas.DataFrame(rows)
    if frame.empty:
        return frame
    for name in times:
        if name in frame:
            frame[name] = pandas.to_datetime(frame[name], unit="us", utc=True)
    return frame if index is None or index not in frame else frame.set_index(index)

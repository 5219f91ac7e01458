"""Quality and cost on real event sets, from files and through Kafka.

    python -m benchmarks.datasets --data ../shared/data [--kafka localhost:9092 | --no-kafka] [--out FILE]

Each run is a process of its own, with the config in benchmarks/configs, so that memory is its own. Without --kafka a
broker is started as the tests start theirs (Apache Kafka by Java and Maven), where that can be had. CPU-seconds are
those of the whole worker, building its graphs and publishing included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.produce import produce

CONFIGS = Path(__file__).parent / "configs"
PROGRAM = Path(sys.executable).parent / "stream-learner"


@dataclass(frozen=True)
class DataSet:
    """A config in benchmarks/configs and the file it is for."""

    name: str
    path: str  # below the data folder
    about: str

    @property
    def config(self) -> Path:
        return CONFIGS / f"{self.name}.yaml"


SETS = (
    DataSet("tmall", "alibaba_tmall_2014/events.parquet", "protocol P1, conversion within 7 days"),
    DataSet("taobao", "taobao_ub_2h/events.parquet", "conversion within 20 minutes"),
)

# Heading, key in the report (dotted), format.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("events", "events", ",d"),
    ("examples", "examples", ",d"),
    ("judged", "n", ",d"),
    ("positives", "n_pos", ",d"),
    ("AUC", "auc", ".4f"),
    ("NE", "normalized_entropy", ".4f"),
    ("calibration", "calibration", ".3f"),
    ("AUC prior", "baselines.prior.auc", ".4f"),
    ("item_rate", "baselines.item_rate.auc", ".4f"),
    ("user_rate", "baselines.user_rate.auc", ".4f"),
    ("NE prior", "baselines.prior.normalized_entropy", ".4f"),
    ("item_rate", "baselines.item_rate.normalized_entropy", ".4f"),
    ("user_rate", "baselines.user_rate.normalized_entropy", ".4f"),
    ("versions", "version_count", "d"),
    ("held", "verdicts.held", "d"),
    ("CPU s/M events", "cpu_seconds_per_million_events", ".1f"),
    ("peak MB", "peak_megabytes", ".0f"),
)


def from_files(data_set: DataSet, events: Path, folder: Path) -> dict[str, Any]:
    """The report of a back-test."""
    return learned(["backtest", "-c", data_set.config, "--events", events], folder)


def from_kafka(data_set: DataSet, events: Path, folder: Path, bootstrap: str) -> dict[str, Any]:
    """The report of a run on a topic of 4 partitions that holds the set, keyed by user."""
    topic = f"bench-{data_set.name}-{folder.parent.name}"
    produce(events, bootstrap, topic)
    config = yaml.safe_load(data_set.config.read_text())
    (mapping,) = config["topics"].values()
    config["topics"] = {topic: mapping}
    config["source"] = {"kind": "kafka", "kafka": {"bootstrap_servers": bootstrap, "group_id": topic}}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return learned(["run", "-c", path, "--until-end"], folder)


def learned(command: Sequence[str | Path], folder: Path) -> dict[str, Any]:
    """Runs the worker in a process of its own and reads its report."""
    report = folder / "report.json"
    whole = [PROGRAM, *command, "--state", folder / "state", "--report", report]
    done = subprocess.run([str(part) for part in whole], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, whole))} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    content: dict[str, Any] = json.loads(report.read_text())
    return content | {
        "version_count": len(content["versions"]),
        "cpu_seconds_per_million_events": content["cpu_seconds"] / content["events"] * 1e6,
        "peak_megabytes": content["peak_rss_bytes"] / 1e6,
    }


@contextmanager
def broker(given: str | None) -> Iterator[str | None]:
    """Address of the broker given, or of one started for the benchmark; None where there is none to be had."""
    if given is not None:
        yield given
        return
    try:
        from tests.broker import open_broker

        server = open_broker()
    except (ImportError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"no Kafka: {error}; name one with --kafka", flush=True)
        yield None
        return
    try:
        print(f"Kafka: {server.name}", flush=True)
        yield server.bootstrap
    finally:
        server.remove()


def runs(data: Path, bootstrap: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, report) of every run there are data for."""
    with tempfile.TemporaryDirectory(prefix="bench") as scratch:
        for data_set in SETS:
            events = data / data_set.path
            if not events.is_file():
                print(f"{data_set.name}: not run, {events} is not there", flush=True)
                continue
            print(f"{data_set.name}: {data_set.about}", flush=True)
            yield f"{data_set.name} files", from_files(data_set, events, new_folder(scratch, data_set, "files"))
            if bootstrap is not None:
                folder = new_folder(scratch, data_set, "kafka")
                yield f"{data_set.name} kafka", from_kafka(data_set, events, folder, bootstrap)


def new_folder(scratch: str, data_set: DataSet, source: str) -> Path:
    folder = Path(scratch) / f"{data_set.name}-{source}"
    folder.mkdir()
    return folder


def table(reports: dict[str, dict[str, Any]]) -> str:
    """A line per measure, a column per run."""
    lines = [["", *reports]]
    for heading, key, form in COLUMNS:
        lines.append([heading, *(shown(report, key, form) for report in reports.values())])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def shown(report: dict[str, Any], key: str, form: str) -> str:
    value: Any = report
    for part in key.split("."):
        value = value[part]
    return "-" if value is None else format(value, form)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datasets", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data sets")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all reports here, as JSON")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--kafka", metavar="BOOTSTRAP", help="a running broker; default: one is started")
    where.add_argument("--no-kafka", action="store_true", help="from files only")
    args = parser.parse_args()
    reports: dict[str, dict[str, Any]] = {}
    if args.no_kafka:
        reports = dict(runs(args.data, None))
    else:
        with broker(args.kafka) as bootstrap:
            reports = dict(runs(args.data, bootstrap))
    if reports:
        print(f"\n{table(reports)}")
    if args.out is not None:
        args.out.write_text(json.dumps(reports, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`stream-learner demo`: a simulated shop and the worker that learns it, with nothing else needed.

A drift on the way shows what the gate is for: it holds, and when the candidate has learned the new ways, it passes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from stream_learner import config as configs
from stream_learner.errors import ConfigError
from stream_learner.observing.logs import configure_logging, importing_quietly
from stream_learner.observing.show import serve
from stream_learner.settings import Config

HOURS = 72.0
DRIFT = "preference@36:0.9"
PRICES = "price@36:1.0"
_EVENTS_PER_HOUR = 3000.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", default="configs/demo.yaml", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--hours", type=float, default=HOURS, help="of event time (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Simulates into `source.files.path`, learns it with the config, and says what happened."""
    config = configs.load(_found(args.config))
    events, state = Path(config.source.files.path), Path(config.state)
    for folder in (events, state):
        _clear(folder)
    print(f"simulating {args.hours:g} hours of a shop into {events}; at hour 36 tastes and prices change", flush=True)
    _simulate(events, args.hours)
    host, port = config.observing.host, config.observing.port
    print(f"learning; watch http://{host}:{port}/dashboard meanwhile", flush=True)
    configure_logging(config.observing)
    with importing_quietly():
        from stream_learner.running import run

    content = run(config, until_end=True, report_path=str(state / "report.json"))
    if content:
        print(summary(config, content))
        if sys.stdin.isatty():  # somebody is there to look at it
            serve(state, host, port)
    return 0


def _found(path: str) -> Path:
    """The config as given, or beside the package in a checkout."""
    for candidate in (Path(path), Path(__file__).parent.parent / path):
        if candidate.is_file():
            return candidate
    raise ConfigError(f"{path}: no such file; give the demo's config with -c, from the repository's configs folder")


def _clear(folder: Path) -> None:
    """Removes what an earlier demo left; refuses a folder that is not a demo's."""
    if folder.exists():
        if "demo" not in folder.parts and "demo" not in str(folder):
            raise ConfigError(f"{folder} exists and has no `demo` in its path; remove it yourself, or use another")
        shutil.rmtree(folder)


def _simulate(folder: Path, hours: float) -> None:
    from stream_learner.simulate.outputs import write_jsonl
    from stream_learner.simulate.shop import Shop
    from stream_learner.simulate.world import HOUR_US, Drift, ShopSettings

    drift = tuple(Drift.parse(text) for text in (DRIFT, PRICES))
    settings = ShopSettings(seed=7, users=8000, items=2000, events_per_hour=_EVENTS_PER_HOUR, drift=drift)
    write_jsonl(folder, Shop(settings).chunks(round(hours * HOUR_US)), partitions=4, seed=7)


def summary(config: Config, content: dict[str, Any]) -> str:
    """The story of the run, for a terminal."""
    from stream_learner.publishing.operating import whereabouts
    from stream_learner.publishing.verdict_log import read_verdicts

    verdicts = read_verdicts(Path(config.state) / "verdicts.jsonl")
    lines = ["", "time              verdict"]
    lines += _told(verdicts)
    lines += [
        "",
        f"{content['events']:,} events, {content['examples']:,} examples, {content['positives']:,} positives;"
        f" {content['dead_letters']} dead letters, {content['late']} late",
        f"candidate: {_quality(content)}; the item rate: {_quality(content['baselines']['item_rate'])}",
        f"{len(content['versions'])} versions published, {content['verdicts']['held']} verdicts held;"
        f" {content['events_per_second']:,.0f} events/s",
        f"versions: {whereabouts(config).checkpoints}/{config.name}",
        f"look:     stream-learner checkpoints list --state {config.state}",
    ]
    return "\n".join(lines)


def _told(verdicts: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each pass, and one for the first and the number of the verdicts held in between."""
    for passed, run in groupby(verdicts, key=lambda verdict: bool(verdict.get("passed"))):
        several = list(run)
        shown = several if passed else several[:1]
        yield from (f"{_time(v['slide_end'])}  {v['reason']}" for v in shown)
        if len(several) > len(shown):
            last = several[-1]
            yield f"{_time(last['slide_end'])}  ... held {len(several) - 1} times more, last: {last['reason'][6:]}"


def _quality(metrics: dict[str, Any]) -> str:
    """What is None was asked too early: nothing has matured."""
    names = {"auc": "AUC", "normalized_entropy": "NE", "calibration": "calibration"}
    return ", ".join(f"{text} {'-' if metrics[n] is None else format(metrics[n], '.4f')}" for n, text in names.items())


def _time(slide_end_us: int) -> str:
    return datetime.fromtimestamp(slide_end_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")

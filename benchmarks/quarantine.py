"""What an outage does to the model, with and without quarantine: a simulated shop, and the two outages in Tmall.

    python -m benchmarks.quarantine [--data ../shared/data] [--out FILE]

The shop loses every purchase, or click, of two hours. What is clicked in the three hours from the outage's end on is
judged, so that a run with quarantine is judged on exactly what a run without is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from benchmarks.datasets import CONFIGS, SETS, learned, shown
from stream_learner.simulate import Shop, ShopSettings, write_jsonl

HOUR_MS = 3_600_000
HOURS, OUTAGE_HOURS, JUDGED_HOURS = 13, (7, 9), 3
SHOP = ShopSettings(seed=11, users=4000, items=800, events_per_hour=8000.0, conversion=0.06)
COLUMNS = (
    ("judged", "n", ",d"),
    ("positives", "n_pos", ",d"),
    ("AUC", "auc", ".4f"),
    ("NE", "normalized_entropy", ".4f"),
    ("calibration", "calibration", ".3f"),
    ("quarantined slides", "slide_count", "d"),
    ("examples put aside", "examples_put_aside", ",d"),
    ("versions", "version_count", "d"),
)


def shop_without(folder: Path, lost: str | None) -> Path:
    """The shop's events as JSON lines; those of type `lost` are missing during the outage."""
    write_jsonl(folder, Shop(SHOP).chunks(HOURS * HOUR_MS * 1000), partitions=1, seed=SHOP.seed)
    begin, end = (SHOP.start // 1000 + hour * HOUR_MS for hour in OUTAGE_HOURS)
    for path in folder.iterdir():
        events = [(json.loads(line), line) for line in path.read_text().splitlines(keepends=True)]
        kept = [line for e, line in events if e["event_type"] != lost or not begin <= e["timestamp"] < end]
        path.write_text("".join(kept))
    return folder


def shop_runs(scratch: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    begin = SHOP.start / 1e6 + OUTAGE_HOURS[1] * 3600
    span = {"start": _iso(begin), "end": _iso(begin + JUDGED_HOURS * 3600)}
    for lost in (None, "purchase", "click"):
        events = shop_without(scratch / f"without-{lost}", lost)
        for enabled in (False, True):
            if lost is None and enabled:
                continue
            name = f"no {lost}s, {'quarantine' if enabled else 'learned'}" if lost else "no outage"
            yield name, run(scratch / name, "outage", events, {"judging": {"span": span}}, enabled=enabled)


def tmall_runs(scratch: Path, data: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    (tmall,) = (data_set for data_set in SETS if data_set.name == "tmall")
    events = data / tmall.path
    if not events.is_file():
        print(f"tmall: not run, {events} is not there", flush=True)
        return
    for enabled in (False, True):
        name = f"Tmall, {'quarantine' if enabled else 'learned'}"
        yield name, run(scratch / name, "tmall", events, {}, enabled=enabled)


def run(folder: Path, name: str, events: Path, changes: dict[str, dict[str, Any]], *, enabled: bool) -> dict[str, Any]:
    """The report of a back-test with these keys of the config changed."""
    folder.mkdir()
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    for section, values in (*changes.items(), ("quarantine", {"enabled": enabled})):
        config[section] = {**config.get(section, {}), **values}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    report = learned(["backtest", "-c", path, "--events", events], folder)
    return report | {"slide_count": len(report["quarantined_slides"])}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quarantine", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all reports here, as JSON")
    args = parser.parse_args()
    reports: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="bench") as scratch:
        for name, report in chain(shop_runs(Path(scratch)), tmall_runs(Path(scratch), args.data)):
            reports[name] = report
            cells = (f"{heading} {shown(report, key, form)}" for heading, key, form in COLUMNS)
            print(f"{name}: {', '.join(cells)}", flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps(reports, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

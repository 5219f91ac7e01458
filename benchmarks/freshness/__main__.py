"""From an event's append to Kafka to a version that has learned from it, and to a follower that answers with it.

    python -m benchmarks.freshness [--quick] [--client confluent] [--kafka localhost:9092] [--out FILE]

The worker of `benchmarks.throughput`, everything on, with slides of 10 s and a version after every slide, on clicks
that bring their label (`labels.from: field`), so that no attribution window is waited for. First two backlogs, one
four times as dense as the other, tell what a slide costs and what an event costs, and from that the rate at which a
slide takes as long as it lasts. Then live streams at shares of that rate: the broker stamps each append; the champion
pointer, and a `stream_learner.serving.follow` on it in another process, are looked at every 20 ms; the manifest says
which offsets a version has learned. Waiting for its slide to close is part of an event's time: half a slide and the
allowed lateness on average.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets import broker
from benchmarks.freshness.events import write_backlog
from benchmarks.freshness.live import Process, Seen, Sightings, Writer, appended
from benchmarks.produce import make_topic
from benchmarks.throughput.configs import full
from benchmarks.throughput.stream import PARTITIONS

SHARES = (0.25, 0.50, 0.80)
SLIDE_S, LATENESS_S = 10.0, 1.0
_DENSITIES = (500.0, 2000.0)  # events per second of event time
_START_MS = 1_767_225_600_000
_PATIENCE_S = 180.0  # beyond it, what is not served yet counts as never


def config(bootstrap: str, topic: str, client: str) -> dict[str, Any]:
    whole = full(bootstrap, topic, client)
    whole["topics"][topic]["fields"] |= {"type": None, "label": "label"}
    del whole["topics"][topic]["types"]
    whole["topics"][topic]["constant_type"] = "click"
    return whole | {
        "slides": {"slide": f"{SLIDE_S}s", "allowed_lateness": f"{LATENESS_S}s"},
        "labels": {"from": "field"},
        "gate": whole["gate"] | {"interval": f"{SLIDE_S}s"},
        "observing": whole["observing"] | {"log_level": "info"},
    }


def backlog(bootstrap: str, client: str, per_second: float, slides: int) -> dict[str, float]:
    """What the worker makes of a topic that was written before it began."""
    topic = f"backlog-{time.monotonic_ns()}"
    make_topic(bootstrap, topic, PARTITIONS)
    written = write_backlog(bootstrap, topic, slides, SLIDE_S, per_second, _START_MS)
    with _folder() as folder, Process(config(bootstrap, topic, client), folder, until_end=True) as worker:
        report = worker.end()
    if report["consumed"] != written or report["pending"] or len(report["versions"]) < slides:
        raise SystemExit(f"not all was learned and published: {report}")
    wall_s, cpu_s = report["learning_wall_seconds"] / slides, report["learning_cpu_seconds"] / slides
    return {"events_per_slide": written / slides, "wall_seconds_per_slide": wall_s, "cpu_seconds_per_slide": cpu_s}


def sustainable(found: list[dict[str, float]]) -> dict[str, float]:
    """Wall seconds of a slide and of an event, by the line through both backlogs; events/s at which a slide's work
    takes as long as the slide."""
    thin, dense = found
    rise_s = dense["wall_seconds_per_slide"] - thin["wall_seconds_per_slide"]
    per_event_s = rise_s / (dense["events_per_slide"] - thin["events_per_slide"])
    per_slide_s = thin["wall_seconds_per_slide"] - per_event_s * thin["events_per_slide"]
    if per_event_s <= 0 or per_slide_s >= SLIDE_S:
        raise SystemExit(f"the machine was too busy to tell a rate: {found}")
    rate = (SLIDE_S - max(per_slide_s, 0.0)) / per_event_s / SLIDE_S
    return {"seconds_per_slide": per_slide_s, "seconds_per_event": per_event_s, "events_per_second": rate}


def live(bootstrap: str, client: str, per_second: float, measured_s: float) -> dict[str, Any]:
    """Seconds from append to published and to served, of the events appended in `measured_s` of a steady stream."""
    topic = f"live-{time.monotonic_ns()}"
    make_topic(bootstrap, topic, PARTITIONS, {"message.timestamp.type": "LogAppendTime"})
    with _folder() as folder, Process(config(bootstrap, topic, client), folder, until_end=False) as worker:
        worker.until(lambda: worker.says("reading "))
        versions = folder / "state" / "checkpoints" / "conversion"
        with Sightings(versions) as seen, Writer(bootstrap, topic, per_second):
            worker.until(lambda: len(seen.served) >= 2)  # graphs are built, the first version is whole
            begin_s = time.time()
            worker.until(lambda: time.time() >= begin_s + measured_s, measured_s * 2)
            end_s = time.time()
            worker.until(lambda: _has_all(seen, end_s), _PATIENCE_S)
        report = worker.stop()
    times = appended(bootstrap, topic)
    out = {"events_per_second": per_second, "versions": len(seen.published), "late": report["late"]}
    published = {version: one.at_s for version, one in seen.published.items()}
    for name, at_s in (("published", published), ("served", seen.served)):
        waited_s = waits(times, seen.published, at_s, begin_s, end_s)
        out[name] = {
            "events": len(waited_s),
            "never": int(np.isnan(waited_s).sum()),
            **{f"p{q}_seconds": float(np.nanpercentile(waited_s, q)) for q in (50, 95)},
        }
    return out


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="freshness-") as name:
        yield Path(name)


def _has_all(seen: Sightings, end_s: float) -> bool:
    """Whether a version of slides beyond that moment is served."""
    return any(seen.published[v].slide_end_s > end_s + 1 for v in set(seen.served) & seen.published.keys())


def waits(
    times: Mapping[int, Any], published: Mapping[int, Seen], at_s: Mapping[int, float], begin_s: float, end_s: float
) -> Any:
    """Seconds each event appended in the span waited for the first version that has learned it, [n]; NaN = for ever."""
    found = []
    for partition, appended_s in times.items():
        chosen = np.flatnonzero((appended_s >= begin_s) & (appended_s < end_s))
        versions = [v for v in sorted(at_s) if v in published and partition in published[v].learned]
        lasts = np.array([published[v].learned[partition] for v in versions])
        there_s = np.append([at_s[v] for v in versions], np.nan)
        found.append(there_s[np.searchsorted(lasts, chosen)] - appended_s[chosen])
    return np.concatenate(found)


def markdown(report: dict[str, Any]) -> str:
    lines = [
        "| share of the sustainable rate | events/s | published p50 / p95 | served p50 / p95 |",
        "|---|---|---|---|",
    ]
    for share, one in report["shares"].items():
        cells = [
            f"{one[what]['p50_seconds']:.1f} / {one[what]['p95_seconds']:.1f} s" for what in ("published", "served")
        ]
        never = f" ({one['served']['never']} never)" if one["served"]["never"] else ""
        lines.append(f"| {share} | {one['events_per_second']:,.0f} | {cells[0]} | {cells[1]}{never} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.freshness", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter backlogs and streams")
    parser.add_argument("--client", choices=("kafka-python", "confluent"), default="kafka-python")
    parser.add_argument("--kafka", metavar="BOOTSTRAP", help="a running broker; default: one is started")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures here, as JSON")
    args = parser.parse_args()
    slides, measured_s = (4, 40.0) if args.quick else (10, 120.0)
    report: dict[str, Any] = {"client": args.client, "slide_seconds": SLIDE_S, "lateness_seconds": LATENESS_S}
    with broker(args.kafka) as bootstrap:
        if bootstrap is None:
            return 1
        report["backlogs"] = [backlog(bootstrap, args.client, density, slides) for density in _DENSITIES]
        report["sustainable"] = sustainable(report["backlogs"])
        print(json.dumps(report["sustainable"]), flush=True)
        rate, report["shares"] = report["sustainable"]["events_per_second"], {}
        for share in SHARES:
            report["shares"][f"{share:.0%}"] = live(bootstrap, args.client, share * rate, measured_s)
            print(json.dumps(report["shares"][f"{share:.0%}"]), flush=True)
    report["load_average"] = os.getloadavg()[2]
    print(markdown(report))
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

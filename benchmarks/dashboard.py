"""What the dashboard costs: the share of the worker's CPU time that three open tabs take, and bytes over the wire.

    python -m benchmarks.dashboard [--out FILE] [--seconds 60]

A worker learns a simulated shop that it follows, and then waits for more of it. Its CPU seconds are taken while it
learns, while it waits, and while it waits with three tabs open in a real browser (Debian's Chromium): what the tabs add
is held against what learning takes in the same time. The worker runs as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from stream_learner.simulate import Shop, ShopSettings, limited, write_jsonl

TABS = 3
EVENTS = 25_000
CONFIG = """
name: shop
state: {folder}/state
topics:
  events:
    fields: {{user: user_id, item: item_id, time: timestamp, type: event_type, id: event_id, session: session_id}}
    time_format: epoch_ms
    categorical: {{category: category, source: source}}
    numeric: {{price: price}}
source: {{kind: files, files: {{path: {folder}/events, follow: true}}}}
slides: {{slide: 5m, allowed_lateness: 30s}}
labels: {{horizon: 1h}}
gate: {{interval: 20m, min_interval: 40m, min_examples: 500, min_positives: 10, margin: 0.5, max_ne: 5.0}}
observing: {{port: 0, log_level: info}}
"""
_PATIENCE_S = 900.0


class Process:
    """The worker, its address and its CPU seconds."""

    def __init__(self, folder: Path) -> None:
        program = Path(sys.executable).with_name("stream-learner")
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([program, "run", "-c", folder / "config.yaml"], stderr=log, stdout=log)
        self.address = self.wait_for(lambda: re.search(r"http://[\d.]+:\d+", self.log.read_text()))[0]

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name: str) -> float:
        text = urllib.request.urlopen(f"{self.address}/metrics").read().decode()
        return sum(float(value) for value in re.findall(rf"^stream_learner_{name}(?:{{.*}})? (\S+)$", text, re.M))

    def wait_for(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := what()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the worker came to nothing: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextmanager
def worker(folder: Path) -> Iterator[Process]:
    shop = Shop(ShopSettings(seed=5, users=1500, items=400, events_per_hour=4000.0, conversion=0.06))
    write_jsonl(folder / "events", limited(shop.chunks(), EVENTS), partitions=4, seed=5)
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    process = Process(folder)
    try:
        yield process
    finally:
        process.close()


def rate(process: Process, seconds: float) -> float:
    """CPU seconds per second of the worker, for so long."""
    began, used = time.monotonic(), process.cpu_seconds()
    time.sleep(seconds)
    return (process.cpu_seconds() - used) / (time.monotonic() - began)


def learning(process: Process) -> float:
    """The same from the first slide until nothing is left to read."""
    process.wait_for(lambda: process.metric("slides_total") >= 3)
    began, used, slides = time.monotonic(), process.cpu_seconds(), 0.0
    while (now := process.metric("slides_total")) > slides or process.metric("lag_records") > 0:
        slides = now
        time.sleep(3.0)
    return (process.cpu_seconds() - used) / (time.monotonic() - began)


def measure(seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, worker(Path(name)) as process, sync_playwright() as playwright:
        busy = learning(process)
        waiting = rate(process, seconds)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        first, later = 0, 0
        for _ in range(TABS):
            tab = browser.new_context().new_page()
            devtools = tab.context.new_cdp_session(tab)
            devtools.send("Network.enable")
            sizes: list[float] = []
            devtools.on("Network.loadingFinished", lambda event, sizes=sizes: sizes.append(event["encodedDataLength"]))
            tab.goto(f"{process.address}/dashboard")
            tab.wait_for_selector("#versions tr")
            tab.wait_for_load_state("networkidle")
            first, later = int(sum(sizes)), len(sizes)
        watched = rate(process, seconds)
        tab.wait_for_timeout(100)  # what came meanwhile is told
        minute = sum(sizes[later:]) * 60 / seconds
        versions = process.metric("verdicts_total")
        browser.close()
    return {
        "cpu_per_second_learning": busy,
        "cpu_per_second_waiting": waiting,
        "cpu_per_second_waiting_with_tabs": watched,
        "tabs": TABS,
        "share_of_learning_percent": 100 * (watched - waiting) / busy,
        "first_load_bytes": first,
        "bytes_per_minute_and_tab": round(minute),
        "verdicts": versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    found = measure(args.seconds)
    text = json.dumps(found, indent=2)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

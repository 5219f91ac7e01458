"""A real Prometheus scrapes a real worker, and is asked what the dashboard asks."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboards import DEPLOY, dashboard

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from processes import Background, changed, write_config
from shops import CONFIG, last_closed_slide_end, write_shop
from test_next_item import TASK

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not here: make test-prometheus"),
]

PATIENCE_S = 120.0
# What a healthy worker with a short history has nothing to say to.
_SILENT = {
    "stream_learner_dead_letters_total": "no record of the shop is bad",
    "stream_learner_aggregate_evictions_total": "nothing is old or too much",
}


class Prometheus:
    """A server with the project's rules, scraping one worker every second."""

    def __init__(self, folder: Path, target: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(DEPLOY / "prometheus" / "rules.yaml")],
            "scrape_configs": [{"job_name": "stream-learner", "static_configs": [{"targets": [target]}]}],
        }
        path = folder / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config))
        command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}"]
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen([*command, f"--web.listen-address={self.address}"], stderr=log, stdout=log)

    def ask(self, path: str, **query: str) -> Any:
        """The `data` of an answer of the HTTP API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            content = json.load(answer)
        assert content["status"] == "success", content
        return content["data"]

    def result(self, expression: str) -> list[Any]:
        """An instant query."""
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def wait_for(self, expression: str) -> list[Any]:
        """An instant query's result, once there is one."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                found = self.result(expression)
            except OSError:
                found = []  # not up yet
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Asked once the worker has learned all of its stream and Prometheus has seen it twice."""
    folder = tmp_path_factory.mktemp("prometheus")
    events = write_shop(folder / "events", 8_000)
    observing = {"port": 0, "log_format": "json", "log_level": "info"}
    files = {"path": str(events), "follow": True}
    # A week of the season is too long to wait for: join health is judged after half an hour.
    config = changed(CONFIG, source__files=files, observing=observing, quarantine__warm_up="30m")
    config = changed(config, tasks=["conversion", "next_item"], next_item=TASK)  # each has metrics of its own
    config = changed(config, challengers={"quick": {"learning": {"learning_rate": 0.01}}})
    path = write_config(folder / "config.yaml", config)
    with Background(folder, "run", "-c", path, "--state", folder / "state") as worker:
        address = re.search(r"http://([\d.]+:\d+)", worker.wait_for_log("metrics and health at"))
        assert address is not None
        server = Prometheus(folder, address[1])
        try:
            worker.wait_for_log(f'"end_us": {last_closed_slide_end(events)},')
            assert server.wait_for("count_over_time(stream_learner_slides_total[1m]) >= 2")
            yield server
        finally:
            server.close()


def test_every_panel_shows_something(prometheus):
    for expression in dashboard().expressions():
        if not any(name in expression for name in _SILENT):
            assert prometheus.wait_for(expression), expression


def test_a_healthy_worker_raises_no_alarm(prometheus):
    assert prometheus.ask("targets")["activeTargets"][0]["health"] == "up"
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == sum(
        len(g["rules"]) for g in yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"]
    )
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []

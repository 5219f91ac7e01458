"""A running worker seen from outside: metrics, health, readiness and logs, and the report that must agree with them."""

from __future__ import annotations

import http.client
import json
import re
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Background, changed, write_config
from prometheus_client.parser import text_string_to_metric_families
from shops import CONFIG, last_closed_slide_end, shop_events, write_shop

from stream_learner.observing.metric_list import documented

EVENTS = 8_000
_REFUSED = -1


class Observed:
    """A worker on the shop's files, watched from its first second to its last."""

    def __init__(self, folder: Path) -> None:
        self.events = write_shop(folder / "events", EVENTS)
        watched = {"port": 0, "log_format": "json", "log_level": "info"}
        config = changed(CONFIG, source__files={"path": str(self.events), "follow": True}, observing=watched)
        path = write_config(folder / "config.yaml", config)
        report = folder / "report.json"
        arguments = ("run", "-c", path, "--state", folder / "state", "--report", report)
        self.last_end = last_closed_slide_end(self.events)
        with Background(folder, *arguments) as worker:
            address = re.search(r"http://([\d.]+:\d+)", worker.wait_for_log("metrics and health at"))
            assert address is not None
            self.address = address[1]
            self.before = self.status("/readyz"), self.status("/healthz")
            champion = json.loads(worker.wait_for_log(f'"end_us": {self.last_end},'))["champion"]
            worker.wait_for("the version to be written", lambda: self.measured()["champion_version"] == champion)
            self.during = self.status("/readyz"), self.status("/healthz"), self.status("/elsewhere")
            self.health = json.loads(self.get("/healthz")[1])
            worker.send(signal.SIGUSR1)
            worker.wait_for_log("thread MainThread")
            worker.send(signal.SIGTERM)
            self.after = self.until_gone()
            self.exit_code = worker.end_code()
            self.stdout, self.log = worker.stdout.read_text(), worker.log()
        self.report: dict[str, Any] = json.loads(report.read_text())

    def get(self, path: str) -> tuple[int, str]:
        try:
            try:
                with urllib.request.urlopen(f"http://{self.address}{path}", timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()
        except (OSError, http.client.HTTPException):
            return _REFUSED, ""

    def status(self, path: str) -> int:
        return self.get(path)[0]

    def until_gone(self) -> list[int]:
        """What /readyz says until nobody answers any more."""
        seen, deadline = [self.status("/readyz")], time.monotonic() + 30
        while seen[-1] != _REFUSED and time.monotonic() < deadline:
            seen.append(self.status("/readyz"))
        return seen

    def measured(self) -> dict[str, float]:
        """Metrics without labels, as of now; all of them stay in `metrics`."""
        self.metrics = self.get("/metrics")[1]
        samples = [sample for family in text_string_to_metric_families(self.metrics) for sample in family.samples]
        return {s.name.removeprefix("stream_learner_"): s.value for s in samples if not s.labels}

    def sample(self, name: str, **labels: str) -> float:
        """The value of one sample; a label not given may have any value, and the sum is taken."""
        found = [
            sample.value
            for family in text_string_to_metric_families(self.metrics)
            for sample in family.samples
            if sample.name == f"stream_learner_{name}" and labels.items() <= sample.labels.items()
        ]
        assert found, f"there is no {name} {labels}"
        return sum(found)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    return Observed(tmp_path_factory.mktemp("observed"))


def test_ready_only_while_it_works(observed: Observed) -> None:
    assert observed.before == (503, 200)
    assert observed.during == (200, 200, 404)
    assert observed.health["state"] == "running" and observed.health["seconds_since_beat"] < 60
    still_ready = [status for status in observed.after if status == 200]
    assert observed.after[: len(still_ready)] == still_ready  # once it stops it is never ready again
    assert set(observed.after) <= {200, 503, _REFUSED} and observed.after[-1] == _REFUSED
    assert observed.exit_code == 0


def test_metrics_hold_the_counts_of_the_report(observed: Observed) -> None:
    report = observed.report
    counted = {
        "events": observed.sample("events_total", fate="accepted"),
        "slides": observed.sample("slides_total"),
        "examples": observed.sample("examples_total"),
        "matured": observed.sample("matured_total"),
        "positives": observed.sample("positives_total"),
        "pending": observed.sample("pending_examples"),
    }
    assert counted == {name: report[name] for name in counted}
    verdicts = {name: observed.sample("verdicts_total", verdict=name) for name in ("passed", "held")}
    assert verdicts == report["verdicts"]
    assert observed.sample("champion_version") == report["champion"] == report["versions"][-1]
    assert report["consumed"] == EVENTS == report["events"] + report["open"] + report["late"] + report["duplicates"]


def test_metrics_hold_what_the_files_say(observed: Observed) -> None:
    """The events in closed slides, and the watermark, from the simulator's own columns."""
    times = shop_events(EVENTS).time
    assert observed.report["events"] + observed.report["late"] == int(np.count_nonzero(times < observed.last_end))
    watermark = observed.sample("watermark_seconds") * 1e6
    assert observed.last_end <= watermark < int(times.max())


def test_every_exposed_metric_is_documented(observed: Observed) -> None:
    exposed = {family.name for family in text_string_to_metric_families(observed.metrics)}
    assert exposed == {metric.name.removesuffix("_total") for metric in documented()}


def test_labels_are_few_and_none_is_a_user_or_an_item(observed: Observed) -> None:
    """The shop has 1,500 users and 400 items; neither they nor the length of the stream add a series."""
    families = text_string_to_metric_families(observed.metrics)
    series = [sample for family in families for sample in family.samples if not sample.name.endswith("_bucket")]
    assert len(series) < 400
    values = {value for sample in series for value in sample.labels.values()}
    assert not [value for value in values if re.fullmatch(r"[ui]\d+", value)]
    assert max(Counter(sample.name for sample in series).values()) <= 60


def test_logs_are_json_lines_on_stderr_and_nothing_else_is_said(observed: Observed) -> None:
    assert observed.stdout == ""
    lines = [json.loads(line) for line in observed.log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    closed = [line for line in lines if line["message"] == "slide closed"]
    assert len(closed) == observed.report["slides"]
    assert sum(line["events"] for line in closed) == observed.report["events"] + observed.report["duplicates"]
    switched = next(at for at, line in enumerate(lines) if line["message"].startswith("debug is on"))  # by the signal
    assert {line["level"] for line in lines[:switched]} <= {"info", "warning"}
    assert any(line["level"] == "debug" for line in lines[switched:])

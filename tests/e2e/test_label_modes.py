"""Every label mode in the whole worker: the same versions after a kill, labels taken back, outages, honest scores."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from processes import Background, assert_equal, changed, snapshot_slides, to_the_end, write_config
from shops import CONFIG, FIELDS, MINUTE_US, PARTITIONS, SEED, shop

from stream_learner.simulate import ShopSettings, limited, revealed, write_jsonl
from stream_learner.simulate.world import HOUR_US

EVENTS = 14_000
START_US = ShopSettings().start
MODES = [pytest.param(mode, marks=pytest.mark.long) for mode in ("wait", "duplicate", "fnw", "fnc", "oracle")]


def config_of(mode: str, **values: Any) -> dict[str, Any]:
    """The shop's config; half of the purchases come within ten minutes, so most are told twice."""
    config = changed(CONFIG, labels__mode=mode, labels__elapsed="5m", **values)
    topic = config["topics"]["events"]
    topic["types"] = {"click": "click", "purchase": "purchase", "cancel": "cancel"}
    topic["fields"] = {**FIELDS, "label": "converts"} if mode == "oracle" else FIELDS
    config["labels"]["cancel"] = "cancel"
    config["features"] |= {"hour_of_day": False, "day_of_week": False}
    return config


def events_in(folder: Path, **settings: Any) -> Path:
    chunks = limited(shop(delay_median_s=600.0, cancelled=0.1, conversion=0.15, **settings).chunks(), EVENTS)
    write_jsonl(folder, revealed(chunks, HOUR_US, 2_000_000), partitions=PARTITIONS, seed=SEED)
    return folder


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return events_in(tmp_path_factory.mktemp("cancelling-shop") / "events")


def lines(state: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (state / "verdicts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["es_dfm", *MODES])
def test_killed_in_the_middle_it_comes_to_the_same_versions(mode: str, events: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", config_of(mode))
    whole = to_the_end(tmp_path / "whole", config, events, tmp_path / "whole-state")
    assert len(whole.versions) >= 2
    assert whole.report["cancelled"] > 20
    assert whole.report["matured"] + whole.report["pending"] == whole.report["examples"]
    killed = tmp_path / "killed-state"
    with Background(tmp_path / "first", "backtest", "-c", config, "--events", events, "--state", killed) as worker:
        worker.wait_for("two snapshots", lambda: len(snapshot_slides(killed)) >= 2)
        worker.send(signal.SIGKILL)
    assert_equal(whole, to_the_end(tmp_path / "second", config, events, killed))


@pytest.mark.long
def test_an_outage_restarts_the_candidate_from_the_champion(tmp_path: Path) -> None:
    """Ten minutes without clicks, in which purchases still come: what was told of examples that meet them is not
    trusted. A model that waits for its labels has learned none of it."""
    events = events_in(tmp_path / "events")
    for path in events.iterdir():
        kept = [line for line in path.read_text().splitlines(keepends=True) if not lost(json.loads(line))]
        path.write_text("".join(kept))
    quick = {"labels__horizon": "20m", "quarantine": {"warm_up": "30m", "alpha": 0.01}}
    restarts = {}
    for mode in ("fnw", "wait"):
        config = write_config(tmp_path / f"{mode}.yaml", config_of(mode, **quick))
        report = to_the_end(tmp_path / mode, config, events, tmp_path / f"{mode}-state").report
        assert report["quarantined_slides"] and report["examples_put_aside"]
        restarts[mode] = [line for line in lines(tmp_path / f"{mode}-state") if line.get("kind") == "outage"]
    assert restarts["fnw"] and not restarts["wait"]
    assert all(line["action"] == "restart_from_champion" and line["parent"] for line in restarts["fnw"])


def lost(event: dict[str, Any]) -> bool:
    minute = (event["timestamp"] * 1000 - START_US) / MINUTE_US
    return event["event_type"] == "click" and 100 <= minute < 110

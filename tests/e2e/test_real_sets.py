"""Real logs: Tmall by protocol P1, two hours of Taobao through Kafka, and the OTTO fixture.

The first two lie in the folder named by DATA (default ../shared/data); where they are not there, their tests are
skipped with a line that says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from broker import KafkaBroker
from processes import assert_equal, learner, outcome, side_by_side, write_config

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "benchmarks" / "configs"
DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data"))
OTTO = ROOT / "tests" / "fixtures" / "otto"


def real(name: str) -> Path:
    """The events of a set, absolute, whatever folder the tests are run from."""
    path = (ROOT / DATA / name / "events.parquet").resolve()
    if not path.is_file():
        pytest.skip(f"{path} is not there: name the folder of the data sets in DATA")
    return path


def produced(path: Path, kafka: KafkaBroker, topic: str) -> None:
    """The file on a new topic of 4 partitions, keyed by user."""
    command = [sys.executable, "-m", "benchmarks.produce", path, "--kafka", kafka.bootstrap, "--topic", topic]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True, timeout=120)


def on_kafka(config: Path, kafka: KafkaBroker, topic: str) -> dict[str, Any]:
    """A benchmark's config, for the same records on a topic."""
    plain: dict[str, Any] = yaml.safe_load(config.read_text())
    (mapping,) = plain["topics"].values()
    plain["topics"] = {topic: mapping}
    plain["source"] = {"kind": "kafka", "kafka": {"bootstrap_servers": kafka.bootstrap}}
    return plain


def assert_is_protocol_p1(report: dict[str, Any]) -> None:
    assert report["events"] + report["quarantined"] == 182_880 and report["dead_letters"] == report["late"] == 0
    assert report["quarantined_slides"] == [8, 27]  # 2013-04-23 and 2013-05-12: purchases, and no clicks
    assert (report["examples"], report["n"], report["n_pos"]) == (78_873, 58_796, 1_347)
    assert report["baselines"]["prior"]["auc"] == pytest.approx(0.474, abs=0.002)  # .476 with those in quarantine
    assert report["baselines"]["item_rate"]["auc"] == pytest.approx(0.550, abs=0.002)  # .555
    assert report["auc"] >= 0.75
    assert report["versions"] and report["champion"] == report["versions"][-1]
    assert report["retraces"] == 0


def test_tmall_by_protocol_p1(tmp_path: Path) -> None:
    state, report = tmp_path / "state", tmp_path / "report.json"
    learner(
        "backtest", "-c", CONFIGS / "tmall.yaml", "--events", real("alibaba_tmall_2014"),
        "--state", state, "--report", report,
    )  # fmt: skip
    assert_is_protocol_p1(outcome(state, report, "tmall").report)


@pytest.mark.kafka
@pytest.mark.parametrize("name", ["taobao", pytest.param("tmall", marks=pytest.mark.long)])
def test_a_real_set_through_kafka_equals_its_archive(kafka: KafkaBroker, tmp_path: Path, name: str) -> None:
    events = real({"taobao": "taobao_ub_2h", "tmall": "alibaba_tmall_2014"}[name])
    topic = f"{name}-{tmp_path.name}-{os.getpid()}"
    produced(events, kafka, topic)
    path = write_config(tmp_path / "config.yaml", on_kafka(CONFIGS / f"{name}.yaml", kafka, topic))
    live, replayed = tmp_path / "live", tmp_path / "replayed"

    def learn_live() -> None:
        learner("run", "-c", path, "--until-end", "--state", live, "--report", tmp_path / "live.json")

    def replay() -> None:
        archive = tmp_path / "archive"
        learner("archive", "-c", path, "--out", archive)
        learner(
            "backtest", "-c", path, "--events", archive, "--state", replayed, "--report", tmp_path / "replayed.json"
        )

    side_by_side([learn_live, replay])
    first = outcome(live, tmp_path / "live.json", name)
    assert_equal(first, outcome(replayed, tmp_path / "replayed.json", name))
    if name == "tmall":
        assert_is_protocol_p1(first.report)
    else:
        assert first.report["events"] == 96_168 and first.report["late"] == first.report["dead_letters"] == 0
        assert first.report["examples"] == 85_773 and first.report["purchases"] == 2_144
        assert len(first.versions) >= 1


OTTO_CONFIG: dict[str, Any] = {
    "name": "otto",
    "seed": 1,
    "slides": {"slide": "1d", "allowed_lateness": "1h"},
    "aggregates": {"keys": ["user", "item"], "windows": ["1d", "7d"]},
    "labels": {"horizon": "7d", "match": "any"},
    "features": {
        "ids": {
            "user": {"table": "exact", "rows": 64, "dim": 2},
            "item": {"table": "hashed", "rows": 1024, "dim": 2},
        }
    },
    "learning": {"network": "logistic", "batch_size": 32},
    "judging": {"windows": ["7d"]},
    "drift": {"window": "7d"},
    "gate": {"mode": "always", "interval": "7d"},
    "snapshot": {"interval": "7d"},
    "observing": {"port": 0},
}
OTTO_TYPES = {"clicks": "click", "carts": "cart", "orders": "purchase"}


def test_otto_says_the_same_in_milliseconds_and_in_iso_8601(tmp_path: Path) -> None:
    """The fixture as published, unrolled to an event a line with times in ms, and as Parquet."""
    sessions = [json.loads(line) for line in (OTTO / "train.jsonl").read_text().splitlines()]
    events = [{"session": s["session"], **event} for s in sessions for event in s["events"]]
    events.sort(key=lambda event: (event["ts"], event["session"]))
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    forms = {
        "ms": (
            tmp_path / "events.jsonl",
            {"fields": {"user": "session", "item": "aid", "time": "ts", "type": "type"}, "time_format": "epoch_ms"},
        ),
        "iso": (
            OTTO / "events.parquet",
            {"fields": {"user": "user", "item": "item", "time": "ts", "type": "event"}, "time_format": "iso8601"},
        ),
    }

    def learn(form: str) -> dict[str, Any]:
        source, mapping = forms[form]
        config = OTTO_CONFIG | {"topics": {"otto": mapping | {"types": OTTO_TYPES}}}
        path, state = write_config(tmp_path / form / "config.yaml", config), tmp_path / form / "state"
        report = tmp_path / form / "report.json"
        learner("backtest", "-c", path, "--events", source, "--state", state, "--report", report)
        return outcome(state, report, "otto").report

    published, parquet = side_by_side([lambda: learn("ms"), lambda: learn("iso")])
    assert (published["events"], published["examples"], published["purchases"]) == (862, 800, 10)
    assert published["positives"] == positives(events, 7 * 86_400_000) > 0
    assert published["versions"]
    assert published == parquet


def positives(events: list[dict[str, Any]], horizon_ms: int) -> int:
    """Matured clicks with an order of the same session after them, within the horizon; counted pair by pair."""
    day_ms = 86_400_000
    end = (events[-1]["ts"] // day_ms + 1) * day_ms
    orders = [event for event in events if event["type"] == "orders"]
    return sum(
        any(o["session"] == click["session"] and 0 <= o["ts"] - click["ts"] <= horizon_ms for o in orders)
        for click in events
        if click["type"] == "clicks" and click["ts"] + horizon_ms < end
    )

"""Recommendations from the shop's stream: learned, published, asked, killed and taken up; beside conversion too."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from broker import KafkaBroker
from processes import Background, Outcome, changed, learner, outcome, version_numbers, write_config
from shops import CONFIG, PARTITIONS, SEED, events_in, shop, write_shop

from stream_learner.errors import ConfigError
from stream_learner.next_item import command
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.storage import LocalStorage
from stream_learner.simulate import limited, produce_kafka

EVENTS = 9_000
TASK: dict[str, Any] = {
    "sessions": {"gap": "30m", "recent": 6, "capacity": 20_000},
    "catalogue": {"capacity": 600},
    "network": {
        "dim": 8,
        "negatives": 64,
        "batch_size": 64,
        "replay": 0.5,
        "features": ["category"],
        "users": 2048,
        "in_batch": True,
    },
    "judging": {"per_slide": 200},
    "gate": {"interval": "20m", "min_interval": "40m", "min_examples": 100, "margin": 0.2, "cool_down": "20m"},
}
NEW_ITEMS = {1: "doorway", 2: "brand-new", 3: "doorway", 4: "brand-new"}  # by step
RANKING = changed(CONFIG, task="next_item", next_item=TASK)


def learned(folder: Path, events: Path, config: dict[str, Any]) -> tuple[Path, Outcome]:
    """A state folder that has learned the events to their end, and what came of its ranking model."""
    path = write_config(folder / "config.yaml", config)
    state, report = folder / "state", folder / "report.json"
    learner("backtest", "-c", path, "--events", events, "--state", state, "--report", report)
    return state, outcome(state, report, "next_item")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop") / "events", EVENTS)


@pytest.fixture(scope="module")
def whole(events: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    return learned(tmp_path_factory.mktemp("whole"), events, RANKING)


def asked(model: Path, *arguments: str) -> list[dict[str, Any]]:
    """What the command answers, asked within this process: TensorFlow starts once."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["--model", str(model), *arguments])
    return [{"id": name, "score": score} for name, score in command.ask(command.signature(args.model), args)]


def test_a_version_recommends_and_obeys_the_rules(whole: tuple[Path, Outcome]) -> None:
    state, found = whole
    report = found.report["next_item"]
    assert len(report["versions"]) >= 2 and found.champion == report["versions"][-1]
    assert report["champion"] == found.champion and report["retraces"] == 0
    assert report["lifetime"]["candidate"]["recall@20"] > 20 / report["catalogue"]  # better than any fixed 20 at random
    assert 0 < report["coverage"] <= 1 and report["novelty_bits"] > 0
    model = state / "checkpoints" / "next_item"
    plain = asked(model, "--recent", "i1,i2", "--k", "5")
    assert len(plain) == 5 and len({item["id"] for item in plain}) == 5
    scores = [item["score"] for item in plain]
    assert scores == sorted(scores, reverse=True) and all(item["id"].startswith("i") for item in plain)
    told = learner("recommend", "--model", model, "--recent", "i1,i2", "--k", "5", "--json").stdout
    assert json.loads(told) == plain
    first, second = plain[0]["id"], plain[1]["id"]
    ruled = asked(model / str(found.champion), "--recent", "i1,i2", "--k", "5", "--exclude", first)
    assert [item["id"] for item in ruled][:4] == [item["id"] for item in plain][1:]
    pushed = asked(model, "--recent", "i1,i2", "--k", "1", "--boost", f"{second}=1000")
    assert pushed[0]["id"] == second and pushed[0]["score"] == pytest.approx(1000 * plain[1]["score"], rel=1e-4)
    assert len(asked(model, "--k", "5")) == 5  # with nothing known of the session
    whose = [asked(model, "--recent", "i1,i2", "--k", "5", "--user", user) for user in ("", "u1", "u2")]
    assert whose[0] == plain and whose[1] != plain and whose[1] != whose[2]
    manifest = json.loads(found.manifests[found.champion or 0])
    assert len(asked(model, "--recent", "never-seen", "--k", "100000")) == manifest["metrics"]["catalogue"]


def test_what_is_no_such_model_is_told_so(whole: tuple[Path, Outcome], tmp_path: Path) -> None:
    nowhere = learner("recommend", "--model", tmp_path, "--recent", "i1", expect=2)
    assert "no saved_model.pb" in nowhere.stderr
    model = whole[0] / "checkpoints" / "next_item"
    with pytest.raises(ConfigError, match="write ITEM=FACTOR"):
        asked(model, "--boost", "i1")
    with pytest.raises(ConfigError, match="--k 0: at least 1"):
        asked(model, "--k", "0")


def test_killed_and_started_again_it_comes_to_the_same_versions(
    whole: tuple[Path, Outcome], events: Path, tmp_path: Path
) -> None:
    path = write_config(tmp_path / "config.yaml", changed(RANKING, snapshot__interval="10m"))
    state, report = tmp_path / "state", tmp_path / "report.json"
    program = ("backtest", "-c", path, "--events", events, "--state", state, "--report", report)
    with Background(tmp_path / "killed", *program) as worker:
        worker.wait_for("a version", lambda: version_numbers(state, "next_item"))
        worker.end(signal.SIGKILL)
    learner(*program)
    again = outcome(state, report, "next_item")
    assert again.content == whole[1].content and again.manifests == whole[1].manifests
    assert again.verdicts == whole[1].verdicts and again.report == whole[1].report


def test_of_an_outage_nothing_is_learned(events: Path, tmp_path: Path) -> None:
    """The clicks of two slides are lost: what is left of these is kept out, and the next version says so."""
    part = shutil.copytree(events, tmp_path / "events")
    lost, start = [10, 11], min(event["timestamp"] for event in events_in(part)) // 300_000 * 300_000
    for file in part.iterdir():
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if not (slide_of(line, start) in lost and '"click"' in line)))
    quick = {"warm_up": "30m", "alpha": 0.01}  # minutes of a shop instead of weeks
    _, found = learned(tmp_path / "out", part, changed(RANKING, quarantine=quick))
    report = found.report
    assert report["quarantined_slides"] == lost and report["next_item"]["slides_kept_out"] == 2
    left = [line for file in part.iterdir() for line in file.read_text().splitlines() if slide_of(line, start) in lost]
    assert report["quarantined"] == len(left) > 0
    told = [[one["slide"] for one in json.loads(text)["quarantined"]] for text in found.manifests.values()]
    assert sorted(told) == sorted([[]] * (len(told) - 1) + [lost])


def slide_of(line: str, start_ms: int) -> int:
    return int(json.loads(line)["timestamp"] - start_ms) // 300_000


def test_both_tasks_from_one_stream_are_as_each_alone(
    whole: tuple[Path, Outcome], events: Path, tmp_path: Path
) -> None:
    """And though their worker was killed when both had versions."""
    both, folder = changed(RANKING, tasks=["conversion", "next_item"], snapshot__interval="10m"), tmp_path / "both"
    folder.mkdir()
    path, state, report = write_config(folder / "config.yaml", both), folder / "state", folder / "report.json"
    program = ("backtest", "-c", path, "--events", events, "--state", state, "--report", report)
    with Background(tmp_path / "killed", *program) as worker:
        worker.wait_for("two versions", lambda: all(version_numbers(state, name) for name in ("shop", "next_item")))
        worker.end(signal.SIGKILL)
    learner(*program)
    ranking, conversion = outcome(state, report, "next_item"), outcome(state, report)
    assert ranking.content == whole[1].content  # a task's model does not know of the other
    assert len(conversion.versions) >= 2 and conversion.champion == conversion.versions[-1]
    operators_name_the_model(path, events, state, ranking, conversion)
    alone = learned(tmp_path / "alone", events, changed(both, tasks=["conversion"]))[0]
    checkpoints = Checkpoints(LocalStorage(alone / "checkpoints" / "shop"), "shop", keep=2)
    assert {m.version: m.content_sha256 for m in checkpoints.versions()} == conversion.content


def operators_name_the_model(path: Path, events: Path, state: Path, ranking: Outcome, conversion: Outcome) -> None:
    """One worker's two models are listed, pinned, overridden and rolled back one by one, also in a replay."""
    place = ("--state", state, "--json")
    shop = json.loads(learner("checkpoints", "list", *place).stdout)
    other = json.loads(learner("checkpoints", "list", *place, "--model", "next_item").stdout)
    assert (shop["model"], shop["other_models"]) == ("shop", ["next_item"])
    assert [v["version"] for v in other["versions"]] == ranking.report["next_item"]["versions"]
    told = learner("checkpoints", "list", "--state", state, "--model", "next_item").stdout
    assert "mrr@20" in told and "also here, each with --model: shop" in told
    assert (
        "this worker learns shop, next_item" in learner("checkpoints", "list", *place, "--model", "x", expect=2).stderr
    )
    card = state / "checkpoints" / "next_item" / str(ranking.champion) / "card.md"
    assert "What moves the recommendations" in card.read_text()
    first = ranking.report["next_item"]["versions"][0]
    learner("checkpoints", "rollback", str(first), *place, "--model", "next_item")
    learner("gate", "override", "--next", "--reason", "a test", "--model", "next_item", "--state", state)
    report = state.parent / "report.json"
    learner("backtest", "-c", path, "--events", events, "--state", state, "--report", report)
    after = outcome(state, report, "next_item")
    rolled_back = json.loads(after.manifests[after.champion or 0])
    assert rolled_back["rollback_of"] == first and after.champion != ranking.champion
    assert outcome(state, report).champion == conversion.champion
    lines = [json.loads(line) for line in (state / "verdicts.jsonl").read_text().splitlines()]
    assert [line["model"] for line in lines if line.get("kind") == "override"] == ["next_item"]
    journal = ("--journal", state / "journal.jsonl", "--report", report)
    fresh = state.parent / "replay"
    learner("backtest", "-c", path, "--events", events, "--state", fresh, *journal)
    assert outcome(fresh, report, "next_item").manifests == after.manifests


@pytest.mark.kafka
def test_a_new_item_is_recommendable_two_slides_after_its_admission(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Sessions of the simulator through a real broker; then a visitor of two items that nobody had seen."""
    topic = kafka.topic(PARTITIONS)
    produce_kafka(kafka.bootstrap, topic, limited(shop().chunks(), EVENTS), partitions=PARTITIONS, seed=SEED)
    config = changed(RANKING, topics={topic: CONFIG["topics"]["events"]}, source__kind="kafka")
    config = changed(config, next_item__gate={"mode": "always", "interval": "0s", "min_interval": "0s"})
    config = changed(config, next_item__network__features=[])  # by its neighbours alone
    config = changed(config, next_item__catalogue__admit_after=2, source__kafka__bootstrap_servers=kafka.bootstrap)
    path = write_config(tmp_path / "config.yaml", config)
    state, report = tmp_path / "state", tmp_path / "report.json"
    with Background(tmp_path / "worker", "run", "-c", path, "--state", state, "--report", report) as worker:
        worker.wait_for("the first versions", lambda: len(version_numbers(state, "next_item")) >= 3)
        last = last_time_ms()
        for step in range(18):  # slides of 5 minutes: two events of each, then the stream goes on
            for partition in range(PARTITIONS):
                at = last + 600_000 + step * 150_000 + partition
                item = "i1" if partition else NEW_ITEMS.get(step, "i1")
                value = event(f"n{step}-{partition}", f"visitor-{partition}", item, at)
                kafka.produce(topic, [(partition, value, at)])
        slide = 300_000_000
        admitted = (last + 600_000 + max(NEW_ITEMS) * 150_000) * 1000 // slide  # the slide of its second event
        limit = (admitted + 1 + 2) * slide // 1_000_000
        worker.wait_for("that slide's version", lambda: max(version_numbers(state, "next_item"), default=0) >= limit)
        assert worker.end(signal.SIGTERM) == 0
    numbers = [n for n in version_numbers(state, "next_item") if n <= limit]
    newest = state / "checkpoints" / "next_item" / str(max(numbers))
    listed = [item["id"] for item in asked(newest, "--recent", "doorway", "--k", "3")]
    assert "brand-new" in listed


def event(number: str, user: str, item: str, time_ms: int) -> bytes:
    fields = {"event_id": number, "user_id": user, "item_id": item, "event_type": "click", "timestamp": time_ms}
    more = {"category": "c1", "price": 1.0, "source": "search", "session_id": f"session-{user}"}
    return json.dumps({**fields, **more}).encode()


def last_time_ms() -> int:
    chunks = [chunk for chunk in limited(shop().chunks(), EVENTS) if len(chunk)]
    return int(max(chunk.time.max() for chunk in chunks) // 1000)

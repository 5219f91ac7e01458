"""Model keys that change under a state: which are carried over, and that live runs, crashes and replays agree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from processes import Outcome, assert_equal, changed, outcome, snapshot_slides
from shops import CONFIG, write_shop

from stream_learner import config as configs
from stream_learner import config_change
from stream_learner.config_change import MIGRATES, ConfigSwitched, migrates
from stream_learner.errors import StateError
from stream_learner.events import ExampleBatch
from stream_learner.journal import ConfigChange, read_journal
from stream_learner.learning.replay import Replay
from stream_learner.running import run
from stream_learner.settings import Config

HALF, EVENTS = 6000, 9000
OFTEN = changed(CONFIG, gate__interval="10m", gate__min_interval="20m", snapshot__keep=50)
NEW: dict[str, Any] = {
    "learning__learning_rate": 0.01,
    "learning__table_learning_rate": 0.02,
    "learning__l2": 0.001,
    "learning__dropout": 0.2,
    "learning__batch_size": 100,
    "learning__passes": 2,
    "learning__blank_rate": 0.2,
    "replay__capacity": 700,
    "replay__ratio": 0.5,
    "gate__min_examples": 300,
    "gate__calibration": [0.02, 90.0],
    "aggregates__expire_after": "5h",
    "aggregates__max_keys": 500,
    "aggregates__smoothing": 5.0,
    "judging__windows": ["30m", "2h"],
    "judging__exact_max": 1000,
    "judging__baseline_smoothing": 7.0,
    "drift__interval": "20m",
    "drift__min_examples": 200,
    "drift__bins": 7,
}


def parsed(**values: Any) -> Config:
    return configs.parse(yaml.safe_dump(changed(OFTEN, **values)))


def learn(folder: Path, events: Path, *, journal: Path | None = None, **values: Any) -> Outcome:
    """A back-test in this process: what `stream-learner backtest` does."""
    config = configs.with_state(configs.with_files(parsed(**values), str(events)), str(folder / "state"))
    report = folder / "report.json"
    run(config, until_end=True, journal=None if journal is None else str(journal), report_path=str(report))
    return outcome(folder / "state", report)


# ---- the list --------------------------------------------------------------------------------------------------------


def test_every_key_of_the_list_is_a_model_key() -> None:
    assert set(configs.leaves(configs.to_plain(Config(), scope="model"))) >= MIGRATES


def test_the_readme_lists_the_keys() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    listed = text.partition("<!-- keys that migrate -->")[2].partition("<!-- end -->")[0]
    keys = {key for part in listed.split("`")[1::2] for key in [part]}
    assert keys == MIGRATES


@pytest.mark.parametrize(
    "key", ["seed", "learning.optimizer", "learning.hidden", "learning.network", "learning.threads", "slides.slide",
            "features.ids.user.rows", "features.ids.user.dim", "aggregates.windows", "export.capacity", "dedupe.window",
            "dead_letters.max_record_bytes", "labels.horizon", "gate.alpha", "gate.evidence_window",
            "drift.window", "topics.events.fields.user"],
)  # fmt: skip
def test_what_shapes_a_state_is_not_in_it(key: str) -> None:
    assert not migrates(key, 1, 2)


def test_dropout_migrates_but_for_its_coming_and_going() -> None:
    assert migrates("learning.dropout", 0.1, 0.2)
    assert not migrates("learning.dropout", 0.0, 0.2) and not migrates("learning.dropout", 0.2, 0.0)


def test_values_are_set_by_their_paths() -> None:
    config = configs.with_values(
        parsed(), {"gate.calibration": [0.5, 2.0], "judging.windows": ["2h"], "replay.ratio": 2}
    )
    assert config == parsed(gate__calibration=[0.5, 2.0], judging__windows=["2h"], replay__ratio=2.0)
    everything = config_change.differences(
        configs.model_head(parsed())["config"], configs.model_head(parsed(**NEW))["config"]
    )
    assert set(everything) == {key.replace("__", ".") for key in NEW}
    there = configs.with_values(parsed(), {key: new for key, (_, new) in everything.items()})
    assert configs.model_hash(there) == configs.model_hash(parsed(**NEW))


# ---- what is decided -------------------------------------------------------------------------------------------------


def head(**values: Any) -> dict[str, Any]:
    return configs.model_head(parsed(**values))


def entry(slide: int, before: dict[str, Any], after: dict[str, Any]) -> ConfigChange:
    wanted = parsed(snapshot__on_config_change="migrate", **after)
    return config_change.change(parsed(**before), wanted, slide)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning__l2": 0.1}, r"learning\.l2\. Put them back.*or carry the state over with .*migrate$"),
        ({"seed": 9, "learning__l2": 0.1}, r"other model keys: learning\.l2, seed\. Put.*change freely\)$"),
        ({"seed": 9, "learning__l2": 0.1, "snapshot__on_config_change": "migrate"}, "over a change of seed. Put"),
        ({"learning__dropout": 0.0, "snapshot__on_config_change": "migrate"}, "over a change of learning.dropout. Put"),
    ],
)  # fmt: skip
def test_refusals_name_the_keys(values: dict[str, Any], message: str) -> None:
    with pytest.raises(StateError, match=message):
        config_change.resolve(head(), parsed(**values), parsed(**values), ())


def test_a_change_of_pseudonyms_is_refused_by_name() -> None:
    text = "privacy: {pseudonymise: true, key: '${K}'}\nsnapshot: {on_config_change: migrate}"
    one, two = (configs.parse(text, environ={"K": letter * 16}) for letter in "ab")
    with pytest.raises(StateError, match=r"privacy\.key"):
        config_change.resolve(configs.model_head(one), two, two, ())


def test_a_snapshot_goes_on_under_its_own_config_first() -> None:
    wanted = parsed(learning__l2=0.1, snapshot__on_config_change="migrate")
    with pytest.raises(ConfigSwitched) as switched:
        config_change.resolve(head(), wanted, wanted, ())
    assert switched.value.values == {"learning.l2": 0.0}
    assert config_change.resolve(head(), parsed(), wanted, ()) is None


def test_a_journaled_change_needs_no_second_word() -> None:
    one, two = {"learning__l2": 0.1}, {"learning__l2": 0.1, "replay__ratio": 2.0}
    pending = (entry(5, {}, one), entry(9, one, two))
    assert config_change.resolve(head(), parsed(**one), parsed(**two), pending) == pending[0]
    with pytest.raises(ConfigSwitched) as switched:  # slides up to the fifth come first, under the snapshot's config
        config_change.resolve(head(), parsed(**two), parsed(**two), pending)
    assert switched.value.values == {"learning.l2": 0.0, "replay.ratio": 1.0}
    with pytest.raises(StateError, match=r"other model keys: replay\.ratio\."):
        config_change.resolve(head(), parsed(**one, replay__ratio=3.0), parsed(**one, replay__ratio=3.0), pending)


def test_a_new_state_begins_with_the_first_values_of_its_journal() -> None:
    one, two = {"learning__l2": 0.1}, {"learning__l2": 0.2}
    entries = (entry(5, {}, one), entry(9, one, two))
    assert config_change.begin(parsed(), parsed(), entries) == parsed(**two)
    with pytest.raises(ConfigSwitched) as switched:
        config_change.begin(parsed(**two), parsed(**two), entries)
    assert switched.value.values == {"learning.l2": 0.0}
    with pytest.raises(StateError, match=r"learning\.l2 is 0\.3 in the config; the journal begins with 0\.0"):
        config_change.begin(parsed(learning__l2=0.3), parsed(learning__l2=0.3), entries)


# ---- the replay buffer -----------------------------------------------------------------------------------------------


def examples(first: int, count: int) -> ExampleBatch:
    blank = np.full(count, np.nan, np.float32)
    time = np.arange(first, first + count, dtype=np.int64)
    return ExampleBatch(
        time=time, ids=np.ones((count, 1), np.uint64), numbers=blank[:, None], label=blank, logit_candidate=blank,
        logit_champion=blank, logit_served=blank, baseline=blank[:, None], judged=np.ones(count, bool),
        unseen=np.zeros((count, 2), bool),
    )  # fmt: skip


def held(buffer: Replay) -> list[int]:
    return sorted(buffer.capture()["columns"]["time"].tolist())


def test_a_smaller_buffer_keeps_a_uniform_sample_and_goes_on() -> None:
    first = Replay(1000, 3)
    first.add(examples(0, 5000), 0)
    smaller, again = Replay(100, 3), Replay(100, 3)
    for buffer in (smaller, again):
        buffer.restore(first.capture())
        assert len(buffer) == 100 and set(held(buffer)) < set(held(first))
    assert held(smaller) == held(again) and 1500 < np.mean(held(smaller)) < 3500
    smaller.add(examples(5000, 5000), 1)
    assert len(held(smaller)) == 100 and 25 < sum(time >= 5000 for time in held(smaller)) < 75


def test_a_larger_buffer_keeps_all_and_grows() -> None:
    first = Replay(100, 3)
    first.add(examples(0, 5000), 0)
    larger = Replay(1000, 3)
    larger.restore(first.capture())
    assert held(larger) == held(first) and len(larger) == 100
    larger.add(examples(5000, 300), 1)
    assert len(larger) == 400 and held(larger)[-300:] == list(range(5000, 5300))
    assert len(larger.draw(50, 2, 0).rows) == 50
    none = Replay(0, 3)
    none.restore(first.capture())
    assert len(none) == 0
    first.restore(none.capture())
    first.add(examples(0, 10), 3)
    assert len(first) == 10


# ---- the whole way ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(900)
def test_a_live_change_a_crash_in_it_and_its_replays_are_equal(tmp_path: Path) -> None:
    live, half, events = tmp_path / "live", write_shop(tmp_path / "half", HALF), write_shop(tmp_path / "all", EVENTS)
    before = learn(live, half)
    with pytest.raises(StateError, match=r"was made under other model keys: aggregates.expire_after, .*migrate$"):
        learn(live, events, **NEW)
    migrated = learn(live, events, **NEW, snapshot__on_config_change="migrate")

    journal = live / "state" / "journal.jsonl"
    (change,) = (one for one in read_journal(journal) if isinstance(one, ConfigChange))
    assert change.slide == before.report["slides"] and set(change.keys) == {key.replace("__", ".") for key in NEW}
    hashes = [json.loads(migrated.manifests[version])["config_hash"] for version in migrated.versions]
    assert list(dict.fromkeys(hashes)) == [change.before, change.after]
    assert migrated.versions[: len(before.versions)] == before.versions

    crashed = tmp_path / "crashed"
    shutil.copytree(live, crashed)
    for slide in snapshot_slides(crashed / "state"):
        if slide > change.slide:
            (path,) = (crashed / "state" / "snapshots").glob(f"slide-{slide:012d}-*")
            shutil.rmtree(path)
    resumed = learn(crashed, events, **NEW)  # the journal has the decision: nobody needs to say migrate again
    with_new = learn(tmp_path / "new", events, journal=journal, **NEW)
    with_old = learn(tmp_path / "old", events, journal=journal)
    assert_equal(migrated, resumed, with_new, with_old)

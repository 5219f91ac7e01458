"""A user asks to be forgotten: where nothing of them is left, and that kills and replays agree about it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import Background, assert_equal, changed, learner, to_the_end, write_config
from shops import CONFIG, events_in, grow, last_closed_slide_end, write_shop

from stream_learner.ingest.identity import Pseudonymiser, fingerprints
from stream_learner.snapshots import Snapshots

EVENTS = 9_000
PRIVATE = changed(
    CONFIG,
    gate__interval="10m",
    gate__min_interval="20m",
    snapshot__keep=2,
    aggregates__distinct=[{"key": "user", "of": "item"}],
    aggregates__shares=[{"key": "user", "of": "item"}],
    aggregates__ranks=[{"key": "user", "of": "item"}],
    aggregates__neighbours=[{"key": "user", "of": "item", "items": 500, "recent": 20}],
    aggregates__half_lives=["1h"],
    aggregates__label_rates=True,
    features__ids__user={"table": "exact", "rows": 2048, "dim": 4},
    judging__slices=["new_user"],
    labels__mode="es_dfm",
    labels__elapsed="20m",
)
NOT_HERE = ("quarantined_examples", "sessions")  # kinds of which this shop has none


def busiest(events: Path) -> list[str]:
    """Users with most events in the first half of the log."""
    records = sorted(events_in(events), key=lambda record: record["timestamp"])
    users = [record["user_id"] for record in records[: len(records) // 2]]
    names, counts = np.unique(users, return_counts=True)
    return [str(name) for name in names[np.argsort(-counts, kind="stable")[:5]]]


def holders(tree: Any, marks: set[int], place: str = "") -> Iterator[str]:
    """Places in a state where one of these fingerprints stands."""
    if isinstance(tree, dict):
        for name, part in tree.items():
            yield from holders(part, marks, f"{place}/{name}")
    elif isinstance(tree, list):
        for number, part in enumerate(tree):
            yield from holders(part, marks, f"{place}/{number}")
    elif isinstance(tree, np.ndarray) and tree.dtype in (np.uint64, np.int64):
        yield from [place] if marks & set(tree.view(np.uint64).ravel().tolist()) else []


def newest_state(state: Path, folder: Path) -> dict[str, Any]:
    """Of the newest snapshot, read from a link to it: opening the folder itself would clear what a worker writes."""
    newest = max((state / "snapshots").glob("slide-*"), key=lambda path: path.name.split("-")[::-1])
    folder.mkdir()
    (folder / newest.name).symlink_to(newest)
    snapshot = Snapshots(folder, 2).latest()
    assert snapshot is not None
    return snapshot.state


@pytest.mark.timeout(900)
def test_a_user_is_forgotten_by_a_killed_worker_and_in_a_replay(tmp_path: Path) -> None:
    whole, live, state = write_shop(tmp_path / "whole", EVENTS), tmp_path / "live", tmp_path / "state"
    grow(live, whole, 0.0, 0.6)
    users = busiest(whole)
    marks = set(fingerprints(users).tolist())
    config = changed(PRIVATE, source__files={"path": str(live), "follow": True, "poll_interval": "20ms"})
    path = write_config(tmp_path / "config.yaml", config)
    with Background(tmp_path / "run", "run", "-c", path, "--state", state) as worker:
        worker.wait_for_log(f"end_us={last_closed_slide_end(live)} ")
        answer = json.loads(learner("erase", *users, "--state", state, "--json").stdout)
        assert (len(answer["commands"]), answer["users"]) == (1, len(users))
        worker.wait_for_log(f"erased {len(users)} users")
        grow(live, whole, 0.6, 0.65)
        worker.wait_for_log(f"end_us={last_closed_slide_end(live)} ")
        worker.end(signal.SIGKILL)  # whether or not the snapshot after the erasure was written

    finished = to_the_end(tmp_path / "finished", path, whole, state)
    replayed = to_the_end(tmp_path / "replayed", path, whole, tmp_path / "fresh", "--journal", state / "journal.jsonl")
    assert_equal(finished, replayed)
    lines = [json.loads(line) for line in finished.verdicts.splitlines()]
    [erasure] = [line for line in lines if line.get("kind") == "erasure"]
    assert all(erasure["erased"][name] > 0 for name in erasure["erased"] if name not in NOT_HERE), erasure
    assert not any(user.encode() in (state / "journal.jsonl").read_bytes() for user in users)

    untouched = to_the_end(tmp_path / "untouched", path, whole, tmp_path / "other")
    assert untouched.report["model_sha256"] != finished.report["model_sha256"]
    assert marks_held(tmp_path / "other", tmp_path / "a", marks) != set()


def marks_held(state: Path, folder: Path, marks: set[int]) -> set[str]:
    return set(holders(newest_state(state, folder), marks))


def test_nothing_of_a_user_is_left_but_what_was_published(tmp_path: Path) -> None:
    events, state = write_shop(tmp_path / "events", EVENTS), tmp_path / "state"
    path = write_config(tmp_path / "config.yaml", PRIVATE)
    to_the_end(tmp_path / "first", path, events, state)
    users = busiest(events)
    marks = set(fingerprints(users).tolist())
    held = marks_held(state, tmp_path / "before", marks)
    for part in ("aggregates", "attribution", "learner/candidate", "replay", "judge/board", "judge/drift"):
        assert any(place.startswith(f"/{part}") for place in held), (part, held)

    (tmp_path / "users.txt").write_text("\n".join(users) + "\n")
    learner("erase", "--file", tmp_path / "users.txt", "--state", state)
    to_the_end(tmp_path / "second", path, events, state)
    left = marks_held(state, tmp_path / "after", marks)
    assert left and all(place.startswith(("/learner/champion", "/learner/previous")) for place in left), left


def test_who_cannot_be_named_is_told_why(tmp_path: Path) -> None:
    state, path = tmp_path / "state", tmp_path / "config.yaml"
    write_config(path, changed(CONFIG, state=str(state)))
    assert "no worker has run on this folder" in learner("erase", "u1", "-c", path, expect=2).stderr
    assert "nobody to erase" in learner("erase", "-c", path, expect=2).stderr
    state.mkdir()
    (state / "worker.json").write_text('{"model": "shop", "checkpoints": "c", "pseudonymised": true}')
    assert "privacy" not in learner("erase", "u1", "--state", state, expect=2).stdout
    refusal = learner("erase", "u1", "--state", state, expect=2).stderr
    assert "whose key stands in the worker's config" in refusal

    keyed = changed(CONFIG, state=str(state), privacy={"pseudonymise": True, "key": "0123456789abcdef"})
    learner("erase", "u1", "-c", write_config(path, keyed))
    [command] = (state / "commands").glob("*.json")
    [mark] = fingerprints(Pseudonymiser("0123456789abcdef").pseudonyms(["u1"])).tolist()
    assert json.loads(command.read_text())["arguments"] == {"users": f"{mark:016x}"}

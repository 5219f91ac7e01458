"""A warm start from history, and a budget that follows the machine: killed and replayed, the same versions."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from processes import Background, Outcome, assert_equal, changed, side_by_side, to_the_end, write_config
from shops import CONFIG, write_shop

from stream_learner import config as configs
from stream_learner.errors import ConfigError
from stream_learner.journal import Command, read_journal

EVENTS = 9_000
OFTEN = changed(CONFIG, gate__interval="10m", gate__min_interval="20m")
HISTORY_ENDS = "2024-01-01T01:30:00"
WARM = changed(OFTEN, learning__warm_start={"until": HISTORY_ENDS, "passes": 3})


def killed(folder: Path, path: Path, events: Path, moment: str) -> Outcome:
    """A run that is killed at a log line, and taken up again."""
    state = folder / "state"
    with Background(folder / "killed", "backtest", "-c", path, "--events", events, "--state", state) as worker:
        worker.wait_for_log(moment)
        worker.end(signal.SIGKILL)
    return to_the_end(folder / "finished", path, events, state)


def lines(outcome: Outcome, kind: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, outcome.verdicts.splitlines()) if line.get("kind") == kind]


@pytest.mark.timeout(900)
def test_history_is_gone_through_several_times_then_the_stream(tmp_path: Path) -> None:
    events = write_shop(tmp_path / "events", EVENTS)
    warm, cold = (write_config(tmp_path / name, config) for name, config in (("w.yaml", WARM), ("c.yaml", OFTEN)))
    straight, again, never = side_by_side(
        [
            lambda: to_the_end(tmp_path / "straight", warm, events, tmp_path / "state"),
            lambda: killed(tmp_path / "again", warm, events, "warm start: history ended"),
            lambda: to_the_end(tmp_path / "never", cold, events, tmp_path / "cold"),
        ]
    )
    assert_equal(straight, again)
    [told] = lines(straight, "warm_start")
    assert told["slide_end"] == 1_704_072_900_000_000 and told["replayed"] % 3 == 0 and told["replayed"] > 300
    assert lines(never, "warm_start") == [] and never.report["model_sha256"] != straight.report["model_sha256"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning__warm_start": {"until": "soon"}}, r"learning\.warm_start\.until: 'soon'; expected an ISO"),
        ({"replay__capacity": 0}, r"learning\.warm_start: .* replay\.capacity is 0"),
        ({"replay__policy": "dark"}, r"learning\.warm_start: replay\.policy dark"),
    ],
)
def test_a_warm_start_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.parse(json.dumps(changed(WARM, **values)))


@pytest.mark.timeout(900)
def test_a_budget_that_follows_the_machine_is_journaled_and_replayed(tmp_path: Path) -> None:
    """So small a share that any machine is too slow for it; the replay's own machine decides nothing."""
    events = write_shop(tmp_path / "events", EVENTS)
    small = changed(OFTEN, learning__batch_size=32, learning__core_share=2e-5)
    path = write_config(tmp_path / "small.yaml", small)
    whole = killed(tmp_path, path, events, "learning keeps to")
    budgets = [e for e in read_journal(tmp_path / "state" / "journal.jsonl") if getattr(e, "name", "") == "budget"]
    assert budgets and all(isinstance(entry, Command) and int(entry.arguments["rows"] or 0) >= 32 for entry in budgets)
    free = write_config(tmp_path / "free.yaml", changed(small, learning__core_share=None))
    journal = tmp_path / "state" / "journal.jsonl"
    replayed = to_the_end(tmp_path / "replayed", free, events, tmp_path / "fresh", "--journal", journal)
    assert_equal(whole, replayed)

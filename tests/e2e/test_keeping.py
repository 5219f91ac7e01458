"""Everything that is kept from slide to slide to learn from, together: a replay policy, ids that live and die, renewals
of the network and a budget; killed with SIGKILL, the worker comes to the versions of one that was not."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from processes import Background, assert_equal, changed, to_the_end, version_numbers, write_config
from shops import CONFIG, write_shop

EVENTS = 8_000
LIVING = {"table": "exact", "rows": 200, "dim": 4, "admit_after": 2, "expire_after": "40m", "max_waiting": 300}
POLICIES = ("prioritised", "dark", "time_biased", "stratified")


@pytest.mark.parametrize(
    "policy", [POLICIES[0], *(pytest.param(policy, marks=pytest.mark.long) for policy in POLICIES[1:])]
)
def test_what_is_kept_to_learn_from_survives_a_kill(policy: str, tmp_path: Path) -> None:
    events = write_shop(tmp_path / "events", EVENTS)
    replay: dict[str, Any] = {"policy": policy, "capacity": 1500, "max_bytes": 2_000_000, "half_life": "1h"}
    config = changed(
        CONFIG,
        replay=replay | {"strata": "source"},
        features__ids__item=LIVING,
        learning__budget=450,
        learning__plasticity={"every": 900, "shrink": 0.95, "perturb": 0.05, "dormant": 0.05},
        gate__interval="10m",
        gate__min_interval="20m",
        snapshot__interval="10m",
    )
    path = write_config(tmp_path / "config.yaml", config)
    whole = to_the_end(tmp_path / "whole", path, events, tmp_path / "whole" / "state")
    state = tmp_path / "killed" / "state"
    arguments = ("backtest", "-c", path, "--events", events, "--state", state)
    with Background(tmp_path / "killed", *arguments) as worker:
        worker.wait_for("the first version", lambda: len(version_numbers(state)) >= 1)
        worker.end(signal.SIGKILL)
    again = to_the_end(tmp_path / "again", path, events, state)
    assert len(whole.versions) >= 2
    assert_equal(whole, again)

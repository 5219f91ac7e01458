"""The demo's last words, whenever it is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream_learner import config as configs
from stream_learner import demo

QUALITY = {"auc": 0.75, "normalized_entropy": 0.9, "calibration": 1.02}


def content(quality: dict[str, Any]) -> dict[str, Any]:
    counts = dict.fromkeys(("events", "examples", "positives", "dead_letters", "late"), 3)
    rest = {"versions": [1], "verdicts": {"passed": 1, "held": 2}, "events_per_second": 10.0}
    return {**counts, **quality, **rest, "baselines": {"item_rate": quality}}


@pytest.mark.parametrize(
    ("quality", "text"), [(QUALITY, "AUC 0.7500, NE 0.9000"), (dict.fromkeys(QUALITY), "AUC -, NE -")]
)
def test_the_summary_says_what_is_known(tmp_path: Path, quality: dict[str, Any], text: str) -> None:
    config = configs.parse(f"state: {tmp_path}")
    said = demo.summary(config, content(quality))
    assert f"candidate: {text}" in said and f"the item rate: {text}" in said
    assert "1 versions published, 2 verdicts held" in said

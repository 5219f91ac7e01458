"""An outage in a shop's stream, from the alarm to the requeue: on a worker that runs, is killed, and starts again."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from processes import (
    Background,
    assert_equal,
    changed,
    learner,
    to_the_end,
    write_config,
)
from shops import CONFIG, MINUTE_US, SLIDE_US, events_in, grow, last_closed_slide_end, write_shop

from stream_learner.publishing.verdict_log import OF_SLIDES, read_log
from stream_learner.windows.quarantined_slides import QuarantinedSlide, read_slides

EVENTS = 9_000
HORIZON_US = 60 * MINUTE_US
START_US = 1_704_067_200_000_000
OUTAGE_US = (START_US + 50 * MINUTE_US, START_US + 60 * MINUTE_US)  # two slides without clicks
BROKEN = [10, 11]
# Minutes of a shop instead of weeks: little is asked of the season, and much of the outage.
QUICK = {"warm_up": "30m", "alpha": 0.01}
OFTEN = changed(CONFIG, gate__interval="10m", gate__min_interval="20m", quarantine=QUICK)


def write_outage(folder: Path) -> Path:
    """The shop, its clicks lost for a while."""
    write_shop(folder, EVENTS)
    for path in folder.iterdir():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not lost(json.loads(line))))
    return folder


def lost(event: dict[str, Any]) -> bool:
    begin, end = OUTAGE_US
    return event["event_type"] == "click" and begin <= event["timestamp"] * 1000 < end


def touched(events: Path) -> int:
    """Clicks whose attribution window meets the outage, and matures before the stream ends."""
    last = max(event["timestamp"] * 1000 for event in events_in(events)) // SLIDE_US * SLIDE_US + SLIDE_US
    begin, end = OUTAGE_US
    clicks = {e["event_id"]: e["timestamp"] * 1000 for e in events_in(events) if e["event_type"] == "click"}
    return sum(t < end and t + HORIZON_US >= begin and t + HORIZON_US < last for t in clicks.values())


@pytest.mark.timeout(1200)
def test_an_outage_is_quarantined_and_requeued_through_a_kill(tmp_path: Path) -> None:
    whole, live, state = write_outage(tmp_path / "whole"), tmp_path / "live", tmp_path / "state"
    grow(live, whole, 0.0, 0.95)
    config = changed(OFTEN, source__files={"path": str(live), "follow": True, "poll_interval": "20ms"})
    path = write_config(tmp_path / "config.yaml", config)
    with Background(tmp_path / "run", "run", "-c", path, "--state", state) as worker:
        worker.wait_for_log(f"slide {BROKEN[0]} is broken and in quarantine: click examples: 0 where")
        worker.wait_for_log(f"end_us={last_closed_slide_end(live)} ")
        assert [(s.number, s.start, s.end, s.status) for s in slides(state)] == [
            (number, START_US + number * SLIDE_US, START_US + (number + 1) * SLIDE_US, "quarantined")
            for number in BROKEN
        ]
        assert sum(s.examples for s in slides(state)) == touched(whole)
        assert "slide 9 is not in quarantine; there are: 10, 11" in requeue(state, 9, expect=2)
        requeue(state, BROKEN[0])
        worker.wait_for_log(f": requeue slide {BROKEN[0]}")
        worker.wait_for("the list to tell", lambda: slides(state)[0].status == "requeued")
        assert "was requeued before" in requeue(state, BROKEN[0], expect=2)
        assert worker.end(signal.SIGKILL) == -signal.SIGKILL

    requeue(state, BROKEN[1])
    requeue(state, BROKEN[1])  # its worker will refuse the second
    finished = to_the_end(tmp_path / "finished", path, whole, state)
    replayed = to_the_end(tmp_path / "replayed", path, whole, tmp_path / "fresh", "--journal", state / "journal.jsonl")
    assert_equal(finished, replayed)
    assert slides(state) == slides(tmp_path / "fresh")

    report = finished.report
    fates = ("events", "ignored", "late", "dead_letters", "duplicates", "skipped", "quarantined", "open")
    assert report["consumed"] == sum(report[fate] for fate in fates) and report["quarantined"] > 0
    assert report["examples_put_aside"] == report["examples_requeued"] == touched(whole)
    lines = read_log(state / "verdicts.jsonl")
    told = [(line["verdict"], line["slide"]) for line in lines if line.get("verdict") in OF_SLIDES]
    assert told == [("quarantined", 10), ("quarantined", 11), ("requeued", 10), ("requeued", 11)]
    listed = [json.loads(manifest)["quarantined"] for manifest in finished.manifests.values()]
    assert [slide["slide"] for part in listed for slide in part] == BROKEN


def slides(state: Path) -> list[QuarantinedSlide]:
    return list(read_slides(state).values())


def requeue(state: Path, slide: int, expect: int = 0) -> str:
    return str(learner("slides", "requeue", str(slide), "--state", state, expect=expect).stderr)

"""The operator's inbox and the verdict log."""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stream_learner.errors import ConfigError, StateError
from stream_learner.publishing.commands import Commands, OperatorCommand
from stream_learner.publishing.rendering import render_verdict
from stream_learner.publishing.verdict_log import VerdictLog, newest_verdict, read_verdicts


def test_commands_wait_in_order_until_they_are_done(tmp_path: Path) -> None:
    inbox = Commands(tmp_path / "commands")
    assert inbox.pending() == []
    ids = [inbox.submit(name, version=version) for name, version in (("pin", 3), ("rollback", 2), ("unpin", 3))]
    expected = [
        OperatorCommand(id=ids[0], name="pin", arguments={"version": 3}),
        OperatorCommand(id=ids[1], name="rollback", arguments={"version": 2}),
        OperatorCommand(id=ids[2], name="unpin", arguments={"version": 3}),
    ]
    assert inbox.pending() == expected == Commands(tmp_path / "commands").pending()
    inbox.done(ids[0])
    inbox.done(ids[0])
    assert inbox.pending() == expected[1:]
    for command_id in ids:
        inbox.done(command_id)
    assert inbox.submit("pin", version=1) > ids[-1]  # numbers are not used again


def test_unknown_commands_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match="allowed: rollback, pin, unpin, requeue, override, cancel_override",
    ):
        Commands(tmp_path).submit("explode", version=1)


def test_many_operators_at_once_lose_nothing(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda v: Commands(tmp_path).submit("pin", version=v), range(40)))
    pending = Commands(tmp_path).pending()
    assert sorted(ids) == [c.id for c in pending]
    assert len({c.id.partition("-")[0] for c in pending}) == 40
    assert sorted(int(c.arguments["version"] or 0) for c in pending) == list(range(40))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"id":"x","name":"pin"}', b'{"id":"y","name":"pin","arguments":{"version":1}}', b"\xff"],
)
def test_a_file_that_is_no_command_is_set_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Commands(tmp_path)
    good = inbox.submit("pin", version=1)
    (tmp_path / "x.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [c.id for c in inbox.pending()] == [good]
    assert "which is no command" in caplog.text
    assert (tmp_path / "x.json.rejected").read_bytes() == content
    assert [c.id for c in inbox.pending()] == [good]


def test_verdicts_are_appended_and_cut(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path / "verdicts.jsonl")
    lengths = [log.length]
    for slide in range(3):
        log.append({"slide": slide, "passed": False})
        lengths.append(log.length)
    log.close()
    assert read_verdicts(tmp_path / "verdicts.jsonl") == [{"slide": s, "passed": False} for s in range(3)]
    again = VerdictLog(tmp_path / "verdicts.jsonl")
    assert again.length == lengths[3]
    with pytest.raises(StateError, match="no line that ends at byte"):
        again.cut(lengths[1] + 1)
    again.cut(lengths[1])
    again.append({"slide": 9})
    assert [v["slide"] for v in read_verdicts(tmp_path / "verdicts.jsonl")] == [0, 9]
    with pytest.raises(StateError, match="was cut or replaced"):
        again.cut(lengths[3] + 1)
    again.cut(0)
    assert again.length == 0
    again.close()


def test_a_log_in_use_or_missing_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    assert read_verdicts(path) == []
    path.write_bytes(b'{"slide":1}\n{"sli')
    assert read_verdicts(path) == [{"slide": 1}]


def test_verdicts_hold_finite_numbers_only(tmp_path: Path) -> None:
    log = VerdictLog(tmp_path / "verdicts.jsonl")
    with pytest.raises(ValueError):
        log.append({"ne": math.nan})
    assert log.length == 0
    log.close()


def test_the_newest_answer_of_the_gate_about_a_model(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    assert newest_verdict(path, "first", "first") is None
    log = VerdictLog(path)
    held = {"kind": "verdict", "slide_end": 5, "passed": False, "reason": "held: too few examples"}
    log.append(held)
    log.append({**held, "slide_end": 6, "model": "second", "reason": "held: not proven"})
    log.append({"kind": "rollback", "slide_end": 7, "reason": "rolled back"})
    with path.open("ab") as file:
        file.write(b'no verdict\n{"kind":"verdict","slide_end":8,"passed":tr')
    assert newest_verdict(path, "first", "first") == {key: held[key] for key in ("slide_end", "passed", "reason")}
    second = newest_verdict(path, "second", "first")
    assert second == {"slide_end": 6, "passed": False, "reason": "held: not proven"}
    assert newest_verdict(path, "third", "first") is None
    assert render_verdict(second) == "\nlast verdict, of the slide ending 1970-01-01T00:00:00Z: held: not proven"
    assert render_verdict(None) == ""

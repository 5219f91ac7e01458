"""The command line: exit codes, and messages that say what to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from stream_learner import cli, errors
from stream_learner.cli import main
from stream_learner.errors import FatalError
from stream_learner.settings import Config

COMMANDS = ["run", "backtest", "demo", "simulate", "archive", "config", "checkpoints"]


def refused(arguments: list[str]) -> None:
    """argparse ends the process itself, with code 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_version_as_a_module_and_in_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"stream-learner {version('stream-learner')}\n"
    process = subprocess.run([sys.executable, "-m", "stream_learner", "--version"], capture_output=True, check=True)
    assert process.stdout.decode() == f"stream-learner {version('stream-learner')}\n"
    assert process.stderr == b""


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s+\S", text, re.MULTILINE), command
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert f"stream-learner {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["learn"], "invalid choice: 'learn'"),
        (["run"], "the following arguments are required: -c/--config"),
        (["run", "-c", "x.yaml", "--until-then"], "unrecognized arguments: --until-then"),
        (["run", "-c", "x.yaml", "--on-gap", "jump"], "argument --on-gap: invalid choice: 'jump'"),
        (["backtest", "-c", "x.yaml"], "the following arguments are required: --events"),
        (["archive", "-c", "x.yaml"], "the following arguments are required: --out"),
        (["archive", "-c", "x.yaml", "--out", "o", "--format", "csv"], "argument --format: invalid choice: 'csv'"),
        (["config"], "the following arguments are required: ACTION"),
        (["config", "check"], "the following arguments are required: file"),
        (["checkpoints", "list"], "one of the arguments --state -c/--config is required"),
        (["checkpoints", "list", "--state", "s", "-c", "x"], "argument -c/--config: not allowed with argument --state"),
        (["checkpoints", "show", "--state", "s"], "the following arguments are required: VERSION"),
        (["checkpoints", "diff", "1", "--state", "s"], "the following arguments are required: B"),
        (["checkpoints", "rollback", "newest", "--state", "s"], "argument VERSION: invalid int value: 'newest'"),
        (["demo", "--hours", "many"], "argument --hours: invalid float value: 'many'"),
    ],
)
def test_bad_arguments_end_with_2(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(arguments)
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-c", "{}"],
        ["backtest", "-c", "{}", "--events", "e"],
        ["archive", "-c", "{}", "--out", "o"],
        ["config", "check", "{}"],
        ["config", "show", "{}"],
        ["checkpoints", "list", "-c", "{}"],
    ],
)
def test_a_config_that_is_not_there(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "none.yaml")
    assert main([argument.format(path) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"stream-learner: {path}: cannot be read: ")
    assert "Traceback" not in err


def test_config_show_gives_yaml_with_every_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 5\n")
    assert main(["config", "show", str(path)]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["seed"] == 5
    assert list(shown) == list(Config.__struct_encode_fields__)


def test_config_schema_gives_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "stream-learner config"


def test_light_commands_do_not_load_tensorflow(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 5\n")
    code = (
        "import sys; from stream_learner.cli import main; "
        f"main(['config', 'check', {str(path)!r}]); main(['checkpoints', 'list', '--state', {str(tmp_path)!r}]); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "action", [["list"], ["show", "1"], ["diff", "1", "2"], ["rollback", "1"], ["pin", "1"], ["unpin", "1"]]
)
def test_checkpoints_where_no_worker_has_run(
    action: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["checkpoints", *action, "--state", str(tmp_path / "none")]) == 2
    assert "no worker has run on this folder" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_checkpoints_of_a_worker_without_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"state: {tmp_path / 'state'}\n")
    assert main(["checkpoints", "list", "-c", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"] == []
    for action in ("show", "rollback", "pin"):
        assert main(["checkpoints", action, "17", "-c", str(path)]) == 2
        assert "17" in capsys.readouterr().err
    assert not (tmp_path / "state" / "commands").exists()  # nothing was left for a worker to stumble over


def test_every_kind_of_failure_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {
        kind: kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, FatalError)
    }
    assert sorted(kinds.values()) == [1, 2, 3, 4, 5, 6]
    for kind, code in kinds.items():

        def fail(_: object, kind: type[FatalError] = kind) -> int:
            raise kind("what happened, and what to do")

        monkeypatch.setattr(cli, "_config_check", fail)
        assert main(["config", "check", "x"]) == code
        assert capsys.readouterr().err == "stream-learner: what happened, and what to do\n"


def test_a_far_side_that_fails_for_a_moment_has_one_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise errors.RetryableError("the disk does not answer")

    monkeypatch.setattr(cli, "_config_check", fail)
    assert main(["config", "check", "x"]) == errors.UnavailableError.exit_code
    assert capsys.readouterr().err == "stream-learner: the disk does not answer\n"


def test_a_reader_that_goes_away_is_no_failure() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_learner", "config", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 0
    assert complaint == b""

"""What is deployed agrees with the code: exit codes, timeouts, the command."""

from __future__ import annotations

import configparser
from pathlib import Path

from stream_learner import errors
from stream_learner.cli import _parser
from stream_learner.settings import Config

UNIT = Path(__file__).parents[2] / "deploy" / "stream-learner.service"


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser["Service"]


def test_the_unit_stays_down_after_what_will_not_pass() -> None:
    lasting = (errors.ConfigError, errors.DataError, errors.StateError, errors.LearningError)
    assert {int(code) for code in unit()["RestartPreventExitStatus"].split()} == {e.exit_code for e in lasting}
    assert str(errors.UnavailableError.exit_code) not in unit()["RestartPreventExitStatus"].split()


def test_the_unit_waits_for_the_shutdown() -> None:
    assert float(unit()["TimeoutStopSec"]) > Config().shutdown.timeout.seconds + 10


def test_the_unit_runs_a_command_there_is() -> None:
    program, *arguments = unit()["ExecStart"].split()
    assert Path(program).name == "stream-learner"
    assert _parser().parse_args(arguments).config == "/etc/stream-learner/config.yaml"

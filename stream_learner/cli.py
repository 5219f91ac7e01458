"""The commands. Heavy imports (TensorFlow) happen inside the commands that compute."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from stream_learner import config as configs
from stream_learner import config_text
from stream_learner.errors import FatalError, RetryableError, UnavailableError
from stream_learner.gaps import ON_GAP, OnGap
from stream_learner.observing.logs import configure_logging, importing_quietly
from stream_learner.settings import Config, Observing

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; the exit code is that of `errors.FatalError`'s subclasses, 0 when all went well."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.command(args)
        return code
    except FatalError as error:
        print(f"stream-learner: {error}", file=sys.stderr)
        return error.exit_code
    except RetryableError as error:  # of a command that does not wait for the disk
        print(f"stream-learner: {error}", file=sys.stderr)
        return UnavailableError.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing is wrong
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stream-learner", description="Continual learning from event streams.")
    parser.add_argument("--version", action="version", version=f"stream-learner {version('stream-learner')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="learn from the configured source until stopped"))
    _add_backtest(commands.add_parser("backtest", help="the same code on files, until their end"))
    _add_demo(commands.add_parser("demo", help="a simulated shop, learned from files, with a drift on the way"))
    _add_simulate(commands.add_parser("simulate", help="events of a shop with known truth, to files or Kafka"))
    _add_archive(commands.add_parser("archive", help="write the configured topics to files that can be replayed"))
    _add_config(commands.add_parser("config", help="check, show or describe a config file"))
    _add_checkpoints(commands.add_parser("checkpoints", help="list, compare, roll back and pin versions"))
    _add_slides(commands.add_parser("slides", help="list, show and requeue slides in quarantine"))
    _add_gate(commands.add_parser("gate", help="rehearse the gate's thresholds, or override its next verdict"))
    _add_dashboard(commands.add_parser("dashboard", help="the dashboard of a state folder, also without a worker"))
    _add_report(commands.add_parser("report", help="the dashboard of a state folder as one HTML file"))
    _add_explain(commands.add_parser("explain", help="which inputs move one score of a version, and by how much"))
    _add_recommend(commands.add_parser("recommend", help="ask a version of next_item which items come next"))
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--until-end", action="store_true", help="stop at the ends the log has now")
    parser.set_defaults(command=_run)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", required=True, metavar="FILE")
    parser.add_argument("--state", metavar="DIR", help="state and checkpoints go here, whatever the config says")
    parser.add_argument("--journal", metavar="FILE", help="obey this journal of an earlier run (new state only)")
    parser.add_argument(
        "--on-gap",
        choices=ON_GAP,
        default="stop",
        help="where the log lost records: stop (exit 3), skip what retention removed, or rewind to what a topic made "
        "anew or cut back holds; journaled, and recorded in every later version (default: %(default)s)",
    )
    parser.add_argument("--report", metavar="FILE", help="write the run's report here, as JSON")


def _run(args: argparse.Namespace) -> int:
    config = configs.with_state(configs.load(args.config), args.state)
    _learn(config, until_end=args.until_end, journal=args.journal, report_path=args.report, on_gap=args.on_gap)
    return 0


def _add_backtest(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("--events", required=True, metavar="PATH", help="file or folder, as source.files.path")
    parser.set_defaults(command=_backtest)


def _backtest(args: argparse.Namespace) -> int:
    config = configs.with_files(configs.load(args.config), args.events)
    config = configs.with_state(config, args.state or f"{config.state}-backtest")
    _learn(config, until_end=True, journal=args.journal, report_path=args.report, on_gap=args.on_gap)
    return 0


def _learn(config: Config, *, until_end: bool, journal: str | None, report_path: str | None, on_gap: OnGap) -> None:
    configure_logging(config.observing)
    with importing_quietly():
        from stream_learner.running import run
    run(config, until_end=until_end, journal=journal, report_path=report_path, on_gap=on_gap)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    from stream_learner import demo

    demo.add_arguments(parser)
    parser.set_defaults(command=demo.main)


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    from stream_learner.simulate import command

    command.add_arguments(parser)
    parser.set_defaults(command=command.main)


def _add_dashboard(parser: argparse.ArgumentParser) -> None:
    from stream_learner.observing import show

    show.add_arguments(parser)
    parser.set_defaults(command=show.main)


def _add_report(parser: argparse.ArgumentParser) -> None:
    from stream_learner.observing import page

    page.add_arguments(parser)
    parser.set_defaults(command=page.main)


def _add_explain(parser: argparse.ArgumentParser) -> None:
    from stream_learner.explaining import command

    command.add_arguments(parser)
    parser.set_defaults(command=command.main)


def _add_recommend(parser: argparse.ArgumentParser) -> None:
    from stream_learner.next_item import command

    command.add_arguments(parser)
    parser.set_defaults(command=command.main)


def _add_archive(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", "--config", required=True, metavar="FILE")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--format", choices=("jsonl.gz", "parquet"), default="jsonl.gz", help="default: %(default)s")
    parser.set_defaults(command=_archive)


def _archive(args: argparse.Namespace) -> int:
    from stream_learner.archive import archive

    configure_logging(Observing())
    counts = archive(configs.load(args.config), args.out, parquet=args.format == "parquet")
    for partition, count in sorted(counts.items()):
        print(f"{partition}: {count} records")
    return 0


def _add_config(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", help="exit 0 if the file is right, else 2 with every complaint")
    check.add_argument("file")
    check.set_defaults(command=_config_check)
    show = actions.add_parser("show", help="the config with defaults filled in, secrets as asterisks")
    show.add_argument("file")
    show.set_defaults(command=_config_show)
    schema = actions.add_parser("schema", help="JSON Schema, for editors")
    schema.set_defaults(command=_config_schema)


def _config_check(args: argparse.Namespace) -> int:
    configs.load(args.file)
    print(f"{args.file}: ok")
    return 0


def _config_show(args: argparse.Namespace) -> int:
    print(config_text.show(args.file), end="")
    return 0


def _config_schema(args: argparse.Namespace) -> int:
    print(config_text.schema())
    return 0


def _add_gate(parser: argparse.ArgumentParser) -> None:
    from stream_learner.judging import command

    command.add_actions(parser)


def _add_checkpoints(parser: argparse.ArgumentParser) -> None:
    from stream_learner.publishing import operating

    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, summary, versions in operating.ACTIONS:
        action = actions.add_parser(name, help=summary)
        for argument in versions:
            action.add_argument(argument, type=int, metavar=argument.upper())
        _add_place(action)
        action.add_argument("--model", metavar="NAME", help="default: that of the first task")
        action.set_defaults(command=operating.main, action=name)


def _add_slides(parser: argparse.ArgumentParser) -> None:
    from stream_learner import slide_commands

    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, summary, given in slide_commands.ACTIONS:
        action = actions.add_parser(name, help=summary)
        if given is not None:
            action.add_argument("slide", type=int, metavar="SLIDE", **given)
        _add_place(action)
        action.set_defaults(command=slide_commands.main, action=name)


def _add_place(action: argparse.ArgumentParser) -> None:
    place = action.add_mutually_exclusive_group(required=True)
    place.add_argument("--state", type=Path, metavar="DIR", help="the worker's state folder")
    place.add_argument("-c", "--config", metavar="FILE", help="the worker's config")
    action.add_argument("--json", action="store_true", help="for programs")

"""`stream-learner erase`: leaves users to be forgotten for the worker, by fingerprint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from stream_learner import config as configs
from stream_learner.errors import ConfigError
from stream_learner.observing.logs import importing_quietly
from stream_learner.publishing.commands import Commands
from stream_learner.publishing.operating import noted, show
from stream_learner.settings import Privacy

_TOGETHER = 1000  # users in one command, and so in one line of the journal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", nargs="*", metavar="USER", help="ids as they stand in the events")
    parser.add_argument("--file", metavar="FILE", help="ids, one a line; - reads from stdin")


def main(args: argparse.Namespace) -> int:
    """Exit code 0 when the command is left; a folder that no worker has seen is a ConfigError (exit 2)."""
    users = [*args.user, *_listed(args.file)]
    if not users:
        raise ConfigError("nobody to erase: give ids, or --file FILE with one a line")
    state, privacy = _place(args)
    with importing_quietly():
        from stream_learner.erasing import arguments_of
        from stream_learner.ingest.identity import Pseudonymiser, fingerprints
    if privacy.pseudonymise and privacy.key is not None:
        users = Pseudonymiser(privacy.key.reveal()).pseudonyms(users)
    marks = np.unique(fingerprints(users))
    inbox = Commands(state / "commands")
    parts = [marks[start : start + _TOGETHER] for start in range(0, len(marks), _TOGETHER)]
    ids = [inbox.submit("erase", **arguments_of(part)) for part in parts]
    text = (
        f"erasure of {len(marks):,} users left for the worker on {state}; it acts between two slides, or at its start"
    )
    show(args, {"commands": ids, "users": len(marks)}, text)
    return 0


def _listed(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {path}: cannot be read ({error})") from error
    return [line for line in (line.strip() for line in lines.splitlines()) if line]


def _place(args: argparse.Namespace) -> tuple[Path, Privacy]:
    """The worker's state folder, and how it knows its users."""
    if args.config is not None:
        config = configs.load(args.config)
        noted(Path(config.state))
        return Path(config.state), config.privacy
    if noted(args.state).pseudonymised:
        raise ConfigError(
            f"--state {args.state}: its users are known by pseudonyms, whose key stands in the worker's config: give "
            "that instead, -c FILE"
        )
    return args.state, Privacy()

"""`stream-learner checkpoints`: what an operator does with versions, beside a running worker or without one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec

from stream_learner import config as configs
from stream_learner.durable import BAD_JSON, write_file
from stream_learner.errors import ConfigError, RetryableError, UnavailableError
from stream_learner.publishing.checkpoints import Checkpoints, Scan, diff
from stream_learner.publishing.commands import Commands
from stream_learner.publishing.opening import checkpoints_root, open_storage
from stream_learner.publishing.rendering import list_json, manifest_json, render_diff, render_list, render_show
from stream_learner.settings import Config, Duration
from stream_learner.settings.base import is_url

ACTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("list", "all versions, the champion marked", ()),
    ("show", "one version's manifest", ("version",)),
    ("diff", "what differs between two versions", ("a", "b")),
    ("rollback", "serve an older version again, under a new number", ("version",)),
    ("pin", "never prune this version", ("version",)),
    ("unpin", "let this version be pruned again", ("version",)),
)


_PATIENCE = Duration.parse("10s")  # somebody is waiting at a terminal


class Whereabouts(msgspec.Struct, frozen=True):
    """`worker.json` in the state folder: where this worker's versions are, for commands that are given the folder."""

    model: str
    checkpoints: str  # an absolute path, or a URL
    needs_config: bool = False  # the URL has options, which stand in the config only: they may be secret
    pseudonymised: bool = False  # users are known by pseudonyms, whose key stands in the config only


def whereabouts(config: Config) -> Whereabouts:
    model = config.name if config.learns("conversion") else config.next_item.name
    options, pseudonyms = bool(config.checkpoints.options), config.privacy.pseudonymise
    return Whereabouts(model, checkpoints_root(config), options, pseudonyms)


def note_whereabouts(config: Config) -> None:
    """Leaves `worker.json` for the commands."""
    write_file(Path(config.state) / "worker.json", msgspec.json.encode(whereabouts(config)) + b"\n")


def main(args: argparse.Namespace) -> int:
    """Runs the action; exit code 0. A version that does not exist is a ConfigError (exit 2), a disk that fails an
    UnavailableError (exit 6)."""
    state, checkpoints = _place(args)
    try:
        _act(args, state, checkpoints)
    except RetryableError as error:
        raise UnavailableError(str(error)) from error
    return 0


def _act(args: argparse.Namespace, state: Path, checkpoints: Checkpoints) -> None:
    if args.action == "list":
        scan, pointer = checkpoints.scan(), checkpoints.pointer()
        show(args, list_json(scan.manifests, pointer), render_list(scan.manifests, pointer) + _broken(scan))
    elif args.action == "show":
        manifest = checkpoints.require(args.version)
        show(args, manifest_json(manifest), render_show(manifest))
    elif args.action == "diff":
        pair = checkpoints.require(args.a), checkpoints.require(args.b)
        show(args, diff(*pair), render_diff(*pair))
    else:
        checkpoints.require(args.version)
        command_id = Commands(state / "commands").submit(args.action, version=args.version)
        text = (
            f"{args.action} {args.version} left for the worker on {state}; it acts between two slides, or at its start"
        )
        show(args, {"command": command_id}, text)


def opened(state: Path) -> Checkpoints:
    """The versions of the worker on a state folder, to be read. A folder that no worker has seen is a ConfigError."""
    return reading(noted(state), state)


def reading(where: Whereabouts, state: Path, options: dict[str, Any] | None = None) -> Checkpoints:
    """Versions to be read; `options` as in the worker's config. ConfigError where those are needed and not given."""
    if where.needs_config and options is None:
        raise ConfigError(
            f"--state {state}: its versions are at {where.checkpoints}, and how to get in there stands in the worker's "
            "config: give that instead, -c FILE"
        )
    storage = open_storage(where.checkpoints, where.model, options or {}, state, _PATIENCE)
    return Checkpoints(storage, where.model, keep=2)


def _place(args: argparse.Namespace) -> tuple[Path, Checkpoints]:
    """The state folder and the versions that belong to it."""
    if args.config is None:
        return args.state, opened(args.state)
    config = configs.load(args.config)
    state = Path(config.state)
    return state, reading(whereabouts(config), state, config.checkpoints.options)


def noted(state: Path) -> Whereabouts:
    """What `note_whereabouts` left. A folder that no worker has seen is a ConfigError."""
    try:
        content = (state / "worker.json").read_bytes()
        return _moved(state, msgspec.json.decode(content, type=Whereabouts))
    except (OSError, *BAD_JSON) as error:
        raise ConfigError(f"--state {state}: no worker has run on this folder ({error})") from error


def _moved(state: Path, where: Whereabouts) -> Whereabouts:
    """A state folder that was moved takes the checkpoints inside it along."""
    inside = state / "checkpoints"
    if is_url(where.checkpoints):
        return where
    if Path(where.checkpoints).is_dir() or not inside.is_dir():
        return where
    return msgspec.structs.replace(where, checkpoints=str(inside))


def _broken(scan: Scan) -> str:
    return "".join(f"\nbroken: {name}: {reason}" for name, reason in sorted(scan.broken.items()))


def show(args: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    """An answer, for programs with --json."""
    print(json.dumps(content, indent=2) if args.json else text)

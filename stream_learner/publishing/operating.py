"""`stream-learner checkpoints`: what an operator does with versions, beside a running worker or without one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec

from stream_learner import config as configs
from stream_learner.durable import BAD_JSON, write_file
from stream_learner.errors import ConfigError
from stream_learner.publishing.checkpoints import Checkpoints, diff
from stream_learner.publishing.commands import Commands
from stream_learner.publishing.rendering import list_json, manifest_json, render_diff, render_list, render_show
from stream_learner.settings import Config

ACTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("list", "all versions, the champion marked", ()),
    ("show", "one version's manifest", ("version",)),
    ("diff", "what differs between two versions", ("a", "b")),
    ("rollback", "serve an older version again, under a new number", ("version",)),
    ("pin", "never prune this version", ("version",)),
    ("unpin", "let this version be pruned again", ("version",)),
)


class Whereabouts(msgspec.Struct, frozen=True):
    """`worker.json` in the state folder: where this worker's versions are, for commands that are given the folder."""

    model: str
    checkpoints: str


def whereabouts(config: Config) -> Whereabouts:
    root = Path(config.checkpoints.root) if config.checkpoints.root else Path(config.state) / "checkpoints"
    return Whereabouts(config.name, str(root.resolve()))


def note_whereabouts(config: Config) -> None:
    """Leaves `worker.json` for the commands."""
    write_file(Path(config.state) / "worker.json", msgspec.json.encode(whereabouts(config)) + b"\n")


def main(args: argparse.Namespace) -> int:
    """Runs the action; exit code 0. A version that does not exist is a ConfigError (exit 2)."""
    state, where = _place(args)
    checkpoints = Checkpoints(Path(where.checkpoints), where.model, keep=2)
    if args.action == "list":
        _print(args, list_json(checkpoints.versions(), checkpoints.pointer()), _list(checkpoints))
    elif args.action == "show":
        manifest = checkpoints.require(args.version)
        _print(args, manifest_json(manifest), render_show(manifest))
    elif args.action == "diff":
        pair = checkpoints.require(args.a), checkpoints.require(args.b)
        _print(args, diff(*pair), render_diff(*pair))
    else:
        checkpoints.require(args.version)
        command_id = Commands(state / "commands").submit(args.action, version=args.version)
        text = (
            f"{args.action} {args.version} left for the worker on {state}; it acts between two slides, or at its start"
        )
        _print(args, {"command": command_id}, text)
    return 0


def opened(state: Path) -> Checkpoints:
    """The versions of the worker on a state folder, to be read. A folder that no worker has seen is a ConfigError."""
    where = _noted(state)
    return Checkpoints(Path(where.checkpoints), where.model, keep=2)


def _place(args: argparse.Namespace) -> tuple[Path, Whereabouts]:
    if args.config is not None:
        config = configs.load(args.config)
        return Path(config.state), whereabouts(config)
    return args.state, _noted(args.state)


def _noted(state: Path) -> Whereabouts:
    try:
        content = (state / "worker.json").read_bytes()
        return _moved(state, msgspec.json.decode(content, type=Whereabouts))
    except (OSError, *BAD_JSON) as error:
        raise ConfigError(f"--state {state}: no worker has run on this folder ({error})") from error


def _moved(state: Path, where: Whereabouts) -> Whereabouts:
    """A state folder that was moved takes the checkpoints inside it along."""
    inside = state / "checkpoints"
    return where if Path(where.checkpoints).is_dir() or not inside.is_dir() else Whereabouts(where.model, str(inside))


def _list(checkpoints: Checkpoints) -> str:
    scan = checkpoints.scan()
    broken = "".join(f"\nbroken: {name}: {reason}" for name, reason in sorted(scan.broken.items()))
    return render_list(scan.manifests, checkpoints.pointer()) + broken


def _print(args: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    print(json.dumps(content, indent=2) if args.json else text)

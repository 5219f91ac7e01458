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
from stream_learner.publishing.rendering import (
    list_json,
    manifest_json,
    render_diff,
    render_list,
    render_show,
    render_verdict,
)
from stream_learner.publishing.verdict_log import newest_verdict
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

    model: str  # of the first task
    checkpoints: str  # an absolute path, or a URL
    needs_config: bool = False  # the URL has options, which stand in the config only: they may be secret
    tasks: dict[str, str] = {}  # task by model; empty where a release that had one task wrote it
    pseudonymised: bool = False  # users are known by pseudonyms, whose key stands in the config only

    @property
    def models(self) -> dict[str, str]:
        """What each model is for, by name, that of the first task first."""
        return self.tasks or {self.model: "conversion"}

    def named(self, model: str | None) -> str:
        """A model of the worker's, that of the first task without a name. ConfigError when there is none of it."""
        if model is not None and model not in self.models:
            raise ConfigError(f"--model {model}: this worker learns {', '.join(self.models)}")
        return model or self.model


def whereabouts(config: Config) -> Whereabouts:
    tasks = {config.name: "conversion"} if config.learns("conversion") else {}
    tasks |= {config.next_item.name: "next_item"} if config.learns("next_item") else {}
    options, pseudonyms = bool(config.checkpoints.options), config.privacy.pseudonymise
    return Whereabouts(next(iter(tasks)), checkpoints_root(config), options, tasks, pseudonyms)


def note_whereabouts(config: Config) -> None:
    """Leaves `worker.json` for the commands."""
    write_file(Path(config.state) / "worker.json", msgspec.json.encode(whereabouts(config)) + b"\n")


def main(args: argparse.Namespace) -> int:
    """Runs the action; exit code 0. A version that does not exist is a ConfigError (exit 2), a disk that fails an
    UnavailableError (exit 6)."""
    state, where, options = _place(args)
    checkpoints = reading(where, state, options, args.model)
    try:
        _act(args, state, checkpoints, where)
    except RetryableError as error:
        raise UnavailableError(str(error)) from error
    return 0


def _act(args: argparse.Namespace, state: Path, checkpoints: Checkpoints, where: Whereabouts) -> None:
    if args.action == "list":
        _list(args, state, checkpoints, where)
    elif args.action == "show":
        manifest = checkpoints.require(args.version)
        show(args, manifest_json(manifest), render_show(manifest))
    elif args.action == "diff":
        pair = checkpoints.require(args.a), checkpoints.require(args.b)
        show(args, diff(*pair), render_diff(*pair))
    else:
        checkpoints.require(args.version)
        command_id = Commands(state / "commands").submit(args.action, version=args.version, model=checkpoints.model)
        what = f"{args.action} {args.version} of {checkpoints.model}"
        text = f"{what} left for the worker on {state}; it acts between two slides, or at its start"
        show(args, {"command": command_id}, text)


def _list(args: argparse.Namespace, state: Path, checkpoints: Checkpoints, where: Whereabouts) -> None:
    scan, pointer = checkpoints.scan(), checkpoints.pointer()
    others = [model for model in where.models if model != checkpoints.model]
    verdict = newest_verdict(state / "verdicts.jsonl", checkpoints.model, where.model)
    content = {"model": checkpoints.model, **list_json(scan.manifests, pointer), "other_models": others}
    text = render_list(scan.manifests, pointer) + _broken(scan) + render_verdict(verdict) + _others(others)
    show(args, {**content, "last_verdict": verdict}, text)


def opened(state: Path) -> Checkpoints:
    """The versions of the worker's first task, to be read. A folder that no worker has seen is a ConfigError."""
    return reading(noted(state), state)


def reading(
    where: Whereabouts, state: Path, options: dict[str, Any] | None = None, model: str | None = None
) -> Checkpoints:
    """Versions of a model, or of the first task's, to be read; `options` as in the worker's config. ConfigError where
    those are needed and not given, and where there is no such model."""
    name = where.named(model)
    if where.needs_config and options is None:
        raise ConfigError(
            f"--state {state}: its versions are at {where.checkpoints}, and how to get in there stands in the worker's "
            "config: give that instead, -c FILE"
        )
    storage = open_storage(where.checkpoints, name, options or {}, state, _PATIENCE)
    return Checkpoints(storage, name, keep=2)


def _place(args: argparse.Namespace) -> tuple[Path, Whereabouts, dict[str, Any] | None]:
    """The state folder, where the versions are that belong to it, and how to get in there, where that is known."""
    if args.config is None:
        return args.state, noted(args.state), None
    config = configs.load(args.config)
    return Path(config.state), whereabouts(config), config.checkpoints.options


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
    whole = Path(where.checkpoints).is_dir() or not inside.is_dir()
    return where if whole else msgspec.structs.replace(where, checkpoints=str(inside))


def _broken(scan: Scan) -> str:
    return "".join(f"\nbroken: {name}: {reason}" for name, reason in sorted(scan.broken.items()))


def _others(models: list[str]) -> str:
    return f"\n\nalso here, each with --model: {', '.join(models)}" if models else ""


def show(args: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    """An answer, for programs with --json."""
    print(json.dumps(content, indent=2) if args.json else text)

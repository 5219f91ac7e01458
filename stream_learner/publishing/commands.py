"""The operator's inbox: commands wait here, one file each, until the worker has journaled them.

The command line writes `<id>.json`; the worker takes the pending ones between two slides, journals each (which is
what makes it take effect, at a slide) and then removes the file. A kill between the two leaves a file whose id is in
the journal already: the worker removes it and does nothing more.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from pathlib import Path
from typing import Literal, get_args

import msgspec

from stream_learner.durable import BAD_JSON, Fence, make_folder, storage_errors, unfenced, write_file
from stream_learner.errors import ConfigError

log = logging.getLogger(__name__)

CommandName = Literal["rollback", "pin", "unpin", "requeue", "override", "cancel_override", "erase"]


class OperatorCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """rollback: republish `version` under a new number; pin, unpin: keep `version` from being pruned, or no longer;
    requeue: let the quarantined examples of `slide` into learning; override: publish at the next verdict, for a
    `reason`; cancel_override: no longer; erase: forget `users`, fingerprints as 16 hex digits each, by spaces."""

    id: str
    name: CommandName
    arguments: dict[str, int | str | bool | None]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name} {value}" for name, value in self.arguments.items())])


class Commands:
    """The inbox in a folder. Any number of processes may submit; one worker takes."""

    def __init__(self, folder: Path, fence: Fence = unfenced) -> None:
        self._folder = folder
        self._fence = fence

    def submit(self, name: str, **arguments: int | str | bool | None) -> str:
        """Leaves a command for the worker and returns its id. An unknown name is a `ConfigError`.

        Whether what it names exists is for the caller to ask first (`Checkpoints.require`, `quarantine.require`).
        """
        if name not in get_args(CommandName):
            raise ConfigError(f"unknown command {name!r}; allowed: {', '.join(get_args(CommandName))}")
        make_folder(self._folder)
        command_id = f"{self._next_number():08d}-{secrets.token_hex(4)}"
        command = OperatorCommand(id=command_id, name=name, arguments=arguments)  # type: ignore[arg-type]
        write_file(self._folder / f"{command_id}.json", msgspec.json.encode(command) + b"\n")
        return command_id

    def pending(self) -> list[OperatorCommand]:
        """In order of submission. A file that is no command is set aside as `<name>.rejected`, with a warning."""
        if not self._folder.is_dir():
            return []
        commands = []
        with storage_errors(self._folder, "read commands in"):
            for path in sorted(self._folder.glob("*.json")):
                try:
                    command = msgspec.json.decode(path.read_bytes(), type=OperatorCommand)
                    if command.id != path.stem:
                        raise msgspec.ValidationError(f"its id is {command.id!r}")
                    commands.append(command)
                except BAD_JSON as error:
                    path.rename(path.with_name(f"{path.name}.rejected"))
                    log.warning("set aside %s, which is no command: %s", path, error)
        return commands

    def done(self, command_id: str) -> None:
        """Removes a command that was journaled. Idempotent."""
        self._fence()
        path = self._folder / f"{command_id}.json"
        with storage_errors(path, "remove"):
            path.unlink(missing_ok=True)

    def _next_number(self) -> int:
        """Counts up for ever, whatever was removed; the random part of the id guards against a lost counter."""
        with storage_errors(self._folder, "count commands in"):
            descriptor = os.open(self._folder / "counter", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                text = os.pread(descriptor, 32, 0)
                number = int(text) + 1 if text.strip().isdigit() else 1
                os.pwrite(descriptor, b"%020d" % number, 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return number

"""Operators' commands: taken out of the inbox between two slides and journaled, which makes them take effect."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from stream_learner.errors import ConfigError, StateError
from stream_learner.intake import Intake
from stream_learner.journal import Command, FileJournal
from stream_learner.publishing.commands import Commands, OperatorCommand
from stream_learner.publishing.publisher import AnyPublisher
from stream_learner.retry import retrying
from stream_learner.settings import Duration
from stream_learner.windows.quarantine import Quarantine

log = logging.getLogger(__name__)


class Operators:
    """The inbox of one worker, the journal behind it, and what commands may name."""

    def __init__(
        self,
        inbox: Commands,
        journal: FileJournal,
        intake: Intake,
        publishers: Mapping[str, AnyPublisher],
        quarantine: Quarantine,
        patience: Duration,
    ) -> None:
        """`publishers`: by model, that of the first task first."""
        self._inbox = inbox
        self._journal = journal
        self._intake = intake
        self._publishers = publishers
        self._quarantine = quarantine
        self._patience = patience

    def take(self, settle: Callable[[], None], carry_out: Callable[[Command], None]) -> None:
        """Journals what waits and has it carried out. `settle` returns when all versions made so far are on disk."""
        for command in retrying(self._inbox.pending, "commands", self._patience):
            if self._intake.journaled(command.id):
                self._done(command)  # a crash came between the journal and this
                continue
            settle()
            refusal = self._refusal(command)
            if refusal is not None:
                log.error("%s refused: %s", command, refusal)
                self._done(command)
                continue
            entry = self._intake.decide(command.name, command.arguments, command.id)
            if entry is None:
                return  # older entries are being obeyed; this one waits its turn
            self._done(command)
            carry_out(entry)

    def named_versions(self) -> set[int]:
        """What operators have named and the worker is at, or has not come to yet: never to be pruned."""
        entries = self._journal.entries[max(self._intake.applied - 1, 0) :]
        ahead: list[dict[str, Any]] = [entry.arguments for entry in entries if isinstance(entry, Command)]
        waiting: list[dict[str, Any]] = [command.arguments for command in self._inbox.pending()]
        return {int(arguments.get("version") or 0) for arguments in (*ahead, *waiting)}

    def _done(self, command: OperatorCommand) -> None:
        retrying(lambda: self._inbox.done(command.id), "commands", self._patience)

    def _refusal(self, command: OperatorCommand) -> str | None:
        """Why a command cannot be carried out: asked before it is journaled, for the journal is obeyed."""
        try:
            if command.name == "requeue":
                self._quarantine.require(int(command.arguments["slide"] or 0))
                return None
            publisher = addressed(command, self._publishers)
            if publisher is None:
                return f"this worker learns no such model, but {', '.join(self._publishers)}"
            if "version" in command.arguments:
                version = int(command.arguments["version"] or 0)
                retrying(partial(publisher.require, version), "versions", self._patience)
        except (ConfigError, StateError) as error:
            return str(error)
        return None


def addressed(command: OperatorCommand | Command, publishers: Mapping[str, AnyPublisher]) -> AnyPublisher | None:
    """That of the model which a command names; of the first task where it names none. None where that model is not
    learned here, as in a replay of one task alone."""
    return publishers.get(str(command.arguments.get("model") or next(iter(publishers))))

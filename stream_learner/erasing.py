"""A user's request to be forgotten: taken out of everything that the next slide depends on, between two slides.

What went into sums over many users, into weights that users share, and into versions already made cannot be told apart
any more and stays; so do events that are still to be worked in a slide, for they are the log's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stream_learner.errors import ConfigError
from stream_learner.events import EventSchema
from stream_learner.journal import Command
from stream_learner.judging.judge import Judge
from stream_learner.keys import U64
from stream_learner.learning.contenders import Contenders
from stream_learner.next_item.task import NextItemTask
from stream_learner.windows.aggregates import Aggregates
from stream_learner.windows.attribution import Attribution
from stream_learner.windows.quarantine import Quarantine

log = logging.getLogger(__name__)

_FINGERPRINT = re.compile("[0-9a-f]{16}")


def arguments_of(users: U64) -> dict[str, int | str | bool | None]:
    """What an `erase` command says of users, given by fingerprint: the ids themselves are never written."""
    return {"users": " ".join(f"{user:016x}" for user in users.tolist())}


def users_of(arguments: Mapping[str, Any]) -> U64:
    """The fingerprints in such a command. ConfigError where they are none."""
    texts = str(arguments.get("users") or "").split()
    if not texts or not all(_FINGERPRINT.fullmatch(text) for text in texts):
        raise ConfigError("an erasure names users by fingerprints of 16 hex digits; leave it by `stream-learner erase`")
    return np.unique(np.array([int(text, 16) for text in texts], np.uint64))


class Erasure:
    """Knows where a worker holds something of a user. Has no state of its own."""

    def __init__(
        self,
        schema: EventSchema,
        aggregates: Aggregates,
        attribution: Attribution,
        quarantine: Quarantine,
        contenders: Contenders,
        judge: Judge,
        next_item: NextItemTask | None,
        record: Callable[[dict[str, Any]], None],
    ) -> None:
        """`record` appends a line to the verdict log."""
        self._column = schema.id_column("user")
        self._aggregates = aggregates
        self._attribution = attribution
        self._quarantine = quarantine
        self._contenders = contenders
        self._judge = judge
        self._next_item = next_item
        self._record = record

    def carry_out(self, command: Command, slide_end: int) -> None:
        """Before the slide that the command was journaled for; `slide_end` of the one before, us."""
        users, learners = users_of(command.arguments), self._contenders.learners.values()
        found = {
            "keys of aggregates": self._aggregates.erase(users),
            "pending examples": self._attribution.erase(users),
            "quarantined examples": self._quarantine.erase(users),
            "replayed examples": sum(replay.erase(self._column, users) for replay in self._contenders.replays.values()),
            "rows of exact tables": sum(one.erase(self._column, users, command.slide) for one in learners),
            "sessions": 0 if self._next_item is None else self._next_item.erase(users),
        }
        self._judge.erase(users)
        told = ", ".join(f"{count:,} {name}" for name, count in found.items())
        reason = f"erased {len(users):,} users: {told}"
        line = {"kind": "erasure", "slide": command.slide, "slide_end": slide_end, "reason": reason}
        self._record({**line, "users": len(users), "erased": {k.replace(" ", "_"): n for k, n in found.items()}})
        log.info("slide %d %s", command.slide, reason)

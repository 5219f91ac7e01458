"""What is decided about rankings: to publish, to roll back, to start again; at a slide's end, by operators between two.

As for conversion, every decision is a line of `verdicts.jsonl`; those of rankings carry the name of their model.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stream_learner import settings
from stream_learner.journal import Command
from stream_learner.judging.canary import Canary
from stream_learner.judging.verdict import Verdict
from stream_learner.next_item.catalogue import Catalogue
from stream_learner.next_item.drift import ItemDrift
from stream_learner.next_item.gate import RankGate
from stream_learner.next_item.learner import RankingLearner
from stream_learner.next_item.names import ItemNames
from stream_learner.next_item.publisher import RankingPublisher, RankingVersion
from stream_learner.next_item.sessions import Asked, SessionStore
from stream_learner.publishing.publisher import Occasion
from stream_learner.publishing.verdict_log import pinned, rolled_back

log = logging.getLogger(__name__)

DECISIONS = ("passed", "held", "canary_passed", "canary_rolled_back", "restart_from_champion", "rollback_serving")


@dataclass(frozen=True)
class Moment:
    """When a decision is made, and what it needs of the worker then."""

    slide: int
    slide_end: int  # us
    sample: Asked  # the last sessions [n]
    occasion: Callable[[dict[str, Any]], Occasion]
    settle: Callable[[], None]  # returns when all versions made so far are on disk


@dataclass(frozen=True)
class Learnt:
    """What the candidate was made of, and what a restart of it draws from."""

    store: SessionStore
    catalogue: Catalogue
    names: ItemNames


class RankingDecisions:
    """Acts on learner, judges and publisher, of whose state it is no part but for its counts."""

    def __init__(
        self,
        config: settings.NextItem,
        learner: RankingLearner,
        learnt: Learnt,
        judges: tuple[RankGate, Canary, ItemDrift],
        publisher: RankingPublisher,
        record: Callable[[dict[str, Any]], None],
    ) -> None:
        """`record`: writes a line of verdicts.jsonl."""
        self._config = config
        self._learner, self._learnt, self._publisher = learner, learnt, publisher
        self._gate, self._canary, self._drift = judges
        self._record = record
        self.made: Counter[str] = Counter(dict.fromkeys(DECISIONS, 0))  # since the state began

    def at_slide_end(self, moment: Moment) -> RankingVersion | None:
        """The canary's verdict on the version in service, then, if that stands, the gate's on the candidate."""
        version, gate = self._watched(moment), self._gate
        if version is not None or not len(moment.sample) or not gate.due(moment.slide_end):
            return version
        psi, parent = self._drift.psi(moment.slide_end), self._publisher.champion
        finite = self._learner.finite()
        verdict = gate.judge(moment.slide, moment.slide_end, finite=finite, parent=parent, psi=psi)
        self._tell(moment, {**verdict.to_json(), "drift": self._drift.numbers()})
        self.made["passed" if verdict.passed else "held"] += 1
        if verdict.passed:
            return self._publish(verdict, moment)
        return self._start_again(verdict, moment) if verdict.degraded else None

    def _watched(self, moment: Moment) -> RankingVersion | None:
        """Ends the canary of the champion when it has failed, with the version before again, or stood its time."""
        verdict = self._canary.judge(moment.slide, moment.slide_end)
        if verdict is None:
            return None
        self._tell(moment, verdict.to_json())
        self.made["canary_passed" if verdict.passed else "canary_rolled_back"] += 1
        if not verdict.passed:
            return self._roll_back(verdict.previous, moment, verdict.reason)
        self._canary.end()
        self._learner.let_previous_go()
        return None

    def _publish(self, verdict: Verdict, moment: Moment) -> RankingVersion:
        before, parent = self._learner.listed(), self._publisher.champion
        self._learner.promote(len(self._learnt.catalogue))
        made = moment.occasion(verdict.to_json())
        version = self._publisher.promoted(made, self._learnt.catalogue, self._learnt.names, moment.sample, before)
        self._published(moment, rollback=False)
        if parent is not None and self._learner.has_previous:
            self._canary.begin(version.manifest.version, parent, moment.slide_end)
        return version

    def _roll_back(self, to: int, moment: Moment, reason: str) -> RankingVersion:
        """Republishes an older version under a new number: the pointer never moves back."""
        moment.settle()  # its files may still be waiting to be written
        made = moment.occasion({"verdict": "rollback", "reason": reason})
        version = self._publisher.rolled_back(made, to, moment.sample)
        self._published(moment, rollback=True)
        return version

    def _published(self, moment: Moment, *, rollback: bool) -> None:
        self._canary.end()
        self._gate.published(moment.slide_end, rollback=rollback)
        self._drift.published(moment.slide_end)

    def _start_again(self, verdict: Verdict, moment: Moment) -> RankingVersion | None:
        """A candidate proven worse goes on from the champion; from the version before it, served again first, where
        that is wanted and there is one."""
        action = self._config.gate.on_degradation
        if action == "hold":
            return None
        worse = self._gate.comparison
        target = self._publisher.previous if action == "rollback_serving" else None
        done = "the candidate was restarted from the champion"
        version = None
        if target is not None:
            done = f"version {target} is served again, and the candidate was restarted from it"
        reason = f"degraded: {done}: proven worse than the champion: {worse}"
        if target is not None:
            version = self._roll_back(target, moment, reason)
        store, catalogue, steps = self._learnt.store, self._learnt.catalogue, self._config.gate.catch_up_steps
        replayed = self._learner.restart(store, catalogue, moment.slide, moment.slide_end, steps)
        self._gate.restarted()
        action = "restart_from_champion" if target is None else "rollback_serving"
        self.made[action] += 1
        line = {"kind": "degradation", "slide": moment.slide, "slide_end": moment.slide_end, "action": action}
        self._tell(moment, {**line, "reason": reason, "replayed": replayed, "parent": verdict.parent})
        return version

    # ---- operators ------------------------------------------------------------------------------------------

    def carry_out(self, command: Command, moment: Moment) -> RankingVersion | None:
        """An operator's command, between two slides; a rollback is a version."""
        number, at = int(command.arguments.get("version") or 0), (moment.slide, moment.slide_end)
        if command.name == "rollback":
            version = self._roll_back(number, moment, f"rolled back to version {number} by an operator")
            self._tell(moment, rolled_back(*at, version.manifest))
            return version
        if command.name in ("pin", "unpin"):
            kept, pins = command.name == "pin", self._publisher.pins
            (pins.add if kept else pins.discard)(number)
            self._tell(moment, pinned(*at, number, kept=kept))
        elif command.name in ("override", "cancel_override"):
            why = str(command.arguments["reason"]) if command.name == "override" else None
            self._gate.override(why)
            reason = f"override: {'cancelled' if why is None else why}"
            self._tell(moment, {"kind": "override", "slide": at[0], "slide_end": at[1], "reason": reason})
        return None

    def _tell(self, moment: Moment, line: dict[str, Any]) -> None:
        self._record({**line, "model": self._config.name})
        log.info("slide %d %s: %s", moment.slide, self._config.name, line["reason"])

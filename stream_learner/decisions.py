"""What is decided at the end of a slide, and by operators between two: to publish, to roll back, to start again.

Every decision is a line of `verdicts.jsonl`: of kind `verdict`, `canary`, `degradation`, `override`, `rollback`, ...
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from stream_learner.journal import Command
from stream_learner.judging import checks
from stream_learner.judging.checks import Comparison
from stream_learner.judging.judge import Judge
from stream_learner.judging.verdict import Verdict
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay
from stream_learner.publishing.publisher import Occasion, Publisher, Version
from stream_learner.publishing.verdict_log import pinned, rolled_back
from stream_learner.settings import Config
from stream_learner.windows.aggregates import Aggregates
from stream_learner.windows.attribution import Matured
from stream_learner.windows.slides import Slide

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Means:
    """What decisions need of the worker around them."""

    record: Callable[[dict[str, Any]], None]  # a line of verdicts.jsonl
    judged: Callable[[Verdict], None]  # the gate has answered
    published: Callable[[int, bool], None]  # a version was made of the slide ending there; whether by rollback
    count: Callable[[str], None]  # a decision, by what was done
    occasion: Callable[[dict[str, Any]], Occasion]
    settle: Callable[[], None]  # returns when all versions made so far are on disk
    forgotten: Callable[[int], None]  # the candidate no longer knows what it was told early of clicks since then, us


class Decisions:
    """Acts on learner, judge and publisher; holds no state of its own."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        replay: Replay,
        judge: Judge,
        publisher: Publisher,
        aggregates: Aggregates,
        means: Means,
    ) -> None:
        self._config = config
        self._learner = learner
        self._replay = replay
        self._judge = judge
        self._publisher = publisher
        self._aggregates = aggregates
        self._means = means

    def at_slide_end(self, slide: Slide) -> Version | None:
        """The canary's verdict on the version in service, then, if that stands, the gate's on the candidate."""
        version = self._canary(slide)
        if version is not None or not self._judge.due(slide.end):
            return version
        verdict = self._judge.verdict(slide, finite=self._learner.finite(), champion=self._publisher.champion)
        self._tell(slide.number, {**verdict.to_json(), "drift": self._judge.drift_numbers(slide.end)})
        self._means.judged(verdict)
        return self._act_on(verdict, slide)

    def _canary(self, slide: Slide) -> Version | None:
        """Ends the canary of the champion when it has failed, with the version before again, or stood its time."""
        verdict = self._judge.canary.judge(slide.number, slide.end)
        if verdict is None:
            return None
        self._tell(slide.number, verdict.to_json())
        self._means.count("canary_passed" if verdict.passed else "canary_rolled_back")
        if not verdict.passed:
            return self.roll_back(verdict.previous, slide.end, {"verdict": "rollback", "reason": verdict.reason})
        self._judge.canary.end()
        self._learner.let_previous_go()
        return None

    def _act_on(self, verdict: Verdict, slide: Slide) -> Version | None:
        """A pass makes the candidate champion; a candidate proven worse is dealt with as `gate.on_degradation` says."""
        if verdict.passed:
            return self._publish(verdict, slide)
        action = self._config.gate.on_degradation
        if not verdict.degraded or action == "hold":
            return None
        target = self._publisher.previous if action == "rollback_serving" else None
        return self._start_again(verdict, slide, target)

    def _publish(self, verdict: Verdict, slide: Slide) -> Version:
        before = self._publisher.champion
        self._learner.promote()
        occasion = self._means.occasion(verdict.to_json())
        sample, observed = self._judge.sample(), self._judge.observed(slide.end)
        version = self._publisher.promoted(occasion, self._aggregates, sample, observed)
        self._means.published(slide.end, False)
        if before is not None and self._learner.has_previous:
            self._judge.canary.begin(version.manifest.version, before, slide.end)
        return version

    def roll_back(self, to: int, slide_end: int, verdict: dict[str, Any]) -> Version:
        """Republishes an older version under a new number: the pointer never moves back."""
        self._means.settle()  # its files may still be waiting to be written
        sample, observed = self._judge.sample(), self._judge.observed(slide_end)
        version = self._publisher.rolled_back(self._means.occasion(verdict), to, sample, observed)
        self._means.published(slide_end, True)
        return version

    def after_outage(self, slide: Slide, matured: Matured, broken: int) -> Matured:
        """Where slides were found broken, what was told early of their examples cannot be trusted: the candidate goes
        on from the champion. What is told of clicks that the champion was told nothing of waits: it is left out."""
        since = self._judge.gate.published_at
        if not broken or since is None or matured.told is None:
            return matured
        replayed = self._restart(slide, since)
        line = {"kind": "outage", "slide": slide.number, "slide_end": slide.end, "action": "restart_from_champion"}
        reason = "outage: what was told early cannot be trusted: the candidate was restarted from the champion"
        self._tell(slide.number, {**line, "reason": reason, "replayed": replayed, "parent": self._publisher.champion})
        self._means.count("restart_from_champion")
        return replace(matured, told=matured.told.take(matured.told.examples.time < since))

    def _restart(self, slide: Slide, since: int) -> int:
        """The candidate from the champion, which was told of no click since then (us). Returns the rows replayed."""
        replayed = self._learner.restart(self._replay, slide.number, self._config.gate.catch_up_steps)
        self._means.forgotten(since)
        self._judge.gate.restarted(slide.end)
        return replayed

    def _start_again(self, verdict: Verdict, slide: Slide, target: int | None) -> Version | None:
        """The candidate goes on from the champion; from the version before it, served again first, given a target."""
        since = self._judge.gate.published_at or 0 if target is None else 0
        done = "the candidate was restarted from the champion"
        if target is not None:
            done = f"version {target} is served again, and the candidate was restarted from it"
        reason = f"degraded: {done}: {checks.worse(Comparison.recorded(verdict.evidence))}"
        version = None
        if target is not None:
            version = self.roll_back(target, slide.end, {"verdict": "rollback", "reason": reason})
        replayed = self._restart(slide, since)
        action = "rollback_serving" if target is not None else "restart_from_champion"
        line = {"kind": "degradation", "slide": slide.number, "slide_end": slide.end, "action": action}
        self._tell(slide.number, {**line, "reason": reason, "replayed": replayed, "parent": verdict.parent})
        self._means.count(action)
        return version

    def carry_out(self, command: Command, slide_end: int) -> Version | None:
        """An operator's command, between two slides; `slide_end` of the last one, us. A rollback is a version."""
        number = int(command.arguments.get("version") or 0)
        if command.name == "rollback":
            reason = f"rolled back to version {number} by an operator"
            version = self.roll_back(number, slide_end, {"verdict": "rollback", "reason": reason})
            self._tell(command.slide, rolled_back(command.slide, slide_end, version.manifest))
            return version
        act: dict[str, Callable[[], None]] = {
            "pin": lambda: self._pin(command.slide, slide_end, number, kept=True),
            "unpin": lambda: self._pin(command.slide, slide_end, number, kept=False),
            "override": lambda: self._override(command.slide, slide_end, str(command.arguments["reason"])),
            "cancel_override": lambda: self._override(command.slide, slide_end, None),
        }
        act[command.name]()
        return None

    def _pin(self, slide: int, slide_end: int, version: int, *, kept: bool) -> None:
        (self._publisher.pins.add if kept else self._publisher.pins.discard)(version)
        self._tell(slide, pinned(slide, slide_end, version, kept=kept))

    def _override(self, slide: int, slide_end: int, why: str | None) -> None:
        """The next verdict passes, for the reason given; None = it does not after all."""
        self._judge.gate.override(why)
        done = f"override: the next verdict passes: {why}" if why is not None else "override: cancelled"
        self._tell(slide, {"kind": "override", "slide": slide, "slide_end": slide_end, "reason": done})
        self._means.count("override" if why is not None else "override_cancelled")

    def _tell(self, slide: int, line: dict[str, Any]) -> None:
        self._means.record(line)
        log.info("slide %d %s", slide, line["reason"])

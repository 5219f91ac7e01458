"""Next-item recommendation on a worker's slides: sessions -> examples -> rank -> judge -> learn -> gate -> version.

What it shares with conversion are the slides, the journal, the sequence test of the gate, versions, snapshots and the
commit; what differs (examples, models, metrics) is in this package.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import EventBatch, EventSchema
from stream_learner.journal import Command
from stream_learner.judging.metrics import finite_or_none
from stream_learner.judging.verdict import Verdict
from stream_learner.learning.learner import Learned
from stream_learner.lease import Lease
from stream_learner.next_item.catalogue import Catalogue
from stream_learner.next_item.gate import RankGate
from stream_learner.next_item.learner import RankingLearner
from stream_learner.next_item.metrics import MODELS, SLICES, RankingBoard, ranks
from stream_learner.next_item.names import ItemNames
from stream_learner.next_item.publisher import RankingPublisher, RankingVersion
from stream_learner.next_item.sessions import U64, NextItems, SessionStore
from stream_learner.publishing.publisher import Occasion
from stream_learner.publishing.verdict_log import pinned, rolled_back
from stream_learner.settings import Config
from stream_learner.windows.slides import OpenSlides, Slide

log = logging.getLogger(__name__)

JUDGE_STAGE = 43  # stage constant of the seeds, so that no two stages share a random stream
_SPARE_NAMES = 1024
_SAMPLE = 64  # sessions asked of every version before it is served


@dataclass(frozen=True)
class Surface:
    """What the candidate's rankings of the last slide look like."""

    coverage: float = float("nan")  # share of the catalogue that is in any of them
    novelty: float = float("nan")  # mean -log2 of the popularity of what is in them, bits


class NextItemTask:
    """One ranking model, learned from the slides it is given. A part of the worker's state."""

    def __init__(
        self,
        config: Config,
        schema: EventSchema,
        names: ItemNames,
        lease: Lease,
        record: Callable[[dict[str, Any]], None],
    ) -> None:
        """`names`: filled while records are decoded; `record`: writes a line of verdicts.jsonl."""
        self.config = config.next_item
        self._seed = config.seed
        self._names = names
        self._record = record
        self._item = schema.id_column("item")
        self.store = SessionStore(self.config, schema)
        self.catalogue = Catalogue(self.config)
        self.learner = RankingLearner(self.config, config.seed)
        self.board = RankingBoard(self.config.judging)
        self.gate = RankGate(self.config.gate, self.config.judging.k)
        self.publisher = RankingPublisher(config, self.learner, lease)
        self.surface = Surface()
        self.examples = self.judged = self.passed = self.held = 0
        self._sample: U64 = np.zeros((0, self.config.sessions.recent), np.uint64)  # contexts of the last slide with any

    # ---- a slide --------------------------------------------------------------------------------------------

    def step(self, slide: Slide, events: EventBatch, waiting: OpenSlides) -> Learned:
        """Ranks a slide's examples with what was known before it, judges, then learns from its events.

        `events`: the slide's, without repeats; `waiting`: events of later slides, whose items' names are still needed.
        """
        events = self.store.wanted(events)
        examples, touched = self.store.step(events)
        self._judge(examples, slide)
        items = events.ids[:, self._item]
        _, given = self.catalogue.step(items, events.time, slide.end)
        learned = self.learner.learn(self.store, touched, self.catalogue, given, slide.number, slide.end)
        if len(self._names) > 2 * (self.catalogue.seen + len(waiting)) + _SPARE_NAMES:
            self._names.keep(self.catalogue.known(), waiting.ids(self._item))
        return learned

    def _judge(self, examples: NextItems, slide: Slide) -> None:
        self.examples += len(examples)
        if len(examples):
            self._sample = examples.context[-_SAMPLE:].copy()
        if not self.learner.has_learned:
            return
        chosen = self._chosen(examples, slide.number)
        k = min(self.config.judging.k, self.learner.candidate.height - 1)
        target = self.catalogue.rows(chosen.target)
        top, _ = self.learner.candidate.top(chosen.context, k)
        found = {"candidate": ranks(top, target)}
        if self.learner.has_champion:
            found["champion"] = ranks(
                self.learner.champion.top(chosen.context, k)[0], self.learner.champion.known(chosen.target)
            )
        short = chosen.length <= self.config.judging.short
        new = self.catalogue.new(chosen.target, slide.end - int(self.config.judging.window))
        self.board.add(found, {"new_item": new, "short_session": short}, slide.end)
        self.gate.observe(found["candidate"], found.get("champion"))
        self.judged += len(chosen)
        self.surface = self._seen(top, slide.end)

    def _chosen(self, examples: NextItems, slide: int) -> NextItems:
        """All of a slide's examples, or a uniform sample of `judging.per_slide`, in order."""
        most = self.config.judging.per_slide
        if len(examples) <= most:
            return examples
        random = np.random.default_rng([self._seed, JUDGE_STAGE, slide])
        return examples.take(np.sort(random.choice(len(examples), most, replace=False)))

    def _seen(self, top: NDArray[np.int32], now: int) -> Surface:
        shares = self.catalogue.shares(now)
        listed = top[(top > 0) & (shares[top] >= 0)]
        if not len(listed):
            return Surface()
        bits = -np.log2(np.maximum(shares[listed], 1e-12))
        return Surface(len(np.unique(listed)) / max(len(self.catalogue), 1), float(bits.mean()))

    # ---- decisions ------------------------------------------------------------------------------------------

    def at_slide_end(self, slide: Slide, occasion: Callable[[dict[str, Any]], Occasion]) -> RankingVersion | None:
        """The gate's verdict, when it is due; a pass makes the candidate champion, and a version of it."""
        if not self.learner.has_learned or not len(self._sample) or not self.gate.due(slide.end):
            return None
        verdict = self.gate.judge(slide.number, slide.end, finite=self.learner.finite(), parent=self.publisher.champion)
        self._tell(verdict)
        if not verdict.passed:
            return None
        before = self.learner.listed()
        self.learner.promote(len(self.catalogue))
        made = replace(occasion(verdict.to_json()), metrics=self.evidence())
        version = self.publisher.promoted(made, self.catalogue, self._names, self._sample, before)
        self.gate.published(slide.end, rollback=False)
        return version

    def carry_out(
        self,
        command: Command,
        slide_end: int,
        occasion: Callable[[dict[str, Any]], Occasion],
        settle: Callable[[], None],
    ) -> RankingVersion | None:
        """An operator's command, between two slides; a rollback is a version."""
        number, pins = int(command.arguments.get("version") or 0), self.publisher.pins
        if command.name == "rollback":
            settle()  # its files may still be waiting to be written
            reason = f"rolled back to version {number} by an operator"
            made = replace(occasion({"verdict": "rollback", "reason": reason}), metrics=self.evidence())
            version = self.publisher.rolled_back(made, number, self._sample)
            self.gate.published(slide_end, rollback=True)
            self._record({**rolled_back(command.slide, slide_end, version.manifest), "model": self.config.name})
            return version
        if command.name in ("pin", "unpin"):
            kept = command.name == "pin"
            (pins.add if kept else pins.discard)(number)
            self._record({**pinned(command.slide, slide_end, number, kept=kept), "model": self.config.name})
        elif command.name in ("override", "cancel_override"):
            why = str(command.arguments["reason"]) if command.name == "override" else None
            self.gate.override(why)
            told = {"kind": "override", "model": self.config.name, "slide": command.slide, "slide_end": slide_end}
            self._record({**told, "reason": f"override: {'cancelled' if why is None else why}"})
        return None

    def _tell(self, verdict: Verdict) -> None:
        self.passed += verdict.passed
        self.held += not verdict.passed
        self._record({**verdict.to_json(), "model": self.config.name})
        log.info("slide %d %s: %s", verdict.slide, self.config.name, verdict.reason)

    def evidence(self) -> dict[str, Any]:
        """What a version's manifest says of quality, NaN as None: over the window, then the lifetime, by model."""
        content = {
            **self.board.window("candidate"),
            "lifetime": {model: self.board.lifetime(model) for model in MODELS},
            "slices": {part: self.board.window("candidate", part) for part in SLICES[1:]},
            "catalogue": len(self.catalogue),
            "coverage": self.surface.coverage,
            "novelty_bits": self.surface.novelty,
        }
        finite: dict[str, Any] = finite_or_none(content)
        return finite

    def report(self) -> dict[str, Any]:
        """What a run has to show of it."""
        return {
            "examples": self.examples,
            "judged": self.judged,
            **self.evidence(),
            "items_seen": self.catalogue.seen,
            "items_waiting": self.catalogue.waiting,
            "items_expired": self.catalogue.expired,
            "sessions": len(self.store),
            "verdicts": {"passed": self.passed, "held": self.held},
            "versions": list(self.publisher.versions),
            "champion": self.publisher.champion,
            "model_sha256": self.learner.model_sha256(),
            "retraces": self.learner.retraces,
        }

    # ---- state ----------------------------------------------------------------------------------------------

    def capture(self) -> dict[str, Any]:
        return self._state(self.learner.capture())

    def changes(self) -> dict[str, Any]:
        return self._state(self.learner.changes())

    def _state(self, learner: dict[str, Any]) -> dict[str, Any]:
        return {
            "store": self.store.capture(),
            "catalogue": self.catalogue.capture(),
            "names": self._names.capture(),
            "learner": learner,
            "board": self.board.capture(),
            "gate": self.gate.capture(),
            "publisher": self.publisher.capture(),
            "surface": [self.surface.coverage, self.surface.novelty],
            "counts": [self.examples, self.judged, self.passed, self.held],
            "sample": self._sample.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.store.restore(state["store"])
        self.catalogue.restore(state["catalogue"])
        self._names.restore(state["names"])
        self.learner.restore(state["learner"])
        self.board.restore(state["board"])
        self.gate.restore(state["gate"])
        self.publisher.restore(state["publisher"])
        self.surface = Surface(*state["surface"])
        self.examples, self.judged, self.passed, self.held = state["counts"]
        self._sample = state["sample"].copy()

"""Next-item recommendation on a worker's slides: sessions -> examples -> rank -> judge -> learn -> gate -> version.

What it shares with conversion are the slides, the journal, the sequence test of the gate, versions, snapshots and the
commit; what differs (examples, models, metrics) is in this package.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import MISSING_ID, EventBatch, EventSchema
from stream_learner.journal import Command
from stream_learner.judging.metrics import finite_or_none
from stream_learner.learning.learned import NOTHING, Learned
from stream_learner.lease import Lease
from stream_learner.next_item.canary import ranking_canary, watch
from stream_learner.next_item.catalogue import Catalogue
from stream_learner.next_item.decisions import Learnt, Moment, RankingDecisions
from stream_learner.next_item.drift import ItemDrift
from stream_learner.next_item.gate import RankGate
from stream_learner.next_item.learner import RankingLearner
from stream_learner.next_item.metrics import MODELS, SLICES, RankingBoard, ranks
from stream_learner.next_item.names import ItemNames
from stream_learner.next_item.publisher import RankingPublisher, RankingVersion
from stream_learner.next_item.sessions import U64, Asked, NextItems, SessionStore
from stream_learner.publishing.publisher import Occasion
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
        self._item = schema.id_column("item")
        self._features = [schema.id_column(name) for name in self.config.network.features]
        self.store = SessionStore(self.config, schema)
        self.catalogue = Catalogue(self.config)
        self.learner = RankingLearner(self.config, config.seed)
        self.board = RankingBoard(self.config.judging)
        self.gate = RankGate(self.config.gate, self.config.judging.k)
        self.canary = ranking_canary(self.config)
        self.drift = ItemDrift(schema, config.drift)
        self.publisher = RankingPublisher(config, self.learner, lease)
        learnt, judges = Learnt(self.store, self.catalogue, names), (self.gate, self.canary, self.drift)
        self.decisions = RankingDecisions(self.config, self.learner, learnt, judges, self.publisher, record)
        self.surface = Surface()
        self.examples = self.judged = self.kept_out = 0
        self._kept_out: list[dict[str, Any]] = []  # broken slides since the last version
        nobody = np.zeros((0, self.config.sessions.recent), np.uint64)
        self._sample = Asked.by_nobody(nobody)  # of the last slide with any

    # ---- a slide --------------------------------------------------------------------------------------------

    def step(self, slide: Slide, events: EventBatch, waiting: OpenSlides, broken: dict[str, Any] | None) -> Learned:
        """Ranks a slide's examples with what was known before it, judges, then learns from its events.

        `events`: the slide's, without repeats; `waiting`: events of later slides, whose items' names are still needed;
        `broken`: what is wrong with a slide in quarantine, of which nothing is judged, counted or learned.
        """
        if broken is not None:
            self.kept_out += 1
            self._kept_out.append(broken)
            return NOTHING
        events = self.store.wanted(events)
        examples, touched = self.store.step(events)
        self._judge(examples, slide)
        items = events.ids[:, self._item]
        for finding in self.drift.observe(events, self.catalogue.new(items, slide.end), slide.end):
            log.warning("slide %d %s: %s", slide.number, self.config.name, finding)
        _, given = self.catalogue.step(items, events.time, slide.end, events.ids[:, self._features])
        learned = self.learner.learn(self.store, touched, self.catalogue, given, slide.number, slide.end)
        if len(self._names) > 2 * (self.catalogue.seen + len(waiting)) + _SPARE_NAMES:
            self._names.keep(self.catalogue.known(), waiting.ids(self._item))
        return learned

    def _judge(self, examples: NextItems, slide: Slide) -> None:
        self.examples += len(examples)
        if len(examples):
            self._sample = Asked.restored(examples.asked.take(slice(-_SAMPLE, None)).capture())
        if not self.learner.has_learned:
            return
        chosen = self._chosen(examples, slide.number)
        k = min(self.config.judging.k, self.learner.candidate.height - 1)
        target = self.catalogue.rows(chosen.target)
        top, _ = self.learner.candidate.top(chosen.asked, k)
        found = {"candidate": ranks(top, target)}
        if self.learner.has_champion:
            champion, previous = self.learner.champion, self.learner.previous
            served = champion.top(chosen.asked, k)
            found["champion"] = ranks(served[0], champion.known(chosen.target))
            if self.canary.watching and previous is not None:
                watch(self.canary, (champion, served), previous, chosen, k)
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

    def at_slide_end(
        self, slide: Slide, occasion: Callable[[dict[str, Any]], Occasion], settle: Callable[[], None]
    ) -> RankingVersion | None:
        """The canary's verdict, and the gate's when it is due; a pass, or a rollback, is a version."""
        if not self.learner.has_learned:
            return None
        return self._made(self.decisions.at_slide_end(self._moment(slide.number, slide.end, occasion, settle)))

    def carry_out(
        self,
        command: Command,
        slide_end: int,
        occasion: Callable[[dict[str, Any]], Occasion],
        settle: Callable[[], None],
    ) -> RankingVersion | None:
        """An operator's command, between two slides; a rollback is a version."""
        return self._made(self.decisions.carry_out(command, self._moment(command.slide, slide_end, occasion, settle)))

    def _moment(
        self,
        slide: int,
        slide_end: int,
        occasion: Callable[[dict[str, Any]], Occasion],
        settle: Callable[[], None],
    ) -> Moment:
        def told(verdict: dict[str, Any]) -> Occasion:
            return replace(occasion(verdict), metrics=self.evidence(), quarantined=list(self._kept_out))

        return Moment(slide, slide_end, self._sample, told, settle)

    def _made(self, version: RankingVersion | None) -> RankingVersion | None:
        if version is not None:
            self._kept_out = []
        return version

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
            "items_forgotten": self.catalogue.forgotten,
            "verdicts": {name: self.decisions.made[name] for name in ("passed", "held")},
            "decisions": {name: count for name, count in self.decisions.made.items() if name not in ("passed", "held")},
            "drift": {"alarms": self.drift.alarms, **self.drift.numbers()},
            "slides_kept_out": self.kept_out,
            "versions": list(self.publisher.versions),
            "champion": self.publisher.champion,
            "model_sha256": self.learner.model_sha256(),
            "retraces": self.learner.retraces,
        }

    def erase(self, users: U64) -> int:
        """Forgets the sessions of users, by fingerprint, and who the latest ones were; returns how many sessions."""
        theirs = np.isin(self._sample.user, users)
        self._sample = Asked(self._sample.recent, np.where(theirs, np.uint64(MISSING_ID), self._sample.user))
        return self.store.erase(users)

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
            "canary": self.canary.capture(),
            "drift": self.drift.capture(),
            "decisions": dict(self.decisions.made),
            "publisher": self.publisher.capture(),
            "surface": [self.surface.coverage, self.surface.novelty],
            "counts": [self.examples, self.judged, self.kept_out],
            "kept_out": [dict(slide) for slide in self._kept_out],
            "sample": self._sample.capture(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.store.restore(state["store"])
        self.catalogue.restore(state["catalogue"])
        self._names.restore(state["names"])
        self.learner.restore(state["learner"])
        self.board.restore(state["board"])
        self.gate.restore(state["gate"])
        self.canary.restore(state["canary"])
        self.drift.restore(state["drift"])
        self.decisions.made = Counter(state["decisions"])
        self.publisher.restore(state["publisher"])
        self.surface = Surface(*state["surface"])
        self.examples, self.judged, self.kept_out = state["counts"]
        self._kept_out = [dict(slide) for slide in state["kept_out"]]
        self._sample = Asked.restored(state["sample"])

"""All that is judged, slide by slide: prequential metrics, baselines, input drift, and the gate's evidence."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.errors import StateError
from stream_learner.events import EventSchema, ExampleBatch
from stream_learner.judging.baselines import BASELINES, Baselines
from stream_learner.judging.canary import Canary
from stream_learner.judging.drift import DriftWatch
from stream_learner.judging.drift_inputs import InputColumns
from stream_learner.judging.gate import Gate
from stream_learner.judging.metrics import finite_or_none, to_logits
from stream_learner.judging.observed import Observed
from stream_learner.judging.scoreboard import Origin, Scoreboard
from stream_learner.judging.slices import Slices
from stream_learner.judging.verdict import Question, Verdict
from stream_learner.learning.features import FeatureSchema, NumberColumn
from stream_learner.settings import NOVELTY, Config, Duration
from stream_learner.windows.attribution import Matured
from stream_learner.windows.slides import Slide

log = logging.getLogger(__name__)

MODELS = ("candidate", "champion", "served")
_SAMPLE = 64  # rows asked of every version before it is served


class Judge:
    """Sees every example twice: scored at arrival (reported metrics), and again at maturity (the gate's evidence)."""

    def __init__(self, config: Config, schema: EventSchema, features: FeatureSchema) -> None:
        self._span = config.judging.span
        self._start, self._end = _instant(self._span.start, -(2**63)), _instant(self._span.end, 2**63 - 1)
        names = (*MODELS, *BASELINES)
        self.windows: tuple[Duration, ...] = tuple(config.judging.windows)
        self.board = Scoreboard(names, self.windows, config.judging.exact_max, len(config.judging.slices))
        self._user = schema.id_column("user")
        self.slices = Slices(config.judging, schema)
        self.baselines = Baselines(schema, config.judging.baseline_smoothing, config.judging.baseline_keys)
        columns = InputColumns(
            numbers={column.name: column.source for column in features.numbers if _watched(column, config)},
            ids={column.name: column.column for column in features.ids},
            unseen=tuple(name for name in NOVELTY if name in config.judging.slices),
            user=self._user,
        )
        self.drift = DriftWatch(columns, config.drift, config.seed)
        self.gate = Gate(config.gate)
        self._early = config.labels.early
        self.relation_moved = False  # whether the last slide's labels told so of the champion
        self._floored = sorted(config.gate.slices)
        self.canary = Canary(config.canary)
        self._ranked = config.gate.min_auc is not None
        self._sample: ExampleBatch | None = None  # rows of the last slide in which something matured

    def in_span(self, times: NDArray[np.int64], slide: int) -> NDArray[np.bool_]:
        """Which clicks of a slide count in the lifetime metrics (`judging.span`). [n]"""
        return (times >= self._start) & (times < self._end) & (slide >= self._span.after_slides)

    def arrived(self, examples: ExampleBatch, slide: Slide) -> None:
        """A slide's examples came in."""
        self.board.maturity.arrived(self.slices.numbered(examples), slide.end)
        self.drift.arrived(examples, slide.number, slide.end)

    def matured(
        self, matured: Matured, candidate: NDArray[np.float32] | None, champion: NDArray[np.float32], slide: Slide
    ) -> None:
        """Examples got their labels. `candidate` (None = it has learned nothing yet) and `champion` (NaN = there is
        none) are logits given before these were learned. [n]"""
        examples = matured.examples
        arrival = {
            "candidate": examples.logit_candidate,
            "champion": examples.logit_champion,
            "served": examples.logit_served,
            **{name: to_logits(examples.baseline[:, i]) for i, name in enumerate(BASELINES)},
        }
        users, slices = examples.ids[:, self._user], self.slices.numbered(examples)
        origin = Origin(examples.time, users, slices, examples.judged)
        self.board.add(arrival, examples.label, slide.end, origin)
        if candidate is not None:
            fair = self._fair(examples)
            floors = {name: inside[fair] for name, inside in self._floors(examples).items()}
            self.gate.observe(candidate[fair], champion[fair], examples.label[fair], slide.end, floors)
        self.baselines.update(examples.ids, examples.label)
        span = slide.start, slide.end
        findings = self.drift.matured(examples, matured.delays(), champion, slide.number, span)
        self.relation_moved = any(finding.kind == "relation" for finding in findings)
        for finding in findings:
            log.warning("slide %d: %s", slide.number, finding)
        if len(examples):
            self._sample = examples.take(slice(-_SAMPLE, None))

    def where_fair(self, examples: ExampleBatch, champion: NDArray[np.float32]) -> NDArray[np.float32]:
        """The champion's logits of the examples it can be judged on, the others NaN. [n]"""
        return np.where(self._fair(examples), champion, np.float32(np.nan)) if self._early else champion

    def _fair(self, examples: ExampleBatch) -> NDArray[np.bool_]:
        """Which examples are evidence, [n]. Those told early are where they arrived since the last version was made and
        the candidate last restarted: scored as they arrived, by the models in question, before either learned them."""
        if not self._early:
            return np.ones(len(examples), bool)
        return (examples.time >= self.gate.since) & np.isfinite(examples.logit_candidate)

    def _floors(self, examples: ExampleBatch) -> dict[str, NDArray[np.bool_]]:
        """Which examples belong to each slice that the gate has a floor for. [n]"""
        members = self.slices.of(examples) if self._floored else {}
        inside = {name: np.zeros(len(examples), bool) for name in self._floored}
        for member in members.values():
            for code, name in enumerate(member.names):
                if name in inside:
                    inside[name] = member.codes == code
        return inside

    def sample(self) -> ExampleBatch:
        """Up to 64 real rows for the load-and-query check of a version."""
        if self._sample is None:
            raise StateError("no example has matured yet, so there is nothing to publish a version from")
        return self._sample

    def due(self, slide_end: int) -> bool:
        return self.gate.due(slide_end)

    def verdict(self, slide: Slide, *, finite: bool, champion: int | None) -> Verdict:
        """The gate's answer for this slide, with every number it used."""
        question = Question(
            slide=slide.number,
            slide_end=slide.end,
            finite=finite,
            psi=self.drift.psi(slide.end),
            parent=champion,
            baselines=self._baselines(),
            auc=self.board.window("candidate", max(self.windows))["auc"] if self._ranked else math.nan,
        )
        return self.gate.judge(question)

    def _baselines(self) -> dict[str, Any]:
        """The do-nothing baselines over the longest window, beside the verdict."""
        longest = max(self.windows, default=None)
        return {} if longest is None else {name: self.board.window(name, longest) for name in BASELINES}

    def published(
        self, slide_end: int, score: Callable[[ExampleBatch], NDArray[np.float32]], *, rollback: bool = False
    ) -> None:
        """A new version, whose logits `score` gives, is in service: the evidence and the drift reference start
        afresh."""
        self.gate.published(slide_end, rollback=rollback)
        self.canary.end()
        self.drift.published(slide_end, score)

    def drift_numbers(self, at: int) -> dict[str, Any]:
        """What the drift detectors say at `at` (us), for the verdict's record; NaN as None."""
        finite: dict[str, Any] = finite_or_none({**self.drift.numbers(), "shares": self.drift.shares(at)})
        return finite

    def slice_metrics(self) -> dict[str, Any]:
        """The candidate's metrics by slice: over the lifetime, and over the longest window."""
        longest = max(self.windows, default=None)
        spans = {"lifetime": None} | ({} if longest is None else {str(longest): longest})
        return {
            name: {label: self.board.slice("candidate", number, span) for label, span in spans.items()}
            for name, number in self.slices.numbers().items()
        }

    def observed(self, at: int) -> Observed:
        """What the card of a version made at `at` (us) tells beside its metrics: the candidate, over the longest
        window."""
        longest = max(self.windows, default=None)
        slices = {name: self.board.slice("candidate", n, longest) for name, n in self.slices.numbers().items()}
        matured = self.drift.inputs.matured_sample()
        return Observed(
            span=None if longest is None else str(longest),
            slices=finite_or_none(slices),
            reliability=self.board.reliability("candidate", longest),
            psi=self.drift.psi(at),
            findings=[finding.to_json() for finding in self.drift.current],
            matured=matured,
        )

    def evidence(self) -> dict[str, Any]:
        """What a version's manifest says of quality, NaN as None: the candidate's lifetime, then all by model."""
        lifetime = {name: self.board.lifetime(name) for name in self.board.names}
        windows = {str(window): {name: self.board.window(name, window) for name in MODELS} for window in self.windows}
        finite: dict[str, Any] = finite_or_none({**lifetime["candidate"], "lifetime": lifetime, "windows": windows})
        return finite

    def capture(self) -> dict[str, Any]:
        return {
            "board": self.board.capture(),
            "slices": self.slices.capture(),
            "baselines": self.baselines.capture(),
            "drift": self.drift.capture(),
            "gate": self.gate.capture(),
            "canary": self.canary.capture(),
            "sample": None if self._sample is None else self._sample.capture(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.board.restore(state["board"])
        self.slices.restore(state["slices"])
        self.baselines.restore(state["baselines"])
        self.drift.restore(state["drift"])
        self.gate.restore(state["gate"])
        self.canary.restore(state["canary"])
        self._sample = None if state["sample"] is None else ExampleBatch.restored(state["sample"])


def _instant(text: str | None, default: int) -> int:
    """An ISO 8601 time in us since the epoch; naive = UTC."""
    if text is None:
        return default
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def _watched(column: NumberColumn, config: Config) -> bool:
    """Whether input drift is asked of a column: numeric features always, aggregates where `drift.aggregates` says."""
    return not column.aggregate or any(re.fullmatch(pattern, column.name) for pattern in config.drift.aggregates)

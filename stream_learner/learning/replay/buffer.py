"""The replay buffer: a store of examples, and the policy that fills it and draws from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.changes import I64
from stream_learner.events import MISSING_ID, EventSchema, ExampleBatch
from stream_learner.learning.replay.make_up import MakeUp, by_age
from stream_learner.learning.replay.policy import F32, Arrived, Policy, log_losses
from stream_learner.learning.replay.prioritised import Prioritised
from stream_learner.learning.replay.store import RowStore
from stream_learner.learning.replay.stratified import Stratified
from stream_learner.learning.replay.time_biased import TimeBiased
from stream_learner.learning.replay.uniform import Dark, Uniform
from stream_learner.settings import Config
from stream_learner.settings import Replay as Settings

KEEP_STAGE = 21  # stage constants of the seeds, so that no two stages share a random stream
DRAW_STAGE = 22
RESIZE_STAGE = 23

SCORES = ("logit_candidate", "logit_champion", "logit_served", "baseline", "judged", "unseen")  # nobody learns these


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows of the buffer for a step."""

    rows: I64  # [n], where they lie; for `Replay.learned`
    examples: ExampleBatch
    weights: F32  # [n], of their log loss
    logits: F32 | None  # [n, members], what they are held to; None where the policy keeps none


class Replay:
    """A bounded buffer of examples, without their scores.

    What is kept and drawn depends on the examples, seed, slide and step alone. It holds at most `capacity` examples,
    and at most `max_bytes` of them.
    """

    def __init__(self, capacity: int, seed: int, policy: Policy | None = None, max_bytes: int | None = None) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._seed = seed
        self._policy = Uniform() if policy is None else policy
        self._store = RowStore(capacity)
        self._drawing: int | None = None  # slide of the last draw

    def __len__(self) -> int:
        return len(self._store)

    @property
    def size_bytes(self) -> int:
        """Memory of the rows, what it has grown ahead included."""
        return self._store.size_bytes

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """The rows held, holes included; not copies."""
        return {name: column[: self._store.height] for name, column in self._store.columns.items()}

    def add(self, examples: ExampleBatch, slide: int, logits: F32 | None = None) -> None:
        """Takes in the examples of a slide, in order. Once per slide. `logits`: [n, members], the candidate's before it
        learned from each, NaN where it did not; None = it did from none."""
        if not self._capacity or not len(examples):
            return
        columns = {f.name: getattr(examples, f.name) for f in fields(ExampleBatch) if f.name not in SCORES}
        arrived = Arrived(columns, _unknown(len(examples)) if logits is None else logits)
        self._bound({**{name: c[:0] for name, c in columns.items()}, **self._policy.kept(arrived)})
        self._policy.admit(self._store, arrived, np.random.default_rng([self._seed, KEEP_STAGE, slide]))

    def draw(self, count: int, slide: int, step: int) -> Drawn:
        """`count` held examples, with replacement. Raises IndexError when none is held."""
        if not len(self):
            raise IndexError("the replay buffer is empty")
        if slide != self._drawing:
            self._policy.begin()
            self._drawing = slide
        random = np.random.default_rng([self._seed, DRAW_STAGE, slide, step])
        rows, weights = self._policy.pick(self._store, count, random)
        names = [f.name for f in fields(ExampleBatch) if f.name not in SCORES]
        examples = ExampleBatch.unscored(**{name: self._store.take(name, rows) for name in names})
        logits = self._store.take("logits", rows) if "logits" in self._store.columns else None
        return Drawn(rows, examples, weights, logits)

    def learned(self, drawn: Drawn, logits: F32) -> None:
        """`logits`: [n, members], the candidate's for the drawn rows just before it learned from them."""
        self._policy.learned(self._store, drawn.rows, log_losses(logits, drawn.examples.label))

    def erase(self, column: int, ids: NDArray[np.uint64]) -> int:
        """Forgets the examples with one of these fingerprints in a column of `ExampleBatch.ids`; returns how many.

        What is held of them is overwritten at once, and in the next snapshot. The others stay what they are: a sample
        by the law of the policy.
        """
        if not self._store.height:
            return 0
        held = self._store.columns["ids"][: self._store.height, column]
        rows = np.flatnonzero(np.isin(held, ids[ids != 0]))
        self._store.erase(rows)
        return len(rows)

    def make_up(self, now: int) -> MakeUp | None:
        """What is held, by age as of `now` (us) and by stratum; None where nothing is."""
        return MakeUp(by_age(self._store, now), self._policy.strata(self._store)) if len(self) else None

    def capture(self) -> dict[str, Any]:
        """The whole state. `changes` counts from here."""
        return {"policy": self._policy.capture(), **self._store.capture()}

    def changes(self) -> dict[str, Any]:
        """As `capture`, but only the rows written since the last of either, or since `restore`."""
        return {"policy": self._policy.capture(), **self._store.changes()}

    def restore(self, state: dict[str, Any]) -> None:
        """Also a buffer of another capacity: one that has become smaller keeps a sample of what it held."""
        self._store.restore(state)
        self._bound(self._store.columns)
        self._policy.restore(state["policy"], self._store)
        self._drawing = None
        if self._store.height > self._store.limit:
            self._policy.shrink(self._store, np.random.default_rng([self._seed, RESIZE_STAGE, self._store.height]))

    def _bound(self, columns: dict[str, NDArray[Any]]) -> None:
        """Sets the rows that capacity and bytes allow."""
        row = sum(c.dtype.itemsize * int(np.prod(c.shape[1:])) for c in columns.values())
        fitting = self._capacity if self._max_bytes is None or not row else self._max_bytes // row
        self._store.limit = min(self._capacity, fitting)


def replay_buffer(config: Config, schema: EventSchema) -> Replay:
    """The configured one."""
    replay = config.replay
    names = _names(config.judging.slice_values.get(replay.strata, []))
    return Replay(replay.capacity, config.seed, _policy(replay, schema, names), replay.max_bytes)


def _names(values: list[str]) -> dict[int, str]:
    """What is told of strata instead of fingerprints."""
    from stream_learner.ingest.identity import fingerprints  # TensorFlow, which whoever lists metrics needs not

    return {MISSING_ID: "missing", **dict(zip(fingerprints(values).tolist(), values, strict=True))}


def _policy(replay: Settings, schema: EventSchema, names: dict[int, str]) -> Policy:
    if replay.policy == "time_biased":
        return TimeBiased(replay.half_life)
    if replay.policy == "stratified":
        column = None if replay.strata == "label" else schema.id_column(replay.strata)
        return Stratified(column, replay.correction, names)
    if replay.policy == "prioritised":
        return Prioritised(replay.priority_exponent, replay.correction)
    return Dark(replay.beta) if replay.policy == "dark" else Uniform()


def _unknown(count: int) -> F32:
    return np.full((count, 1), np.nan, np.float32)

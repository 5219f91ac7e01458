"""The config's own model and its challengers, side by side; the version in service is of one of them.

Each has a candidate, a champion of its own making and a replay buffer, learns from the same examples in the same
slides, and may have another network, optimizer or buffer; features are those of all. Without `challengers` there is
only one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import config as configs
from stream_learner.errors import LearningError
from stream_learner.events import EventSchema, ExampleBatch
from stream_learner.judging.race import OWN
from stream_learner.learning.delayed import Early
from stream_learner.learning.features import FeatureSchema
from stream_learner.learning.learned import Learned
from stream_learner.learning.learner import Learner
from stream_learner.learning.model import ConversionModel
from stream_learner.learning.replay import replay_buffer
from stream_learner.settings import Config

log = logging.getLogger(__name__)


@dataclass
class Cost:
    """What a challenger has taken since the process began; nothing of it reaches a model."""

    seconds: float = 0.0  # of the slide thread, scoring and learning
    rows: int = 0  # learned and replayed


class Contenders:
    """All learners by name, the config's own first."""

    def __init__(self, config: Config, features: FeatureSchema, schema: EventSchema) -> None:
        configured = {OWN: config, **configs.variants(config)}
        self.learners = {name: Learner(one, features) for name, one in configured.items()}
        self.replays = {name: replay_buffer(one, schema) for name, one in configured.items()}
        self.configs = configured
        self.costs = {name: Cost() for name in config.challengers}
        self.out: dict[str, str] = {}  # challengers that left the race, and why
        self.serving = OWN  # whose the version in service is
        self._before: str | None = None  # whose the version before it is, for the time of its canary

    @property
    def own(self) -> Learner:
        return self.learners[OWN]

    @property
    def challengers(self) -> list[str]:
        """Those in the race, in the order of the config."""
        return [name for name in self.costs if name not in self.out]

    @property
    def champion(self) -> ConversionModel:
        return self.learners[self.serving].champion

    def trace(self) -> None:
        """Builds every graph now instead of in the first slides. Changes nothing else."""
        for learner in self.learners.values():
            learner.trace()

    # ---- scores ---------------------------------------------------------------------------------------------

    def score_champion(self, batch: ExampleBatch) -> NDArray[np.float32]:
        """The logits of the version in service, [n]; NaN as long as there is none."""
        return self.learners[self.serving].score_champion(batch)

    def score_previous(self, batch: ExampleBatch) -> NDArray[np.float32]:
        """The logits of the version before it, [n]; NaN but for the time of its canary."""
        if self._before is None:
            return np.full(len(batch), np.nan, np.float32)
        learner = self.learners[self._before]  # another's champion is what was published last of it
        return learner.score_previous(batch) if self._before == self.serving else learner.score_champion(batch)

    def challengers_at_maturity(self, batch: ExampleBatch) -> dict[str, NDArray[np.float32]]:
        """The challengers' logits before these are learned, [n] by name."""
        scores = {}
        for name in self.challengers:
            with self._paid_by(name):
                scores[name] = self.learners[name].score(batch)
        return scores

    def finite(self) -> dict[str, bool]:
        """Of each challenger in the race, whether all of its weights are finite."""
        return {name: self.learners[name].finite() for name in self.challengers}

    # ---- learning -------------------------------------------------------------------------------------------

    def learn(
        self, matured: ExampleBatch, slide: int, early: Early | None, left: Callable[[str, str], None]
    ) -> Learned:
        """One slide, by everyone; what the config's own model learned. A challenger whose loss is no longer finite is
        out of the race, for good: `left` is told its name and why."""
        learned = self.own.learn(matured, self.replays[OWN], slide, early)

        def learn(name: str) -> int:
            one = self.learners[name].learn(matured, self.replays[name], slide)
            return one.rows + one.replayed

        self._let_learn(learn, left)
        return learned

    def rehearse(self, slide: int, passes: int, left: Callable[[str, str], None]) -> int:
        """Everyone goes through all that they remember, after a slide; the rows of the config's own model."""
        rows = self.own.rehearse(self.replays[OWN], slide, passes)
        self._let_learn(lambda name: self.learners[name].rehearse(self.replays[name], slide, passes), left)
        return rows

    def _let_learn(self, learn: Callable[[str], int], left: Callable[[str, str], None]) -> None:
        """`learn` is given the name of each challenger in the race and returns the rows that it took."""
        for name in self.challengers:
            with self._paid_by(name):
                try:
                    self.costs[name].rows += learn(name)
                except LearningError as error:
                    self.out[name] = str(error)
                    left(name, str(error))

    def keep_to(self, rows: int | None) -> None:
        """Bounds the rows per slide of everyone, beside `learning.budget` of each; None = no other bound."""
        for name, learner in self.learners.items():
            own = self.configs[name].learning.budget
            learner.budget = min((bound for bound in (own, rows) if bound is not None), default=None)

    def look_back(self, matured: ExampleBatch, slide_end: int, *, drifted: bool) -> None:
        for name in (OWN, *self.challengers):
            self.learners[name].look_back(matured, slide_end, drifted=drifted)

    @contextmanager
    def _paid_by(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.costs[name].seconds += time.perf_counter() - began

    # ---- versions -------------------------------------------------------------------------------------------

    @property
    def has_previous(self) -> bool:
        return self._before is not None

    def promote(self, challenger: str | None) -> None:
        """The candidate of a challenger, None = the config's own, becomes the champion."""
        name, had = challenger or OWN, self.learners[self.serving].has_champion
        before = self.serving
        self.learners[name].promote()
        watched = self.learners[name].previous is not None  # a canary is wanted
        self.serving, self._before = name, before if had and watched else None

    def load_champion(self, challenger: str | None, variables: dict[str, NDArray[Any]]) -> None:
        """A published version of a challenger, None = the config's own, becomes the champion. StateError where it is of
        another config."""
        self.learners[challenger or OWN].load_champion(variables)
        self.serving = challenger or OWN
        self.let_previous_go()

    def let_previous_go(self) -> None:
        """The canary is over."""
        self._before = None
        for learner in self.learners.values():
            learner.let_previous_go()

    # ---- state, of the challengers: the config's own model and buffer are parts of their own -----------------

    def capture(self) -> dict[str, Any]:
        return self._state({n: (self.learners[n].capture(), self.replays[n].capture()) for n in self.costs})

    def changes(self) -> dict[str, Any]:
        return self._state({n: (self.learners[n].changes(), self.replays[n].changes()) for n in self.costs})

    def _state(self, parts: Mapping[str, tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
        return {
            "serving": self.serving,
            "before": self._before,
            "out": dict(self.out),
            "models": {name: {"learner": learner, "replay": replay} for name, (learner, replay) in parts.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.serving, self._before, self.out = state["serving"], state["before"], dict(state["out"])
        for name, parts in state["models"].items():
            self.learners[name].restore(parts["learner"])
            self.replays[name].restore(parts["replay"])

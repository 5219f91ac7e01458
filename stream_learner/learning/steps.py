"""Rows on their way into a step of the trainer: prepared, blanked, weighted; and what is said of one that fails."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.errors import LearningError
from stream_learner.events import ExampleBatch
from stream_learner.learning.delayed import Lessons
from stream_learner.learning.encoder import CLIP
from stream_learner.learning.features import FeatureSchema
from stream_learner.learning.normaliser import Normaliser
from stream_learner.learning.replay import Drawn
from stream_learner.learning.training import Trainer
from stream_learner.settings import Config

_HINTS = 5  # columns named in the message of a failed step


class Steps:
    """Steps of one trainer."""

    def __init__(self, config: Config, features: FeatureSchema, trainer: Trainer, normaliser: Normaliser) -> None:
        self.features = features
        self._config = config
        self._trainer = trainer
        self._normaliser = normaliser
        self._prepared: tuple[Any, Any, NDArray[np.int64], NDArray[np.float32]] | None = None
        self._blanked = [
            indices
            for group, indices in features.groups().items()
            if features.numbers[indices[0]].aggregate and group not in config.export.aggregates
        ]

    def inputs(self, batch: ExampleBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """What no version differs in: fingerprints and transformed numbers. The same rows are asked of two or three
        models in a row, so those of the last batch are remembered."""
        if self._prepared is None or self._prepared[0] is not batch.ids or self._prepared[1] is not batch.numbers:
            ids, numbers = self.features.take_ids(batch.ids), self.features.take_numbers(batch.numbers)
            self._prepared = batch.ids, batch.numbers, ids, self.features.transformed(numbers)
        return self._prepared[2:]

    def take(
        self, fresh: Lessons | None, drawn: Drawn | None, blanks: np.random.Generator, boost: float, where: str
    ) -> tuple[float, NDArray[np.float32]]:
        """One step on fresh rows, then drawn ones. Their mean log loss, and their logits [rows, members], before it.

        `boost`: what the step is multiplied by. Raises LearningError, which names `where`, at a non-finite loss or
        gradient, with the weights as they were.
        """
        told = [] if fresh is None else [fresh]
        told += [] if drawn is None else [Lessons.final(drawn.examples, self._config.labels.mode)]
        lessons = reduce(Lessons.followed_by, told)
        batch = lessons.examples
        ids, scaled = self.inputs(batch)
        self._prepared = None  # blanked in place, and never asked for again
        self._blank(scaled, blanks)
        self._trainer.boost(boost)
        weights, held = self._wanted(0 if fresh is None else len(fresh), drawn)
        taken = self._trainer.step(ids, scaled, batch.time, lessons.targets, weights, held)
        if not taken.sound:
            raise LearningError(
                f"{where}: loss or gradient is not finite (loss {taken.loss}); nothing of this step was kept. "
                f"{self._suspects(scaled)} Remedy: a lower learning.learning_rate, or a mapping without them."
            )
        return taken.loss, taken.logits

    def _blank(self, scaled: NDArray[np.float32], blanks: np.random.Generator) -> None:
        """Now and then an aggregate that does not travel is missing, for callers who cannot give it."""
        rate = self._config.learning.blank_rate
        if self._blanked and rate:
            blank = blanks.random((len(scaled), len(self._blanked))) < rate
            for group, indices in enumerate(self._blanked):
                scaled[np.flatnonzero(blank[:, group])[:, None], indices] = np.nan

    def _wanted(self, fresh: int, drawn: Drawn | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights of all rows, and the logits they are held to, NaN = none; of no rows where replay keeps none."""
        members = self._config.learning.ensemble.members
        if drawn is None:
            return np.ones(fresh, np.float32), np.full((fresh, members), np.nan, np.float32)
        weights = np.concatenate([np.ones(fresh, np.float32), drawn.weights])
        if drawn.logits is None:
            return weights, np.empty((0, members), np.float32)
        return weights, np.concatenate([np.full((fresh, members), np.nan, np.float32), drawn.logits])

    def _suspects(self, scaled: NDArray[np.float32]) -> str:
        """The columns that leave the clipped range most often, for the message of a failed step."""
        odd = (np.abs(self._normaliser.standardised(scaled)) > CLIP).sum(axis=0)  # NaN, a missing value, is not odd
        worst = [int(i) for i in np.argsort(-odd, kind="stable")[:_HINTS] if odd[i]]
        names = ", ".join(f"{self.features.numbers[i].name} ({odd[i]} of {len(scaled)} rows)" for i in worst)
        return f"Inputs with infinite or far-off values: {names or 'none'}."

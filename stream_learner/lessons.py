"""Labels as they become known -> what the learner is given at a slide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import ExampleBatch
from stream_learner.learning.delayed import Early, Lessons
from stream_learner.settings import Labels
from stream_learner.windows.attribution import Matured
from stream_learner.windows.early_labels import Told


def to_learn(matured: Matured, requeued: list[ExampleBatch], labels: Labels) -> tuple[ExampleBatch, Early | None]:
    """Examples to be learned with the labels they matured with, and what the early-learning modes add to that.

    `matured`: those that are not in quarantine, with what is told early. Requeued examples are learned as matured ones,
    for the model that was told of them early is no longer there.
    """
    if matured.told is None:
        return ExampleBatch.concat([*requeued, matured.examples]), None
    whole = ExampleBatch.concat([*requeued, matured.examples.take(matured.waited)])
    trusted = matured.take(matured.waited)
    finished = matured.take(~matured.waited)
    in_time = [
        np.zeros(len(whole) - len(trusted.examples), bool),
        _in_time(trusted, labels),
        _in_time(finished, labels),
    ]
    return whole, Early(_lessons(matured.told), finished.examples, np.concatenate(in_time))


def _lessons(told: Told) -> Lessons:
    targets = np.stack([told.positive, told.negative, np.ones(len(told), np.float32)], axis=1)
    return Lessons(told.examples, targets.astype(np.float32), told.first)


def _in_time(matured: Matured, labels: Labels) -> NDArray[np.bool_]:
    """Whether an example's purchase came within the elapsed time (a cancelled one never did)."""
    soon = matured.positive_time <= matured.examples.time + labels.elapsed
    return np.array((matured.examples.label == 1) & soon)

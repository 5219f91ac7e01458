"""How much a continual learner keeps of earlier tasks, in the two published definitions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def backward_transfer(score: F64) -> float:
    """BWT of Lopez-Paz and Ranzato (GEM, NeurIPS 2017): the mean over the tasks but the last of R[T, i] - R[i, i].

    `score` R [T, T]: R[i, j] of task j after the learning of task i, higher is better. Negative = forgotten.
    """
    last = len(score) - 1
    return float(np.mean([score[last, task] - score[task, task] for task in range(last)]))


def forgetting(score: F64) -> float:
    """F of Chaudhry et al. (Riemannian Walk, ECCV 2018): the mean over the tasks but the last of the best a task ever
    had before the last one was learned, less what it has at the end. `score` as of `backward_transfer`."""
    last = len(score) - 1
    return float(np.mean([score[:last, task].max() - score[last, task] for task in range(last)]))

"""Prequential ranking metrics: Recall, MRR and NDCG at k, by model, slice and window.

Ranks are on the whole catalogue. Where a slide has more examples than `judging.per_slide` a uniform sample of them is
ranked, so every mean is unbiased. An item that is not in the catalogue cannot be ranked: a miss.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner import settings

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MODELS = ("candidate", "champion")
SLICES = ("all", "new_item", "short_session")
_STATISTICS = 6  # n, then the five of `measures`


def ranks(top: NDArray[np.int32], target: I64) -> I64:
    """The place of each target row [n] among its ranking [n, k], from 1; 0 where it is not in it, or no item."""
    hit = (top == target[:, None]) & (target[:, None] > 0)
    return np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)


def measures(rank: I64, k: int) -> F64:
    """[n, 5] of each example: recall@k, mrr@k, ndcg@k, recall@k/2, mrr@k/2; `rank` as of `ranks`."""
    half = max(1, k // 2)
    place = np.maximum(rank, 1)
    hit, near = (rank > 0) & (rank <= k), (rank > 0) & (rank <= half)
    columns = [hit, hit / place, hit / np.log2(place + 1.0), near, near / place]
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


def named(sums: F64, k: int) -> dict[str, float]:
    """Means by name, and how many examples they are of; NaN without any. `sums`: [6]."""
    half = max(1, k // 2)
    names = (f"recall@{k}", f"mrr@{k}", f"ndcg@{k}", f"recall@{half}", f"mrr@{half}")
    means = sums[1:] / sums[0] if sums[0] else np.full(len(names), np.nan)
    return {"n": int(sums[0]), **dict(zip(names, means.tolist(), strict=True))}


class RankingBoard:
    """Sums of what was judged: over the lifetime, and over the sliding window. [models, slices, statistics]"""

    def __init__(self, config: settings.RankingJudging) -> None:
        self._k, self._window = config.k, int(config.window)
        self._lifetime = np.zeros((len(MODELS), len(SLICES), _STATISTICS))
        self._slides: deque[tuple[int, F64]] = deque()  # end of each slide, and its sums

    def add(self, found: dict[str, I64], slices: dict[str, NDArray[np.bool_]], slide_end: int) -> None:
        """Ranks [n] by model, and which examples are in each slice but `all`."""
        sums = np.zeros_like(self._lifetime)
        for model, rank in found.items():
            each = np.concatenate([np.ones((len(rank), 1)), measures(rank, self._k)], axis=1)
            for at, name in enumerate(SLICES):
                inside = slices.get(name, np.ones(len(rank), bool))
                sums[MODELS.index(model), at] = each[inside].sum(axis=0)
        self._lifetime += sums
        self._slides.append((slide_end, sums))
        while self._slides[0][0] <= slide_end - self._window:
            self._slides.popleft()

    def lifetime(self, model: str, part: str = "all") -> dict[str, float]:
        return named(self._lifetime[MODELS.index(model), SLICES.index(part)], self._k)

    def window(self, model: str, part: str = "all") -> dict[str, float]:
        sums = np.sum([sums for _, sums in self._slides], axis=0) if self._slides else np.zeros_like(self._lifetime)
        return named(sums[MODELS.index(model), SLICES.index(part)], self._k)

    def capture(self) -> dict[str, Any]:
        slides = [sums for _, sums in self._slides]
        return {
            "lifetime": self._lifetime.copy(),
            "ends": np.array([end for end, _ in self._slides], np.int64),
            "slides": np.array(slides).reshape(-1, *self._lifetime.shape),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._lifetime = state["lifetime"].copy()
        self._slides = deque(zip(state["ends"].tolist(), state["slides"].copy(), strict=True))

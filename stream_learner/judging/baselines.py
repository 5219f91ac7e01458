"""The do-nothing baselines every model is printed beside: the prior, smoothed rates per item and per user, and no
change (the rate of the last slide in which something matured).

All are counts of matured examples, so they know exactly what a model could have learned by then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import MISSING_ID, EventSchema
from stream_learner.keys import I64, U64, KeyIndex

BASELINES = ("prior", "item_rate", "user_rate", "no_change")

_EVICTED_SHARE = 16  # one in so many rows goes at once, so that choosing whom is rare


class Baselines:
    """Scores from counts; `smoothing` (in examples) pulls a rate towards the prior."""

    def __init__(self, schema: EventSchema, smoothing: float, max_keys: int) -> None:
        self._rates = {
            "item_rate": _KeyRate(schema.id_column("item"), max_keys),
            "user_rate": _KeyRate(schema.id_column("user"), max_keys),
        }
        self._smoothing = smoothing
        self._examples = 0
        self._positives = 0
        self._last = (0, 0)  # examples and positives of the last slide that had any

    @property
    def prior(self) -> float:
        """(positives + 1/2) / (examples + 1), Krichevsky and Trofimov's estimate: 1/2 before the first label."""
        return (self._positives + 0.5) / (self._examples + 1.0)

    def score(self, ids: U64) -> NDArray[np.float32]:
        """Probabilities [n, 4] in the order of BASELINES for ids [n, k]: (positives + s*prior) / (examples + s).

        An unknown or missing id scores the prior.
        """
        columns = [np.full(len(ids), self.prior)]
        columns += [rate.of(ids, self._smoothing, self.prior) for rate in self._rates.values()]
        examples, positives = self._last
        columns += [np.full(len(ids), (positives + self.prior) / (examples + 1.0))]
        return np.stack(columns, axis=1).astype(np.float32)

    def update(self, ids: U64, labels: NDArray[np.float32]) -> None:
        """Counts one slide's matured examples: ids [n, k], labels [n] of 0 and 1."""
        positive = (labels > 0.5).astype(np.int64)
        self._examples += len(labels)
        self._positives += int(positive.sum())
        if len(labels):
            self._last = len(labels), int(positive.sum())
        for rate in self._rates.values():
            rate.count(ids, positive)

    def erase(self, users: U64) -> None:
        """Forgets the rates of users, by fingerprint."""
        self._rates["user_rate"].erase(users)

    def sizes(self) -> dict[str, int]:
        """Keys held, by baseline."""
        return {name: len(rate) for name, rate in self._rates.items()}

    def capture(self) -> dict[str, Any]:
        rates = {name: rate.capture() for name, rate in self._rates.items()}
        return {"examples": self._examples, "positives": self._positives, "last": list(self._last), "rates": rates}

    def restore(self, state: dict[str, Any]) -> None:
        self._examples = int(state["examples"])
        self._positives = int(state["positives"])
        self._last = int(state["last"][0]), int(state["last"][1])
        for name, rate in self._rates.items():
            rate.restore(state["rates"][name])


class _KeyRate:
    """Examples and positives per key of one id column; the keys longest without a label are evicted first."""

    def __init__(self, column: int, max_keys: int) -> None:
        self._column = column
        self._max_keys = max_keys
        self._index = KeyIndex()
        self._counts = np.zeros((3, 0), np.int64)  # per row: examples, positives, number of the last update
        self._updates = 0

    def __len__(self) -> int:
        return len(self._index)

    def of(self, ids: U64, smoothing: float, prior: float) -> NDArray[np.float64]:
        rows = self._index.find(ids[:, self._column])
        counts = np.zeros((2, len(rows)), np.int64)
        counts[:, rows >= 0] = self._counts[:2, rows[rows >= 0]]
        return np.asarray((counts[1] + smoothing * prior) / (counts[0] + smoothing), np.float64)

    def count(self, ids: U64, positive: I64) -> None:
        present = ids[:, self._column] != MISSING_ID
        rows, _ = self._index.find_or_add(ids[present, self._column])
        self._reserve(self._index.row_limit)
        self._updates += 1
        np.add.at(self._counts[0], rows, 1)
        np.add.at(self._counts[1], rows, positive[present])
        self._counts[2, rows] = self._updates
        self._evict()

    def _reserve(self, rows: int) -> None:
        if rows > self._counts.shape[1]:
            grown = np.zeros((3, 2 * rows), np.int64)
            grown[:, : self._counts.shape[1]] = self._counts
            self._counts = grown

    def _evict(self) -> None:
        if len(self._index) <= self._max_keys:
            return
        rows = np.sort(self._index.items()[1])
        excess = len(rows) - (self._max_keys - self._max_keys // _EVICTED_SHARE)
        self._let_go(rows[np.argsort(self._counts[2, rows], kind="stable")[:excess]])

    def erase(self, keys: U64) -> None:
        rows = self._index.find(np.unique(keys))
        self._let_go(rows[rows >= 0])

    def _let_go(self, rows: I64) -> None:
        self._index.remove_rows(rows)
        self._counts[:, rows] = 0

    def capture(self) -> dict[str, Any]:
        counts = self._counts[:, : self._index.row_limit].copy()
        return {"index": self._index.capture(), "counts": counts, "updates": self._updates}

    def restore(self, state: dict[str, Any]) -> None:
        self._index.restore(state["index"])
        self._counts = state["counts"].astype(np.int64)
        self._updates = int(state["updates"])

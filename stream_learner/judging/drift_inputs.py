"""Input drift: each feature against the reference (PSI, Jensen-Shannon, missing, new ids), and all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import MISSING_ID, ExampleBatch
from stream_learner.judging.drift_tests import Test
from stream_learner.judging.sample import ExampleSample
from stream_learner.judging.sketch import Codes, ColumnKind, Distance, Shares, flag_codes, id_codes, number_codes
from stream_learner.judging.two_sample import separation
from stream_learner.judging.watched import WatchedColumns
from stream_learner.settings import NOVELTY, Drift

SAMPLE_ROWS = 2048  # examples of each side that the two-sample classifier sees at most
_BUCKETS = 16  # of an id, for the classifier
_ARRIVALS, _TRAINING = 7301, 7302  # stage constants of the two samples' random draws


@dataclass(frozen=True)
class InputColumns:
    """What is watched, and where it lies in a batch."""

    numbers: Mapping[str, int]  # feature -> column of ExampleBatch.numbers
    ids: Mapping[str, int]  # feature -> column of ExampleBatch.ids
    unseen: tuple[str, ...]  # those of new_user, new_item that are known
    user: int  # column of ExampleBatch.ids

    @property
    def names(self) -> list[str]:
        return [*self.numbers, *self.ids, *self.unseen]

    @property
    def kinds(self) -> list[ColumnKind]:
        kinds: list[ColumnKind] = ["number"] * len(self.numbers)
        kinds += ["id"] * len(self.ids)
        kinds += ["flag"] * len(self.unseen)
        return kinds

    def codes(self, examples: ExampleBatch) -> Codes:
        """[n, names]"""
        parts = [
            number_codes(examples.numbers[:, list(self.numbers.values())]),
            id_codes(examples.ids[:, list(self.ids.values())]),
            flag_codes(examples.unseen[:, [list(NOVELTY).index(name) for name in self.unseen]]),
        ]
        return np.concatenate(parts, axis=1)

    def inputs(self, examples: ExampleBatch) -> NDArray[np.float64]:
        """Dense columns for the two-sample classifier: logged numbers with NaN, then buckets of ids. [n, d]"""
        numbers = examples.numbers[:, list(self.numbers.values())].astype(np.float64)
        numbers = np.sign(numbers) * np.log1p(np.minimum(np.abs(numbers), 1e30))
        ids = examples.ids[:, list(self.ids.values())]
        buckets = np.where(ids == MISSING_ID, np.uint64(_BUCKETS), ids % np.uint64(_BUCKETS))
        hot = (buckets[:, :, None] == np.arange(_BUCKETS, dtype=np.uint64)).reshape(len(ids), -1)
        return np.concatenate([numbers, hot.astype(np.float64)], axis=1)


class InputDrift:
    """Watches columns of the examples that arrive."""

    def __init__(self, columns: InputColumns, settings: Drift, seed: int) -> None:
        self._columns = columns
        self._settings = settings
        self._watched = WatchedColumns(columns.kinds, settings, settings.min_examples)
        self._arrivals = ExampleSample(SAMPLE_ROWS, (seed, _ARRIVALS))
        self._training = ExampleSample(SAMPLE_ROWS, (seed, _TRAINING))
        self._rebased_at: int | None = None
        self._reference: ExampleBatch | None = None  # a sample of the champion's training window

    def observe(self, arrived: ExampleBatch, slide: int, at: int) -> None:
        """Takes in the examples that arrived in a slide ending at `at` (us), and lets go of what left the window."""
        self._watched.observe(self._columns.codes(arrived), at)
        self._arrivals.add(arrived, slide, at)
        self._arrivals.keep_after(at - self._settings.window)

    def learned(self, matured: ExampleBatch, slide: int, at: int) -> None:
        """Takes in the examples learned from in that slide: the next version's training window."""
        self._watched.learned(self._columns.codes(matured), at)
        self._training.add(matured, slide, at)
        if self._rebased_at is not None:
            self._training.keep_after(min(self._rebased_at, at - self._settings.window))

    def rebase(self, at: int) -> None:
        """A version was made of the slide ending at `at`."""
        self._watched.rebase(at)
        self._rebased_at, self._reference = at, self._training.examples()
        if self._reference is not None:
            self._reference = ExampleBatch.restored(self._reference.capture())  # a copy: the sample goes on

    def erase(self, users: NDArray[np.uint64]) -> None:
        """Takes the examples of users, by fingerprint, out of the samples; histograms stay what they are."""
        column = self._columns.user
        self._arrivals.erase(column, users)
        self._training.erase(column, users)
        if self._reference is not None:
            self._reference = self._reference.take(~np.isin(self._reference.ids[:, column], users))

    def training_sample(self) -> ExampleBatch | None:
        """Up to 2,048 examples of the champion's training window."""
        return self._reference

    def matured_sample(self) -> ExampleBatch | None:
        """Up to 2,048 examples, oldest first, that the candidate learned from since the last version, with labels."""
        return self._training.examples()

    def recent_sample(self) -> tuple[ExampleBatch, NDArray[np.float64]] | None:
        """Up to 2,048 examples of the last `drift.window`, and how many each stands for."""
        examples = self._arrivals.examples()
        return None if examples is None else (examples, self._arrivals.weights())

    def distances(self, at: int) -> dict[str, Distance]:
        """By feature; empty while either side has fewer than `drift.min_examples` examples."""
        found = self._watched.distances(at)
        return {} if found is None else dict(zip(self._columns.names, found, strict=True))

    def shares(self, at: int) -> dict[str, Shares]:
        """How arriving and reference examples are spread, by feature; empty as above."""
        found = self._watched.shares(at)
        return {} if found is None else dict(zip(self._columns.names, found, strict=True))

    def tests(self, distances: Mapping[str, Distance]) -> list[Test]:
        settings, tests = self._settings, []
        for name, distance in distances.items():
            change, chance = distance.marked - distance.marked_before, distance.marked_chance
            if name in self._columns.unseen:  # fewer new ids is how every stream goes on
                tests.append(Test("inputs", name, "new", change, settings.min_share, chance if change > 0 else 1.0))
                continue
            tests.append(Test("inputs", name, "psi", distance.psi, settings.min_psi, distance.chance))
            tests.append(Test("inputs", name, "missing", change, settings.min_share, chance))
        return tests + self._together()

    def _together(self) -> list[Test]:
        """The classifier's verdict on all columns at once, where the reference is the champion's training window."""
        now, then = self._arrivals.examples(), self._reference
        least = min(self._settings.min_examples, SAMPLE_ROWS // 4)
        if now is None or then is None or min(len(now), len(then)) < least or self._settings.reference != "champion":
            return []
        columns, user = self._columns, self._columns.user
        recent, before = _comparable(columns.inputs(now), columns.inputs(then))
        found = separation(recent, before, now.ids[:, user], then.ids[:, user])
        excess = found.auc - 0.5
        return [Test("inputs", "all", "auc", excess, self._settings.min_auc - 0.5, found.chance)]

    def capture(self) -> dict[str, Any]:
        return {
            "watched": self._watched.capture(),
            "arrivals": self._arrivals.capture(),
            "training": self._training.capture(),
            "rebased_at": self._rebased_at,
            "reference": None if self._reference is None else self._reference.capture(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._watched.restore(state["watched"])
        self._arrivals.restore(state["arrivals"])
        self._training.restore(state["training"])
        self._rebased_at = state["rebased_at"]
        reference = state["reference"]
        self._reference = None if reference is None else ExampleBatch.restored(reference)


def _comparable(now: NDArray[np.float64], then: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both with the reference's mean and deviation taken out, clipped, 0 and an indicator for what is missing."""
    with np.errstate(invalid="ignore"):
        both = np.concatenate([now, then])
        missing = np.isnan(both)
        filled = np.where(missing, 0.0, both)
        count = np.maximum((~missing).sum(axis=0), 1)
        mean = filled.sum(axis=0) / count
        centred = np.where(missing, 0.0, both - mean)
        deviation = np.sqrt((centred**2).sum(axis=0) / count)
    scaled = np.clip(centred / np.where(deviation > 0, deviation, 1.0), -5.0, 5.0)
    some = missing.any(axis=0)
    columns = np.concatenate([scaled, missing[:, some].astype(np.float64)], axis=1)
    return columns[: len(now)], columns[len(now) :]

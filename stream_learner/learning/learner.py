"""The candidate that learns, and the champion it is compared with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.changes import Changed, RowSet, differing
from stream_learner.errors import LearningError
from stream_learner.events import ExampleBatch
from stream_learner.learning.bins import Bins
from stream_learner.learning.encoder import CLIP
from stream_learner.learning.features import FeatureSchema
from stream_learner.learning.model import ConversionModel, arrays_of, assign_all, rows_of
from stream_learner.learning.normaliser import Normaliser
from stream_learner.learning.replay import Replay
from stream_learner.learning.tables import ids_held
from stream_learner.learning.training import Trainer
from stream_learner.settings import Config

CATCH_UP_STAGE = 32
_CATCH_UP_STEP = 1 << 32  # number of the first step of a restart in its slide: beyond those of learning
BLANK_STAGE = 31  # stage constant of the seeds, so that no two stages share a random stream
_CHECKED_ROWS = 65_536  # rows looked at at once: a few MB
_HINTS = 5  # columns named in the message of a failed step


@dataclass(frozen=True, slots=True)
class Learned:
    """What a slide's learning amounted to."""

    rows: int  # matured examples times passes
    replayed: int  # rows drawn from the replay buffer
    steps: int
    mean_loss: float  # log loss per row before each step, NaN when there was none


class Learner:
    """Two models of equal shape: the candidate is trained, the champion is a copy of it as of the last promotion."""

    def __init__(self, config: Config, features: FeatureSchema) -> None:
        self.features = features
        self.candidate = ConversionModel(config, features)
        self.champion = ConversionModel(config, features)
        self.previous = ConversionModel(config, features) if config.canary.duration is not None else None
        self.has_champion = False
        self.has_previous = False
        self._config = config
        self._normaliser = Normaliser(features)
        self._bins = Bins(features, config.features.bins, config.features.bin_rows)
        self._trainer = Trainer(self.candidate, config.learning)
        self._table_names = {f"table/{name}" for name in self.candidate.tables}
        self._prepared: tuple[Any, Any, NDArray[np.int64], NDArray[np.float32]] | None = None
        self._learned_rows = 0  # ever; decides how many rows are replayed with the next ones
        self._blanked = [
            indices
            for group, indices in features.groups().items()
            if features.numbers[indices[0]].aggregate and group not in config.export.aggregates
        ]

    @property
    def has_learned(self) -> bool:
        return self._learned_rows > 0

    def trace(self) -> None:
        """Builds every graph now instead of in the first slides. Changes nothing else."""
        for model in self._models():
            model.trace()
        self._trainer.trace()

    def score(self, batch: ExampleBatch) -> NDArray[np.float32]:
        """The candidate's logits, [n]; NaN as long as it has learned nothing."""
        if not self.has_learned:
            return np.full(len(batch), np.nan, np.float32)
        return self.candidate.score(*self._inputs(batch), batch.time)

    def score_champion(self, batch: ExampleBatch) -> NDArray[np.float32]:
        """The champion's logits, [n]; NaN as long as there is none."""
        if not self.has_champion:
            return np.full(len(batch), np.nan, np.float32)
        return self.champion.score(*self._inputs(batch), batch.time)

    def score_previous(self, batch: ExampleBatch) -> NDArray[np.float32]:
        """The logits of the version before the champion, [n]; NaN but for the time of the champion's canary."""
        if self.previous is None or not self.has_previous:
            return np.full(len(batch), np.nan, np.float32)
        return self.previous.score(*self._inputs(batch), batch.time)

    def learn(self, matured: ExampleBatch, replay: Replay, slide: int) -> Learned:
        """Fine-tunes the candidate on a slide's matured examples, in order, mixed with draws from `replay`.

        Normalisation and exact ids take the examples in first; the replay buffer does last, so it gives out only
        what is older than the slide. Raises LearningError at a non-finite loss or gradient, with the weights as they
        were before that step.
        """
        ids, scaled = self._inputs(matured)
        self._normaliser.update(scaled)
        self.candidate.encoder.mean.assign(self._normaliser.mean())
        self.candidate.encoder.deviation.assign(self._normaliser.deviation())
        if self._bins.update(self.features.take_numbers(matured.numbers)):
            self.candidate.encoder.edges.assign(self._bins.edges)
        self.candidate.encoder.admit(ids)
        if not self.has_learned and len(matured):
            positives = float(matured.label.sum())
            self.candidate.offset.assign(math.log((positives + 0.5) / (len(matured) - positives + 0.5)))
        blanks = np.random.default_rng([self._config.seed, BLANK_STAGE, slide])
        rows = replayed = steps = 0
        total = 0.0
        for fresh in self._batches(matured):
            batch = self._mixed(fresh, replay, slide, steps)
            loss = self._step(batch, blanks, slide, steps)
            rows, replayed, steps = rows + len(fresh), replayed + len(batch) - len(fresh), steps + 1
            total += loss * len(batch)
        replay.add(matured, slide)
        return Learned(rows, replayed, steps, total / (rows + replayed) if steps else float("nan"))

    def promote(self) -> None:
        """Makes the candidate, as it is now, the champion; the champion before is kept where a canary is wanted. Of the
        tables, only rows in which they differ are copied."""
        if self.previous is not None and self.has_champion:
            self._follow(self.previous)
            self.has_previous = True
        for name, moved in self._trainer.moved.items():
            if not self.has_champion:
                moved.all_of_champion(self.champion.tables[name].shape[0])
            _copy_rows(self.candidate.tables[name], self.champion.tables[name], moved.promoted())
        self._copy_dense(self.candidate, self.champion)
        self.has_champion = True

    def _follow(self, previous: ConversionModel) -> None:
        """The champion, about to be followed by another, is copied to `previous`."""
        for name, moved in self._trainer.moved.items():
            if not self.has_previous:
                moved.all_of_previous(previous.tables[name].shape[0])
            _copy_rows(self.champion.tables[name], previous.tables[name], moved.followed())
        self._copy_dense(self.champion, previous)

    def _copy_dense(self, source: ConversionModel, target: ConversionModel) -> None:
        for name, variable in target.variables.items():
            if name not in self._table_names:
                variable.assign(source.variables[name].numpy())

    def let_previous_go(self) -> None:
        """The canary is over."""
        self.has_previous = False

    def restart(self, replay: Replay, slide: int, steps: int) -> int:
        """The candidate goes on from the champion: its weights, fresh optimizer slots, then `steps` steps on batches
        drawn from `replay`. Returns the rows replayed."""
        self.candidate.assign(self.champion.values())
        self._trainer.forget()
        for name, moved in self._trainer.moved.items():
            moved.restarted(self.candidate.tables[name].shape[0])
        self.candidate.encoder.mean.assign(self._normaliser.mean())
        self.candidate.encoder.deviation.assign(self._normaliser.deviation())
        blanks = np.random.default_rng([self._config.seed, CATCH_UP_STAGE, slide])
        size = min(self._config.learning.batch_size, len(replay))
        for step in range(_CATCH_UP_STEP, _CATCH_UP_STEP + steps if size else 0):
            batch = replay.draw(size, slide, step)
            self.candidate.encoder.admit(self._inputs(batch)[0])
            self._step(batch, blanks, slide, step)
        return steps * size

    def load_champion(self, variables: dict[str, NDArray[Any]]) -> None:
        """Makes a published version the champion. Raises StateError when it is of another config."""
        before = {name: table.numpy() for name, table in self.champion.tables.items()}
        self.champion.assign(variables)
        for name, moved in self._trainer.moved.items():
            table = variables[f"table/{name}"]
            moved.champion_loaded(differing(before[name], table))
            if not self.has_champion:
                moved.all_of_champion(len(table))
            moved.unpromoted = RowSet.of(differing(self.candidate.tables[name].numpy(), table))
        self.has_champion, self.has_previous = True, False

    def version_variables(self, of: Literal["candidate", "champion"] = "champion") -> dict[str, NDArray[Any]]:
        """Copies of what a version holds of a model: everything that scoring needs, nothing that only learning does."""
        return (self.candidate if of == "candidate" else self.champion).values()

    def model_sha256(self) -> str:
        """SHA-256 over the candidate's weights, tables, id tables, normaliser and slots, in name order."""
        digest = hashlib.sha256()
        for name, value in sorted(self._learning_state().items()):
            digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()

    def finite(self) -> bool:
        """Whether every weight of the candidate is a finite number. Looks at what has moved since they last were."""
        dense = (value for name, value in self.candidate.variables.items() if name not in self._table_names)
        if not all(np.isfinite(value.numpy()).all() for value in dense):
            return False
        return all(self._checked(name) for name in self._trainer.moved)

    def _checked(self, table: str) -> bool:
        moved = self._trainer.moved[table]
        rows = moved.unchecked.rows()
        for start in range(0, len(rows), _CHECKED_ROWS):
            values = rows_of(self.candidate.tables[table], rows[start : start + _CHECKED_ROWS])
            if not np.isfinite(values).all():
                return False
        moved.unchecked.take()
        return True

    def ids_held(self) -> dict[str, int]:
        """Per id feature with an exact table the ids that have a row; looks at the whole id table."""
        exact = [column.name for column in self.features.ids if column.table == "exact"]
        return {name: ids_held(self.candidate.variables[f"exact/{name}/rows"].numpy()) for name in exact}

    def table_fill(self) -> dict[str, float]:
        """Per id feature the share of its table in use: ids held where exact, rows ever learned where hashed."""
        fill = self._trainer.touched()
        rows = {column.name: column.rows for column in self.features.ids}
        return fill | {name: held / rows[name] for name, held in self.ids_held().items()}

    def _models(self) -> list[ConversionModel]:
        return [self.candidate, self.champion, *([self.previous] if self.previous is not None else [])]

    @property
    def retraces(self) -> int:
        """Graphs built beyond the first of each function; 0 unless something is wrong."""
        traces = [*(model.traces for model in self._models()), self._trainer.traces]
        counts = [count for traced in traces for count in traced.values()]
        return sum(counts) - len(counts)

    def capture(self) -> dict[str, Any]:
        """The whole state. `changes` counts from here."""
        for moved in self._trainer.moved.values():
            moved.captured()
        previous = self.previous.values() if self.previous is not None and self.has_previous else None
        return self._state(self._learning_state(), self.champion.values() if self.has_champion else None, previous)

    def changes(self) -> dict[str, Any]:
        """As `capture`, but of the tables and their slots only the rows that changed since the last of either, or
        since `restore`."""
        candidate: dict[str, Any] = {}
        champion: dict[str, Any] = {}
        previous: dict[str, Any] = {}
        for name, moved in self._trainer.moved.items():
            table = f"table/{name}"
            rows = moved.uncaptured.take()
            for one, variable in {table: self.candidate.tables[name], **self._trainer.slots_of(name)}.items():
                candidate[one] = _changed(variable, rows)
            if self.has_champion:
                champion[table] = _changed(self.champion.tables[name], moved.champion.take())
            if self.previous is not None and self.has_previous:
                previous[table] = _changed(self.previous.tables[name], moved.previous.take())
        candidate |= arrays_of({k: v for k, v in self._learning_variables().items() if k not in candidate})
        champion |= self._dense_of(self.champion)
        if self.previous is not None:
            previous |= self._dense_of(self.previous)
        return self._state(candidate, champion if self.has_champion else None, previous if self.has_previous else None)

    def _dense_of(self, model: ConversionModel) -> dict[str, NDArray[Any]]:
        """Copies of all but the tables."""
        return arrays_of({k: v for k, v in model.variables.items() if k not in self._table_names})

    def restore(self, state: dict[str, Any]) -> None:
        """Raises StateError when the state is of another config."""
        assign_all(self._learning_variables(), state["candidate"])
        self.has_champion = state["champion"] is not None
        if self.has_champion:
            self.champion.assign(state["champion"])
        self.has_previous = state["previous"] is not None
        if self.previous is not None and self.has_previous:
            self.previous.assign(state["previous"])
        self._normaliser.restore(state["normaliser"])
        self._bins.restore(state["bins"])
        self._learned_rows = int(state["learned_rows"])
        for name, moved in self._trainer.moved.items():
            table, champion = state["candidate"][f"table/{name}"], self.champion.tables[name].numpy()
            moved.captured()
            moved.ever = RowSet.unpacked(state["moved"][name])
            moved.unchecked = RowSet.of(np.flatnonzero(~np.isfinite(table).all(axis=1)))
            moved.unpromoted = RowSet.of(differing(table, champion))
            if self.previous is not None:
                moved.outdated = RowSet.of(differing(self.previous.tables[name].numpy(), champion))

    def _state(
        self, candidate: dict[str, Any], champion: dict[str, Any] | None, previous: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "candidate": candidate,
            "champion": champion,
            "previous": previous,
            "normaliser": self._normaliser.capture(),
            "bins": self._bins.capture(),
            "learned_rows": self._learned_rows,
            "moved": {name: moved.ever.packed() for name, moved in self._trainer.moved.items()},
        }

    def _inputs(self, batch: ExampleBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """What no version differs in: fingerprints and transformed numbers. The same rows are asked of two or three
        models in a row, so those of the last batch are remembered."""
        if self._prepared is None or self._prepared[0] is not batch.ids or self._prepared[1] is not batch.numbers:
            ids, numbers = self.features.take_ids(batch.ids), self.features.take_numbers(batch.numbers)
            self._prepared = batch.ids, batch.numbers, ids, self.features.transformed(numbers)
        return self._prepared[2:]

    def _batches(self, matured: ExampleBatch) -> Iterator[ExampleBatch]:
        size = self._config.learning.batch_size
        for _ in range(self._config.learning.passes):
            for start in range(0, len(matured), size):
                yield matured.take(slice(start, start + size))

    def _mixed(self, fresh: ExampleBatch, replay: Replay, slide: int, step: int) -> ExampleBatch:
        """`fresh`, then its share of replayed rows; a fraction of a row is carried over to the next batches."""
        ratio = self._config.replay.ratio
        before = int(self._learned_rows * ratio)
        self._learned_rows += len(fresh)
        wanted = int(self._learned_rows * ratio) - before
        if not wanted or not len(replay):
            return fresh
        return ExampleBatch.concat([fresh, replay.draw(wanted, slide, step)])

    def _step(self, batch: ExampleBatch, blanks: np.random.Generator, slide: int, step: int) -> float:
        ids, scaled = self._inputs(batch)
        if self._blanked and self._config.learning.blank_rate:
            blank = blanks.random((len(batch), len(self._blanked))) < self._config.learning.blank_rate
            for group, indices in enumerate(self._blanked):
                scaled[np.flatnonzero(blank[:, group])[:, None], indices] = np.nan
        self._prepared = None  # blanked in place, and never asked for again
        loss, taken = self._trainer.step(ids, scaled, batch.time, batch.label)
        if not taken:
            raise LearningError(
                f"slide {slide}, step {step}: loss or gradient is not finite (loss {loss}); nothing of this step was "
                f"kept. {self._suspects(scaled)} Remedy: a lower learning.learning_rate, or a mapping without them."
            )
        return loss

    def _suspects(self, scaled: NDArray[np.float32]) -> str:
        """The columns that leave the clipped range most often, for the message of a failed step."""
        odd = (np.abs(self._normaliser.standardised(scaled)) > CLIP).sum(axis=0)  # NaN, a missing value, is not odd
        worst = [int(i) for i in np.argsort(-odd, kind="stable")[:_HINTS] if odd[i]]
        names = ", ".join(f"{self.features.numbers[i].name} ({odd[i]} of {len(scaled)} rows)" for i in worst)
        return f"Inputs with infinite or far-off values: {names or 'none'}."

    def _learning_variables(self) -> dict[str, Any]:
        return {**self.candidate.variables, **self.candidate.random_state, **self._trainer.variables}

    def _learning_state(self) -> dict[str, NDArray[Any]]:
        return arrays_of(self._learning_variables())


def _copy_rows(source: Any, target: Any, rows: NDArray[np.int64]) -> None:
    target.scatter_update(tf.IndexedSlices(rows_of(source, rows), rows))


def _changed(table: Any, rows: NDArray[np.int64]) -> Changed:
    return Changed(rows, rows_of(table, rows), table.shape[0])

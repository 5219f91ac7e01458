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

    def __add__(self, other: Learned) -> Learned:
        """Of two tasks; the loss is that of the first that took a step."""
        loss = other.mean_loss if math.isnan(self.mean_loss) else self.mean_loss
        rows, replayed = self.rows + other.rows, self.replayed + other.replayed
        return Learned(rows, replayed, self.steps + other.steps, loss)


NOTHING = Learned(0, 0, 0, float("nan"))


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
        self._learned_rows = 0  # ever; decides how many rows are replayed with the next ones
        self._blanked = [
            indices
            for group, indices in features.groups().items()
            if features.numbers[indices[0]].aggregate and group not in config.export.aggregates
        ]

    @property
    def has_learned(self) -> bool:
        return self._learned_rows > 0

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
        ids, numbers = self._inputs(matured)
        self._normaliser.update(numbers)
        self.candidate.encoder.mean.assign(self._normaliser.mean())
        self.candidate.encoder.deviation.assign(self._normaliser.deviation())
        if self._bins.update(numbers):
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
            self.previous.assign(self.champion.values())
            self.has_previous = True
        for name, moved in self._trainer.moved.items():
            table = self.champion.tables[name]
            if not self.has_champion:
                moved.all_of_champion(table.shape[0])
            rows = moved.promoted()
            table.scatter_update(tf.IndexedSlices(rows_of(self.candidate.tables[name], rows), rows))
        for name, variable in self.champion.variables.items():
            if name not in self._table_names:
                variable.assign(self.candidate.variables[name].numpy())
        self.has_champion = True

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
            if self.has_champion:
                moved.champion.add(differing(before[name], table))
            else:
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

    @property
    def retraces(self) -> int:
        """Graphs built beyond the first of each function; 0 unless something is wrong."""
        counts = [*self.candidate.traces.values(), *self.champion.traces.values(), *self._trainer.traces.values()]
        return sum(counts) - len(counts)

    def capture(self) -> dict[str, Any]:
        """The whole state. `changes` counts from here."""
        for moved in self._trainer.moved.values():
            moved.captured()
        return self._state(self._learning_state(), self.champion.values() if self.has_champion else None)

    def changes(self) -> dict[str, Any]:
        """As `capture`, but of the tables and their slots only the rows that changed since the last of either, or
        since `restore`."""
        candidate: dict[str, Any] = {}
        champion: dict[str, Any] = {}
        for name, moved in self._trainer.moved.items():
            table = f"table/{name}"
            rows = moved.uncaptured.take()
            for one, variable in {table: self.candidate.tables[name], **self._trainer.slots_of(name)}.items():
                candidate[one] = Changed(rows, rows_of(variable, rows), variable.shape[0])
            if self.has_champion:
                rows = moved.champion.take()
                variable = self.champion.tables[name]
                champion[table] = Changed(rows, rows_of(variable, rows), variable.shape[0])
        candidate |= arrays_of({k: v for k, v in self._learning_variables().items() if k not in candidate})
        champion |= arrays_of({k: v for k, v in self.champion.variables.items() if k not in self._table_names})
        return self._state(candidate, champion if self.has_champion else None)

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

    def _state(self, candidate: dict[str, Any], champion: dict[str, Any] | None) -> dict[str, Any]:
        return {
            "candidate": candidate,
            "champion": champion,
            "previous": self.previous.values() if self.previous is not None and self.has_previous else None,
            "normaliser": self._normaliser.capture(),
            "bins": self._bins.capture(),
            "learned_rows": self._learned_rows,
            "moved": {name: moved.ever.packed() for name, moved in self._trainer.moved.items()},
        }

    def _inputs(self, batch: ExampleBatch) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return self.features.take_ids(batch.ids), self.features.take_numbers(batch.numbers)

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
        ids, numbers = self._inputs(batch)
        if self._blanked and self._config.learning.blank_rate:
            blank = blanks.random((len(batch), len(self._blanked))) < self._config.learning.blank_rate
            for group, indices in enumerate(self._blanked):
                numbers[np.flatnonzero(blank[:, group])[:, None], indices] = np.nan
        loss, taken = self._trainer.step(ids, numbers, batch.time, batch.label)
        if not taken:
            raise LearningError(
                f"slide {slide}, step {step}: loss or gradient is not finite (loss {loss}); nothing of this step was "
                f"kept. {self._suspects(numbers)} Remedy: a lower learning.learning_rate, or a mapping without them."
            )
        return loss

    def _suspects(self, numbers: NDArray[np.float32]) -> str:
        """The columns that leave the clipped range most often, for the message of a failed step."""
        odd = (np.abs(self._normaliser.standardised(numbers)) > CLIP).sum(axis=0)  # NaN, a missing value, is not odd
        worst = [int(i) for i in np.argsort(-odd, kind="stable")[:_HINTS] if odd[i]]
        names = ", ".join(f"{self.features.numbers[i].name} ({odd[i]} of {len(numbers)} rows)" for i in worst)
        return f"Inputs with infinite or far-off values: {names or 'none'}."

    def _learning_variables(self) -> dict[str, Any]:
        return {**self.candidate.variables, **self.candidate.random_state, **self._trainer.variables}

    def _learning_state(self) -> dict[str, NDArray[Any]]:
        return arrays_of(self._learning_variables())

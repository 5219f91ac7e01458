"""The candidate that learns, and the champion it is compared with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.changes import Buffers, Changed, RowSet, differing
from stream_learner.events import ExampleBatch
from stream_learner.learning.batches import batches, kept
from stream_learner.learning.bins import Bins
from stream_learner.learning.calibration import Shift
from stream_learner.learning.delay_heads import DelayHeads
from stream_learner.learning.delayed import POSITIVE, Early, Lessons
from stream_learner.learning.features import FeatureSchema
from stream_learner.learning.id_tables import IdTable, IdTables
from stream_learner.learning.learned import Learned
from stream_learner.learning.model import ConversionModel, arrays_of, assign_all, changed, rows_of
from stream_learner.learning.normaliser import Normaliser
from stream_learner.learning.plasticity import LOOKED_AT, Condition, Plasticity
from stream_learner.learning.replay import Drawn, Replay
from stream_learner.learning.steps import Steps
from stream_learner.learning.training import Trainer
from stream_learner.settings import Config

CATCH_UP_STAGE = 32
REHEARSAL_STAGE = 36
_CATCH_UP_STEP = 1 << 32  # number of the first step of a restart in its slide: beyond those of learning
BLANK_STAGE = 31  # stage constant of the seeds, so that no two stages share a random stream
_CHECKED_ROWS = 65_536  # rows looked at at once: a few MB


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
        self._heads = DelayHeads(config, self.candidate) if config.labels.mode == "es_dfm" else None
        alpha = config.replay.alpha if config.replay.policy == "dark" else 0.0
        self._trainer = Trainer(self.candidate, config.learning, config.labels.mode, self._heads, alpha=alpha)
        self._ids = IdTables(self.candidate.encoder, self._trainer, config.seed)
        self._plasticity = Plasticity(self.candidate, self._trainer, config)
        self._looked_at: ExampleBatch | None = None  # the last examples learned, for `condition`
        self._table_names = {f"table/{name}" for name in self.candidate.tables}
        self._steps = Steps(config, features, self._trainer, self._normaliser)
        self.budget = config.learning.budget  # rows per slide, None = no bound
        self._learned_rows = 0  # ever; decides how many rows are replayed with the next ones
        self._boosted_at: int | None = None  # rows learned when the rates were last raised
        self._buffers = Buffers()
        self._shift = Shift(rows) if (rows := config.learning.calibration_rows) else None

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
        return self.candidate.score(*self._steps.inputs(batch), batch.time)

    def score_champion(self, batch: ExampleBatch) -> NDArray[np.float32]:
        """The champion's logits, [n]; NaN as long as there is none."""
        if not self.has_champion:
            return np.full(len(batch), np.nan, np.float32)
        return self.champion.score(*self._steps.inputs(batch), batch.time)

    def score_previous(self, batch: ExampleBatch) -> NDArray[np.float32]:
        """The logits of the version before the champion, [n]; NaN but for the time of the champion's canary."""
        if self.previous is None or not self.has_previous:
            return np.full(len(batch), np.nan, np.float32)
        return self.previous.score(*self._steps.inputs(batch), batch.time)

    def look_back(self, matured: ExampleBatch, slide_end: int, *, drifted: bool) -> None:
        """What a slide's matured examples tell of the scores they got as they arrived: how far to shift those to come,
        and whether the relation is another one now (`drifted`), so that rates are raised; where configured."""
        if drifted:
            self._boosted_at = self._learned_rows
        if self._shift is not None and self.candidate.shift is not None:
            self._shift.learn(matured.logit_candidate, matured.label, matured.time, slide_end)
            self.candidate.shift.assign(self._shift.now)

    def learn(self, matured: ExampleBatch, replay: Replay, slide: int, early: Early | None = None) -> Learned:
        """Fine-tunes the candidate on a slide's matured examples and on what is told `early`, in order, mixed with
        draws from `replay`.

        Normalisation and exact ids take the examples in first; the replay buffer does last, so it gives out only
        what is older than the slide, and it takes matured ones alone. Raises LearningError at a non-finite loss or
        gradient, with the weights as they were before that step.
        """
        mode = self._config.labels.mode
        lessons = Lessons.final(matured, mode)
        if early is not None:
            lessons = lessons.followed_by(early.lessons)
        self._take_in(lessons, slide)
        logits = np.full((len(lessons), self._config.learning.ensemble.members), np.nan, np.float32)
        told = np.flatnonzero(kept(lessons.targets[:, POSITIVE] == 0, self._config, slide, 0))
        lessons = lessons.take(told) if len(told) < len(lessons) else lessons
        if not self.has_learned and len(matured):
            self._begin(matured.label[kept(matured.label == 0, self._config, slide, 1)])
        blanks = np.random.default_rng([self._config.seed, BLANK_STAGE, slide])
        finished = matured if early is None else ExampleBatch.concat([matured, early.finished])
        if self._heads is not None and early is not None:
            self._heads.learn(*self._steps.inputs(finished), finished.time, finished.label, early.in_time)
        times, there = lessons.examples.time, len(replay) > 0
        plan = batches(times, self._learned_rows, self._config, slide, self.budget, replay=there)
        total = 0.0
        for step, (rows, wanted) in enumerate(zip(plan.fresh, plan.replayed, strict=True)):
            drawn = replay.draw(wanted, slide, step) if wanted else None
            where = f"slide {slide}, step {step}"
            loss, before = self._steps.take(lessons.take(rows), drawn, blanks, self._boost(), where)
            total += loss * (len(rows) + wanted)
            logits[told[rows]] = before[: len(rows)]
            if drawn is not None:
                replay.learned(drawn, before[len(rows) :])
        if len(lessons):
            self._looked_at = lessons.examples.take(slice(-LOOKED_AT, None))
        before_these, self._learned_rows = self._learned_rows, self._learned_rows + plan.rows
        if self._plasticity.due(before_these, self._learned_rows):
            self._plasticity.renew(self._model_inputs(lessons.examples.take(slice(-LOOKED_AT, None))), slide)
        unseen = np.full((len(finished) - len(matured), logits.shape[1]), np.nan, np.float32)
        held = np.flatnonzero(kept(finished.label == 0, self._config, slide, 1))
        replay.add(finished.take(held), slide, np.concatenate([logits[: len(matured)], unseen])[held])
        replayed, steps = sum(plan.replayed), len(plan.fresh)
        mean_loss = total / (plan.rows + replayed) if steps else float("nan")
        return Learned(plan.rows, replayed, steps, mean_loss, plan.skipped_fresh, plan.skipped_replay)

    def _begin(self, labels: NDArray[np.float32]) -> None:
        """The first examples' log-odds are what an untaught model says, [n]."""
        positives = float(labels.sum())
        self.candidate.offset.assign(math.log((positives + 0.5) / (len(labels) - positives + 0.5)))

    def _boost(self) -> float:
        """What steps are multiplied by: raised at a drift, halved again and again since."""
        settings = self._config.learning.warm_restart
        if self._boosted_at is None or settings.boost == 1:
            return 1.0
        passed = (self._learned_rows - self._boosted_at) / settings.half_life
        return float(1 + (settings.boost - 1) * 0.5**passed)

    def _take_in(self, lessons: Lessons, slide: int) -> None:
        """Normalisation, bins and exact ids, before anything is learned."""
        fresh = lessons.examples if lessons.first.all() else lessons.examples.take(lessons.first)
        ids, scaled = self._steps.inputs(fresh)
        self._normaliser.update(scaled)
        self.candidate.encoder.mean.assign(self._normaliser.mean())
        self.candidate.encoder.deviation.assign(self._normaliser.deviation())
        if self._bins.update(self.features.take_numbers(fresh.numbers)):
            self.candidate.encoder.edges.assign(self._bins.edges)
        self._ids.take_in(ids, fresh.time, slide)

    def erase(self, column: int, ids: NDArray[np.uint64], slide: int) -> int:
        """Forgets ids of a column of `ExampleBatch.ids` in the candidate's exact tables, before the slide of that
        number; returns how many had a row. The champion stays what was published."""
        self._looked_at = None
        return self._ids.erase(column, ids[ids != 0].view(np.int64), slide)

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
        if self._shift is not None and self.candidate.shift is not None:
            self.candidate.shift.assign(self._shift.now)
        self._trainer.forget()
        for name, moved in self._trainer.moved.items():
            moved.restarted(self.candidate.tables[name].shape[0])
        self._ids.restarted(slide)
        self.candidate.encoder.mean.assign(self._normaliser.mean())
        self.candidate.encoder.deviation.assign(self._normaliser.deviation())
        size = min(self._config.learning.batch_size, len(replay))
        draws = (replay.draw(size, slide, _CATCH_UP_STEP + step) for step in range(steps if size else 0))
        return self._relearn(draws, replay, (CATCH_UP_STAGE, slide), "of catching up")

    def rehearse(self, replay: Replay, slide: int, passes: int) -> int:
        """Goes `passes` times through all that `replay` holds, after a slide. Returns the rows."""
        draws = replay.passes(passes, self._config.learning.batch_size, slide)
        return self._relearn(draws, replay, (REHEARSAL_STAGE, slide), "of the warm start")

    def _relearn(self, draws: Iterable[Drawn], replay: Replay, at: tuple[int, int], what: str) -> int:
        """Steps on drawn rows alone; `at`: stage and slide. Returns how many rows they were."""
        blanks, rows = np.random.default_rng([self._config.seed, *at]), 0
        for step, drawn in enumerate(draws):
            taken = self._steps.take(None, drawn, blanks, self._boost(), f"slide {at[1]}, step {step} {what}")
            replay.learned(drawn, taken[1])
            rows += len(drawn.rows)
        return rows

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

    def version_changes(self) -> dict[str, NDArray[Any] | Changed]:
        """As `version_variables` of the champion, but of the tables only the rows that changed since the state was
        captured or restored last. The next capture, if of changes, holds the same copies of them."""
        told: dict[str, NDArray[Any] | Changed] = {**self._dense_of(self.champion)}
        for name, moved in self._trainer.moved.items():
            moved.told = changed(self.champion.tables[name], moved.champion.rows(), self._buffers)
            told[f"table/{name}"] = moved.told
        return told

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

    @property
    def ids(self) -> Mapping[str, IdTable]:
        """Per id feature with an exact table, who has a row."""
        return self._ids.tables

    def table_fill(self) -> dict[str, float]:
        """Per id feature the share of its table in use: ids held where exact, rows ever learned where hashed."""
        fill = self._trainer.touched()
        rows = {column.name: column.rows for column in self.features.ids}
        return fill | {name: len(table.ids) / rows[name] for name, table in self.ids.items()}

    def condition(self) -> Condition | None:
        """How able to learn the candidate's network is, on the last examples learned; None before there are any."""
        return None if self._looked_at is None else self._plasticity.condition(self._model_inputs(self._looked_at))

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
                candidate[one] = changed(variable, rows, self._buffers)
            if self.has_champion:
                rows, told = moved.champion.take(), moved.told_again()
                champion[table] = told or changed(self.champion.tables[name], rows, self._buffers)
            if self.previous is not None and self.has_previous:
                previous[table] = changed(self.previous.tables[name], moved.previous.take(), self._buffers)
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
        self._ids.restore(state["ids"])
        self._learned_rows = int(state["learned_rows"])
        self._boosted_at = state["boosted_at"]
        if self._shift is not None:
            self._shift.restore(state["shift"])
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
            "ids": self._ids.capture(),
            "learned_rows": self._learned_rows,
            "boosted_at": self._boosted_at,
            **({} if self._shift is None else {"shift": self._shift.capture()}),
            "moved": {name: moved.ever.packed() for name, moved in self._trainer.moved.items()},
        }

    def _model_inputs(self, batch: ExampleBatch) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        return *self._steps.inputs(batch), batch.time

    def _learning_variables(self) -> dict[str, Any]:
        heads = {} if self._heads is None else self._heads.variables
        return {**self.candidate.variables, **self.candidate.random_state, **self._trainer.variables, **heads}

    def _learning_state(self) -> dict[str, NDArray[Any]]:
        return arrays_of(self._learning_variables())


def _copy_rows(source: Any, target: Any, rows: NDArray[np.int64]) -> None:
    target.scatter_update(tf.IndexedSlices(rows_of(source, rows), rows))

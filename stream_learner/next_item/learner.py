"""The candidate that learns to rank, and the champion it is compared with."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner import settings
from stream_learner.changes import Changed
from stream_learner.errors import LearningError
from stream_learner.learning.learned import Learned
from stream_learner.learning.model import arrays_of, assign_all
from stream_learner.learning.shapes import filled, rows_given
from stream_learner.next_item.card import Listed
from stream_learner.next_item.catalogue import NO_ROW, Catalogue
from stream_learner.next_item.exemplars import Exemplars, sequences
from stream_learner.next_item.index import SessionIndex
from stream_learner.next_item.model import RankingModel
from stream_learner.next_item.sessions import F32, I64, SessionStore, Touched
from stream_learner.next_item.training import (
    NetworkTrainer,
    Reminder,
    Sequences,
    all_negatives,
    drawn_negatives,
    with_targets,
)

LEARN_STAGE, CATCH_UP_STAGE = 42, 44  # stage constants of the seeds, so that no two stages share a random stream
_NEVER = np.float32(-1e9)


class RankingLearner:
    """Ranking models of equal shape: the candidate follows every slide, the champion is a copy of it as of the last
    promotion, and for the time of a canary there is the one before that."""

    def __init__(self, config: settings.NextItem, seed: int) -> None:
        self._config, self._seed = config, seed
        self.candidate = RankingModel(config, seed)
        self.champion = RankingModel(config, seed)
        self.previous = RankingModel(config, seed) if config.canary.duration is not None else None
        self.has_champion = self.has_previous = False
        self.has_learned = False  # the catalogue has an item
        network = self.candidate.network
        self._trainer = None if network is None else NetworkTrainer(network)
        self._renewed = np.zeros(self.candidate.height, bool)  # rows given out anew since the last promotion
        self._items = 0  # in the champion's catalogue
        self._told = False  # neither champion nor previous has changed since the last capture

    def learn(
        self, store: SessionStore, touched: Touched, catalogue: Catalogue, given: I64, slide: int, now: int
    ) -> Learned:
        """Fine-tunes the network on the sessions that a slide touched, mixed with earlier ones, then takes
        catalogue and index in as they are `now` (us). `given`: rows given out to new items.

        Raises LearningError at a non-finite loss or gradient, with the weights as they were before that step.
        """
        rows, shares = catalogue.rows(store.items), catalogue.shares(now)
        learned = Learned(0, 0, 0, float("nan"))
        self._renewed[given] = True
        if self.candidate.network is not None and self._trainer is not None:
            self._describe(catalogue)
            self.candidate.network.renew(given, slide)
            self._trainer.forget(given)
            learned = self._train(self._trainer, store, touched, rows, shares, slide)
        self._refresh(store, catalogue, rows, shares, now)
        return learned

    def _describe(self, catalogue: Catalogue) -> None:
        """Features of items, and who may have a vector of its own, as the catalogue has them now."""
        network, trainer = self.candidate.network, self._trainer
        if network is not None and trainer is not None and network.features is not None:
            network.features.by_item.assign(catalogue.features())
            trainer.learn_own(catalogue.own())

    def _refresh(self, store: SessionStore, catalogue: Catalogue, rows: I64, shares: F32, now: int) -> None:
        index, how = None, self._config.neighbours
        if self.candidate.index is not None:
            index = SessionIndex.of(
                store,
                np.where(catalogue.own()[rows], rows, NO_ROW),
                (self._config.sessions.capacity, self._config.catalogue.capacity),
                now=now,
                recency=None if how.recency is None else int(how.recency),
                length_power=how.length,
                repeats=self._config.model == "markov",
            )
        self.candidate.take_in(catalogue.admitted(), shares, index)
        self.has_learned = len(catalogue) > 0

    # ---- training -------------------------------------------------------------------------------------------

    def _train(
        self, trainer: NetworkTrainer, store: SessionStore, touched: Touched, rows: I64, shares: F32, slide: int
    ) -> Learned:
        config, recent = self._config.network, self._config.sessions.recent
        fresh = sequences(store, rows, touched.rows, touched.older, recent)
        earlier = np.ones(len(store), bool)
        earlier[touched.rows] = False
        pool = Exemplars(store, rows, np.flatnonzero(earlier), shares, recent, config.replay_by)
        learned = replayed = steps = 0
        total = 0.0
        random = np.random.default_rng([self._seed, LEARN_STAGE, slide])
        for _ in range(config.passes):
            order = random.permutation(len(fresh))
            for start in range(0, len(fresh), config.batch_size):
                batch = fresh.take(order[start : start + config.batch_size])
                again = pool.draw(round(config.replay * len(batch)), random)
                loss = self._step(trainer, batch, again, shares, random, (slide, steps))
                learned, replayed, steps = learned + len(batch), replayed + len(again), steps + 1
                total += loss
        return Learned(learned, replayed, steps, total / steps if steps else float("nan"))

    def _step(
        self,
        trainer: NetworkTrainer,
        fresh: Sequences,
        again: Sequences,
        shares: F32,
        random: np.random.Generator,
        where: tuple[int, int],
    ) -> float:
        config = self._config.network
        if config.negatives is None:
            negatives = all_negatives(shares)
        else:
            negatives = drawn_negatives(shares, config.negatives, config.negative_power, random)
        batch = fresh.joined(again)
        if config.in_batch and config.negatives is not None:
            negatives = with_targets(negatives, batch.targets, shares)
        loss, taken = trainer.step(batch, negatives, self._reminder(again, shares))
        if not taken:
            raise LearningError(
                f"slide {where[0]}, step {where[1]} of next_item: loss or gradient is not finite (loss {loss}); "
                "nothing of this step was kept. Remedy: a lower next_item.network.learning_rate or table_learning_rate."
            )
        return loss

    def _reminder(self, again: Sequences, shares: F32) -> Reminder | None:
        """The champion's top logits on replayed sessions, weighed by the share of the catalogue it knew."""
        config, champion = self._config.network, self.champion.network
        if not config.distillation or not self.has_champion or champion is None or not len(again):
            return None
        latest_first = filled(again.items[:, ::-1], rows_given(len(again)))
        users = filled(again.users, rows_given(len(again))).view(np.int64)
        logits = champion.logits(tf.constant(latest_first), tf.constant(users))[: len(again)]
        known = tf.constant((shares >= 0) & ~self._renewed)[None, :]
        top = tf.math.top_k(tf.where(known, logits, _NEVER), min(config.distilled, self.champion.height))
        items = max(int(np.count_nonzero(shares >= 0)), 1)
        weight = config.distillation * (min(self._items, items) / items) ** 0.5
        return Reminder(top.indices.numpy(), top.values.numpy(), weight)

    def restart(self, store: SessionStore, catalogue: Catalogue, slide: int, now: int, steps: int) -> int:
        """The candidate's network goes on from the champion's: its weights, with fresh vectors for items that came
        since, fresh optimizer slots, then `steps` steps on sessions drawn from the store. Catalogue and index are
        counts, and stay as they are. Returns the sessions replayed: none without a network.

        Raises LearningError as `learn`.
        """
        network, trainer, champion = self.candidate.network, self._trainer, self.champion.network
        if network is None or trainer is None or champion is None:
            return 0
        for name, variable in network.variables.items():
            variable.assign(champion.variables[name])
        self._describe(catalogue)
        network.renew(np.flatnonzero(self._renewed), slide)
        trainer.forget_all()
        replayed = self._catch_up(trainer, store, catalogue, slide, now, steps)
        network.settle()
        return replayed

    def _catch_up(
        self, trainer: NetworkTrainer, store: SessionStore, catalogue: Catalogue, slide: int, now: int, steps: int
    ) -> int:
        config, recent, shares = self._config.network, self._config.sessions.recent, catalogue.shares(now)
        rows, every = catalogue.rows(store.items), np.arange(len(store))
        pool = Exemplars(store, rows, every, shares, recent, config.replay_by)
        random, replayed = np.random.default_rng([self._seed, CATCH_UP_STAGE, slide]), 0
        none = pool.draw(0, random)
        for step in range(steps):
            again = pool.draw(config.batch_size, random)
            if not len(again):
                break
            self._step(trainer, none, again, shares, random, (slide, step))
            replayed += len(again)
        return replayed

    # ---- versions -------------------------------------------------------------------------------------------

    def promote(self, items: int) -> None:
        """Makes the candidate, as it is now, the champion, with so many items in its catalogue; where a canary is
        wanted, what was the champion is kept beside it."""
        if self.previous is not None and self.has_champion:
            _copy(self.champion, self.previous)
            self.has_previous = True
        _copy(self.candidate, self.champion)
        self.has_champion, self._items, self._told = True, items, False
        self._renewed[:] = False

    def load_champion(self, variables: dict[str, NDArray[Any]]) -> None:
        """Makes a published version the champion. Raises StateError when it is of another config."""
        self.champion.assign(variables)
        self.has_champion, self.has_previous, self._told = True, False, False
        self._items = int(np.count_nonzero(variables["items/share"] >= 0))
        self._renewed = self.champion.by_row() != self.candidate.by_row()

    def let_previous_go(self) -> None:
        """The canary is over."""
        self.has_previous, self._told = False, False

    def listed(self) -> Listed | None:
        """What the champion can recommend; None without one."""
        return Listed.of(self.champion) if self.has_champion else None

    def finite(self) -> bool:
        """Whether every number of the candidate is finite."""
        return all(
            bool(tf.reduce_all(tf.math.is_finite(v))) for v in self.candidate.variables.values() if v.dtype.is_floating
        )

    def model_sha256(self) -> str:
        """SHA-256 over the candidate's variables and slots, in name order."""
        digest = hashlib.sha256()
        for name, value in sorted(arrays_of(self._learning()).items()):
            digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            digest.update(np.ascontiguousarray(value).data)
        return digest.hexdigest()

    @property
    def retraces(self) -> int:
        """Graphs built beyond the first of each function; 0 unless something is wrong."""
        models = [self.candidate, self.champion, *([] if self.previous is None else [self.previous])]
        traced = [*(model.traces for model in models), 0 if self._trainer is None else self._trainer.traces]
        return sum(max(0, traces - 1) for traces in traced)

    # ---- state ----------------------------------------------------------------------------------------------

    def capture(self) -> dict[str, Any]:
        champion = self.champion.values() if self.has_champion else None
        return self._state(champion, self.previous.values() if self.previous and self.has_previous else None)

    def changes(self) -> dict[str, Any]:
        """As `capture`, without champion and previous where they are the ones that were captured last."""
        if not self.has_champion or not self._told:
            return self.capture()
        previous = _unchanged(self.previous) if self.previous and self.has_previous else None
        return self._state(_unchanged(self.champion), previous)

    def _state(self, champion: dict[str, Any] | None, previous: dict[str, Any] | None) -> dict[str, Any]:
        self._told = True
        return {
            "candidate": arrays_of(self._learning()),
            "champion": champion,
            "previous": previous,
            "has_learned": self.has_learned,
            "renewed": self._renewed.copy(),
            "items": self._items,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Raises StateError when the state is of another config."""
        assign_all(self._learning(), state["candidate"])
        self.has_champion, self.has_learned = state["champion"] is not None, bool(state["has_learned"])
        self.has_previous = self.previous is not None and state["previous"] is not None
        if self.has_champion:
            self.champion.assign(state["champion"])
        if self.previous is not None and self.has_previous:
            self.previous.assign(state["previous"])
        self._renewed, self._items, self._told = state["renewed"].copy(), int(state["items"]), True

    def _learning(self) -> dict[str, Any]:
        network = self.candidate.network
        more = {} if network is None or self._trainer is None else {**network.random_state, **self._trainer.variables}
        return {**self.candidate.variables, **more}


def _copy(model: RankingModel, to: RankingModel) -> None:
    for name, variable in to.variables.items():
        variable.assign(model.variables[name])


def _unchanged(model: RankingModel) -> dict[str, Changed]:
    """What a snapshot of changes says of a model that is as it was."""
    none, held = np.empty(0, np.int64), model.variables.items()
    return {name: Changed(none, np.empty((0, *v.shape[1:]), v.dtype.as_numpy_dtype), v.shape[0]) for name, v in held}

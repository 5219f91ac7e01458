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
from stream_learner.learning.learner import Learned
from stream_learner.learning.model import arrays_of, assign_all
from stream_learner.learning.shapes import filled, rows_given
from stream_learner.next_item.card import Listed
from stream_learner.next_item.catalogue import Catalogue
from stream_learner.next_item.index import SessionIndex
from stream_learner.next_item.model import RankingModel
from stream_learner.next_item.network import padded_sequences
from stream_learner.next_item.sessions import F32, I64, SessionStore, Touched
from stream_learner.next_item.training import (
    NetworkTrainer,
    Reminder,
    Sequences,
    all_negatives,
    drawn_negatives,
)

LEARN_STAGE = 42  # stage constants of the seeds, so that no two stages share a random stream
_NEVER = np.float32(-1e9)


class RankingLearner:
    """Two ranking models of equal shape: the candidate follows every slide, the champion is a copy of it as of the last
    promotion."""

    def __init__(self, config: settings.NextItem, seed: int) -> None:
        self._config, self._seed = config, seed
        self.candidate = RankingModel(config, seed)
        self.champion = RankingModel(config, seed)
        self.has_champion = False
        self.has_learned = False  # the catalogue has an item
        network = self.candidate.network
        self._trainer = None if network is None else NetworkTrainer(network)
        self._renewed = np.zeros(self.candidate.height, bool)  # rows given out anew since the last promotion
        self._items = 0  # in the champion's catalogue
        self._told = False  # the champion has not changed since the last capture

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
            self.candidate.network.renew(given, slide)
            self._trainer.forget(given)
            learned = self._train(self._trainer, store, touched, rows, shares, slide)
        self._refresh(store, catalogue, rows, shares, now)
        return learned

    def _refresh(self, store: SessionStore, catalogue: Catalogue, rows: I64, shares: F32, now: int) -> None:
        index, how = None, self._config.neighbours
        if self.candidate.index is not None:
            index = SessionIndex.of(
                store,
                rows,
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
        loss, taken = trainer.step(fresh.joined(again), negatives, self._reminder(again, shares))
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
        logits = champion.logits(tf.constant(latest_first))[: len(again)]
        known = tf.constant((shares >= 0) & ~self._renewed)[None, :]
        top = tf.math.top_k(tf.where(known, logits, _NEVER), min(config.distilled, self.champion.height))
        items = max(int(np.count_nonzero(shares >= 0)), 1)
        weight = config.distillation * (min(self._items, items) / items) ** 0.5
        return Reminder(top.indices.numpy(), top.values.numpy(), weight)

    # ---- versions -------------------------------------------------------------------------------------------

    def promote(self, items: int) -> None:
        """Makes the candidate, as it is now, the champion, with so many items in its catalogue."""
        for name, variable in self.champion.variables.items():
            variable.assign(self.candidate.variables[name])
        self.has_champion, self._items, self._told = True, items, False
        self._renewed[:] = False

    def load_champion(self, variables: dict[str, NDArray[Any]]) -> None:
        """Makes a published version the champion. Raises StateError when it is of another config."""
        self.champion.assign(variables)
        self.has_champion, self._told = True, False
        self._items = int(np.count_nonzero(variables["items/share"] >= 0))
        self._renewed = self.champion.by_row() != self.candidate.by_row()

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
        models = [self.candidate.traces, self.champion.traces]
        return sum(max(0, traces - 1) for traces in [*models, 0 if self._trainer is None else self._trainer.traces])

    # ---- state ----------------------------------------------------------------------------------------------

    def capture(self) -> dict[str, Any]:
        return self._state(self.champion.values() if self.has_champion else None)

    def changes(self) -> dict[str, Any]:
        """As `capture`, without the champion where it is the one that was captured last."""
        if not self.has_champion or not self._told:
            return self.capture()
        held = {name: (v.shape, v.dtype.as_numpy_dtype) for name, v in self.champion.variables.items()}
        none = np.empty(0, np.int64)
        return self._state(
            {name: Changed(none, np.empty((0, *shape[1:]), kind), shape[0]) for name, (shape, kind) in held.items()}
        )

    def _state(self, champion: dict[str, Any] | None) -> dict[str, Any]:
        self._told = True
        return {
            "candidate": arrays_of(self._learning()),
            "champion": champion,
            "has_learned": self.has_learned,
            "renewed": self._renewed.copy(),
            "items": self._items,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Raises StateError when the state is of another config."""
        assign_all(self._learning(), state["candidate"])
        self.has_champion, self.has_learned = state["champion"] is not None, bool(state["has_learned"])
        if self.has_champion:
            self.champion.assign(state["champion"])
        self._renewed, self._items, self._told = state["renewed"].copy(), int(state["items"]), True

    def _learning(self) -> dict[str, Any]:
        network = self.candidate.network
        more = {} if network is None or self._trainer is None else {**network.random_state, **self._trainer.variables}
        return {**self.candidate.variables, **more}


def sequences(store: SessionStore, rows: I64, sessions: I64, older: I64, recent: int) -> Sequences:
    """Sessions as the network learns them; targets are events from place `older` on whose items are admitted. Sessions
    without any are left out. `rows`: table row of each event of the store."""
    starts, lengths = store.starts[sessions], np.diff(store.starts)[sessions]
    items = padded_sequences(rows, starts, lengths - 1, recent)
    targets = padded_sequences(rows, starts + 1, lengths - 1, recent)
    place = lengths[:, None] - recent + np.arange(recent)
    targets = np.where((place >= np.maximum(older, 1)[:, None]) & (items > 0), targets, 0).astype(np.int32)
    last = starts[:, None] + place
    weights = store.weights[np.clip(last, 0, max(len(store.weights) - 1, 0))] if len(store.weights) else last
    kept = np.flatnonzero(targets.any(axis=1))
    return Sequences(items[kept], targets[kept], np.where(targets > 0, weights, 0.0).astype(np.float32)[kept])


class Exemplars:
    """Earlier sessions to be reminded of: drawn uniformly, or so that every item is the target equally often."""

    def __init__(self, store: SessionStore, rows: I64, sessions: I64, shares: F32, recent: int, by: str) -> None:
        self._store, self._rows, self._recent = store, rows, recent
        lengths = np.diff(store.starts)
        self._sessions = sessions[lengths[sessions] > 1]
        self._by_item = by == "item"
        if self._by_item:
            inside = np.zeros(len(store), bool)
            inside[self._sessions] = True
            whole = np.repeat(np.arange(len(store)), lengths)
            later = np.arange(len(rows)) > store.starts[whole]
            self._events = np.flatnonzero(inside[whole] & later & (rows > 0))
            self._session = whole[self._events]
            often = np.bincount(rows[self._events], minlength=len(shares))
            self._cumulated = np.cumsum(1.0 / np.maximum(often[rows[self._events]], 1))

    def draw(self, count: int, random: np.random.Generator) -> Sequences:
        """`count` sequences with replacement; by item, each ends in one target drawn for its item."""
        nothing = np.empty(0, np.int64)
        if not count or not len(self._sessions) or (self._by_item and not len(self._events)):
            return sequences(self._store, self._rows, nothing, nothing, self._recent)
        if not self._by_item:
            chosen = self._sessions[random.integers(0, len(self._sessions), count)]
            return sequences(self._store, self._rows, chosen, np.zeros(count, np.int64), self._recent)
        drawn = random.random(count) * self._cumulated[-1]
        at = np.minimum(np.searchsorted(self._cumulated, drawn, side="right"), len(self._events) - 1)
        return self._ending(self._events[at], self._session[at])

    def _ending(self, events: I64, sessions: I64) -> Sequences:
        starts = self._store.starts[sessions]
        items = padded_sequences(self._rows, starts, events - starts, self._recent)
        targets, weights = np.zeros_like(items), np.zeros(items.shape, np.float32)
        targets[:, -1], weights[:, -1] = self._rows[events], self._store.weights[events]
        return Sequences(items, targets, weights)

"""Session-kNN in the graph: recent items -> sessions that share some -> what those went on to.

STAN's form (Garg, Gupta, Malhotra, Vig, Shroff: SIGIR 2019): a recent item counts by its distance and rarity, a
neighbour by its length and age, and each of its items by its distance from the latest one shared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from stream_learner import settings
from stream_learner.learning.encoder import Tensor
from stream_learner.next_item.index import SessionIndex


class NeighbourIndex:
    """A `SessionIndex` as variables. `variables`: name -> tf.Variable, all part of a version."""

    def __init__(self, events: int, items: int) -> None:
        self._events, self._items = events, items
        shapes = dict.fromkeys(("entry_item", "entry_place", "entry_session", "postings"), events)
        shapes |= {"starts": events + 1, "pointers": items + 2}
        self._held = {name: tf.Variable(np.zeros(size, np.int32), trainable=False) for name, size in shapes.items()}
        for name, size in {"session_weight": events, "rarity": items + 1}.items():
            self._held[name] = tf.Variable(np.zeros(size, np.float32), trainable=False)
        self.variables: dict[str, Any] = {f"sessions/{name}": variable for name, variable in self._held.items()}

    def assign(self, index: SessionIndex) -> None:
        for name, variable in self._held.items():
            variable.assign(getattr(index, name))

    def neighbours(self, recent: Tensor, per_item: int) -> tuple[Tensor, Tensor, Tensor]:
        """Matches of recent items, as flat columns [E]: the slot (row of `recent` times its width, plus column), the
        session, and the item's place in it; slot by slot, latest sessions first. `recent`: int32 [B, R] table rows, 0 =
        none; an item counts where it stands latest, once."""
        width = tf.shape(recent)[1]
        earlier = tf.linalg.band_part(tf.ones([width, width], tf.bool), -1, 0)
        earlier = tf.logical_and(earlier, tf.logical_not(tf.eye(width, dtype=tf.bool)))
        same = tf.equal(recent[:, :, None], recent[:, None, :])
        again = tf.reduce_any(tf.logical_and(same, earlier), axis=2)
        item = tf.reshape(tf.where(again, 0, recent), [-1])
        ends = tf.gather(self._held["pointers"], item + 1)
        first = tf.maximum(tf.gather(self._held["pointers"], item), ends - per_item)
        first = tf.where(tf.equal(item, 0), ends, first)
        slot, posting = _ranges(ends - 1, first - 1, -1)
        entry = tf.gather(self._held["postings"], posting)
        return slot, tf.gather(self._held["entry_session"], entry), tf.gather(self._held["entry_place"], entry)

    def stan(self, recent: Tensor, how: settings.SessionNeighbours) -> Tensor:
        """The score of every table row, float32 [B, items + 1], 0 where no neighbour has it. `recent`: latest first."""
        rows, width = tf.shape(recent)[0], tf.shape(recent)[1]
        slot, session, place = self.neighbours(recent, how.per_item)
        row, column = slot // width, slot % width
        rarity = self._held["rarity"]
        weight = tf.exp(-tf.cast(column, tf.float32) / how.sequence_decay)
        weight *= tf.pow(tf.gather(rarity, tf.gather(tf.reshape(recent, [-1]), slot)), how.rarity)
        pair = tf.unique(tf.cast(row, tf.int64) * self._events + tf.cast(session, tf.int64))
        pairs = tf.size(pair.y)
        similarity = tf.math.unsorted_segment_sum(weight, pair.idx, pairs)
        nearest = tf.math.unsorted_segment_min(tf.range(tf.size(slot)), pair.idx, pairs)  # slots go from the latest on
        neighbour = tf.cast(pair.y % self._events, tf.int32)
        similarity = tf.pow(similarity, how.sharpness) * tf.gather(self._held["session_weight"], neighbour)
        starts = self._held["starts"]
        which, entry = _ranges(tf.gather(starts, neighbour), tf.gather(starts, neighbour + 1), 1)
        item = tf.gather(self._held["entry_item"], entry)
        steps = tf.gather(self._held["entry_place"], entry) - tf.gather(place, tf.gather(nearest, which))
        value = tf.gather(similarity, which) * _kernel(tf.cast(steps, tf.float32), how)
        value *= tf.gather(tf.pow(rarity, how.target_rarity), item)
        target = tf.cast(pair.y // self._events, tf.int32)
        return self._by_item(value, tf.gather(target, which), item, rows)

    def markov(self, recent: Tensor) -> Tensor:
        """How often each item came right behind the latest one, float32 [B, items + 1]."""
        slot, session, place = self.neighbours(recent[:, :1], self._events)
        starts = self._held["starts"]
        which, entry = _ranges(tf.gather(starts, session), tf.gather(starts, session + 1), 1)
        behind = tf.equal(tf.gather(self._held["entry_place"], entry), tf.gather(place, which) + 1)
        item = tf.gather(self._held["entry_item"], entry)
        return self._by_item(tf.cast(behind, tf.float32), tf.gather(slot, which), item, tf.shape(recent)[0])

    def _by_item(self, value: Tensor, row: Tensor, item: Tensor, rows: Tensor) -> Tensor:
        width = self._items + 1
        flat = tf.math.unsorted_segment_sum(value, row * width + item, rows * width)
        return tf.reshape(flat, [rows, width])


def _kernel(steps: Tensor, how: settings.SessionNeighbours) -> Tensor:
    """What an item of a neighbour counts, so many steps behind the latest shared one."""
    weight = tf.exp(-(tf.abs(steps) - 1.0) / how.position_decay)
    weight = tf.where(steps > 0, weight * how.forward, weight)
    return tf.where(tf.equal(steps, 0), how.shared, weight)


def _ranges(starts: Tensor, limits: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """All numbers of every range, one after another, and which range each is of: int32 [E] both."""
    ranges = tf.raw_ops.RaggedRange(starts=starts, limits=limits, deltas=tf.constant(step, tf.int32))
    splits = tf.cast(ranges.rt_nested_splits, tf.int32)
    values = ranges.rt_dense_values
    return tf.searchsorted(splits, tf.range(tf.size(values)), side="right") - 1, values

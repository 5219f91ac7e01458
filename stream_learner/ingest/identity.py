"""Who and which: fingerprints of ids, keyed pseudonyms of users, and events that were sent twice."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner.errors import DataError
from stream_learner.events import MISSING_ID, EventBatch
from stream_learner.settings import Duration

_NO_BYTES = np.uint64(0x9AE16A3B2F90404F)  # farmhash Fingerprint64 of no bytes


def fingerprints(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Farmhash Fingerprint64 of each text's UTF-8 bytes, shape [n]; "" gives MISSING_ID.

    TensorFlow's own op, so that a published model, which hashes inside, sees the same ids. The one text in 2^64 that
    hashes to MISSING_ID by itself becomes 1.
    """
    if not len(texts):
        return np.empty(0, np.uint64)
    out: NDArray[np.uint64] = np.array(tf.fingerprint(tf.constant(texts, tf.string))).view(np.uint64).ravel()
    out[out == MISSING_ID] = 1
    for row in np.flatnonzero(out == _NO_BYTES).tolist():
        if texts[row] == "":
            out[row] = MISSING_ID
    return out


class Pseudonymiser:
    """Replaces ids by keyed BLAKE2b digests (RFC 7693), 16 bytes, as 32 hex digits.

    The same id under the same key always gives the same pseudonym, in every worker; without the key neither the id
    nor its hash can be found by trying. The key text is hashed first (BLAKE2b, 64 bytes), so any length will do.
    """

    def __init__(self, key: str) -> None:
        self._keyed = blake2b(digest_size=16, key=blake2b(key.encode()).digest())

    def pseudonyms(self, ids: Sequence[str]) -> list[str]:
        """One pseudonym per id; a missing id ("") stays missing."""
        return [self._pseudonym(text) if text else "" for text in ids]

    def _pseudonym(self, text: str) -> str:
        digest = self._keyed.copy()
        digest.update(text.encode())
        return digest.hexdigest()


class Deduplicator:
    """Drops an event whose id was kept at most `window` of event time before it, on whatever topic or partition.

    The span counts from the kept occurrence: repeats do not extend it, so a drizzle of repeats lets one through per
    window. Ids without a kept occurrence within `window` of the latest event are forgotten, so memory is 16 bytes
    per id and window. Expects event times to rise from call to call, as slides do.
    """

    def __init__(self, window: Duration, max_ids: int) -> None:
        self._window = int(window)
        self._max_ids = max_ids
        self._ids = np.empty(0, np.uint64)  # sorted
        self._kept = np.empty(0, np.int64)  # time of the kept occurrence, us

    def __len__(self) -> int:
        """Ids remembered."""
        return len(self._ids)

    def fresh(self, events: EventBatch) -> NDArray[np.bool_]:
        """Mask [n] of the events to keep; `events` in log order. Events without an id are always kept."""
        keep = np.ones(len(events), bool)
        named = np.flatnonzero(events.event_id != MISSING_ID)
        if len(named):
            by_id = named[np.argsort(events.event_id[named], kind="stable")]  # in log order within an id
            keep[by_id] = self._judge(events.event_id[by_id], events.time[by_id])
        if len(events):
            self._forget_before(int(events.time[-1]) - self._window)
        if len(self) > self._max_ids:
            raise DataError(
                f"{len(self):,} event ids are remembered, more than dedupe.max_ids {self._max_ids:,}: raise it, or "
                "shorten dedupe.window, which is part of the model. The state is as of the last snapshot"
            )
        return keep

    def _judge(self, ids: NDArray[np.uint64], times: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask of rows to keep, given rows grouped by id and by time within; remembers what is kept."""
        first = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
        group = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(ids)]))
        at, known = self._find(ids[first])
        kept = times[first]
        kept[known] = self._kept[at[known]]
        keep = np.zeros(len(ids), bool)
        keep[first[~known]] = True
        # A repeat kept because the window had passed opens the next one: one round per window that an id fills.
        beyond = np.flatnonzero(times - kept[group] > self._window)
        while len(beyond):
            next_groups, where = np.unique(group[beyond], return_index=True)
            keep[beyond[where]] = True
            kept[next_groups] = times[beyond[where]]
            beyond = beyond[times[beyond] - kept[group[beyond]] > self._window]
        self._kept[at[known]] = kept[known]
        self._ids = np.insert(self._ids, at[~known], ids[first[~known]])
        self._kept = np.insert(self._kept, at[~known], kept[~known])
        return keep

    def _find(self, ids: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where each of the ids stands, or would be inserted; and which of them are remembered."""
        at = np.searchsorted(self._ids, ids)
        known = np.zeros(len(ids), bool)
        inside = at < len(self._ids)
        known[inside] = self._ids[at[inside]] == ids[inside]
        return at, known

    def _forget_before(self, time: int) -> None:
        stay = self._kept >= time
        if not stay.all():
            self._ids, self._kept = self._ids[stay], self._kept[stay]

    def capture(self) -> dict[str, Any]:
        return {"ids": self._ids.copy(), "kept": self._kept.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        self._ids = state["ids"].astype(np.uint64)
        self._kept = state["kept"].astype(np.int64)

"""The index behind session-kNN: sessions by item, as flat arrays of fixed shape that a version carries.

entries   one per session and item in it, at the place of its last occurrence; sorted by session
postings  the entries sorted by item, the latest session last
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.next_item.catalogue import NO_ROW
from stream_learner.next_item.sessions import I64, SessionStore

I32 = NDArray[np.int32]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SessionIndex:
    """Arrays padded with zeros to `events` entries; the first [entries] and [sessions] count."""

    entry_item: I32  # [events] table row
    entry_place: I32  # [events] place within the session, from 0
    entry_session: I32  # [events]
    starts: I32  # [events + 1] first entry of each session
    postings: I32  # [events] entries by item
    pointers: I32  # [items + 2] first posting of each table row
    session_weight: F32  # [events] by age and length
    rarity: F32  # [items + 1] log(sessions / sessions with the item)

    @classmethod
    def of(
        cls,
        store: SessionStore,
        rows: I64,
        capacity: tuple[int, int],
        *,
        now: int,
        recency: int | None,
        length_power: float,
        repeats: bool,
    ) -> SessionIndex:
        """`rows`: table row of each event of the store, NO_ROW where its item is not admitted; `capacity`: events and
        items; `repeats`: an entry for every event instead. Sessions of a single event are nobody's neighbour."""
        events, items = capacity
        lengths = np.diff(store.starts)
        whole = np.repeat(np.arange(len(store)), lengths)
        place = np.arange(len(rows)) - store.starts[whole]
        wanted = (rows != NO_ROW) & (lengths[whole] > 1)
        kept = np.flatnonzero(wanted if repeats else wanted & _last_in_session(whole, rows))
        sessions, session = np.unique(whole[kept], return_inverse=True)
        item = rows[kept]
        distinct = np.bincount(session, minlength=len(sessions))
        age = (now - store.last[sessions]).astype(np.float64)
        weight = np.maximum(distinct, 1) ** -length_power * (1.0 if recency is None else np.exp(-age / recency))
        held = np.bincount(item, minlength=items + 1)
        newest = np.lexsort((store.last[sessions][session], item))
        return cls(
            entry_item=_padded(item, events),
            entry_place=_padded(place[kept], events),
            entry_session=_padded(session, events),
            starts=_padded(np.concatenate([[0], np.cumsum(distinct)]), events + 1, fill=len(kept)),
            postings=_padded(newest, events),
            pointers=_padded(np.concatenate([[0], np.cumsum(held)]), items + 2),
            session_weight=_padded(weight, events, np.float32),
            rarity=np.log(np.maximum(len(sessions), 1) / np.maximum(held, 1)).astype(np.float32),
        )


def _last_in_session(session: I64, rows: I64) -> NDArray[np.bool_]:
    """Whether an event is the last of its item in its session, [n]; events stand session by session, in order."""
    order = np.lexsort((np.arange(len(rows)), rows, session))
    last = np.ones(len(rows), bool)
    same = (session[order][1:] == session[order][:-1]) & (rows[order][1:] == rows[order][:-1])
    last[order[:-1][same]] = False
    return last


def _padded(values: NDArray[Any], size: int, dtype: type = np.int32, fill: int = 0) -> NDArray[Any]:
    out: NDArray[Any] = np.full(size, fill, dtype)
    out[: len(values)] = values
    return out

"""Embedding tables: their first values, and which row an id has.

Row 0 belongs to a missing id. A hashed table has `rows` more; an exact one has row 1 for ids it does not know, then
a row per id, first come, until `rows` ids are taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_learner.learning.features import IdColumn

TABLE_STAGE = 11  # stage constant of the seeds, so that no two stages share a random stream
TABLE_SCALE = 0.01  # small against a standardised input: an id seen for the first time hardly moves a score

MISSING_ROW = 0
UNKNOWN_ROW = 1
PADDING = np.int64(np.iinfo(np.int64).max)  # fills the sorted fingerprints of an exact table beyond those in use

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]


def table_height(column: IdColumn) -> int:
    """Rows of the table's variable, the reserved ones included."""
    return column.rows + (1 if column.table == "hashed" else 2)


def first_vectors(column: IdColumn, seed: int, index: int) -> NDArray[np.float32]:
    """Seeded normals of scale `TABLE_SCALE`, [height, dim]; `index` tells the tables of a model apart."""
    generator = np.random.default_rng([seed, TABLE_STAGE, index])
    vectors = generator.standard_normal((table_height(column), column.dim), dtype=np.float32)
    vectors *= np.float32(TABLE_SCALE)
    return vectors


def no_ids(rows: int) -> tuple[I64, I32]:
    """Fingerprints [rows] (sorted as signed numbers, then padding) and their table rows of an empty exact table.

    Padding points at the row of unknown ids, so an id that happens to equal it is simply unknown.
    """
    return np.full(rows, PADDING, np.int64), np.full(rows, UNKNOWN_ROW, np.int32)


def ids_held(rows: I32) -> int:
    """Ids that have a row, given the `rows` array of an exact table."""
    return int(np.count_nonzero(rows > UNKNOWN_ROW))


def admit(fingerprints: I64, rows: I32, ids: I64) -> tuple[I64, I32] | None:
    """The table with new ids let in, in order of first appearance, while there is room; None when nothing changed.

    `ids`: [n] fingerprints bitcast to int64, 0 = missing.
    """
    held = ids_held(rows)
    room = len(rows) - held
    if room == 0 or not len(ids):
        return None
    known = fingerprints[:held]
    unique, first = np.unique(ids, return_index=True)
    at = np.searchsorted(known, unique)
    seen = np.zeros(len(unique), bool)
    seen[at < held] = known[at[at < held]] == unique[at < held]
    new = ~seen & (unique != 0) & (unique != PADDING)
    if not new.any():
        return None
    unique, first = unique[new], first[new]
    arrival = np.argsort(first, kind="stable")[:room]
    table_rows = np.zeros(len(unique), np.int32)
    table_rows[arrival] = np.arange(held + 2, held + 2 + len(arrival), dtype=np.int32)
    let_in = table_rows > 0
    place = np.searchsorted(known, unique[let_in])
    out_fingerprints, out_rows = no_ids(len(rows))
    total = held + len(arrival)
    out_fingerprints[:total] = np.insert(known, place, unique[let_in])
    out_rows[:total] = np.insert(rows[:held], place, table_rows[let_in])
    return out_fingerprints, out_rows

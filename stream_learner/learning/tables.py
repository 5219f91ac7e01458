"""Embedding tables: their first values, and which row an id has.

Row 0 belongs to a missing id. A hashed table has `rows` more; an exact one has row 1 for ids it does not know, then
a row per id, as `id_tables.py` gives them out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_learner.learning.features import IdColumn

TABLE_STAGE = 11  # stage constants of the seeds, so that no two stages share a random stream
RENEWED_STAGE = 13
TABLE_SCALE = 0.01  # small against a standardised input: an id seen for the first time hardly moves a score

MISSING_ROW = 0
UNKNOWN_ROW = 1
PADDING = np.int64(np.iinfo(np.int64).max)  # fills the sorted fingerprints of an exact table beyond those in use

I64 = NDArray[np.int64]
I32 = NDArray[np.int32]


def table_height(column: IdColumn) -> int:
    """Rows of the table's variable, the reserved ones included."""
    return column.rows + (1 if column.table == "hashed" else 2)


def first_vectors(
    column: IdColumn, seed: int, index: int, count: int | None = None, slide: int | None = None
) -> NDArray[np.float32]:
    """Seeded normals of scale `TABLE_SCALE`, [count, dim], of the whole table unless given; `index` tells the tables of
    a model apart, and `slide` is that in which rows begin anew."""
    stages = [seed, TABLE_STAGE, index] if slide is None else [seed, RENEWED_STAGE, index, slide]
    shape = (table_height(column) if count is None else count, column.dim)
    vectors = np.random.default_rng(stages).standard_normal(shape, dtype=np.float32)
    vectors *= np.float32(TABLE_SCALE)
    return vectors


def no_ids(rows: int) -> tuple[I64, I32]:
    """Fingerprints [rows] (sorted as signed numbers, then padding) and their table rows of an empty exact table.

    Padding points at the row of unknown ids, so an id that happens to equal it is simply unknown.
    """
    return np.full(rows, PADDING, np.int64), np.full(rows, UNKNOWN_ROW, np.int32)


def free_rows(taken: I32, rows: int) -> I32:
    """Rows of an exact table of `rows` ids that no id has, ascending."""
    free = np.ones(rows + 2, bool)
    free[[MISSING_ROW, UNKNOWN_ROW]] = False
    free[taken] = False
    return np.flatnonzero(free).astype(np.int32)

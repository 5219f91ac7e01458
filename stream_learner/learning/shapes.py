"""How many rows a graph is given, so that kernels are made for few shapes.

oneDNN generates machine code for each shape of a product and keeps up to 1,024 of them per thread, about half a MiB
each; a stream's slides come in every size. Without this the resident memory of a worker grows for days.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEWEST = 16
_COARSE = 512  # up to here a step costs about the same whatever its rows


def rows_given(rows: int) -> int:
    """The least of 16, 32, 64, 128, 256, 512, 640, 768, 896, 1024, 1280, ..., four to an octave, that is at least
    `rows`."""
    octave = 1 << (max(rows, _FEWEST) - 1).bit_length()
    step = octave // 8 if octave > _COARSE else octave
    return -(-max(rows, 1) // step) * step


def filled(column: NDArray[Any], rows: int) -> NDArray[Any]:
    """A column [n, ...] of at least one row, its first row repeated behind it up to `rows`: no id is looked up that was
    not, and nothing is out of range."""
    missing = rows - len(column)
    return np.concatenate([column, np.repeat(column[:1], missing, axis=0)]) if missing > 0 else column

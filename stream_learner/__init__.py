"""Continual learning from e-commerce event streams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_learner.reading import State

__all__ = ["open_state"]


def open_state(path: str | Path, options: dict[str, Any] | None = None, model: str | None = None) -> State:
    """A state folder as pandas DataFrames, for notebooks; see `stream_learner.reading`. Needs the extra `notebooks`."""
    from stream_learner import reading  # what a worker never reads is not to cost it anything

    return reading.open_state(path, options, model)

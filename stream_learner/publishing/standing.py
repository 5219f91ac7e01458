"""The content of the version written last, in the writer's own memory.

The slide thread copies only the rows of tables that moved since the version before; here they are put where they
belong, and what differs from the version before becomes its delta.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from stream_learner.changes import Changed
from stream_learner.publishing.deltas import Arrays, Delta, between
from stream_learner.publishing.manifest import DeltaOf

Told = Mapping[str, NDArray[Any] | Changed]


class Standing:
    """`arrays` are those of `version`, `content` is their checksum. On the writer thread, but for `begin` at the start
    of a worker."""

    def __init__(self) -> None:
        self.version: int | None = None
        self.arrays: Arrays = {}
        self.content = ""  # empty until it is asked for
        self.delta: tuple[DeltaOf, Delta] | None = None  # what it differs in from the version before

    def begin(self, version: int, arrays: Arrays) -> None:
        """Goes on from a version that was written by an earlier process."""
        self.version, self.arrays, self.content, self.delta = version, arrays, "", None

    def advance(self, version: int, told: Told, against: int | None, checksum: Callable[[Arrays], str]) -> None:
        """The content becomes that of `version`, which is told `against` the one that stands; None = `told` is whole,
        of whatever shape, and there is no delta. Idempotent."""
        if version == self.version:
            return
        if against is None:
            self.begin(version, {name: _whole(name, value) for name, value in told.items()})
        else:
            self._move(version, told, against, checksum)
        self.content = checksum(self.arrays)

    def _move(self, version: int, told: Told, against: int, checksum: Callable[[Arrays], str]) -> None:
        if against != self.version:
            raise ValueError(f"version {version} was told against {against}, but {self.version} stands")
        parent = DeltaOf(parent=against, content_sha256=self.content or checksum(self.arrays))
        self.delta = parent, between(self.arrays, told)
        for name, value in told.items():
            self.arrays[name] = value.onto(self.arrays[name]) if isinstance(value, Changed) else value
        self.version = version

    def beside(self, max_share: float) -> tuple[DeltaOf, bytes] | None:
        """The delta as a file, where it takes at most so large a share of the whole."""
        if self.delta is None:
            return None
        parent, delta = self.delta
        bound = max_share * sum(array.nbytes for array in self.arrays.values())
        if delta.size_bytes > bound:
            return None
        content = delta.to_bytes()
        return (parent, content) if len(content) <= bound else None


def _whole(name: str, value: NDArray[Any] | Changed) -> NDArray[Any]:
    if not isinstance(value, Changed):
        return value
    if not value.whole:
        raise ValueError(f"{name} was told by its changes, but nothing stands before it")
    return value.values

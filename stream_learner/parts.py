"""The parts of a worker that have state, captured and restored together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


class Part(Protocol):
    """Has state."""

    def capture(self) -> Any:
        """A copy of all that the next slide depends on."""

    def restore(self, state: Any) -> None:
        """Goes on from what was captured."""


@runtime_checkable
class Incremental(Protocol):
    """A part that can tell what changed of it since it was last captured, told or restored."""

    def changes(self) -> dict[str, Any]:
        """As `capture`, with `Changed` leaves where only some rows did."""


class Parts:
    """All parts by name, in the order of the path."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = dict(parts)
        self._known_whole = False  # changes can be told against what was captured or restored last
        self._wholes = 0  # captures to come that are whole all the same

    def capture(self) -> dict[str, Any]:
        """A copy of everything the next slide depends on; of large parts, only what changed since the last."""
        state = {}
        for name, part in self._parts.items():
            if self._known_whole and not self._wholes and isinstance(part, Incremental):
                state[name] = part.changes()
            else:
                state[name] = part.capture()
        self._known_whole, self._wholes = True, max(self._wholes - 1, 0)
        return state

    def begin_anew(self) -> None:
        """Nothing that was captured before is to be built on any more. Two captures are whole: the first is soon the
        one kept apart from the newest, which would else be one from before."""
        self._wholes = 2

    def restore(self, state: Mapping[str, Any], *, as_written: bool) -> None:
        """`as_written`: the state is what lies on the disk, so that changes can be told against it; not so for one
        that was carried over into another config."""
        for name, part in self._parts.items():
            part.restore(state[name])
        self._known_whole = as_written

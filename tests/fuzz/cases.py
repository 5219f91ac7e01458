"""What is fuzzed: targets, their inputs, and the oracle that knows three fates and no other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import NamedTuple

from stream_learner.errors import StreamLearnerError

from .mutations import mutated


class Case(NamedTuple):
    """One input: where it is put (a topic, a file's name) and its bytes."""

    place: str
    content: bytes


Check = Callable[[Case], None]
"""Returns for an input that was accepted or refused as it should be; raises anything for a fault."""


def as_it_is(_: Random, case: Case) -> Case:
    return case


@dataclass(frozen=True)
class Target:
    """One kind of input.

    `open` is given an empty folder and returns the check; `mend` gives damaged bytes valid checksums again, so that
    what stands behind the checksums is reached too. `share` is the part of all inputs, in thousandths.
    """

    name: str
    share: int
    valid: Callable[[], list[Case]]
    open: Callable[[Path], Check]
    mend: Callable[[Random, Case], Case] = as_it_is

    @cached_property
    def seeds(self) -> list[Case]:
        return self.valid()

    def case(self, rng: Random) -> Case:
        """A damaged input; one in sixteen stands where another belongs, half are mended."""
        seed = rng.choice(self.seeds)
        content = mutated(rng, seed.content, [other.content for other in self.seeds])
        place = rng.choice(self.seeds).place if rng.randrange(16) == 0 else seed.place
        case = Case(place, content)
        return self.mend(rng, case) if rng.randrange(2) else case


@contextmanager
def refusable(*names: object) -> Iterator[None]:
    """Lets errors of our tree pass as a fate when the message names the place, by one of `names`."""
    try:
        yield
    except StreamLearnerError as error:
        named = [name for name in map(str, names) if name in str(error)]
        if not named:
            raise AssertionError(f"{type(error).__name__} names no place of {names}: {str(error)[:300]}") from error


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder, in memory where there is such a place: inputs are many and their fsyncs prove nothing here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)

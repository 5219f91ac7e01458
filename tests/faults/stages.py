"""A trial in progress: its folder, its lives one after the other, and what is noted of them."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .driver import Life
from .plans import Cut
from .volume import Volume
from .worlds import World

LIFE_S = 180.0  # a life that takes longer hangs
_LOOK_S = 0.02


class LifeError(Exception):
    """A life ended as none should."""


@dataclass
class Stage:
    """Where the lives of one trial take place. `disk` is the part of the state that lies on a disk of its own."""

    world: World
    folder: Path
    rng: np.random.Generator
    disk: str | None = None
    patience_s: float = LIFE_S
    killed: int = 0  # lives that ended by SIGKILL
    happened: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)  # rows of the table

    def __enter__(self) -> Stage:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._volume = None if self.disk is None else Volume(self.state / self.disk)
        return self

    def __exit__(self, *_: object) -> None:
        if self._volume is not None:
            self._volume.remove()

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def volume(self) -> Volume:
        assert self._volume is not None, "this trial has no disk of its own"
        return self._volume

    def output(self, name: str = "") -> str:
        """What the lives of this name have said so far."""
        path = self.folder / f"{name}output"
        return path.read_text(errors="replace") if path.exists() else ""

    def note(self, kind: str, told: str) -> None:
        self.kinds[kind] += 1
        self.happened.append(told)

    # ---- lives ----------------------------------------------------------------------------------------------

    def begin(self, settings: dict[str, Any], *, name: str = "", **how: Any) -> Life:
        """A life with these operational keys; `how` are fields of its `Order`."""
        return self.world.driver.begin(self.world.order(self.folder, settings, name=name, **how))

    def held(self, cut: Cut, settings: dict[str, Any]) -> Life:
        """A life stopped (SIGSTOP) at the place of a cut, or over where it is not reached."""
        life = self.begin(settings, place=cut.place, nth=cut.nth, hurt="SIGSTOP")
        if not life.wait_still(self.patience_s):
            raise self._hung(life, str(cut))
        return life

    def end(self, life: Life, what: str, *codes: int, name: str = "") -> int:
        """Waits for the end of a life. Raises LifeError for a code that is not among `codes`, or when it hangs."""
        code = life.wait(self.patience_s)
        if code is None:
            raise self._hung(life, what)
        self.killed += code == -signal.SIGKILL
        if code not in codes:
            raise LifeError(f"a life that was to see {what} ended with code {code}: {self._last_words(name)}")
        return code

    def wait_for(self, life: Life, happened: Callable[[], bool], timeout_s: float = LIFE_S) -> bool:
        """Until something happens, the life is over, or so many seconds have passed; whether it has happened."""
        deadline = time.monotonic() + timeout_s
        while not (found := happened()) and not life.over.is_set() and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return found

    def _hung(self, life: Life, what: str) -> LifeError:
        life.send(signal.SIGKILL)
        return LifeError(f"a life that was to see {what} hung for {self.patience_s:.0f} s: {self._last_words('')}")

    def _last_words(self, name: str) -> str:
        return " | ".join(self.output(name).splitlines()[-3:])

"""What a slide's learning amounted to."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Learned:
    """What a slide's learning amounted to."""

    rows: int  # matured examples times passes
    replayed: int  # rows drawn from the replay buffer
    steps: int
    mean_loss: float  # log loss per row before each step, NaN when there was none
    skipped: int = 0  # matured examples times passes that the budget left out
    skipped_replay: int = 0  # rows it left in the replay buffer

    def __add__(self, other: Learned) -> Learned:
        """Of two tasks; the loss is that of the first that took a step."""
        loss = other.mean_loss if math.isnan(self.mean_loss) else self.mean_loss
        names = ("rows", "replayed", "steps", "skipped", "skipped_replay")
        counts = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Learned(mean_loss=loss, **counts)


NOTHING = Learned(0, 0, 0, float("nan"))

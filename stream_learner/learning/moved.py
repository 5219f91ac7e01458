"""Which rows of an embedding table moved, for each of those who must know."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stream_learner.changes import I64, Changed, RowSet


@dataclass(slots=True)
class MovedRows:
    """Rows of one table and of its slots, as sets of row numbers."""

    ever: RowSet = field(default_factory=RowSet)  # in any step
    uncaptured: RowSet = field(default_factory=RowSet)  # since the last capture
    unchecked: RowSet = field(default_factory=RowSet)  # since they were last found to be finite
    unpromoted: RowSet = field(default_factory=RowSet)  # in which the champion may differ
    champion: RowSet = field(default_factory=RowSet)  # of the champion's table, since the last capture
    outdated: RowSet = field(default_factory=RowSet)  # in which the version before may differ from the champion
    previous: RowSet = field(default_factory=RowSet)  # of the table of the version before, since the last capture
    told: Changed | None = None  # `champion`, as a version was told of it just before the capture

    def step(self, rows: I64) -> None:
        """Rows of the candidate were moved by a step."""
        for held in (self.ever, self.uncaptured, self.unchecked, self.unpromoted):
            held.add(rows)

    def promoted(self) -> I64:
        """The rows that the champion has to take over."""
        rows = self.unpromoted.take()
        self.told = None
        self.champion.add(rows)
        self.outdated.add(rows)
        return rows

    def followed(self) -> I64:
        """The rows that the version before has to take over from the champion, which is about to change."""
        rows = self.outdated.take()
        self.previous.add(rows)
        return rows

    def all_of_previous(self, height: int) -> None:
        """There was no version before in the last capture."""
        self.previous.add(np.arange(height))

    def champion_loaded(self, rows: I64) -> None:
        """These rows of the champion's table were replaced by those of another version."""
        self.told = None
        self.champion.add(rows)
        self.outdated.add(rows)

    def all_of_champion(self, height: int) -> None:
        """There was no champion in the last capture."""
        self.champion.add(np.arange(height))

    def restarted(self, height: int) -> None:
        """The candidate's table became the champion's, and its slots began afresh: any row may have moved."""
        rows = np.arange(height)
        self.uncaptured.add(rows)
        self.unchecked.add(rows)
        self.unpromoted.take()

    def told_again(self) -> Changed | None:
        """What a version was told, for the capture right after it."""
        told, self.told = self.told, None
        return told

    def captured(self) -> None:
        """The tables were captured as a whole."""
        self.told = None
        self.uncaptured.take()
        self.champion.take()
        self.previous.take()

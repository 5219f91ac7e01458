"""Drift of what the sessions are made of: which items are popular, which are new, of what category and type.

The machinery is that of conversion's inputs: sketches of the last `drift.window` against the reference, all tests of a
look together at the false discovery rate interval / run_length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.events import EventBatch, EventSchema
from stream_learner.judging.drift_tests import Finding, Test, findings
from stream_learner.judging.metrics import finite_or_none
from stream_learner.judging.sketch import Codes, ColumnKind, Distance, flag_codes, id_codes
from stream_learner.judging.watched import WatchedColumns
from stream_learner.settings import Drift

_WHOSE = ("user", "session")  # ids that say who, not what
_NEW, _TYPE = "new_item", "event_type"


class ItemDrift:
    """Watches the events that make up sessions, all of which are learned as they come."""

    def __init__(self, schema: EventSchema, settings: Drift) -> None:
        self._settings = settings
        names = [name for name in schema.ids if name not in _WHOSE]
        self._columns = [schema.id_column(name) for name in names]
        self._names = (*names, _TYPE, _NEW)
        kinds: list[ColumnKind] = ["id"] * (len(names) + 1)
        self._watched = WatchedColumns([*kinds, "flag"], settings, settings.min_examples)
        self.current: list[Finding] = []  # of the last look
        self.tests: list[Test] = []
        self.alarms = 0  # findings that the look before did not have, since the state began
        self._looked_at: int | None = None

    def observe(self, events: EventBatch, new: NDArray[np.bool_], at: int) -> list[Finding]:
        """A slide's events, and which are of items never seen before it; the slide ended at `at`, us. Returns the new
        alarms of a look, where one is due."""
        codes = self._codes(events, new)
        self._watched.observe(codes, at)
        self._watched.learned(codes, at)
        if self._looked_at is not None and at - self._looked_at < self._settings.interval:
            return []
        since = self._settings.interval if self._looked_at is None else at - self._looked_at
        self._looked_at = at
        self.tests = self._tests(self._distances(at))
        return self._alarm(findings(self.tests, min(0.5, since / self._settings.run_length)))

    def _codes(self, events: EventBatch, new: NDArray[np.bool_]) -> Codes:
        """[n, names]"""
        types = id_codes(events.kind.astype(np.uint64) + np.uint64(1))
        return np.concatenate(
            [id_codes(events.ids[:, self._columns]), types[:, None], flag_codes(new)[:, None]], axis=1
        )

    def _tests(self, distances: Mapping[str, Distance]) -> list[Test]:
        settings, tests = self._settings, []
        for name, distance in distances.items():
            change, chance = distance.marked - distance.marked_before, distance.marked_chance
            if name == _NEW:  # fewer new items is how every stream goes on
                tests.append(Test("inputs", name, "new", change, settings.min_share, chance if change > 0 else 1.0))
                continue
            tests.append(Test("inputs", name, "psi", distance.psi, settings.min_psi, distance.chance))
            tests.append(Test("inputs", name, "missing", change, settings.min_share, chance))
        return tests

    def _alarm(self, found: list[Finding]) -> list[Finding]:
        known = {finding.name for finding in self.current}
        self.current = found
        fresh = [finding for finding in found if finding.name not in known]
        self.alarms += len(fresh)
        return fresh

    def published(self, at: int) -> None:
        """A version was made of the slide ending at `at`, us."""
        self._watched.rebase(at)

    def psi(self, at: int) -> dict[str, float]:
        """By what is watched; empty while either side has fewer than `drift.min_examples` events."""
        return {name: distance.psi for name, distance in self._distances(at).items() if name != _NEW}

    def numbers(self) -> dict[str, Any]:
        """For verdicts and the report: the findings that stand, and every test of the last look."""
        tests = {f"{t.kind}/{t.subject}/{t.measure}": {"value": t.value, "p": t.chance} for t in self.tests}
        content = {
            "reference": self._settings.reference,
            "findings": [finding.to_json() for finding in self.current],
            "tests": tests,
        }
        finite: dict[str, Any] = finite_or_none(content)
        return finite

    def _distances(self, at: int) -> dict[str, Distance]:
        found = self._watched.distances(at)
        return {} if found is None else dict(zip(self._names, found, strict=True))

    def capture(self) -> dict[str, Any]:
        return {
            "watched": self._watched.capture(),
            "current": [finding.to_json() for finding in self.current],
            "tests": [asdict(test) for test in self.tests],
            "alarms": self.alarms,
            "looked_at": self._looked_at,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._watched.restore(state["watched"])
        self.current = [Finding(**entry) for entry in state["current"]]
        self.tests = [Test(**entry) for entry in state["tests"]]
        self.alarms, self._looked_at = int(state["alarms"]), state["looked_at"]

"""An independent account of what a worker read, closed and learned, kept outside its state.

Each life appends lines as it goes; a line reaches the file before the worker goes on, so a kill loses none that
matters. What survives of earlier lives is decided by where the next one starts: the slides and offsets before that.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .stream import Place


class Ledger:
    """The worker's side: notes what passes through the real objects."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._accepted: list[list[int]] = []
        self._end = 0  # of the slide that is closing, us
        self._token = 0

    def install(self) -> None:
        """Wraps intake and worker, once, in a process that is about to run a worker."""
        from stream_learner import worker
        from stream_learner.learning.learner import Learner

        self._install_intake(worker.Intake)
        without_repeats, learn, capture = worker.Worker._without_repeats, Learner.learn, worker.Worker._capture
        restore = worker.Worker.restore

        def accepted(this: Any, slide: Any) -> Any:
            events, self._end = without_repeats(this, slide), slide.end
            self._accepted = np.stack([events.partition, events.offset], axis=1).tolist()
            return events

        def learned(this: Any, matured: Any, replay: Any, slide: int, *early: Any) -> Any:
            result = learn(this, matured, replay, slide, *early)
            columns = (matured.time, matured.ids, matured.label)
            digest = hashlib.sha256(b"".join(np.ascontiguousarray(column).tobytes() for column in columns)).hexdigest()
            self._note(
                at="slide", slide=slide, end=self._end, accepted=self._accepted, matured=len(matured), digest=digest
            )
            return result

        def restored(this: Any) -> None:
            self._token = this.lease.token
            restore(this)

        def captured(this: Any, *made: Any) -> None:
            self._note(at="capture", slide=this.intake.slides.number, positions=_positions(this.intake))
            capture(this, *made)

        worker.Worker.restore = restored  # type: ignore[method-assign]
        worker.Worker._capture = captured  # type: ignore[method-assign]
        worker.Worker._without_repeats = accepted  # type: ignore[method-assign]
        Learner.learn = learned  # type: ignore[method-assign]

    def _install_intake(self, intake: Any) -> None:
        start, take = intake.start, intake._take

        def started(this: Any, *args: Any, **options: Any) -> None:
            start(this, *args, **options)
            self._note(at="start", slide=this.slides.number, positions=_positions(this))

        def taken(this: Any, batch: Any) -> None:
            before = this.positions[batch.partition]
            take(this, batch)
            after = this.positions[batch.partition]
            self._note(at="take", partition=batch.partition.index, begin=before, end=after)

        intake.start, intake._take = started, taken

    def _note(self, **line: Any) -> None:
        os.write(self._descriptor, json.dumps({**line, "token": self._token}).encode() + b"\n")


def _positions(intake: Any) -> dict[str, int]:
    return {str(p.index): offset for p, offset in sorted(intake.positions.items())}


@dataclass
class History:
    """What survives of all lives."""

    slides: dict[int, dict[str, Any]] = field(default_factory=dict)
    reach: dict[int, int] = field(default_factory=dict)  # partition -> first offset not consumed
    captured: dict[int, list[dict[str, int]]] = field(default_factory=dict)  # by the slide that came next
    breaks: list[str] = field(default_factory=list)  # gaps and overlaps of consumed offsets
    token: int = 0  # of the lease, the newest so far; what a holder of an older one still says is void

    @property
    def accepted(self) -> Counter[Place]:
        """How often each record is among the events of a closed slide."""
        return Counter((p, offset) for line in self.slides.values() for p, offset in line["accepted"])

    def add(self, line: dict[str, Any]) -> None:
        if line["token"] < self.token:
            return
        if line["at"] == "start":
            self._restart(line)
        elif line["at"] == "slide":
            if line["slide"] in self.slides:
                self.breaks.append(f"slide {line['slide']} closed twice")
            self.slides[line["slide"]] = {key: value for key, value in line.items() if key != "token"}
        elif line["at"] == "take":
            reach = self.reach.get(line["partition"], 0)
            if line["begin"] != reach:
                self.breaks.append(f"partition {line['partition']} read on at {line['begin']}, consumed to {reach}")
            self.reach[line["partition"]] = line["end"]
        else:
            self.captured.setdefault(line["slide"], []).append(line["positions"])

    def _restart(self, line: dict[str, Any]) -> None:
        """A life begins: what its state covers stands, and is read on behind exactly that; the rest is void."""
        slide, positions, self.token = line["slide"], line["positions"], line["token"]
        if set(range(slide)) - self.slides.keys():
            self.breaks.append(f"started at slide {slide}, closed are {sorted(self.slides)}")
        captured = self.captured.get(slide, []) if slide else [dict.fromkeys(positions, 0), *self.captured.get(0, [])]
        if positions not in captured:
            self.breaks.append(f"slide {slide} started at offsets {positions}, its state had consumed to {captured}")
        self.slides = {number: old for number, old in self.slides.items() if number < slide}
        self.reach = {int(name): position for name, position in positions.items()}


def read_history(path: Path) -> History:
    history = History()
    for text in path.read_bytes().splitlines() if path.exists() else []:
        history.add(json.loads(text))
    return history

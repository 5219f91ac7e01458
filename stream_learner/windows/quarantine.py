"""Quarantine: what an outage upstream has touched is kept out of learning and judging, and kept for a second look.

An example whose attribution window [click, click + horizon] meets a broken slide cannot be trusted: its label may lack
a purchase, or its features what went missing. When it matures it is put aside instead of being judged and learned.
`requeue` lets it into learning, never into judging: once every broken slide that it meets is requeued, at the slide
the journal says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.durable import Fence, unfenced, write_file
from stream_learner.events import EventBatch, EventSchema, ExampleBatch
from stream_learner.judging.join_health import Broken, JoinHealth
from stream_learner.keys import I64, U64
from stream_learner.retry import retrying
from stream_learner.settings import Config
from stream_learner.windows.attribution import Matured
from stream_learner.windows.kept_examples import Kept, KeptExamples
from stream_learner.windows.quarantined_slides import (
    FOLDER,
    QuarantinedSlide,
    require,
    slides_json,
    slides_path,
)
from stream_learner.windows.slides import Slide

log = logging.getLogger(__name__)

Bools = NDArray[np.bool_]
_REMEMBERED = 10_000  # slides; older ones of which nothing is kept are forgotten


class Quarantine:
    """The broken slides, and their examples on disk."""

    def __init__(
        self, config: Config, schema: EventSchema, record: Callable[[dict[str, Any]], None], fence: Fence = unfenced
    ) -> None:
        """`record` appends a line to the verdict log."""
        self._record = record
        self.health = JoinHealth(config, schema)
        self._retry_timeout = config.storage.retry_timeout
        self._state = Path(config.state)
        self._max_bytes = config.quarantine.max_bytes
        self._horizon = 0 if config.labels.source == "field" else int(config.labels.horizon)
        self._kept = KeptExamples(self._state / FOLDER, config.snapshot.keep, fence)
        self._fence = fence
        self._user = schema.id_column("user")
        self._slides: dict[int, QuarantinedSlide] = {}  # by number, ascending
        self._due: list[ExampleBatch] = []  # requeued, to be learned with the next slide
        self._fresh: list[int] = []  # numbers found since the last version
        self._noted: bytes = b""
        self.outage = False  # whether the last slide is broken
        self.found = 0  # slides, since the state began
        self.put_aside = self.requeued = self.given_up = 0  # examples, since the state began

    # ---- slides ---------------------------------------------------------------------------------------------

    def inspect(self, slide: Slide, events: EventBatch, rows: I64, matched: Bools) -> bool:
        """Whether a slide that closed is whole, by its join health: `rows` of its `events` are examples, `matched` says
        which of its positives follow one. A broken slide, and earlier ones that belong to it, go into quarantine."""
        found = self.health.closed(slide, events, rows, int(np.count_nonzero(matched)), len(matched))
        self._add(found, slide.number)
        self.outage = any(broken.end == slide.end for broken in found)
        return not self.outage

    def inspect_unjoined(self, slide: Slide, events: EventBatch) -> bool:
        """As `inspect`, where nothing is joined: by the number of events of each type, and what these carry."""
        whole = self.inspect(slide, events, self.health.examples(events), np.zeros(0, bool))
        self._note()
        return whole

    def broken(self, number: int) -> dict[str, Any] | None:
        """What is wrong with a slide that is in quarantine; None where it is in none."""
        slide = self._slides.get(number)
        return None if slide is None else slide.brief()

    def _add(self, broken: Iterable[Broken], found: int) -> None:
        for new in broken:
            if new.number in self._slides:
                continue
            slide = QuarantinedSlide(new.number, new.start, new.end, new.reason, list(new.measures), found)
            log.error("slide %d is broken and in quarantine: %s", slide.number, slide.reason)
            self._record({"verdict": "quarantined", "found": found, **slide.brief()})
            self._slides[slide.number] = slide
            self._fresh.append(slide.number)
            self.found += 1
        self._slides = dict(sorted(self._slides.items()))
        self._forget()

    def slides(self) -> list[QuarantinedSlide]:
        return list(self._slides.values())

    def since_version(self) -> list[dict[str, Any]]:
        """The slides found since the last version, for the manifest of the next."""
        return [self._slides[number].brief() for number in self._fresh if number in self._slides]

    def published(self) -> None:
        self._fresh = []

    # ---- examples -------------------------------------------------------------------------------------------

    def sort_out(self, matured: Matured, slide: Slide) -> tuple[Matured, list[ExampleBatch]]:
        """Divides the examples that mature at a slide's close, after a look at their labels: those to be judged and
        learned, and those only to be learned, with what was requeued before this slide. What meets a slide in
        quarantine goes to the disk, filed under the first it meets."""
        self._inspect_labels(matured, slide)
        examples = matured.examples
        filed, aside = self._meets(examples, "quarantined")
        self._file(examples.take(aside), filed[aside])
        self.put_aside += int(np.count_nonzero(aside))
        back = self._meets(examples, "requeued")[1] & ~aside
        requeued = [part for part in (*self._due, examples.take(back)) if len(part)]
        self._due = []
        self.requeued += sum(len(part) for part in requeued)
        self._note()
        touched = aside | back
        trusted = matured.take(~touched) if touched.any() else matured
        return self._with_told(trusted), requeued

    def _with_told(self, matured: Matured) -> Matured:
        """Without what would be told early of examples that are kept out."""
        if matured.told is None:
            return matured
        return replace(matured, told=matured.told.take(~self._meets(matured.told.examples, "quarantined")[1]))

    def _inspect_labels(self, matured: Matured, slide: Slide) -> None:
        known = self._meets(matured.examples, "quarantined")[1] | self._meets(matured.examples, "requeued")[1]
        trusted = matured.take(~known)
        found = self.health.matured(trusted.examples.time, trusted.arrived_slide, trusted.positives)
        self._add(found, slide.number)

    def require(self, number: int) -> None:
        """ConfigError where there is no such slide to requeue."""
        require(self._slides, number)

    def requeue(self, number: int) -> None:
        """Lets a slide's examples go to the next slide's learning, as far as they meet no other slide in quarantine;
        the others are filed under the next they meet."""
        self.require(number)
        slide = self._slides[number]
        self._slides[number] = replace(slide, status="requeued", examples=0, size_bytes=0)
        free = 0
        if slide.examples:
            kept = self._kept.read(slide.kept, slide.size_bytes)
            self._kept.finish(slide.kept)
            filed, aside = self._meets(kept, "quarantined")
            self._file(kept.take(aside), filed[aside])
            self._due.append(kept.take(~aside))
            free = len(self._due[-1])
        self._record({"verdict": "requeued", "slide": number, "examples": free})
        self._note()

    def erase(self, ids: U64) -> int:
        """Forgets the examples of users, by fingerprint; returns how many. A file that held some is followed by another
        edition without them; itself it stays until no kept snapshot names it."""
        gone = 0
        for number, slide in list(self._slides.items()):
            if slide.size_bytes:
                gone += self._erase_kept(number, ids)
        for at, due in enumerate(self._due):
            theirs = np.isin(due.ids[:, self._user], ids)
            self._due[at] = due.take(~theirs)
            gone += int(np.count_nonzero(theirs))
        self._note()
        return gone

    def _erase_kept(self, number: int, ids: U64) -> int:
        slide = self._slides[number]
        examples = self._kept.read(slide.kept, slide.size_bytes)
        stay = ~np.isin(examples.ids[:, self._user], ids)
        if stay.all():
            return 0
        self._kept.finish(slide.kept)
        left = replace(slide, edition=slide.edition + 1, examples=int(np.count_nonzero(stay)), size_bytes=0)
        if left.examples:
            left = replace(left, size_bytes=self._appended(left, examples.take(stay)))
        if not left.grows:
            self._kept.finish(left.kept)
        self._slides[number] = left
        return int(np.count_nonzero(~stay))

    # ---- on disk --------------------------------------------------------------------------------------------

    def prune(self, captured: dict[str, Any]) -> list[str]:
        """After a snapshot with this state was written; on the writer thread. Returns what failed."""
        slides = (QuarantinedSlide(**slide) for slide in captured["slides"])
        return self._kept.prune([slide.kept for slide in slides if slide.size_bytes])

    @property
    def size_bytes(self) -> int:
        """Of what is kept on disk."""
        return sum(slide.size_bytes for slide in self._slides.values())

    def close(self) -> None:
        self._kept.close()

    # ---- state ----------------------------------------------------------------------------------------------

    def capture(self) -> dict[str, Any]:
        return {
            "health": self.health.capture(),
            "slides": [asdict(slide) for slide in self._slides.values()],
            "due": [examples.capture() for examples in self._due],
            "fresh": list(self._fresh),
            "outage": self.outage,
            "counts": [self.found, self.put_aside, self.requeued, self.given_up],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.health.restore(state["health"])
        slides = [QuarantinedSlide(**slide) for slide in state["slides"]]
        self._slides = {slide.number: slide for slide in slides}
        self._due = [ExampleBatch.restored(examples) for examples in state["due"]]
        self._fresh, self.outage = list(state["fresh"]), state["outage"]
        self.found, self.put_aside, self.requeued, self.given_up = state["counts"]
        self._restore_files()

    def begin(self) -> None:
        """Without a snapshot: what an earlier life left on disk goes, and will be made again."""
        self._restore_files()

    def _restore_files(self) -> None:
        slides = self._slides.values()
        growing = {slide.kept: slide.size_bytes for slide in slides if slide.grows}
        editions = {Kept(slide.number, edition) for slide in slides for edition in range(slide.edition + 1)}
        self._kept.restore(growing, editions - growing.keys())
        self._note()

    def _note(self) -> None:
        """Leaves the list of slides for the commands, where it has changed."""
        content = slides_json(self._slides.values())
        if content != self._noted:
            path = slides_path(self._state)
            retrying(lambda: write_file(path, content, self._fence), str(path), self._retry_timeout)
            self._noted = content

    # ---- how it is done -------------------------------------------------------------------------------------

    def _meets(self, examples: ExampleBatch, status: str) -> tuple[I64, Bools]:
        """Per example the number of the first slide of that status that its attribution window meets, and whether
        there is one. The slides' spans do not overlap."""
        slides = [slide for slide in self._slides.values() if slide.status == status]
        starts = np.array([slide.start for slide in slides] + [2**63 - 1], np.int64)
        ends = np.array([slide.end for slide in slides], np.int64)
        first = np.searchsorted(ends, examples.time, side="right")  # the first that ends after the click
        meets = starts[first] <= examples.time + self._horizon
        return np.array([slide.number for slide in slides] + [-1], np.int64)[first], meets

    def _file(self, examples: ExampleBatch, numbers: I64) -> None:
        for number in np.unique(numbers).tolist():
            self._append(number, examples.take(numbers == number))

    def _append(self, number: int, examples: ExampleBatch) -> None:
        needed = self._kept.frame_bytes(examples)
        if self._slides[number].grows:
            self._make_room(needed, number)
        slide = self._slides[number]
        if not slide.grows or self.size_bytes + needed > self._max_bytes:
            self._slides[number] = replace(slide, given_up=slide.given_up + len(examples))
            self.given_up += len(examples)
            return
        size_bytes = self._appended(slide, examples)
        self._slides[number] = replace(slide, examples=slide.examples + len(examples), size_bytes=size_bytes)

    def _appended(self, slide: QuarantinedSlide, examples: ExampleBatch) -> int:
        """Puts examples on disk; the file's length then."""
        where = f"quarantine of slide {slide.number}"
        return retrying(lambda: self._kept.append(slide.kept, examples), where, self._retry_timeout)

    def _make_room(self, needed: int, number: int) -> None:
        """Gives up other slides' examples, the oldest first, until `needed` bytes fit."""
        for other in list(self._slides.values()):
            if (
                self.size_bytes + needed <= self._max_bytes
                or needed + self._slides[number].size_bytes > self._max_bytes
            ):
                return
            if other.size_bytes and other.number != number:
                self._kept.finish(other.kept)
                lost = other.given_up + other.examples
                self._slides[other.number] = replace(other, examples=0, size_bytes=0, given_up=lost)
                self.given_up += other.examples
                log.warning("quarantine: gave up %d examples of slide %d for room", other.examples, other.number)

    def _forget(self) -> None:
        idle = [number for number, slide in self._slides.items() if not slide.size_bytes]
        for number in idle[: max(len(self._slides) - _REMEMBERED, 0)]:
            del self._slides[number]

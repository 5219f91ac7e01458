"""What is known of a slide in quarantine, and the list of them that a worker leaves for the commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from stream_learner.durable import BAD_JSON
from stream_learner.errors import ConfigError, StateError
from stream_learner.windows.kept_examples import Kept

FOLDER = "quarantine"  # in the state folder


@dataclass(frozen=True, slots=True)
class QuarantinedSlide:
    """A broken slide and what is kept of it. Times in us."""

    number: int
    start: int
    end: int
    reason: str
    measures: list[str]
    found: int  # number of the slide at whose close it was found
    status: Literal["quarantined", "requeued"] = "quarantined"
    examples: int = 0  # kept on disk
    size_bytes: int = 0  # of their file
    given_up: int = 0  # examples that there was no room for; from the first of them on none is kept
    edition: int = 0  # of their file: grows with every erasure that took some out

    @property
    def kept(self) -> Kept:
        """Names their file."""
        return Kept(self.number, self.edition)

    @property
    def grows(self) -> bool:
        return self.status == "quarantined" and not self.given_up

    def brief(self) -> dict[str, Any]:
        """For the verdict log and manifests."""
        return {"slide": self.number, "start_us": self.start, "end_us": self.end, "reason": self.reason}


def slides_path(state: Path) -> Path:
    """The list, in a state folder."""
    return state / FOLDER / "slides.json"


def slides_json(slides: Iterable[QuarantinedSlide]) -> bytes:
    """The list's bytes."""
    return msgspec.json.encode([asdict(slide) for slide in slides]) + b"\n"


def require(slides: Mapping[int, QuarantinedSlide], number: int) -> None:
    """ConfigError where there is no such slide, or it was requeued before."""
    slide = slides.get(number)
    if slide is None:
        held = ", ".join(str(n) for n, other in slides.items() if other.status == "quarantined")
        raise ConfigError(f"slide {number} is not in quarantine; there are: {held or 'none'}")
    if slide.status == "requeued":
        raise ConfigError(f"slide {number} was requeued before; its examples are learned once")


def read_slides(state: Path) -> dict[int, QuarantinedSlide]:
    """By number, what a worker on the state folder `state`, running or not, left in `slides.json`. StateError where
    that is not as it was written."""
    path = slides_path(state)
    content = path.read_bytes() if path.exists() else b"[]"
    try:
        slides = msgspec.json.decode(content, type=list[QuarantinedSlide])
    except BAD_JSON as error:
        raise StateError(
            f"{path} is not as it was written ({error}); the worker writes it anew at its start"
        ) from error
    return {slide.number: slide for slide in slides}

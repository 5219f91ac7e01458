"""What sections are made of: durations, secrets, places, and keys that are marked operational."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Meta

_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_LONGEST_US = 10_000_000_000_000_000
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)")


class Duration(int):
    """A span of event time (or, for operational keys, of monotonic time), in microseconds.

    Written as 500ms, 30s, 5m, 1h or 7d; a bare number counts seconds, which is also the unit of plain-integer times.
    """

    @classmethod
    def parse(cls, value: object) -> Duration:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e10:
            return cls(round(value * 1_000_000))
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError("Expected a duration: a number with us, ms, s, m, h or d (5m, 36h), or seconds")
        span_us = float(match[1]) * _UNITS_US[match[2]]
        if span_us >= _LONGEST_US:
            raise ValueError("Expected a duration of less than 1e10 seconds (317 years)")
        return cls(round(span_us))

    @property
    def seconds(self) -> float:
        return self / 1_000_000

    def __str__(self) -> str:
        for unit in ("d", "h", "m", "s", "ms"):
            if self and self % _UNITS_US[unit] == 0:
                return f"{self // _UNITS_US[unit]}{unit}"
        return f"{int(self)}us" if self else "0s"


def instant(text: str) -> int:
    """An ISO 8601 time in us since the epoch; naive = UTC. ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


class Secret(str):
    """A string that never shows itself: `str`, `repr` and every dump give asterisks; `.reveal()` gives the value."""

    def __str__(self) -> str:
        return "********"

    __repr__ = __str__

    def reveal(self) -> str:
        return str.__str__(self)


def revealed(value: Any) -> Any:
    """Nested builtins with every Secret in them as the plain text that it is."""
    if isinstance(value, dict):
        return {key: revealed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [revealed(item) for item in value]
    return value.reveal() if isinstance(value, Secret) else value


def silenced(text: str, value: Any) -> str:
    """A text without the Secrets in `value`, in any of the ways a message quotes them."""
    for secret in sorted(_secrets(value), key=len, reverse=True):
        for quoted in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
            text = text.replace(quoted, str(Secret())) if quoted else text
    return text


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _secrets(item)


def is_url(place: str) -> bool:
    """Whether a place is a URL, as of an object store; else it is a path."""
    return "://" in place


def span(text: str) -> Any:
    """Default of a duration key."""
    return msgspec.field(default_factory=lambda: Duration.parse(text))


def section(kind: type) -> Any:
    """Default of a nested section."""
    return msgspec.field(default_factory=kind)


def op(description: str, **limits: Any) -> Meta:
    """An operational key: never reaches the model."""
    return Meta(description=description, extra={"scope": "operational"}, **limits)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A nested part of the config."""

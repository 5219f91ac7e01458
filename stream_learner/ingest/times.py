"""Event times as written in records -> int64 microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

LIMIT_US = 7_258_118_400_000_000  # 2200-01-01: times from here on are absurd; below it float64 holds every us
UNITS_US = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1, "integer": 1_000_000}
_UNREADABLE = -1

_WIDTH = 27  # 2022-07-31T22:00:00.025000Z
_SHAPE = "dddd-dd-ddTdd:dd:dd"
_DIGITS = np.array([i for i, c in enumerate(_SHAPE) if c == "d"])
_DASHES, _COLONS, _SEPARATOR, _FRACTION = [4, 7], [13, 16], 10, 20


def from_numbers(values: NDArray[np.float64], unit_us: int) -> NDArray[np.int64]:
    """Times [n] from finite or infinite counts [n] of a unit since the epoch, rounded to the us; -1 where the time is
    before the epoch or not before LIMIT_US."""
    with np.errstate(over="ignore"):
        us = np.rint(values * unit_us)
    return np.where((us >= 0) & (us < LIMIT_US), us, _UNREADABLE).astype(np.int64)


def from_iso8601(texts: Sequence[str]) -> NDArray[np.int64]:
    """Times [n] from ISO 8601 texts, naive = UTC; -1 where unreadable, before the epoch or not before LIMIT_US.

    The common form, YYYY-MM-DDTHH:MM:SS with up to six decimals and Z (or a space for the T), is read as a matrix of
    characters; every other one by `datetime.fromisoformat`, which gives the same for the common form (tested).
    """
    out = np.full(len(texts), _UNREADABLE, np.int64)
    if not len(texts):
        return out
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    codes = np.array([text[:_WIDTH] for text in texts], f"U{_WIDTH}").view(np.uint32).reshape(-1, _WIDTH)
    decimals = _decimals(codes, lengths)
    common = np.flatnonzero(decimals >= 0)
    out[common] = _read(codes[common].astype(np.int64) - ord("0"), decimals[common])
    for row in np.flatnonzero(decimals < 0).tolist():
        out[row] = _parsed(texts[row])
    return np.where((out >= 0) & (out < LIMIT_US), out, _UNREADABLE)


def _decimals(codes: NDArray[np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of decimals of the seconds where the characters [n, _WIDTH] are of the common form, else -1."""
    digits = (codes >= ord("0")) & (codes <= ord("9"))
    common = (lengths >= len(_SHAPE)) & (lengths <= _WIDTH) & digits[:, _DIGITS].all(axis=1)
    common &= (codes[:, _DASHES] == ord("-")).all(axis=1) & (codes[:, _COLONS] == ord(":")).all(axis=1)
    common &= np.isin(codes[:, _SEPARATOR], [ord("T"), ord(" ")])
    last = codes[np.arange(len(codes)), np.clip(lengths, 1, _WIDTH) - 1]
    ends = lengths - (last == ord("Z"))
    decimals = np.where(ends == len(_SHAPE), 0, ends - _FRACTION)
    pointed = (codes[:, _FRACTION - 1] == ord(".")) & (decimals > 0) & (decimals <= 6)
    written = digits[:, _FRACTION:].cumprod(axis=1).sum(axis=1)  # digits in a row from the first decimal
    common &= (decimals == 0) & (ends == len(_SHAPE)) | pointed & (written >= decimals)
    return np.where(common, decimals, -1)


def _read(digits: NDArray[np.int64], decimals: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times [n] from the values [n, _WIDTH] of common characters; -1 where there is no such date or time of day."""
    year, month, day = _number(digits, 0, 4), _number(digits, 5, 7), _number(digits, 8, 10)
    hour, minute, second = _number(digits, 11, 13), _number(digits, 14, 16), _number(digits, 17, 19)
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    starts, ends = _first_day(months), _first_day(months + 1)
    exists = (year > 0) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= ends - starts)
    exists &= (hour < 24) & (minute < 60) & (second < 60)
    fraction = np.where(np.arange(6) < decimals[:, None], digits[:, _FRACTION : _FRACTION + 6], 0)
    seconds = (((starts + day - 1) * 24 + hour) * 60 + minute) * 60 + second
    return np.where(exists, seconds * 1_000_000 + fraction @ 10 ** np.arange(5, -1, -1), _UNREADABLE)


def _number(digits: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    weights = 10 ** np.arange(stop - start - 1, -1, -1, dtype=np.int64)
    number: NDArray[np.int64] = digits[:, start:stop] @ weights
    return number


def _first_day(months: NDArray[np.int64]) -> NDArray[np.int64]:
    """Days from the epoch to the first day of each month, months counted from January 1970."""
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _parsed(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return _UNREADABLE
    span = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds

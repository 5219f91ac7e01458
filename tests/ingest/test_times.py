"""Times as written, against `datetime.fromisoformat`."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_learner.ingest.times import LIMIT_US, from_iso8601, from_numbers

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def oracle(text: str) -> int:
    """-1 where there is no usable time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return -1
    span = (time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH
    us = (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
    return us if 0 <= us < LIMIT_US else -1


ODD = [
    "",
    "now",
    "today",
    "NaT",
    "2022",
    "2022-07",
    "2022-07-31",
    "2022-07-31T22",
    "2022-07-31T22:00",
    "2022-07-31T22:00:00",
    "2022-07-31T22:00:00Z",
    "2022-07-31T22:00:00z",
    "2022-07-31t22:00:00",
    "2022-07-31x22:00:00",
    "2022-07-31T22:00:00.",
    "2022-07-31T22:00:00.Z",
    "2022-07-31T22:00:00.1",
    "2022-07-31T22:00:00.123456789Z",
    "2022-07-31T22:00:00,123Z",
    "2022-07-31T22:00:00.12a",
    "2022-07-31T22:00:00.025+02:00",
    "2022-07-31T22:00:00-0330",
    "2022-07-31T22:00:00ZZ",
    "2022-07-31T22:00:00Z ",
    "2022-07-31T22:00:00\0",
    "2022-07-31T22:00:00.1\0",
    "2022-07-31T24:00:00.5",
    "2022-07-31T22:60:00",
    "2022-07-31T22:00:60",
    "2022-02-29T00:00:00",
    "2024-02-29T00:00:00",
    "2100-02-29T00:00:00",
    "2000-02-29T00:00:00",
    "2022-00-10T00:00:00",
    "2022-13-10T00:00:00",
    "2022-12-00T00:00:00",
    "2022-12-31T23:59:59.999999",
    "1970-01-01T00:00:00",
    "1969-12-31T23:59:59.999999Z",
    "2199-12-31T23:59:59.999999Z",
    "2200-01-01T00:00:00Z",
    "0000-01-01T00:00:00",
    "9999-12-31T23:59:59",
    "0001-01-01T00:00:00+23:59",
    "२०२२-07-31T22:00:00",
    "20220731T220000Z",
    "2022-W30-7",
    "x" * 5000,
]


def test_odd_texts_in_one_batch() -> None:
    expected = [oracle(text) for text in ODD]
    assert from_iso8601(ODD).tolist() == expected
    assert sum(time >= 0 for time in expected) >= 15


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_alone(text: str) -> None:
    assert from_iso8601([text]).tolist() == [oracle(text)]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.datetimes(), st.sampled_from(["T", " "]), st.integers(0, 6), st.sampled_from(["", "Z"]))))
def test_common_forms(rows: list[tuple[datetime, str, int, str]]) -> None:
    texts = []
    for time, separator, decimals, zone in rows:
        fraction = f".{time.microsecond:06d}"[: decimals + 1] if decimals else ""
        texts.append(time.replace(microsecond=0).isoformat(separator) + fraction + zone)
    assert from_iso8601(texts).tolist() == [oracle(text) for text in texts]


@settings(deadline=None, derandomize=True)
@given(st.text("0123456789-:TZ .+", min_size=17, max_size=29))
def test_near_misses(text: str) -> None:
    assert from_iso8601([text]).tolist() == [oracle(text)]


def test_every_day_of_the_range() -> None:
    days = np.arange(LIMIT_US // 86_400_000_000)
    texts = [f"{day}T12:00:00" for day in days.astype("datetime64[D]").astype(str)]
    np.testing.assert_array_equal(from_iso8601(texts), (days * 24 + 12) * 3_600_000_000)


def test_numbers() -> None:
    values = np.array([0, 1.5, -1, -0.1, 1e300, np.inf, -np.inf, LIMIT_US / 1000 - 0.001, LIMIT_US / 1000])
    expected = [0, 1500, -1, -1, -1, -1, -1, LIMIT_US - 1, -1]
    assert from_numbers(values, 1000).tolist() == expected


@settings(deadline=None, derandomize=True)
@given(st.integers(0, LIMIT_US - 1))
def test_microseconds_are_exact(us: int) -> None:
    assert from_numbers(np.array([us], np.float64), 1).tolist() == [us]
    assert abs(int(from_numbers(np.array([us / 1e6]), 1_000_000)[0]) - us) <= 1

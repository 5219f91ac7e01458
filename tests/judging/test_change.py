"""ADWIN and Page-Hinkley against River's first alarms, and whole columns against one value at a time."""

import random

import numpy as np
import pytest
from river import drift as river

from stream_learner.judging.change import Adwin, PageHinkley
from tests.windows.streams import same_state

CHANGES = {"none": (0.03, 0.03), "rise": (0.03, 0.06), "fall": (0.2, 0.1), "huge": (0.0, 1.0)}


def docstring_stream():
    rng = random.Random(12345)
    return np.array(rng.choices([0, 1], k=1000) + rng.choices(range(4, 8), k=1000), float)


def stream(kind, seed, n=6000):
    before, after = CHANGES[kind]
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.random(n) < before, rng.random(n) < after]).astype(float)


def rivers_first(detector, values):
    for at, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            return [at]
    return []


def test_reference_values():
    assert Adwin().update(docstring_stream())[:1] == [1023]
    assert PageHinkley().update(docstring_stream())[:1] == [1006]


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("seed", range(4))
def test_first_alarms_are_rivers(kind, seed):
    values = stream(kind, seed)
    assert Adwin().update(values)[:1] == rivers_first(river.ADWIN(), values)
    assert PageHinkley().update(values)[:1] == rivers_first(river.PageHinkley(), values)


def test_after_an_alarm_adwin_keeps_the_newer_window():
    adwin, values = Adwin(), stream("rise", 1, 20_000)
    alarms = adwin.update(values)
    assert alarms and min(alarms) >= 20_000
    assert 0.05 < adwin.mean < 0.07 and 10_000 < adwin.width < 25_000


@pytest.mark.parametrize("made", [Adwin, PageHinkley])
@pytest.mark.parametrize("sizes", [[1], [7, 0, 500], [5000]])
def test_how_a_stream_is_cut_into_columns_decides_nothing(made, sizes):
    values = stream("rise", 2)
    whole, parts, found = made(), made(), []
    at = turn = 0
    while at < len(values):
        size = sizes[turn % len(sizes)]
        found += [at + alarm for alarm in parts.update(values[at : at + size])]
        at, turn = at + size, turn + 1
    assert found == whole.update(values)
    assert found


@pytest.mark.parametrize("made", [Adwin, PageHinkley])
def test_a_restored_detector_goes_on_bit_for_bit(made):
    values = stream("rise", 3)
    whole = made()
    whole.update(values[:5001])
    again = made()
    again.restore(whole.capture())
    assert again.update(values[5001:]) == whole.update(values[5001:])
    assert same_state(again.capture(), whole.capture())


def test_nothing_is_nothing():
    for made in (Adwin, PageHinkley):
        detector = made()
        assert detector.update(np.empty(0)) == []
        again = made()
        again.restore(detector.capture())
        assert again.update(np.zeros(100)) == []

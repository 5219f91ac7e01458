"""How bench-drift counts: a find is one that the twin does not have, and the frontier is where nobody is better."""

import numpy as np
import pytest

from benchmarks import drift
from benchmarks.drift_peers import listen, variants
from benchmarks.drift_shop import ROWS
from benchmarks.drift_shop import Day as Listened

SLIDES = 144  # of the third day
NAMES = [name for name, _, _ in variants()]


def day(**alarms):
    return drift.Day([500 * (at + 1) for at in range(SLIDES)], alarms)


def table(changed, twin, quiet=None):
    """With the same pair for every kind of change."""
    return drift.table({kind: [(changed, twin)] for kind in ROWS}, [quiet or day()], [day()])


def test_a_find_counts_from_the_change_on():
    row = table(day(relation=[71, 75, 80]), day())["detectors"]["relation drift"]
    assert row["rate"] == {"found": 1.0, "median_delay_events": 4 * 500}
    assert table(day(relation=[71, 108]), day())["detectors"]["relation drift"]["rate"]["found"] == 0


@pytest.mark.parametrize(("twins", "found"), [([100], 0), ([71, 108], 1)])
def test_what_the_twin_has_too_is_no_find(twins, found):
    content = table(day(relation=[75]), day(relation=twins))
    assert content["detectors"]["relation drift"]["price"]["found"] == found
    assert content["detectors"][drift.OURS]["price"]["found"] == found


def test_who_is_better_takes_us_off_the_frontier():
    ours, rival = day(relation=[80]), NAMES[3]
    assert all(table(ours, day())["frontier"].values())
    sooner = drift.Day(ours.events, {"relation": [80], rival: [79]})
    assert table(sooner, day())["dominated_by"]["rate"] == [rival]
    assert all(table(sooner, day(), quiet=day(**{rival: [3]}))["frontier"].values())  # it pays with false alarms
    assert table(sooner, day(), quiet=day(relation=[3]))["frontier"]["rate"] is False


def test_a_panel_copied_where_days_part_hears_what_it_would_have_heard_alone():
    rng = np.random.default_rng(0)

    def made(rates):
        labels = [(rng.random(200) < rate).astype(np.float32) for rate in rates]
        return Listened(list(range(len(labels))), [np.full(200, -3, np.float32)] * len(labels), labels)

    quiet, other = made([0.05] * 30), made([0.6] * 10)
    changed = Listened(quiet.events, quiet.scores, [*quiet.labels[:20], *other.labels])
    alone = Listened(changed.events, changed.scores, changed.labels)
    listen(quiet, {20: [changed]})
    listen(alone)
    assert changed.alarms == alone.alarms
    assert any(alone.alarms.values())

"""Sketches merge, bins are quantiles, distances are scipy's, and p-values mean what they say."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance as oracle

from stream_learner.judging.sketch import (
    MISSING,
    Reference,
    Sketch,
    flag_codes,
    id_codes,
    jensen_shannon,
    number_codes,
    psi,
)
from stream_learner.judging.tails import discoveries, f_tail, normal_tail


def sketch(*columns):
    return Sketch.of(np.stack([number_codes(np.asarray(column, np.float32)) for column in columns], axis=1))


def apart(then, now, bins=10, kind="number"):
    return Reference([sketch(then)], [kind], bins).distances([sketch(now)])[0]


def test_codes_rise_with_the_numbers():
    values = np.array(
        [-np.inf, -1e30, -1.0, -1e-30, 0.0, 1e-30, 0.5, 1.0, 1.02, 127.0, 128.0, 1e30, np.inf], np.float32
    )
    codes = number_codes(values)
    assert (np.diff(codes.astype(int)) > 0).all() and codes.max() < MISSING
    assert number_codes(np.array([np.nan, -0.0], np.float32)).tolist() == [MISSING, number_codes(values[4:5])[0]]
    whole = np.arange(129, dtype=np.float32)
    assert len(set(number_codes(whole).tolist())) == 129
    assert id_codes(np.array([0, 64, 65], np.uint64)).tolist() == [MISSING, 0, 1]


@pytest.mark.parametrize("rows", [10, 30_000])
def test_sketches_add_up(rows):
    rng = np.random.default_rng(0)
    columns = rng.lognormal(0, 2, (rows, 3)).astype(np.float32)
    columns[rng.random((rows, 3)) < 0.1] = np.nan
    codes = number_codes(columns)
    whole = Sketch.of(codes)
    merged = Sketch.merged([Sketch.of(part) for part in np.array_split(codes, 7)])
    assert whole.rows == merged.rows == rows and whole.counts.sum() == 3 * rows
    assert np.array_equal(whole.keys, merged.keys) and np.array_equal(whole.counts, merged.counts)
    again = Sketch.restored(whole.capture())
    assert np.array_equal(again.keys, whole.keys)


def test_psi_equals_the_hand_formula():
    then, now = np.arange(1, 101), np.concatenate([np.arange(1, 41), np.full(10, 95), np.full(10, np.nan)])
    shares_then = [0.1] * 10 + [0.0]
    shares_now = [1 / 6] * 4 + [0.0] * 5 + [1 / 6, 1 / 6]
    total = 0.0
    for a, b in zip(shares_now, shares_then, strict=True):
        a, b = max(a, 0.5 / 60), max(b, 0.5 / 60)
        total += (a - b) * math.log(a / b)
    seen = apart(then, now)
    assert seen.psi == pytest.approx(total, abs=1e-12)
    assert seen.marked == pytest.approx(1 / 6) and seen.marked_before == 0.0


def test_a_value_of_several_quantiles_has_a_bin_of_its_own():
    seen = apart(np.concatenate([np.zeros(900), np.arange(1, 101)]), np.concatenate([np.zeros(450), np.ones(550)]))
    assert seen.psi == pytest.approx((0.45 - 0.9) * math.log(0.45 / 0.9) + (0.55 - 0.1) * math.log(5.5), abs=1e-12)
    assert apart(np.full(500, 5.0), np.full(500, 5.0)).psi == 0.0
    for value in (4.0, 6.0):
        assert apart(np.full(500, 5.0), np.concatenate([np.full(250, 5.0), np.full(250, value)])).psi > 1


def test_all_missing_and_all_there():
    absent, there = np.full(500, np.nan), np.arange(500.0)
    assert apart(absent, absent).psi == 0.0 and apart(absent, absent).chance == 1.0
    for then, now in ((absent, there), (there, absent)):
        seen = apart(then, now)
        assert seen.psi > 5 and seen.chance < 1e-6 and abs(seen.marked - seen.marked_before) == 1.0
    assert math.isfinite(apart(there, np.full(500, np.inf)).psi)


def test_jensen_shannon_is_scipys():
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(12))
        a[rng.random(12) < 0.2] = 0
        a /= a.sum()
        assert jensen_shannon(a, b) == pytest.approx(oracle.jensenshannon(a, b, base=2) ** 2, abs=1e-12)
        assert psi(a, b, 1e-3) >= 0
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1.0


def test_flags_count_what_is_set():
    codes = [flag_codes(np.arange(1000) % every == 0)[:, None] for every in (10, 4)]
    seen = Reference([Sketch.of(codes[0])], ["flag"], 10).distances([Sketch.of(codes[1])])[0]
    assert (seen.marked_before, seen.marked) == (0.1, 0.25)
    wanted = stats.chi2_contingency([[100, 900], [250, 750]], correction=False)[1]
    assert math.log(seen.marked_chance) > math.log(wanted)  # the spread is not known, only believed to be 1


def test_tails_are_scipys():
    for z in (-3, 0, 2, 6):
        assert normal_tail(z) == pytest.approx(stats.norm.sf(z), rel=1e-9)
    for above, below in ((1, 20), (5, 30), (10, 100), (64, 1e9)):
        for chance in (0.5, 0.05, 1e-3, 1e-4):
            assert f_tail(stats.f.isf(chance, above, below), above, below) == pytest.approx(chance, rel=0.25)
    assert f_tail(0.0, 3, 3) == 1.0 == f_tail(5.0, 0, 3)


def test_discoveries_are_scipys():
    rng = np.random.default_rng(2)
    for _ in range(50):
        chances = rng.random(20) ** rng.integers(1, 6)
        wanted = stats.false_discovery_control(chances) <= 0.1
        assert np.array_equal(discoveries(chances, 0.1), wanted)
    assert not discoveries(np.empty(0), 0.1).any()


@pytest.mark.parametrize("rows", [1000, 10_000])
@pytest.mark.parametrize("clustered", [False, True])
def test_without_drift_a_p_value_is_below_a_hundredth_once_in_a_hundred(rows, clustered):
    """Whatever the number of rows and bins, and though rows come in bunches of one value."""
    rng = np.random.default_rng(rows + clustered)
    below = 0
    for _ in range(300):
        bunch = 4 if clustered else 1
        values = [np.repeat(rng.lognormal(0, 1, rows // bunch), bunch) for _ in range(25)]
        reference = Reference([sketch(column) for column in values[:24]], ["number"], 10)
        below += reference.distances([sketch(values[24])])[0].chance < 0.01
    assert below <= stats.binom.isf(1e-4, 300, 0.012)
    assert reference.distances([sketch(values[24] * 1.5)])[0].chance < 1e-4


def test_shares_are_told_by_bins_people_can_read():
    then = np.array([0, 1, 1, 2, 3, 4, 5, 6, 7, np.nan], np.float32)
    now = np.array([100, 100, -2.5, np.nan], np.float32)
    ids = np.arange(1, 11, dtype=np.uint64)
    flags = np.array([True] * 3 + [False] * 7)
    before = Sketch.of(np.stack([number_codes(then), id_codes(ids), flag_codes(flags)], axis=1))
    after = Sketch.of(np.stack([number_codes(now), id_codes(ids[:4]), flag_codes(flags[:4])], axis=1))
    number, bucket, flag = Reference([before], ["number", "id", "flag"], bins=4).shares([after])
    assert number.bins == ["to 1", "to 3", "to 5", "above 5", "missing"]
    assert number.reference == pytest.approx([0.3, 0.2, 0.2, 0.2, 0.1])
    assert number.now == pytest.approx([0.25, 0.0, 0.0, 0.5, 0.25])
    assert len(bucket.bins) == 17 and bucket.now.sum() == bucket.reference.sum() == 1
    assert flag.bins == ["no", "yes", "missing"] and flag.now == pytest.approx([0.25, 0.75, 0.0])

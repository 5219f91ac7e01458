"""Rows of tables and dense inputs, against plain Python."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import numpy as np
import tensorflow as tf
from model_inputs import EVERYTHING, examples, setting

from stream_learner.learning.bins import Bins
from stream_learner.learning.encoder import CLIP, Encoder
from stream_learner.learning.normaliser import Normaliser
from stream_learner.learning.tables import no_ids


def test_rows_of_hashed_and_exact_ids():
    made = setting()
    encoder = Encoder(made.features)
    known, rows = no_ids(100)
    known[:2], rows[:2] = np.array([2**64 - 3, 11], np.uint64).view(np.int64), [3, 2]
    encoder.set_ids("item", known, rows)
    big = 2**64 - 3
    ids = np.array([[0, 0, 0], [big, big, 15], [999, 11, 16], [1000, 12, 17]], np.uint64)
    rows = {name: row.numpy().tolist() for name, row in encoder.rows(tf.constant(ids.view(np.int64))).items()}
    assert rows["user"] == [0, 1 + big % 1000, 1000, 1]
    assert rows["item"] == [0, 3, 2, 1]
    assert rows["category"] == [0, 16, 1, 2]


def test_dense_inputs_follow_their_definition():
    made = setting()
    batch = examples(made, 300, seed=1)
    batch.numbers[0, 0] = 3e38
    batch.numbers[1, 1] = -500.0
    encoder, normaliser = Encoder(made.features), Normaliser(made.features)
    numbers = made.features.take_numbers(batch.numbers)
    normaliser.update(made.features.transformed(numbers[2:]))
    encoder.mean.assign(normaliser.mean())
    encoder.deviation.assign(normaliser.deviation())
    got = encoder.dense(tf.constant(numbers), tf.constant(batch.time)).numpy()
    expected = np.array([_dense_row(made, normaliser, numbers[i], int(batch.time[i])) for i in range(300)])
    assert got.shape == (300, len(made.features.dense_names()))
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert got[0, 0] == CLIP and got[1, 1] == -CLIP


def _dense_row(made, normaliser, numbers, time_us):
    """One row, column by column."""
    row = []
    columns = made.features.numbers
    for i, column in enumerate(columns):
        x = float(numbers[i])
        x = np.sign(x) * np.log1p(abs(x)) if column.transform == "log1p" else x
        z = (x - normaliser.mean()[i]) / normaliser.deviation()[i]
        row.append(0.0 if np.isnan(x) else min(max(z, -CLIP), CLIP))
    for group in made.features.groups():
        row.append(float(all(np.isnan(numbers[i]) for i, c in enumerate(columns) if c.group == group)))
    row += [float(np.isnan(numbers[i])) for i, c in enumerate(columns) if "_recency_" in c.name]
    when = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    angle = 2 * np.pi * (when.hour * 3600 + when.minute * 60 + when.second) / 86400
    return [*row, np.sin(angle), np.cos(angle), *(float(when.weekday() == day) for day in range(7))]


BINNED = """
  encoding: [log1p_z, piecewise_linear]
  bins: 4
  bin_rows: 200
"""


def test_piecewise_linear_inputs_follow_their_definition():
    made = setting(
        base=EVERYTHING.replace(
            "  numeric: {price: {transform: log1p}, rank: {}}",
            "  numeric: {price: {transform: log1p}, rank: {encoding: [log1p_z]}}" + BINNED,
        )
    )
    batch = examples(made, 300, seed=1)
    numbers = made.features.take_numbers(batch.numbers)
    encoder, bins = Encoder(made.features), Bins(made.features, 4, 200)
    moved = [bins.update(numbers[:50]), bins.update(numbers[50:55]), bins.update(numbers[55:150])]
    assert moved == [True, False, True]  # not for so few more rows
    restored = Bins(made.features, 4, 200)
    restored.restore(bins.capture())
    for each in (bins, restored):
        assert each.update(numbers[150:]) and not each.update(numbers)  # frozen
    assert restored.edges.tobytes() == bins.edges.tobytes()
    encoder.edges.assign(bins.edges)
    dense = encoder.dense(tf.constant(numbers), tf.constant(batch.time)).numpy()
    names = made.features.dense_names()
    assert dense.shape == (300, len(names)) and len(made.features.dense_owners()) == len(names)
    assert not any(name.startswith("rank bin") for name in names)
    for column in ("price", "user_click_1d", "item_rate_1h", "user_item_recency_click"):
        index = [c.name for c in made.features.numbers].index(column)
        values = numbers[:, index].astype(np.float64)
        if made.features.numbers[index].transform == "log1p":
            values = np.log1p(values)
        fitted = values[:200]
        edges = np.quantile(fitted[~np.isnan(fitted)], np.linspace(0, 1, 5))
        first = names.index(f"{column} bin 0")
        assert set(made.features.dense_owners()[first : first + 4]) == {index}
        for row in range(300):
            x = values[row]
            through = [
                0.0 if np.isnan(x) or high == low else min(max((x - low) / (high - low), 0.0), 1.0)
                for low, high in itertools.pairwise(edges)
            ]
            np.testing.assert_allclose(dense[row, first : first + 4], through, atol=2e-4)


def test_times_before_the_epoch_have_an_hour_and_a_day():
    made = setting()
    time = np.array([-1], np.int64)  # the last microsecond of Wednesday 1969-12-31
    dense = Encoder(made.features).dense(tf.zeros([1, len(made.features.numbers)]), tf.constant(time)).numpy()[0]
    np.testing.assert_allclose(dense[-9:], [0, 1, 0, 0, 1, 0, 0, 0, 0], atol=1e-6)


def test_the_normaliser_agrees_with_all_values_at_once():
    made = setting()
    batch = examples(made, 1000, seed=2)
    numbers = made.features.take_numbers(batch.numbers)
    normaliser = Normaliser(made.features)
    for start, stop in [(0, 1), (1, 1), (1, 400), (400, 1000)]:
        normaliser.update(made.features.transformed(numbers[start:stop]))
    logged = np.array([c.transform == "log1p" for c in made.features.numbers])
    values = np.where(logged, np.log1p(numbers.astype(np.float64)), numbers)
    np.testing.assert_allclose(normaliser.mean(), np.nanmean(values, axis=0), rtol=1e-6)
    np.testing.assert_allclose(normaliser.deviation(), np.nanstd(values, axis=0), rtol=1e-5)


def test_a_constant_or_unseen_column_has_a_harmless_deviation():
    made = setting()
    normaliser = Normaliser(made.features)
    numbers = np.full((50, len(made.features.numbers)), np.nan, np.float32)
    numbers[:, 0] = 12.3
    numbers[0, 1] = 5
    normaliser.update(made.features.transformed(numbers))
    assert 0 < normaliser.deviation()[0] < 1e-3
    assert normaliser.deviation()[1] == 1 and normaliser.mean()[1] == 5
    assert normaliser.deviation()[2] == 1 and normaliser.mean()[2] == 0
    fresh = Normaliser(made.features)
    fresh.restore(normaliser.capture())
    normaliser.update(numbers + 1)
    fresh.update(numbers + 1)
    assert np.array_equal(fresh.mean(), normaliser.mean()) and np.array_equal(fresh.deviation(), normaliser.deviation())

"""The laws of the replay policies, and what all of them owe: bounds, recovery, increments, erasure."""

from __future__ import annotations

import numpy as np
import pytest
from model_inputs import examples, setting
from scipy.stats import chi2

from stream_learner.changes import Changed
from stream_learner.config import parse
from stream_learner.errors import ConfigError
from stream_learner.events import EventSchema
from stream_learner.learning.replay import Replay, replay_buffer
from stream_learner.learning.replay.make_up import AGES, STRATA_SHOWN, by_value
from stream_learner.learning.replay.stratified import MOST_STRATA, Stratified, _level
from stream_learner.learning.replay.time_biased import TimeBiased
from stream_learner.learning.replay.uniform import Dark

DAY_US = 86_400_000_000
POLICIES = ("uniform", "time_biased", "stratified", "prioritised", "dark")
MEMBERS = 3


def _buffer(made, policy="uniform", capacity=60, seed=0, **keys):
    more = ", ".join(f"{name}: {value}" for name, value in keys.items())
    text = f"seed: {seed}\ntopics: {{events: {{categorical: {{category: c}}, numeric: {{price: p, rank: r}}}}}}\n"
    config = parse(f"{text}replay: {{policy: {policy}, capacity: {capacity}, {more}}}\n")
    return replay_buffer(config, made.schema)


def _batch(made, start, stop, *, day=0.0, positives=0.5):
    """Examples whose price is their number, all clicked on one day."""
    batch = examples(made, stop - start, seed=start)
    batch.numbers[:, 0] = np.arange(start, stop)
    batch.time[:] = int(day * DAY_US)
    batch.label[:] = np.random.default_rng(start).random(stop - start) < positives
    return batch


def _numbers(replay):
    return replay.capture()["columns"]["numbers"][:, 0].astype(int)


def _logits(count, seed):
    return np.random.default_rng([seed, 8]).standard_normal((count, MEMBERS)).astype(np.float32)


def _statistic(counts, expected):
    return float(np.sum((counts - expected) ** 2 / expected))


def _in_sample(replay, step):
    """The numbers of one sample of a time-biased buffer: its latest row is in it now and then."""
    drawn = replay.draw(4000, 10_000, step).examples.numbers[:, 0]
    return np.unique(drawn.astype(int))


# Batches and days that take the reservoir through filling, overflow, saturation, a long silence in which it shrinks
# (once below one row) and refilling.
@pytest.mark.parametrize(
    "story",
    [
        [(9, 0), (9, 1), (9, 2)],
        [(9, 0), (30, 1), (3, 2), (7, 3), (40, 3.5)],
        [(40, 0), (3, 4), (2, 9), (1, 10)],
        [(40, 0), (1, 12), (5, 13), (30, 14), (2, 14.1)],
        [(1, 0), (1, 0.3), (1, 0.9), (1, 4)],
    ],
)
def test_a_time_biased_reservoir_holds_by_age(story):
    made, capacity, half_life, runs = setting(), 20, 1.0, 500
    total = sum(count for count, _ in story)
    batches, number = [], 0
    for count, day in story:
        batches.append(_batch(made, number, number + count, day=day))
        number += count
    counts = np.zeros(total)
    for seed in range(runs):
        replay = Replay(capacity, seed, TimeBiased(int(half_life * DAY_US)))
        for slide, batch in enumerate(batches):
            replay.add(batch, slide)
        if len(replay):
            counts[_in_sample(replay, 0)] += 1
    last = story[-1][1]
    decayed = np.concatenate([np.full(count, 0.5 ** ((last - day) / half_life)) for count, day in story])
    weight = decayed.sum()
    expected = runs * min(capacity, weight) / weight * decayed
    if weight < 1:  # a draw cannot be of nothing: the one row held is drawn whenever it is asked for
        expected /= weight
    by_batch = np.repeat(np.arange(len(story)), [count for count, _ in story])
    seen, wanted = np.bincount(by_batch, counts), np.bincount(by_batch, expected)
    deviation = np.sqrt(np.maximum(wanted * (1 - expected[np.unique(by_batch, return_index=True)[1]] / runs), 1))
    assert np.all(np.abs(seen - wanted) < 4.5 * deviation + 1), (seen, wanted)
    each = np.abs(counts - expected) < 4.8 * np.sqrt(np.maximum(expected * (1 - expected / runs), 1)) + 1
    assert each.all(), np.flatnonzero(~each)


def test_a_time_biased_reservoir_is_exactly_its_latent_size():
    made = setting()
    policy = TimeBiased(2 * DAY_US)
    replay, rng = Replay(50, 1, policy), np.random.default_rng(3)
    weight, day, number = 0.0, 0.0, 0
    for slide in range(300):
        step = float(rng.choice([0.1, 0.5, 8.0], p=[0.6, 0.3, 0.1]))
        count = int(rng.integers(1, 40))
        day += step
        weight = weight * 0.5 ** (step / 2) + count
        replay.add(_batch(made, number, number + count, day=day), slide)
        number += count
        assert policy.weight == pytest.approx(weight, rel=1e-6)
        assert policy.size == pytest.approx(min(50, policy.weight), rel=1e-9)
        assert len(replay) == int(np.ceil(policy.size)) == len(set(_numbers(replay).tolist()))


@pytest.mark.parametrize("strata", ["label", "category"])
def test_strata_share_the_room_and_each_is_a_uniform_sample(strata):
    made, capacity, runs = setting(), 30, 300
    batches = [_batch(made, start, stop, positives=0.1) for start, stop in [(0, 25), (25, 26), (26, 100), (100, 160)]]
    whole = np.concatenate([batch.label if strata == "label" else batch.ids[:, 3] for batch in batches])
    values, stratum, seen = np.unique(whole, return_inverse=True, return_counts=True)
    share = np.minimum(seen, _level(seen, capacity))
    counts = np.zeros(len(whole))
    for seed in range(runs):
        replay = _buffer(made, "stratified", capacity, seed, strata=strata)
        for slide, batch in enumerate(batches):
            replay.add(batch, slide)
        held = _numbers(replay)
        assert len(set(held.tolist())) == len(held) == share.sum() <= capacity
        assert np.array_equal(np.bincount(stratum[held], minlength=len(values)), share)
        counts[held] += 1
    chance = (share / seen)[stratum]
    free = chance < 1
    statistic = np.sum((counts - runs * chance)[free] ** 2 / (runs * chance * (1 - chance))[free])
    assert chi2.ppf(0.0001, free.sum()) < statistic < chi2.ppf(0.9999, free.sum())
    assert np.array_equal(counts[~free], np.full((~free).sum(), runs))


@pytest.mark.parametrize("policy", ["stratified", "prioritised"])
def test_weights_undo_the_choice(policy):
    made = setting()
    replay = _buffer(made, policy, capacity=400, correction=1.0)
    whole = [_batch(made, start, start + 400, positives=0.05) for start in range(0, 2000, 400)]
    for slide, batch in enumerate(whole):
        logits = np.repeat(np.where(batch.label > 0, -2.0, -3.0).astype(np.float32)[:, None], MEMBERS, 1)
        replay.add(batch, slide, logits)
    drawn = replay.draw(200_000, 9, 0)
    plain, weighted = drawn.examples.label.mean(), np.average(drawn.examples.label, weights=drawn.weights)
    truth = np.concatenate([batch.label for batch in whole]).mean()
    if policy == "prioritised":  # stands for the reservoir, which is a sample itself
        truth = replay.capture()["columns"]["label"].mean()
    assert plain > 3 * truth
    assert weighted == pytest.approx(truth, rel=0.05) and drawn.weights.mean() == pytest.approx(1, rel=0.02)


def test_priorities_follow_the_losses_from_the_next_slide_on():
    made = setting()
    replay = _buffer(made, "prioritised", capacity=100, priority_exponent=1.0)
    batch = _batch(made, 0, 100)
    replay.add(batch, 0, np.zeros((100, 1), np.float32))
    drawn = replay.draw(5000, 1, 0)
    assert _statistic(np.bincount(drawn.rows, minlength=100), np.full(100, 50.0)) < chi2.ppf(0.9999, 99)
    wrong = np.where(drawn.rows < 10, 4.0, -4.0) * np.where(drawn.examples.label > 0, -1, 1)
    replay.learned(drawn, wrong.astype(np.float32)[:, None])
    assert np.array_equal(replay.draw(5000, 1, 0).rows, drawn.rows)
    masses = np.where(np.arange(100) < 10, np.log1p(np.exp(4.0)), np.log1p(np.exp(-4.0))) + 0.01
    rows = replay.draw(20_000, 2, 0).rows
    assert _statistic(np.bincount(rows, minlength=100), 20_000 * masses / masses.sum()) < chi2.ppf(0.9999, 99)


def test_dark_rows_keep_the_logits_they_were_learned_with():
    made = setting()
    replay = Replay(300, 2, Dark(0.25))
    for slide in range(5):
        replay.add(_batch(made, slide * 100, slide * 100 + 100), slide, _logits(100, slide))
    drawn = replay.draw(50, 6, 0)
    numbers = drawn.examples.numbers[:, 0].astype(int)
    assert np.all(drawn.weights == 0.25)
    np.testing.assert_array_equal(drawn.logits, np.concatenate([_logits(100, s) for s in range(5)])[numbers])


def _feed(replay, made, slide):
    """A slide as a learner has it: draws, losses, new examples."""
    if len(replay):
        for step in range(3):
            drawn = replay.draw(20, slide, step)
            replay.learned(drawn, _logits(20, slide))
    batch = _batch(made, slide * 90, slide * 90 + 90, day=slide / 3, positives=0.2)
    replay.add(batch, slide, _logits(90, slide))


def _applied(state, before):
    """What a snapshot makes of changes."""
    columns = {
        n: c.onto(before["columns"][n].copy()) if isinstance(c, Changed) else c for n, c in state["columns"].items()
    }
    return {**state, "columns": columns}


def _assert_same(one, two):
    assert one["columns"].keys() == two["columns"].keys() and repr(one["policy"]) == repr(two["policy"])
    np.testing.assert_array_equal(one["holes"], two["holes"])
    for name, column in one["columns"].items():
        np.testing.assert_array_equal(column, two["columns"][name], err_msg=name)


@pytest.mark.parametrize("policy", POLICIES)
def test_restored_from_increments_it_goes_on_as_if_never_interrupted(policy):
    made = setting()
    one = _buffer(made, policy, capacity=200, half_life="1d")
    for slide in range(4):
        _feed(one, made, slide)
    state = one.capture()
    for slide in range(4, 9):
        _feed(one, made, slide)
        if slide == 6:
            one.erase(0, examples(made, 30, seed=0).ids[:, 0])
        state = _applied(one.changes(), state)
    two = _buffer(made, policy, capacity=200, half_life="1d")
    two.restore(state)
    _assert_same(one.capture(), two.capture())
    for slide in range(9, 14):
        _feed(one, made, slide)
        _feed(two, made, slide)
        _assert_same(one.capture(), two.capture())
    np.testing.assert_array_equal(one.draw(30, 20, 0).rows, two.draw(30, 20, 0).rows)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_erased_user_is_gone_and_the_others_stay_a_sample(policy):
    made = setting()
    replay = _buffer(made, policy, capacity=200, half_life="1d")
    for slide in range(4):
        _feed(replay, made, slide)
    user = replay.capture()["columns"]["ids"][7, 0]
    held = len(replay)
    gone = replay.erase(0, np.array([user, 12345], np.uint64))
    assert gone >= 1 and len(replay) == held - gone
    assert user not in replay.capture()["columns"]["ids"][:, 0]
    assert replay.erase(0, np.array([user, 0], np.uint64)) == 0
    drawn = replay.draw(5000, 5, 0)
    assert not np.isin(drawn.rows, replay.capture()["holes"]).any()
    assert (drawn.examples.numbers[:, 0] >= 0).all() and len(np.unique(drawn.rows)) >= 0.9 * len(replay)
    for slide in range(5, 40):
        _feed(replay, made, slide)
    assert len(replay) > held - gone or policy == "stratified"  # the holes fill up, as every place is taken again


def test_a_uniform_reservoir_is_uniform_after_an_erasure():
    made, capacity, runs = setting(), 20, 400
    first, second = _batch(made, 0, 60), _batch(made, 60, 120)
    erased = first.ids[:, 0] == first.ids[0, 0]
    counts = np.zeros(120)
    for seed in range(runs):
        replay = Replay(capacity, seed)
        replay.add(first, 0)
        replay.erase(0, first.ids[:1, 0])
        replay.add(second, 1)
        state = replay.capture()
        counts[np.delete(_numbers(replay), state["holes"])] += 1
    stay = np.concatenate([~erased, np.ones(60, bool)])
    share = capacity / 120
    statistic = np.sum((counts[stay] - runs * share) ** 2 / (runs * share * (1 - share)))
    assert chi2.ppf(0.0001, stay.sum()) < statistic < chi2.ppf(0.9999, stay.sum())
    assert not counts[~stay].any()


@pytest.mark.parametrize("policy", POLICIES)
def test_bytes_are_bounded_and_a_smaller_buffer_takes_over(policy):
    made = setting()
    replay = _buffer(made, policy, capacity=1_000_000, max_bytes=1_048_576, half_life="900d")
    for slide in range(8):
        batch = _batch(made, slide * 3000, slide * 3000 + 3000, positives=0.5)
        replay.add(batch, slide, _logits(3000, slide))
    row = sum(c[:1].nbytes for c in replay.capture()["columns"].values())
    assert 0.99 * 1_048_576 < len(replay) * row <= replay.size_bytes <= 1_048_576
    smaller = _buffer(made, policy, capacity=1000, half_life="900d")
    smaller.restore(replay.capture())
    assert 990 <= len(smaller) <= 1000
    again = _buffer(made, policy, capacity=1000, half_life="900d")
    again.restore(replay.capture())
    _assert_same(smaller.capture(), again.capture())
    assert set(_numbers(smaller).tolist()) <= set(_numbers(replay).tolist())
    for slide in range(9, 12):
        smaller.add(_batch(made, slide * 3000, slide * 3000 + 3000), slide, _logits(3000, slide))
    assert 990 <= len(smaller) <= 1000


def test_values_beyond_the_most_strata_share_the_last_one():
    made = setting()
    replay = Replay(20_000, 0, Stratified(0, 1.0))
    count = MOST_STRATA + 500
    batch = examples(made, count, seed=0)
    batch.ids[:, 0] = np.arange(count) + 1
    replay.add(batch, 0)
    strata = replay.capture()["columns"]["stratum"]
    assert strata.max() == MOST_STRATA - 1 and np.sum(strata == MOST_STRATA - 1) == 501


@pytest.mark.parametrize(
    ("counts", "capacity", "level"),
    [([5, 5], 10, 5), ([5, 5], 9, 4), ([1, 100], 10, 9), ([3, 4, 100, 200], 20, 6), ([7], 3, 3), ([0, 8], 4, 4)],
)
def test_the_level_is_the_largest_that_fits(counts, capacity, level):
    assert _level(np.array(counts), capacity) == level
    assert np.minimum(counts, level).sum() <= capacity < np.minimum(counts, level + 1).sum() or sum(counts) <= capacity


def test_strata_must_be_known():
    with pytest.raises(ConfigError, match=r"replay.strata: 'colour' is no categorical feature.*label"):
        parse("replay: {policy: stratified, strata: colour}\n")
    schema = EventSchema((), (), ("user", "item", "session", "category"), ())
    text = "topics: {events: {categorical: {category: c}}}\nreplay: {policy: stratified, strata: category}\n"
    assert len(replay_buffer(parse(text), schema)) == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_what_it_is_made_of_is_told_by_age_and_stratum(policy):
    made = setting()
    replay = _buffer(made, policy, capacity=400, strata="category", half_life="1000d")
    assert replay.make_up(0) is None
    for day in range(40):
        replay.add(_batch(made, 10 * day, 10 * day + 10, day=day), day, _logits(10, day))
    told = replay.make_up(39 * DAY_US)
    assert set(told.ages) == set(AGES) and sum(told.ages.values()) == len(replay) == sum(told.strata.values())
    if policy != "time_biased":  # that one lets go of some
        assert told.ages == {"to 1h": 10, "to 6h": 0, "to 1d": 10, "to 3d": 20, "to 7d": 40, "to 30d": 230, "older": 90}
    columns = replay.columns
    if policy == "stratified":
        values, counts = np.unique(columns["ids"][:, 3], return_counts=True)
        known = {f"#{value:016x}": count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}
        assert {name: count for name, count in told.strata.items() if name.startswith("#")}.items() <= known.items()
        assert [*told.strata.values()][:-1] == sorted([*told.strata.values()][:-1], reverse=True)
    else:
        assert told.strata["positive"] == np.count_nonzero(columns["label"])


def test_strata_beyond_the_fullest_are_one_and_known_values_have_their_names():
    counts, values = np.array([1, 5, 3] + [1] * 30), np.arange(33, dtype=np.uint64)
    told = by_value(counts, values, {1: "shoes"})
    assert len(told) == STRATA_SHOWN + 1 and next(iter(told.items())) == ("shoes", 5) and sum(told.values()) == 39
    assert by_value(counts[:2], values[:2], {}) == {"#0000000000000001": 5, "#0000000000000000": 1}

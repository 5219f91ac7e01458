"""Shapley values against games whose values are known, and against the definition by brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from stream_learner.explaining import shapley
from stream_learner.explaining.shapley import attribute


def by_definition(game, players):
    """The mean gain of each player over all orders."""
    values, orders = np.zeros(players), list(permutations(range(players)))
    for order in orders:
        known = np.zeros((1, players), bool)
        before = game(known)[0]
        for player in order:
            known[0, player] = True
            after = game(known)[0]
            values[player] += (after - before) / len(orders)
            before = after
    return values


@pytest.mark.parametrize("players", [1, 2, 5])
def test_it_is_the_mean_over_all_orders(players):
    table = np.random.default_rng(players).normal(size=1 << players)
    game = lambda known: table[known @ (1 << np.arange(players))]  # noqa: E731
    found = attribute(game, players)
    np.testing.assert_allclose(found.values, by_definition(game, players), atol=1e-12)
    assert found.base == table[0] and found.score == table[-1]


@pytest.mark.parametrize("players", [3, shapley.EXACT_PLAYERS, shapley.EXACT_PLAYERS + 8])
def test_what_adds_up_is_told_apart_exactly(players):
    weights = np.random.default_rng(1).normal(size=players)
    found = attribute(lambda known: 0.5 + known @ weights, players)
    np.testing.assert_allclose(found.values, weights, atol=1e-9)
    assert found.base == 0.5


def test_sampling_keeps_the_sum_and_comes_near_the_truth():
    """The glove game: one left glove, the rest right ones; a pair is worth 1, so the left one gets (n - 1) / n."""
    players = shapley.EXACT_PLAYERS + 3
    found = attribute(lambda known: (known[:, 0] & known[:, 1:].any(axis=1)).astype(float), players, seed=3)
    assert found.values.sum() == pytest.approx(found.score - found.base)
    assert abs(found.values[0] - (players - 1) / players) < 5 * found.error[0] + 1e-9
    assert (found.error > 0).all()


def test_no_player_no_value():
    found = attribute(lambda known: np.full(len(known), 0.25), 0)
    assert found.base == found.score == 0.25 and len(found.values) == 0

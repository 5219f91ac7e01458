"""Shapley values: what each input adds to a score, averaged over all orders in which the inputs could become known.

Shapley, "A value for n-person games" (1953); Lundberg and Lee, "A unified approach to interpreting model predictions"
(NeurIPS 2017). An input that is not in a coalition is missing, which is a case the published models are trained for, so
no background sample has to be chosen. Exact up to `EXACT_PLAYERS` inputs, beyond by seeded permutations, each with its
reverse (antithetic sampling: Mitchell, Cooper, Frank, Holmes, JMLR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXACT_PLAYERS = 12
PERMUTATIONS = 512  # and their reverses

Game = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""Coalitions [n, players] (True = the input is known) -> scores [n]."""


@dataclass(frozen=True)
class Attribution:
    """`values` [players] sum up to `score - base`; `error` [players] is their standard error, 0 where exact."""

    base: float  # nothing known
    score: float  # everything known
    values: NDArray[np.float64]
    error: NDArray[np.float64]


def attribute(game: Game, players: int, seed: int = 0) -> Attribution:
    """Shapley values of all players."""
    return _exact(game, players) if players <= EXACT_PLAYERS else _sampled(game, players, seed)


def _exact(game: Game, players: int) -> Attribution:
    """By all 2^players coalitions; coalition k holds the players whose bit is set in k."""
    numbers = np.arange(1 << players)
    known = (numbers[:, None] >> np.arange(players) & 1).astype(bool)
    scores = game(known)
    sizes = known.sum(axis=1)
    weights = np.array([1.0 / (players * math.comb(players - 1, s)) for s in range(players)])
    values = np.empty(players)
    for player in range(players):
        without = numbers[~known[:, player]]
        gains = scores[without | (1 << player)] - scores[without]
        values[player] = weights[sizes[without]] @ gains
    return Attribution(float(scores[0]), float(scores[-1]), values, np.zeros(players))


def _sampled(game: Game, players: int, seed: int) -> Attribution:
    random = np.random.default_rng([seed, players])
    orders = random.permuted(np.tile(np.arange(players), (PERMUTATIONS, 1)), axis=1)
    orders = np.stack([orders, orders[:, ::-1]], axis=1)  # [pairs, 2, players]
    rank = np.argsort(orders, axis=2)
    known = rank[:, :, None, :] < np.arange(players + 1)[:, None]  # [pairs, 2, steps, players]
    scores = game(known.reshape(-1, players)).reshape(PERMUTATIONS, 2, players + 1)
    gains = np.take_along_axis(np.diff(scores, axis=2), rank, axis=2).mean(axis=1)  # [pairs, players]
    error = gains.std(axis=0, ddof=1) / math.sqrt(PERMUTATIONS)
    return Attribution(float(scores[0, 0, 0]), float(scores[0, 0, -1]), gains.mean(axis=0), error)

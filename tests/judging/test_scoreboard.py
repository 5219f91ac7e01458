"""Lifetime and windowed metrics against a plain list of everything, exact and on levels."""

import math

import numpy as np
import pytest

from stream_learner.judging import metrics
from stream_learner.judging.scoreboard import Scoreboard
from stream_learner.settings import Duration

MINUTE = 60_000_000
HOUR, DAY = Duration.parse("1h"), Duration.parse("1d")
NAMES = ("candidate", "champion")


def slides(count, seed=0, rows=40):
    """(logits by name, labels, slide end) of slides ten minutes apart; some empty, the champion not always there."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        n = int(rng.integers(0, rows)) if number % 7 else 0
        logits = rng.normal(-1, 1, n).astype(np.float32)
        labels = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float32)
        champion = np.where(rng.random(n) < 0.2, np.nan, logits + rng.normal(0, 1, n)).astype(np.float32)
        yield {"candidate": logits, "champion": champion}, labels, (number + 1) * 10 * MINUTE


def brute(added, name, after):
    parts = [(logits[name], labels) for logits, labels, at in added if at > after]
    logits, labels = (np.concatenate([np.empty(0, np.float32), *column]) for column in zip(*parts, strict=True))
    scored = ~np.isnan(logits)
    return metrics.summary(logits[scored], labels[scored])


def everything(board):
    return [
        [board.lifetime(name), board.window(name, HOUR), board.window(name, DAY), board.capture()["now"]]
        for name in board.names
    ]


def same(seen, wanted, rank_error=0.0):
    for key, value in wanted.items():
        error = rank_error if key in ("auc", "average_precision") else 1e-9
        assert seen[key] == pytest.approx(value, abs=error + 1e-12, nan_ok=True), key


def test_lifetime_and_windows_are_exact():
    board, added = Scoreboard(NAMES, (HOUR, DAY), exact_max=10**6), []
    for step in slides(200):
        board.add(*step)
        added.append(step)
        if len(added) % 13 == 0:
            for name in NAMES:
                same(board.lifetime(name), brute(added, name, -1))
                for span in (HOUR, DAY):
                    same(board.window(name, span), brute(added, name, step[2] - span))
                assert board.lifetime(name)["auc_error_bound"] == 0.0


@pytest.mark.parametrize("exact_max", [30, 200, 1000])
def test_beyond_exact_max_ranks_are_on_levels_and_sums_exact(exact_max):
    board, added = Scoreboard(NAMES, (HOUR, DAY), exact_max), []
    for step in slides(300, seed=1):
        board.add(*step)
        added.append(step)
        if len(added) % 17 == 0:
            for name in NAMES:
                for seen, after in (
                    (board.lifetime(name), -1),
                    (board.window(name, HOUR), step[2] - HOUR),
                    (board.window(name, DAY), step[2] - DAY),
                ):
                    wanted = brute(added, name, after)
                    bound = seen["auc_error_bound"]
                    if wanted["n_pos"] and not math.isnan(bound):
                        assert abs(seen["auc"] - wanted["auc"]) <= bound + 1e-12
                        assert bound < 0.005
                    same(seen, wanted, rank_error=0.02)
    assert board.lifetime("candidate")["auc_error_bound"] > 0
    if exact_max == 1000:
        assert board.window("candidate", HOUR)["auc_error_bound"] == 0.0  # a short window stays exact


def test_levels_keep_low_base_rates_apart():
    rng = np.random.default_rng(3)
    logits = rng.normal(-9, 0.7, 200_000).astype(np.float32)
    labels = (rng.random(200_000) < 1 / (1 + np.exp(-logits - 2))).astype(np.float32)
    board = Scoreboard(("candidate",), (), exact_max=1000)
    board.add({"candidate": logits}, labels, 1)
    seen = board.lifetime("candidate")
    assert abs(seen["auc"] - metrics.auc(logits, labels)) <= seen["auc_error_bound"] < 0.001


def test_scores_beyond_the_levels_are_kept_in_the_last():
    board = Scoreboard(("candidate",), (), exact_max=1)
    board.add({"candidate": np.array([-99, -16, 16, 99], np.float32)}, np.array([0, 0, 1, 1], np.float32), 1)
    assert board.lifetime("candidate")["auc"] == 1.0


def test_empty_slides_move_the_windows():
    board = Scoreboard(("candidate",), (HOUR,), exact_max=100)
    board.add({"candidate": np.zeros(4, np.float32)}, np.ones(4, np.float32), 10 * MINUTE)
    assert board.window("candidate", HOUR)["n"] == 4
    board.add({"candidate": np.zeros(0, np.float32)}, np.ones(0, np.float32), 70 * MINUTE)
    assert board.window("candidate", HOUR)["n"] == 0 and board.lifetime("candidate")["n"] == 4


def test_a_name_never_scored_is_empty():
    board = Scoreboard(NAMES, (HOUR,), exact_max=100)
    board.add({"candidate": np.zeros(4, np.float32)}, np.ones(4, np.float32), MINUTE)
    assert board.lifetime("champion")["n"] == 0 and math.isnan(board.window("champion", HOUR)["auc"])


def test_memory_is_bounded_once_on_levels():
    board = Scoreboard(("candidate",), (HOUR,), exact_max=100)
    for step in slides(500, seed=4, rows=60):
        board.add(*step)
    captured = board.capture()["tracks"]["candidate"]
    assert len(captured["logits"]) <= 100 and len(captured["ends"]) <= 6


@pytest.mark.parametrize("exact_max", [50, 10**6])
@pytest.mark.parametrize("cut", [0, 1, 60, 150])
def test_a_restored_board_goes_on_bit_for_bit(exact_max, cut):
    steps = list(slides(200, seed=5))
    whole = Scoreboard(NAMES, (HOUR, DAY), exact_max)
    for step in steps[:cut]:
        whole.add(*step)
    captured = whole.capture()
    again = Scoreboard(NAMES, (HOUR, DAY), exact_max)
    again.restore(captured)
    for step in steps[cut:]:
        whole.add(*step)
        again.add(*step)
        assert repr(everything(whole)) == repr(everything(again))


def test_a_capture_is_a_copy():
    board = Scoreboard(("candidate",), (HOUR,), exact_max=10**6)
    board.add({"candidate": np.zeros(4, np.float32)}, np.ones(4, np.float32), MINUTE)
    captured = board.capture()
    board.add({"candidate": np.ones(4, np.float32)}, np.ones(4, np.float32), 2 * MINUTE)
    assert captured["tracks"]["candidate"]["logits"].tolist() == [0, 0, 0, 0]
    assert captured["now"] == MINUTE

"""Lifetime and windowed metrics against a plain list of everything, exact and on levels."""

import math

import numpy as np
import pytest

from stream_learner.judging import metrics
from stream_learner.judging.scoreboard import Origin, Scoreboard
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
    return metrics.summary(logits[scored], labels[scored], np.zeros(scored.sum(), np.uint64))


def everything(board):
    return [
        [board.lifetime(name), board.window(name, HOUR), board.window(name, DAY), board.capture()["now"]]
        for name in board.names
    ]


def same(seen, wanted, rank_error=0.0):
    for key, value in wanted.items():
        if key in ("gauc", "ece") and rank_error:
            continue
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
        if len(added) % 51 == 0:
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
    captured = board.capture()
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
        if step[2] % (250 * MINUTE) == 0:
            assert repr(everything(whole)) == repr(everything(again))


def test_a_capture_is_a_copy():
    board = Scoreboard(("candidate",), (HOUR,), exact_max=10**6)
    board.add({"candidate": np.zeros(4, np.float32)}, np.ones(4, np.float32), MINUTE)
    captured = board.capture()
    board.add({"candidate": np.ones(4, np.float32)}, np.ones(4, np.float32), 2 * MINUTE)
    assert captured["logits"].tolist() == [[0], [0], [0], [0]]
    assert captured["now"] == MINUTE


# ---- slices and maturity ------------------------------------------------------------------------------------


def origins(seed=8, count=60):
    """Slides with clicks at known times, users, two slice features and a judged flag."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        n = int(rng.integers(1, 40))
        times = number * 10 * MINUTE + np.sort(rng.integers(0, 10 * MINUTE, n))
        slices = np.stack([rng.integers(0, 3, n), rng.integers(3, 5, n)], axis=1).astype(np.int16)
        origin = Origin(times, rng.integers(1, 9, n).astype(np.uint64), slices, rng.random(n) < 0.8)
        logits = rng.normal(-1, 1, n).astype(np.float32)
        yield logits, (rng.random(n) < 0.3).astype(np.float32), (number + 1) * 10 * MINUTE, origin


def test_slices_gauc_and_the_judged_span_are_exact():
    board, parts = Scoreboard(("candidate",), (HOUR, DAY), 10**6, features=2), []
    for logits, labels, at, origin in origins():
        board.maturity.arrived(origin.slices, at)
        board.add({"candidate": logits}, labels, at, origin)
        parts.append((np.full(len(logits), at), logits, labels, origin.users, origin.slices, origin.judged))
    at, logits, labels, users, slices, judged = (np.concatenate(column) for column in zip(*parts, strict=True))
    same(board.lifetime("candidate"), metrics.summary(logits[judged], labels[judged], users[judged]))
    recent = at > at[-1] - HOUR
    same(board.window("candidate", HOUR), metrics.summary(logits[recent], labels[recent], users[recent]))
    for number in range(5):
        mine = (slices == number).any(axis=1)
        for seen, rows in (
            (board.slice("candidate", number), mine & judged),
            (board.slice("candidate", number, HOUR), mine & recent),
        ):
            same(seen, metrics.summary(logits[rows], labels[rows], users[rows]))
            assert seen["n"] == rows.sum() and seen["maturity"] == 1.0
    assert board.slice("candidate", 5)["n"] == 0


def test_maturity_is_the_share_of_a_spans_clicks_that_have_labels():
    board, steps, arrived, matured = Scoreboard(("candidate",), (HOUR,), 10**6, features=2), list(origins()), [], []
    for number, (_, _, at, origin) in enumerate(steps):
        board.maturity.arrived(origin.slices, at)
        arrived.append(origin)
        old = number - 3  # labels come half an hour later
        if old >= 0:
            logits, labels, _, waiting = steps[old]
            board.add({"candidate": logits}, labels, at, waiting)
            matured.append(waiting)
        for which in (None, 1, 4):
            for after in (-1, at - HOUR):
                clicks, known = (
                    sum(
                        np.count_nonzero((o.times >= after) & ((o.slices == which).any(axis=1) | (which is None)))
                        for o in some
                    )
                    for some in (arrived, matured)
                )
                share = board.maturity.share(None if after < 0 else after, 0 if which is None else 1 + which)
                assert share == pytest.approx(known / clicks if clicks else math.nan, nan_ok=True)
    again = Scoreboard(("candidate",), (HOUR,), 10**6, features=2)
    again.restore(board.capture())
    assert again.window("candidate", HOUR) == board.window("candidate", HOUR)

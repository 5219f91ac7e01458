"""Rankings against brute force: session-kNN, Markov, metrics, and the gate's evidence."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import ndcg_score

from stream_learner import config as configs
from stream_learner.events import EventSchema
from stream_learner.next_item.gate import RankGate
from stream_learner.next_item.index import SessionIndex
from stream_learner.next_item.metrics import RankingBoard, measures, ranks
from stream_learner.next_item.neighbours import NeighbourIndex
from stream_learner.next_item.sessions import SessionStore
from stream_learner.settings import NextItem, RankingGate, RankingJudging, SessionNeighbours

EVENTS, ITEMS = 512, 30
HOUR_US = 3_600_000_000


def store_of(sessions: list[list[int]]) -> SessionStore:
    """A store that holds these; session s ended in hour s."""
    schema = EventSchema(("t",), ("click",), ("user", "item", "session"), ())
    store = SessionStore(NextItem(), schema)
    store.keys = store.users = np.arange(1, len(sessions) + 1, dtype=np.uint64)
    store.last = np.arange(len(sessions), dtype=np.int64) * HOUR_US
    store.starts = np.concatenate([[0], np.cumsum([len(s) for s in sessions])]).astype(np.int64)
    store.items = np.array([item for s in sessions for item in s], np.uint64)
    store.weights = np.ones(len(store.items), np.float32)
    return store


def index_of(sessions: list[list[int]], recency: int | None, *, repeats: bool, length: float = 0.0) -> NeighbourIndex:
    store = store_of(sessions)
    index = SessionIndex.of(
        store,
        store.items.astype(np.int64),
        (EVENTS, ITEMS),
        now=len(sessions) * HOUR_US,
        recency=recency,
        length_power=length,
        repeats=repeats,
    )
    held = NeighbourIndex(EVENTS, ITEMS)
    held.assign(index)
    return held


def made_up(seed: int, sessions: int = 40) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, ITEMS + 1, rng.integers(1, 9)).tolist() for _ in range(sessions)]


def stan(sessions: list[list[int]], recent: list[int], how: SessionNeighbours) -> np.ndarray:
    """Written out, session by session."""
    known = [(number, session) for number, session in enumerate(sessions) if len(session) > 1]
    held = defaultdict(int)
    for _, session in known:
        for item in set(session):
            held[item] += 1
    scores = np.zeros(ITEMS + 1)
    for number, session in known:
        similarity, nearest = 0.0, None
        for steps, item in enumerate(recent):
            if item and item in session and item not in recent[:steps]:
                rarity = math.log(len(known) / held[item])
                similarity += math.exp(-steps / how.sequence_decay) * rarity**how.rarity
                nearest = item if nearest is None else nearest
        if nearest is None:
            continue
        place = {item: at for at, item in enumerate(session)}
        age = (len(sessions) - number) * HOUR_US
        weight = similarity**how.sharpness * len(place) ** -how.length
        weight *= 1.0 if how.recency is None else math.exp(-age / how.recency)
        for item, at in place.items():
            steps = at - place[nearest]
            kernel = math.exp(-(abs(steps) - 1) / how.position_decay) * (how.forward if steps > 0 else 1.0)
            rarity = math.log(len(known) / held[item]) ** how.target_rarity
            scores[item] += weight * rarity * (how.shared if steps == 0 else kernel)
    return scores


@pytest.mark.parametrize("recency", [None, "20h"])
def test_session_knn_is_what_its_formula_says(recency: str | None) -> None:
    text = f"next_item: {{neighbours: {{recency: {recency or 'null'}, length: 0.5}}}}"
    how = configs.parse(text).next_item.neighbours
    sessions = made_up(3)
    index = index_of(sessions, None if how.recency is None else int(how.recency), repeats=False, length=0.5)
    recents = [[5, 9, 5, 0], [1, 2, 3, 4], [0, 0, 0, 0], [30, 0, 0, 0]]
    found = index.stan(tf.constant(recents, tf.int32), how).numpy()
    for row, recent in zip(found, recents, strict=True):
        assert row == pytest.approx(stan(sessions, recent, how), rel=1e-4, abs=1e-6)
    assert not found[2].any()


def test_only_the_latest_sessions_of_an_item_are_looked_at() -> None:
    sessions = [[1, 2], [1, 3], [1, 4]]
    how = SessionNeighbours(per_item=2, rarity=0.0, target_rarity=0.0)
    found = index_of(sessions, None, repeats=False).stan(tf.constant([[1]], tf.int32), how).numpy()[0]
    assert found[2] == 0 and found[3] > 0 and found[4] > 0


def test_markov_counts_what_came_right_behind() -> None:
    sessions = made_up(4)
    expected = np.zeros(ITEMS + 1)
    for session in sessions:
        for before, after in itertools.pairwise(session):
            expected[after] += before == 7
    found = index_of(sessions, None, repeats=True).markov(tf.constant([[7, 3]], tf.int32)).numpy()[0]
    assert found.tolist() == expected.tolist()


def test_ranks_and_measures_agree_with_a_plain_reading() -> None:
    top = np.array([[4, 2, 9], [4, 2, 9], [4, 2, 0], [4, 2, 9]], np.int32)
    target = np.array([2, 7, 0, 4], np.int64)
    rank = ranks(top, target)
    assert rank.tolist() == [2, 0, 0, 1]
    found = measures(rank, 3)
    assert found[:, 0].tolist() == [1, 0, 0, 1] and found[:, 1].tolist() == [0.5, 0, 0, 1]
    truth = (np.arange(10)[None, :] == target[:, None]) & (target[:, None] > 0)
    scores = np.zeros((4, 10))
    for row, listed in enumerate(top):
        scores[row, listed] = [3, 2, 1]
    for row in (0, 1, 3):
        assert found[row, 2] == pytest.approx(ndcg_score(truth[row : row + 1], scores[row : row + 1], k=3))


def test_the_board_windows_and_slices() -> None:
    board = RankingBoard(RankingJudging(k=4))
    new = np.array([True, False, False, False])
    day = 86_400_000_000
    board.add({"candidate": np.array([1, 0, 2, 4])}, {"new_item": new, "short_session": ~new}, day)
    board.add({"candidate": np.array([0, 0])}, {"new_item": ~new[:2], "short_session": new[:2]}, 3 * day)
    assert board.lifetime("candidate")["n"] == 6 and board.window("candidate")["recall@4"] == 0
    assert board.lifetime("candidate")["mrr@4"] == pytest.approx((1 + 0.5 + 0.25) / 6)
    assert board.lifetime("candidate", "new_item")["recall@4"] == pytest.approx(1 / 2)
    assert math.isnan(board.lifetime("champion")["mrr@4"])
    other = RankingBoard(RankingJudging(k=4))
    other.restore(board.capture())
    assert other.window("candidate") == board.window("candidate") and other.lifetime("candidate")["n"] == 6


def gate(**values: object) -> RankGate:
    return RankGate(RankingGate(**{"min_examples": 50, **values}), 20)  # type: ignore[arg-type]


def test_the_gate_publishes_what_is_proven_and_holds_what_is_not() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.integers(1, 4, 4000), rng.integers(0, 20, 4000)
    better, worse = gate(mode="superior"), gate(mode="superior")
    better.observe(good, bad)
    worse.observe(bad, good)
    assert better.judge(1, HOUR_US, finite=True, parent=7).passed
    verdict = worse.judge(1, HOUR_US, finite=True, parent=7)
    assert not verdict.passed and verdict.degraded and "proven worse than the champion: MRR@20 gain" in verdict.reason
    first = gate()
    first.observe(good[:40], None)
    assert "40 of 50" in first.judge(1, HOUR_US, finite=True, parent=None).reason
    first.observe(good[:40], None)
    assert first.judge(2, HOUR_US, finite=True, parent=None).passed
    assert not first.judge(3, HOUR_US, finite=False, parent=None).passed


def test_equal_models_are_hardly_ever_proven_different() -> None:
    """At alpha .05, asked after each of 40 slides; the chance of 8 or more false proofs in 40 runs is below .001."""
    false = 0
    for run in range(40):
        rng, held = np.random.default_rng(run), gate(mode="superior")
        verdicts = []
        for slide in range(40):
            held.observe(rng.integers(0, 20, 100), rng.integers(0, 20, 100))
            verdicts.append(held.judge(slide, slide * HOUR_US, finite=True, parent=1).passed)
        false += any(verdicts)
    assert false < 8


def test_an_override_passes_once() -> None:
    held = gate()
    held.observe(np.array([1, 2]), np.array([1, 1]))
    held.override("because")
    assert held.judge(1, HOUR_US, finite=True, parent=1).override == "because"
    assert not held.judge(2, HOUR_US, finite=True, parent=1).passed

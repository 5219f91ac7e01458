"""Sessions against a brute-force reading of the same events, however they are cut into slides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stream_learner import config as configs
from stream_learner.events import EventBatch, EventSchema
from stream_learner.next_item.sessions import LONGEST, SessionStore
from stream_learner.settings import Config

GAP_US = 30_000_000


def config_of(**sessions: object) -> Config:
    wanted = {"gap": "30s", "recent": 4, "capacity": 1000, **sessions}
    listed = ", ".join(f"{key}: {value}" for key, value in wanted.items())
    return configs.parse(f"task: next_item\nnext_item: {{events: {{click: 1.0, cart: 2.0}}, sessions: {{{listed}}}}}")


def events_of(schema: EventSchema, rows: list[tuple[int, int, int, int, str]]) -> EventBatch:
    """Rows of (time us, user, item, session or 0, kind)."""
    n = len(rows)
    ids = np.zeros((n, len(schema.ids)), np.uint64)
    for column, at in (("user", 1), ("item", 2), ("session", 3)):
        ids[:, schema.id_column(column)] = [row[at] for row in rows]
    return EventBatch(
        time=np.array([row[0] for row in rows], np.int64),
        topic=np.zeros(n, np.int16),
        partition=np.zeros(n, np.int32),
        offset=np.arange(n, dtype=np.int64),
        kind=np.array([schema.kinds.index(row[4]) for row in rows], np.int8),
        ids=ids,
        numbers=np.zeros((n, len(schema.numbers)), np.float32),
        label=np.full(n, np.nan, np.float32),
        event_id=np.zeros(n, np.uint64),
    )


def brute_force(rows: list[tuple[int, int, int, int, str]], recent: int) -> list[tuple[int, tuple[int, ...], int]]:
    """(time, context, target) of every event with a context, in order."""
    open_sessions: dict[int, tuple[int, list[int]]] = {}
    out = []
    for time, user, item, session, kind in rows:
        if kind not in ("click", "cart"):
            continue
        key = session or user
        last, seen = open_sessions.get(key, (-(10**18), []))
        if time - last > GAP_US or len(seen) == LONGEST:
            seen = []
        if seen:
            context = seen[::-1][:recent]
            out.append((time, tuple(context + [0] * (recent - len(context))), item))
        open_sessions[key] = (time, [*seen, item])
    return out


def made_up(seed: int, n: int, users: int) -> list[tuple[int, int, int, int, str]]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(0, 8_000_000, n)).tolist()
    kinds = rng.choice(["click", "cart", "purchase"], n, p=[0.8, 0.1, 0.1])
    return [
        (
            int(time),
            int(rng.integers(1, users + 1)),
            int(rng.integers(1, 9)),
            int(rng.integers(100, 104)) if rng.random() < 0.5 else 0,
            str(kind),
        )
        for time, kind in zip(times, kinds, strict=True)
    ]


@pytest.mark.parametrize("cuts", [0, 3, 40])
def test_contexts_are_those_of_a_plain_reading(cuts: int) -> None:
    config = config_of()
    schema, rows = configs.event_schema(config), made_up(1, 400, 6)
    store, found = SessionStore(config.next_item, schema), []
    rng = np.random.default_rng(cuts)
    edges = [0, *sorted(rng.integers(0, len(rows), cuts).tolist()), len(rows)]
    for start, end in itertools.pairwise(edges):
        examples, touched = store.step(store.wanted(events_of(schema, rows[start:end])))
        columns = examples.time.tolist(), examples.context.tolist(), examples.target.tolist()
        found += [(time, tuple(context), target) for time, context, target in zip(*columns, strict=True)]
        assert np.all(touched.older < np.diff(store.starts)[touched.rows])
    assert found == brute_force(rows, 4)


def test_equal_times_keep_the_order_of_the_log() -> None:
    config = config_of()
    schema = configs.event_schema(config)
    store = SessionStore(config.next_item, schema)
    examples, _ = store.step(events_of(schema, [(5, 1, item, 0, "click") for item in (7, 3, 9)]))
    assert examples.target.tolist() == [3, 9] and examples.context[1].tolist() == [3, 7, 0, 0]


def test_a_robots_session_begins_anew() -> None:
    config = config_of()
    schema = configs.event_schema(config)
    store = SessionStore(config.next_item, schema)
    rows = [(t, 1, 5, 0, "click") for t in range(LONGEST + 3)]
    found = [store.step(events_of(schema, part))[0] for part in (rows[:150], rows[150:])]
    assert len(store) == 2 and np.diff(store.starts).tolist() == [LONGEST, 3]
    assert sum(map(len, found)) == len(brute_force(rows, 4))


def test_the_first_sessions_go_and_events_stay_together() -> None:
    config = config_of(capacity=1000)
    schema = configs.event_schema(config)
    store = SessionStore(config.next_item, schema)
    rows = [(user * 1000 + step, user, step + 1, 0, "click") for user in range(1, 301) for step in range(5)]
    _, touched = store.step(events_of(schema, rows))
    assert len(store.items) == 1000 and len(store) == 200
    assert store.keys[0] == 101 and store.items[:5].tolist() == [1, 2, 3, 4, 5]
    assert touched.rows.tolist() == list(range(200))


def test_what_is_captured_goes_on_alike() -> None:
    config = config_of()
    schema, rows = configs.event_schema(config), made_up(2, 300, 5)
    one = SessionStore(config.next_item, schema)
    one.step(one.wanted(events_of(schema, rows[:150])))
    other = SessionStore(config.next_item, schema)
    other.restore(one.capture())
    rest = events_of(schema, rows[150:])
    (a, _), (b, _) = one.step(one.wanted(rest)), other.step(other.wanted(rest))
    assert np.array_equal(a.context, b.context) and np.array_equal(a.target, b.target)
    assert all(np.array_equal(one.capture()[name], value) for name, value in other.capture().items())


def test_a_slide_without_events_changes_nothing() -> None:
    config = config_of()
    schema = configs.event_schema(config)
    store = SessionStore(config.next_item, schema)
    examples, touched = store.step(EventBatch.empty(schema))
    assert len(examples) == len(touched.rows) == len(store) == 0


def test_erased_users_leave_no_session_and_the_others_go_on() -> None:
    config = config_of()
    schema = configs.event_schema(config)
    rows = made_up(3, 200, 5)
    rows = [(time, user, item, 0, kind) for time, user, item, _, kind in rows]  # sessions by user
    events = events_of(schema, rows)
    one, other = SessionStore(config.next_item, schema), SessionStore(config.next_item, schema)
    one.step(one.wanted(events.take(slice(0, 120))))
    assert one.erase(np.array([2, 0], np.uint64)) > 0
    left = events.take(events.ids[:, schema.id_column("user")] != 2)
    split = int(np.count_nonzero(left.offset < 120))
    other.step(other.wanted(left.take(slice(0, split))))
    for store in (one, other):
        store.step(store.wanted(left.take(slice(split, None))))
    assert all(np.array_equal(one.capture()[name], other.capture()[name]) for name in one.capture())


def test_a_session_is_its_users_and_is_erased_with_them() -> None:
    config = config_of()
    schema = configs.event_schema(config)
    store = SessionStore(config.next_item, schema)
    rows = [(1, 7, 1, 100, "click"), (2, 8, 2, 0, "click"), (3, 7, 3, 100, "click"), (4, 9, 4, 101, "click")]
    examples, _ = store.step(events_of(schema, rows))
    assert store.keys.tolist() == [100, 8, 101] and store.users.tolist() == [7, 8, 9]
    assert examples.asked.user.tolist() == [7] and examples.asked.recent[0].tolist() == [1, 0, 0, 0]
    assert store.erase(np.array([7, 8], np.uint64)) == 2  # found by a session id, too
    assert store.users.tolist() == [9] and store.items.tolist() == [4]


def test_a_session_is_still_its_users_when_a_later_event_names_nobody() -> None:
    config = config_of()
    schema = configs.event_schema(config)
    store = SessionStore(config.next_item, schema)
    for time, user in ((1, 7), (2, 0)):
        store.step(events_of(schema, [(time, user, 9 + time, 5, "click")]))
    assert store.erase(np.array([7], np.uint64)) == 1
    assert not len(store.items)

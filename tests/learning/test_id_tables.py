"""Ids that live and die: admission, expiry, reuse of rows, and what becomes of it in versions and after a restart."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from model_inputs import EVERYTHING, examples, setting, texts

from stream_learner.config import parse
from stream_learner.errors import ConfigError
from stream_learner.learning.features import IdColumn
from stream_learner.learning.id_tables import IdTable
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay
from stream_learner.learning.tables import PADDING, UNKNOWN_ROW

HOUR_US = 3_600_000_000
LIVING = EVERYTHING.replace(
    "rows: 100, dim: 4}", "rows: 40, dim: 4, admit_after: 3, expire_after: 2h, max_waiting: 60}"
)


class Oracle:
    """The rules, one sighting at a time."""

    def __init__(self, column):
        self.column, self.now = column, -(2**62)
        self.rows, self.seen, self.waiting = {}, {}, {}

    def take_in(self, ids, times):
        freed = []
        if len(ids):
            self.now = max(self.now, max(times))
        valid = [(i, t) for i, t in zip(ids, times, strict=True) if i not in (0, PADDING)]
        for number, time in valid:
            if number in self.rows:
                self.seen[number] = max(self.seen[number], time)
        if self.column.expire_after is not None:
            limit = self.now - self.column.expire_after
            for number in [n for n in self.rows if self.seen[n] < limit]:
                freed.append(self.rows.pop(number))
                del self.seen[number]
            self.waiting = {n: w for n, w in self.waiting.items() if w[1] >= limit}
        strangers = dict.fromkeys(n for n, _ in valid if n not in self.rows)
        for number in strangers:
            mine = [t for n, t in valid if n == number]
            count = self.waiting.pop(number, (0, 0))[0] + len(mine)
            free = sorted(set(range(2, self.column.rows + 2)) - set(self.rows.values()))
            if count >= self.column.admit_after and free:
                self.rows[number], self.seen[number] = free[0], max(mine)
            else:
                self.waiting[number] = (count, max(mine))
        keep = sorted(self.waiting, key=lambda n: (self.waiting[n][1], n))[-self.column.max_waiting :]
        self.waiting = {n: self.waiting[n] for n in keep}
        return sorted(freed)


@pytest.mark.parametrize(("admit_after", "expire_after"), [(1, None), (3, None), (1, 50), (2, 50)])
@pytest.mark.parametrize("seed", range(4))
def test_who_has_a_row_is_what_the_rules_say(seed, admit_after, expire_after):
    rng = np.random.default_rng(seed)
    column = IdColumn("item", 1, "exact", 20, 2, admit_after, expire_after, 15)
    table, oracle = IdTable(column), Oracle(column)
    population = rng.integers(-(2**63), 2**63 - 1, 60, dtype=np.int64)
    for step in range(60):
        ids = rng.choice(population, 12, p=np.arange(60, 0, -1) / 1830)
        ids[rng.random(12) < 0.1] = 0
        ids[rng.random(12) < 0.05] = PADDING
        times = step * 10 + rng.integers(-20, 20, 12)
        _, freed = table.take_in(ids, times)
        assert sorted(freed.tolist()) == oracle.take_in(ids.tolist(), times.tolist())
        assert dict(zip(table.ids.tolist(), table.rows.tolist(), strict=True)) == oracle.rows
        assert np.all(table.ids[1:] > table.ids[:-1])
        if expire_after is not None or (admit_after > 1 and len(oracle.rows) < 20):  # else nobody waits for room
            assert table.waiting == len(oracle.waiting)
        if step % 20 == 19:  # counts survive a restart
            again = IdTable(column)
            again.restore(copy.deepcopy(table.capture()), *table.padded())
            table = again
    assert table.admitted >= 20 and (table.expired > 0) == (expire_after is not None)


def _batch(made, count, seed, hour, items):
    ids = texts(count, seed)
    rng = np.random.default_rng([seed, 5])
    ids["item"] = [f"item-{n}" for n in rng.choice(items, count)]
    batch = examples(made, count, seed, ids)
    return replace(batch, time=np.full(count, int(hour * HOUR_US)))


def _rows_of(learner, batch):
    column = learner.features.ids[1].column
    table = learner.ids["item"]
    return dict(zip(table.ids.view(np.uint64).tolist(), table.rows.tolist(), strict=True)), set(
        batch.ids[:, column].tolist()
    )


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "ftrl"])
def test_a_row_that_is_reused_starts_anew_and_old_ids_are_gone_from_the_next_version(optimizer):
    network = "logistic" if optimizer == "ftrl" else "mlp, hidden: [8]"
    extra = f"network: {network}, optimizer: {optimizer}, batch_size: 32"
    made = setting(f"learning: {{{extra}}}\n", LIVING)
    learner, replay = Learner(made.config, made.features), Replay(0, 0)
    old = _batch(made, 300, 1, 0, range(40))
    learner.learn(old, replay, 0)
    learner.promote()
    held, seen = _rows_of(learner, old)
    assert set(held) <= seen and 30 < len(held) <= 40
    learned = learner.version_variables()["table/item"]
    learner.changes()
    learner.learn(_batch(made, 2, 2, 9, [100]), replay, 1)  # hours later: everybody has expired, nobody is admitted
    state = learner.capture()
    assert len(learner.ids["item"].ids) == 0 and learner.ids["item"].expired == len(held)
    rows = sorted(held.values())
    vectors = state["candidate"]["table/item"][rows]
    assert np.abs(vectors).max() < 0.06 and not (vectors == learned[rows]).any()  # first vectors, of scale .01
    for name, slot in state["candidate"].items():
        if name.startswith("slot/table/item/") and not name.endswith("linear"):
            assert len(np.unique(slot[rows])) == 1, name
    learner.promote()
    version = learner.version_variables()
    assert (version["exact/item/rows"] == UNKNOWN_ROW).all() and (version["exact/item/fingerprints"] == PADDING).all()
    np.testing.assert_array_equal(version["table/item"][rows], state["candidate"]["table/item"][rows])
    learner.learn(_batch(made, 200, 3, 10, range(200, 230)), replay, 2)
    change = learner.changes()["candidate"]["table/item"]
    assert set(learner.ids["item"].rows.tolist()) <= set(change.rows.tolist())
    assert min(learner.ids["item"].rows) == 2


def test_restored_between_sightings_it_goes_on_as_if_never_interrupted():
    made = setting("learning: {hidden: [8], batch_size: 32}\nreplay: {capacity: 200}\n", LIVING)
    one, replay = Learner(made.config, made.features), Replay(200, 7)
    for slide in range(6):
        one.learn(_batch(made, 40, slide, slide * 0.7, range(slide * 8, slide * 8 + 60)), replay, slide)
    assert one.ids["item"].waiting and one.ids["item"].expired
    one.promote()
    two, replay_two = Learner(made.config, made.features), Replay(200, 7)
    two.restore(one.capture())
    replay_two.restore(replay.capture())
    for slide in range(6, 12):
        batch = _batch(made, 40, slide, slide * 0.7, range(slide * 8, slide * 8 + 60))
        assert one.learn(batch, replay, slide) == two.learn(batch, replay_two, slide)
        if slide == 8:
            one.restart(replay, slide, 2)
            two.restart(replay_two, slide, 2)
        assert one.model_sha256() == two.model_sha256()
        np.testing.assert_array_equal(one.ids["item"].ids, two.ids["item"].ids)
        assert one.ids["item"].waiting == two.ids["item"].waiting


def test_a_restart_from_the_champion_keeps_its_rows_and_lets_dead_ids_go():
    made = setting("learning: {hidden: [8], batch_size: 32}\n", LIVING)
    learner, replay = Learner(made.config, made.features), Replay(0, 0)
    learner.learn(_batch(made, 200, 1, 0, range(20)), replay, 0)
    learner.promote()
    before, _ = _rows_of(learner, _batch(made, 1, 1, 0, range(20)))
    learner.learn(_batch(made, 200, 2, 1, range(10, 30)), replay, 1)
    learner.learn(_batch(made, 200, 3, 2.5, range(20, 30)), replay, 2)  # those below 10 have expired
    held = set(learner.ids["item"].ids.tolist())
    learner.restart(replay, 2, 0)
    after, _ = _rows_of(learner, _batch(made, 1, 1, 0, range(20)))
    assert set(learner.ids["item"].ids.tolist()) == held
    common = before.keys() & after.keys()
    assert common and all(before[number] == after[number] for number in common)
    assert before.keys() - after.keys() and len(set(after.values())) == len(after)
    champion, candidate = learner.version_variables(), learner.version_variables("candidate")
    kept, dead = [after[n] for n in common], [before[n] for n in before.keys() - after.keys()]
    np.testing.assert_array_equal(candidate["table/item"][kept], champion["table/item"][kept])
    assert (candidate["table/item"][dead] != champion["table/item"][dead]).any()


def test_only_exact_tables_know_ids():
    for key in ("admit_after: 2", "expire_after: 1d"):
        with pytest.raises(ConfigError, match=f"features.ids.item.{key.split(':')[0]}: .*hashed table knows no ids"):
            parse(f"features: {{ids: {{item: {{{key}}}}}}}\n")


def test_an_erased_id_gives_its_row_back_as_new_and_the_champion_is_left_alone():
    living = LIVING.replace("admit_after: 3", "admit_after: 1")
    made = setting("learning: {hidden: [8], batch_size: 32}\n", living)
    learner = Learner(made.config, made.features)
    batch = _batch(made, 200, 1, 0, 20)
    learner.learn(batch, Replay(0, 1), 0)
    learner.promote()
    column = next(column for column in made.features.ids if column.table == "exact")
    table = learner.ids[column.name]
    ids = np.unique(batch.ids[:, column.column])[-3:-1]
    rows = table.rows[np.searchsorted(table.ids, np.sort(ids.view(np.int64)))].astype(np.int64)
    before = learner.candidate.tables[column.name].numpy()
    assert learner.erase(column.column, ids, 1) == 2
    after = learner.candidate.tables[column.name].numpy()
    assert not np.isin(table.ids, ids.view(np.int64)).any() and not np.isin(table.rows, rows).any()
    assert (after[rows] != before[rows]).any(axis=1).all()
    others = np.setdiff1d(np.arange(len(after)), rows)
    assert np.array_equal(after[others], before[others])
    assert np.array_equal(learner.champion.tables[column.name].numpy(), before)
    assert learner.erase(column.column, ids, 2) == 0

"""The candidate and the champion: learning, refusing, promoting, and recovering bit by bit."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from model_inputs import EVERYTHING, examples, setting
from msgspec import structs
from sklearn.metrics import roc_auc_score

from stream_learner.changes import Changed
from stream_learner.errors import LearningError, StateError
from stream_learner.learning.delayed import final_targets
from stream_learner.learning.learner import Learner
from stream_learner.learning.replay import Replay, replay_buffer
from stream_learner.learning.training import Trainer

SMALL = "learning: {network: mlp, hidden: [8], batch_size: 64}\nreplay: {capacity: 500}\n"


def _learner(extra=SMALL, base=EVERYTHING):
    made = setting(extra, base)
    return made, Learner(made.config, made.features), Replay(made.config.replay.capacity, made.config.seed)


def _equal(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            _equal(value, two[name])
        else:
            np.testing.assert_array_equal(value, two[name], err_msg=name)


@pytest.mark.parametrize(
    "network",
    [
        "network: logistic, optimizer: adagrad, learning_rate: 0.1",
        "network: mlp, learning_rate: 0.01, dropout: 0.1",
        "network: dcn_v2, learning_rate: 0.002, hidden: [16], l2: 0.001",
        "'network': 'networks_of_users:good', learning_rate: 0.01",
    ],
)
def test_it_learns_what_can_be_learned(network):
    made, learner, replay = _learner(f"learning: {{{network}, batch_size: 64}}\n")
    before = examples(made, 3000, seed=99)
    losses = [learner.learn(examples(made, 400, seed=slide), replay, slide).mean_loss for slide in range(30)]
    assert losses[-1] < losses[0]
    assert roc_auc_score(before.label, learner.score(before)) > 0.7  # the price alone has .74
    assert learner.retraces == 0 and learner.finite()


def test_before_it_has_learned_it_has_no_opinion_and_then_starts_at_the_base_rate():
    made, learner, replay = _learner("learning: {network: mlp, learning_rate: 1.0e-6}\n")
    batch = examples(made, 500, seed=0)
    assert not learner.has_learned and np.isnan(learner.score(batch)).all()
    learner.learn(batch.take(slice(0, 0)), replay, 0)
    assert not learner.has_learned
    learner.learn(batch, replay, 1)
    positives = float(batch.label.sum())
    offset = np.float32(np.log((positives + 0.5) / (500 - positives + 0.5)))
    assert learner.has_learned and learner.version_variables("candidate")["offset"] == offset
    assert abs(learner.score(batch).mean() - offset) < 0.5
    learner.learn(replace(batch, label=np.ones(500, np.float32)), replay, 2)
    assert learner.version_variables("candidate")["offset"] == offset


def test_one_graph_serves_slides_of_every_size():
    made, learner, replay = _learner()
    for slide, size in enumerate([1, 63, 64, 65, 0, 700, 2, 9000]):
        batch = examples(made, size, seed=slide)
        assert learner.score(batch).shape == (size,)
        learned = learner.learn(batch, replay, slide)
        assert (learned.rows, learned.steps) == (size, -(-size // 64))
        learner.promote()
        np.testing.assert_array_equal(learner.score_champion(batch), learner.score(batch))
    assert learner.retraces == 0
    assert dict(learner.candidate.traces) == {"score": 1} == dict(learner.champion.traces)


def test_scores_do_not_depend_on_the_company_they_keep():
    made, learner, replay = _learner()
    learner.learn(examples(made, 500, seed=0), replay, 0)
    batch = examples(made, 300, seed=1)
    alone = np.concatenate([learner.score(batch.take(slice(i, i + 1))) for i in range(20)])
    np.testing.assert_allclose(learner.score(batch)[:20], alone, atol=1e-6)


def test_equal_inputs_give_equal_bits_and_every_change_shows():
    hashes = []
    for seed, rate in [(7, 0.001), (7, 0.001), (8, 0.001), (7, 0.002)]:
        base = EVERYTHING.replace("seed: 7", f"seed: {seed}")
        made, learner, replay = _learner(f"learning: {{batch_size: 64, dropout: 0.2, learning_rate: {rate}}}\n", base)
        for slide in range(3):
            learner.learn(examples(made, 150, seed=slide), replay, slide)
        hashes.append(learner.model_sha256())
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


@pytest.mark.parametrize("network", ["mlp", "networks_of_users:good"])
def test_restored_it_goes_on_as_if_never_interrupted(network):
    extra = f"learning: {{network: '{network}', dropout: 0.2, batch_size: 50}}\nreplay: {{capacity: 300, ratio: 0.7}}\n"
    made, one, replay = _learner(extra)
    for slide in range(4):
        one.learn(examples(made, 120, seed=slide), replay, slide)
        if slide == 2:
            one.promote()
    state, held = one.capture(), replay.capture()
    kept = copy.deepcopy(state)
    _, two, replay_two = _learner(extra)
    two.learn(examples(made, 60, seed=50), Replay(0, 0), 0)  # whatever it held before is gone
    two.restore(state)
    replay_two.restore(held)
    assert two.model_sha256() == one.model_sha256()
    for slide in range(4, 8):
        batch = examples(made, 130, seed=slide)
        np.testing.assert_array_equal(one.score(batch), two.score(batch))
        np.testing.assert_array_equal(one.score_champion(batch), two.score_champion(batch))
        assert one.learn(batch, replay, slide) == two.learn(batch, replay_two, slide)
        assert one.model_sha256() == two.model_sha256()
    _equal(one.capture(), two.capture())
    _equal(state, kept)  # neither capturing nor restoring shares memory with what learns on


def test_a_capture_of_another_config_is_refused():
    _, learner, _ = _learner()
    _, other, _ = _learner(SMALL.replace("[8]", "[9]"))
    with pytest.raises(StateError, match=r"network/\d+_\w+ is float32 \(.*\), expected float32 \("):
        other.restore(learner.capture())
    _, logistic, _ = _learner("learning: {network: logistic}\n")
    with pytest.raises(StateError, match="on one side only"):
        logistic.load_champion(learner.version_variables("candidate"))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_changes_nothing(poison):
    made, learner, replay = _learner("learning: {network: 'networks_of_users:good', batch_size: 64}\n")
    learner.learn(examples(made, 300, seed=0), replay, 0)
    batch = examples(made, 50, seed=1)
    batch.label[10] = poison
    batch.numbers[:20, 1] = 1e30
    before = learner.capture()["candidate"]
    with pytest.raises(LearningError, match=r"slide 1, step 0: loss or gradient is not finite"):
        learner.learn(batch, replay, 1)
    after = learner.capture()["candidate"]
    encoding = ("normaliser/", "exact/")
    changed = [
        name for name in after if not np.array_equal(before[name], after[name]) and not name.startswith(encoding)
    ]
    assert changed == [] and learner.finite()


def test_a_failed_step_names_the_inputs_that_are_far_off():
    made, learner, replay = _learner("learning: {blank_rate: 0}\n")
    for slide in range(5):
        learner.learn(examples(made, 2000, seed=slide), replay, slide)
    batch = examples(made, 60, seed=9)
    batch.label[0] = np.nan
    batch.numbers[:3, 1] = 1e4
    with pytest.raises(LearningError, match=r"far-off values: rank \(3 of \d+ rows\)"):
        learner.learn(batch, replay, 9)


def test_an_explosion_is_refused_before_it_spreads():
    base = EVERYTHING.replace("numeric: {price: {transform: log1p}, rank: {}}", "numeric: {price: {}}")
    made, learner, replay = _learner("learning: {network: 'networks_of_users:explodes', learning_rate: 10}\n", base)
    with pytest.raises(LearningError):
        for slide in range(20):
            learner.learn(examples(made, 200, seed=slide), replay, slide)
    assert learner.finite()


def test_replayed_rows_come_at_their_ratio_even_row_by_row():
    made, learner, replay = _learner("learning: {batch_size: 4}\nreplay: {capacity: 100, ratio: 0.3}\n")
    learner.learn(examples(made, 10, seed=0), replay, 0)
    replayed = [learner.learn(examples(made, 1, seed=s), replay, s).replayed for s in range(1, 101)]
    assert sum(replayed) == 30 and max(replayed) == 1
    assert len(replay) == 100


def test_a_slides_own_examples_are_not_replayed_in_it():
    made, learner, replay = _learner("learning: {batch_size: 8, passes: 3}\n")
    learned = learner.learn(examples(made, 40, seed=0), replay, 0)
    assert (learned.rows, learned.replayed, learned.steps, len(replay)) == (120, 0, 15, 40)
    assert learner.learn(examples(made, 40, seed=1), replay, 1).replayed == 120


def test_blanking_reaches_only_aggregates_that_do_not_travel():
    made, learner, replay = _learner("learning: {blank_rate: 0.5, batch_size: 4000}\n")
    seen = []
    step = learner._trainer.step
    learner._trainer.step = lambda ids, scaled, *rest: seen.append(scaled) or step(ids, scaled, *rest)
    batch = examples(made, 4000, seed=3)
    original = batch.numbers.copy()
    learner.learn(batch, replay, 0)
    np.testing.assert_array_equal(batch.numbers, original)
    blanked = np.isnan(seen[0]) & ~np.isnan(made.features.take_numbers(original))
    groups = made.features.groups()
    assert not blanked[:, [i for g, columns in groups.items() if g != "user" for i in columns]].any()
    users = np.isnan(seen[0])[:, groups["user"]].all(axis=1)
    known = batch.ids[:, 0] != 0
    assert 0.46 < users[known].mean() < 0.54


def test_rows_that_are_not_in_a_batch_rest():
    made, learner, _ = _learner("replay: {capacity: 0}\n")
    batch = examples(made, 20, seed=0)
    learner.learn(batch, Replay(0, 0), 0)
    before = learner.capture()["candidate"]
    other = replace(batch.take(slice(0, 1)), ids=np.full((1, 4), 12345, np.uint64))
    learner.learn(other, Replay(0, 0), 1)
    after = learner.capture()["candidate"]
    for name in ("table/user", "slot/table/user/mean", "slot/table/user/variance"):
        moved = np.flatnonzero((before[name] != after[name]).any(axis=1))
        assert moved.tolist() == [1 + 12345 % 1000], name


def test_no_champion_then_a_copy_then_a_rollback():
    made, learner, replay = _learner()
    batch = examples(made, 100, seed=0)
    assert not learner.has_champion and np.isnan(learner.score_champion(batch)).all()
    learner.learn(batch, replay, 0)
    learner.promote()
    old = learner.version_variables()
    scores = learner.score_champion(batch)
    learner.learn(examples(made, 100, seed=1), replay, 1)
    np.testing.assert_array_equal(learner.score_champion(batch), scores)
    assert not np.array_equal(learner.score(batch), scores)
    learner.promote()
    assert not np.array_equal(learner.score_champion(batch), scores)
    learner.load_champion(old)
    np.testing.assert_array_equal(learner.score_champion(batch), scores)
    assert not any(name.startswith(("slot/", "optimizer/")) for name in old)
    _equal(old, learner.version_variables("champion"))


def test_the_share_of_each_table_in_use():
    made, learner, replay = _learner()
    batch = examples(made, 200, seed=0)
    learner.learn(batch, replay, 0)
    fill = learner.table_fill()
    assert fill["item"] == min(100, len(set(batch.ids[:, 1].tolist()) - {0})) / 100
    rows = {0 if user == 0 else 1 + user % 1000 for user in batch.ids[:, 0].tolist()}
    assert fill["user"] == pytest.approx(len(rows) / 1001)


def test_nan_in_a_weight_is_seen():
    made, learner, replay = _learner()
    assert learner.finite()
    learner.learn(examples(made, 100, seed=0), replay, 0)
    assert learner.finite()
    state = learner.capture()
    rested = int(np.flatnonzero(~state["candidate"]["slot/table/user/mean"].any(axis=1))[0])
    for name, row in (("table/user", rested), ("offset", ())):
        broken = copy.deepcopy(state)
        broken["candidate"][name][row] = np.nan
        learner.restore(broken)
        assert not learner.finite() and not learner.finite(), name
    learner.restore(state)
    assert learner.finite()
    user = made.features.take_ids(examples(made, 1, seed=0).ids)  # a row that is moved next
    moved = learner.candidate.encoder.rows(user)["user"].numpy()
    learner.learn(examples(made, 1, seed=0), replay, 1)
    learner.candidate.tables["user"].scatter_update(tf.IndexedSlices(np.full((1, 4), np.inf, np.float32), moved))
    assert not learner.finite()


def _onto(before, after):
    """A whole state, given the one before and what `changes` told of it."""
    if isinstance(after, dict):
        return {name: _onto((before or {}).get(name), value) for name, value in after.items()}
    if isinstance(after, Changed):
        return after.values if after.whole else after.onto(before.copy())
    return copy.deepcopy(after)


def test_what_changed_put_onto_what_was_is_what_is():
    """A random sequence of learning, promoting, rolling back, capturing and restoring, whole states beside it."""
    extra = "learning: {network: logistic, batch_size: 40}\nreplay: {capacity: 150}\n"
    rng = np.random.default_rng(3)
    made, learner, replay = _learner(extra)
    spare = _learner(extra)[1:]
    told, old, seen = {"learner": learner.capture(), "replay": replay.capture()}, None, set()
    for slide in range(50):
        action = rng.choice(["learn", "learn", "promote", "roll back", "restore", "capture"])
        seen.add(action)
        if action == "learn":
            learner.learn(examples(made, int(rng.integers(0, 90)), seed=slide), replay, slide)
        elif action == "promote":
            learner.promote()
            _equal(learner.version_variables(), learner.version_variables("candidate"))
            old = old or learner.version_variables()
        elif action == "roll back" and old is not None:
            learner.load_champion(old)
            _equal(learner.version_variables(), old)
        elif action in ("restore", "capture"):
            told = _onto(told, {"learner": learner.changes(), "replay": replay.changes()})
        if action == "restore":  # by another worker, whatever it held before
            (learner, replay), spare = spare, (learner, replay)
            learner.restore(copy.deepcopy(told["learner"]))
            replay.restore(copy.deepcopy(told["replay"]))
    told = _onto(told, {"learner": learner.changes(), "replay": replay.changes()})
    _equal(told, {"learner": learner.capture(), "replay": replay.capture()})
    assert len(seen) == 5 and old is not None


def test_what_a_step_moved_is_all_that_is_told():
    made, learner, replay = _learner()
    learner.learn(examples(made, 300, seed=0), replay, 0)
    learner.promote()
    learner.capture()
    quiet = learner.changes()
    leaves = {**quiet["candidate"], **{f"champion {name}": leaf for name, leaf in quiet["champion"].items()}}
    tables = [leaf for leaf in leaves.values() if isinstance(leaf, Changed)]
    assert len(tables) == 3 * 3 + 3 and all(len(leaf.rows) == 0 for leaf in tables)
    one = replace(examples(made, 1, seed=1), ids=np.full((1, 4), 12345, np.uint64))
    learner.learn(one, Replay(0, 0), 1)
    told = learner.changes()
    for name in ("table/user", "slot/table/user/mean", "slot/table/user/variance"):
        assert told["candidate"][name].rows.tolist() == [1 + 12345 % 1000], name
    assert len(told["champion"]["table/user"].rows) == 0
    learner.promote()
    assert learner.changes()["champion"]["table/user"].rows.tolist() == [1 + 12345 % 1000]


def test_a_version_and_the_capture_after_it_share_the_copies_of_moved_rows():
    made, learner, replay = _learner()
    learner.learn(examples(made, 300, seed=0), replay, 0)
    learner.promote()
    before = learner.version_variables()
    learner.changes()
    learner.learn(examples(made, 40, seed=1), replay, 1)
    learner.promote()
    told = learner.version_changes()
    _equal({name: _onto(before[name], leaf) for name, leaf in told.items()}, learner.version_variables())
    assert 0 < len(told["table/user"].rows) <= 2 * 40  # as many are replayed
    captured = learner.changes()["champion"]
    assert all(captured[name] is leaf for name, leaf in told.items() if name.startswith("table/"))
    assert len(learner.version_changes()["table/user"].rows) == 0
    captured_as = learner.version_variables()
    learner.learn(examples(made, 40, seed=2), replay, 2)
    learner.promote()
    learner.version_changes()
    learner.load_champion(before)  # what was told is no longer so
    captured = learner.changes()["champion"]
    _equal({name: _onto(captured_as[name], leaf) for name, leaf in captured.items()}, before)


def test_every_graph_is_built_before_the_first_row_and_never_again():
    made, learner, replay = _learner()
    learner.trace()
    built = [dict(part.traces) for part in (*learner._models(), learner._trainer)]
    assert built == [{"score": 1}] * 3 + [{"step": 1}]
    for slide, size in enumerate((1, 0, 300, 77)):
        learner.learn(examples(made, size, seed=slide), replay, slide)
        learner.promote()
        for score in (learner.score, learner.score_champion, learner.score_previous):
            score(examples(made, 3 * size + 1, seed=slide))
    learner.restart(replay, 9, 2)
    assert [dict(part.traces) for part in (*learner._models(), learner._trainer)] == built
    assert learner.retraces == 0
    *columns, count = learner._trainer.signature
    learner._trainer._traced_step(*(tf.zeros([2, *c.shape[1:]], c.dtype) for c in columns), tf.constant(2, count.dtype))
    assert learner.retraces == 1  # Python ran again: counted


def test_the_version_before_is_kept_for_its_canary_and_let_go():
    made, learner, replay = _learner()
    probe = examples(made, 50, seed=9)
    learner.learn(examples(made, 200, seed=1), replay, 1)
    learner.promote()
    assert not learner.has_previous  # the first version has none before it
    first = learner.score_champion(probe)
    learner.learn(examples(made, 200, seed=2), replay, 2)
    learner.promote()
    assert learner.has_previous
    np.testing.assert_array_equal(learner.score_previous(probe), first)
    again = Learner(made.config, made.features)
    again.restore(copy.deepcopy(learner.capture()))
    np.testing.assert_array_equal(again.score_previous(probe), first)
    learner.load_champion(learner.version_variables())
    assert not learner.has_previous and learner.capture()["previous"] is None


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_a_restart_goes_on_from_the_champion_and_catches_up_by_replay(optimizer):
    made, learner, replay = _learner(
        f"learning: {{network: mlp, hidden: [8], batch_size: 64, optimizer: {optimizer}}}\nreplay: {{capacity: 500}}\n"
    )
    probe = examples(made, 50, seed=9)
    learner.learn(examples(made, 200, seed=1), replay, 1)
    learner.promote()
    fresh = Learner(made.config, made.features).capture()["candidate"]
    for slide in (2, 3):
        learner.learn(examples(made, 200, seed=slide), replay, slide)
    again = Learner(made.config, made.features)
    again.restore(copy.deepcopy(learner.capture()))

    assert learner.restart(replay, 3, 0) == 0
    state = learner.capture()["candidate"]
    for name, value in state.items():
        if name.startswith(("slot/", "optimizer/")):
            np.testing.assert_array_equal(value, fresh[name], err_msg=name)
        elif name in learner.version_variables() and not name.startswith("normaliser/"):
            np.testing.assert_array_equal(value, learner.version_variables()[name], err_msg=name)

    assert learner.restart(replay, 3, 4) == again.restart(replay, 3, 4) == 4 * 64
    assert not np.array_equal(learner.score(probe), learner.score_champion(probe))
    _equal(learner.capture()["candidate"], again.capture()["candidate"])
    assert learner.retraces == 0 and learner.finite()
    learner.learn(examples(made, 200, seed=4), replay, 4)


@pytest.mark.parametrize("policy", ["time_biased", "stratified", "prioritised", "dark"])
def test_with_any_replay_policy_a_restored_learner_goes_on_as_if_never_interrupted(policy):
    extra = (
        f"learning: {{hidden: [8], batch_size: 50, ensemble: {{members: 2}}}}\n"
        f"replay: {{policy: {policy}, capacity: 200, ratio: 0.7, half_life: 3d}}\n"
    )
    made, one, _ = _learner(extra)
    replay = replay_buffer(made.config, made.schema)
    for slide in range(4):
        one.learn(examples(made, 120, seed=slide), replay, slide)
    one.promote()
    state, held = one.capture(), replay.capture()
    two, replay_two = Learner(made.config, made.features), replay_buffer(made.config, made.schema)
    two.restore(state)
    replay_two.restore(held)
    for slide in range(4, 8):
        batch = examples(made, 130, seed=slide)
        assert one.learn(batch, replay, slide) == two.learn(batch, replay_two, slide)
        if slide == 5:
            assert one.restart(replay, slide, 3) == two.restart(replay_two, slide, 3) == 150
        assert one.model_sha256() == two.model_sha256()
    _equal(replay.capture()["columns"], replay_two.capture()["columns"])
    assert one.retraces == 0


def test_dark_replay_holds_rows_to_their_logits():
    """With no weight on the labels of replayed rows, steps on them alone pull the logits back to those held."""
    extra = "learning: {hidden: [8], learning_rate: 0.01, blank_rate: 0}\nreplay: {policy: dark, alpha: 1, beta: 0}\n"
    made, learner, _ = _learner(extra)
    replay = replay_buffer(made.config, made.schema)
    for slide in range(5):
        learner.learn(examples(made, 400, seed=slide), replay, slide)
    batch = examples(made, 400, seed=3)
    target = replay.draw(4000, 99, 0)
    before = np.mean((learner.score(target.examples) - target.logits[:, 0]) ** 2)
    learner.promote()
    learner.restart(replay, 100, 200)
    after = np.mean((learner.score(target.examples) - target.logits[:, 0]) ** 2)
    assert after < 0.5 * before and np.isfinite(learner.score(batch)).all()


def test_a_row_weighs_what_its_policy_says():
    """A step on rows of weight 2 is, with a loss that is summed, that of each row twice."""
    made, _, _ = _learner()
    moved = []
    for repeated in (True, False):
        learner = Learner(made.config, made.features)
        trainer = Trainer(learner.candidate, replace_rule(made.config.learning))
        batch = examples(made, 40, seed=1)
        if repeated:
            batch = batch.take(np.concatenate([np.arange(40), np.arange(10)]))
        weights = np.ones(len(batch), np.float32)
        weights[:10] = 1.0 if repeated else 2.0
        weights *= len(batch) / 40  # the mean is taken over the rows given
        ids = made.features.take_ids(batch.ids)
        scaled = made.features.transformed(made.features.take_numbers(batch.numbers))
        targets, held = final_targets(batch.label, "wait"), np.empty((0, 1), np.float32)
        trainer.step(ids, scaled, batch.time, targets, weights, held)
        moved.append(learner.version_variables("candidate"))
    for name, value in moved[0].items():
        np.testing.assert_allclose(value, moved[1][name], atol=1e-5, err_msg=name)


def replace_rule(learning):
    """Adagrad at a small rate: a step in proportion to the gradient, to within rounding."""
    return structs.replace(learning, optimizer="adagrad", learning_rate=0.01)


def test_what_the_budget_skips_is_counted_and_still_kept():
    made, learner, _ = _learner("learning: {batch_size: 64, budget: 150}\nreplay: {capacity: 500, ratio: 1}\n")
    replay = Replay(500, 7)
    first = learner.learn(examples(made, 200, seed=0), replay, 0)
    assert (first.rows, first.skipped, first.replayed, first.skipped_replay) == (150, 50, 0, 0)
    second = learner.learn(examples(made, 100, seed=1), replay, 1)
    assert (second.rows, second.skipped, second.replayed, second.skipped_replay) == (100, 0, 50, 50)
    assert len(replay) == 300


@pytest.mark.parametrize("l1", [0.0, 0.01])
def test_ftrl_restarted_from_the_champion_steps_away_from_its_weights_and_not_from_zero(l1):
    """Its weights are a function of its slots: those must be made anew such that they give the champion's."""
    rate = 0.05
    made, learner, replay = _learner(
        f"learning: {{network: logistic, batch_size: 64, optimizer: ftrl, learning_rate: {rate}, l1: {l1}}}\n"
        "replay: {capacity: 500}\n"
    )
    for slide in range(8):
        learner.learn(examples(made, 200, seed=slide), replay, slide)
    learner.promote()
    champion = learner.version_variables()
    learned = [name for name in champion if name.startswith("network/")]
    assert max(np.abs(champion[name]).max() for name in learned) > 2 * rate  # or the bound below would say nothing
    learner.learn(examples(made, 200, seed=8), replay, 8)
    for steps in (0, 1):
        assert learner.restart(replay, 9, steps) == steps * 64
        state = learner.capture()["candidate"]
        for name in learned:
            # the first step of a coordinate is rate * g / (beta + |g|), shorter than the rate
            assert np.abs(state[name] - champion[name]).max() <= steps * rate + 1e-6, name
    learner.learn(examples(made, 200, seed=9), replay, 9)
    assert learner.finite() and learner.retraces == 0

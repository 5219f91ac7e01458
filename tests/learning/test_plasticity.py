"""What is told of a network's ability to learn, and what a renewal does to it."""

from __future__ import annotations

import numpy as np
import pytest
from model_inputs import examples, setting

from stream_learner.config import parse
from stream_learner.errors import ConfigError
from stream_learner.learning.learner import Learner
from stream_learner.learning.plasticity import effective_rank
from stream_learner.learning.replay import Replay


def _learner(network="mlp", members=1, **plasticity):
    keys = ", ".join(f"{name}: {value}" for name, value in plasticity.items())
    shape = f"network: {network}, hidden: [8, 6], batch_size: 64, ensemble: {{members: {members}}}"
    made = setting(f"learning: {{{shape}, plasticity: {{{keys}}}}}\nreplay: {{capacity: 0}}\n")
    return made, Learner(made.config, made.features)


def test_the_effective_rank_counts_different_features():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((500, 1)).astype(np.float32)
    assert effective_rank(np.repeat(one, 8, axis=1)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(np.linalg.qr(rng.standard_normal((500, 8)))[0].astype(np.float32)) == pytest.approx(
        8, rel=1e-4
    )
    assert effective_rank(np.zeros((5, 3), np.float32)) == 0


@pytest.mark.parametrize(("network", "members"), [("mlp", 3), ("dcn_v2", 1), ("wide_deep", 1)])
def test_dormant_units_begin_anew_without_a_change_of_what_is_said(network, members):
    made, learner = _learner(network, members, every=1000, dormant=0.0)
    learner.learn(examples(made, 300, seed=0), Replay(0, 0), 0)
    weights = learner.version_variables("candidate")
    layer = learner.candidate.network.get_layer("hidden_0")
    dead = [1, 4]
    bias = layer.bias.numpy()
    bias[:, dead] = -1e6  # never fires
    layer.bias.value.assign(bias)
    batch = examples(made, 300, seed=1)
    assert learner.condition().dormant >= members * 2 / (members * 14) - 1e-9
    before = learner.score(batch)
    inputs = made.features.take_ids(batch.ids), made.features.take_numbers(batch.numbers), batch.time
    asleep, asleep_behind = learner._plasticity._dormant(learner._plasticity._activations(inputs), 0.0)
    learner._plasticity.renew(inputs, 5)
    np.testing.assert_allclose(learner.score(batch), before, atol=1e-5)
    kernel, behind = layer.kernel.numpy(), learner.candidate.network.get_layer("hidden_1").kernel.numpy()
    assert asleep[:, dead].all() and (layer.bias.numpy()[:, dead] == 0).all()
    assert (behind[:, dead].transpose(0, 2, 1)[~asleep_behind] == 0).all()
    old = next(v for k, v in weights.items() if v.shape == kernel.shape and "kernel" in k)
    assert (kernel[:, :, dead] != old[:, :, dead]).mean() > 0.95
    slots = {k: v for k, v in learner.capture()["candidate"].items() if k.startswith("slot/network/")}
    first = next(v for k, v in slots.items() if v.shape == kernel.shape and k.endswith("variance"))
    assert (first[:, :, dead] == 0).all()
    awake = ~asleep
    np.testing.assert_array_equal(kernel.transpose(0, 2, 1)[awake], old.transpose(0, 2, 1)[awake])


def test_shrink_and_perturb_mixes_in_first_weights():
    made, learner = _learner(every=400, shrink=0.5, perturb=0.1)
    _, plain = _learner()
    batch = examples(made, 500, seed=0)
    for one in (learner, plain):
        one.learn(batch, Replay(0, 0), 0)
    renewed, kept = learner.version_variables("candidate"), plain.version_variables("candidate")
    names = [name for name in kept if name.startswith("network/")]
    for name in names:
        rest = renewed[name] - 0.5 * kept[name]
        assert np.abs(rest).max() <= 0.1 * np.sqrt(6 / 7) + 1e-6  # Glorot's limit of the narrowest layer
    assert any(np.abs(renewed[name] - 0.5 * kept[name]).max() > 0 for name in names)
    np.testing.assert_array_equal(renewed["table/user"], kept["table/user"])
    assert learner.condition().weight_norm < plain.condition().weight_norm


def test_renewals_come_when_so_many_rows_were_learned_and_survive_a_restart():
    keys = {"every": 250, "shrink": 0.8, "perturb": 0.2, "dormant": 0.1}
    made, one = _learner(members=2, **keys)
    assert [one._plasticity.due(*pair) for pair in [(0, 249), (249, 250), (250, 499), (200, 900)]] == [
        False,
        True,
        False,
        True,
    ]
    for slide in range(3):
        one.learn(examples(made, 120, seed=slide), Replay(0, 0), slide)
    state = one.capture()
    _, two = _learner(members=2, **keys)
    two.restore(state)
    for slide in range(3, 7):
        for learner in (one, two):
            learner.learn(examples(made, 120, seed=slide), Replay(0, 0), slide)
        assert one.model_sha256() == two.model_sha256()
    assert one.condition() == two.condition() and one.retraces == 0


@pytest.mark.parametrize(
    ("learning", "complaint"),
    [
        ("plasticity: {every: 100}", "nothing is renewed"),
        ("plasticity: {shrink: 0.5}", "every: null"),
        ("network: logistic, plasticity: {every: 100, dormant: 0.1}", "has no hidden layers"),
        ("network: logistic, optimizer: ftrl, plasticity: {every: 100, shrink: 0.5}", "ftrl"),
    ],
)
def test_contradictions_are_refused(learning, complaint):
    with pytest.raises(ConfigError, match=f"learning.plasticity.*{complaint}"):
        parse(f"learning: {{{learning}}}\n")

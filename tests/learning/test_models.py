"""Networks: their formulas, their first weights, and the user's own."""

from __future__ import annotations

import numpy as np
import pytest

from stream_learner.errors import ConfigError
from stream_learner.learning.models import build_network
from stream_learner.settings import Learning

DIMS = {"user": 3, "item": 2}


def _inputs(rows=5, dense=4):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rows, width)).astype(np.float32) for width in (*DIMS.values(), dense)]


def _built(network, **more):
    return build_network(Learning(network=network, **more), DIMS, 4, seed=3)


def _relu(x):
    return np.maximum(x, 0)


def test_logistic_is_a_sum():
    network = _built("logistic")
    user, item, dense = _inputs()
    kernel, bias = network.get_weights()
    expected = dense @ kernel + bias + user.sum(1, keepdims=True) + item.sum(1, keepdims=True)
    np.testing.assert_allclose(network([user, item, dense]), expected, rtol=1e-5, atol=1e-6)


def test_mlp_is_dense_relu_dense():
    network = _built("mlp", hidden=[6, 5])
    w = network.get_weights()
    hidden = _relu(_relu(np.concatenate(_inputs(), axis=1) @ w[0] + w[1]) @ w[2] + w[3])
    np.testing.assert_allclose(network(_inputs()), hidden @ w[4] + w[5], rtol=1e-5, atol=1e-6)


def test_dcn_v2_crosses_beside_the_deep_layers():
    network = _built("dcn_v2", hidden=[6], cross_layers=2)
    layers = {weight.path.split("/")[-2]: [] for weight in network.weights}
    for weight in network.weights:
        layers[weight.path.split("/")[-2]].append(weight.numpy())
    start = np.concatenate(_inputs(), axis=1)
    crossed = start
    for index in range(2):
        kernel, bias = layers[f"cross_{index}"]
        crossed = start * (crossed @ kernel + bias) + crossed
    deep = _relu(start @ layers["hidden_0"][0] + layers["hidden_0"][1])
    kernel, bias = layers["logit"]
    expected = np.concatenate([crossed, deep], axis=1) @ kernel + bias
    np.testing.assert_allclose(network(_inputs()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["logistic", "mlp", "dcn_v2", "networks_of_users:good"])
def test_equal_seeds_give_equal_first_weights(name):
    one, two = _built(name), _built(name)
    other = build_network(Learning(network=name), DIMS, 4, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_no_ids_at_all_is_fine():
    for name in ("logistic", "mlp", "dcn_v2"):
        network = build_network(Learning(network=name), {}, 4, seed=0)
        assert network([_inputs()[2]]).shape == (5, 1)


def test_a_users_network_takes_the_inputs_in_our_order():
    network = _built("networks_of_users:good")
    assert network(_inputs()).shape == (5,)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("no_such_module_anywhere:build", "cannot import no_such_module_anywhere: ModuleNotFoundError"),
        ("networks_of_users:nothing", "networks_of_users has no function nothing"),
        ("networks_of_users:not_callable", "networks_of_users has no function not_callable"),
        ("networks_of_users:fails", "raised KeyError: 'nobody'"),
        ("networks_of_users:no_model", "returned KerasTensor, expected a keras.Model"),
        ("networks_of_users:two_logits", r"outputs of shape \[\(None, 2\)\], expected one logit"),
        ("networks_of_users:foreign_inputs", "not connected to the given vectors and dense inputs"),
        ("networks_of_users:half_precision", "not float32"),
    ],
)
def test_a_wrong_network_is_named_with_what_is_wrong(network, message):
    with pytest.raises(ConfigError, match=message) as caught:
        _built(network)
    assert str(caught.value).startswith(f"learning.network: {network!r}")

"""Networks: their formulas, their first weights, and the user's own."""

from __future__ import annotations

import numpy as np
import pytest

from stream_learner.errors import ConfigError
from stream_learner.learning.models import build_network
from stream_learner.learning.models.members import input_masks
from stream_learner.settings import Ensemble, Learning

DIMS = {"user": 3, "item": 2}
OWNERS = [0, 1, 2, -1]  # of the dense inputs


def _inputs(rows=5, dense=4):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((rows, width)).astype(np.float32) for width in (*DIMS.values(), dense)]


def _built(network, **more):
    return build_network(Learning(network=network, **more), DIMS, OWNERS, seed=3)


def _relu(x):
    return np.maximum(x, 0)


def _each(width, first, *layers):
    """What members compute one by one from `_inputs()`: per member `first` (kernel, bias), ReLU, then the `layers`."""
    joined = np.concatenate(_inputs(), axis=1)
    out = []
    for member in range(width):
        x = joined @ first[0][member] + first[1][member]
        for kernel, bias in layers:
            x = _relu(x) @ kernel[member] + bias[member]
        out.append(x[:, 0])
    return np.stack(out, axis=1)


def _layers(network):
    """Layer -> its kernel and bias."""
    layers = {}
    for weight in network.weights:
        layers.setdefault(weight.path.split("/")[-2], []).append(weight.numpy())
    return layers


def _with_random_weights(network):
    rng = np.random.default_rng(1)
    network.set_weights([rng.standard_normal(weight.shape).astype(np.float32) for weight in network.weights])
    return network


def test_logistic_is_a_sum():
    network = _with_random_weights(_built("logistic"))
    user, item, dense = _inputs()
    kernel, bias = network.get_weights()
    expected = dense @ kernel[0] + bias[0] + user.sum(1, keepdims=True) + item.sum(1, keepdims=True)
    np.testing.assert_allclose(network([user, item, dense]), expected, rtol=1e-5, atol=1e-6)


def test_mlp_is_dense_relu_dense():
    network = _with_random_weights(_built("mlp", hidden=[6, 5]))
    w = network.get_weights()
    np.testing.assert_allclose(network(_inputs()), _each(1, w[:2], w[2:4], w[4:]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(_built("mlp", hidden=[])(_inputs()).shape, (5, 1))


def test_members_of_an_ensemble_are_networks_of_their_own():
    network = _built("mlp", hidden=[6, 5], ensemble=Ensemble(members=3, input_share=0.5))
    w = network.get_weights()
    masks = input_masks(OWNERS, 3, 0.5, seed=3)
    ids = np.ones((3, sum(DIMS.values())), np.float32)
    seen = w[0] * np.concatenate([ids, masks], axis=1)[:, :, None]
    expected = _each(3, (seen, w[1]), w[2:4], w[4:])
    np.testing.assert_allclose(network(_inputs()), expected, rtol=1e-4, atol=1e-5)
    assert len({column.tobytes() for column in expected.T}) == 3


def test_masks_show_every_member_its_share_of_the_numbers_whole_and_all_else():
    owners = [0, 1, 2, 3, 0, 0, 1, 1, 2, 2, 3, 3, -1, -1]
    masks = input_masks(owners, 50, 0.5, seed=1)
    assert (masks[:, -2:] == 1).all()
    for mask in masks:
        by_number = [{mask[i] for i, owner in enumerate(owners) if owner == number} for number in range(4)]
        assert all(len(values) == 1 for values in by_number) and sum(1.0 in values for values in by_number) == 2
    assert len({mask.tobytes() for mask in masks}) == 6
    assert input_masks(owners, 50, 0.5, seed=1).tobytes() == masks.tobytes()
    assert (input_masks(owners, 2, 1.0, seed=1) == 1).all() and input_masks([-1], 2, 0.1, seed=1).shape == (2, 1)


def test_dcn_v2_crosses_beside_the_deep_layers():
    network = _built("dcn_v2", hidden=[6], cross_layers=2)
    layers = _layers(network)
    start = np.concatenate(_inputs(), axis=1)
    crossed = start
    for index in range(2):
        kernel, bias = layers[f"cross_{index}"]
        crossed = start * (crossed @ kernel[0] + bias[0]) + crossed
    deep = _relu(start @ layers["hidden_0"][0][0] + layers["hidden_0"][1][0])
    kernel, bias = layers["logit"]
    expected = np.concatenate([crossed, deep], axis=1) @ kernel[0] + bias[0]
    np.testing.assert_allclose(network(_inputs()), expected, rtol=1e-4, atol=1e-5)


def test_wide_deep_adds_a_linear_part():
    network = _with_random_weights(_built("wide_deep", hidden=[6]))
    layers = _layers(network)
    user, item, dense = _inputs()
    deep = _each(1, layers["hidden_0"], layers["logit"])
    kernel, bias = layers["linear"]
    expected = deep + dense @ kernel[0] + bias[0] + user[:, :1] + item[:, :1]
    np.testing.assert_allclose(network([user, item, dense]), expected, rtol=1e-4, atol=1e-5)


def test_deepfm_adds_every_pair_of_factors_once():
    network = _with_random_weights(
        build_network(Learning(network="deepfm", hidden=[6]), {"user": 3, "item": 3}, OWNERS, 3)
    )
    layers = _layers(network)
    rng = np.random.default_rng(4)
    user, item, dense = (rng.standard_normal((5, width)).astype(np.float32) for width in (3, 3, 4))
    joined = np.concatenate([user, item, dense], axis=1)
    (first, first_bias), (last, last_bias) = layers["hidden_0"], layers["logit"]
    expected = _relu(joined @ first[0] + first_bias[0]) @ last[0] + last_bias[0]
    kernel, bias = layers["linear"]
    expected = expected + dense @ kernel[0] + bias[0] + user[:, :1] + item[:, :1]
    (factors,) = layers["factors"]
    for row in range(5):
        vectors = [user[row, 1:], item[row, 1:], *(dense[row, j] * factors[0, j] for j in range(4))]
        expected[row] += sum(vectors[i] @ vectors[j] for i in range(6) for j in range(i))
    np.testing.assert_allclose(network([user, item, dense]), expected, rtol=1e-4, atol=1e-4)


def test_deepfm_refuses_vectors_of_several_widths():
    with pytest.raises(ConfigError, match="needs one, at least 2"):
        _built("deepfm")


@pytest.mark.parametrize("name", ["mlp", "dcn_v2", "wide_deep", "networks_of_users:good"])
def test_equal_seeds_give_equal_first_weights(name):
    one, two = _built(name), _built(name)
    other = build_network(Learning(network=name), DIMS, OWNERS, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_no_ids_at_all_is_fine():
    for name in ("logistic", "mlp", "dcn_v2", "wide_deep"):
        network = build_network(Learning(network=name), {}, OWNERS, seed=0)
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

"""Perceptrons: initialisation, the forward pass, and stacking into an ensemble."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.nets.networks import ensemble_of, kernels, make_mlp, truncated_normal_fan_in

# Variance of a standard normal truncated at two: 1 - 2 a phi(a) / (2 Phi(a) - 1) with a = 2.
STD_OF_TRUNCATED_NORMAL = np.sqrt(1.0 - 4.0 * 0.05399096651 / 0.95449973610)


def leaves_named(params, name: str) -> list[jax.Array]:
    return [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path[-1] == jax.tree_util.DictKey(name)
    ]


@pytest.mark.parametrize("fan_in", [4, 200])
def test_truncated_normal_has_the_std_and_the_bounds_of_theory(key, fan_in):
    kernel = np.asarray(truncated_normal_fan_in(key, (fan_in, 200_000 // fan_in)), np.float64)
    std = 0.5 / np.sqrt(fan_in)
    # A sample std from n draws has a relative error of about 1 / sqrt(2 n) = 0.0016.
    np.testing.assert_allclose(kernel.std(), std * STD_OF_TRUNCATED_NORMAL, rtol=0.01)
    assert abs(kernel.mean()) < 5 * std / np.sqrt(kernel.size)
    assert np.abs(kernel).max() <= 2.0 * std * (1.0 + 1e-6)
    # Redrawing fills the interval without piling draws up at its ends, as clipping would.
    assert 0.0 < np.mean(np.abs(kernel) > 1.99 * std) < 0.005


def test_glorot_uniform_is_the_default(key):
    (kernel,) = kernels(jax.jit(make_mlp(30, (), 60).init)(key))
    limit = np.sqrt(6.0 / (30 + 60))
    assert np.abs(kernel).max() <= limit
    np.testing.assert_allclose(np.std(kernel), limit / np.sqrt(3.0), rtol=0.05)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_biases_start_at_zero(key, layer_norm):
    params = jax.jit(make_mlp(3, (4, 5), 2, layer_norm=layer_norm).init)(key)
    biases = leaves_named(params, "bias")
    assert len(biases) == (5 if layer_norm else 3)
    assert all(np.all(bias == 0.0) for bias in biases)


def standardise(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_forward_pass_equals_numpy(key, layer_norm):
    network = make_mlp(3, (4, 5), 2, activation=jnp.tanh, layer_norm=layer_norm)
    init_key, bias_key, x_key = jax.random.split(key, 3)
    params = jax.jit(network.init)(init_key)
    for i, bias in enumerate(jax.random.normal(bias_key, (3, 5))):
        layer = params["params"][f"layer_{i}"]
        layer["bias"] = bias[: layer["bias"].size]
    x = jax.random.normal(x_key, (6, 3))

    expected = np.asarray(x)
    for i, kernel in enumerate(kernels(params)):
        bias = params["params"][f"layer_{i}"]["bias"]
        expected = expected @ np.asarray(kernel) + np.asarray(bias)
        if i < 2:
            expected = np.tanh(standardise(expected) if layer_norm else expected)
    np.testing.assert_allclose(jax.jit(network.apply)(params, x), expected, rtol=1e-4, atol=1e-5)


def test_kernels_come_in_the_order_of_the_layers(key):
    sizes = tuple(range(2, 14))  # more than ten layers, which strings sort wrongly
    network = ensemble_of(make_mlp(1, sizes, 14), 2, shared_input=True)
    shapes = [kernel.shape for kernel in kernels(jax.eval_shape(network.init, key))]
    assert shapes == [(2, i, i + 1) for i in range(1, 14)]


def test_ensemble_members_start_differently(key):
    network = ensemble_of(make_mlp(3, (4,), 2), 4, shared_input=True)
    for kernel in kernels(jax.jit(network.init)(key)):
        assert len(np.unique(np.asarray(kernel).reshape(4, -1), axis=0)) == 4
        assert np.all(np.std(kernel, axis=0) > 0.0)


@pytest.mark.parametrize("shared_input", [True, False])
def test_each_member_is_applied_to_its_input(key, shared_input):
    network = make_mlp(3, (4,), 2)
    stacked = ensemble_of(network, 3, shared_input=shared_input)
    init_key, x_key = jax.random.split(key)
    params = jax.jit(stacked.init)(init_key)
    x = jax.random.normal(x_key, (5, 3) if shared_input else (3, 5, 3))
    output = jax.jit(stacked.apply)(params, x)
    assert output.shape == (3, 5, 2)
    for i in range(3):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        expected = jax.jit(network.apply)(member, x if shared_input else x[i])
        np.testing.assert_allclose(output[i], expected, rtol=1e-5, atol=1e-6)

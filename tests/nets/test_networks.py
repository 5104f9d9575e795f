"""Perceptrons: initialisation, the forward pass, and stacking into an ensemble."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.nets.networks import (
    POWER_ITERATIONS,
    POWER_STARTS,
    ensemble_of,
    for_all,
    kernels,
    largest_singular_value,
    make_mlp,
    spectrally_normalised,
    truncated_normal_fan_in,
)

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
    network = ensemble_of(make_mlp(1, sizes, 14), 2)
    shapes = [kernel.shape for kernel in kernels(jax.eval_shape(network.init, key))]
    assert shapes == [(2, i, i + 1) for i in range(1, 14)]


def test_ensemble_members_start_differently(key):
    network = ensemble_of(make_mlp(3, (4,), 2), 4)
    for kernel in kernels(jax.jit(network.init)(key)):
        assert len(np.unique(np.asarray(kernel).reshape(4, -1), axis=0)) == 4
        assert np.all(np.std(kernel, axis=0) > 0.0)


@pytest.mark.parametrize("shared", [True, False])
def test_each_member_is_applied_to_its_input(key, shared):
    network = make_mlp(3, (4,), 2)
    stacked = ensemble_of(network, 3)
    init_key, x_key = jax.random.split(key)
    params = jax.jit(stacked.init)(init_key)
    x = jax.random.normal(x_key, (3, 5, 3))
    if shared:
        x = for_all(params, x[0])
    output = jax.jit(stacked.apply)(params, x)
    assert output.shape == (3, 5, 2)
    for i in range(3):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        expected = jax.jit(network.apply)(member, x[0 if shared else i])
        np.testing.assert_allclose(output[i], expected, rtol=1e-5, atol=1e-6)


# The spectral norm. Of thousands of random kernels, no estimate was lower than by the tolerance.

TOLERANCE = 0.06
SHAPES = [(1, 1), (1, 7), (7, 1), (3, 5), (30, 20), (200, 200), (20, 200)]


def random_kernel(shape: tuple[int, int], norm: float, seed: int = 0) -> np.ndarray:
    """Draw a Gaussian kernel whose largest singular value is `norm`."""
    kernel = np.random.default_rng(seed).normal(size=shape)
    return np.float32(kernel * norm / np.linalg.norm(kernel, 2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_estimate_is_close_to_the_largest_singular_value_and_never_above(shape):
    estimate = jax.jit(jax.vmap(largest_singular_value))
    batch = np.stack([random_kernel(shape, 1.0, seed) for seed in range(10)])
    for norm in (1e-3, 1.0, 40.0):
        values = np.asarray(estimate(norm * batch)) / norm
        assert np.all(values <= 1.0 + 1e-6)
        assert np.all(values >= 1.0 - TOLERANCE)


def test_the_estimate_of_a_diagonal_kernel_is_that_of_power_iteration():
    """From components c_i it is the root of `sum s_i^(4k + 2) c_i^2 / sum s_i^(4k) c_i^2`."""
    values = np.array([0.5, 2.0, 1.9, -2.05, 1.0, 0.0])
    starts = np.cos(np.outer(1 + np.arange(POWER_STARTS), np.arange(6)))
    weight = np.abs(values) ** (4 * POWER_ITERATIONS) * starts**2
    expected = np.sqrt(np.max(np.sum(weight * values**2, axis=1) / np.sum(weight, axis=1)))
    estimate = largest_singular_value(jnp.diag(jnp.float32(values)))
    np.testing.assert_allclose(estimate, expected, rtol=1e-5)


def test_the_slope_of_the_estimate_is_the_product_of_the_singular_vectors():
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(5, 5)))[0], np.linalg.qr(rng.normal(size=(4, 4)))[0]
    # So far apart that the iteration finds the first pair exactly.
    kernel = left[:, :4] @ np.diag([3.0, 0.5, 0.2, 0.1]) @ right.T
    value, slope = jax.value_and_grad(largest_singular_value)(jnp.float32(kernel))
    np.testing.assert_allclose(value, 3.0, rtol=1e-5)
    np.testing.assert_allclose(slope, np.outer(left[:, 0], right[:, 0]), atol=1e-5)


@pytest.mark.parametrize("norm", [1e-30, 1e-3, 0.5, 0.999, 1.0 + TOLERANCE, 3.0, 1e4])
def test_kernels_above_one_are_brought_to_one_and_others_stay(norm):
    layers = {
        f"layer_{i}": {"kernel": random_kernel((8, 6), norm), "bias": np.ones(6)} for i in (0, 1)
    }
    params = {"params": layers | {"norm_0": {"scale": 5.0 * np.ones(6), "bias": np.ones(6)}}}
    normalised = jax.jit(spectrally_normalised)(params)
    for before, after in zip(kernels(params), kernels(normalised), strict=True):
        if norm < 1.0:
            np.testing.assert_array_equal(after, before)
        else:
            assert 1.0 - 1e-5 <= np.linalg.norm(after, 2) <= 1.0 + 1.5 * TOLERANCE
            # Nothing but the length has changed.
            np.testing.assert_allclose(after * before[0, 0] / after[0, 0], before, rtol=1e-4)
    for name in ("bias", "scale"):
        jax.tree.map(
            np.testing.assert_array_equal,
            leaves_named(params, name),
            leaves_named(normalised, name),
        )


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
def test_gradients_through_a_normalised_network_are_finite(key, scale):
    network = make_mlp(3, (8, 8), 2, spectral_norm=True, activation=jnp.tanh)
    params = jax.tree.map(lambda x: scale * x, jax.jit(network.init)(key))
    x = jnp.ones((4, 3))
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.square(network.apply(p, x) - 1.0))))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    # At zero, only the last bias has a slope, as without normalisation.
    assert np.any(gradient["params"]["layer_2"]["bias"] != 0.0)


def test_a_gradient_does_not_lengthen_a_normalised_kernel():
    """The output does not depend on the length of a kernel above 1, so its slope along it is 0."""
    network = make_mlp(5, (), 4, spectral_norm=True)
    left, right = (
        np.linalg.qr(np.random.default_rng(i).normal(size=(n, n)))[0] for i, n in ((0, 5), (1, 4))
    )
    kernel = jnp.float32(left[:, :4] @ np.diag([3.0, 0.5, 0.2, 0.1]) @ right.T)
    x = jnp.linspace(-1.0, 1.0, 10).reshape(2, 5)

    def loss(kernel):
        params = {"params": {"layer_0": {"kernel": kernel, "bias": jnp.zeros(4)}}}
        return jnp.sum(jnp.square(network.apply(params, x) - 1.0))

    slope = jax.jit(jax.grad(loss))(kernel)
    assert np.linalg.norm(slope) > 0.1
    np.testing.assert_allclose(np.vdot(slope, kernel), 0.0, atol=1e-4)


@pytest.mark.parametrize(("activation", "steepest"), [(jnp.tanh, 1.0), (jax.nn.swish, 1.0998)])
def test_a_normalised_network_stretches_no_distance_by_more_than_its_activations(
    key, activation, steepest
):
    """Its Lipschitz constant is at most the product of its layers' and activations'."""
    network = make_mlp(6, (32, 32), 4, activation=activation, spectral_norm=True)
    init_key, x_key, y_key = jax.random.split(key, 3)
    params = jax.tree.map(lambda leaf: 7.0 * leaf, jax.jit(network.init)(init_key))
    x = jax.random.normal(x_key, (500, 6))
    y = x + 0.1 * jax.random.normal(y_key, (500, 6))
    slope = jax.jit(jax.vmap(jax.jacobian(lambda x: network.apply(params, x))))(x)
    bound = steepest**2 * (1.0 + TOLERANCE) ** 3
    assert np.linalg.norm(slope, 2, axis=(1, 2)).max() <= bound
    outputs = jax.jit(network.apply)
    moved = np.linalg.norm(outputs(params, x) - outputs(params, y), axis=1)
    assert np.all(moved <= bound * np.linalg.norm(x - y, axis=1))
    free = make_mlp(6, (32, 32), 4, activation=activation)
    far = np.linalg.norm(free.apply(params, x) - free.apply(params, y), axis=1)
    assert np.any(far > bound * np.linalg.norm(x - y, axis=1)), "without it, distances grow"


def test_members_are_normalised_one_by_one(key):
    network = make_mlp(3, (), 2, spectral_norm=True)
    stacked = ensemble_of(network, 2)
    kernel = np.stack([random_kernel((3, 2), 0.5, 0), random_kernel((3, 2), 10.0, 1)])
    params = {"params": {"layer_0": {"kernel": kernel, "bias": np.zeros((2, 2), np.float32)}}}
    x = jax.random.normal(key, (5, 3))
    output = jax.jit(stacked.apply)(params, for_all(params, x))
    np.testing.assert_allclose(output[0], x @ kernel[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output[1], x @ kernel[1] / 10.0, rtol=TOLERANCE, atol=1e-3)

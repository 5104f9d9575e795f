"""The tanh-squashed Gaussian: its density, its tails, its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.nets.distributions import (
    MAX_ACTION,
    MAX_LOG_STD,
    MIN_LOG_STD,
    split_mean_log_std,
    tanh_log_det,
    tanh_normal,
    tanh_normal_log_prob,
)


def log_cosh(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, -x) - np.log(2.0)


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1.0), (1.5, 0.1), (-0.5, 3.0), (3.0, np.exp(MAX_LOG_STD))]
)
def test_density_integrates_to_one(mean, std):
    noise = np.linspace(-8.0, 8.0, 2001)
    params = [jnp.full((noise.size, 1), value) for value in (mean, np.log(std))]
    log_density = tanh_normal(*params, jnp.float32(noise)[:, None])[1]
    # The integral over the action a = tanh(x), substituted by x: da = (1 - tanh(x)^2) dx.
    x = mean + std * noise
    total = np.trapezoid(np.exp(np.float64(log_density) - 2.0 * log_cosh(x)), x)
    np.testing.assert_allclose(total, 1.0, atol=1e-4)


def test_log_density_obeys_the_change_of_variables():
    rng = np.random.default_rng(0)
    mean, noise = rng.normal(0.0, 3.0, (2, 7, 50, 3))
    log_std = rng.uniform(-5.0, 2.0, mean.shape)
    action, log_density = tanh_normal(*map(jnp.float32, (mean, log_std, noise)))
    pre_tanh = mean + np.exp(log_std) * noise
    log_normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2.0 * np.pi)
    assert log_density.shape == mean.shape[:-1]
    np.testing.assert_allclose(action, np.tanh(pre_tanh), atol=1e-5)
    expected = np.sum(log_normal + 2.0 * log_cosh(pre_tanh), axis=-1)
    np.testing.assert_allclose(log_density, expected, rtol=1e-5, atol=1e-4)


def test_log_determinant_keeps_its_accuracy_in_the_tails():
    x = np.concatenate([np.linspace(-30.0, 30.0, 241), [-1e6, -1e4, 1e4, 1e6]])
    np.testing.assert_allclose(
        tanh_log_det(jnp.float32(x)), -2.0 * log_cosh(x), rtol=1e-5, atol=1e-6
    )
    slope = jax.vmap(jax.grad(tanh_log_det))(jnp.float32(x))
    np.testing.assert_allclose(slope, -2.0 * np.tanh(x), atol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 0.3, 20.0, -500.0])
@pytest.mark.parametrize("log_std", [MIN_LOG_STD, 0.0, MAX_LOG_STD])
def test_gradients_of_the_log_density_equal_the_closed_form(mean, log_std):
    noise = jnp.asarray([-3.0, -0.1, 0.0, 2.0])

    def log_density(mean, log_std):
        return tanh_normal(mean, log_std, noise)[1]

    gradients = jax.grad(log_density, (0, 1))(jnp.full(4, mean), jnp.full(4, log_std))
    deviation = np.exp(log_std) * np.asarray(noise, np.float64)
    slope = 2.0 * np.tanh(mean + deviation)
    np.testing.assert_allclose(gradients[0], slope, atol=1e-5)
    np.testing.assert_allclose(gradients[1], slope * deviation - 1.0, rtol=1e-5, atol=1e-4)


def test_the_density_of_an_action_is_that_with_which_it_was_drawn():
    rng = np.random.default_rng(0)
    mean = rng.normal(0.0, 1.0, (7, 50, 3))
    log_std = rng.uniform(-1.5, 1.0, mean.shape)
    # Before the tanh no further than 3 from 0: there, float32 tells actions apart to 3e-5.
    noise = (rng.uniform(-3.0, 3.0, mean.shape) - mean) * np.exp(-log_std)
    parameters = [jnp.float32(x) for x in (mean, log_std)]
    action, expected = tanh_normal(*parameters, jnp.float32(noise))
    density = jax.jit(tanh_normal_log_prob)(*parameters, action)
    assert density.shape == (7, 50)
    np.testing.assert_allclose(density, expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("std", [0.1, 0.5, 2.0])
def test_the_density_over_actions_integrates_to_one(std):
    action = np.linspace(-1.0, 1.0, 200_001)[1:-1, None]
    parameters = [jnp.full(action.shape, value) for value in (0.3, np.log(std))]
    density = np.exp(np.float64(tanh_normal_log_prob(*parameters, jnp.float32(action))))
    # With a std of 2, a percent of the mass lies within 1e-4 of the edges, half of it on the grid.
    np.testing.assert_allclose(np.sum(density) * 1e-5, 1.0, atol=0.01)


@pytest.mark.parametrize("edge", [-1.0, 1.0])
@pytest.mark.parametrize("log_std", [MIN_LOG_STD, -3.0, 0.0, MAX_LOG_STD])
def test_an_action_at_the_edge_has_the_finite_density_of_one_inside(edge, log_std):
    mean = jnp.array([0.3, -20.0])
    log_std = jnp.full(2, log_std)

    def log_prob(mean, log_std, action):
        return tanh_normal_log_prob(mean, log_std, action)

    action = jnp.full(2, edge)
    value, slopes = jax.value_and_grad(log_prob, (0, 1, 2))(mean, log_std, action)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(x)) for x in slopes)
    assert value == log_prob(mean, log_std, jnp.full(2, edge * MAX_ACTION))
    # In float64, of the action inside.
    x = np.arctanh(np.float64(np.float32(edge * MAX_ACTION)))
    noise = (x - np.float64(mean)) * np.exp(-np.float64(log_std))
    expected = -0.5 * noise**2 - log_std - 0.5 * np.log(2.0 * np.pi) + 2.0 * log_cosh(x)
    np.testing.assert_allclose(value, np.sum(expected), rtol=1e-2)


def test_output_is_split_into_mean_and_bounded_log_std():
    output = jnp.asarray([[1.0, -50.0, 3.0, -25.0], [50.0, 2.0, 0.5, 7.0]])
    mean, log_std = split_mean_log_std(output)
    np.testing.assert_array_equal(mean, output[:, :2])
    np.testing.assert_array_equal(log_std, [[MAX_LOG_STD, MIN_LOG_STD], [0.5, MAX_LOG_STD]])

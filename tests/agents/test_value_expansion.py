"""The trade-off of value expansion, bias for variance, in closed form.

The system is x' = 1.1 x + 0.5 u with u = theta x + 0.5 eps, at a cost of x^2 + 0.1 u^2 over eight
steps and of x^2 at the end. Targets and their gradients are quadratic in the noise, so that their
moments are exact.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents import targets

STEPS, THETA, DRIFT, GAIN, STD, EFFORT = 8, -0.6, 1.1, 0.5, 0.5, 0.1
CLOSED_LOOP = DRIFT + GAIN * THETA


def value_function(gamma):
    """Return P and p `[9]` of the exact cost-to-go `P_t x^2 + p_t`."""
    curvature, offset = np.ones(STEPS + 1), np.zeros(STEPS + 1)
    for t in reversed(range(STEPS)):
        curvature[t] = 1 + EFFORT * THETA**2 + gamma * CLOSED_LOOP**2 * curvature[t + 1]
        noise = EFFORT + gamma * GAIN**2 * curvature[t + 1]
        offset[t] = STD**2 * noise + gamma * offset[t + 1]
    return curvature, offset


def expanded_costs(theta, noise, decay, error, gamma):
    """Return the targets `[8]` as costs, along windows that end where the decay is 0.

    A window starts from the state to which the policy THETA led, so that a derivative by `theta` is
    that of a window alone. The critic is `(P_t + error) x^2 + p_t`, exact at the end.
    """
    curvature, offset = value_function(gamma)
    curvature = jnp.asarray(curvature).at[:-1].add(error)
    state = start = jnp.ones(())
    costs, values = [], []
    for t in range(STEPS):
        action = theta * state + STD * noise[t]
        costs.append(state**2 + EFFORT * action**2)
        state = DRIFT * state + GAIN * action
        start = CLOSED_LOOP * start + GAIN * STD * noise[t]
        values.append(curvature[t + 1] * state**2 + offset[t + 1])
        if t < STEPS - 1:
            state = jnp.where(decay[t] == 0, start, state)
    rows = -jnp.stack(costs), jnp.ones(STEPS), -jnp.stack(values)
    return -targets.lambda_return(*rows, jnp.zeros(STEPS - 1), gamma, decay)


def moments(function):
    """Return mean and variance of a quadratic form of eight standard normal numbers."""
    zero = jnp.zeros(STEPS)
    half, slope = jax.hessian(function)(zero) / 2, jax.grad(function)(zero)
    return function(zero) + jnp.trace(half), 2 * jnp.trace(half @ half) + slope @ slope


@jax.jit
def tiled_gradient(decay, error):
    """Return moments of the gradient of all windows' targets, from all windows' starts."""
    starts = jnp.concatenate([jnp.ones(1), decay == 0])

    def gradient(noise):
        def total(theta):
            return jnp.sum(starts * expanded_costs(theta, noise, decay, error, 1.0))

        return jax.grad(total)(THETA)

    return moments(gradient)


@functools.partial(jax.jit, static_argnums=2)
def first_target(decay, error, gamma):
    return moments(lambda noise: expanded_costs(THETA, noise, decay, error, gamma)[0])


def windows(h):
    """Return the decay `[7]` that cuts eight steps into windows of h."""
    return jnp.asarray(np.arange(1, STEPS) % h != 0, jnp.float64)


@pytest.mark.parametrize(
    ("h", "variance", "wrong_mean", "wrong_variance"),
    [
        (1, 19.989, 7.5767, 25.04),
        (2, 23.759, 7.3638, 28.36),
        (4, 29.588, 7.0627, 32.88),
        (8, 34.159, 6.7584, 34.16),
    ],
)
def test_longer_expansions_trade_the_critics_bias_for_variance(
    h, variance, wrong_mean, wrong_variance
):
    """The gradient is 6.758363 for the exact critic; one that errs by 0.3 x^2 biases it."""
    with jax.enable_x64(True):
        exact = tiled_gradient(windows(h), 0.0)
        wrong = tiled_gradient(windows(h), 0.3)
    np.testing.assert_allclose(exact, [6.758363, variance], rtol=5e-5)
    np.testing.assert_allclose(wrong, [wrong_mean, wrong_variance], rtol=2e-4)


@pytest.mark.parametrize("h", [1, 2, 4, 8])
@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_bias_and_variance_of_an_expanded_target_are_those_of_the_closed_form(h, gamma):
    """With the exact critic no depth is biased; one that errs by e x^2 biases it by what is left.

    After h steps that is `gamma^h e E[x_h^2] = e [(gamma F^2)^h + gamma^h s^2 (1 - F^2h) /
    (1 - F^2)]`, with F the closed loop and s the noise it receives. The variance is the sum of
    those of the temporal differences, which are uncorrelated: given x, a difference is
    `2 (r theta + gamma P F b) x n + (r + gamma P b^2) (n^2 - E n^2)` with n the noise of u.
    """
    error, square = 0.3, CLOSED_LOOP**2
    curvature, offset = value_function(gamma)
    left, variance = 1.0, 0.0
    for t in range(h):
        linear = 2 * (EFFORT * THETA + gamma * curvature[t + 1] * CLOSED_LOOP * GAIN)
        quadratic = EFFORT + gamma * curvature[t + 1] * GAIN**2
        step = linear**2 * STD**2 * left + 2 * quadratic**2 * STD**4
        variance += gamma ** (2 * t) * step
        left = square * left + GAIN**2 * STD**2
    noise = GAIN**2 * STD**2 * (1 - square**h) / (1 - square)
    bias = 0.0 if h == STEPS else error * ((gamma * square) ** h + gamma**h * noise)
    with jax.enable_x64(True):
        exact = first_target(windows(h), 0.0, gamma)
        wrong = first_target(windows(h), error, gamma)
    np.testing.assert_allclose(exact, [curvature[0] + offset[0], variance], rtol=1e-10)
    np.testing.assert_allclose(wrong[0] - exact[0], bias, rtol=1e-10, atol=1e-12)

"""The bonus of entropy in every estimator, against a quadrature of the whole objective."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import ESTIMATORS, EstimatorConfig
from mbpo_jax.laboratory.estimators import pathwise, propagation
from mbpo_jax.laboratory.estimators.catalogue import draw_batches, estimate_batches
from mbpo_jax.laboratory.problems.dynamics import System
from mbpo_jax.laboratory.problems.problem import Gaussian, Problem, roll_out, total
from mbpo_jax.laboratory.problems.searched import make_searched_problem
from mbpo_jax.types import EnvSpec
from tests.choice import mostly_exhaustive
from tests.laboratory.test_estimators import assert_propagation_is_either_gradient

A, B, GAMMA, WEIGHT, START = 1.1, 0.5, 0.9, 0.7, 0.8
THETA = np.array([-0.6, 0.2, -0.7, 0.3])
"""Gain and offset of the mean, and of the log standard deviation."""
HORIZON = 2
SPEC = EnvSpec("scalar", 1, 1, episode_length=HORIZON, action_repeat=1, dt=0.1)
SAME_BATCH = [name for name, r in ESTIMATORS.items() if r.biased.startswith("the weights")]
OTHERS = ["rp_clipped", "svg", "aobg"]
"""Whose mean is meant to be another."""


class At(NamedTuple):
    observation: jax.Array
    alive: jax.Array
    paid: jax.Array


def paid_for(state: At, action: jax.Array, following: At) -> jax.Array:
    """Return the reward, of which `lr_state` asks that it is told from these three."""
    del following
    return -(state.observation[0] ** 2) - 0.1 * action[0] ** 2


def moments(theta, x):
    mean = theta[0] * x + theta[1]
    return mean, theta[3] * x + theta[2]


def soft_reward(xp, theta, x, noise):
    """Return the reward with its bonus, and the action, by NumPy or by JAX."""
    mean, log_std = moments(theta, x)
    action = xp.tanh(mean + xp.exp(log_std) * noise)
    log_prob = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - xp.log1p(-(action**2))
    return -(x**2) - 0.1 * action**2 - WEIGHT * log_prob, action


def hermite(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return x, w / w.sum()


def last_value(theta, x):
    """Return what the last step is worth, exactly."""
    nodes, weights = hermite(40)
    return jnp.asarray(weights) @ soft_reward(jnp, theta, x, jnp.asarray(nodes))[0]


def make_problem(system_noise: float) -> Problem:
    theta = jnp.asarray(THETA)

    def entered(state: At, action: jax.Array, following: jax.Array) -> At:
        return At(following, state.alive, paid_for(state, action, state))

    def mean(state: At, action: jax.Array) -> jax.Array:
        return A * state.observation + B * action

    def mean_step(state: At, action: jax.Array) -> At:
        return entered(state, action, mean(state, action))

    system = System(
        "by hand",
        begin=lambda key, observation, simulator: At(observation, jnp.bool_(True), jnp.zeros(())),
        advance=entered if system_noise else lambda s, a, outcome: mean_step(s, a),
        mean_step=mean_step,
        outcome=(lambda s, a: Gaussian(mean(s, a), jnp.full(1, system_noise)))
        if system_noise
        else None,
        outcome_size=1 if system_noise else 0,
    )

    def value(x: jax.Array, elapsed: jax.Array) -> jax.Array:
        # Exact at the last step, and any number at the first, of which only advantages know.
        return jnp.where(elapsed > 0.0, last_value(theta, x[0]), first_value())

    problem = make_searched_problem(
        SPEC, system, theta, moments, gamma=GAMMA, entropy_weight=WEIGHT, value=value
    )
    return problem._replace(
        reward=paid_for, start=lambda key: system.begin(key, jnp.full(1, START), ())
    )


def objective(theta, system_noise: float = 0.0) -> float:
    """Integrate J by Gauss-Hermite quadrature."""
    nodes, weights = hermite(40)
    outcome = hermite(12 if system_noise else 1)
    first, action = soft_reward(np, theta, START, nodes)
    following = A * START + B * action[:, None] + system_noise * outcome[0][None]
    second = soft_reward(np, theta, following[..., None], nodes[None, None])[0]
    return float(weights @ first + GAMMA * weights @ (second @ weights) @ outcome[1])


@functools.cache
def first_value() -> float:
    return objective(THETA)


def exact_gradient(system_noise: float) -> np.ndarray:
    moves = 1e-5 * np.eye(4)
    pairs = [
        (objective(THETA + d, system_noise), objective(THETA - d, system_noise)) for d in moves
    ]
    return np.array([(a - b) / 2e-5 for a, b in pairs])


WITH_THE_BONUS = [name for name in ESTIMATORS if name not in OTHERS]
# One for each way in which the bonus comes in.
CHOSEN = ("es", "ivw", "lr_advantage", "lr_gae", "mvd", "q", "rp", "tp")


@pytest.mark.parametrize("name", mostly_exhaustive(WITH_THE_BONUS, CHOSEN.__contains__))
def test_the_mean_is_the_gradient_with_the_bonus(name):
    problem = make_problem(system_noise := 0.3 if name == "lr_state" else 0.0)
    config = EstimatorConfig(truncation=HORIZON, perturbation_std=1e-3, window=1)
    # What is weighed by the batch itself is unbiased in the limit.
    batches, batch_size = (20, 4000) if name in SAME_BATCH else (400, 64)

    @jax.jit
    def run(key: jax.Array) -> jax.Array:
        noise = draw_batches(key, name, problem, HORIZON, batches, batch_size)
        return estimate_batches(name, config, problem.params, problem, noise)

    found = np.asarray(run(jax.random.key(0)))
    error = found.std(axis=0, ddof=1) / np.sqrt(batches)
    expected = exact_gradient(system_noise)
    assert np.all(np.abs(found.mean(axis=0) - expected) < 4.5 * error)
    # The bonus is not lost in the noise: it changes the gradient by 0.7 and more.
    assert np.all(error < 0.2)


def test_propagation_with_fixed_weights_is_either_gradient_with_the_bonus():
    assert_propagation_is_either_gradient(make_problem(0.0), HORIZON)


@pytest.mark.slow
def test_paths_by_action_have_the_gradient_of_the_whole_path():
    """Without variance of the ratio all weight is the path's: two rows that are the same."""
    problem = make_problem(0.0)
    noise = draw_batches(jax.random.key(3), "rp", problem, HORIZON, 1, 1)
    noise = jax.tree.map(lambda x: jnp.concatenate([x[0], x[0]]), noise)
    found = jax.jit(lambda p: propagation.weighted_by_action(p, problem, noise).gradient)(
        problem.params
    )
    # Rows alike have no advantage over each other, and a weight of a half.
    one = jax.tree.map(lambda x: x[0], noise)
    whole = pathwise.gradient(pathwise.whole)(problem.params, problem, one)
    np.testing.assert_allclose(found, 0.5 * whole, rtol=1e-10)


def test_a_bonus_is_paid_by_the_density_of_the_squashed_action():
    problem = make_problem(0.0)
    noise = jax.tree.map(
        lambda x: x[0, 0], draw_batches(jax.random.key(3), "rp", problem, HORIZON, 1, 1)
    )
    made = jax.jit(lambda p: roll_out(p, problem, noise))(problem.params)
    expected = 0.0
    for t in range(HORIZON):
        x = made.state.observation[t, 0]
        soft, _ = soft_reward(np, THETA, float(x), float(noise.action[t, 0]))
        np.testing.assert_allclose(made.reward[t], soft, rtol=1e-10)
        expected += GAMMA**t * soft
    np.testing.assert_allclose(total(problem, made), expected, rtol=1e-10)

"""The actor's gradient through the model (SVG): reductions, and the linear-quadratic values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents.actor_critic import ActorCritic, SACState
from mbpo_jax.agents.sac import q_objective
from mbpo_jax.algorithms.svg import svg_objective
from mbpo_jax.config import Config, ExpansionConfig, SACConfig
from mbpo_jax.types import DynamicsModel, Point, Prediction, Transition
from tests import scalar_control as system


def settings(gamma, **changes) -> Config:
    return Config(sac=SACConfig(gamma=gamma), expansion=ExpansionConfig(**changes))


def test_without_expansion_the_gradient_is_that_of_sac(key):
    batch, state, nets = system.real_batch(), system.make_state((0.3, -0.1)), system.make_nets()
    objective = svg_objective(system.make_model(), settings(system.GAMMA, horizon=0))

    def loss(policy, objective):
        return objective(jax.random.clone(key), nets, policy, state, (), batch)[0]

    value, gradient = jax.value_and_grad(loss)(state.policy, objective)
    expected_value, expected_gradient = jax.value_and_grad(loss)(state.policy, q_objective)
    np.testing.assert_allclose(value, expected_value, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)


@pytest.mark.parametrize("horizon", [0, 1, 4])
def test_with_exact_critics_the_value_does_not_depend_on_the_horizon(key, horizon):
    batch, state, nets = system.real_batch(), system.make_state(), system.make_nets()
    objective = svg_objective(system.make_model(), settings(system.GAMMA, horizon=horizon))
    loss, log_prob = objective(key, nets, state.policy, state, (), batch)
    value = system.SLOPE * batch.observation[:, 0] + system.OFFSET
    np.testing.assert_allclose(loss, -jnp.mean(value), rtol=1e-5)
    np.testing.assert_allclose(log_prob, system.LOG_PROB, rtol=1e-6)


def test_rewards_after_a_predicted_termination_do_not_count(key):
    limit = 0.9
    batch = system.real_batch(observation=(4.0,), discount=(1.0,))
    state, nets = system.make_state((0.3,)), system.make_nets()
    objective = svg_objective(system.make_model(limit=limit), settings(system.GAMMA, horizon=3))
    loss, _ = objective(key, nets, state.policy, state, (), batch)
    # The first step leads to 2, beyond the limit.
    reward = system.C * 4.0 + system.D * system.GAIN * 4.0
    np.testing.assert_allclose(loss, -(reward + system.ENTROPY_BONUS), rtol=1e-6)


def test_a_limit_of_nothing_leaves_what_actions_do_at_once(key):
    """Nothing passes through the state where the rollout ends, either."""
    batch, state, nets = system.real_batch(), system.make_state(), system.make_nets()
    config = settings(system.GAMMA, horizon=1, max_cotangent_norm=1e-9)
    objective = svg_objective(system.make_model(), config)
    gain = 0.2  # not that of the critics' policy, at which terms nearly cancel
    gradient = jax.grad(lambda k: objective(key, nets, k, state, (), batch)[0])(gain)
    first = np.asarray(batch.observation[:, 0])
    second = (system.A + system.B * gain) * first
    in_action = system.D + system.GAMMA * system.SLOPE * system.B
    expected = -np.mean(system.D * first + system.GAMMA * in_action * second)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_a_limit_does_not_depend_on_the_number_of_rows(key):
    batch, state, nets = system.real_batch(), system.make_state(), system.make_nets()
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), batch)
    objective = svg_objective(
        system.make_model(), settings(system.GAMMA, horizon=3, max_cotangent_norm=1.0)
    )

    def gradient(batch):
        return jax.grad(lambda k: objective(jax.random.clone(key), nets, k, state, (), batch)[0])(
            state.policy
        )

    np.testing.assert_allclose(gradient(twice), gradient(batch), rtol=1e-5)


# The linear-quadratic problem: cost x^2 + 0.1 u^2 at each step and x^2 at the end, u = theta x +
# 0.5 noise, from x = 1.
THETA, NOISE = -0.6, 0.5


def lq_nets() -> ActorCritic:
    def sample(key, policy, x):
        return policy * x + NOISE * jax.random.normal(key, x.shape), jnp.zeros(x.shape[:-1])

    def q_values(critics, x, action):
        # The value of the state alone: what is paid at the end.
        return -jnp.square(x[None, ..., 0])

    return ActorCritic(sample, lambda *_: None, lambda *_: None, q_values)


def lq_model() -> DynamicsModel:
    def step(key, view, point, action, propagation):
        x = point.observation
        reward = -(jnp.square(x) + 0.1 * jnp.square(action))[:, 0]
        prediction = Prediction(reward, jnp.ones_like(reward), jnp.ones_like(reward, bool))
        return Point(1.1 * x + 0.5 * action), prediction

    return system.make_model()._replace(step=step)


@pytest.mark.parametrize(
    ("horizon", "mean", "variance"),
    [
        (1, 0.680000, 0.12250),
        (2, 1.698500, 0.83945),
        (4, 3.779717, 6.63574),
        (8, 6.758363, 34.15888),
    ],
)
def test_the_linear_quadratic_gradient_has_its_exact_mean_and_variance(
    key, horizon, mean, variance
):
    num_batches, batch_size = 500, 200
    ones = jnp.ones((batch_size, 1))
    batch = Transition(ones, ones, ones[:, 0], ones[:, 0], ones)
    # Without entropy bonus, and undiscounted.
    state = SACState(jnp.float32(THETA), (), (), jnp.float32(-jnp.inf), (), (), ())
    objective = svg_objective(lq_model(), settings(1.0, horizon=horizon))

    @jax.jit
    @jax.grad
    def gradient(policy, key):
        return objective(key, lq_nets(), policy, state, (), batch)[0]

    keys = jax.random.split(key, num_batches)
    with jax.debug_key_reuse(False):
        gradients = np.asarray(jax.lax.map(lambda k: gradient(state.policy, k), keys), np.float64)
    error = (gradients.mean() - mean) / np.sqrt(variance / (num_batches * batch_size))
    assert abs(error) < 4.5
    # The estimate of a variance from n Gaussian means has the relative error sqrt(2 / n).
    ratio = gradients.var(ddof=1) * batch_size / variance
    assert abs(ratio - 1.0) < 4.5 * np.sqrt(2.0 / num_batches)

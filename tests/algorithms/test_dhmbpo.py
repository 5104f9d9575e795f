"""DHMBPO: its target and gradient on a system whose values are known, and its limits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax.agents.actor_critic import make_actor_critic, make_networks
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.algorithms.dhmbpo import imagined_target
from mbpo_jax.algorithms.expansion import imagined_return, training_rollout
from mbpo_jax.config import Config, ExpansionConfig, SACConfig
from mbpo_jax.training.loop import make_program
from mbpo_jax.types import Transition
from tests import scalar_control as system
from tests.probe_environments import linear_gaussian, tiny_config
from tests.programs import collected

ENV = linear_gaussian(noise=0.05, episode_length=5)


def settings(horizon: int) -> Config:
    return Config(sac=SACConfig(gamma=system.GAMMA), expansion=ExpansionConfig(horizon=horizon))


def rolled_out(key, horizon, model, state):
    roll_out = training_rollout(model, settings(horizon))
    return roll_out(key, system.make_nets(), state.policy, (), system.real_batch())


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_critics_regress_to_the_value_of_the_policys_own_action(key, horizon):
    """With exact critics the target is their own value, whatever was done in the batch."""
    state, batch = system.make_state(), system.real_batch()
    made = rolled_out(key, horizon, system.make_model(), state)
    target = imagined_target(system.GAMMA)
    goal = target(jax.random.key(1), system.make_nets(), state, (), made)
    action = system.GAIN * batch.observation
    np.testing.assert_array_equal(goal.observation, batch.observation)
    np.testing.assert_allclose(goal.action, action, rtol=1e-6)
    expected = system.exact_q(batch.observation, action)[:, 0]
    np.testing.assert_allclose(goal.target, expected, rtol=1e-5)


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_the_error_of_the_critics_fades_with_the_horizon(key, horizon):
    error = 0.7
    made = rolled_out(key, horizon, system.make_model(), system.make_state())
    exact, wrong = (
        imagined_target(system.GAMMA)(
            jax.random.key(1), system.make_nets(), system.make_state((e,)), (), made
        )
        for e in (0.0, error)
    )
    bias = wrong.target - exact.target
    np.testing.assert_allclose(bias, error * system.GAMMA**horizon, rtol=1e-4)


def test_nothing_is_earned_after_a_predicted_termination(key):
    made = rolled_out(key, 3, system.make_model(limit=0.9), system.make_state())
    state, nets = system.make_state((0.3,)), system.make_nets()
    goal = imagined_target(system.GAMMA)(jax.random.key(1), nets, state, (), made)
    # The third row begins at 2 and goes to 1, which is beyond the limit.
    reward = (system.C + system.D * system.GAIN) * 2.0
    np.testing.assert_allclose(goal.target[2], reward, rtol=1e-5)
    value = imagined_return(nets, state, made, system.GAMMA)
    np.testing.assert_allclose(value[2], reward + system.ENTROPY_BONUS, rtol=1e-5)


def random_batch(num_rows: int) -> Transition:
    rng = np.random.default_rng(0)
    observation, following = rng.uniform(-0.5, 0.5, (2, num_rows, 2)).astype(np.float32)
    action = rng.uniform(-1.0, 1.0, (num_rows, 1)).astype(np.float32)
    ones = np.ones(num_rows, np.float32)
    return Transition(*map(jnp.asarray, (observation, action, ones, ones, following)))


def small(**changes) -> Config:
    config = dataclasses.replace(tiny_config(), algorithm="dhmbpo")
    return dataclasses.replace(config, **changes)


def test_the_policy_climbs_the_gradient_through_the_rollout_at_the_new_critics(key):
    """As if it were rolled out anew from the same key, once the critics have moved."""
    config = small(expansion=ExpansionConfig(horizon=3))
    config = dataclasses.replace(config, sac=dataclasses.replace(config.sac, learning_rate=0.1))
    algorithm = make_algorithm(ENV, config)
    agent, model = algorithm.agent, algorithm.model
    state = agent.init(jax.random.key(1))
    view = model.ready(model.init(jax.random.key(2)))
    batch = random_batch(16)
    with jax.debug_key_reuse(False):
        after, _ = jax.jit(agent.update)(key, state, view, batch)
        networks = make_networks(ENV.spec, config.sac)
        nets = make_actor_critic(networks, config.sac, state)
        roll_out = training_rollout(model, config)

        def loss(policy, critics):
            made = roll_out(jax.random.split(key, 3)[2], nets, policy, view, batch)
            now = state._replace(critics=critics)
            return -jnp.mean(imagined_return(nets, now, made, config.sac.gamma))

        gradient = jax.jit(jax.grad(loss))(state.policy, after.critics)
        stale = jax.jit(jax.grad(loss))(state.policy, state.critics)
    # Adam's first moment is a tenth of the gradient.
    moment = optax.tree_utils.tree_get(after.policy_optimizer, "mu")
    jax.tree.map(
        lambda m, g: np.testing.assert_allclose(10.0 * m, g, rtol=1e-3, atol=1e-6), moment, gradient
    )
    # The critics' step is large enough for the test to see whether they are the new ones.
    leaves = jax.tree.leaves(jax.tree.map(lambda m, g: np.max(np.abs(10 * m - g)), moment, stale))
    assert max(leaves) > 1e-3


@pytest.mark.slow
def test_without_training_rollouts_it_is_mbpo(key):
    program = make_program(ENV)

    @functools.partial(jax.jit, static_argnums=0)
    def train(config, key):
        state = collected(program, config, key)
        return program.step(config, jnp.int32(config.random_steps), state)[0]

    config = small(expansion=ExpansionConfig(horizon=0))
    end = train(config, jax.random.clone(key))
    mbpo = train(dataclasses.replace(config, algorithm="mbpo"), key)
    jax.tree.map(np.testing.assert_array_equal, end.agent, mbpo.agent)
    assert int(end.experience.size) > 0

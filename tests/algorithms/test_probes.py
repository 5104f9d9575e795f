"""Every algorithm solves the probe that needs what all of them promise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents.actor_critic import make_actor_critic, make_networks
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import ALGORITHMS, Config, actor_critics
from mbpo_jax.envs.base import play_episodes
from mbpo_jax.presets import environment_preset
from mbpo_jax.training import loop
from tests.choice import mostly_exhaustive
from tests.probe_environments import PROBES
from tests.programs import collected

for_less_than_the_preset = pytest.mark.parametrize(
    "less", [True, pytest.param(False, marks=pytest.mark.exhaustive)], ids=["less", "preset"]
)


def shortened(config: Config) -> Config:
    """Take fewer and cheaper steps than the preset, with which a probe is learned as well."""
    return dataclasses.replace(
        config,
        total_env_steps=400,
        sac=dataclasses.replace(config.sac, batch_size=64),
        fit=dataclasses.replace(config.fit, min_steps=100),
        planner=dataclasses.replace(config.planner, population=50, num_elites=5, horizon=3),
        ilqr=dataclasses.replace(config.ilqr, horizon=3, replan_every=3),
    )


@functools.cache
def trained_on_probe(algorithm: str, probe: str, less: bool):
    """Train on a probe with its preset or less; return configuration, assembly and end state."""
    config = environment_preset(f"probe_{probe}")
    config = dataclasses.replace(shortened(config) if less else config, algorithm=algorithm)
    env = PROBES[probe]
    program = loop.make_program(env)
    with jax.debug_key_reuse(False):
        start = jax.jit(lambda key: collected(program, config, key))
        state = start(jax.random.key(0))
        step = jax.jit(lambda env_steps, state: program.step(config, env_steps, state))
        for env_steps in range(config.random_steps, config.total_env_steps, config.steps_per_fit):
            state, _ = step(jnp.int32(env_steps), state)
    return config, make_algorithm(env, config), state


@pytest.mark.slow
@pytest.mark.timeout(900)  # minutes of compiling, on a machine that has other work
@for_less_than_the_preset
@pytest.mark.parametrize(
    "algorithm",
    mostly_exhaustive(
        [name for name in ALGORITHMS if not ALGORITHMS[name].is_tabular],
        ("mbpo", "svg", "mpc", "policy_search", "ilqr", "retrace").__contains__,
    ),
)
def test_every_algorithm_finds_the_action_that_a_probe_rewards(algorithm, less):
    _, assembly, state = trained_on_probe(algorithm, "action", less)
    with jax.debug_key_reuse(False):
        play = loop.acting(assembly, state.model, state.agent)
        returns, *_ = play_episodes(PROBES["action"], *play, jax.random.key(1), 10)
    # The best return is 0; a random action has -7/12 on average, the middle one -1/4.
    assert np.mean(returns) > -0.02


@pytest.mark.slow
@pytest.mark.timeout(900)
@for_less_than_the_preset
@pytest.mark.parametrize(
    "algorithm", mostly_exhaustive(actor_critics(), ("mve", "retrace").__contains__)
)
def test_every_critic_learns_that_a_reward_one_step_away_is_worth_gamma(algorithm, less):
    config, assembly, state = trained_on_probe(algorithm, "delayed", less)
    policy = assembly.agent.policy(state.agent)
    observation = jnp.asarray([[0.0], [1.0]])
    with jax.debug_key_reuse(False):
        action = policy(jax.random.key(1), observation)
    networks = make_networks(PROBES["delayed"].spec, config.sac)
    nets = make_actor_critic(networks, config.sac, state.agent)
    q = nets.q_values(state.agent.critics, observation, action)
    np.testing.assert_allclose(q.mean(axis=0), [config.sac.gamma, 1.0], atol=0.05)

"""A noise-free linear system with a clock that is not observed, but paid for.

Rewards can be told from simulator states only, not from observations.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax import replay
from mbpo_jax.config import Config
from mbpo_jax.envs.base import random_action, step_or_reset
from mbpo_jax.envs.system import System, make_system_env
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import Transition
from tests.probe_environments import (
    CONTROL,
    COST,
    DYNAMICS,
    LIMIT,
    beyond_limit,
    tiny_config,
)

CAPACITY = 24


def _initial(key):
    start = jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)
    return jnp.concatenate([start, jnp.zeros(1)])


def _dynamics(key, state, action):
    return jnp.concatenate([DYNAMICS @ state[:2] + CONTROL @ action, state[2:] + 1.0])


ENV = make_system_env(
    "clocked",
    System(
        observation_size=2,
        action_size=1,
        dt=0.1,
        initial=_initial,
        dynamics=_dynamics,
        reward=lambda state, action, following: COST @ following[:2] + state[2],
        observe=lambda state: state[:2],
        terminated=beyond_limit,
    ),
    episode_length=6,
)


def make_config(algorithm: str, *, rollout=(), **changes) -> Config:
    """Return a tiny configuration that plans with the true system: 8 steps and 40 rollouts a fit.

    Args:
      algorithm: its name.
      rollout: changes of the rollouts' settings.
      changes: of other settings.
    """
    config = dataclasses.replace(tiny_config(), algorithm=algorithm, model="oracle", **changes)
    settings = dataclasses.replace(config.rollout, **{"rollouts_per_step": 5, **dict(rollout)})
    return dataclasses.replace(config, rollout=settings)


@functools.partial(jax.jit, static_argnums=1)
def played(key: jax.Array, num_steps: int) -> ReplayState:
    """Return a buffer of `CAPACITY` rows after so many steps with random actions."""

    def step(carry, key):
        state, buffer = carry
        action_key, step_key = jax.random.split(key)
        following, transition = step_or_reset(ENV, step_key, state, random_action(action_key, 1))
        transition = transition._replace(simulator=state.simulator)
        buffer = replay.add(buffer, jax.tree.map(lambda x: x[None], transition))
        return (following, buffer), None

    reset_key, steps_key = jax.random.split(key)
    start = ENV.reset(reset_key)
    empty = replay.init(CAPACITY, 2, 1, simulator=start.simulator)
    return jax.lax.scan(step, (start, empty), jax.random.split(steps_key, num_steps))[0][1]


def rows_of(buffer: ReplayState) -> Transition:
    """Return the valid rows of a buffer, oldest first, as NumPy arrays."""
    rows, valid = replay.newest(buffer, replay.capacity(buffer))
    return jax.tree.map(lambda x: np.asarray(x)[np.asarray(valid)], rows)


def assert_true_transitions(real: Transition, made: Transition) -> None:
    """Check that model transitions, oldest first, are the system's own, branched from real rows.

    Each starts where a real one did or where one before it led, and the clock goes on from there.
    """
    following = made.observation @ DYNAMICS.T + made.action @ CONTROL.T
    np.testing.assert_allclose(made.next_observation, following, atol=1e-6)
    terminated = np.abs(made.next_observation[:, 0]) > LIMIT
    np.testing.assert_array_equal(made.discount, np.where(terminated, 0.0, 1.0))
    starts = zip(real.observation, real.simulator, strict=True)
    clocks = {observation.tobytes(): state[2] for observation, state in starts}
    clock = np.zeros(len(made.reward))
    for i, observation in enumerate(made.observation):
        clock[i] = clocks[observation.tobytes()]
        if not terminated[i]:
            clocks[made.next_observation[i].tobytes()] = clock[i] + 1.0
    np.testing.assert_allclose(made.reward, following @ COST + clock, atol=1e-5)

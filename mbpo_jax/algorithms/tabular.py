"""Dyna-Q, Dyna-Q+ and prioritized sweeping (Sutton and Barto 2018, chapter 8)."""

import math

import jax

from mbpo_jax import replay
from mbpo_jax.agents.tabular import make_tabular_agent
from mbpo_jax.algorithms.parts import without_refresh
from mbpo_jax.config import Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import Algorithm, Env, Experience, Transition


def newest_experience() -> Experience:
    """Feed updates with the newest transitions stored, oldest first."""

    def sample(key: jax.Array, real: ReplayState, shape: tuple[int, ...]) -> Transition:
        del key
        rows, _ = replay.newest(real, math.prod(shape))
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), rows)

    return without_refresh(sample)


def make_tabular(env: Env, config: Config) -> Algorithm:
    """Assemble the tabular algorithm that the configuration names.

    Raises:
      ConfigError: the environment's states and moves are not numbered.
    """
    if not env.spec.tabular:
        raise ConfigError(
            f"algorithm: {config.algorithm} needs numbered states, which {env.spec.name} has not; "
            "use env.name=maze, blocking_maze or shortcut_maze, or another algorithm"
        )
    agent = make_tabular_agent(env.spec, config.tabular, config.algorithm)
    return Algorithm(agent, newest_experience())

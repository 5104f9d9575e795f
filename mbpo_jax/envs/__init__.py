"""Environments and their termination rules; Brax is imported when one is made, not before."""

from typing import NamedTuple

from mbpo_jax.config import EnvConfig
from mbpo_jax.envs import analytic, brax
from mbpo_jax.envs.termination import termination_fn
from mbpo_jax.errors import ConfigError, suggestion
from mbpo_jax.types import Env

__all__ = ["ENVIRONMENTS", "EnvInfo", "environment_names", "make_env", "termination_fn"]


class EnvInfo(NamedTuple):
    """What is known of an environment without making it.

    Attributes:
      backends: it runs on.
      observation_size: `O`.
      action_size: `A`.
    """

    backends: tuple[str, ...]
    observation_size: int
    action_size: int


ENVIRONMENTS = {name: EnvInfo(*info) for name, info in brax.ENVIRONMENTS.items()} | {
    name: EnvInfo(analytic.BACKENDS, system.observation_size, system.action_size)
    for name, system in analytic.SYSTEMS.items()
}


def environment_names() -> tuple[str, ...]:
    """Return the names of all environments, in alphabetical order."""
    return tuple(sorted(ENVIRONMENTS))


def make_env(config: EnvConfig) -> Env:
    """Build the environment that the configuration names.

    Raises:
      ConfigError: the environment is unknown, or does not run on the backend.
    """
    if config.name not in ENVIRONMENTS:
        raise ConfigError(
            f"env.name: no environment is called {config.name!r}; "
            f"{suggestion(config.name, environment_names())}"
        )
    backends = ENVIRONMENTS[config.name].backends
    if config.backend not in backends:
        raise ConfigError(
            f"env.backend: {config.name} does not run on {config.backend!r}; "
            f"use one of: {', '.join(backends)}"
        )
    limits = config.episode_length, config.action_repeat
    if config.backend in analytic.BACKENDS:
        return analytic.make_analytic_env(config.name, *limits)
    return brax.make_brax_env(config.name, config.backend, *limits)

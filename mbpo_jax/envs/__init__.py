"""Environments and their termination rules; Brax is imported when one is made, not before."""

from mbpo_jax.config import ConfigError, EnvConfig, suggestion
from mbpo_jax.envs.brax import ENVIRONMENTS, make_brax_env
from mbpo_jax.envs.termination import termination_fn
from mbpo_jax.types import Env

__all__ = ["ENVIRONMENTS", "environment_names", "make_env", "termination_fn"]


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
    return make_brax_env(config.name, config.backend, config.episode_length, config.action_repeat)

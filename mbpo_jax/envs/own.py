"""Environments of one's own, by import path."""

import dataclasses

from mbpo_jax.config import EnvConfig
from mbpo_jax.envs.shapes import check_shapes
from mbpo_jax.errors import ConfigError
from mbpo_jax.import_paths import load_function
from mbpo_jax.types import Env

BACKENDS = ("own",)


def make_own_env(config: EnvConfig) -> Env:
    """Make the environment that `module:function` names.

    The function takes the settings, an `EnvConfig`, and returns an `Env`.

    Raises:
      ConfigError: there is no such function, or what it returns is no environment, or one with
        other limits than the settings.
    """
    env = load_function(config.name, "env.name", "config")(config)
    if not isinstance(env, Env):
        raise ConfigError(
            f"env.name: {config.name} returned {type(env).__name__} where an mbpo_jax.types.Env is "
            "needed; mbpo_jax.envs.system.make_system_env makes one from equations"
        )
    for field in ("episode_length", "action_repeat"):
        wanted, found = getattr(config, field), getattr(env.spec, field)
        if wanted != found:
            raise ConfigError(
                f"env.{field}: it is {wanted}, but {config.name} made an environment with {found}; "
                f"let the function read it from its argument, or set it to {found}"
            )
    if len(env.spec.observed) > env.spec.observation_size:
        raise ConfigError(
            f"env.name: {config.name} names {len(env.spec.observed)} components of observations "
            f"that have {env.spec.observation_size}; name as many, or fewer"
        )
    check_shapes(env, config.name)
    return env


def described(config: EnvConfig, env: Env) -> EnvConfig:
    """Return the settings of an environment that was handed over as an object."""
    return dataclasses.replace(
        config,
        name=env.spec.name,
        backend="own",
        options=(),
        episode_length=env.spec.episode_length,
        action_repeat=env.spec.action_repeat,
    )

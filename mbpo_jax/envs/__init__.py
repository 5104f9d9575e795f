"""Environments; a suite's simulator is imported when one is made, not before."""

import functools
from typing import NamedTuple

from mbpo_jax.config import EnvConfig
from mbpo_jax.envs import analytic, brax, gymnasium, own, playground
from mbpo_jax.errors import ConfigError
from mbpo_jax.import_paths import is_import_path
from mbpo_jax.presets import unknown_environment
from mbpo_jax.types import Env

__all__ = ["ENVIRONMENTS", "SUITES", "EnvInfo", "environment_names", "make_env"]


class EnvInfo(NamedTuple):
    """What is known of an environment without making it.

    Attributes:
      suite: whose it is.
      backends: it runs on.
      observation_size: `O`.
      action_size: `A`.
    """

    suite: str
    backends: tuple[str, ...]
    observation_size: int
    action_size: int


SUITES = {
    "gymnasium": ("Gymnasium's MuJoCo tasks, stepped by MuJoCo itself", ("gymnasium", "mujoco")),
    "dmc": (
        "DeepMind Control's tasks from MuJoCo Playground, stepped on the device",
        ("playground", "mujoco-mjx"),
    ),
    "brax": ("Brax, stepped on the device", ("brax",)),
    "analytic": ("Systems in closed form, stepped on the device", ()),
}
"""What each suite is, and the packages on whose versions its results depend."""

ENVIRONMENTS = {
    **{name: EnvInfo("brax", *info) for name, info in brax.ENVIRONMENTS.items()},
    **{
        gymnasium.PREFIX + task: EnvInfo(
            "gymnasium", gymnasium.BACKENDS, info.observation_size, info.action_size
        )
        for task, info in gymnasium.TASKS.items()
    },
    **{
        playground.PREFIX + task: EnvInfo(
            "dmc", playground.BACKENDS, info.observation_size, info.action_size
        )
        for task, info in playground.TASKS.items()
    },
    **{
        name: EnvInfo("analytic", analytic.BACKENDS, system.observation_size, system.action_size)
        for name, system in analytic.SYSTEMS.items()
    },
}


def environment_names() -> tuple[str, ...]:
    """Return the names of all environments, in alphabetical order."""
    return tuple(sorted(ENVIRONMENTS))


def make_env(config: EnvConfig) -> Env:
    """Build the environment that the configuration names.

    It is one of `ENVIRONMENTS`, one that was registered with Brax, or `module:function`.

    Raises:
      ConfigError: the environment is unknown, does not go with the backend or options, or needs a
        package that is not installed.
    """
    name, backend = config.name, config.backend
    backends = _backends(config)
    if backend not in backends:
        raise ConfigError(
            f"env.backend: {name} does not run on {backend!r}; use one of: {', '.join(backends)}"
        )
    if backends == own.BACKENDS:
        return own.make_own_env(config)
    if config.options and backends != gymnasium.BACKENDS:
        raise ConfigError(f"env.options: {name} has none; leave them out")
    # What options name, such as a model's file, may be another thing the next time.
    changes = brax.is_registered(name) or config.options
    return _build(config) if changes else _built(config)


def _build(config: EnvConfig) -> Env:
    """Build one that goes with its backend and options."""
    name, backends = config.name, _backends(config)
    limits = config.episode_length, config.action_repeat
    if backends == gymnasium.BACKENDS:
        task = name.removeprefix(gymnasium.PREFIX)
        return gymnasium.make_gymnasium_env(task, config.options, *limits)
    if backends == analytic.BACKENDS:
        return analytic.make_analytic_env(name, *limits)
    if backends == playground.BACKENDS:
        return playground.make_playground_env(name.removeprefix(playground.PREFIX), *limits)
    return brax.make_brax_env(name, config.backend, *limits)


_built = functools.lru_cache(maxsize=8)(_build)
"""The same again where the same is asked for again, so that what was compiled of it is used again.
"""


def _backends(config: EnvConfig) -> tuple[str, ...]:
    """Return the backends of an environment that is known.

    Raises:
      ConfigError: it is not.
    """
    name = config.name
    if is_import_path(name):
        return own.BACKENDS
    if config.backend in own.BACKENDS:
        raise ConfigError(
            f"env.name: {name!r} was handed over as an object, which no file can hold; hand it "
            "over again (env=...), or name the function that makes it (module:function)"
        )
    if brax.is_registered(name):
        return brax.ALL_BACKENDS
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name].backends
    raise ConfigError(f"env.name: {unknown_environment(name)}")

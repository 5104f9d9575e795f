"""Environments of one's own, by import path."""

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbpo_jax.config import EnvConfig
from mbpo_jax.errors import ConfigError, suggestion
from mbpo_jax.types import Env

BACKENDS = ("own",)


def make_own_env(config: EnvConfig) -> Env:
    """Make the environment that `module:function` names.

    The function takes the settings, an `EnvConfig`, and returns an `Env`. The module is looked for
    in the working directory and then where Python looks, as `python -m` does.

    Raises:
      ConfigError: there is no such function, or what it returns is no environment, or one with
        other limits than the settings.
    """
    module_name, _, function_name = config.name.partition(":")
    if not (function_name.isidentifier() and all(map(str.isidentifier, module_name.split(".")))):
        raise ConfigError(
            f"env.name: {config.name!r} is no import path; write it as in package.module:function"
        )
    make = _function(module_name, function_name)
    env = make(config)
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


def _function(module_name: str, function_name: str) -> Callable[[EnvConfig], Any]:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except SyntaxError as error:
        raise ConfigError(f"env.name: {error.filename}:{error.lineno}: {error.msg}") from error
    except ImportError as error:
        raise ConfigError(
            f"env.name: cannot import {module_name!r}: {error}; give the command in the folder "
            "that holds it, or put that folder on PYTHONPATH"
        ) from error
    make = getattr(module, function_name, None)
    if not callable(make):
        functions = [name for name, _ in inspect.getmembers(module, inspect.isfunction)]
        functions = [name for name in functions if not name.startswith("_")]
        advice = suggestion(function_name, functions) if functions else "it has none"
        raise ConfigError(f"env.name: {module_name} has no function {function_name!r}; {advice}")
    try:
        inspect.signature(make).bind(EnvConfig())
    except (TypeError, ValueError) as error:  # the latter where Python knows no signature
        raise ConfigError(
            f"env.name: {module_name}:{function_name} takes no settings ({error}); begin it with "
            f"def {function_name}(config):"
        ) from error
    return make

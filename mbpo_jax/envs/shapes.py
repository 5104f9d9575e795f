"""Whether an environment of one's own has the shapes it says, found without computing anything."""

import sysconfig
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Env, EnvState, PyTree, Transition

_OTHERS = [
    Path(__file__).parents[1],
    Path(jax.__file__).parent,
    Path(sysconfig.get_path("stdlib")),
]
FEW = 3
"""Parts of a state that are named, of all that differ."""


def check_shapes(env: Env, name: str) -> None:
    """Trace an environment's reset and step, and compare what they give with what is needed.

    Args:
      env: of one's own.
      name: for messages.

    Raises:
      ConfigError: one of them fails, or gives another shape; it is said which, and where.
    """
    size, actions = env.spec.observation_size, env.spec.action_size
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = _traced(name, "reset", env.reset, key)
    if not isinstance(state, EnvState):
        raise ConfigError(f"env.name: {name}: reset gives {_kind(state)} where EnvState is needed")
    action = jax.ShapeDtypeStruct((actions,), jnp.float32)
    found = _traced(name, "step", env.step, key, state, action)
    if not isinstance(found, tuple) or list(map(type, found)) != [EnvState, Transition]:
        raise ConfigError(
            f"env.name: {name}: step gives {_kind(found)} where (EnvState, Transition) is needed"
        )
    after, transition = found
    wanted = {
        "the observation of reset": (state.observation, (size,)),
        "the observation of step": (after.observation, (size,)),
        "the transition's observation": (transition.observation, (size,)),
        "the transition's next observation": (transition.next_observation, (size,)),
        "the transition's action": (transition.action, (actions,)),
        "the reward": (transition.reward, ()),
        "the discount": (transition.discount, ()),
        "done": (after.done, ()),
    }
    problems = [
        f"env.name: {name}: {what} has shape {_shape(value)} where {shape} is needed"
        for what, (value, shape) in wanted.items()
        if _shape(value) != shape
    ]
    if problems:
        raise ConfigError(*problems)
    before, became = _described(state), _described(after)
    differing = [path for path in {**before, **became} if before.get(path) != became.get(path)]
    changes = [
        f"state{path}: {before.get(path, 'nothing')} after reset, {became.get(path, 'nothing')} "
        "after step"
        for path in differing[:FEW]
    ]
    if not changes and jax.tree.structure(state) != jax.tree.structure(after):
        changes = [f"{jax.tree.structure(state)} and {jax.tree.structure(after)}"]
    if changes:
        raise ConfigError(
            f"env.name: {name}: reset and step have to give the same shapes and types, but: "
            + "; ".join(changes)
        )


def check_rule(env: Env) -> None:
    """Check that an environment's rule of termination takes observations side by side.

    Raises:
      ConfigError: it fails, or gives another shape than one answer each, or one for all.
    """
    assert env.terminated is not None
    size = env.spec.observation_size
    rows = jax.ShapeDtypeStruct((size + 1, size), jnp.float32)
    shape = _shape(_traced(env.spec.name, "terminated", env.terminated, rows))
    if shape not in ((), (size + 1,)):
        advice = "; write observation[..., i], not observation[i]" if shape == (size,) else ""
        raise ConfigError(
            f"env.name: {env.spec.name}: terminated makes {shape} of observations {rows.shape}, "
            f"where ({size + 1},) is needed{advice}"
        )


def _kind(value: Any) -> str:
    inner = f"({', '.join(type(x).__name__ for x in value)})" if type(value) is tuple else None
    return inner or type(value).__name__


def _shape(value: Any) -> Any:
    """Return the shape of what was traced, or what it is if it has none."""
    return getattr(value, "shape", _kind(value))


def _described(tree: PyTree) -> dict[str, str]:
    """Return shapes and types of the leaves of a tree, by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{x.shape} {x.dtype}" for path, x in leaves}


def _traced(name: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return jax.eval_shape(function, *arguments)
    except ConfigError:
        raise
    except Exception as error:
        lines = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not any(Path(frame.filename).is_relative_to(folder) for folder in _OTHERS)
        ]
        where = f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""
        why = textwrap.shorten(str(error).strip().partition("\n")[0], 200)
        raise ConfigError(
            f"env.name: {name}: {what} fails when it is traced{where}: "
            f"{type(error).__name__}: {why}"
        ) from error

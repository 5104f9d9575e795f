"""Whether an environment of one's own has the shapes it says, found without computing anything."""

import itertools
import sysconfig
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Env, PyTree

_OTHERS = [Path(__file__).parents[1], *map(Path, map(sysconfig.get_path, ("stdlib", "purelib")))]


def check_shapes(env: Env, name: str) -> None:
    """Trace an environment, and compare what it gives with what is needed.

    Args:
      env: of one's own.
      name: for messages.

    Raises:
      ConfigError: a function of it fails, or gives another shape; it is said which, and where.
    """
    size, actions = env.spec.observation_size, env.spec.action_size
    batch = size + 1  # which cannot be taken for the size
    rows = jax.ShapeDtypeStruct((batch, size), jnp.float32)
    if env.terminated is not None:
        ended = _traced(name, "terminated", env.terminated, rows)
        if ended.shape != (batch,):
            raise ConfigError(
                f"env.name: {name}: terminated makes {ended.shape} of observations {rows.shape}, "
                f"where ({batch},) is needed; write observation[..., i], not observation[i]"
            )
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = _traced(name, "reset", env.reset, key)
    action = jax.ShapeDtypeStruct((actions,), jnp.float32)
    after, transition = _traced(name, "step", env.step, key, state, action)
    found = [
        ("the observation of reset", state.observation, (size,)),
        ("the observation of step", after.observation, (size,)),
        ("the next observation of step", transition.next_observation, (size,)),
        ("the reward", transition.reward, ()),
        ("the discount", transition.discount, ()),
        ("done", after.done, ()),
    ]
    problems = [
        f"env.name: {name}: {what} has shape {value.shape} where {wanted} is needed"
        for what, value, wanted in found
        if value.shape != wanted
    ]
    was, became = (_described(each.simulator) for each in (state, after))
    problems += [
        f"env.name: {name}: a step makes {new} of the simulator's state {old}; make it as it was"
        for old, new in itertools.zip_longest(was, became, fillvalue="nothing")
        if old != new
    ]
    if problems:
        raise ConfigError(*problems)


def _described(tree: PyTree) -> list[str]:
    """Return shapes and types of a tree, and which of its leaves they are of."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [f"{jax.tree_util.keystr(path)}{x.shape} {x.dtype}".strip() for path, x in leaves]


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

"""Termination rules: what ends an episode, told from the next observation alone.

The rules are those of the simulator, with its strict and non-strict comparisons. They are meant for
finite observations: whoever predicts observations has to treat non-finite ones separately.

An environment holds its own. Those of Brax stand here; they are exact where the observation shows
what the simulator judges, which it does but for three cases. Brax also ends a Hopper episode at a
speed of 100, but clips observed speeds at 10. It clips those of `inverted_double_pendulum`, too,
from which the rule on mjx computes an earlier pose. And on the spring and positional backends the
joints of that pendulum give way, so that its tip is up to a centimetre away from where the joint
angles put it.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from mbpo_jax.envs.shapes import check_rule
from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Env, TerminationFn


def never(observation: jax.Array) -> jax.Array:
    """Return False for every observation `[..., O]`, as `[...]` bool."""
    return jnp.zeros(observation.shape[:-1], bool)


def rule_of(env: Env, mode: Literal["known", "learned", "none"]) -> TerminationFn | None:
    """Return the function by which model rollouts of an environment end.

    Args:
      env: the environment.
      mode: "known" for the environment's own rule, "none" for episodes that never terminate,
        "learned" for none but what a model learns.

    Returns:
      `next_observation [..., O] -> terminated [...]` bool; None if it is to be learned.

    Raises:
      ConfigError: the environment has no rule.
    """
    if mode == "learned":
        return None
    if mode == "none":
        return never
    if env.terminated is None:
        raise ConfigError(
            f"env.termination: no termination rule is known for {env.spec.name!r}; give the "
            "environment one (Env.terminated), or choose env.termination=learned to learn it from "
            "data, or none if episodes never terminate"
        )
    check_rule(env)
    return env.terminated


DOUBLE_PENDULUM_LINK = 0.6
"""Length in metres of either link."""

MJX_POSE_LAG = {"ant": 0.01, "humanoid": 0.003, "inverted_double_pendulum": 0.01}
"""Seconds, one physics step: on the mjx backend the poses of links, which decide termination there,
are older than the joint positions and velocities, which are observed."""


def _outside(value: jax.Array, low: float, high: float) -> jax.Array:
    return (value < low) | (value > high)


def inverted_pendulum(observation: jax.Array) -> jax.Array:
    """Return where the pole leans by more than 0.2 rad, `[...]` bool."""
    return jnp.abs(observation[..., 1]) > 0.2


def tip_height(observation: jax.Array, lag: float = 0.0) -> jax.Array:
    """Return the height `[...]` in metres of the double pendulum's tip, `lag` seconds ago.

    Observed are the cart's position, two sines, two cosines, and three velocities. The first angle
    is counted from the upright, the second from the first link.
    """
    sines, cosines = observation[..., 1:3], observation[..., 3:5]
    angles = jnp.arctan2(sines, cosines) - lag * observation[..., 6:8]
    return DOUBLE_PENDULUM_LINK * jnp.cos(jnp.cumsum(angles, axis=-1)).sum(axis=-1)


def inverted_double_pendulum(observation: jax.Array, lag: float = 0.0) -> jax.Array:
    """Return where the tip was at 1 m or lower `lag` seconds ago, `[...]` bool."""
    return tip_height(observation, lag) <= 1.0


def _hopper(observation: jax.Array) -> jax.Array:
    height, pitch = observation[..., 0], observation[..., 1]
    upright = (height > 0.7) & (jnp.abs(pitch) < 0.2)
    bounded = jnp.all(jnp.abs(observation[..., 1:]) < 100.0, axis=-1)
    return ~(upright & bounded)


def _walker2d(observation: jax.Array) -> jax.Array:
    height, pitch = observation[..., 0], observation[..., 1]
    return ~((height > 0.8) & (height < 2.0) & (jnp.abs(pitch) < 1.0))


def _ant(observation: jax.Array, lag: float = 0.0) -> jax.Array:
    return _outside(observation[..., 0] - lag * observation[..., 15], 0.2, 1.0)


def _humanoid(observation: jax.Array, lag: float = 0.0) -> jax.Array:
    return _outside(observation[..., 0] - lag * observation[..., 24], 1.0, 2.0)


_BRAX: dict[str, Callable[..., jax.Array]] = {
    "ant": _ant,
    "halfcheetah": never,
    "hopper": _hopper,
    "humanoid": _humanoid,
    "humanoidstandup": never,
    "inverted_double_pendulum": inverted_double_pendulum,
    "inverted_pendulum": inverted_pendulum,
    "pusher": never,
    "reacher": never,
    "swimmer": never,
    "walker2d": _walker2d,
}


def brax_rule(name: str, backend: str) -> TerminationFn:
    """Return the rule of one of Brax's own environments; on mjx some look one physics step back."""
    if backend == "mjx" and name in MJX_POSE_LAG:
        return functools.partial(_BRAX[name], lag=MJX_POSE_LAG[name])
    return _BRAX[name]

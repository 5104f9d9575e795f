"""Brax environments behind the project's `Env`.

Brax's own wrappers put the observation after a reset in the place of the successor, start every
episode from the same cached state, and mark a time limit as termination. None of them is used here.
"""

import contextlib
import io
import sys
import types
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.envs import observed
from mbpo_jax.envs.brax_limits import with_closed_form
from mbpo_jax.envs.brax_viewer import viewer_json
from mbpo_jax.envs.termination import brax_rule
from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Env, EnvSpec, EnvState, Picture, TerminationFn, Transition

ALL_BACKENDS = ("generalized", "positional", "spring", "mjx")

HUMANOID_OBSERVATION_SIZE = 45
"""Positions without x and y (22), velocities (23): the truncated observation of the MBPO paper."""


class BraxInfo(NamedTuple):
    """What is known of a Brax environment without loading it.

    Attributes:
      backends: physics backends it runs on.
      observation_size: entries of Brax's observation that are kept, the first ones.
      action_size: size of an action.
    """

    backends: tuple[str, ...]
    observation_size: int
    action_size: int


ENVIRONMENTS = {
    "ant": BraxInfo(ALL_BACKENDS, 27, 8),
    "halfcheetah": BraxInfo(ALL_BACKENDS, 17, 6),
    "hopper": BraxInfo(ALL_BACKENDS, 11, 3),
    "humanoid": BraxInfo(ALL_BACKENDS, HUMANOID_OBSERVATION_SIZE, 17),
    "humanoidstandup": BraxInfo(ALL_BACKENDS, 244, 17),
    "inverted_double_pendulum": BraxInfo(ALL_BACKENDS, 8, 1),
    "inverted_pendulum": BraxInfo(ALL_BACKENDS, 4, 1),
    "pusher": BraxInfo(ALL_BACKENDS, 23, 7),
    "reacher": BraxInfo(ALL_BACKENDS, 11, 2),
    "swimmer": BraxInfo(("generalized",), 8, 2),
    "walker2d": BraxInfo(ALL_BACKENDS, 17, 6),
}


def load(name: str, backend: str) -> Any:
    """Build Brax's own environment object, without what it and MJX print about themselves.

    Forces of joint limits are found in closed form in Brax's own small tasks (`brax_limits`).
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Brax System, piplines and environments", UserWarning)
        warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
        from brax import envs, fluid
        from brax.generalized import pipeline

        # Its fluid forces, which only the swimmer has, call `clip` by an argument name JAX dropped.
        if fluid.jp is jnp:
            fluid.jp = types.SimpleNamespace(**{**vars(jnp), "clip": _clip})
        try:
            simulator: Any = envs.get_environment(name, backend=backend)
        except TypeError as error:
            raise ConfigError(
                f"env.name: the registered environment {name!r} cannot be made with backend="
                f"{backend!r}: {error}; let it take that argument"
            ) from error
        if backend == "generalized" and not is_registered(name):
            simulator._pipeline = with_closed_form(pipeline)
        return simulator


def is_registered(name: str) -> bool:
    """Return whether somebody registered an environment of this name with Brax in this process.

    That includes one of `ENVIRONMENTS` that was replaced, whose name then tells nothing.
    """
    # Who registers has imported it, so whoever has not need not wait for it.
    registry = getattr(sys.modules.get("brax.envs"), "_envs", {})
    return name in registry and not registry[name].__module__.startswith("brax.envs.")


def names_of(name: str, model: Any) -> tuple[str, ...]:
    """Return the names of what one of Brax's environments observes, as many as are known."""
    if name == "reacher":
        moves = ("fingertip speed x", "fingertip speed y")
        return (*observed.ARM_AND_TARGET, *moves, *observed.FINGERTIP)
    if name == "inverted_double_pendulum":
        return observed.TWO_POLES
    if name == "pusher":
        return observed.of_pusher(model)
    # Of `humanoidstandup`, too, which sees more behind its joints.
    unseen = 2 if name == "humanoidstandup" else None
    names = observed.of_joints(model, ENVIRONMENTS[name].observation_size, unseen)
    if name in ("hopper", "walker2d"):  # which see the body where others see its joint
        return ("torso z", *names[1:])
    return names


def _clip(array, a_min):
    """Clip from below, under the argument's former name."""
    return jnp.clip(array, min=a_min)


def make_brax_env(
    name: str,
    backend: str,
    episode_length: int,
    action_repeat: int,
    terminated: TerminationFn | None = None,
) -> Env:
    """Adapt a Brax environment.

    Args:
      name: a key of `ENVIRONMENTS`, or what was given to `brax.envs.register_environment`.
      backend: one of its backends.
      episode_length: time limit in simulator steps; it ends the episode but leaves the
        transition's discount at 1.
      action_repeat: simulator steps per action. A repeat ends at a termination; rewards are summed.
      terminated: the rule of a registered environment, if it is known; Brax's own have theirs.
    """
    simulator = load(name, backend)
    observation_size, names = int(simulator.observation_size), ()
    if not is_registered(name):
        observation_size, terminated = ENVIRONMENTS[name].observation_size, brax_rule(name, backend)
        names = names_of(name, simulator.sys.mj_model)
    spec = EnvSpec(
        name=name,
        observation_size=observation_size,
        action_size=int(simulator.action_size),
        episode_length=episode_length,
        action_repeat=action_repeat,
        # To the microsecond, because some backends hold it in single precision.
        dt=round(float(simulator.dt) * action_repeat, 6),
        observed=names,
    )

    def reset(key: jax.Array) -> EnvState:
        # Brax splits keys of the legacy kind, which are the bare words of a typed key.
        state = jax.tree.map(_strong, simulator.reset(jax.random.key_data(key)))
        return EnvState(state, state.obs[:observation_size], jnp.int32(0), jnp.bool_(False))

    def simulate(state, action):
        # Brax writes into the metrics of the state it is given, so it gets a copy.
        copy = state.replace(metrics=dict(state.metrics), info=dict(state.info))
        return jax.tree.map(_like, state, simulator.step(copy, action))

    def step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        del key  # Brax is deterministic.

        def repeat(carry, _):
            before, total = carry
            after = simulate(before, action)
            ended = before.done > 0
            total = total + jnp.where(ended, 0.0, after.reward)
            return (jax.tree.map(lambda b, a: jnp.where(ended, b, a), before, after), total), None

        start = state.simulator.replace(done=jnp.zeros_like(state.simulator.done))
        (following, reward), _ = jax.lax.scan(repeat, (start, jnp.float32(0)), None, action_repeat)
        terminated = following.done > 0
        steps = state.steps + action_repeat
        transition = Transition(
            observation=state.observation,
            action=action,
            reward=reward,
            discount=1.0 - terminated.astype(jnp.float32),
            next_observation=following.obs[:observation_size],
        )
        done = terminated | (steps >= episode_length)
        return EnvState(following, transition.next_observation, steps, done), transition

    picture = Picture(
        frame=lambda state: state.simulator.pipeline_state,
        model=lambda: simulator.sys.mj_model,
        positions=lambda states: np.asarray(states.q, np.float64),
        viewer=lambda states, dt: viewer_json(simulator.sys, states, dt),
    )
    # MJX solves for contacts in a loop that has no reverse derivative.
    return Env(
        spec,
        reset,
        step,
        terminated=terminated,
        differentiable=backend != "mjx",
        picture=picture,
    )


def _strong(leaf):
    """Turn a number into an array whose dtype is fixed, so that it can be carried by a scan."""
    return jnp.asarray(leaf, jnp.result_type(leaf))


def _like(old, new):
    """Give a new leaf, which Brax may have left a Python number, the dtype of the old one."""
    return jnp.asarray(new, old.dtype)

"""Systems whose values, trajectories and errors are known, and that compile at once."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.config import (
    Config,
    EnsembleConfig,
    EnvConfig,
    FitConfig,
    RolloutConfig,
    SACConfig,
)
from mbpo_jax.envs.base import random_action, step_or_reset
from mbpo_jax.models.ensemble import Ensemble, EnsembleParams, EnsembleState, Outcome
from mbpo_jax.nets.normalizer import identity_scaler
from mbpo_jax.types import Env, EnvSpec, EnvState, Transition

LINEAR_GAUSSIAN = "linear_gaussian"
LIMIT = 1.0
"""A linear-Gaussian episode terminates where the first component's magnitude exceeds this."""


def make_env(name: str, spec_sizes: tuple[int, int], episode_length: int, first, move) -> Env:
    """Build an environment from a draw of the first observation and a rule of motion.

    Args:
      name: of the environment.
      spec_sizes: `O` and `A`.
      episode_length: time limit in steps.
      first: `key -> observation [O]`.
      move: `(key, observation, action) -> (next_observation, reward, terminated)`.
    """
    spec = EnvSpec(name, *spec_sizes, episode_length, action_repeat=1, dt=0.1)

    def reset(key):
        return EnvState((), first(key), jnp.int32(0), jnp.bool_(False))

    def step(key, state, action):
        following, reward, terminated = move(key, state.observation, action)
        steps = state.steps + 1
        done = terminated | (steps >= episode_length)
        discount = 1.0 - terminated
        transition = Transition(state.observation, action, reward, discount, following)
        return EnvState((), following, steps, done), transition

    return Env(spec, reset, step)


def make_probe(
    reward: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    first: Callable[[jax.Array], jax.Array] = lambda key: jnp.zeros(1),
    terminal: float = 1.0,
    drift: float = 1.0,
) -> Env:
    """Build a probe: the observation drifts by a constant, and the episode ends at `terminal`.

    Args:
      reward: `(observation [1], action [1]) -> reward`.
      first: draws the first observation.
      terminal: an episode terminates once the observation reaches it.
      drift: change of the observation per step.
    """

    def move(key, observation, action):
        following = observation + drift
        return following, reward(observation, action)[0], following[0] >= terminal

    return make_env("probe", (1, 1), 4, first, move)


def one(observation, action):
    return jnp.ones_like(observation)


RIGHT_ACTION = 0.5

PROBES = {
    "constant": make_probe(one),
    "observation": make_probe(
        lambda observation, action: observation,
        first=lambda key: jax.random.rademacher(key, (1,), jnp.float32),
        terminal=-2.0,
    ),
    "delayed": make_probe(lambda observation, action: observation, terminal=2.0),
    "action": make_probe(lambda observation, action: -jnp.square(action - RIGHT_ACTION)),
    # Nothing ever changes and nothing terminates: only time limits end an episode.
    "endless": make_probe(one, drift=0.0),
}


@functools.partial(jax.jit, static_argnums=(1, 2))
def probe_data(key: jax.Array, env: Env, num_steps: int) -> Transition:
    """Play random actions for `num_steps` steps, episode after episode."""

    def step(state, key):
        action_key, step_key = jax.random.split(key)
        return step_or_reset(env, step_key, state, random_action(action_key, 1))

    reset_key, steps_key = jax.random.split(key)
    return jax.lax.scan(step, env.reset(reset_key), jax.random.split(steps_key, num_steps))[1]


DYNAMICS = jnp.array([[0.9, 0.2], [-0.1, 0.8]])
CONTROL = jnp.array([[0.7], [0.2]])
COST = jnp.array([-0.3, 0.1])


def linear_gaussian(*, noise: float, episode_length: int) -> Env:
    """Build `x' = A x + B a + noise`, reward `1 + c x'`, terminating where `|x'_0| > LIMIT`."""

    def first(key):
        return jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)

    def move(key, observation, action):
        following = DYNAMICS @ observation + CONTROL @ action
        following = following + noise * jax.random.normal(key, (2,))
        return following, 1.0 + COST @ following, beyond_limit(following)

    return make_env(LINEAR_GAUSSIAN, (2, 1), episode_length, first, move)


def beyond_limit(observation: jax.Array) -> jax.Array:
    """Tell the termination of `linear_gaussian`."""
    return jnp.abs(observation[..., 0]) > LIMIT


def tiny_config() -> Config:
    """Return a configuration whose steps on `linear_gaussian` take next to no time.

    From 10 environment steps on, an epoch and a fit are 8 steps, and k is 1, 2, 3, 3, ...
    """
    return Config(
        total_env_steps=40,
        random_steps=10,
        steps_per_fit=8,
        epoch_length=8,
        eval_every=8,
        eval_episodes=3,
        checkpoint_every=8,
        env=EnvConfig(name=LINEAR_GAUSSIAN),
        sac=SACConfig(utd_ratio=2, batch_size=8, hidden_sizes=(8,)),
        ensemble=EnsembleConfig(num_members=3, num_elites=2, hidden_sizes=(8,)),
        fit=FitConfig(batch_size=4, weight_decays=(1e-4, 1e-4), max_epochs=2),
        rollout=RolloutConfig(
            rollouts_per_step=2,
            max_length=3,
            start_epoch=0,
            end_epoch=2,
            retain_epochs=2,
            real_ratio=0.5,
            diagnostic_length=2,
        ),
    )


class LinearMembers(NamedTuple):
    """Members `E` that predict `weight [E, D, O + A] input + bias [E, D]` with `std [E, D]`."""

    weight: jax.Array
    bias: jax.Array
    std: jax.Array


def linear_model(weight, bias, std, elites=None) -> tuple[Ensemble, EnsembleState]:
    """Make an ensemble by hand, for exact predictions.

    Args:
      weight: `[D, O + A]`, the same for all members; the reward is the first row.
      bias: `[E, D]`, what members differ in.
      std: `[D]` or scalar, of all predictions.
      elites: members in use; all if None.
    """
    weight, bias = jnp.asarray(weight, jnp.float32), jnp.asarray(bias, jnp.float32)
    num_members, target_size = bias.shape
    members = LinearMembers(
        jnp.broadcast_to(weight, (num_members, *weight.shape)),
        bias,
        jnp.broadcast_to(jnp.asarray(std, jnp.float32), bias.shape),
    )

    def predict(state, observation, action):
        chosen = state.params.members
        inputs = jnp.concatenate([observation, action], axis=-1)
        mean = jnp.einsum("edi,ebi->ebd", chosen.weight, inputs)
        mean = mean + chosen.bias[:, None]
        return Outcome(mean, jnp.broadcast_to(chosen.std[:, None], mean.shape), None)

    def unused(*_):
        raise AssertionError("a model made by hand is neither initialised nor fitted")

    state = EnsembleState(
        EnsembleParams(members, jnp.zeros(target_size), jnp.zeros(target_size)),
        optimizer=(),
        input_scaler=identity_scaler(weight.shape[1]),
        target_scaler=identity_scaler(target_size),
        elites=jnp.arange(num_members) if elites is None else jnp.asarray(elites),
    )
    functions = dict.fromkeys(Ensemble._fields, unused) | {"predict": predict}
    return Ensemble(**functions), state

"""Experience of branched model rollouts: what MBPO, Dyna and MBA have in common."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.algorithms.parts import mixed_batch
from mbpo_jax.config import Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.models import rollout
from mbpo_jax.models.rows import map_blocks
from mbpo_jax.models.truncation import Accept, Truncation, accepting, truncation_of
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import DynamicsModel, EnvSpec, Experience, Policy, PyTree, Transition

Starts = Callable[[jax.Array, ReplayState, int], Transition]
"""`(key, replay, n) -> Transition [n]`, from whose observations rollouts branch."""

FirstAction = Callable[[jax.Array, Policy, Transition], jax.Array]
"""`(key, policy, starts) -> action [n, A]`, what rollouts do first."""


class Branched(NamedTuple):
    """Model data of rollouts whose truncation remembers something.

    Attributes:
      buffer: model transitions.
      truncation: what the rule remembers.
    """

    buffer: ReplayState
    truncation: PyTree


def uniform_starts(key: jax.Array, real: ReplayState, num_rows: int) -> Transition:
    """Start anywhere in the replay buffer."""
    return replay.sample(key, real, (num_rows,))


def recent_starts(num_recent: int) -> Starts:
    """Start from the newest transitions."""

    def starts(key: jax.Array, real: ReplayState, num_rows: int) -> Transition:
        newest = real._replace(size=jnp.minimum(real.size, num_recent))
        return replay.sample(key, newest, (num_rows,))

    return starts


def in_blocks(policy: Policy) -> Policy:
    """Let a policy act for one block of the rows `[B, O]` after the other, as the model does."""
    return lambda key, observation: map_blocks(policy, key, observation[None])[0]


def policy_action(key: jax.Array, policy: Policy, starts: Transition) -> jax.Array:
    """Begin with the policy's action."""
    return policy(key, starts.observation)


def stored_action(key: jax.Array, policy: Policy, starts: Transition) -> jax.Array:
    """Begin with the action that was taken there."""
    del key, policy
    return starts.action


def random_action(key: jax.Array, policy: Policy, starts: Transition) -> jax.Array:
    """Begin with a uniformly random action."""
    del policy
    return jax.random.uniform(key, starts.action.shape, minval=-1.0, maxval=1.0)


def model_buffer_capacity(config: Config) -> int:
    """Return how many model transitions are retained when rollouts are longest; one at least."""
    longest = config.rollout.longest
    limit = rollout.model_buffer_limit(longest, config.rollout, config.epoch_length)
    return max(int(limit), 1)


def with_memory(buffer: ReplayState, remembered: PyTree) -> ReplayState | Branched:
    """Return what is carried: the buffer alone where a rule remembers nothing."""
    return Branched(buffer, remembered) if jax.tree.leaves(remembered) else buffer


def parts_of(state: ReplayState | Branched) -> tuple[ReplayState, PyTree]:
    """Return model transitions, and what the rule of truncation remembers."""
    if isinstance(state, Branched):
        return state.buffer, state.truncation
    return state, ()


def branched_experience(
    spec: EnvSpec,
    model: DynamicsModel,
    config: Config,
    *,
    starts: Starts = uniform_starts,
    first_action: FirstAction = policy_action,
    keep_model_data: bool = True,
    accept: Accept | None = None,
    simulator: PyTree = (),
) -> Experience:
    """Feed updates from replay mixed with branched rollouts of a model.

    Args:
      spec: sizes.
      model: what the rollouts go through.
      config: how many rollouts, how long, and the share of real rows.
      starts: where they start.
      first_action: what they do first; the policy acts from then on.
      keep_model_data: keep the transitions of earlier models, for `rollout.retain_epochs`.
      accept: which rows may make their next step, another one ends where it is; in the place of
        the rule that the settings ask for.
      simulator: shapes of one simulator state, if model transitions are to hold them, too.

    Raises:
      ConfigError: there are two rules of truncation, or the model cannot do what one asks for.
    """
    if accept and config.rollout.truncation != "none":
        raise ConfigError("rollout.truncation: this algorithm has a rule of its own; leave it out")
    refreshes = config.rollout.refreshes_per_fit
    num_rollouts = config.rollout.rollouts_per_step * config.steps_per_fit // refreshes

    def rule(length: jax.Array | int) -> Truncation | None:
        return accepting(accept) if accept else truncation_of(model, config.rollout, length)

    def init() -> ReplayState | Branched:
        buffer = replay.init(
            model_buffer_capacity(config),
            spec.observation_size,
            spec.action_size,
            simulator=simulator,
        )
        truncation = rule(config.rollout.longest)
        return with_memory(buffer, truncation.init() if truncation else ())

    def refresh(
        key, state: ReplayState | Branched, view: PyTree, real: ReplayState, policy, env_steps
    ):
        buffer, remembered = parts_of(state)
        start_key, action_key, rollout_key = jax.random.split(key, 3)
        epoch = (env_steps - config.random_steps) // config.epoch_length
        # Without random steps the first refresh has no real transition to start from.
        length = jnp.where(real.size > 0, rollout.rollout_length(epoch, config.rollout), 0)
        if not keep_model_data:
            buffer = buffer._replace(size=jnp.zeros_like(buffer.size))
        begin, policy = starts(start_key, real, num_rollouts), in_blocks(policy)
        buffer, remembered, metrics = rollout.branch(
            rollout_key,
            model,
            view,
            policy,
            begin,
            first_action(action_key, policy, begin),
            buffer,
            length=length,
            max_size=rollout.model_buffer_limit(length, config.rollout, config.epoch_length),
            truncation=rule(length),
            remembered=remembered,
        )
        return with_memory(buffer, remembered), metrics

    def sample(key, state: ReplayState | Branched, real: ReplayState, shape) -> Transition:
        buffer, _ = parts_of(state)
        return mixed_batch(key, real, buffer, shape, config.rollout.real_ratio)

    return Experience(init, refresh, sample, refreshes)

"""What is carried from one call of the compiled step to the next."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.replay import ReplayState
from mbpo_jax.trees import all_finite
from mbpo_jax.types import EnvState, Metrics, PyTree


class TrainState(NamedTuple):
    """Everything that is carried from step to step, and all that a checkpoint has to hold.

    Attributes:
      key: the run's only key.
      env: the environment.
      replay: real transitions.
      model: the dynamics model's state, () without one.
      experience: model transitions, () without any.
      agent: parameters and optimizers, tables.
      memory: what the agent carries through an episode.
      episode_return: float32, return of the unfinished episode.
      healthy: bool; False once any parameter became non-finite. The run is then frozen.
    """

    key: jax.Array
    env: EnvState
    replay: ReplayState
    model: PyTree
    experience: PyTree
    agent: PyTree
    memory: PyTree
    episode_return: jax.Array
    healthy: jax.Array


class Learned(NamedTuple):
    """What a run has learned: all that is trained.

    Attributes:
      model: state of its model, () without one.
      agent: state of its agent.
    """

    model: PyTree
    agent: PyTree


def freeze_if_diverged(
    before: TrainState, after: TrainState, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """Keep the last finite parameters of a run whose parameters became non-finite, for good.

    Only what is trained is put back: the buffers go on, unread, which spares a copy of them.
    """
    healthy = before.healthy & all_finite(learned(after))

    def kept(state: TrainState) -> tuple[PyTree, PyTree, PyTree]:
        return state.agent, state.model, state.experience

    def without_buffers(state: TrainState) -> PyTree:
        return jax.tree.map(lambda x: () if is_buffer(x) else x, kept(state), is_leaf=is_buffer)

    # On a CPU a `where` for each array would have XLA repeat what `healthy` follows from in each of
    # them, which was two fifths of the compiled step.
    chosen = jax.lax.cond(
        healthy,
        lambda new, old: new,
        lambda new, old: old,
        without_buffers(after),
        without_buffers(before),
    )
    agent, model, experience = jax.tree.map(
        lambda new, best: new if is_buffer(new) else best, kept(after), chosen, is_leaf=is_buffer
    )
    after = after._replace(agent=agent, model=model, experience=experience, healthy=healthy)
    return after, {**metrics, "train/healthy": healthy.astype(jnp.float32)}


def is_buffer(node: PyTree) -> bool:
    """Return whether a node of a state is a replay buffer."""
    return isinstance(node, ReplayState)


def learned(state: TrainState) -> Learned:
    """Return what has been learned."""
    return Learned(state.model, state.agent)

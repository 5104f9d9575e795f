"""What every environment adapter shares: stepping with automatic resets."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.keys import cond_with_key
from mbpo_jax.trees import all_finite
from mbpo_jax.types import Env, EnvSpec, EnvState, PyTree, Transition


def step_or_reset(
    env: Env, key: jax.Array, state: EnvState, action: jax.Array
) -> tuple[EnvState, Transition]:
    """Step one environment and, if the episode ended, put a fresh initial state in its place.

    A transition that is not finite ends an episode, too. The transition holds the true successor
    observation, whatever the returned state is. The returned state's `done` says that the episode
    ended, so that a caller can tell where episodes end.

    Args:
      env: the environment.
      key: a key, used up.
      state: the environment's state; its `done` is not read.
      action: `[A]` float32 in [-1, 1].
    """
    step_key, reset_key = jax.random.split(key)
    stepped, transition = env.step(step_key, state, action)
    done = stepped.done | ~all_finite(transition)
    following = cond_with_key(done, reset_key, env.reset, lambda: stepped)
    return following._replace(done=done), transition


def random_action(key: jax.Array, action_size: int) -> jax.Array:
    """Draw a uniformly random action `[A]` in [-1, 1]."""
    return jax.random.uniform(key, (action_size,), minval=-1.0, maxval=1.0)


def episode_limit(spec: EnvSpec) -> int:
    """Return the most actions an episode can have: what the time limit allows."""
    return -(-spec.episode_length // spec.action_repeat)


def play_episodes(
    env: Env,
    begin: Callable[[], PyTree],
    act: Callable[[jax.Array, PyTree, EnvState], tuple[jax.Array, PyTree]],
    key: jax.Array,
    num_episodes: int,
    keep: Callable[[Transition, EnvState], PyTree] = lambda transition, state: (),
) -> tuple[jax.Array, jax.Array, PyTree]:
    """Play episodes side by side and return their undiscounted returns and lengths in actions.

    A transition that is not finite ends its episode and does not belong to it.

    Args:
      env: the environment.
      begin: `() -> memory` of one episode.
      act: `(key, memory, EnvState) -> (action [A], memory)` in one episode.
      key: a key, used up.
      num_episodes: B.
      keep: `(Transition, EnvState) -> what is kept` of a step and of where it led, in one episode.

    Returns:
      Returns and lengths of the episodes, each `[B]` float32, and what was kept `[T, B, ...]` of T
      actions, those after an episode's end included.
    """
    reset_key, steps_key = jax.random.split(key)

    def play_step(key, memory, state):
        act_key, env_key = jax.random.split(key)
        action, memory = act(act_key, memory, state)
        state, transition = env.step(env_key, state, action)
        return memory, state, transition, keep(transition, state)

    def alone(*rows):
        """Make the step of one episode without `vmap`, which would have every plan made anew."""
        made = play_step(*jax.tree.map(lambda x: x[0], rows))
        return jax.tree.map(lambda x: x[None], made)

    side_by_side = alone if num_episodes == 1 else jax.vmap(play_step)

    def step(carry, key):
        memory, state, total, length, alive = carry
        memory, state, transition, kept = side_by_side(
            jax.random.split(key, num_episodes), memory, state
        )
        counts = alive & all_finite(transition, axes=1)
        total = total + jnp.where(counts, transition.reward, 0.0)
        return (memory, state, total, length + counts, counts & ~state.done), kept

    start = jax.vmap(env.reset)(jax.random.split(reset_key, num_episodes))
    memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_episodes, *x.shape)), begin())
    zeros = jnp.zeros(num_episodes)
    carry = (memory, start, zeros, zeros, jnp.ones(num_episodes, bool))
    keys = jax.random.split(steps_key, episode_limit(env.spec))
    (_, _, total, length, _), kept = jax.lax.scan(step, carry, keys)
    return total, length, kept

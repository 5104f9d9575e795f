"""What a critic regresses to."""

import chex
import jax


def td0(
    reward: jax.Array, discount: jax.Array, next_value: jax.Array, gamma: jax.Array | float
) -> jax.Array:
    """Return the one-step target `r + gamma * discount * V(s')`, elementwise.

    Args:
      reward: `[...]`.
      discount: `[...]`, 0 where the episode terminated.
      next_value: `[...]`, value of the successor.
      gamma: discount factor.
    """
    chex.assert_equal_shape([reward, discount, next_value])
    return reward + gamma * discount * next_value

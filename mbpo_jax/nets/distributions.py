"""The tanh-squashed diagonal Gaussian of the policy."""

import jax
import jax.numpy as jnp

MIN_LOG_STD = -20.0
MAX_LOG_STD = 2.0
"""Bounds of the log standard deviation before the tanh, as in the SAC authors' implementation."""


MAX_ACTION = 1.0 - 1e-6
"""Largest action component whose inverse tanh is told with some precision in float32."""


def split_mean_log_std(output: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split a network's output `[..., 2 A]` into mean and clipped log standard deviation."""
    mean, log_std = jnp.split(output, 2, axis=-1)
    return mean, jnp.clip(log_std, MIN_LOG_STD, MAX_LOG_STD)


def tanh_log_det(x: jax.Array) -> jax.Array:
    """Return log(1 - tanh(x)^2), elementwise, without cancellation for large |x|."""
    return 2.0 * (jnp.log(2.0) - x - jax.nn.softplus(-2.0 * x))


def tanh_normal(
    mean: jax.Array, log_std: jax.Array, noise: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Map standard-normal noise to an action and its log-density (arXiv:1801.01290, eq. 21).

    Args:
      mean: `[..., A]` of the Gaussian before the tanh.
      log_std: `[..., A]`.
      noise: `[..., A]` standard normal.

    Returns:
      Action `[..., A]` in (-1, 1) and its log-density `[...]` in nats.
    """
    pre_tanh = mean + jnp.exp(log_std) * noise
    log_normal = -0.5 * jnp.square(noise) - log_std - 0.5 * jnp.log(2.0 * jnp.pi)
    return jnp.tanh(pre_tanh), jnp.sum(log_normal - tanh_log_det(pre_tanh), axis=-1)


def tanh_normal_log_prob(mean: jax.Array, log_std: jax.Array, action: jax.Array) -> jax.Array:
    """Return the log-density `[...]` of an action `[..., A]` in [-1, 1], in nats.

    An action that float32 rounded to the edge is moved inside, so that its density is finite.
    """
    pre_tanh = jnp.arctanh(jnp.clip(action, -MAX_ACTION, MAX_ACTION))
    noise = (pre_tanh - mean) * jnp.exp(-log_std)
    log_normal = -0.5 * jnp.square(noise) - log_std - 0.5 * jnp.log(2.0 * jnp.pi)
    return jnp.sum(log_normal - tanh_log_det(pre_tanh), axis=-1)

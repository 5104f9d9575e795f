"""Scaling of features to zero mean and unit variance."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Scaler(NamedTuple):
    """An affine map per feature.

    Attributes:
      mean: `[D]` float32.
      std: `[D]` float32, positive.
    """

    mean: jax.Array
    std: jax.Array


def identity_scaler(size: int) -> Scaler:
    """Return the scaler that changes nothing."""
    return Scaler(jnp.zeros(size), jnp.ones(size))


def fit_scaler(data: jax.Array, weight: jax.Array) -> Scaler:
    """Compute mean and standard deviation of weighted rows.

    Two passes in float32 around the first pass's mean, because the textbook formula E[x^2] - E[x]^2
    cancels. A feature that is constant up to float32's rounding gets a standard deviation of 1.

    Args:
      data: `[N, D]`.
      weight: `[N]`, 0 for rows that do not count.
    """

    def average(x: jax.Array) -> jax.Array:
        return jnp.sum(x * weight[:, None], axis=0, keepdims=True) / jnp.sum(weight)

    mean = average(data)
    mean += average(data - mean)
    std = jnp.sqrt(average(jnp.square(data - mean)))
    constant = std <= 2.0 * jnp.finfo(jnp.float32).eps * jnp.abs(mean) + 1e-12
    return Scaler(mean[0], jnp.where(constant, 1.0, std)[0])


def scale(scaler: Scaler, x: jax.Array) -> jax.Array:
    """Return `(x - mean) / std` for `x [..., D]`."""
    # `expand_dims` rather than silent rank promotion.
    axes = tuple(range(x.ndim - 1))
    return (x - jnp.expand_dims(scaler.mean, axes)) / jnp.expand_dims(scaler.std, axes)

"""What the members of an ensemble say together, as one Gaussian whose doubt is told from its noise.

Infoprop (Frauenknecht et al. 2025, arXiv:2501.16918) takes what a member says for a noisy
observation of the system, and samples from what is known after having seen it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Fused(NamedTuple):
    """The members' Gaussians taken together, in each component by itself.

    Attributes:
      mean: `[..., D]`, weighted with their precisions.
      variance: `[..., D]`, their harmonic mean: the noise of the system.
      doubt: `[..., D]`, the mean squared distance of their means from `mean`.
    """

    mean: jax.Array
    variance: jax.Array
    doubt: jax.Array

    @property
    def gain(self) -> jax.Array:
        """Return the share of the noise in noise and doubt, `[..., D]`."""
        return self.variance / (self.variance + self.doubt)

    @property
    def conditional_variance(self) -> jax.Array:
        """Return what is left of the variance once a member has been sampled from, `[..., D]`.

        It is `(1 - gain) variance`, without a difference that could be negative.
        """
        return self.doubt / (self.variance + self.doubt) * self.variance


def fuse(mean: jax.Array, std: jax.Array) -> Fused:
    """Take members together (Frauenknecht et al. 2025, published code).

    Args:
      mean: `[E, ..., D]`.
      std: `[E, ..., D]`.
    """
    precision = 1.0 / jnp.square(std)
    total = jnp.sum(precision, axis=0)
    centre = jnp.sum(precision * mean, axis=0) / total
    variance = mean.shape[0] / total
    doubt = jnp.mean(jnp.square(mean - centre[None]), axis=0)
    return Fused(centre, variance, doubt)


def sample_after(key: jax.Array, fused: Fused, mean: jax.Array, std: jax.Array) -> jax.Array:
    """Sample from what is known after a member has been sampled from.

    Of a sample x of the member it is `N(fused.mean + gain (x - fused.mean), conditional_variance)`.

    Args:
      key: a key, used up.
      fused: of all members, `[..., D]`.
      mean: `[..., D]`, of one member.
      std: `[..., D]`, of one member.
    """
    own, left = jax.random.normal(key, (2, *mean.shape))
    shift = mean + std * own - fused.mean
    return fused.mean + fused.gain * shift + jnp.sqrt(fused.conditional_variance) * left

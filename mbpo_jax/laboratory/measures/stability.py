"""How small changes of a state grow along trajectories: Jacobians, their products, exponents.

The variance of a pathwise gradient grows with the second moment of the product's norm, by about
`2 moment_exponent` a step in its logarithm. Rare trajectories make it; the mean exponent, which is
Lyapunov's, may be negative all the same (Metz et al. 2021, arXiv:2111.05803).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.laboratory.problems.problem import Noise, Problem, act, before_end, roll_out, step
from mbpo_jax.trees import coordinates
from mbpo_jax.types import PyTree


class Stability(NamedTuple):
    """Of the closed-loop Jacobians `J_t = d s_{t+1} / d s_t` along trajectories.

    Attributes:
      largest: `[B, H]`, the largest singular value of J_t.
      smallest: `[B, H]`, the smallest one.
      log_norm: `[B, H]`, `log |J_t ... J_0|`, the spectral norm; -inf if the product is zero.
      mean_exponent: `[H]`, `E log |J_{h-1} ... J_0| / h` of the horizons h = 1 to H.
      moment_exponent: `[H]`, `log E |J_{h-1} ... J_0|^2 / (2 h)` of the same.
    """

    largest: jax.Array
    smallest: jax.Array
    log_norm: jax.Array
    mean_exponent: jax.Array
    moment_exponent: jax.Array


def moving_coordinates(
    problem: Problem, state: PyTree
) -> tuple[jax.Array, Callable[[jax.Array], PyTree]]:
    """Return what moves in a state as numbers `[n]`, and how a state is made of them again."""
    if problem.moving is None:
        return coordinates(state)
    x, restore = coordinates({name: getattr(state, name) for name in problem.moving})
    return x, lambda x: state._replace(**restore(x))


def jacobians(params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Return J_t `[H, n, n]` of one trajectory, through policy and system; noise is held fixed.

    A state counts by the `coordinates` `[n]` of what moves in it.
    """
    states = before_end(roll_out(params, problem, noise).state)

    def one(state: PyTree, action_noise: jax.Array, outcome_noise: jax.Array) -> jax.Array:
        x, restore = moving_coordinates(problem, state)

        def advance(x: jax.Array) -> jax.Array:
            raw = act(problem, params, restore(x), action_noise)
            following, _ = step(problem, restore(x), raw, outcome_noise)
            return moving_coordinates(problem, following)[0]

        return jax.jacrev(advance)(x)

    return jax.vmap(one)(states, noise.action, noise.outcome)


def log_product_norms(factors: jax.Array) -> jax.Array:
    """Return `log |J_t ... J_0|` `[H]` of matrices `[H, n, n]`, at any size of the products.

    The running product is scaled to a largest entry of 1 after each step. First steps that pass
    nothing on, as one that draws the state does, are left out: growth counts from the first that
    does.
    """
    passes = jnp.any(factors != 0.0, axis=(1, 2))
    before = (jnp.cumsum(passes) == 0) & jnp.any(passes)
    factors = jnp.where(before[:, None, None], jnp.eye(factors.shape[-1])[None], factors)

    def multiply(carry: tuple[jax.Array, jax.Array], factor: jax.Array):
        product, log_scale = carry
        product = factor @ product
        scale = jnp.max(jnp.abs(product))
        product = product / jnp.where(scale == 0.0, 1.0, scale)
        carry = product, log_scale + jnp.log(scale)
        return carry, carry

    start = jnp.eye(factors.shape[-1], dtype=factors.dtype), jnp.zeros((), factors.dtype)
    _, (products, log_scales) = jax.lax.scan(multiply, start, factors)
    return log_scales + jnp.log(singular_values(products)[:, 0])


def singular_values(matrices: jax.Array) -> jax.Array:
    """Return the singular values `[..., n]`, in descending order, of matrices `[..., n, n]`."""
    return jnp.linalg.svd(matrices, compute_uv=False)


def stability(params: jax.Array, problem: Problem, noise: Noise) -> Stability:
    """Measure the growth of small changes over a batch of noise `[B]`."""
    factors = jax.vmap(lambda noise: jacobians(params, problem, noise))(noise)
    values = singular_values(factors)
    log_norm = jax.vmap(log_product_norms)(factors)
    rows, horizon = log_norm.shape
    steps = jnp.arange(1, horizon + 1, dtype=log_norm.dtype)
    second_moment = jax.nn.logsumexp(2.0 * log_norm, axis=0) - jnp.log(rows)
    return Stability(
        largest=values[..., 0],
        smallest=values[..., -1],
        log_norm=log_norm,
        mean_exponent=jnp.mean(log_norm, axis=0) / steps,
        moment_exponent=second_moment / (2.0 * steps),
    )

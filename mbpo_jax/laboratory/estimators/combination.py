"""Weighted sums of the likelihood-ratio and the pathwise gradient, with one weight for all steps.

`k` is the weight of the likelihood ratio throughout, and a variance is the trace of a covariance
matrix.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.laboratory.problems.problem import Noise, Problem, roll_out, total

Rows = tuple[jax.Array, jax.Array]
"""Likelihood-ratio and pathwise gradients of single trajectories, each `[B, P]`."""


class Spread(NamedTuple):
    """How the two gradients of single trajectories vary.

    Attributes:
      ratio: variance of the likelihood ratio, `[]`.
      path: variance of the pathwise gradient, `[]`.
      joint: trace of the covariance matrix between them, `[]`.
    """

    ratio: jax.Array
    path: jax.Array
    joint: jax.Array


def spread(ratio: jax.Array, path: jax.Array) -> Spread:
    """Measure how gradients of single trajectories `[B, P]` vary."""
    rows = ratio.shape[0]

    def covariance(a: jax.Array, b: jax.Array) -> jax.Array:
        a, b = a - jnp.mean(a, 0, keepdims=True), b - jnp.mean(b, 0, keepdims=True)
        return jnp.sum(a * b) / (rows - 1)

    return Spread(covariance(ratio, ratio), covariance(path, path), covariance(ratio, path))


def inverse_variance_weight(spread: Spread, covariance: bool = False) -> jax.Array:
    """Return the k in [0, 1] of the least variance; a half where nothing varies.

    Without covariance it is `V_path / (V_ratio + V_path)`.
    """
    joint = spread.joint if covariance else 0.0
    return weight(spread.path - joint, spread.ratio + spread.path - 2.0 * joint)


def weight(above: jax.Array, below: jax.Array) -> jax.Array:
    """Return `above / below` `[...]` within [0, 1]; a half where neither says anything."""
    known = jnp.isfinite(above) & (below > 0.0)
    return jnp.where(known, jnp.clip(above / jnp.where(known, below, 1.0), 0.0, 1.0), 0.5)


def blend(k: jax.Array | float, ratio: jax.Array, path: jax.Array) -> jax.Array:
    """Return the mean `[P]` of `k ratio + (1 - k) path` over rows `[B, P]`.

    What has no weight adds nothing, even if it is infinite.
    """
    ratio, path = jnp.mean(ratio, axis=0), jnp.mean(path, axis=0)
    return jnp.where(k == 0.0, 0.0, k * ratio) + jnp.where(k == 1.0, 0.0, (1.0 - k) * path)


def weighted_by_same_batch(rows: Rows, covariance: bool) -> jax.Array:
    """Weight by variances of the rows that are averaged, which makes the result biased."""
    return blend(inverse_variance_weight(spread(*rows), covariance), *rows)


def weighted_by_other_half(first: Rows, second: Rows) -> jax.Array:
    """Weight each half of a batch by the variances of the other, which makes no bias."""
    weights = [inverse_variance_weight(spread(*rows)) for rows in (second, first)]
    parts = [blend(k, *rows) for k, rows in zip(weights, (first, second), strict=True)]
    share = len(first[0]) / (len(first[0]) + len(second[0]))
    return share * parts[0] + (1.0 - share) * parts[1]


def weighted_by_past(ratio: jax.Array, path: jax.Array, spreads: Spread, decay: float) -> jax.Array:
    """Weight each batch by a running average of the variances of those before it.

    The first, before which there are none, weighs both gradients alike.

    Args:
      ratio: `[M, P]`, means over batches.
      path: `[M, P]`.
      spreads: `[M]` of the batches.
      decay: of the running average, which starts at the variances of the first batch.

    Returns:
      `[M, P]`.
    """

    def add(average: Spread, new: Spread):
        return jax.tree.map(lambda a, b: decay * a + (1.0 - decay) * b, average, new), average

    first = jax.tree.map(lambda x: x[0], spreads)
    _, past = jax.lax.scan(add, first, spreads)
    weights = jax.vmap(inverse_variance_weight)(past).at[0].set(0.5)
    return jax.vmap(lambda k, a, b: blend(k, a[None], b[None]))(weights, ratio, path)


def alpha_order(
    ratio: jax.Array, path: jax.Array, tolerance: float, confidence: float, bound: float
) -> jax.Array:
    """Trust the pathwise gradient as far as it agrees with the likelihood ratio.

    AoBG of Suh et al. 2022 (arXiv:2202.00817): from the weight of least variance, the pathwise
    share is lowered until its distance to the likelihood ratio, times the share, is less than a
    tolerance minus the radius of a confidence ball. The two come from different trajectories.

    Args:
      ratio: `[B1, P]`.
      path: `[B2, P]`, of other trajectories.
      tolerance: gamma of the paper.
      confidence: that the ball holds the mean, for example 0.95.
      bound: L of the paper, on the norm of a row's deviation.
    """
    rows, size = ratio.shape
    log_term = jnp.log((size + 1) / (1.0 - confidence))
    varied = Spread(spread(ratio, ratio).ratio, spread(path, path).path, jnp.zeros(()))
    radius = jnp.sqrt(2.0 * varied.ratio * log_term / rows) + 2.0 * bound * log_term / (3.0 * rows)
    distance = jnp.linalg.norm(jnp.mean(path, axis=0) - jnp.mean(ratio, axis=0))
    share = 1.0 - inverse_variance_weight(varied)
    share = jnp.where(share * distance > tolerance - radius, (tolerance - radius) / distance, share)
    share = jnp.where((radius > tolerance) | ~jnp.isfinite(distance), 0.0, share)
    return blend(1.0 - share, ratio, path)


def smoothness(params: jax.Array, problem: Problem, noise: Noise, other: Noise) -> jax.Array:
    """Return `|g + g'|^2 / 2` and `(J - J')^2` of two trajectories from the same start.

    g is the gradient of the return J in the standard noise. For a return that is a smooth function
    of the noise the mean of the first is at least that of the second: expand it in Hermite
    polynomials; a term of order n adds n c_n to the mean of |g|^2 and c_n to the variance of J.
    """

    def value(noises: tuple[jax.Array, jax.Array], start) -> jax.Array:
        return total(problem, roll_out(params, problem, Noise(start, *noises)))

    slope = jax.value_and_grad(value)
    first, g = slope((noise.action, noise.outcome), noise.start)
    second, h = slope((other.action, other.outcome), noise.start)
    sums = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(jnp.square(a + b)), g, h))
    return jnp.stack([0.5 * sum(sums), jnp.square(first - second)])


def discontinuity_detected(statistics: jax.Array, slack: float) -> jax.Array:
    """Return whether returns vary more than their gradients can explain.

    Args:
      statistics: `[B, 2]`, of `smoothness`.
      slack: c in [0, 1); with 0 any excess beyond chance is one.
    """
    margin = statistics[:, 0] - (1.0 - slack) * statistics[:, 1]
    error = jnp.std(margin, ddof=1) / jnp.sqrt(len(margin))
    return jnp.mean(margin) + 2.0 * error < 0.0

"""Expectations over normal noise without sampling: Gauss-Hermite grids."""

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.laboratory.problems.problem import Noise, Problem


def grid(dimensions: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points `[N, dimensions]` and weights `[N]` of a standard normal law.

    A product of polynomials of degree below `2 nodes` in each coordinate is integrated exactly.
    """
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    axes = np.meshgrid(*[np.arange(nodes)] * dimensions, indexing="ij")
    index = np.stack(axes, axis=-1).reshape(-1, dimensions)
    return x[index], np.prod((w / w.sum())[index], axis=-1)


def action_noise(problem: Problem, horizon: int, nodes: int) -> tuple[Noise, np.ndarray]:
    """Return all noise of a problem with one action component and no other randomness."""
    points, weights = grid(horizon, nodes)
    rows = len(weights)
    start = jnp.asarray(problem.start(jax.random.key(0)))
    return Noise(
        start=jnp.broadcast_to(start, (rows, *start.shape)),
        action=jnp.asarray(points)[..., None],
        outcome=jnp.zeros((rows, horizon, 0)),
    ), weights


def mean_and_variance(estimate, noise: Noise, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both `[P]` for the gradient of one trajectory."""
    rows = np.asarray(jax.jit(jax.vmap(estimate))(noise))
    mean = weights @ rows
    return mean, weights @ np.square(rows - mean[None])

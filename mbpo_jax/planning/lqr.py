"""The finite-horizon, time-varying linear-quadratic regulator.

The system is `x' = A x + B u + c`, and `T` actions are to minimise the sum of

    1/2 x'Qx + u'Sx + 1/2 u'Ru + q'x + r'u

and of the terminal `1/2 x'Qx + q'x`, which is the last row of `Q` and `q`; all letters depend on
time. With the halves, `Q`, `S` and `R` are second derivatives of the cost. Shapes: `n` components
of the state `x`, `m` of the action `u`. Noise of mean zero that is added to `x'` changes the cost
but not the best policy (certainty equivalence).

Matrix products are asked for in full precision: an accelerator's default would round the factors,
and the recursions would carry that on over the horizon.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class LinearQuadratic(NamedTuple):
    """A linear system and its quadratic cost; see the module for the equation.

    Attributes:
      A: `[T, n, n]`.
      B: `[T, n, m]`.
      c: `[T, n]`.
      Q: `[T + 1, n, n]`, symmetric.
      S: `[T, m, n]`.
      R: `[T, m, m]`, symmetric.
      q: `[T + 1, n]`.
      r: `[T, m]`.
    """

    A: jax.Array
    B: jax.Array
    c: jax.Array
    Q: jax.Array
    S: jax.Array
    R: jax.Array
    q: jax.Array
    r: jax.Array


class Value(NamedTuple):
    """A quadratic cost-to-go `1/2 x'Px + p'x + s`, at one time or, stacked, at times 0 to T.

    Attributes:
      P: `[..., n, n]`.
      p: `[..., n]`.
      s: `[...]`.
    """

    P: jax.Array
    p: jax.Array
    s: jax.Array


class LinearPolicy(NamedTuple):
    """Actions `u = K x + k`, at one time or at times 0 to T - 1.

    Attributes:
      K: `[..., m, n]`.
      k: `[..., m]`.
    """

    K: jax.Array
    k: jax.Array


def action_value(stage: LinearQuadratic, after: Value) -> tuple[jax.Array, ...]:
    """Expand the cost of a stage and of what follows it, in state and action.

    It is `1/2 x'Hxx x + u'Hux x + 1/2 u'Huu u + gx'x + gu'u + s`.

    Args:
      stage: one time step.
      after: cost-to-go of the next state.

    Returns:
      `Hxx [n, n], Hux [m, n], Huu [m, m], gx [n], gu [m], s []`.
    """
    A, B, c, Q, S, R, q, r = stage
    slope = after.P @ c + after.p
    return (
        Q + A.T @ after.P @ A,
        S + B.T @ after.P @ A,
        R + B.T @ after.P @ B,
        q + A.T @ slope,
        r + B.T @ slope,
        after.s + 0.5 * c @ (after.P @ c) + after.p @ c,
    )


def safe_inverse(curvature: jax.Array, least: jax.Array | float) -> jax.Array:
    """Invert a symmetric matrix `[m, m]` whose eigenvalues are replaced by `max(|w|, least)`.

    The result is positive definite, so that minus it times a gradient always leads downhill; where
    the matrix is positive definite already, with eigenvalues above `least`, it is the inverse.
    """
    eigenvalues, vectors = jnp.linalg.eigh(curvature)
    size = jnp.maximum(jnp.abs(eigenvalues), least)
    return (vectors / size[None]) @ vectors.T


def riccati(
    problem: LinearQuadratic, least_curvature: jax.Array | float = 0.0
) -> tuple[LinearPolicy, Value]:
    """Solve for the best policy by the Riccati recursion, backwards in time.

    `u = -Huu^-1 (Hux x + gu)` minimises the expansion in `action_value`; the cost-to-go is that of
    the policy. The inverse is `safe_inverse`: where the cost is not convex in the actions and none
    are best, there still is a policy.

    Args:
      problem: horizon `T`.
      least_curvature: no eigenvalue of `Huu` is taken to be smaller.

    Returns:
      The policy at times 0 to T - 1 and its cost-to-go at times 0 to T.
    """
    chex.assert_rank(problem, [3, 3, 2, 3, 3, 3, 2, 2])

    def step(after: Value, stage: LinearQuadratic) -> tuple[Value, tuple[LinearPolicy, Value]]:
        Hxx, Hux, Huu, gx, gu, s = action_value(stage, after)
        inverse = safe_inverse(0.5 * (Huu + Huu.T), least_curvature)
        K, k = -inverse @ Hux, -inverse @ gu
        P = Hxx + K.T @ Hux + Hux.T @ K + K.T @ Huu @ K
        value = Value(
            P=0.5 * (P + P.T),
            p=gx + Hux.T @ k + K.T @ (gu + Huu @ k),
            s=s + gu @ k + 0.5 * k @ (Huu @ k),
        )
        return value, (LinearPolicy(K, k), value)

    end = Value(problem.Q[-1], problem.q[-1], jnp.zeros_like(problem.q[-1, 0]))
    stages = problem._replace(Q=problem.Q[:-1], q=problem.q[:-1])
    with jax.default_matmul_precision("highest"):
        _, (policy, values) = jax.lax.scan(step, end, stages, reverse=True)
    values = jax.tree.map(lambda early, last: jnp.concatenate([early, last[None]]), values, end)
    return policy, values


def expected_cost(
    problem: LinearQuadratic,
    policy: LinearPolicy,
    mean: jax.Array,
    covariance: jax.Array,
    noise: jax.Array,
) -> jax.Array:
    """Return the exact expected cost of a linear policy under noise that is added to each state.

    The first two moments of the state follow `mean' = F mean + B k + c` and `cov' = F cov F' + W`
    with `F = A + B K`. A stage costs its value at the mean plus `1/2 tr((Q + 2 K'S + K'RK) cov)`.

    Args:
      problem: horizon `T`.
      policy: `u = K x + k`; open loop if `K` is zero.
      mean: `[n]`, of the initial state.
      covariance: `[n, n]`, of the initial state.
      noise: `[n, n]`, W.
    """
    chex.assert_rank([mean, covariance, noise], [1, 2, 2])

    def step(moments: tuple[jax.Array, jax.Array], inputs: tuple[LinearQuadratic, LinearPolicy]):
        mean, covariance = moments
        (A, B, c, Q, S, R, q, r), (K, k) = inputs
        u, F = K @ mean + k, A + B @ K
        cost = u @ (S @ mean) + 0.5 * u @ (R @ u) + r @ u
        curvature = Q + 2.0 * K.T @ S + K.T @ R @ K
        cost += state_cost(Q, q, mean) + 0.5 * jnp.sum(curvature * covariance)
        return (A @ mean + B @ u + c, F @ covariance @ F.T + noise), cost

    stages = problem._replace(Q=problem.Q[:-1], q=problem.q[:-1])
    with jax.default_matmul_precision("highest"):
        (mean, covariance), costs = jax.lax.scan(step, (mean, covariance), (stages, policy))
        last = state_cost(problem.Q[-1], problem.q[-1], mean)
    return jnp.sum(costs) + last + 0.5 * jnp.sum(problem.Q[-1] * covariance)


def state_cost(Q: jax.Array, q: jax.Array, x: jax.Array) -> jax.Array:
    """Return `1/2 x'Qx + q'x`."""
    return 0.5 * x @ (Q @ x) + q @ x

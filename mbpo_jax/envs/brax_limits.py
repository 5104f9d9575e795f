"""Forces of joint limits in Brax's generalized physics, in closed form.

Brax finds the forces of all constraints by projected gradient descent, of which its small tasks
make 99 turns whether or not a limit is violated, each of them differentiated: two thirds of a step
of `inverted_pendulum`, and nine tenths of its derivative. With a few constraints the same least
squares are solved by looking at every set of those that could push.
"""

import itertools
import types
from typing import Any

import jax
import jax.numpy as jnp

MOST_CONSTRAINTS = 4
"""Of which there are 16 sets. Brax's tasks with more make 4 to 20 turns."""


def with_closed_form(pipeline: types.ModuleType) -> Any:
    """Return Brax's generalized pipeline with forces of few constraints in closed form.

    Its step is Brax's own, which looks up the module of the constraints by name. Forces of more
    than `MOST_CONSTRAINTS` are Brax's, too.
    """

    def force(system: Any, state: Any) -> jax.Array:
        few = state.con_jac.shape[0] <= MOST_CONSTRAINTS
        return constraint_force(state) if few else pipeline.constraint.force(system, state)

    constraint = types.SimpleNamespace(**{**vars(pipeline.constraint), "force": force})
    step = types.FunctionType(
        pipeline.step.__code__,
        {**vars(pipeline), "constraint": constraint},
        argdefs=pipeline.step.__defaults__,
    )
    return types.SimpleNamespace(**{**vars(pipeline), "step": step})


def constraint_force(state: Any) -> jax.Array:
    """Return the generalized force of the constraints of a Brax state, `[V]` (N or N m).

    As in Brax, the forces `x >= 0` along the constraints minimise `|A x + b|^2`, where A is the
    inverse inertia that they feel, with their softness on its diagonal, and b the acceleration that
    is missing without them.
    """
    felt = state.con_jac @ state.mass_mx_inv
    inertia = felt @ state.con_jac.T + jnp.diag(state.con_diag)
    missing = felt @ state.qf_smooth - state.con_aref
    return state.con_jac.T @ nonnegative_least_squares(inertia, missing)


def nonnegative_least_squares(matrix: jax.Array, offset: jax.Array) -> jax.Array:
    """Return the `x >= 0` of least `|A x + b|^2`, for a few unknowns.

    Every set of unknowns that are not held at 0 is solved for, and the best feasible one is taken.
    The derivative is that of its solution. An unknown whose column is 0 stays 0. By normal
    equations, so in single precision A's condition number has to stay below some hundred.

    Args:
      matrix: A, `[n, n]`.
      offset: b, `[n]`.
    """
    size = offset.shape[0]
    squares, slope = matrix.T @ matrix, matrix.T @ offset
    squares += jnp.diag((jnp.diagonal(squares) <= 0).astype(squares.dtype))

    def solve(free: jax.Array) -> jax.Array:
        """Return the least squares whose other unknowns are 0."""
        kept = jnp.where(jnp.outer(free, free), squares, jnp.eye(size))
        return _solve(kept, jnp.where(free, -slope, 0.0))

    sets = jnp.asarray(list(itertools.product((False, True), repeat=size)), bool)
    candidates = jax.lax.stop_gradient(jax.vmap(solve)(sets))
    residual = jnp.sum((candidates @ matrix.T + offset[None]) ** 2, axis=-1)
    residual = jnp.where(jnp.all(candidates >= 0, axis=-1), residual, jnp.inf)
    return solve(sets[jnp.argmin(residual)])


def _solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Solve `M x = r` for a positive definite M, `[n, n]`, by elimination, which needs no pivot.

    A batch of tiny systems costs a call of LAPACK each, this none.
    """
    rows = jnp.concatenate([matrix, right[:, None]], axis=1)
    for place in range(right.shape[0]):
        row = rows[place] / rows[place, place]
        rows = (rows - jnp.outer(rows[:, place], row)).at[place].set(row)
    return rows[:, -1]

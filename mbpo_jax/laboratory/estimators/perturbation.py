"""Gradients from differences of returns: of perturbed parameters, or of perturbed actions.

Both trajectories of a pair share their noise.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.laboratory.problems.problem import (
    Noise,
    Problem,
    Trajectory,
    before_end,
    roll_out,
    total,
)


def evolution_strategy(
    params: jax.Array, problem: Problem, noise: Noise, direction: jax.Array, scale: float
) -> jax.Array:
    """Return `(J(params + scale d) - J(params - scale d)) d / (2 scale)`, `[P]`, for normal d.

    It is the gradient of J smoothed over the parameters (antithetic pairs of Salimans et al. 2017,
    arXiv:1703.03864).
    """

    def value(sign: float) -> jax.Array:
        return total(problem, roll_out(params + sign * scale * direction, problem, noise))

    return (value(1.0) - value(-1.0)) * direction / (2.0 * scale)


def finite_differences(
    params: jax.Array, problem: Problem, noise: Noise, width: float
) -> jax.Array:
    """Return central differences `[P]`, a pair of trajectories for every parameter."""

    def component(direction: jax.Array) -> jax.Array:
        above = total(problem, roll_out(params + width * direction, problem, noise))
        below = total(problem, roll_out(params - width * direction, problem, noise))
        return (above - below) / (2.0 * width)

    return jax.lax.map(component, jnp.eye(params.size, dtype=params.dtype))


def draw_couplings(key: jax.Array, problem: Problem, horizon: int) -> dict[str, jax.Array]:
    """Draw what `measure_valued` puts in the place of normal noise, each `[H, A]`.

    `weibull` has the density `w exp(-w^2 / 2)`. `maxwell` has `m^2 exp(-m^2 / 2) / sqrt(2 pi)` on
    the whole line; times a uniform variable it is normal, which is `normal`.
    """
    shape, dtype = (horizon, problem.action_size), problem.params.dtype
    weibull_key, maxwell_key, sign_key, uniform_key = jax.random.split(key, 4)
    weibull = jnp.sqrt(2.0 * jax.random.exponential(weibull_key, shape, dtype))
    length = jnp.linalg.norm(jax.random.normal(maxwell_key, (*shape, 3), dtype), axis=-1)
    maxwell = length * jax.random.rademacher(sign_key, shape, dtype)
    normal = maxwell * jax.random.uniform(uniform_key, shape, dtype)
    return {"weibull": weibull, "maxwell": maxwell, "normal": normal}


def measure_valued(
    params: jax.Array, problem: Problem, noise: Noise, coupling: dict[str, jax.Array]
) -> tuple[jax.Array, Trajectory]:
    """Return a number whose gradient is the coupled measure-valued one, and the trajectory.

    See Mohamed et al. 2020, arXiv:1906.10652.

    The derivative of a normal expectation in its mean is `E[f(m + s W) - f(m - s W)] / (s sqrt(2
    pi))`, in its standard deviation `E[f(m + s M) - f(m + s N)] / s`. So every component of every
    action asks for four trajectories, which differ from then on.
    """
    horizon, size = noise.action.shape
    fixed = jax.lax.stop_gradient(params)

    def value(time: jax.Array, component: jax.Array, replaced: jax.Array) -> jax.Array:
        action = noise.action.at[time, component].set(replaced)
        return total(problem, roll_out(fixed, problem, noise._replace(action=action)))

    def difference(time: jax.Array, component: jax.Array) -> tuple[jax.Array, jax.Array]:
        w, m, n = (coupling[name][time, component] for name in ("weibull", "maxwell", "normal"))
        mean = (value(time, component, w) - value(time, component, -w)) / jnp.sqrt(2.0 * jnp.pi)
        return mean, value(time, component, m) - value(time, component, n)

    times, components = jnp.repeat(jnp.arange(horizon), size), jnp.tile(jnp.arange(size), horizon)
    slopes = jax.lax.map(lambda at: difference(*at), (times, components))
    in_mean, in_std = (x.reshape(horizon, size) for x in slopes)
    made = roll_out(fixed, problem, noise)
    restored = problem.restore(params)
    law = jax.vmap(lambda state: problem.policy(restored, state))(before_end(made.state))
    std = jax.lax.stop_gradient(law.std)
    return jnp.sum((in_mean * law.mean + in_std * law.std) / std), made

"""Pathwise gradients: derivatives of the return along the trajectory that the noise makes.

All of them are one sum over windows of a trajectory. A window starts at a state that passes no
gradient back and ends at a critic's value, or at nothing: the whole trajectory as one window is
backpropagation through time.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.laboratory.problems.problem import (
    Critic,
    Noise,
    Problem,
    Trajectory,
    before_end,
    discounts,
    last,
    roll_out,
    total,
)
from mbpo_jax.models.imagination import cut_gradient, limit_cotangent
from mbpo_jax.types import PyTree


def whole(params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Return the gradient `[P]` of the return through all steps."""
    return jax.grad(lambda params: total(problem, roll_out(params, problem, noise)))(params)


def truncated(params: jax.Array, problem: Problem, noise: Noise, window: int) -> jax.Array:
    """Return the same, but every `window`-th state passes nothing back; so it is biased."""

    def value(params: jax.Array) -> jax.Array:
        return total(problem, roll_out(params, problem, noise, cut_every(window)))

    return jax.grad(value)(params)


def clipped(params: jax.Array, problem: Problem, noise: Noise, max_norm: float) -> jax.Array:
    """Return the same, but no state passes back more than `max_norm`; so it is biased."""

    def limit(time: jax.Array, state: PyTree) -> PyTree:
        rows = limit_cotangent(jax.tree.map(lambda x: x[None], state), max_norm)
        return jax.tree.map(lambda x: x[0], rows)

    return jax.grad(lambda params: total(problem, roll_out(params, problem, noise, limit)))(params)


def expanded(
    params: jax.Array, problem: Problem, critic: Critic, noise: Noise, window: int
) -> jax.Array:
    """Return the gradient `[P]` of the first `window` rewards and the critic's value after them.

    SVG(H) of Heess et al. 2015 (arXiv:1510.09142). It holds the influence of the first `window`
    actions alone.
    """
    horizon = noise.action.shape[0]
    if window >= horizon:
        return whole(params, problem, noise)
    short = noise._replace(action=noise.action[:window], outcome=noise.outcome[:window])

    def value(params: jax.Array) -> jax.Array:
        made = roll_out(params, problem, short)
        weight = discounts(problem, window + 1)
        end = critic.value(jnp.asarray(window), last(made.state))
        return weight[:-1] @ made.reward + weight[-1] * end

    return jax.grad(value)(params)


def tiled(
    params: jax.Array, problem: Problem, critic: Critic, noise: Noise, window: int
) -> jax.Array:
    """Return the sum `[P]` of the gradients of all windows along a trajectory.

    With a critic that knows the value, it has the mean of the whole gradient for every window.
    """

    def value(params: jax.Array) -> jax.Array:
        made = roll_out(params, problem, noise, cut_every(window))
        return total(problem, made) + window_ends(problem, critic, made, window)

    return jax.grad(value)(params)


def window_ends(problem: Problem, critic: Critic, made: Trajectory, window: int) -> jax.Array:
    """Return the discounted sum of the critic's values where windows end, but for the last."""
    time = jnp.arange(made.reward.shape[0] + 1)
    ends = (time % window == 0) & (time > 0) & (time < time[-1])
    value = jax.vmap(critic.value)(time, made.state)
    return jnp.sum(jnp.where(ends, discounts(problem, len(time)) * value, 0.0))


def action_value_gradient(
    params: jax.Array, problem: Problem, critic: Critic, noise: Noise
) -> jax.Array:
    """Return `sum_t gamma^t grad Q(s_t, u_t(params))` at the trajectory's states, `[P]`.

    The gradient of DDPG and SAC (Silver et al. 2014; Heess et al. 2015 with h = 0).
    """
    made = jax.lax.stop_gradient(roll_out(params, problem, noise))
    horizon = made.reward.shape[0]
    states = before_end(made.state)

    def value(params: jax.Array) -> jax.Array:
        def one(time, state, noise):
            law = problem.policy(params, state)
            return critic.action_value(time, state, law.mean + law.std * noise)

        return discounts(problem, horizon) @ jax.vmap(one)(
            jnp.arange(horizon), states, noise.action
        )

    return jax.grad(value)(params)


def cut_every(window: int):
    """Return a hook for `roll_out` that stops gradients at every `window`-th state."""
    return lambda time, state: cut_gradient(state, (time % window == 0) & (time > 0))

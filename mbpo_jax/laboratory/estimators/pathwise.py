"""Pathwise gradients: derivatives of the return along the trajectory that the noise makes.

The functions return what is to be differentiated in the parameters, so that the rows of a batch can
be summed before they are, which is cheaper than after.

All of them are one sum over windows of a trajectory. A window starts at a state that passes no
gradient back and ends at a critic's value, or at nothing: the whole trajectory as one window is
backpropagation through time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.laboratory.problems.problem import (
    Critic,
    Gaussian,
    Noise,
    Problem,
    Trajectory,
    before_end,
    bonus_of,
    discounts,
    last,
    roll_out,
    total,
)
from mbpo_jax.models.imagination import cut_gradient, limit_cotangent
from mbpo_jax.types import PyTree

Valued = tuple[jax.Array, Trajectory]
"""A number `[]` whose gradient is an estimate, and the trajectory that it was made on."""


def gradient(valued: Callable[..., Valued]) -> Callable[..., jax.Array]:
    """Return the gradient `[P]` in the first argument of one of the numbers below."""
    return lambda *arguments: jax.grad(valued, has_aux=True)(*arguments)[0]


def along(
    value: Callable[[Trajectory], jax.Array],
    params: jax.Array,
    problem: Problem,
    noise: Noise,
    before: Callable[[jax.Array, PyTree], PyTree] = lambda time, state: state,
) -> Valued:
    """Return a number with the gradient of what a trajectory is worth, through all its steps.

    It is passed back along the trajectory to each action's mean and standard deviation, and from
    all of these to the parameters at once. Step by step, the gradient of all parameters would be
    added up in each.

    Args:
      value: of a trajectory.
      params: `[P]`.
      problem: what the policy acts in.
      noise: of one trajectory.
      before: see `roll_out`.
    """

    def valued(moved: Gaussian) -> Valued:
        made = roll_out(jax.lax.stop_gradient(params), problem, noise, before, moved)
        return value(made), made

    nothing = jnp.zeros_like(noise.action)
    slopes, made = jax.grad(valued, has_aux=True)(Gaussian(nothing, nothing))
    restored = problem.restore(params)
    laws = jax.vmap(lambda state: problem.policy(restored, state))(before_end(made.state))
    return jnp.sum(slopes.mean * laws.mean + slopes.std * laws.std), made


def whole(
    params: jax.Array,
    problem: Problem,
    noise: Noise,
    before: Callable[[jax.Array, PyTree], PyTree] = lambda time, state: state,
) -> Valued:
    """Take the return; for `before` see `roll_out`."""
    return along(lambda made: total(problem, made), params, problem, noise, before)


def truncated(params: jax.Array, problem: Problem, noise: Noise, window: int) -> Valued:
    """Take the same, but every `window`-th state passes nothing back; so it is biased."""
    return whole(params, problem, noise, cut_every(window))


def clipped(params: jax.Array, problem: Problem, noise: Noise, max_norm: float) -> Valued:
    """Take the same, but no state passes back more than `max_norm`; so it is biased."""

    def limit(time: jax.Array, state: PyTree) -> PyTree:
        rows = limit_cotangent(jax.tree.map(lambda x: x[None], state), max_norm)
        return jax.tree.map(lambda x: x[0], rows)

    return whole(params, problem, noise, limit)


def expanded(
    params: jax.Array, problem: Problem, critic: Critic, noise: Noise, window: int
) -> Valued:
    """Take the first `window` rewards and the critic's value after them.

    SVG(H) of Heess et al. 2015 (arXiv:1510.09142). It holds the influence of the first `window`
    actions alone.
    """
    horizon = noise.action.shape[0]
    if window >= horizon:
        return whole(params, problem, noise)
    short = noise._replace(action=noise.action[:window], outcome=noise.outcome[:window])
    weight = discounts(problem, window + 1)

    def value(made: Trajectory) -> jax.Array:
        end = critic.value(jnp.asarray(window), last(made.state))
        return weight[:-1] @ made.reward + weight[-1] * end

    return along(value, params, problem, short)


def tiled(params: jax.Array, problem: Problem, critic: Critic, noise: Noise, window: int) -> Valued:
    """Take the sum over all windows along a trajectory.

    With a critic that knows the value, it has the mean of the whole gradient for every window.
    """

    def value(made: Trajectory) -> jax.Array:
        return total(problem, made) + window_ends(problem, critic, made, window)

    return along(value, params, problem, noise, cut_every(window))


def window_ends(problem: Problem, critic: Critic, made: Trajectory, window: int) -> jax.Array:
    """Return the discounted sum of the critic's values where windows end, but for the last."""
    time = jnp.arange(made.reward.shape[0] + 1)
    ends = (time % window == 0) & (time > 0) & (time < time[-1])
    value = jax.vmap(critic.value)(time, made.state)
    return jnp.sum(jnp.where(ends, discounts(problem, len(time)) * value, 0.0))


def action_values(params: jax.Array, problem: Problem, critic: Critic, noise: Noise) -> Valued:
    """Return `sum_t gamma^t (Q(s_t, u_t(params)) + b_t(params))` at a trajectory's fixed states.

    Its gradient is that of DDPG and SAC (Silver et al. 2014; Heess et al. 2015 with h = 0).
    """
    made = roll_out(jax.lax.stop_gradient(params), problem, noise)
    horizon, restored = made.reward.shape[0], problem.restore(params)

    def one(time: jax.Array, state: PyTree, noise: jax.Array) -> jax.Array:
        law = problem.policy(restored, state)
        action_value = critic.action_value(time, state, law.mean + law.std * noise)
        return action_value + bonus_of(problem, state, law, noise)

    values = jax.vmap(one)(jnp.arange(horizon), before_end(made.state), made.noise)
    return discounts(problem, horizon) @ values, made


def cut_every(window: int):
    """Return a hook for `roll_out` that stops gradients at every `window`-th state."""
    return lambda time, state: cut_gradient(state, (time % window == 0) & (time > 0))

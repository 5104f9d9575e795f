"""Weighted sums of the likelihood-ratio and the pathwise gradient, step by step.

Both work on the Gaussian of the policy at each step. What a likelihood ratio passes back to its
mean and standard deviation is `A_t (eps / std, (eps^2 - 1) / std)`, what the path passes back is
`G_t (1, eps)`, with the gradient G_t of the return in the raw action.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.laboratory.estimators import combination
from mbpo_jax.laboratory.estimators.likelihood_ratio import against_others
from mbpo_jax.laboratory.problems.problem import (
    Gaussian,
    Noise,
    Problem,
    Trajectory,
    before_end,
    bonus_of,
    discounts,
    last,
    roll_out,
    step,
    total,
)
from mbpo_jax.trees import coordinates
from mbpo_jax.types import PyTree


def passed_by_ratio(advantage: jax.Array, eps: jax.Array, std: jax.Array) -> Gaussian:
    """Return what a likelihood ratio passes to mean and standard deviation `[..., A]`."""
    advantage = advantage[..., None]
    return Gaussian(advantage * eps / std, advantage * (jnp.square(eps) - 1.0) / std)


def passed_by_path(slope: jax.Array, eps: jax.Array) -> Gaussian:
    """Return what a gradient in the raw action passes to mean and standard deviation `[..., A]`."""
    return Gaussian(slope, slope * eps)


def bonus_slopes(
    problem: Problem, state: PyTree, law: Gaussian, eps: jax.Array
) -> tuple[Gaussian, jax.Array]:
    """Return the gradients of an action's bonus in the law of the action, and in its noise `[A]`.

    The former belongs to the path. A likelihood ratio holds the action fixed, where the bonus
    answers to the law by `-w grad log pi`, whose mean is 0.
    """
    return jax.grad(bonus_of, argnums=(2, 3))(problem, state, law, eps)


def ratio_weight(ratio: jax.Array, path: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Return `V_path / (V_ratio + V_path)` over rows `[B, ...]`, summed over the other `axes`.

    A half where nothing varies.
    """
    above = jnp.sum(jnp.var(path, axis=0), axis=axes)
    return combination.weight(above, above + jnp.sum(jnp.var(ratio, axis=0), axis=axes))


def made_by_batch(
    params: jax.Array, problem: Problem, noise: Noise
) -> tuple[Trajectory, jax.Array]:
    """Roll a batch `[B]` out, and return its discounted rewards-to-go less those of the others."""
    made, advantage = against_others(params, problem, noise)
    return made, discounts(problem, advantage.shape[1])[None] * advantage


class Propagated(NamedTuple):
    """What either way of weighting finds.

    Attributes:
      gradient: `[P]`.
      weights: of the likelihood ratio at each step: `[H]`, or a Gaussian of `[H, A]`, for mean and
        for standard deviation.
      made: the trajectories `[B]`.
    """

    gradient: jax.Array
    weights: PyTree
    made: Trajectory


def propagated(
    params: jax.Array, problem: Problem, noise: Noise, weight: float | None = None
) -> Propagated:
    """Return the gradient of total propagation (Parmas et al. 2018, arXiv:1902.01240).

    Going back in time, both gradients are passed on from each action, weighted by the variance over
    the batch of what they add to the parameters' gradient there. Weights from the same batch make
    it biased.

    Args:
      params: `[P]`.
      problem: what the policy acts in.
      noise: `[B]`.
      weight: of the likelihood ratio; by variance if None.
    """
    made, advantage = made_by_batch(params, problem, noise)
    horizon = advantage.shape[1]
    weights = discounts(problem, horizon + 1)

    def end(state: PyTree) -> jax.Array:
        x, restore = coordinates(state)
        return weights[-1] * jax.grad(lambda x: problem.terminal(restore(x)))(x)

    def pull(time: jax.Array, rows: PyTree, following: jax.Array):
        """Pass the gradient of the next state back, once in either way; of one trajectory."""
        state, raw, eps, outcome, advantage = rows
        x, restore = coordinates(state)

        def advance(x: jax.Array, raw: jax.Array):
            after, reward = step(problem, restore(x), raw, outcome)
            return coordinates(after)[0], reward

        law, pull_law = jax.vjp(
            lambda p, x: problem.policy(problem.restore(p), restore(x)), params, x
        )
        _, pull_step = jax.vjp(advance, x, raw)
        direct, slope = pull_step((following, weights[time]))
        bonus, _ = bonus_slopes(problem, state, law, eps)
        path = jax.tree.map(lambda x, b: x + weights[time] * b, passed_by_path(slope, eps), bonus)
        return direct, pull_law(passed_by_ratio(advantage, eps, law.std)), pull_law(path)

    def back(following: jax.Array, inputs):
        time, rows = inputs
        direct, ratio, path = jax.vmap(pull, in_axes=(None, 0, 0))(time, rows, following)
        k = ratio_weight(ratio[0], path[0], (0,)) if weight is None else weight
        added, passed = jax.tree.map(lambda a, b: k * a + (1.0 - k) * b, ratio, path)
        return direct + passed, (jnp.mean(added, axis=0), jnp.asarray(k))

    rows = before_end_of_batch(made.state), made.raw, noise.action, noise.outcome, advantage
    by_time = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), rows)
    ends = jax.vmap(lambda state: end(last(state)))(made.state)
    _, (added, k) = jax.lax.scan(back, ends, (jnp.arange(horizon), by_time), reverse=True)
    return Propagated(jnp.sum(added, axis=0), k, made)


def before_end_of_batch(states: PyTree) -> PyTree:
    """Return all states `[B, H + 1]` of trajectories but the last."""
    return jax.vmap(before_end)(states)


def action_gradients(params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Return the gradient `[H, A]` of one trajectory's return in its standard noise.

    Later actions answer to earlier ones.
    """

    def value(eps: jax.Array) -> jax.Array:
        return total(problem, roll_out(params, problem, noise._replace(action=eps)))

    return jax.grad(value)(noise.action)


def weighted_by_action(params: jax.Array, problem: Problem, noise: Noise) -> Propagated:
    """Return the gradient whose weights belong to steps and components of the action.

    IVW-H (arXiv:2604.18161): variances over the batch of what both gradients pass to the policy's
    mean and standard deviation; the weighted sum is passed on to the parameters.
    """
    made, advantage = made_by_batch(params, problem, noise)

    slopes = jax.vmap(lambda n: action_gradients(params, problem, n))(noise)
    states = before_end_of_batch(made.state)

    def law_of(params: jax.Array) -> Gaussian:
        restored = problem.restore(params)
        return jax.vmap(jax.vmap(lambda state: problem.policy(restored, state)))(states)

    law, pull_law = jax.vjp(law_of, params)
    ratio = passed_by_ratio(advantage, noise.action, law.std)
    # A mean that is moved moves the raw action as much as the noise does over the deviation, but
    # the bonus of the action itself answers to each in its own way.
    in_law, in_noise = jax.vmap(jax.vmap(lambda *x: bonus_slopes(problem, *x)))(
        states, law, noise.action
    )
    weight = discounts(problem, advantage.shape[1])[None, :, None]
    path = passed_by_path((slopes - weight * in_noise) / law.std, noise.action)
    path = jax.tree.map(lambda x, own: x + weight * own, path, in_law)
    weights = jax.tree.map(lambda a, b: ratio_weight(a, b, ()), ratio, path)
    mixed = jax.tree.map(lambda k, a, b: k[None] * a + (1.0 - k[None]) * b, weights, ratio, path)
    return Propagated(pull_law(mixed)[0] / advantage.shape[0], weights, made)

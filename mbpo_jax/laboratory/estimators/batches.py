"""How gradients of single trajectories become estimators: means, baselines, combinations.

Every function here takes or returns `(config, params [P], problem, noise [B]) -> Estimate`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.laboratory.estimators import combination, likelihood_ratio, pathwise
from mbpo_jax.laboratory.estimators.estimator import Estimate
from mbpo_jax.laboratory.problems.problem import (
    Critic,
    Noise,
    Problem,
    Trajectory,
    roll_out,
    to_go,
)


def critic_of(params: jax.Array, problem: Problem, noise: Noise) -> Critic:
    """Return the problem's critic for fixed parameters and the noise's horizon."""
    assert problem.critic is not None
    return problem.critic(jax.lax.stop_gradient(params), noise.action.shape[-2])


def averaged(valued: Callable) -> Callable:
    """Return the mean gradient over a batch of a number that each trajectory has.

    The sum over rows is differentiated, so that no gradient of a single row is held, and then
    divided, as a limit on what a row passes back must not depend on how many rows there are.

    Args:
      valued: `(config, params, problem, noise) -> (number [], trajectory)`, of one trajectory.
    """

    def estimate(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
        def total(params: jax.Array) -> tuple[jax.Array, Trajectory]:
            values, made = jax.vmap(lambda n: valued(config, params, problem, n))(noise)
            return jnp.sum(values), made

        gradient, made = jax.grad(total, has_aux=True)(params)
        return Estimate(gradient / len(noise.action), made)

    return estimate


def averaged_differences(one: Callable) -> Callable:
    """Return the mean over a batch of a gradient that compares a trajectory's neighbours.

    Args:
      one: `(config, params, problem, noise) -> gradient [P]`, of one trajectory.
    """

    def estimate(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
        rows = jax.vmap(lambda noise: one(config, params, problem, noise))(noise)
        return Estimate(jnp.mean(rows, axis=0))

    return estimate


def scored(advantage: Callable) -> Callable:
    """Make a likelihood ratio at the actions of what a trajectory's actions led to.

    Args:
      advantage: `(config, problem, trajectory, critic or None) -> [H]`.
    """

    def valued(config, params: jax.Array, problem: Problem, noise: Noise) -> pathwise.Valued:
        critic = critic_of(params, problem, noise) if problem.critic else None
        made = roll_out(jax.lax.stop_gradient(params), problem, noise)
        signal = advantage(config, problem, made, critic)
        return likelihood_ratio.score(params, problem, made, signal), made

    return averaged(valued)


def scored_against_others(signal: Callable) -> Callable:
    """Make a likelihood ratio whose baseline is the mean signal of the batch's other rows.

    Args:
      signal: `(problem, trajectory) -> [H]`.
    """

    def estimate(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
        made, advantage = likelihood_ratio.against_others(params, problem, noise, signal)

        def total(params: jax.Array) -> jax.Array:
            scores = jax.vmap(lambda m, a: likelihood_ratio.score(params, problem, m, a))
            return jnp.mean(scores(made, advantage))

        return Estimate(jax.grad(total)(params), made)

    return estimate


def ratio_rows(
    params: jax.Array, problem: Problem, noise: Noise, signal: Callable = to_go
) -> tuple[jax.Array, Trajectory]:
    """Return likelihood-ratio gradients `[B, P]` with the leave-one-out baseline of each step.

    And the trajectories `[B]`.
    """
    made, advantage = likelihood_ratio.against_others(params, problem, noise, signal)
    rows = jax.vmap(lambda m, a: likelihood_ratio.at_actions(params, problem, m, a))
    return rows(made, advantage), made


def scored_at_states(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
    """Make a likelihood ratio at the states, with the baseline of `ratio_rows`."""
    made, advantage = likelihood_ratio.against_others(params, problem, noise)
    rows = jax.vmap(lambda n, m, a: likelihood_ratio.at_states(params, problem, n, m, a))(
        noise, made, advantage
    )
    return Estimate(jnp.mean(rows, axis=0), made)


def path_rows(params: jax.Array, problem: Problem, noise: Noise) -> tuple[jax.Array, Trajectory]:
    """Return pathwise gradients `[B, P]`, and the trajectories `[B]`."""
    slope = jax.grad(pathwise.whole, has_aux=True)
    return jax.vmap(lambda n: slope(params, problem, n))(noise)


def gradient_rows(
    params: jax.Array, problem: Problem, noise: Noise
) -> tuple[combination.Rows, Trajectory]:
    """Return both gradients of the same trajectories, and these `[B]`."""
    ratio, made = ratio_rows(params, problem, noise)
    return (ratio, path_rows(params, problem, noise)[0]), made


def halves(noise: Noise) -> tuple[Noise, Noise]:
    """Split a batch."""
    half = noise.action.shape[0] // 2
    return jax.tree.map(lambda x: x[:half], noise), jax.tree.map(lambda x: x[half:], noise)


def joined(first: Trajectory, second: Trajectory) -> Trajectory:
    """Put the halves of a batch together again."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second)


def mixed(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
    """Give the likelihood ratio a fixed weight."""
    rows, made = gradient_rows(params, problem, noise)
    return Estimate(combination.blend(config.mix, *rows), made)


def weighted(covariance: bool) -> Callable:
    """Weight by variances of the same batch, minding the covariance or not."""

    def estimate(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
        rows, made = gradient_rows(params, problem, noise)
        return Estimate(combination.weighted_by_same_batch(rows, covariance), made)

    return estimate


def weighted_by_halves(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
    """Weight either half of a batch by variances of the other; baselines are kept apart, too."""
    first, second = (gradient_rows(params, problem, part) for part in halves(noise))
    gradient = combination.weighted_by_other_half(first[0], second[0])
    return Estimate(gradient, joined(first[1], second[1]))


def weighted_by_past(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
    """Weight each of the batches `[M, B]` by variances of those before it; gradients `[M, P]`."""

    def summary(noise: Noise):
        (ratio, path), _ = gradient_rows(params, problem, noise)
        return jnp.mean(ratio, axis=0), jnp.mean(path, axis=0), combination.spread(ratio, path)

    ratio, path, spreads = jax.lax.map(summary, noise)
    return Estimate(combination.weighted_by_past(ratio, path, spreads, config.average_decay))


def alpha_order(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
    """Take the likelihood ratio of one half of a batch, and the path of the other."""
    first, second = halves(noise)
    ratio, by_ratio = ratio_rows(params, problem, first)
    path, by_path = path_rows(params, problem, second)
    gradient = combination.alpha_order(ratio, path, config.tolerance, 0.95, config.bound)
    return Estimate(gradient, joined(by_ratio, by_path))


def unless_discontinuous(config, params: jax.Array, problem: Problem, noise: Noise) -> Estimate:
    """Weight by variances of the same batch, unless a discontinuity is detected."""
    (ratio, path), made = gradient_rows(params, problem, noise)
    statistics = jax.vmap(
        lambda n: combination.smoothness(params, problem, n._replace(own=()), n.own)
    )(noise)
    k = combination.inverse_variance_weight(combination.spread(ratio, path))
    jumps = combination.discontinuity_detected(statistics, config.slack)
    return Estimate(combination.blend(jnp.where(jumps, 1.0, k), ratio, path), made)


def direction(key: jax.Array, problem: Problem, horizon: int) -> jax.Array:
    """Draw a standard normal direction `[P]`."""
    del horizon
    return jax.random.normal(key, problem.params.shape, problem.params.dtype)


def with_critic(valued: Callable) -> Callable:
    """Give what `averaged` takes the problem's critic, before the noise."""

    def estimate(config, params: jax.Array, problem: Problem, noise: Noise) -> pathwise.Valued:
        return valued(config, params, problem, critic_of(params, problem, noise), noise)

    return averaged(estimate)

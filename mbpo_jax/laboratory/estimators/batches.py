"""How gradients of single trajectories become estimators: means, baselines, combinations.

Every function here takes or returns `(config, params [P], problem, noise [B]) -> gradient [P]`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.laboratory.estimators import combination, likelihood_ratio, pathwise
from mbpo_jax.laboratory.problems.problem import Critic, Noise, Problem, roll_out, to_go


def critic_of(params: jax.Array, problem: Problem, noise: Noise) -> Critic:
    """Return the problem's critic for fixed parameters and the noise's horizon."""
    assert problem.critic is not None
    return problem.critic(jax.lax.stop_gradient(params), noise.action.shape[-2])


def averaged(one: Callable) -> Callable:
    """Turn a gradient of one trajectory into the mean over a batch."""

    def estimate(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
        rows = jax.vmap(lambda noise: one(config, params, problem, noise))(noise)
        return jnp.mean(rows, axis=0)

    return estimate


def scored(advantage: Callable) -> Callable:
    """Make a likelihood ratio at the actions of what a trajectory's actions led to.

    Args:
      advantage: `(config, problem, trajectory, critic or None) -> [H]`.
    """

    def one(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
        critic = critic_of(params, problem, noise) if problem.critic else None
        made = jax.lax.stop_gradient(roll_out(params, problem, noise))
        return likelihood_ratio.at_actions(
            params, problem, made, advantage(config, problem, made, critic)
        )

    return averaged(one)


def scored_against_others(signal: Callable) -> Callable:
    """Make a likelihood ratio whose baseline is the mean signal of the batch's other rows.

    Args:
      signal: `(problem, trajectory) -> [H]`.
    """

    def estimate(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
        return jnp.mean(ratio_rows(params, problem, noise, signal), axis=0)

    return estimate


def ratio_rows(
    params: jax.Array, problem: Problem, noise: Noise, signal: Callable = to_go
) -> jax.Array:
    """Return likelihood-ratio gradients `[B, P]` with the leave-one-out baseline of each step."""
    made, advantage = likelihood_ratio.against_others(params, problem, noise, signal)
    return jax.vmap(lambda m, a: likelihood_ratio.at_actions(params, problem, m, a))(
        made, advantage
    )


def scored_at_states(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Make a likelihood ratio at the states, with the baseline of `ratio_rows`."""
    made, advantage = likelihood_ratio.against_others(params, problem, noise)
    rows = jax.vmap(lambda n, m, a: likelihood_ratio.at_states(params, problem, n, m, a))(
        noise, made, advantage
    )
    return jnp.mean(rows, axis=0)


def path_rows(params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Return pathwise gradients `[B, P]`."""
    return jax.vmap(lambda n: pathwise.whole(params, problem, n))(noise)


def gradient_rows(params: jax.Array, problem: Problem, noise: Noise) -> combination.Rows:
    """Return both gradients of the same trajectories."""
    return ratio_rows(params, problem, noise), path_rows(params, problem, noise)


def halves(noise: Noise) -> tuple[Noise, Noise]:
    """Split a batch."""
    half = noise.action.shape[0] // 2
    return jax.tree.map(lambda x: x[:half], noise), jax.tree.map(lambda x: x[half:], noise)


def mixed(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Give the likelihood ratio a fixed weight."""
    return combination.blend(config.mix, *gradient_rows(params, problem, noise))


def weighted(covariance: bool) -> Callable:
    """Weight by variances of the same batch, minding the covariance or not."""

    def estimate(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
        rows = gradient_rows(params, problem, noise)
        return combination.weighted_by_same_batch(rows, covariance)

    return estimate


def weighted_by_halves(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Weight either half of a batch by variances of the other; baselines are kept apart, too."""
    first, second = (gradient_rows(params, problem, part) for part in halves(noise))
    return combination.weighted_by_other_half(first, second)


def weighted_by_past(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Weight each of the batches `[M, B]` by variances of those before it; `[M, P]`."""

    def summary(noise: Noise):
        ratio, path = gradient_rows(params, problem, noise)
        return jnp.mean(ratio, axis=0), jnp.mean(path, axis=0), combination.spread(ratio, path)

    ratio, path, spreads = jax.lax.map(summary, noise)
    return combination.weighted_by_past(ratio, path, spreads, config.average_decay)


def alpha_order(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Take the likelihood ratio of one half of a batch, and the path of the other."""
    first, second = halves(noise)
    ratio, path = ratio_rows(params, problem, first), path_rows(params, problem, second)
    return combination.alpha_order(ratio, path, config.tolerance, 0.95, config.bound)


def unless_discontinuous(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
    """Weight by variances of the same batch, unless a discontinuity is detected."""
    ratio, path = gradient_rows(params, problem, noise)
    statistics = jax.vmap(
        lambda n: combination.smoothness(params, problem, n._replace(own=()), n.own)
    )(noise)
    k = combination.inverse_variance_weight(combination.spread(ratio, path))
    jumps = combination.discontinuity_detected(statistics, config.slack)
    return combination.blend(jnp.where(jumps, 1.0, k), ratio, path)


def direction(key: jax.Array, problem: Problem, horizon: int) -> jax.Array:
    """Draw a standard normal direction `[P]`."""
    del horizon
    return jax.random.normal(key, problem.params.shape, problem.params.dtype)


def with_critic(one: Callable) -> Callable:
    """Give a gradient of one trajectory the problem's critic."""

    def estimate(config, params: jax.Array, problem: Problem, noise: Noise) -> jax.Array:
        return one(config, params, problem, critic_of(params, problem, noise), noise)

    return averaged(estimate)

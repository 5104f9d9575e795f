"""Likelihood ratios: gradients that ask for no derivative of the system.

`grad E[R] = E[sum_t A_t grad log p(choice_t)]`, where A_t is what the choice led to, less anything
that does not depend on it (Williams 1992). The choice is the policy's action, or, where the system
is noisy, the system's next state (Parmas et al. 2018, arXiv:1902.01240).
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
    to_go,
    total,
)


def log_density(law: Gaussian, x: jax.Array) -> jax.Array:
    """Return the log-density `[]` of independent normal variables, but for a constant."""
    return -jnp.sum(0.5 * jnp.square((x - law.mean) / law.std) + jnp.log(law.std))


def score_function(law: Gaussian, noise: jax.Array) -> jax.Array:
    """Return a number `[]` whose gradient is that of the log-density at the fixed `mean + std eps`.

    It is `eps / std` in the mean and `(eps^2 - 1) / std` in the standard deviation. So no action
    has to be told from its mean again, which float32 could not do where deviations are small.

    Args:
      law: of the raw action `[A]`.
      noise: `eps`, `[A]` standard normal.
    """
    std = jax.lax.stop_gradient(law.std)
    return jnp.sum((noise * law.mean + (jnp.square(noise) - 1.0) * law.std) / std)


def score(params: jax.Array, problem: Problem, made: Trajectory, advantage: jax.Array) -> jax.Array:
    """Return a number `[]` whose gradient is `sum_t gamma^t A_t grad log pi(u_t | s_t)`.

    Args:
      params: `[P]`.
      problem: tells the policy.
      made: what the policy did.
      advantage: `[H]`, each discounted to its own step.
    """
    weight = jax.lax.stop_gradient(discounts(problem, len(advantage)) * advantage)
    states, noise = jax.lax.stop_gradient((before_end(made.state), made.noise))
    restored = problem.restore(params)
    scores = jax.vmap(lambda s, eps: score_function(problem.policy(restored, s), eps))
    return weight @ scores(states, noise)


def at_actions(
    params: jax.Array, problem: Problem, made: Trajectory, advantage: jax.Array
) -> jax.Array:
    """Return the likelihood-ratio gradient `[P]` of one trajectory; see `score`."""
    return jax.grad(score)(params, problem, made, advantage)


def values(critic: Critic, made: Trajectory) -> jax.Array:
    """Return the critic's values `[H]` of the states in which the policy acted."""
    return jax.vmap(critic.value)(jnp.arange(made.reward.shape[0]), before_end(made.state))


def total_return(problem: Problem, made: Trajectory) -> jax.Array:
    """Return the whole return in every row `[H]`, discounted to the row's step.

    So that `gamma^t` times a row is the return itself.
    """
    return total(problem, made) / discounts(problem, made.reward.shape[0])


def generalised_advantage(
    problem: Problem, made: Trajectory, critic: Critic, decay: float
) -> jax.Array:
    """Return the advantage estimates `[H]` of Schulman et al. 2016 (arXiv:1506.02438).

    They are sums of `(gamma decay)^k` times the errors `r + gamma V(s') - V(s)`.
    """
    value = values(critic, made)
    following = jnp.append(value[1:], problem.terminal(last(made.state)))
    error = made.reward + problem.gamma * following - value

    def add(following: jax.Array, error: jax.Array):
        following = error + problem.gamma * decay * following
        return following, following

    return jax.lax.scan(add, jnp.zeros_like(error[0]), error, reverse=True)[1]


def exact_advantage(problem: Problem, made: Trajectory, critic: Critic) -> jax.Array:
    """Return `Q(s, u) + b - V(s)` at every step `[H]`, by the critic alone but for the bonus."""
    time, states = jnp.arange(made.reward.shape[0]), before_end(made.state)
    action_value = jax.vmap(critic.action_value)(time, states, made.raw)
    return action_value - problem.entropy_weight * made.log_prob - values(critic, made)


def leave_one_out(signal: jax.Array) -> jax.Array:
    """Return signals `[B, ...]`, each less the mean of the other rows'.

    As the baseline of a row does not depend on it, the gradient stays unbiased; the mean of all
    rows would shrink it by `1 - 1 / B`.
    """
    rows = signal.shape[0]
    return (signal - jnp.mean(signal, axis=0, keepdims=True)) * (rows / (rows - 1))


def against_others(
    params: jax.Array,
    problem: Problem,
    noise: Noise,
    signal: Callable[[Problem, Trajectory], jax.Array] = to_go,
) -> tuple[Trajectory, jax.Array]:
    """Roll a batch `[B]` out; return also each signal `[B, H]` less the mean of the others'."""
    made = jax.lax.stop_gradient(jax.vmap(lambda n: roll_out(params, problem, n))(noise))
    return made, leave_one_out(jax.vmap(lambda m: signal(problem, m))(made))


def at_states(
    params: jax.Array, problem: Problem, noise: Noise, made: Trajectory, advantage: jax.Array
) -> jax.Array:
    """Return the likelihood-ratio gradient `[P]` at the outcomes of the system.

    An outcome's law depends on the parameters through the action, whose own noise is held fixed:
    `sum_t gamma^t [A_t grad log p(y_t | s_t, a_t) + grad r(s_t, a_t, s_{t+1}) + grad b_t]`, where
    states and outcomes are held fixed, too. One derivative of the law is asked for, and no product
    of them.

    Args:
      params: `[P]`.
      problem: tells policy and outcomes.
      noise: of the trajectory.
      made: what the policy did under that noise.
      advantage: `[H]`, each discounted to its own step.
    """
    outcome_of = problem.outcome
    assert outcome_of is not None
    weight = discounts(problem, made.reward.shape[0])
    signal = weight * advantage
    following = jax.tree.map(lambda x: x[1:], made.state)

    def surrogate(params: jax.Array) -> jax.Array:
        restored = problem.restore(params)

        def one(state, action_noise, outcome_noise, after):
            law = problem.policy(restored, state)
            action = problem.squash(law.mean + law.std * action_noise)
            outcome = outcome_of(state, action)
            drawn = jax.lax.stop_gradient(outcome.mean + outcome.std * outcome_noise)
            reward = problem.reward(state, action, after)
            return log_density(outcome, drawn), reward + bonus_of(problem, state, law, action_noise)

        logs, reward = jax.vmap(one)(before_end(made.state), noise.action, noise.outcome, following)
        return signal @ logs + weight @ reward

    return jax.grad(surrogate)(params)

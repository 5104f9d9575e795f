"""Iterative linear-quadratic regulation (Li and Todorov 2004) through any dynamics function.

Around a trajectory, the dynamics are taken to first order and the reward to second; the regulator
of that problem proposes a new trajectory. What makes it safe: the actions' curvature is made
positive definite, several step sizes are tried, and only a better trajectory replaces the old one.

Actions are held in [-1, 1] by clipping them in the rollout. The regulator does not know of these
limits, so where a plan runs along them it may stop short of the optimum.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from mbpo_jax.config import ILQRConfig
from mbpo_jax.planning.lqr import LinearQuadratic, riccati
from mbpo_jax.types import PyTree

Dynamics = Callable[[jax.Array, jax.Array], jax.Array]
"""`(x [n], u [A]) -> x' [n]`, differentiable."""
Reward = Callable[[jax.Array, jax.Array], jax.Array]
"""`(x [n], u [A]) -> []`, twice differentiable."""
TerminalReward = Callable[[jax.Array], jax.Array]
"""`x [n] -> []`, twice differentiable."""

NUM_STEP_SIZES = 10
"""Step sizes 1, 1/2, 1/4, ... that are tried at once."""
GROWTH = 10.0
"""Factor by which the least curvature grows after an iteration that did not improve the plan, and
shrinks after one that did."""


class Solution(NamedTuple):
    """A trajectory and the feedback that holds it.

    Attributes:
      states: `[T + 1, n]`, from the initial one on; copies of it if no rollout was finite.
      actions: `[T, A]` in [-1, 1].
      gains: `[T, A, n]`: away from the states, act by `actions + gains (x - states)`, clipped.
      value: the sum of rewards; minus infinity if no rollout was finite.
    """

    states: jax.Array
    actions: jax.Array
    gains: jax.Array
    value: jax.Array


class ControlProblem(NamedTuple):
    """What is to be controlled.

    Attributes:
      dynamics: of one step.
      reward: of one step.
      terminal_reward: of the last state.
    """

    dynamics: Dynamics
    reward: Reward
    terminal_reward: TerminalReward


def no_terminal_reward(x: jax.Array) -> jax.Array:
    """Return zero."""
    return jnp.zeros((), x.dtype)


def rollout(
    problem: ControlProblem, x0: jax.Array, act: Callable[..., jax.Array], inputs: PyTree
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return states, actions and the sum of rewards of a policy.

    Args:
      problem: what to roll out.
      x0: `[n]`.
      act: `(x, inputs at one time) -> u`.
      inputs: arrays `[T, ...]`.

    Returns:
      `[T + 1, n]`, `[T, A]` and `[]`.
    """

    def step(x: jax.Array, inputs: PyTree):
        u = act(x, inputs)
        return problem.dynamics(x, u), (x, u, problem.reward(x, u))

    last, (states, actions, rewards) = jax.lax.scan(step, x0, inputs)
    value = jnp.sum(rewards) + problem.terminal_reward(last)
    return jnp.concatenate([states, last[None]]), actions, value


def shooting_hessian(
    dynamics: Dynamics,
    reward: Reward,
    x0: jax.Array,
    actions: jax.Array,
    terminal_reward: TerminalReward = no_terminal_reward,
) -> jax.Array:
    """Return the Hessian `[T A, T A]` of the return in the actions of an open-loop plan.

    Its condition number tells how hard the plan is to find by shooting; it grows exponentially with
    the horizon where the system is unstable.

    Args:
      dynamics: of one step.
      reward: of one step.
      x0: `[n]`.
      actions: `[T, A]`, not clipped.
      terminal_reward: of the last state.
    """
    problem = ControlProblem(dynamics, reward, terminal_reward)

    def value(flat: jax.Array) -> jax.Array:
        return rollout(problem, x0, lambda _, u: u, flat.reshape(actions.shape))[2]

    return jax.hessian(value)(actions.ravel())


def linear_quadratic(
    problem: ControlProblem, states: jax.Array, actions: jax.Array
) -> LinearQuadratic:
    """Expand a problem around a trajectory, in deviations from it; costs are negative rewards.

    Args:
      problem: dynamics to first order, rewards to second.
      states: `[T + 1, n]`, which obey the dynamics.
      actions: `[T, A]`.
    """

    def cost(x: jax.Array, u: jax.Array) -> jax.Array:
        return -problem.reward(x, u)

    def stage(x: jax.Array, u: jax.Array):
        A, B = jax.jacfwd(problem.dynamics, (0, 1))(x, u)
        q, r = jax.grad(cost, (0, 1))(x, u)
        (Q, _), (S, R) = jax.hessian(cost, (0, 1))(x, u)
        return A, B, Q, S, R, q, r

    A, B, Q, S, R, q, r = jax.vmap(stage)(states[:-1], actions)
    last_q = -jax.grad(problem.terminal_reward)(states[-1])
    last_Q = -jax.hessian(problem.terminal_reward)(states[-1])
    return LinearQuadratic(
        A=A,
        B=B,
        c=jnp.zeros_like(states[:-1]),
        Q=jnp.concatenate([Q, last_Q[None]]),
        S=S,
        R=R,
        q=jnp.concatenate([q, last_q[None]]),
        r=r,
    )


def finite_or_zero(tree: PyTree) -> PyTree:
    """Return arrays, or zeros in the place of all of them if any number is not finite."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
    return jax.tree.map(lambda x: jnp.where(finite, x, 0.0), tree)


def line_search(
    problem: ControlProblem, solution: Solution, step: jax.Array
) -> tuple[Solution, jax.Array]:
    """Return the best of several rollouts along a proposed change, if it beats the plan.

    For each step size, a rollout acts by `actions + size * step + gains (x - states)`, clipped.

    Args:
      problem: what to roll out.
      solution: the plan.
      step: `[T, A]`, the change of its actions.

    Returns:
      The plan, with new states and actions if one was better, and whether one was.
    """

    def act(x: jax.Array, inputs: tuple[jax.Array, ...]) -> jax.Array:
        x_plan, u_plan, K, du = inputs
        return jnp.clip(u_plan + du + K @ (x - x_plan), -1.0, 1.0)

    def follow(size: jax.Array):
        states, actions, gains, _ = solution
        return rollout(problem, states[0], act, (states[:-1], actions, gains, size * step))

    step_sizes = 0.5 ** jnp.arange(NUM_STEP_SIZES, dtype=step.dtype)
    states, actions, values = jax.vmap(follow)(step_sizes)
    finite = jnp.isfinite(values) & jnp.all(jnp.isfinite(states), axis=(1, 2))
    values = jnp.where(finite, values, -jnp.inf)
    best = jnp.argmax(values)
    improved = values[best] > solution.value
    proposed = Solution(states[best], actions[best], solution.gains, values[best])
    better = jax.tree.map(lambda new, old: jnp.where(improved, new, old), proposed, solution)
    return better, improved


def ilqr(
    dynamics: Dynamics,
    reward: Reward,
    x0: jax.Array,
    actions: jax.Array,
    config: ILQRConfig,
    terminal_reward: TerminalReward = no_terminal_reward,
) -> Solution:
    """Improve a plan by repeated linear-quadratic expansion around it.

    The plan that is returned is never worse than the one that was given. A rollout that is not
    finite is passed over; derivatives that are not, along the plan, end the search.

    Eigenvalues of the actions' curvature are bounded from below, first by `config.regularization`,
    then, while iterations fail, by more. One iteration therefore solves a linear-quadratic problem
    exactly if its curvature exceeds that bound and its actions keep their limits.

    Args:
      dynamics: of one step.
      reward: of one step.
      x0: `[n]`.
      actions: `[T, A]`, the first guess; clipped to [-1, 1].
      config: settings.
      terminal_reward: of the last state.

    Returns:
      The best trajectory and its own gains, zeros if they are not finite.
    """
    chex.assert_rank([x0, actions], [1, 2])
    problem = ControlProblem(dynamics, reward, terminal_reward)

    def iterate(i, carry: tuple[Solution, jax.Array, jax.Array]):
        # The search comes first, so that one body does for all: without a step yet, it rolls the
        # given actions out; in the end, what it found is expanded once more, for its own gains.
        solution, step, least = carry
        solution, improved = line_search(problem, solution, step)
        least = jnp.maximum(jnp.where(improved, least / GROWTH, least * GROWTH), first_least)
        least = jnp.where(i == config.iterations, first_least, least)
        expanded = finite_or_zero(linear_quadratic(problem, solution.states, solution.actions))
        policy = finite_or_zero(riccati(expanded, least)[0])
        return solution._replace(gains=policy.K), policy.k, least

    num_steps, action_size = actions.shape
    first_least = jnp.asarray(config.regularization, x0.dtype)
    start = Solution(
        states=jnp.tile(x0, (num_steps + 1, 1)),
        actions=jnp.clip(actions, -1.0, 1.0),
        gains=jnp.zeros((num_steps, action_size, x0.size), x0.dtype),
        value=jnp.asarray(-jnp.inf, x0.dtype),
    )
    carry = start, jnp.zeros_like(actions), first_least
    return jax.lax.fori_loop(0, config.iterations + 1, iterate, carry)[0]

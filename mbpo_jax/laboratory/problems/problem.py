"""What a gradient is estimated of: a return under a policy, a system and a law of starts.

The policy is Gaussian before it is squashed, the system may be noisy, and all randomness is an
argument. So the same noise can be given to several estimators, and an expectation can be taken by
quadrature. Everything here is written for one trajectory; batches come from `vmap`.

    J(params) = E[sum_{t<H} gamma^t (r(s_t, a_t, s_{t+1}) + b_t) + gamma^H r_f(s_H)]
    u_t = mean(s_t) + std(s_t) eps_t,  a_t = squash(u_t),  s_{t+1} = f(s_t, a_t, xi_t)

The bonus `b_t = -w log pi(a_t | s_t)`, if there is one, is the only part of what is paid that
depends on the parameters otherwise than through states and actions. Where actions are held fixed,
`E[grad log pi] = 0`, so likelihood ratios and measure-valued gradients have nothing to add for
that; where their noise is, it is differentiated as mean and standard deviation move.

Letters: `H` horizon, `P` parameters, `A` action, `X` outcome of a noisy step, `B` batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.types import PyTree


class Gaussian(NamedTuple):
    """Independent normal variables.

    Attributes:
      mean: `[n]`.
      std: `[n]`.
    """

    mean: jax.Array
    std: jax.Array


class Critic(NamedTuple):
    """What is expected of the rest of a trajectory, under fixed parameters.

    Attributes:
      value: `(time, state) -> []`, of the steps from `time` on, counted from there.
      action_value: `(time, state, raw action [A]) -> []`, without that action's own bonus.
    """

    value: Callable[[jax.Array, PyTree], jax.Array]
    action_value: Callable[[jax.Array, PyTree, jax.Array], jax.Array]


class Problem(NamedTuple):
    """A return whose gradient is estimated.

    Attributes:
      name: as the user writes it.
      params: `[P]`, where the gradient is taken.
      action_size: `A`.
      start: `key -> state`.
      policy: `(restored params, state) -> Gaussian [A]`, before the squashing.
      squash: raw action `[A]` to action `[A]`.
      advance: `(state, action [A], outcome [X]) -> next state`.
      reward: `(state, action [A], next state) -> []`.
      terminal: `state -> []`, what the last state is worth.
      gamma: discount factor per step.
      outcome: `(state, action [A]) -> Gaussian [X]`, what is random in a step; None if nothing is.
      outcome_size: `X`.
      log_prob: `(state, law of the raw action, its noise [A]) -> []`, the log-density of the
        squashed action, or 0 where nothing is paid any more; None without a bonus.
      entropy_weight: w, what a nat of entropy is paid.
      critic: `(params, horizon) -> Critic`; None without one.
      exact: `(params, horizon) -> [P]`, the gradient of J in closed form; None if unknown.
      smooth: whether pathwise gradients can be relied on; False if the return has steps, or slopes
        so steep that few trajectories meet them.
      differentiable: whether the system has derivatives at all.
      differentiable_action_value: whether the critic's action value has.
      restore: `params [P] -> what the policy takes of them`, once for all steps, as inside a loop
        their gradient would be put together anew in each.
      moving: fields of a state whose growth tells how stable the closed loop is; None for all of
        it, () if no fields tell.
    """

    name: str
    params: jax.Array
    action_size: int
    start: Callable[[jax.Array], PyTree]
    policy: Callable[[PyTree, PyTree], Gaussian]
    squash: Callable[[jax.Array], jax.Array]
    advance: Callable[[PyTree, jax.Array, jax.Array], PyTree]
    reward: Callable[[PyTree, jax.Array, PyTree], jax.Array]
    terminal: Callable[[PyTree], jax.Array]
    gamma: jax.Array | float = 1.0
    outcome: Callable[[PyTree, jax.Array], Gaussian] | None = None
    outcome_size: int = 0
    log_prob: Callable[[PyTree, Gaussian, jax.Array], jax.Array] | None = None
    entropy_weight: jax.Array | float = 0.0
    critic: Callable[[jax.Array, int], Critic] | None = None
    exact: Callable[[jax.Array, int], jax.Array] | None = None
    smooth: bool = True
    differentiable: bool = True
    differentiable_action_value: bool = True
    moving: tuple[str, ...] | None = None
    restore: Callable[[jax.Array], PyTree] = lambda params: params


class Noise(NamedTuple):
    """All randomness of one trajectory, or of many under leading axes.

    Attributes:
      start: the state it starts from.
      action: `[..., H, A]` standard normal.
      outcome: `[..., H, X]` standard normal.
      own: what an estimator draws for itself; () for most.
    """

    start: PyTree
    action: jax.Array
    outcome: jax.Array
    own: PyTree = ()


class Trajectory(NamedTuple):
    """What a policy did; time is the first axis.

    Attributes:
      state: `[H + 1, ...]`, the last one where it ended.
      noise: `[H, A]`, standard normal, of the actions.
      raw: `[H, A]`, actions before the squashing.
      reward: `[H]`, bonus included.
      log_prob: `[H]`, of the actions; 0 without a bonus.
    """

    state: PyTree
    noise: jax.Array
    raw: jax.Array
    reward: jax.Array
    log_prob: jax.Array


def draw(key: jax.Array, problem: Problem, horizon: int) -> Noise:
    """Draw the noise of one trajectory, in the parameters' precision."""
    start_key, action_key, outcome_key = jax.random.split(key, 3)
    dtype = problem.params.dtype
    return Noise(
        start=problem.start(start_key),
        action=jax.random.normal(action_key, (horizon, problem.action_size), dtype),
        outcome=jax.random.normal(outcome_key, (horizon, problem.outcome_size), dtype),
    )


def step(
    problem: Problem, state: PyTree, raw: jax.Array, noise: jax.Array
) -> tuple[PyTree, jax.Array]:
    """Return the next state and the reward of a raw action `[A]`, given standard noise `[X]`."""
    action = problem.squash(raw)
    outcome = noise
    if problem.outcome is not None:
        law = problem.outcome(state, action)
        outcome = law.mean + law.std * noise
    following = problem.advance(state, action, outcome)
    return following, problem.reward(state, action, following)


def act(problem: Problem, params: jax.Array, state: PyTree, noise: jax.Array) -> jax.Array:
    """Return the raw action `[A]` that the policy makes of standard noise `[A]`."""
    law = problem.policy(problem.restore(params), state)
    return law.mean + law.std * noise


def log_prob_of(problem: Problem, state: PyTree, law: Gaussian, noise: jax.Array) -> jax.Array:
    """Return an action's log-density `[]`; 0 without a bonus."""
    if problem.log_prob is None:
        return jnp.zeros((), law.mean.dtype)
    return problem.log_prob(state, law, noise)


def bonus_of(problem: Problem, state: PyTree, law: Gaussian, noise: jax.Array) -> jax.Array:
    """Return what an action is paid for being unlikely, `[]`."""
    return -problem.entropy_weight * log_prob_of(problem, state, law, noise)


def roll_out(
    params: jax.Array,
    problem: Problem,
    noise: Noise,
    before: Callable[[jax.Array, PyTree], PyTree] = lambda time, state: state,
    moved: Gaussian | None = None,
) -> Trajectory:
    """Follow the policy over a trajectory's noise.

    Args:
      params: `[P]`, of the policy.
      problem: what it acts in.
      noise: of one trajectory.
      before: `(time, state) -> state`, the same numbers, which may pass back another gradient; the
        trajectory holds the states before it.
      moved: what is added to mean and standard deviation of the actions, `[H, A]`.
    """
    restored = problem.restore(params)

    def advance(state: PyTree, inputs: tuple):
        time, action_noise, outcome_noise, added = inputs
        begun = before(time, state)
        law = jax.tree.map(jnp.add, problem.policy(restored, begun), added)
        raw = law.mean + law.std * action_noise
        following, reward = step(problem, begun, raw, outcome_noise)
        log_prob = log_prob_of(problem, begun, law, action_noise)
        reward = reward - problem.entropy_weight * log_prob
        return following, (state, raw, reward, log_prob)

    time = jnp.arange(noise.action.shape[0])
    nothing = Gaussian(jnp.zeros_like(noise.action), jnp.zeros_like(noise.action))
    end, (states, raw, reward, log_prob) = jax.lax.scan(
        advance, noise.start, (time, noise.action, noise.outcome, moved or nothing)
    )
    states = jax.tree.map(lambda x, last: jnp.concatenate([x, last[None]]), states, end)
    return Trajectory(states, noise.action, raw, reward, log_prob)


def discounts(problem: Problem, steps: int) -> jax.Array:
    """Return `gamma^t` for t < steps."""
    return problem.gamma ** jnp.arange(steps, dtype=problem.params.dtype)


def last(tree: PyTree) -> PyTree:
    """Return the last row of every leaf."""
    return jax.tree.map(lambda x: x[-1], tree)


def before_end(state: PyTree) -> PyTree:
    """Return all states `[H + 1]` of a trajectory but the last."""
    return jax.tree.map(lambda x: x[:-1], state)


def total(problem: Problem, made: Trajectory) -> jax.Array:
    """Return the discounted return of a trajectory, its end included."""
    weight = discounts(problem, made.reward.shape[0] + 1)
    return weight[:-1] @ made.reward + weight[-1] * problem.terminal(last(made.state))


def to_go(problem: Problem, made: Trajectory) -> jax.Array:
    """Return what is paid from each step on `[H]`, discounted to that step."""

    def add(following: jax.Array, reward: jax.Array):
        following = reward + problem.gamma * following
        return following, following

    end = problem.terminal(last(made.state))
    return jax.lax.scan(add, end, made.reward, reverse=True)[1]

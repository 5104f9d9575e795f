"""The problem of a policy that is improved in a system, from the states in which episodes began.

    J = E[sum_{t<T} gamma^t (r_t - w log pi(a_t | s_t))],

where the sum ends at a termination, and w is the entropy's weight.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.laboratory.problems.dynamics import System
from mbpo_jax.laboratory.problems.problem import Critic, Gaussian, Problem
from mbpo_jax.nets import distributions
from mbpo_jax.types import EnvSpec, PyTree


def make_searched_problem(
    spec: EnvSpec,
    system: System,
    params: jax.Array,
    moments: Callable[[PyTree, jax.Array], tuple[jax.Array, jax.Array]],
    restore: Callable[[jax.Array], PyTree] = lambda params: params,
    *,
    gamma: jax.Array | float,
    entropy_weight: jax.Array | float,
    value: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Problem:
    """Build the problem; where its trajectories start is left to their noise.

    Args:
      spec: sizes.
      system: what the policy acts in.
      params: `[P]`, of the policy.
      moments: `(restored params, observation [O]) -> mean and log standard deviation [A]` before
        the tanh.
      restore: see `Problem`.
      gamma: discount factor per action.
      entropy_weight: reward of a nat of the policy's entropy.
      value: `(observation [O], elapsed part of the horizon) -> []`, what is expected of the rest.
    """

    def policy(restored: PyTree, state: PyTree) -> Gaussian:
        mean, log_std = moments(restored, state.observation)
        return Gaussian(mean, jnp.exp(log_std))

    def log_prob(state: PyTree, law: Gaussian, noise: jax.Array) -> jax.Array:
        _, density = distributions.tanh_normal(law.mean, jnp.log(law.std), noise)
        return jnp.where(state.alive, density, 0.0)

    def critic(params: jax.Array, horizon: int) -> Critic:
        del params

        def rest(time: jax.Array, state: PyTree) -> jax.Array:
            assert value is not None
            counts = state.alive & (time < horizon)
            return jnp.where(counts, value(state.observation, time / horizon), 0.0)

        def action_value(time: jax.Array, state: PyTree, raw: jax.Array) -> jax.Array:
            # One step of the system's mean, and the value after it.
            following = system.mean_step(state, jnp.tanh(raw))
            ahead = following.paid + gamma * rest(time + 1, following)
            return jnp.where(state.alive, ahead, 0.0)

        return Critic(rest, action_value)

    def start(key: jax.Array) -> PyTree:
        del key
        raise NotImplementedError("the initial states are given with the noise")

    return Problem(
        name=f"{spec.name}, {system.name}",
        params=params,
        action_size=spec.action_size,
        start=start,
        policy=policy,
        restore=restore,
        squash=jnp.tanh,
        terminal=lambda state: jnp.zeros((), state.observation.dtype),
        gamma=gamma,
        log_prob=log_prob,
        entropy_weight=entropy_weight,
        critic=critic if value else None,
        differentiable_action_value=system.differentiable,
        **system.parts(),
    )

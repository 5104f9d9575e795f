"""Where a gradient and its variance come from: which actions, and which source of noise."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.laboratory.measures import jackknife
from mbpo_jax.laboratory.problems.problem import Critic, Gaussian, Noise, Problem
from mbpo_jax.types import PyTree


class Timed(NamedTuple):
    """A state that knows when it is.

    Attributes:
      time: int32, steps since the start.
      state: of the problem.
    """

    time: jax.Array
    state: PyTree


def by_action_time(problem: Problem, horizon: int) -> Problem:
    """Give each step a copy of the parameters, so that gradients are told apart by action time.

    Any estimator's gradient `[horizon * P]` becomes `[horizon, P]` when reshaped. For those that
    weigh all steps and parameters alike it sums over time to the gradient of the problem itself,
    under the same noise. The critic belongs to the first copy's policy, as copies are equal where
    the gradient is taken. No exact gradient is known.

    Args:
      problem: whose trajectories have `horizon` steps.
      horizon: H.
    """
    make_critic = problem.critic

    def copies(params: jax.Array) -> jax.Array:
        return params.reshape(horizon, -1)

    def start(key: jax.Array) -> Timed:
        return Timed(jnp.zeros((), jnp.int32), problem.start(key))

    def policy(params: jax.Array, timed: Timed) -> Gaussian:
        return problem.policy(problem.restore(copies(params)[timed.time]), timed.state)

    def advance(timed: Timed, action: jax.Array, outcome: jax.Array) -> Timed:
        return Timed(timed.time + 1, problem.advance(timed.state, action, outcome))

    def outcome(timed: Timed, action: jax.Array) -> Gaussian:
        assert problem.outcome is not None
        return problem.outcome(timed.state, action)

    def critic(params: jax.Array, horizon: int) -> Critic:
        assert make_critic is not None
        known = make_critic(copies(params)[0], horizon)
        return Critic(
            lambda time, timed: known.value(time, timed.state),
            lambda time, timed, raw: known.action_value(time, timed.state, raw),
        )

    return problem._replace(
        name=f"{problem.name} by action time",
        params=jnp.tile(problem.params, horizon),
        start=start,
        policy=policy,
        restore=lambda params: params,
        advance=advance,
        reward=lambda timed, action, following: problem.reward(
            timed.state, action, following.state
        ),
        terminal=lambda timed: problem.terminal(timed.state),
        outcome=outcome if problem.outcome else None,
        critic=critic if make_critic else None,
        exact=None,
    )


def with_source_of(noise: Noise, other: Noise) -> dict[str, Noise]:
    """Return `other` with one source of randomness from `noise`, for every source that varies.

    Args:
      noise: of any shape.
      other: independent of it, of the same shape.

    Returns:
      "start", the start state, but for its field `member` if it has one, which is the "member" of
      an ensemble; "action", the policy's noise; "outcome", the system's; and "own", what an
      estimator draws for itself. A problem need not have the last three.
    """
    mixed = {}
    if varies(noise.start):
        mixed["start"] = other._replace(start=noise.start)
    if hasattr(noise.start, "member"):
        ours, theirs = noise.start, other.start
        mixed["start"] = other._replace(start=ours._replace(member=theirs.member))
        mixed["member"] = other._replace(start=theirs._replace(member=ours.member))
    for name in ("action", "outcome", "own"):
        source = getattr(noise, name)
        if any(x.size for x in jax.tree.leaves(source)):
            mixed[name] = other._replace(**{name: source})
    return mixed


class Share(NamedTuple):
    """A part of a variance and its standard error."""

    variance: float
    error: float


def varies(tree: PyTree) -> bool:
    """Return whether rows differ in any array `[M, ...]`."""
    rows = (np.asarray(x) for x in jax.tree.leaves(tree))
    return any(bool(np.any(x != x[:1])) for x in rows)


def covariance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased trace of the covariance matrix between rows of `[M, P]`."""
    return float(np.sum((a - a.mean(axis=0)) * (b - b.mean(axis=0))) / (len(a) - 1))


def variance_by_source(
    estimate: Callable[[Noise], jax.Array], noise: Noise, other: Noise
) -> dict[str, Share]:
    """Return how much of an estimator's variance each source of randomness makes, and the errors.

    A source's share is the variance of the mean given that source: first-order effects of Sobol
    1993. It is the covariance of two gradients that have nothing but the source in common, which
    is unbiased; so a small share may come out negative.

    Args:
      estimate: noise `[M, ...]` to gradients `[M, P]`.
      noise: `[M, ...]`, of M independent estimates.
      other: the same, independent of `noise`.

    Returns:
      Traces of covariance matrices, each with its standard error by the jackknife: of every source
      (see `with_source_of`), of the "interaction" between sources, which is the rest, and the
      "total".
    """
    # On the host, as squares of large float32 numbers overflow there.
    gradients = np.asarray(estimate(noise), np.float64)
    mixed = {
        name: np.asarray(estimate(other), np.float64)
        for name, other in with_source_of(noise, other).items()
    }

    def shares(rows: np.ndarray) -> np.ndarray:
        own = [covariance(gradients[rows], x[rows]) for x in mixed.values()]
        total = covariance(gradients[rows], gradients[rows])
        return np.array([*own, total - sum(own), total])

    number = len(gradients)
    found = shares(np.arange(number))
    errors = jackknife.standard_errors(shares, number)
    errors = np.full(len(found), np.nan) if errors is None else errors
    names = (*mixed, "interaction", "total")
    return {n: Share(float(s), float(e)) for n, s, e in zip(names, found, errors, strict=True)}

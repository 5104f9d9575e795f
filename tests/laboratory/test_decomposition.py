"""Gradients by action time, and variances by source, against sums and quadrature."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import EstimatorConfig
from mbpo_jax.laboratory.estimators import pathwise
from mbpo_jax.laboratory.estimators.catalogue import load_estimator
from mbpo_jax.laboratory.measures.decomposition import Timed, by_action_time, variance_by_source
from mbpo_jax.laboratory.problems.closed_form import make_cosine_problem, make_lq_problem, nothing
from mbpo_jax.laboratory.problems.problem import Gaussian, Noise, Problem
from tests.laboratory.quadrature import grid

HORIZON = 4


def noisy_lq() -> Problem:
    eye = np.eye(2)
    return make_lq_problem(
        [[1.0, 0.2], [0.0, 1.0]],
        [[0.0], [0.5]],
        eye,
        0.1,
        [[-0.4, -0.7]],
        0.25,
        0.04 * eye,
        [1.0, -0.5],
        terminal=eye,
    )._replace(gamma=0.9)


def draws(seed: int, problem: Problem, horizon: int, *shape: int) -> Noise:
    """Draw noise of any shape on the host, where nothing has to be compiled for it."""
    rng = np.random.default_rng(seed)
    return Noise(
        start=jnp.asarray(np.array([1.0, -0.5]) + rng.normal(size=(*shape, 2))),
        action=jnp.asarray(rng.normal(size=(*shape, horizon, problem.action_size))),
        outcome=jnp.asarray(rng.normal(size=(*shape, horizon, problem.outcome_size))),
    )


def timed(noise: Noise) -> Noise:
    """Return noise as the problem by action time has it."""
    return noise._replace(start=Timed(jnp.zeros(noise.action.shape[:-2], jnp.int32), noise.start))


def gradients(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients by action time `[H, P]` and the gradient `[P]` of the same batch."""
    problem, config = noisy_lq(), EstimatorConfig(window=2, truncation=2)
    split, noise = by_action_time(problem, HORIZON), draws(0, problem, HORIZON, 8)

    @jax.jit
    def run(noise: Noise) -> tuple[jax.Array, jax.Array]:
        estimate = load_estimator(name).estimate
        found = estimate(config, split.params, split, timed(noise)).gradient
        whole = estimate(config, problem.params, problem, noise).gradient
        return found.reshape(HORIZON, -1), whole

    found, whole = run(noise)
    return np.asarray(found), np.asarray(whole)


@pytest.mark.parametrize("name", ["lr", "lr_total", "lr_state", "rp", "rp_clipped", "q"])
def test_gradients_by_action_time_sum_to_the_gradient(name):
    found, whole = gradients(name)
    np.testing.assert_allclose(found.sum(axis=0), whole, rtol=1e-9)


def test_a_window_holds_the_first_actions_alone():
    found, whole = gradients("svg")
    np.testing.assert_allclose(found.sum(axis=0), whole, rtol=1e-9)
    assert np.all(found[:2] != 0.0)
    assert np.all(found[2:] == 0.0)


def test_total_propagation_has_the_same_weights():
    # What a step adds to the gradient lies in its own copy, and varies there as in the whole.
    found, whole = gradients("tp")
    np.testing.assert_allclose(found.sum(axis=0), whole, rtol=1e-9)


def test_the_problem_by_action_time_starts_at_zero():
    problem = by_action_time(noisy_lq(), HORIZON)
    start = problem.start(jax.random.key(0))
    assert (start.time, start.time.dtype) == (0, jnp.int32)
    np.testing.assert_array_equal(start.state, [1.0, -0.5])
    assert problem.params.shape == (HORIZON * 2,)
    assert problem.exact is None
    plain = by_action_time(make_cosine_problem(), 1)
    assert (plain.outcome, plain.critic) == (None, None)


def scalar_lq(system_noise: float) -> Problem:
    return make_lq_problem(1.1, 0.5, 1.0, 0.1, -0.6, 0.25, system_noise, 1.0, terminal=1.0)


def scalar_draws(seed: int, problem: Problem, horizon: int, rows: int) -> Noise:
    noise = draws(seed, problem, horizon, rows)
    return noise._replace(start=noise.start[..., :1])


def rows_of(problem: Problem, valued: Callable = pathwise.whole) -> Callable[[Noise], jax.Array]:
    return jax.jit(
        jax.vmap(lambda noise: pathwise.gradient(valued)(problem.params, problem, noise))
    )


def shares_of(*arguments) -> dict[str, float]:
    return {name: share.variance for name, share in variance_by_source(*arguments).items()}


def test_shares_are_those_of_quadrature():
    problem = scalar_lq(0.3)
    rows = rows_of(problem)
    found = shares_of(rows, *(scalar_draws(i, problem, 1, 40_000) for i in range(2)))

    points, weights = grid(3, 6)
    noise = Noise(
        start=1.0 + jnp.asarray(points[:, :1]),
        action=jnp.asarray(points[:, 1:2, None]),
        outcome=jnp.asarray(points[:, 2:, None]),
    )
    g, weights = np.asarray(rows(noise)).reshape(6, 6, 6), weights.reshape(6, 6, 6)
    mean = np.sum(weights * g)
    total = np.sum(weights * (g - mean) ** 2)
    np.testing.assert_allclose(found["total"], total, rtol=0.1)
    for axis, name in enumerate(("start", "action", "outcome")):
        others = tuple(i for i in range(3) if i != axis)
        marginal = weights.sum(axis=others)
        given = (weights * g).sum(axis=others) / marginal
        np.testing.assert_allclose(
            found[name], marginal @ (given - mean) ** 2, atol=0.03 * total, err_msg=name
        )


def test_shares_sum_to_the_total():
    problem = scalar_lq(0.04)
    rows = rows_of(problem)
    noise, other = (scalar_draws(seed, problem, HORIZON, 2000) for seed in range(2))
    found = shares_of(rows, noise, other)
    assert set(found) == {"start", "action", "outcome", "interaction", "total"}
    np.testing.assert_allclose(sum(found.values()), 2 * found["total"])
    np.testing.assert_allclose(found["total"], rows(noise).var(axis=0, ddof=1).sum())
    assert found == shares_of(rows, noise, other)


def test_what_an_estimator_draws_is_a_source():
    noise, other = (draws(i, noisy_lq(), 1, 4000) for i in range(2))
    noise, other = (n._replace(own={"x": n.outcome[:, 0], "y": ()}) for n in (noise, other))
    found = shares_of(lambda n: 2.0 * n.own["x"] + n.start, noise, other)
    np.testing.assert_allclose(found["total"], 10.0, rtol=0.1)
    np.testing.assert_allclose([found["own"], found["start"]], [8.0, 2.0], atol=0.5)
    np.testing.assert_allclose(found["interaction"], 0.0, atol=0.8)


def test_one_source_has_all_of_the_variance():
    problem = scalar_lq(0.0)
    noise, other = (scalar_draws(seed, problem, HORIZON, 4000) for seed in range(2))
    noise, other = (n._replace(start=jnp.ones((4000, 1))) for n in (noise, other))
    found = shares_of(rows_of(problem), noise, other)
    assert found["action"] == found["total"]
    # What does not vary is no source.
    assert set(found) == {"action", "interaction", "total"}


def test_errors_of_shares_are_those_of_many_repetitions():
    problem = scalar_lq(0.0)
    rows = rows_of(problem)
    found = [
        variance_by_source(rows, *(scalar_draws(2 * i + j, problem, 1, 100) for j in range(2)))
        for i in range(100)
    ]
    for name in ("start", "action", "total"):
        told = np.mean([shares[name].error for shares in found])
        assert 0.7 < told / np.std([shares[name].variance for shares in found]) < 1.4


class Member(NamedTuple):
    """A state that follows one of two systems."""

    x: jax.Array
    member: jax.Array


def test_members_are_a_source_of_their_own():
    gains, noise_of_one = jnp.array([0.5, 2.0]), Gaussian(jnp.zeros(1), jnp.ones(1))

    def advance(state: Member, action: jax.Array, outcome: jax.Array) -> Member:
        return state._replace(x=state.x + gains[state.member] * action[0])

    # The gradient of x_1 in the mean of the action is the member's gain, whatever the start.
    problem = scalar_lq(0.0)._replace(
        policy=lambda params, state: noise_of_one._replace(mean=params),
        advance=advance,
        reward=nothing,
        terminal=lambda state: state.x,
    )

    def drawn(seed: int) -> Noise:
        noise = scalar_draws(seed, problem, 1, 4000)
        member = np.random.default_rng(seed + 2).integers(2, size=4000)
        return noise._replace(start=Member(noise.start[:, 0], jnp.asarray(member, jnp.int32)))

    found = shares_of(rows_of(problem), drawn(0), drawn(1))
    assert found["member"] == found["total"]
    np.testing.assert_allclose(found["total"], 0.75**2, rtol=0.05)
    np.testing.assert_allclose([found["start"], found["action"]], 0.0, atol=0.05)

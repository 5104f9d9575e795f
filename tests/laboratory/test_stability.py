"""Growth of small changes: linear systems, where it is known, and chaos."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.laboratory.measures.stability import (
    Stability,
    jacobians,
    log_product_norms,
    stability,
)
from mbpo_jax.laboratory.problems.closed_form import (
    make_chaotic_rnn_problem,
    make_lq_problem,
    make_scalar_lq_problem,
    nothing,
)
from mbpo_jax.laboratory.problems.problem import Gaussian, Noise, Problem


def draws(problem: Problem, horizon: int, rows: int) -> Noise:
    """Draw noise `[B]` on the host, where nothing has to be compiled for it."""
    rng, dtype = np.random.default_rng(0), problem.params.dtype
    start = problem.start(jax.random.key(0))
    return Noise(
        start=jnp.broadcast_to(start, (rows, *start.shape)),
        action=jnp.asarray(rng.normal(size=(rows, horizon, problem.action_size)), dtype),
        outcome=jnp.asarray(rng.normal(size=(rows, horizon, problem.outcome_size)), dtype),
    )


def measured(problem: Problem, horizon: int, rows: int) -> Stability:
    return run(problem, draws(problem, horizon, rows))


def run(problem: Problem, noise: Noise) -> Stability:
    return jax.jit(lambda noise: stability(problem.params, problem, noise))(noise)


def test_products_of_a_scalar_linear_system_are_powers():
    closed = 1.1 - 0.6 * 0.5
    found = measured(make_scalar_lq_problem(), 12, 3)
    steps = np.arange(1, 13)
    np.testing.assert_allclose(found.largest, closed, rtol=1e-12)
    np.testing.assert_allclose(found.log_norm, np.tile(np.log(closed) * steps, (3, 1)), rtol=1e-12)
    np.testing.assert_allclose(found.mean_exponent, np.log(closed), rtol=1e-12)
    np.testing.assert_allclose(found.moment_exponent, np.log(closed), rtol=1e-12)


def test_norms_of_a_linear_system_are_spectral():
    A, B, K = np.array([[1.0, 0.3], [-0.2, 0.9]]), np.array([[0.0], [0.5]]), [[-0.4, -0.7]]
    eye = np.eye(2)
    problem = make_lq_problem(A, B, eye, 1.0, K, 0.1, 0.01 * eye, [1.0, 0.0])
    found = measured(problem, 6, 2)
    closed = A + B @ np.array(K)
    singular = np.linalg.svd(closed, compute_uv=False)
    np.testing.assert_allclose(found.largest, singular[0], rtol=1e-10)
    np.testing.assert_allclose(found.smallest, singular[1], rtol=1e-10)
    norms = [np.linalg.norm(np.linalg.matrix_power(closed, t), 2) for t in range(1, 7)]
    np.testing.assert_allclose(found.log_norm[0], np.log(norms), rtol=1e-10)


def test_rare_trajectories_make_the_second_moment():
    growth = jnp.array([2.0, 0.5, 0.5, 0.5])
    still = Gaussian(jnp.zeros(1), jnp.ones(1))
    problem = make_scalar_lq_problem()._replace(
        policy=lambda params, state: still,
        # The number of the row, which tells how it grows, is no float and does not count.
        advance=lambda state, action, outcome: (state[0] * growth[state[1]], state[1]),
        reward=nothing,
    )
    noise = draws(make_scalar_lq_problem(), 3, 4)._replace(start=(jnp.zeros(4), jnp.arange(4)))
    found = run(problem, noise)
    steps = np.arange(1, 4)
    np.testing.assert_allclose(found.log_norm, np.log(growth)[:, None] * steps, rtol=1e-12)
    np.testing.assert_allclose(found.mean_exponent, -0.5 * np.log(2.0), rtol=1e-12)
    np.testing.assert_allclose(
        found.moment_exponent, np.log((4.0**steps + 3 * 0.25**steps) / 4) / (2 * steps), rtol=1e-12
    )


def test_exponents_of_a_chaotic_network():
    found = measured(make_chaotic_rnn_problem(3.5), 100, 1000)
    np.testing.assert_allclose(found.mean_exponent[-1], 0.35, atol=0.02)
    np.testing.assert_allclose(found.moment_exponent[-1], 0.44, atol=0.03)
    assert np.all(found.moment_exponent >= found.mean_exponent)


@pytest.mark.parametrize("double", [True, False])
def test_strong_chaos_is_finite(double):
    with jax.enable_x64(double):
        found = measured(make_chaotic_rnn_problem(5.0), 100, 200)
        assert found.log_norm.dtype == (jnp.float64 if double else jnp.float32)
        assert all(np.isfinite(x).all() for x in found)
        # The square of a norm leaves float32, where logarithms end at 88.
        assert 2.0 * np.max(found.log_norm) > 88.8
        assert found.moment_exponent[-1] > found.mean_exponent[-1] > 0.3


def test_products_beyond_all_floats():
    compiled = jax.jit(log_product_norms)
    with jax.enable_x64(False):
        for size in (1e10, 1e-10):
            found = compiled(jnp.full((50, 1, 1), size, jnp.float32))
            expected = np.log(size) * np.arange(1, 51)
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    vanished = compiled(jnp.zeros((3, 2, 2)))
    np.testing.assert_array_equal(vanished, np.full(3, -np.inf))
    # A first step that draws the state passes nothing on; growth counts from the next.
    drawn = compiled(jnp.array([0.0, 2.0, 2.0])[:, None, None])
    np.testing.assert_allclose(drawn, [0.0, np.log(2.0), np.log(4.0)])


def test_jacobians_are_differences_of_trajectories():
    problem = make_chaotic_rnn_problem()
    noise = jax.tree.map(lambda x: x[0], draws(problem, 3, 1))
    factors = jax.jit(lambda noise: jacobians(problem.params, problem, noise))(noise)
    product = np.linalg.multi_dot(list(factors)[::-1])

    def end(start: np.ndarray) -> np.ndarray:
        state = jnp.asarray(start)
        for eps in noise.action:
            law = problem.policy(problem.params, state)
            state = law.mean + law.std * eps
        return np.asarray(state)

    start, width = np.asarray(noise.start), 1e-5
    columns = [(end(start + d) - end(start - d)) / (2 * width) for d in width * np.eye(2)]
    np.testing.assert_allclose(product, np.stack(columns, axis=1), rtol=1e-6, atol=1e-9)


def test_a_second_call_gives_the_same():
    problem = make_chaotic_rnn_problem()
    compiled = jax.jit(lambda noise: stability(problem.params, problem, noise))
    noise = draws(problem, 10, 4)
    for a, b in zip(compiled(noise), compiled(noise), strict=True):
        np.testing.assert_array_equal(a, b)

"""What holds of every estimator, and what each is known to do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import ESTIMATORS, EstimatorConfig
from mbpo_jax.laboratory.estimators import combination, pathwise, propagation
from mbpo_jax.laboratory.estimators.batches import path_rows, ratio_rows
from mbpo_jax.laboratory.estimators.catalogue import draw_batches, estimate_batches
from mbpo_jax.laboratory.problems.closed_form import (
    make_chaotic_rnn_problem,
    make_cosine_problem,
    make_heaviside_problem,
    make_lq_problem,
    make_one_step_problem,
    make_quadratic_problem,
    make_scalar_lq_problem,
)
from mbpo_jax.laboratory.problems.problem import Problem
from tests.choice import mostly_exhaustive

HORIZON = 4
OTHER_GRADIENT = {"rp_clipped", "svg", "aobg"}
"""Those whose mean is meant to be another than the gradient of the return."""
SAME_BATCH = {name for name, e in ESTIMATORS.items() if e.biased.startswith("the weights")}


def estimates(
    name: str, problem: Problem, horizon: int, batches: int, batch_size: int, config=None, seed=0
) -> np.ndarray:
    """Return the gradients `[M, P]` of independent batches."""
    config = config or EstimatorConfig()

    @jax.jit
    def run(key: jax.Array) -> jax.Array:
        noise = draw_batches(key, name, problem, horizon, batches, batch_size)
        return estimate_batches(name, config, problem.params, problem, noise)

    return np.asarray(run(jax.random.key(seed)))


def deviation(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return how many standard errors the means of `[M, P]` are off."""
    return (found.mean(axis=0) - expected) / (found.std(axis=0, ddof=1) / np.sqrt(len(found)))


@functools.cache
def noisy_lq() -> Problem:
    return make_lq_problem(1.1, 0.5, 1.0, 0.1, -0.6, 0.25, 0.04, 1.0, terminal=1.0)


@functools.cache
def exact() -> np.ndarray:
    """Return the gradient `[P]` of its return."""
    return np.asarray(noisy_lq().exact(noisy_lq().params, HORIZON))


@functools.cache
def twice(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what two calls of an estimator make `[M, P]` of the same noise.

    Batches are small where weights come from them, so that their bias shows.
    """
    problem = noisy_lq()
    # A cut beyond the end cuts nothing, and a quadratic's smoothing does not move its gradient
    # by more than the square of the perturbation.
    config = EstimatorConfig(truncation=HORIZON, perturbation_std=1e-3)
    batches, batch_size = (4000, 4) if name in SAME_BATCH else (400, 32)

    @jax.jit
    def run(key: jax.Array) -> jax.Array:
        noise = draw_batches(key, name, problem, HORIZON, batches, batch_size)
        return estimate_batches(name, config, problem.params, problem, noise)

    first, second = (np.asarray(run(jax.random.key(0))) for _ in range(2))
    return first, second


# One of each kind: how they draw is what could differ.
REPEATED = ("es", "ivw", "lr_advantage", "mvd", "rp")


@pytest.mark.parametrize("name", mostly_exhaustive(sorted(ESTIMATORS), REPEATED.__contains__))
def test_a_second_call_gives_the_same(name):
    np.testing.assert_array_equal(*twice(name))


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - OTHER_GRADIENT - SAME_BATCH))
def test_the_mean_is_the_gradient_of_the_return(name):
    found, _ = twice(name)
    assert np.all(np.abs(deviation(found, exact())) < 4.5)


@pytest.mark.parametrize("name", sorted(SAME_BATCH - {"aobg"}))
def test_weights_from_the_same_batch_are_unbiased_in_the_limit(name):
    small, _ = twice(name)
    large = estimates(name, noisy_lq(), HORIZON, 20, 4000)
    assert np.all(np.abs(deviation(small, exact())) > 5.0)
    assert np.all(np.abs(deviation(large, exact())) < 4.5)


def test_the_first_window_holds_the_first_actions_alone():
    problem = make_scalar_lq_problem()
    found = estimates("svg", problem, 8, 1000, 64, EstimatorConfig(window=3))
    # With an exact critic it is the action-time split of the gradient: what K would change if it
    # were moved for the first three steps only.
    forms = problem.critic(problem.params, 8)
    x0 = problem.start(jax.random.key(0))

    def moved(gain: jax.Array) -> jax.Array:
        def second_moment(m, _):
            closed = 1.1 + 0.5 * gain
            return closed**2 * m + 0.0625, -(m + 0.1 * (gain**2 * m + 0.25))

        end, paid = jax.lax.scan(second_moment, x0[0] ** 2, None, 3)
        at_zero = forms.value(3, jnp.zeros(1))
        slope = forms.value(3, jnp.ones(1)) - at_zero
        return jnp.sum(paid) + slope * end + at_zero

    expected = jax.grad(moved)(problem.params[0])
    assert np.all(np.abs(deviation(found, np.array([expected]))) < 4.5)


def test_constant_returns_have_no_pathwise_gradient():
    problem = make_one_step_problem("constant", lambda x: 3.0 + 0.0 * x, 1.0, 0.7)
    assert np.all(estimates("rp", problem, 1, 5, 8) == 0.0)
    assert np.all(np.abs(deviation(estimates("lr_total", problem, 1, 2000, 8), np.zeros(2))) < 4.5)
    np.testing.assert_allclose(estimates("lr", problem, 1, 5, 8), 0.0, atol=1e-12)


def test_linear_returns_have_a_pathwise_gradient_without_variance():
    problem = make_one_step_problem("linear", lambda x: 3.0 * x, 1.0, 0.7)
    np.testing.assert_allclose(estimates("rp", problem, 1, 5, 8)[:, 0], 3.0, rtol=1e-12)


def assert_propagation_is_either_gradient(problem: Problem, horizon: int) -> None:
    """With a fixed weight of 0 it is the path's gradient, with 1 the ratio's."""
    noise = jax.tree.map(
        lambda x: x[0], draw_batches(jax.random.key(3), "rp", problem, horizon, 1, 16)
    )

    @jax.jit
    def gradients(params: jax.Array):
        return [
            (propagation.propagated(params, problem, noise, weight).gradient, rows.mean(axis=0))
            for weight, (rows, _) in enumerate(
                (path_rows(params, problem, noise), ratio_rows(params, problem, noise))
            )
        ]

    for found, expected in gradients(problem.params):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_propagation_with_fixed_weights_is_either_gradient():
    assert_propagation_is_either_gradient(noisy_lq(), HORIZON)


def test_finite_differences_are_the_pathwise_gradient():
    problem = noisy_lq()
    np.testing.assert_allclose(
        estimates("fd", problem, HORIZON, 3, 16, EstimatorConfig(difference=1e-5)),
        estimates("rp", problem, HORIZON, 3, 16),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("frequency", "path", "ratio"),
    [(0.5, 0.0213, 1.190), (1.43, 0.4189, 0.6819), (3.0, 4.497, 1.016)],
)
def test_cosine_crosses_over(frequency, path, ratio):
    problem = make_cosine_problem(frequency, 1.0, 0.7)
    for name, expected in (("rp", path), ("lr_total", ratio)):
        found = estimates(name, problem, 1, 200_000, 1)
        assert np.all(np.abs(deviation(found, problem.exact(problem.params, 1))) < 4.5)
        np.testing.assert_allclose(found[:, 0].var(), expected, rtol=0.02)


@pytest.mark.parametrize(
    ("width", "gradient", "path", "ratio", "mean"),
    [
        (0.4, 3.413, 5.42, 11.2, 3.43),
        (0.1, 3.948, 63.4, 9.36, 3.34),
        (0.02, 3.988, 383, 9.10, 1.22),
    ],
)
def test_heaviside(width, gradient, path, ratio, mean):
    problem = make_heaviside_problem(width)
    np.testing.assert_allclose(problem.exact(problem.params, 1)[0], gradient, rtol=2e-4)
    found = estimates("rp", problem, 1, 100_000, 1)[:, 0]
    np.testing.assert_allclose(found.var(), path, rtol=0.05)
    np.testing.assert_allclose(
        estimates("lr_total", problem, 1, 100_000, 1)[:, 0].var(), ratio, rtol=0.03
    )
    # Ten rows that all miss the step have a gradient of zero without variance, and are believed.
    np.testing.assert_allclose(
        estimates("ivw", problem, 1, 20_000, 10)[:, 0].mean(), mean, rtol=0.1
    )


def test_a_step_is_detected_and_a_slope_is_not():
    config = EstimatorConfig()
    steep, flat = make_one_step_problem("step", jnp.sign, 0.0, 0.2), make_quadratic_problem()
    np.testing.assert_allclose(
        estimates("ddcg", steep, 1, 20, 200, config), estimates("lr", steep, 1, 20, 200, config)
    )
    np.testing.assert_allclose(
        estimates("ddcg", flat, 1, 20, 200, config), estimates("ivw", flat, 1, 20, 200, config)
    )


def test_measure_valued_variance():
    found = estimates("mvd", make_quadratic_problem(), 1, 200_000, 1)[:, 0]
    np.testing.assert_allclose(found.var(), 4 * 0.7**2 * (4 - np.pi) / np.pi, rtol=0.02)


@pytest.mark.slow
def test_chaos_explodes_the_path_but_not_the_ratio():
    def variance(name: str, beta: float, horizon: int) -> float:
        return estimates(name, make_chaotic_rnn_problem(beta), horizon, 8_000, 1)[:, 0].var()

    rise = np.log10(variance("rp", 3.5, 40)) - np.log10(variance("rp", 3.5, 20))
    assert 6.0 < rise < 9.0
    horizons = np.array([20, 40, 70, 100])
    ratios = np.array([variance("lr_total", 1.0, h) for h in horizons])
    assert np.corrcoef(horizons, ratios)[0, 1] ** 2 > 0.99
    assert variance("rp", 3.5, 10) < variance("lr_total", 3.5, 10)
    assert variance("rp", 3.5, 20) > variance("lr_total", 3.5, 20)


def test_combination_weights():
    ratio = jnp.array([[3.0, 0.0], [-3.0, 0.0]])
    path = jnp.array([[0.0, 1.0], [0.0, -1.0]])
    measured = combination.spread(ratio, path)
    np.testing.assert_allclose(combination.inverse_variance_weight(measured), 2.0 / 20.0)
    nothing = combination.spread(0.0 * ratio, 0.0 * path)
    assert combination.inverse_variance_weight(nothing) == 0.5
    assert np.isfinite(combination.blend(1.0, ratio, path * np.inf)).all()


def test_clipping_is_the_whole_gradient_where_nothing_is_long():
    problem = noisy_lq()
    noise = jax.tree.map(
        lambda x: x[0, 0], draw_batches(jax.random.key(3), "rp", problem, HORIZON, 1, 1)
    )
    np.testing.assert_allclose(
        pathwise.gradient(pathwise.clipped)(problem.params, problem, noise, 1e6),
        pathwise.gradient(pathwise.whole)(problem.params, problem, noise),
    )

"""Means and variances in closed form, by quadrature of the noise.

The values of the scalar linear-quadratic problem were found independently, in float64: every
gradient is a polynomial in the noise, so that five nodes a coordinate leave no error.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.laboratory.estimators import likelihood_ratio, pathwise, perturbation
from mbpo_jax.laboratory.problems.closed_form import make_quadratic_problem, make_scalar_lq_problem
from mbpo_jax.laboratory.problems.problem import Noise, Problem, roll_out, to_go
from tests.choice import mostly_exhaustive
from tests.laboratory.quadrature import action_noise, mean_and_variance

pytestmark = pytest.mark.smoke

PRINTED = {"rtol": 2e-6, "atol": 6e-6}
"""The tables have six digits."""

MEANS = [0.68, 1.6985, 2.772752, 3.779717, 4.677718, 5.463808, 6.151280, 6.758363]
VARIANCES = {
    "q": [0.12250, 0.71535, 2.19028, 4.66769, 7.98178, 11.83142, 15.91290, 19.98907],
    "rp": [0.12250, 0.83945, 2.87328, 6.63574, 12.06778, 18.78939, 26.30669, 34.15888],
    "lr_advantage": [1.231, 5.048, 11.252, 19.109, 27.813, 36.691, 45.277, 53.307],
    "lr_value": [1.231, 5.873, 15.193, 29.391, 47.773, 69.166, 92.318, 116.148],
    "lr_to_go": [16.140, 48.985, 99.658, 165.247, 241.368, 323.825, 409.349, 495.755],
    "lr_loo": [1.231, 9.762, 30.844, 65.760, 112.587, 167.904, 228.150, 290.359],
    "lr_total": [16.140, 63.625, 146.271, 259.601, 395.927, 547.608, 708.533, 874.494],
}
HORIZONS = range(1, 7)
"""A grid of five nodes for each of eight steps is for the nightly tests."""


def one_trajectory(problem: Problem, horizon: int):
    """Return a function from noise to one trajectory's gradients, `[len(VARIANCES)]`.

    Baselines are exact, in the place of the batch's.
    """
    params = problem.params
    assert problem.critic is not None
    critic = problem.critic(params, horizon)
    expected = critic.value(jnp.asarray(0), problem.start(jax.random.key(0)))

    def together(noise: Noise) -> jax.Array:
        made = jax.lax.stop_gradient(roll_out(params, problem, noise))
        advantages = {
            "lr_advantage": likelihood_ratio.exact_advantage(problem, made, critic),
            "lr_value": to_go(problem, made) - likelihood_ratio.values(critic, made),
            "lr_to_go": to_go(problem, made),
            "lr_loo": likelihood_ratio.total_return(problem, made) - expected,
            "lr_total": likelihood_ratio.total_return(problem, made),
        }
        found = {
            "q": pathwise.gradient(pathwise.action_values)(params, problem, critic, noise),
            "rp": pathwise.gradient(pathwise.whole)(params, problem, noise),
        }
        for name, advantage in advantages.items():
            found[name] = likelihood_ratio.at_actions(params, problem, made, advantage)
        return jnp.concatenate([found[name] for name in VARIANCES])

    return together


@pytest.mark.parametrize("horizon", mostly_exhaustive(HORIZONS, (1, 3, 6).__contains__))
def test_linear_quadratic_table(horizon):
    problem = make_scalar_lq_problem()
    noise, weights = action_noise(problem, horizon, 5)
    together = one_trajectory(problem, horizon)
    means, variances = mean_and_variance(together, noise, weights)
    for name, mean, variance in zip(VARIANCES, means, variances, strict=True):
        np.testing.assert_allclose(mean, -MEANS[horizon - 1], rtol=2e-7, err_msg=name)
        np.testing.assert_allclose(mean, problem.exact(problem.params, horizon), rtol=1e-9)
        expected, digits = VARIANCES[name][horizon - 1], 5e-6 if name in ("q", "rp") else 5e-4
        np.testing.assert_allclose(variance, expected, atol=1.1 * digits, err_msg=name)


@pytest.mark.parametrize("horizon", [1, 3, 8, 40])
def test_exact_gradient_is_that_of_the_value(horizon):
    problem = make_scalar_lq_problem()

    def value(params):
        return problem.critic(params, horizon).value(0, problem.start(jax.random.key(0)))

    both = jax.jit(lambda params: (problem.exact(params, horizon), jax.grad(value)(params)))
    np.testing.assert_allclose(*both(problem.params), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("critic_error", "window", "mean", "variance"),
    [
        (0.0, 1, 6.758363, 19.98907),
        (0.0, 2, 6.758363, 23.759),
        (0.0, 4, 6.758363, 29.588),
        (0.0, 8, 6.758363, 34.15888),
        (0.3, 1, 7.5767, 25.04),
        (0.3, 2, 7.3638, 28.36),
        (0.3, 4, 7.0627, 32.88),
        (0.3, 8, 6.7584, 34.16),
    ],
)
def test_value_expansion_trades_bias_for_variance(critic_error, window, mean, variance):
    problem = make_scalar_lq_problem(critic_error)
    critic = problem.critic(problem.params, 8)
    noise, weights = action_noise(problem, 8, 5)
    found, spread = mean_and_variance(
        lambda noise: pathwise.gradient(pathwise.tiled)(
            problem.params, problem, critic, noise, window
        ),
        noise,
        weights,
    )
    np.testing.assert_allclose(found, -mean, rtol=1e-5)
    np.testing.assert_allclose(spread, variance, rtol=5e-4)


def test_one_step_quadratic():
    problem = make_quadratic_problem(mean=1.0, std=0.7, centre=0.3)
    params, d, s = problem.params, 0.7, 0.7
    noise, weights = action_noise(problem, 1, 8)

    def ratio(baseline: float):
        def one(noise: Noise) -> jax.Array:
            made = roll_out(params, problem, noise)
            signal = to_go(problem, made) - baseline
            return likelihood_ratio.at_actions(params, problem, made, signal)

        return one

    def moments(one):
        mean, variance = mean_and_variance(one, noise, weights)
        np.testing.assert_allclose(mean, [2 * d, 2 * s], rtol=1e-12)
        return variance

    np.testing.assert_allclose(
        moments(lambda noise: pathwise.gradient(pathwise.whole)(params, problem, noise)),
        [4 * s**2, 4 * d**2 + 8 * s**2],
        rtol=1e-12,
    )
    plain = moments(ratio(0.0))
    expected = [d**4 / s**2 + 14 * d**2 + 15 * s**2, 2 * d**4 / s**2 + 60 * d**2 + 74 * s**2]
    np.testing.assert_allclose(plain, expected, rtol=1e-12)
    np.testing.assert_allclose(moments(ratio(d**2 + s**2))[0], 8 * d**2 + 10 * s**2, rtol=1e-12)
    np.testing.assert_allclose(moments(ratio(d**2 + 3 * s**2))[0], 8 * d**2 + 6 * s**2, rtol=1e-12)


def test_evolution_strategy_of_a_function_without_noise():
    problem = make_quadratic_problem(mean=1.0, std=0.7, centre=0.3)
    noise, weights = action_noise(problem, 1, 8)
    silent = jax.tree.map(lambda x: 0.0 * x[0], noise)

    def one(noise: Noise) -> jax.Array:
        direction = jnp.append(noise.action[0], 0.0)
        return perturbation.evolution_strategy(problem.params, problem, silent, direction, 0.7)

    mean, variance = mean_and_variance(one, noise, weights)
    np.testing.assert_allclose(mean[0], 1.4, rtol=1e-12)
    np.testing.assert_allclose(variance[0], 8 * 0.7**2, rtol=1e-12)

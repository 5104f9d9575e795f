"""Planners by sampling: the known optimum, their equations in NumPy, spectra, broken returns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import PlannerConfig
from mbpo_jax.planning import shooting
from mbpo_jax.planning.ilqr import ControlProblem, rollout
from mbpo_jax.planning.shooting import Search, color, exponential_weights, plan, shift
from tests.choice import mostly_exhaustive
from tests.planning import scalar_system
from tests.planning.scalar_system import HORIZON, WITHOUT_NOISE

METHODS = ["random", "cem", "icem", "mppi"]


def scalar_return(actions):
    """Return what actions `[T, 1]` bring in the scalar system from a state of 1, without noise."""
    system = ControlProblem(
        scalar_system.dynamics, scalar_system.reward, scalar_system.terminal_reward
    )
    return rollout(system, jnp.ones(1), lambda x, u: u, actions)[2]


def scalar_returns(key, actions):
    return jax.vmap(scalar_return)(actions)


def distance_from(target, key, actions):
    """Judge sequences by minus the squared distance of their actions from a target."""
    return -jnp.sum(jnp.square(actions - target), axis=(1, 2))


def plans(key, evaluate, mean, config, num_plans):
    """Make several independent plans."""
    keys = jax.random.split(key, num_plans)
    return jax.jit(jax.vmap(lambda key: plan(key, evaluate, mean, config)))(keys)


# The optimum.

THOROUGH = PlannerConfig(population=1000, num_elites=100, iterations=200, min_std=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    mostly_exhaustive(
        [
            dataclasses.replace(THOROUGH, method="cem"),
            dataclasses.replace(THOROUGH, method="icem", noise_exponent=0.5),
            dataclasses.replace(THOROUGH, method="mppi"),
        ],
        lambda config: config.method != "cem",  # whose update is iCEM's
    ),
    ids=lambda config: config.method,
)
def test_the_least_cost_is_reached_to_one_percent(key, config):
    """The best plan is one strong push at the start, so iCEM's noise is nearly white here."""
    found = plans(key, scalar_returns, jnp.zeros((HORIZON, 1)), config, 4)
    costs = -jax.vmap(scalar_return)(found.actions)
    np.testing.assert_array_less(costs, 1.01 * WITHOUT_NOISE)
    np.testing.assert_array_less(WITHOUT_NOISE * (1.0 - 1e-5), costs)
    # Where the return is concave, that of a mean is no less than the mean of returns.
    np.testing.assert_array_less(found.value, -costs + 1e-5)
    np.testing.assert_allclose(found.value, -costs, rtol=0.03)


def test_random_shooting_comes_as_close_as_the_best_of_uniform_samples(key):
    """The least of N distances that are uniform in [0, 1] is `1/(N + 1)` on average."""
    population = 50
    config = PlannerConfig(method="random", population=population)

    def evaluate(key, actions):
        return -jnp.abs(actions[:, 0, 0])

    found = plans(key, evaluate, jnp.ones((1, 1)), config, 4000)
    distance = np.abs(found.actions[:, 0, 0])
    np.testing.assert_array_equal(found.value, -distance)
    # The standard deviation is about 1/(N + 1), too.
    np.testing.assert_allclose(distance.mean(), 1 / (population + 1), rtol=5 / np.sqrt(4000))


@pytest.mark.parametrize("method", METHODS)
def test_an_optimum_beyond_the_limits_is_approached_at_the_limit(key, method):
    config = PlannerConfig(method=method, iterations=20, population=500)
    target = jnp.asarray([[[3.0], [-3.0]]])
    found = plan(key, functools.partial(distance_from, target), jnp.zeros((2, 1)), config)
    np.testing.assert_allclose(found.actions, [[1.0], [-1.0]], atol=0.15)
    assert jnp.max(jnp.abs(found.actions)) <= 1.0


def test_icem_finds_no_plan_worse_than_the_one_it_began_with(key):
    guess = 0.3 * jnp.ones((4, 2))
    config = PlannerConfig(method="icem", iterations=1)
    found = plan(key, functools.partial(distance_from, guess[None]), guess, config)
    np.testing.assert_array_equal(found.actions, guess)
    assert found.value == 0.0


# Their equations.


def samples_and_returns(num_samples=30):
    generator = np.random.default_rng(0)
    samples, returns = generator.uniform(-1, 1, (num_samples, 4, 2)), generator.normal(size=30)
    return jnp.asarray(samples, jnp.float32), jnp.asarray(returns, jnp.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_the_gaussians_are_fitted_to_the_weighted_samples(method, smoothing):
    samples, returns = samples_and_returns()
    if method == "cem":
        weights = np.full(30, 1 / 30)
    else:
        scale = 0.5 * (np.max(returns) - np.median(returns))
        weights = np.exp((np.asarray(returns, float) - np.max(returns)) / scale)
        weights /= weights.sum()
    config = PlannerConfig(method=method, smoothing=smoothing, temperature=0.5)
    old = Search(jnp.full((4, 2), 0.7), jnp.full((4, 2), 0.4), samples, returns)
    found = shooting.fit(old, samples, returns, config)
    rows = np.asarray(samples)
    mean = np.average(rows, axis=0, weights=weights)
    std = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weights))
    np.testing.assert_allclose(found.mean, smoothing * 0.7 + (1 - smoothing) * mean, rtol=1e-4)
    np.testing.assert_allclose(found.std, smoothing * 0.4 + (1 - smoothing) * std, rtol=1e-4)


def test_standard_deviations_do_not_fall_below_their_least():
    samples, returns = jnp.zeros((30, 4, 2)), samples_and_returns()[1]
    old = Search(jnp.zeros((4, 2)), jnp.ones((4, 2)), samples, returns)
    found = shooting.fit(old, samples, returns, PlannerConfig(smoothing=0.0, min_std=0.05))
    np.testing.assert_array_equal(found.std, jnp.full((4, 2), 0.05))


def test_weights_do_not_depend_on_the_unit_of_reward_nor_on_how_bad_the_bad_are():
    returns = samples_and_returns()[1]
    weights = exponential_weights(returns, 0.3)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(exponential_weights(50.0 * returns - 7.0, 0.3), weights, rtol=1e-3)
    worse = jnp.where(returns < jnp.median(returns) - 0.5, returns - 1e6, returns)
    good = returns >= jnp.median(returns)
    ratio = exponential_weights(worse, 0.3)[good] / weights[good]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


def test_with_temperature_1_the_median_weighs_1_over_e_of_the_best():
    weights = exponential_weights(jnp.asarray([-30.0, -4.0, 2.0, -9.0, 1.0]), 1.0)
    np.testing.assert_allclose(weights[1] / weights[2], np.exp(-1), rtol=1e-6)


def test_weights_go_to_the_best_when_cold_and_become_equal_when_hot():
    returns = jnp.asarray([1.0, 3.0, jnp.nan, 2.0])
    np.testing.assert_allclose(exponential_weights(returns, 1e-3), [0, 1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(exponential_weights(returns, 1e6), [1 / 3, 1 / 3, 0, 1 / 3], 1e-4)
    equal = exponential_weights(jnp.full(4, -5.0), 0.1)
    np.testing.assert_allclose(equal, np.full(4, 0.25))


def test_a_share_of_the_elites_that_are_finite_stays_in_the_population():
    elites, returns = samples_and_returns()
    search = Search(elites[0], elites[0], elites[:10], returns[:10].at[1].set(-jnp.inf))
    new = jnp.zeros((20, 4, 2))
    found = shooting.with_elites(new, search, 0.3)
    expected = jnp.concatenate([elites[:1], new[:1], elites[2:3], new[:17]])
    np.testing.assert_array_equal(found, expected)


# Coloured noise.


def filter_matrix(length, exponent):
    """Return what coloured noise is of white noise: row `i` is the answer to a unit at `i`."""
    return np.asarray(color(jnp.eye(length)[..., None], exponent)[..., 0], float)


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_coloured_noise_has_unit_variance_at_each_time_and_the_spectrum(length, exponent):
    matrix = filter_matrix(length, exponent)
    covariance = matrix.T @ matrix
    np.testing.assert_allclose(np.diag(covariance), 1.0, rtol=1e-5)
    power = np.fft.rfft(covariance[0]).real
    frequency = np.maximum(np.arange(length // 2 + 1), 1)
    np.testing.assert_allclose(power / power[0], 1.0 * frequency**-exponent, rtol=1e-3)


def test_noise_of_exponent_zero_is_the_white_noise():
    np.testing.assert_allclose(filter_matrix(9, 0.0), np.eye(9), atol=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_populations_of_icem_have_that_slope_and_the_standard_deviation(key, exponent):
    config = PlannerConfig(method="icem", population=4000, noise_exponent=exponent)
    empty = jnp.zeros((config.num_elites, 32, 2)), jnp.full(config.num_elites, -jnp.inf)
    search = Search(jnp.zeros((32, 2)), jnp.full((32, 2), 0.1), *empty)
    draw = jax.jit(functools.partial(shooting.draw, config=config))
    samples = np.asarray(draw(key, search, jnp.bool(False)), float)
    # Over components and times, 8000 independent rows; a row's variance has a relative error of 1.
    np.testing.assert_allclose(samples.std(axis=(0, 2)), 0.1, rtol=5 / np.sqrt(2 * 8000))
    power = np.mean(np.abs(np.fft.rfft(samples, axis=1)) ** 2, axis=(0, 2))[1:]
    slope = np.polyfit(np.log(np.arange(1, 17)), np.log(power), 1)[0]
    np.testing.assert_allclose(slope, -exponent, atol=0.05)


# Returns that are not finite.


@pytest.mark.parametrize("method", METHODS)
def test_a_return_that_is_not_finite_never_wins(key, method):
    """Returns are far below zero; those of sequences that begin with more than 0.2 are broken."""
    config = PlannerConfig(method=method, population=100, iterations=20)

    @jax.jit
    @jax.vmap
    def make(broken):
        def evaluate(key, actions):
            first = actions[:, 0, 0]
            return jnp.where(first > 0.2, broken, first - 1000.0)

        return plan(key, evaluate, jnp.zeros((3, 2)), config)

    found = make(jnp.asarray([jnp.nan, jnp.inf, -jnp.inf]))
    first = found.actions[:, 0, 0]
    assert jnp.all(first > 0.05)
    assert jnp.all(first <= 0.2)
    np.testing.assert_allclose(found.value, first - 1000.0, atol=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_without_any_finite_return_the_plan_stays_what_it_was(key, method):
    config = PlannerConfig(method=method, population=20, iterations=3)
    guess = jnp.asarray([[0.1, -0.2], [0.3, 0.4]])
    found = plan(key, lambda key, actions: jnp.full(20, jnp.nan), guess, config)
    np.testing.assert_array_equal(found.actions, guess)
    np.testing.assert_array_equal(found.mean, guess)
    assert found.value == -jnp.inf


def test_fewer_finite_returns_than_elites_are_enough(key):
    def evaluate(key, actions):
        rank = jnp.argsort(jnp.argsort(actions[:, 0, 0]))
        return jnp.where(rank < 18, jnp.nan, 0.0)

    config = PlannerConfig(population=20, num_elites=10, iterations=1, smoothing=0.0)
    found = plans(key, evaluate, jnp.zeros((1, 1)), config, 500)
    # The mean of the two largest of 20 normal numbers is 1.64 on average, with a deviation of 0.44.
    np.testing.assert_allclose(np.mean(found.actions) / 0.5, 1.64, atol=5 * 0.44 / np.sqrt(500))


# Interfaces.


def test_a_shifted_plan_begins_one_step_later_and_ends_with_zeros():
    sequence = jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    np.testing.assert_array_equal(shift(sequence), [[3, 4], [5, 6], [0, 0]])
    assert shift(jnp.ones((4, 2, 3))).shape == (4, 2, 3)
    np.testing.assert_array_equal(shift(jnp.ones((1, 2))), [[0, 0]])


def test_the_end_of_the_best_plan_is_where_a_shifted_one_ends():
    """Its last action pays for nothing that comes later, as there is no terminal reward."""
    system = ControlProblem(scalar_system.dynamics, scalar_system.reward, lambda x: 0.0 * x[0])
    zeros = jnp.zeros((HORIZON, 1))
    slope = jax.grad(lambda u: rollout(system, jnp.ones(1), lambda x, u: u, u)[2])(zeros)
    assert slope[-1] == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_plans_under_vmap_are_those_one_by_one_and_settings_may_differ(key, method):
    keys = jax.random.split(key, 3)
    settings = {
        "initial_std": jnp.asarray([0.2, 0.5, 0.9]),
        "smoothing": jnp.asarray([0.0, 0.1, 0.5]),
        "min_std": jnp.asarray([0.0, 0.01, 0.1]),
        "temperature": jnp.asarray([0.1, 0.3, 1.0]),
        "noise_exponent": jnp.asarray([0.0, 1.0, 2.0]),
        "keep_fraction": jnp.asarray([0.0, 0.3, 1.0]),
    }
    means = jnp.linspace(-0.5, 0.5, 3 * 4 * 2).reshape(3, 4, 2)

    @jax.jit
    def make(key, mean, settings):
        config = PlannerConfig(method=method, population=30, num_elites=5, iterations=3, **settings)
        evaluate = functools.partial(distance_from, jnp.full((1, 1, 1), 0.2))
        return plan(key, evaluate, mean, config)

    together = jax.vmap(make)(jax.random.clone(keys), means, settings)
    assert together.actions.shape == together.mean.shape == (3, 4, 2)
    assert together.value.shape == (3,)
    alone = make(keys[1], means[1], {name: value[1] for name, value in settings.items()})
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(many[1], one, rtol=1e-4, atol=1e-5)


def test_a_judge_that_forgets_a_sequence_is_refused(key):
    with pytest.raises(AssertionError):
        plan(key, lambda key, actions: actions[1:, 0, 0], jnp.zeros((3, 1)), PlannerConfig())

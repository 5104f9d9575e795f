"""What holds of the problems that have names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import PROBLEMS
from mbpo_jax.errors import ConfigError
from mbpo_jax.laboratory.estimators import likelihood_ratio, pathwise, perturbation
from mbpo_jax.laboratory.estimators.batches import gradient_rows
from mbpo_jax.laboratory.problems.catalogue import make_problem, settings_of
from mbpo_jax.laboratory.problems.problem import Problem, draw, roll_out, to_go, total

SYSTEMS = ["cartpole", "double_pendulum", "double_pendulum_fall", "pendulum", "pushing"]
SHORT = 3


def gradients(problem: Problem, horizon: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return likelihood-ratio and pathwise gradients `[B, P]` of the same trajectories."""

    @jax.jit
    def run(keys: jax.Array):
        noise = jax.vmap(lambda key: draw(key, problem, horizon))(keys)
        return gradient_rows(problem.params, problem, noise)[0]

    ratio, path = run(jax.random.split(jax.random.key(0), rows))
    return np.asarray(ratio), np.asarray(path)


def error(rows: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean of rows `[B, P]`."""
    return rows.std(axis=0, ddof=1) / np.sqrt(len(rows))


@pytest.mark.parametrize("name", SYSTEMS)
def test_pathwise_gradients_are_central_differences(name):
    problem = make_problem(name)
    noise = draw(jax.random.key(1), problem, SHORT)

    @jax.jit
    def both(params: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (
            pathwise.gradient(pathwise.whole)(params, problem, noise),
            perturbation.finite_differences(params, problem, noise, 1e-5),
        )

    found, expected = both(problem.params)
    assert np.any(np.asarray(expected) != 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["cartpole", "double_pendulum_fall", "pushing"])
def test_both_gradients_have_the_same_mean(name):
    ratio, path = gradients(make_problem(name), SHORT, 4000)
    # Parameters of later steps, and what a state leaves alone, have no gradient up to rounding.
    moved = np.abs(path).max(axis=0) > 1e-9
    assert moved.any()
    off = np.abs(ratio.mean(axis=0) - path.mean(axis=0))
    assert np.all(off[moved] < 4.5 * np.hypot(error(ratio), error(path))[moved])


@pytest.mark.parametrize("name", PROBLEMS)
def test_single_precision_is_enough(name):
    with jax.enable_x64(False):
        problem = make_problem(name)
        assert problem.params.dtype == jnp.float32

        @jax.jit
        def gradient(key: jax.Array) -> jax.Array:
            return pathwise.gradient(pathwise.whole)(
                problem.params, problem, draw(key, problem, 20)
            )

        found = gradient(jax.random.key(0))
        assert found.dtype == np.float32
        assert np.all(np.isfinite(found))


@pytest.mark.parametrize("name", PROBLEMS)
def test_double_precision_is_kept(name):
    problem = make_problem(name)
    made = jax.eval_shape(
        lambda key: roll_out(problem.params, problem, draw(key, problem, 2)), jax.random.key(1)
    )
    dtypes = {x.dtype for x in jax.tree.leaves((problem.params, made))}
    assert dtypes == {np.dtype(np.float64)}


@pytest.mark.parametrize("name", ["lq_noisy", "lq_3d"])
def test_exact_gradients_of_noisy_linear_systems(name):
    problem, horizon = make_problem(name), 7

    def value(params):
        start = problem.start(jax.random.key(0))
        return problem.critic(params, horizon).value(0, start)

    found, expected = jax.jit(lambda p: (problem.exact(p, horizon), jax.grad(value)(p)))(
        problem.params
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_one_step_problems_pay_the_last_action_at_any_horizon():
    problem = make_problem("cosine")
    _, path = gradients(problem, 5, 4000)
    off = np.abs(path.mean(axis=0) - problem.exact(problem.params, 5))
    assert np.all(off < 4.5 * error(path))


def test_only_the_state_of_the_fall_has_a_likelihood():
    problem = make_problem("double_pendulum_fall")
    noise = draw(jax.random.key(1), problem, 6)
    made = jax.jit(lambda noise: roll_out(problem.params, problem, noise))(noise)
    np.testing.assert_array_equal(made.state[1, :4], problem.params + 0.5 * noise.action[0])
    ratio = jax.jit(
        lambda made: likelihood_ratio.at_actions(
            problem.params, problem, made, to_go(problem, made)
        )
    )(made)
    np.testing.assert_allclose(ratio, total(problem, made) * noise.action[0] / 0.5, rtol=1e-12)


def test_the_fall_starts_level_and_hanging():
    first, second, *_ = make_problem("double_pendulum_fall").params
    np.testing.assert_allclose([jnp.cos(first), jnp.cos(second)], [0.0, -1.0], atol=1e-12)


def variances(problem: Problem, horizon: int) -> list[float]:
    """Return the variances of one trajectory's likelihood ratio and of its pathwise gradient."""
    return [rows.var(axis=0).sum() for rows in gradients(problem, horizon, 500)]


@pytest.mark.slow
def test_the_path_of_the_fall_overtakes_the_ratio():
    problem = make_problem("double_pendulum_fall")
    ratio, path = variances(problem, 3)
    assert path < ratio
    ratio, path = variances(problem, 40)
    assert path > 10.0 * ratio


def test_the_path_through_a_stiff_spring_overtakes_the_ratio():
    ratio, path = variances(make_problem("pushing", stiffness=10.0), 100)
    assert path < 0.01 * ratio
    ratio, path = variances(make_problem("pushing", stiffness=5000.0), 100)
    assert path > 10.0 * ratio


def test_settings():
    assert settings_of("pushing") == {"stiffness": 100.0}
    assert settings_of("pendulum") == {}
    for name in PROBLEMS:
        assert all(isinstance(default, float) for default in settings_of(name).values())
        assert make_problem(name, **settings_of(name)).name == name
    np.testing.assert_allclose(make_problem("chaotic_rnn", beta=3.5).params, [3.5])
    assert not make_problem("heaviside").smooth
    assert make_problem("quadratic").smooth


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pendlum", {}, "problem: 'pendlum' is not known .*; did you mean pendulum"),
        ("pushing", {"stifness": 1.0}, "pushing has no setting 'stifness'; did you mean stiffness"),
        ("pendulum", {"gain": 1.0}, "pendulum has no settings; leave out gain"),
    ],
)
def test_unknown_names(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_problem(name, **settings)

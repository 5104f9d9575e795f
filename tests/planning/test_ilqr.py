"""iLQR against the exact regulator, on a pendulum, and where numbers break down."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import ILQRConfig
from mbpo_jax.planning import ilqr as planner
from mbpo_jax.planning.ilqr import ilqr, shooting_hessian
from mbpo_jax.planning.lqr import LinearPolicy, expected_cost, riccati
from tests.planning import scalar_system
from tests.planning.scalar_system import (
    CLOSED_LOOP,
    HORIZON,
    NOISE,
    OPEN_LOOP,
    SCALE,
    WITHOUT_NOISE,
)

SCALAR = planner.ControlProblem(
    scalar_system.dynamics, scalar_system.reward, scalar_system.terminal_reward
)


def solve(system, x0, actions, **settings):
    config = ILQRConfig(**settings)
    solver = functools.partial(
        ilqr,
        system.dynamics,
        system.reward,
        config=config,
        terminal_reward=system.terminal_reward,
    )
    return jax.jit(lambda x0, actions: solver(x0, actions))(x0, actions)


def actions_of(key, horizon, spread=1.0, action_size=1):
    shape = (horizon, action_size)
    return jax.random.uniform(key, shape, minval=-spread, maxval=spread)


# A pendulum that hangs at angle pi; its torque cannot lift it in one go.


def swing(x, u):
    angle, velocity = x
    velocity = velocity + 0.05 * (15.0 * jnp.sin(angle) + 6.0 * u[0])
    return jnp.stack([angle + 0.05 * velocity, velocity])


def upright(x, u):
    return jnp.cos(x[0]) - 0.01 * x[1] ** 2 - 0.01 * u[0] ** 2


PENDULUM = planner.ControlProblem(swing, upright, lambda x: 10.0 * upright(x, jnp.zeros(1)))
HANGING = jnp.asarray([jnp.pi, 0.0])


def value_of(system, x0, actions):
    """Return the sum of rewards, in a loop."""
    x, value = x0, 0.0
    for u in actions:
        value += system.reward(x, u)
        x = system.dynamics(x, u)
    return value + system.terminal_reward(x)


def test_one_iteration_solves_the_linear_quadratic_problem(key):
    x0 = jnp.ones(1)
    solution = solve(SCALAR, x0, actions_of(key, HORIZON, 0.2), iterations=1)
    best = riccati(scalar_system.problem())[0]
    np.testing.assert_allclose(-solution.value, WITHOUT_NOISE, rtol=1e-6)
    np.testing.assert_allclose(SCALE * solution.gains, best.K, rtol=1e-5)
    np.testing.assert_allclose(
        SCALE * solution.actions, best.K[..., 0] * solution.states[:-1], atol=1e-5
    )


def test_its_gains_cost_what_the_regulator_costs_and_its_actions_what_an_open_loop_does(key):
    x0, still = jnp.ones(1), jnp.zeros((1, 1))
    solution = solve(SCALAR, x0, actions_of(key, HORIZON, 0.2), iterations=1)
    states, actions, gains, _ = solution
    offsets = actions - (gains @ states[:-1, :, None])[..., 0]
    closed = LinearPolicy(SCALE * gains, SCALE * offsets)
    opened = LinearPolicy(jnp.zeros_like(gains), SCALE * actions)
    for policy, cost in (closed, CLOSED_LOOP), (opened, OPEN_LOOP):
        found = expected_cost(scalar_system.problem(), policy, x0, still, jnp.full((1, 1), NOISE))
        np.testing.assert_allclose(found, cost, rtol=1e-5)


def test_iterations_that_cannot_improve_the_plan_leave_the_gains_as_they_are(key):
    solution = solve(SCALAR, jnp.ones(1), actions_of(key, HORIZON, 0.2), iterations=30)
    np.testing.assert_allclose(
        SCALE * solution.gains, riccati(scalar_system.problem())[0].K, rtol=1e-5
    )


def test_one_iteration_solves_a_problem_with_cross_and_linear_terms(key):
    """The plan is stationary: its gradient is that of rounding errors."""
    A = jnp.asarray([[1.0, 0.2, 0.0], [-0.1, 0.9, 0.3], [0.0, 0.1, 0.8]])
    B = jnp.asarray([[0.0, 0.1], [0.2, 0.0], [0.1, -0.1]])
    cross = jnp.asarray([[0.1, 0.0, -0.1], [0.2, 0.1, 0.0]])
    system = planner.ControlProblem(
        lambda x, u: A @ x + B @ u + 0.01,
        lambda x, u: -x @ x - u @ u - u @ (cross @ x) + 0.1 * x[0] - 0.1 * u[1],
        lambda x: -2.0 * x @ x,
    )
    x0 = jnp.asarray([0.3, -0.2, 0.1])
    given = actions_of(key, 15, 0.2, 2)
    slope = jax.jit(jax.grad(lambda actions: planner.rollout(system, x0, open_loop, actions)[2]))
    solution = solve(system, x0, given, iterations=1)
    assert jnp.max(jnp.abs(solution.actions)) < 1.0
    assert jnp.max(jnp.abs(slope(solution.actions))) < 1e-5 * jnp.max(jnp.abs(slope(given)))


def open_loop(x, u):
    return u


def test_the_pendulum_is_swung_up(key):
    solution = solve(PENDULUM, HANGING, actions_of(key, 60), horizon=60, iterations=60)
    assert jnp.all(jnp.cos(solution.states[50:, 0]) > 0.9)
    assert jnp.max(jnp.abs(solution.actions)) <= 1.0
    np.testing.assert_allclose(
        solution.value, value_of(PENDULUM, HANGING, solution.actions), rtol=1e-4
    )


def test_more_iterations_never_make_a_plan_worse(key):
    guesses = jax.vmap(lambda key: actions_of(key, 30, 1.5))(jax.random.split(key, 8))

    @functools.partial(jax.jit, static_argnums=1)
    def values(guesses, iterations):
        config = ILQRConfig(iterations=iterations)
        plan = functools.partial(ilqr, swing, upright, HANGING, config=config)
        return jax.vmap(lambda guess: plan(guess).value)(guesses)

    clipped = jnp.clip(guesses, -1.0, 1.0)
    system = PENDULUM._replace(terminal_reward=planner.no_terminal_reward)
    given = jax.vmap(lambda guess: planner.rollout(system, HANGING, open_loop, guess)[2])(clipped)
    one, ten = values(guesses, 1), values(guesses, 10)
    assert jnp.all(one >= given)
    assert jnp.all(ten >= one)
    assert jnp.all(ten > given + 1.0)


def test_the_gains_are_those_of_the_trajectory_that_is_returned(key):
    solution = solve(PENDULUM, HANGING, actions_of(key, 30), iterations=2)

    @jax.jit
    def gains(states, actions):
        problem = planner.linear_quadratic(PENDULUM, states, actions)
        return riccati(problem, ILQRConfig().regularization)[0].K

    expected = gains(solution.states, solution.actions)
    np.testing.assert_allclose(solution.gains, expected, rtol=1e-3, atol=1e-3)


def test_where_more_action_is_better_the_plan_goes_to_the_limit():
    system = planner.ControlProblem(
        lambda x, u: x, lambda x, u: jnp.sum(u**2), planner.no_terminal_reward
    )
    guess = jnp.asarray([[0.1], [-0.2], [0.3]])
    solution = solve(system, jnp.zeros(1), guess, iterations=10)
    np.testing.assert_array_equal(solution.actions, jnp.sign(guess))
    assert solution.value == 3.0


# Where numbers break down.


def is_finite(tree):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree))


def test_rollouts_that_are_not_finite_are_passed_over():
    """The full step leads to where the reward is not defined; half of it does not."""

    def reward(x, u):
        return jnp.where(x[0] > 0.75, jnp.nan, -jnp.sum((x - 1.0) ** 2)) - 1e-3 * jnp.sum(u**2)

    system = planner.ControlProblem(lambda x, u: x + u, reward, planner.no_terminal_reward)
    guess = jnp.zeros((3, 1))
    solution = solve(system, jnp.zeros(1), guess, iterations=1)
    assert is_finite(solution)
    assert solution.value > value_of(system, jnp.zeros(1), guess)
    assert jnp.max(solution.states[:-1]) <= 0.75


@pytest.mark.parametrize("broken", ["dynamics", "reward"])
def test_derivatives_that_are_not_finite_leave_the_plan_and_no_gains(broken):
    """The derivative of the root is infinite at zero."""

    def root(u):
        return jnp.sum(jnp.sqrt(jnp.abs(u)), keepdims=True)

    system = planner.ControlProblem(
        lambda x, u: x + (root(u) if broken == "dynamics" else u),
        lambda x, u: x[0] + (root(u)[0] if broken == "reward" else 0.0),
        planner.no_terminal_reward,
    )
    guess = jnp.asarray([[0.5], [0.0], [0.5]])
    solution = solve(system, jnp.zeros(1), guess, iterations=3)
    assert is_finite(solution)
    np.testing.assert_array_equal(solution.actions, guess)
    np.testing.assert_array_equal(solution.gains, jnp.zeros((3, 1, 1)))
    np.testing.assert_allclose(solution.value, value_of(system, jnp.zeros(1), guess), rtol=1e-6)


def test_a_recursion_that_overflows_leaves_a_plan_that_is_finite():
    """The state stays at zero, but its derivatives grow by a factor of 1e9 a step."""
    system = planner.ControlProblem(
        lambda x, u: 1e9 * x + u, lambda x, u: -jnp.sum(x**2), planner.no_terminal_reward
    )
    solution = solve(system, jnp.zeros(1), jnp.zeros((10, 1)), iterations=2)
    assert is_finite(solution)


def test_a_guess_without_any_finite_rollout_is_kept_and_worth_minus_infinity():
    def reward(x, u):
        return jnp.where(jnp.abs(u[0]) > 0.9, jnp.nan, -jnp.sum(u**2))

    system = planner.ControlProblem(lambda x, u: x + u, reward, planner.no_terminal_reward)
    kept = solve(system, jnp.zeros(1), jnp.ones((3, 1)), iterations=2)
    assert is_finite(kept._replace(value=0.0))
    assert kept.value == -jnp.inf
    np.testing.assert_array_equal(kept.actions, jnp.ones((3, 1)))


def test_plans_under_vmap_are_those_one_by_one(key):
    starts = jax.random.normal(key, (4, 2))
    guess = 0.1 * jnp.ones((5, 1))
    plan = functools.partial(ilqr, swing, upright, actions=guess, config=ILQRConfig(iterations=2))
    together = jax.jit(jax.vmap(lambda x0: plan(x0=x0)))(starts)
    assert together.states.shape == (4, 6, 2)
    assert together.actions.shape == (4, 5, 1)
    assert together.gains.shape == (4, 5, 1, 2)
    assert together.value.shape == (4,)
    alone = jax.jit(lambda x0: plan(x0=x0))(starts[2])
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(many[2], one, rtol=1e-4, atol=1e-5)


# Conditioning of the open-loop problem.


def controls_of(a):
    """Return dynamics, reward and terminal reward in terms of controls."""

    def cost(x, u):
        return jnp.sum(x**2) + 0.1 * jnp.sum(u**2)

    return (
        lambda x, u: a * x + 0.5 * u,
        lambda x, u: -cost(x, u),
        lambda x: -jnp.sum(x**2),
    )


@pytest.mark.parametrize(
    ("a", "horizon", "condition"),
    [
        (0.9, 10, "33"),
        (0.9, 25, "82"),
        (0.9, 50, "118"),
        (1.1, 10, "159"),
        (1.1, 25, "4.8e3"),
        (1.1, 50, "6.0e5"),
        (1.2, 10, "404"),
        (1.2, 25, "1.1e5"),
        (1.2, 50, "1.0e9"),
    ],
)
def test_shooting_is_as_ill_conditioned_as_known(a, horizon, condition):
    with jax.enable_x64(True):
        dynamics, reward, terminal_reward = controls_of(a)

        @jax.jit
        def hessian_at(x0, actions):
            return shooting_hessian(dynamics, reward, x0, actions, terminal_reward)

        hessian = hessian_at(jnp.ones(1), jnp.zeros((horizon, 1)))
    assert hessian.shape == (horizon, horizon)
    assert np.all(np.linalg.eigvalsh(hessian) < 0)
    digits = len(condition.split("e")[0].replace(".", ""))
    found = float(f"{np.linalg.cond(hessian):.{digits - 1}e}")
    assert found == float(condition)


@pytest.mark.parametrize(("horizon", "ratio"), [(10, "11.6"), (25, "56"), (50, "615")])
def test_early_actions_matter_more_than_late_ones_by_the_known_ratio(horizon, ratio):
    with jax.enable_x64(True):
        system = planner.ControlProblem(*controls_of(1.1))
        value = jax.grad(lambda u: planner.rollout(system, jnp.ones(1), open_loop, u)[2])
        slope = np.abs(value(jnp.zeros((horizon, 1)))[:, 0])
    assert float(f"{slope[0] / slope[-1]:.{len(ratio.replace('.', '')) - 1}e}") == float(ratio)


def test_the_hessian_is_that_of_all_components_of_all_actions():
    weight = jnp.asarray([[2.0, 0.5], [0.5, 1.0]])
    hessian = shooting_hessian(
        lambda x, u: x, lambda x, u: -0.5 * u @ weight @ u, jnp.zeros(1), jnp.zeros((3, 2))
    )
    np.testing.assert_allclose(hessian, -np.kron(np.eye(3), weight), atol=1e-6)

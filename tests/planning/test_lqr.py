"""The regulator against exact costs, dense least squares, and derivatives of the expected cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.planning.lqr import (
    LinearPolicy,
    LinearQuadratic,
    Value,
    expected_cost,
    riccati,
    safe_inverse,
)
from tests.planning import scalar_system
from tests.planning.scalar_system import CLOSED_LOOP, HORIZON, NOISE, OPEN_LOOP, WITHOUT_NOISE

pytestmark = pytest.mark.smoke


def scalar_cost(policy, noise, horizon=HORIZON):
    """Return the expected cost in the scalar system from a state of 1."""
    problem = scalar_system.problem(horizon)
    return expected_cost(problem, policy, jnp.ones(1), jnp.zeros((1, 1)), jnp.full((1, 1), noise))


def open_loop(problem, policy, x0):
    """Return the actions that a policy takes without noise, as a policy that looks at nothing."""

    def step(x, inputs):
        stage, (K, k) = inputs
        u = K @ x + k
        return stage.A @ x + stage.B @ u + stage.c, u

    stages = problem._replace(Q=problem.Q[:-1], q=problem.q[:-1])
    actions = jax.lax.scan(step, x0, (stages, policy))[1]
    return LinearPolicy(jnp.zeros_like(policy.K), actions)


def random_problem(seed=0, horizon=5, n=3, m=2):
    """Return a convex problem in which no term is zero and everything depends on time."""
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    root = normal(horizon + 1, n + m, n + m)
    hessian = root @ root.mT + 0.5 * jnp.eye(n + m)[None]
    return LinearQuadratic(
        A=0.5 * normal(horizon, n, n),
        B=normal(horizon, n, m),
        c=normal(horizon, n),
        Q=hessian[:, :n, :n],
        S=hessian[:-1, n:, :n],
        R=hessian[:-1, n:, n:],
        q=normal(horizon + 1, n),
        r=normal(horizon, m),
    )


def random_policy(seed=1, horizon=5, n=3, m=2):
    generator = np.random.default_rng(seed)
    gains = 0.3 * generator.normal(size=(horizon, m, n)), generator.normal(size=(horizon, m))
    return LinearPolicy(*(jnp.asarray(gain, jnp.float32) for gain in gains))


def random_covariance(seed, n=3):
    root = np.random.default_rng(seed).normal(size=(n, n))
    return jnp.asarray(root @ root.T, jnp.float32)


def cost_of_plan(problem, x0, actions, noises):
    """Return the cost of actions `[T, m]` when noises `[T, n]` are added, term by term."""
    x, cost = x0, 0.0
    for t, (u, noise) in enumerate(zip(actions, noises, strict=True)):
        A, B, c, Q, S, R, q, r = (array[t] for array in problem)
        cost += 0.5 * x @ Q @ x + u @ S @ x + 0.5 * u @ R @ u + q @ x + r @ u
        x = A @ x + B @ u + c + noise
    return cost + 0.5 * x @ problem.Q[-1] @ x + problem.q[-1] @ x


def in_numpy(tree):
    return jax.tree.map(lambda array: np.asarray(array, float), tree)


def value_at(values, x):
    """Return the cost-to-go of a state at the first time, in NumPy."""
    P, p, s = (array[0] for array in in_numpy(values))
    return 0.5 * x @ P @ x + p @ x + s


def test_costs_in_closed_loop_open_loop_and_without_noise_are_the_exact_ones():
    with jax.enable_x64(True):
        problem = scalar_system.problem()
        policy = riccati(problem)[0]
        plan = open_loop(problem, policy, jnp.ones(1))
        costs = scalar_cost(policy, NOISE), scalar_cost(plan, NOISE), scalar_cost(policy, 0.0)
        costs += (scalar_cost(plan, 0.0),)
    exact = [CLOSED_LOOP, OPEN_LOOP, WITHOUT_NOISE, WITHOUT_NOISE]
    np.testing.assert_allclose(costs, exact, atol=6e-7)


def test_costs_hold_in_single_precision():
    problem = scalar_system.problem()
    policy = riccati(problem)[0]
    plan = open_loop(problem, policy, jnp.ones(1))
    costs = scalar_cost(policy, NOISE), scalar_cost(plan, NOISE)
    np.testing.assert_allclose(costs, [CLOSED_LOOP, OPEN_LOOP], rtol=3e-6)


@pytest.mark.parametrize(
    ("terminal", "lookahead", "cost"),
    [
        (0.0, 1, 262.46174),
        (0.0, 2, 2.473163),
        (0.0, 3, 2.458675),
        (0.0, 5, 2.458622),
        (0.0, HORIZON, 2.458622),
        (1.0, 1, 2.473463),
        (1.0, 2, 2.458676),
        (1.0, 3, 2.458622),
    ],
)
def test_replanning_with_a_lookahead_costs_the_exact_amount(terminal, lookahead, cost):
    """The end of the task is a part of the plan as soon as it comes into sight."""
    with jax.enable_x64(True):
        first = riccati(scalar_system.problem(lookahead, terminal=terminal))[0].K[:1]
        last = riccati(scalar_system.problem(lookahead))[0].K
        gains = jnp.concatenate([first] * (HORIZON - lookahead) + [last])
        found = scalar_cost(LinearPolicy(gains, jnp.zeros((HORIZON, 1))), NOISE)
    np.testing.assert_allclose(found, cost, atol=6e-7 if cost < 10 else 6e-6)


@pytest.mark.parametrize(("horizon", "cost"), [(1, 1.763500), (4, 3.110875), (8, 4.146985)])
def test_cost_of_a_noisy_policy_is_the_exact_one(horizon, cost):
    """The policy is `-0.6 x` plus noise of standard deviation 0.5, which also costs 0.1 u^2."""
    policy = LinearPolicy(jnp.full((horizon, 1, 1), -0.6), jnp.zeros((horizon, 1)))
    noise = 0.5**2
    found = scalar_cost(policy, 0.5**2 * noise, horizon) + horizon * 0.1 * noise
    np.testing.assert_allclose(found, cost, rtol=1e-6)


def test_regulator_agrees_with_one_dense_minimisation_over_all_actions():
    problem, x0 = random_problem(), np.asarray([1.0, -2.0, 0.5])
    exact = in_numpy(problem)
    horizon, m = problem.r.shape
    size = horizon * m
    no_noise = np.zeros((horizon, 3))

    def cost(flat):
        return cost_of_plan(exact, x0, flat.reshape(horizon, m), no_noise)

    # The cost is quadratic, so these differences are its derivatives.
    unit = np.eye(size)
    gradient = np.asarray([0.5 * (cost(e) - cost(-e)) for e in unit])
    constant = cost(np.zeros(size))
    hessian = np.asarray([[cost(e + f) - cost(e) - cost(f) + constant for f in unit] for e in unit])
    best = np.linalg.solve(hessian, -gradient)
    policy, values = riccati(problem)
    plan = open_loop(problem, policy, jnp.asarray(x0, jnp.float32))
    np.testing.assert_allclose(plan.k.ravel(), best, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(value_at(values, x0), cost(best), rtol=1e-4)


def test_expected_cost_is_that_at_the_mean_plus_half_the_trace_of_hessian_and_covariance():
    problem, policy = random_problem(), random_policy()
    covariance, noise = random_covariance(2), random_covariance(3)
    mean = jnp.asarray([1.0, -2.0, 0.5])

    def cost(noises):
        x, total = mean + noises[0], 0.0
        for t, (K, k) in enumerate(zip(*policy, strict=True)):
            A, B, c, Q, S, R, q, r = (array[t] for array in problem)
            u = K @ x + k
            total += 0.5 * x @ Q @ x + u @ S @ x + 0.5 * u @ R @ u + q @ x + r @ u
            x = A @ x + B @ u + c + noises[t + 1]
        return total + 0.5 * x @ problem.Q[-1] @ x + problem.q[-1] @ x

    still = jnp.zeros((6, 3))
    hessian = jax.jit(jax.hessian(cost))(still)
    covariances = jnp.stack([covariance] + 5 * [noise])
    expected = cost(still) + 0.5 * jnp.einsum("tatb,tab->", hessian, covariances)
    found = expected_cost(problem, policy, mean, covariance, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_noise_adds_half_the_traces_of_its_covariance_with_the_values():
    problem = random_problem()
    policy, values = riccati(problem)
    mean, covariance, noise = jnp.ones(3), random_covariance(2), random_covariance(3)
    start: Value = jax.tree.map(lambda value: value[0], values)
    at_mean = 0.5 * mean @ start.P @ mean + start.p @ mean + start.s
    expected = at_mean + 0.5 * (jnp.sum(start.P * covariance) + jnp.sum(values.P[1:] * noise[None]))
    found = expected_cost(problem, policy, mean, covariance, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_no_change_of_the_gains_lowers_the_expected_cost_whatever_the_noise():
    problem = random_problem()
    best = riccati(problem)[0]
    moments = jnp.ones(3), random_covariance(2), random_covariance(3)

    @jax.jit
    @jax.grad
    def slope(policy):
        return expected_cost(problem, policy, *moments)

    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in slope(random_policy()))
    for leaf in slope(best):
        np.testing.assert_allclose(leaf, jnp.zeros_like(leaf), atol=1e-5 * scale)


def test_eigenvalues_that_are_negative_or_small_are_made_safe_before_inversion():
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    curvature = vectors @ np.diag([4.0, -2.0, 0.01]) @ vectors.T
    expected = vectors @ np.diag([0.25, 0.5, 10.0]) @ vectors.T
    found = safe_inverse(jnp.asarray(curvature, jnp.float32), 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_values_are_those_of_the_policy_even_if_the_cost_is_not_convex_in_the_actions():
    problem = random_problem()
    problem = problem._replace(R=-problem.R, Q=-problem.Q)
    policy, values = riccati(problem, 0.5)
    x0 = np.asarray([1.0, -2.0, 0.5])
    plan = open_loop(problem, policy, jnp.asarray(x0, jnp.float32))
    cost = cost_of_plan(in_numpy(problem), x0, in_numpy(plan.k), np.zeros((5, 3)))
    np.testing.assert_allclose(value_at(values, x0), cost, rtol=1e-3)

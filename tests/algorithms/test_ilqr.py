"""iLQR as an agent: the linear-quadratic regulator's actions, memory, terminations and noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import ilqr
from mbpo_jax.config import ILQRConfig
from mbpo_jax.envs.finite_horizon import make_lq, make_scalar_lq
from mbpo_jax.envs.system import System, make_system_env
from mbpo_jax.models.oracle import make_oracle
from mbpo_jax.trees import coordinates
from mbpo_jax.types import Point, Prediction
from tests import scalar_control
from tests.probe_environments import linear_dynamics, linear_model

STEPS = 6
SCALE = 4.0
DRIFT = np.array([[1.1, 0.2], [0.0, 0.9]])
CONTROL = np.array([[0.5], [0.3]])
STATE_COST = np.diag([1.0, 0.5])
CONTROL_COST = np.array([[0.1]])
START = np.array([1.0, -0.5])
NOISE_STD = 0.2


def lq_env(noise_std=0.0):
    noise = noise_std**2 * np.eye(2)
    lq = make_lq(DRIFT, CONTROL, STATE_COST, CONTROL_COST, noise, START, STEPS, terminal=STATE_COST)
    return make_system_env("lq", lq, STEPS)


def regulator_gains():
    """Return the gains `[T, 1, 2]` of the best controls, `u = K x`, by the Riccati recursion."""
    P, gains = STATE_COST, []
    for _ in range(STEPS):
        gain = -np.linalg.solve(CONTROL_COST + CONTROL.T @ P @ CONTROL, CONTROL.T @ P @ DRIFT)
        closed = DRIFT + CONTROL @ gain
        P = STATE_COST + gain.T @ CONTROL_COST @ gain + closed.T @ P @ closed
        gains.append(gain)
    return np.array(gains[::-1])


def make_agent(env, **changes):
    config = ILQRConfig(**{"horizon": STEPS, "replan_every": STEPS, "iterations": 3} | changes)
    agent = ilqr.make_ilqr_agent(env, make_oracle(env), config)

    @functools.partial(jax.jit, static_argnames="explore")
    def act(key, memory, state, explore=False):
        return agent.act(key, (), (), memory, state, explore)

    return agent, act


def at(state, x, time):
    """Return the state of the problem that is at x at this time."""
    simulator = jnp.asarray([*x, time], jnp.float32)
    return state._replace(simulator=simulator, observation=simulator.at[-1].divide(STEPS))


@pytest.mark.parametrize("replan_every", [1, 4, STEPS])
def test_its_actions_are_those_of_the_regulator_wherever_the_state_was_pushed(key, replan_every):
    """Feedback corrects the plan exactly, for the problem is linear-quadratic."""
    env = lq_env()
    agent, act = make_agent(env, replan_every=replan_every)
    state, memory = jax.jit(env.reset)(jax.random.key(1)), agent.begin()
    pushes = np.random.default_rng(0).normal(size=(STEPS, 2))
    for t, (gain, push) in enumerate(zip(regulator_gains(), pushes, strict=True)):
        x = START + push if t else START
        action, memory = act(jax.random.fold_in(key, t), memory, at(state, x, t))
        np.testing.assert_allclose(SCALE * action, gain @ x, atol=2e-4)


def test_without_feedback_it_carries_out_its_plan_whatever_happens(key):
    env = lq_env()
    agent, act = make_agent(env, feedback=False, replan_every=STEPS)
    state, memory = jax.jit(env.reset)(jax.random.key(1)), agent.begin()
    x = START
    for t, gain in enumerate(regulator_gains()):
        pushed = at(state, x + 0.5 if t else x, t)
        action, memory = act(jax.random.fold_in(key, t), memory, pushed)
        np.testing.assert_allclose(SCALE * action, gain @ x, atol=2e-4)
        x = DRIFT @ x + CONTROL @ (gain @ x)


def test_actions_stay_within_their_limits(key):
    env = lq_env()
    agent, act = make_agent(env)
    state = at(jax.jit(env.reset)(jax.random.key(1)), (30.0, 0.0), 0)
    action, memory = act(key, agent.begin(), state, explore=True)
    np.testing.assert_array_equal(action, -1.0)
    assert np.all(np.abs(memory.actions) <= 1.0)


def test_under_noise_it_plans_for_the_mean(key):
    """Certainty equivalence: the best actions are those of the system without noise."""
    env = lq_env(NOISE_STD)
    agent, act = make_agent(env)
    state = at(jax.jit(env.reset)(jax.random.key(1)), START, 0)
    action, _ = act(key, agent.begin(), state)
    np.testing.assert_allclose(SCALE * action, regulator_gains()[0] @ START, atol=2e-4)


@pytest.mark.parametrize(("feedback", "expected"), [(True, 2.458622), (False, 46.140185)])
def test_feedback_makes_noise_cheap(key, feedback, expected):
    """The expected cost over 20 steps, from the mean and variance of the state.

    The actions are linear in the state, so two states tell all of them.
    """
    env = make_system_env("lq", make_scalar_lq(), 20)
    agent, act = make_agent(env, horizon=20, replan_every=20, feedback=feedback)
    reset, memory = jax.jit(env.reset)(jax.random.key(1)), agent.begin()

    def at_x(x, time):
        simulator = jnp.asarray([x, time], jnp.float32)
        return reset._replace(simulator=simulator, observation=simulator.at[-1].divide(20))

    mean, variance, cost = 1.0, 0.0, 0.0
    for time in range(20):
        # The plan is made at the first state, which is always the same.
        first, following = act(jax.random.fold_in(key, time), memory, at_x(mean, time))
        second, _ = act(jax.random.fold_in(key, time), memory, at_x(mean + 0.1, time))
        u, gain = SCALE * first[0], SCALE * (second - first)[0] / 0.1 if time else 0.0
        cost += mean**2 + variance + 0.1 * (u**2 + gain**2 * variance)
        mean = 1.1 * mean + 0.5 * u
        variance = (1.1 + 0.5 * gain) ** 2 * variance + 0.04
        memory = following
    np.testing.assert_allclose(cost + mean**2 + variance, expected, rtol=2e-3)


def idle_env():
    """Make a system that pays nothing, so that no plan is better than the first guess."""
    idle = System(
        observation_size=1,
        action_size=1,
        dt=1.0,
        initial=lambda key: jnp.zeros(1),
        dynamics=lambda key, state, action: state + action,
        reward=lambda state, action, following: 0.0 * state[0],
        observe=lambda state: state,
    )
    return make_system_env("idle", idle, 10)


def test_a_new_plan_starts_from_the_rest_of_the_old_one(key):
    env = idle_env()
    agent, act = make_agent(env, horizon=5, replan_every=2, feedback=False)
    old = jnp.asarray([[0.1], [0.2], [0.3], [0.4], [0.5]])
    state, memory = jax.jit(env.reset)(jax.random.key(1)), agent.begin()._replace(actions=old)
    for t, expected in enumerate((0.3, 0.4, 0.5, 0.0, 0.0)):
        action, memory = act(jax.random.fold_in(key, t), memory, state)
        np.testing.assert_allclose(action, expected, rtol=1e-6)
        assert memory.step == (t + 1) % 2


def test_it_explores_by_noise_of_the_given_size_and_not_when_evaluated(key):
    env = idle_env()
    agent, act = make_agent(env, horizon=2, replan_every=2, exploration_std=0.2)
    state = jax.jit(env.reset)(jax.random.key(1))
    quiet, _ = act(jax.random.clone(key), agent.begin(), state)
    np.testing.assert_array_equal(quiet, 0.0)
    keys = jax.random.split(key, 1000)
    explore = jax.jit(
        lambda keys: jax.lax.map(lambda k: act(k, agent.begin(), state, explore=True)[0], keys)
    )
    noise = np.asarray(explore(keys), np.float64)
    assert abs(noise.mean()) < 4.5 * 0.2 / np.sqrt(1000)
    assert abs(noise.std() / 0.2 - 1.0) < 4.5 / np.sqrt(2000)


def test_acting_leaves_the_structure_of_the_memory_as_it_is(key):
    env = lq_env()
    agent, act = make_agent(env)
    state = jax.eval_shape(env.reset, jax.random.key(1))
    _, after = jax.eval_shape(act, key, agent.begin(), state)
    before = jax.eval_shape(agent.begin)
    shape_of = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert shape_of(after) == shape_of(before)
    # Observation and simulator hold two numbers and a clock each.
    assert before.states.shape == (STEPS, 6)
    assert agent.updates_per_step == 0


def test_only_the_numbers_of_a_point_are_its_coordinates():
    point = Point(
        jnp.asarray([[1.0, 2.0]]),
        {"key": jax.random.key(3)[None], "step": jnp.asarray([7]), "x": jnp.asarray([[[3.0]]])},
    )
    x, restore = coordinates(point)
    np.testing.assert_array_equal(x, [1.0, 2.0, 3.0])
    moved = restore(x + 1.0)
    np.testing.assert_array_equal(moved.observation, [[2.0, 3.0]])
    np.testing.assert_array_equal(moved.simulator["x"], [[[4.0]]])
    np.testing.assert_array_equal(moved.simulator["step"], [7])
    assert moved.simulator["key"] is point.simulator["key"]


def test_with_an_ensemble_the_system_is_its_mean_prediction_without_noise(key):
    # Reward first, then the next observation; the input is observation and action.
    weight = np.array([[0.3, -0.2, 1.0], [0.9, 0.1, 0.5], [-0.2, 0.8, 0.4]])
    bias = np.array([[0.1, 0.2, -0.3], [0.5, -0.2, 0.1]])
    model, view = linear_dynamics(linear_model(weight, bias, std=0.7)[1])
    system = ilqr.noise_free(key, model, view, Point(jnp.asarray([[0.4, -0.6]])))
    np.testing.assert_allclose(system.start, [0.4, -0.6, 1.0])
    expected = weight @ [0.4, -0.6, 0.3] + bias.mean(axis=0)
    action = jnp.asarray([0.3])
    reward, following, slopes = jax.jit(
        lambda *x: (system.reward(*x), system.dynamics(*x), jax.jacfwd(system.dynamics, (0, 1))(*x))
    )(system.start, action)
    np.testing.assert_allclose(reward, expected[0], rtol=1e-5)
    np.testing.assert_allclose(following, [*expected[1:], 1.0], rtol=1e-5)
    np.testing.assert_allclose(slopes[0][:2, :2], weight[1:, :2], rtol=1e-5)
    np.testing.assert_allclose(slopes[1][:2], weight[1:, 2:], rtol=1e-5)


def test_nothing_is_paid_after_a_predicted_termination(key):
    model = scalar_control.make_model(limit=1.0)
    system = ilqr.noise_free(key, model, (), Point(jnp.asarray([[1.2]])))
    action = jnp.asarray([0.5])
    state, paid = system.start, []
    for _ in range(3):
        paid.append(system.reward(state, action))
        state = system.dynamics(state, action)
    # The first step leads to 1.21, beyond the limit.
    first = scalar_control.C * 1.2 + scalar_control.D * 0.5
    np.testing.assert_allclose(paid, [first, 0.0, 0.0], rtol=1e-6)


def test_a_prediction_that_is_not_finite_makes_a_plan_worthless_unless_it_has_ended(key):
    def step(key, view, point, action, propagation):
        ones = jnp.ones(1)
        return point, Prediction(0.0 * ones, 0.0 * ones, ones < 0.0)

    model = scalar_control.make_model()._replace(step=step)
    system = ilqr.noise_free(key, model, (), Point(jnp.ones((1, 1))))
    action = jnp.zeros(1)
    assert system.reward(system.start, action) == -jnp.inf
    ended = system.dynamics(system.start, action)
    assert system.reward(ended, action) == 0.0

"""Model-predictive control: what sequences are worth, what is carried along, and known costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.algorithms.mpc import sequence_returns
from mbpo_jax.config import Config, PlannerConfig
from mbpo_jax.envs.base import play_episodes
from mbpo_jax.envs.exam import make_maths_test
from mbpo_jax.envs.finite_horizon import make_lq
from mbpo_jax.envs.system import make_system_env
from mbpo_jax.training.loop import acting
from mbpo_jax.types import Agent, Point, Prediction
from tests import scalar_control as system

OFFSETS = (0.3, -0.1, 0.4)
"""What the three members add to the next state."""
GAMMA = 0.9


def settings(**changes) -> PlannerConfig:
    return PlannerConfig(**{"gamma": GAMMA, "num_elites": 4} | changes)


@functools.partial(jax.jit, static_argnames="model")
def worth(key, actions, config, model):
    return sequence_returns(key, model, (), Point(jnp.ones((1, 1))), actions, config)


def returns_by_hand(actions, num_particles, limit=np.inf):
    """Return `[N, P]`, particle by particle; equal shares of them meet the members, in order."""
    members = np.repeat(np.arange(len(OFFSETS)), num_particles // len(OFFSETS))
    totals = np.zeros((len(actions), num_particles))
    for n, sequence in enumerate(actions[..., 0]):
        for i, member in enumerate(members):
            x, weight = 1.0, 1.0
            for a in sequence:
                totals[n, i] += weight * (system.C * x + system.D * a)
                x = system.A * x + system.B * a + OFFSETS[member]
                weight *= GAMMA * (x <= limit)
    return totals


@pytest.mark.parametrize("limit", [np.inf, 1.2])
@pytest.mark.parametrize("num_particles", [3, 6])
def test_the_particles_of_every_sequence_are_spread_over_the_members(key, num_particles, limit):
    key, actions_key = jax.random.split(key)
    actions = jax.random.uniform(actions_key, (5, 4, 1), minval=-1.0)
    model = system.make_model(OFFSETS, limit)
    got = worth(key, actions, settings(num_particles=num_particles), model)
    expected = returns_by_hand(np.asarray(actions, np.float64), num_particles, limit)
    np.testing.assert_allclose(got, expected.mean(axis=1), rtol=1e-5)
    # Each sequence meets members that disagree, and some rollouts end early.
    assert np.all(expected.std(axis=1) > 0.05)


def breaking_model(limit):
    """Make a model that breaks down where an action is positive, and terminates above a limit."""

    def step(key, view, point, action, propagation):
        following = point.observation + action
        finite = action[:, 0] <= 0.0
        discount = jnp.where(finite & (following[:, 0] <= limit), 1.0, 0.0)
        reward = jnp.where(finite, -1.0, 0.0)
        return Point(following), Prediction(reward, discount, finite)

    return system.make_model()._replace(step=step)


def test_a_rollout_that_breaks_down_has_the_worst_return_whatever_is_paid(key):
    actions = jnp.asarray([[-1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, -1.0]])[..., None]
    got = worth(key, actions, settings(num_particles=2), breaking_model(np.inf))
    np.testing.assert_allclose(got, [-(1 + 0.9 + 0.81), -np.inf, -np.inf], rtol=1e-6)


def test_what_breaks_down_after_a_termination_costs_nothing(key):
    actions = jnp.asarray([[-0.1, 1.0, 1.0], [-0.7, -0.1, 1.0]])[..., None]
    # From 1 the first sequence goes beyond the limit with its first action, the second never.
    got = worth(key, actions, settings(num_particles=2), breaking_model(0.5))
    np.testing.assert_allclose(got, [-1.0, -np.inf], rtol=1e-6)


LQ_STEPS = 6


def lq_env():
    lq = make_lq(1.1, 0.5, 1.0, 0.1, 0.0, 1.0, LQ_STEPS, terminal=1.0)
    return make_system_env("lq", lq, LQ_STEPS)


def receding_cost(lookahead):
    """Return what it costs to follow the first action of the best plan of so many steps."""
    x, cost = 1.0, 0.0
    for t in range(LQ_STEPS):
        left = min(lookahead, LQ_STEPS - t)
        # Only a plan that reaches the end knows what is paid for the last state.
        curvature = 1.0 if left == LQ_STEPS - t else 0.0
        for _ in range(left):
            gain = -0.55 * curvature / (0.1 + 0.25 * curvature)
            curvature = 1.0 + 0.1 * gain**2 + curvature * (1.1 + 0.5 * gain) ** 2
        u = gain * x
        cost += x**2 + 0.1 * u**2
        x = 1.1 * x + 0.5 * u
    return cost + x**2


@pytest.mark.parametrize(
    ("lookahead", "method"), [(1, "cem"), (2, "icem"), (3, "cem"), (3, "mppi")]
)
def test_on_the_linear_quadratic_problem_it_pays_what_its_lookahead_allows(lookahead, method):
    planner = PlannerConfig(
        method=method,
        horizon=lookahead,
        population=128,
        iterations=8,
        num_elites=12,
        num_particles=1,
        min_std=0.001,
    )
    env, config = lq_env(), Config(algorithm="mpc", model="oracle", planner=planner)
    play = acting(make_algorithm(env, config), (), ())
    returns, lengths, _ = jax.jit(lambda key: play_episodes(env, *play, key, 2))(jax.random.key(1))
    np.testing.assert_allclose(-returns, receding_cost(lookahead), rtol=2e-3)
    np.testing.assert_array_equal(lengths, LQ_STEPS)


def test_the_costs_of_the_lookaheads_differ():
    assert receding_cost(1) > 2.0 * receding_cost(2) > 2.0 * receding_cost(3)


@pytest.mark.parametrize("open_loop", [False, True])
@pytest.mark.parametrize("method", ["random", "cem"])
def test_it_declines_the_maths_test_because_a_plan_cannot_wait_for_the_question(method, open_loop):
    """To accept is worth 1000 to whoever answers after seeing the question, but -500 to a plan."""
    planner = PlannerConfig(
        method=method,
        horizon=2,
        population=32,
        num_elites=4,
        iterations=2,
        num_particles=256,
        open_loop=open_loop,
    )
    env = make_system_env("maths_test", make_maths_test(), 2)
    config = Config(algorithm="mpc", model="oracle", planner=planner)
    play = acting(make_algorithm(env, config), (), ())
    returns, lengths, _ = jax.jit(lambda key: play_episodes(env, *play, key, 20))(jax.random.key(0))
    np.testing.assert_array_equal(returns, 0.0)
    np.testing.assert_array_equal(lengths, 1.0)


def planning_agent(**changes) -> tuple[Agent, jax.Array]:
    """Return an agent on the linear-quadratic problem and a jitted `act` at given states."""
    planner = settings(population=16, iterations=2, num_particles=1, horizon=3, **changes)
    env, config = lq_env(), Config(algorithm="mpc", model="oracle", planner=planner)
    agent = make_algorithm(env, config).agent
    fresh = jax.jit(env.reset)(jax.random.key(0))

    @functools.partial(jax.jit, static_argnames="explore")
    def act(key, memory, x, explore=True):
        state = fresh._replace(simulator=fresh.simulator.at[0].set(x))
        return agent.act(key, (), (), memory, state, explore)

    return agent, act


def test_an_open_loop_plan_is_carried_out_to_its_end_whatever_happens(key):
    agent, act = planning_agent(open_loop=True)
    keys = jax.random.split(key, 7)
    memory, actions, plans = agent.begin(), [], []
    for i, x in enumerate((1.0, -2.0, 0.3, -1.0, 0.5, 0.1)):
        action, memory = act(keys[i], memory, x)
        actions.append(action)
        plans.append(memory.actions)
    for first in (0, 3):
        for i in range(3):
            np.testing.assert_array_equal(plans[first + i], plans[first])
            np.testing.assert_array_equal(actions[first + i], plans[first][i])
    # The second plan starts from -1, so it pushes the other way.
    assert actions[0] < 0.0 < actions[3]
    assert memory.step == 0


def test_a_replanner_warm_starts_with_the_rest_of_its_plan_and_reacts_to_the_state(key):
    agent, act = planning_agent()
    first_key, second_key = jax.random.split(key)
    _, memory = act(first_key, agent.begin(), 1.0)
    assert memory.shape == (3, 1)
    np.testing.assert_array_equal(memory[-1], 0.0)
    assert np.all(np.asarray(memory[:-1]) != 0.0)
    left, _ = act(jax.random.clone(second_key), memory, 1.0)
    right, _ = act(second_key, memory, -1.0)
    assert left < 0.0 < right


@pytest.mark.parametrize("open_loop", [False, True])
def test_acting_leaves_the_structure_of_the_memory_as_it_is(key, open_loop):
    agent, act = planning_agent(open_loop=open_loop)
    _, after = jax.eval_shape(act, key, agent.begin(), jnp.float32(1.0))
    before = jax.eval_shape(agent.begin)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), before
    )
    assert agent.updates_per_step == 0
    assert agent.init(jax.random.key(1)) == ()


def test_it_acts_alike_whether_it_explores_or_not(key):
    agent, act = planning_agent()
    explored, _ = act(jax.random.clone(key), agent.begin(), 1.0)
    evaluated, _ = act(key, agent.begin(), 1.0, explore=False)
    np.testing.assert_array_equal(explored, evaluated)

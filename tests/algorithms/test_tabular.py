"""Tabular algorithms in the mazes of Sutton and Barto 2018, chapter 8."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.algorithms.tabular import make_tabular
from mbpo_jax.config import Config, TabularConfig
from mbpo_jax.envs import maze
from mbpo_jax.envs.analytic import make_analytic_env
from mbpo_jax.envs.base import step_or_reset
from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Transition
from tests.probe_environments import linear_gaussian

WITHOUT_LIMIT = 10**6
SHORTEST = 14


def make_parts(name, method, **settings):
    """Return an environment that only the goal ends and an agent for it."""
    env = make_analytic_env(name, WITHOUT_LIMIT)
    config = Config(algorithm=method, tabular=TabularConfig(**settings))
    return env, make_tabular(env, config).agent


def act_and_learn(env, agent, key, state, env_state):
    """Make one step; return the learner, the environment, whether the goal was reached, metrics."""
    act_key, step_key, update_key = jax.random.split(key, 3)
    action, _ = agent.act(act_key, state, (), agent.begin(), env_state, True)
    env_state, transition = step_or_reset(env, step_key, env_state, action)
    batch = jax.tree.map(lambda x: x[None], transition)
    state, metrics = agent.update(update_key, state, (), batch)
    return state, env_state, transition.discount == 0, metrics


@functools.partial(jax.jit, static_argnames=("name", "method", "num_steps", "num_runs", "settings"))
def goals(key, name, method, num_steps, num_runs, settings):
    """Return in which steps runs reach the goal, `[runs, steps]` bool."""
    env, agent = make_parts(name, method, **dict(settings))

    def run(key):
        init_key, reset_key, steps_key = jax.random.split(key, 3)

        def step(carry, key):
            *carry, goal, _ = act_and_learn(env, agent, key, *carry)
            return tuple(carry), goal

        start = agent.init(init_key), env.reset(reset_key)
        return jax.lax.scan(step, start, jax.random.split(steps_key, num_steps))[1]

    return jax.vmap(run)(jax.random.split(key, num_runs))


def play(key, name, method, *, num_steps, num_runs, **settings):
    # Under `vmap` JAX takes the keys of a scan for used up.
    with jax.debug_key_reuse(False):
        reached = goals(key, name, method, num_steps, num_runs, tuple(settings.items()))
    return np.asarray(reached)


def episode_lengths(reached):
    """Return the lengths `[runs, episodes]` of as many episodes as all runs completed."""
    runs = [np.diff(np.flatnonzero(row), prepend=-1) for row in reached]
    return np.array([run[: min(map(len, runs))] for run in runs])


# The assembly.


def test_an_environment_without_numbered_states_is_refused():
    env = linear_gaussian(noise=0.1, episode_length=5)
    with pytest.raises(ConfigError, match=r"dyna_q .*maze, blocking_maze or shortcut_maze"):
        make_tabular(env, Config(algorithm="dyna_q"))


def test_an_update_is_fed_with_the_newest_transition(key):
    env, _ = make_parts("maze", "dyna_q")
    algorithm = make_tabular(env, Config(algorithm="dyna_q"))
    rows = jnp.arange(7.0)
    column = rows[:, None]
    # Seven rows in a buffer of five: the newest stands before the oldest.
    real = replay.init(5, 1, 1)
    for part in (slice(0, 4), slice(4, 7)):
        batch = column[part], column[part], rows[part], rows[part], column[part]
        real = replay.add(real, Transition(*batch))
    experience, agent = algorithm.experience, algorithm.agent
    shape = agent.updates_per_step, agent.batch_size
    batch = experience.sample(key, experience.init(), real, shape)
    assert shape == (1, 1)
    np.testing.assert_array_equal(batch.observation, [[[6.0]]])
    np.testing.assert_array_equal(batch.reward, [[6.0]])
    batch = experience.sample(key, experience.init(), real, (2, 1))
    np.testing.assert_array_equal(batch.reward, [[5.0], [6.0]])


# The maze of example 8.1.


def arrival(policy):
    """Return mean and standard deviation of the steps from the start to the goal of the maze.

    They are those of the absorption time of a Markov chain.

    Args:
      policy: probabilities `[cells, moves]`.
    """
    following, goal = maze.successors(maze.DYNA_MAZE), maze.position(maze.DYNA_MAZE, maze.GOAL)
    chain = np.zeros((len(following), len(following)))
    np.add.at(chain, (np.arange(len(following))[:, None], following), policy)
    inside = np.array([i for i, mark in enumerate("".join(maze.DYNA_MAZE)) if mark != maze.WALL])
    inside = inside[inside != goal]
    visits = np.linalg.inv(np.eye(len(inside)) - chain[np.ix_(inside, inside)])
    mean = visits.sum(axis=1)
    variance = 2 * visits @ mean - mean - mean**2
    start = np.flatnonzero(inside == maze.position(maze.DYNA_MAZE, maze.START))[0]
    return mean[start], np.sqrt(variance[start])


def first_episodes(num_runs):
    """Return the lengths of the first episodes of runs, none of them cut off."""
    env, agent = make_parts("maze", "dyna_q", planning_steps=0)

    def run(key):
        init_key, reset_key, steps_key = jax.random.split(key, 3)

        def step(carry):
            key, state, env_state, _, steps = carry
            key, step_key = jax.random.split(key)
            *parts, goal, _ = act_and_learn(env, agent, step_key, state, env_state)
            return key, *parts, goal, steps + 1

        start = steps_key, agent.init(init_key), env.reset(reset_key), False, 0
        return jax.lax.while_loop(lambda carry: ~carry[3], step, start)[-1]

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), num_runs)))


RUNS = 200


@pytest.mark.slow
def test_the_first_episode_is_a_random_walk():
    """Without a reward yet, all values are tied: 868.7254 steps with a spread of 789.24.

    A mean of n such numbers has a standard error of spread / sqrt(n), and their spread, if they are
    nearly exponential, one of spread sqrt(2 / n). Either may be off by three of them.
    """
    mean, spread = arrival(np.full((54, 4), 0.25))
    assert (mean, spread) == pytest.approx((868.7254, 789.24), rel=1e-5)
    lengths = first_episodes(RUNS)
    assert np.mean(lengths) == pytest.approx(mean, abs=3 * spread / np.sqrt(RUNS))
    assert np.std(lengths) == pytest.approx(spread, abs=3 * spread * np.sqrt(2 / RUNS))


def best_greedy_arrival(epsilon):
    """Return the least mean steps to the goal that an epsilon-greedy policy can have."""
    following, goal = maze.successors(maze.DYNA_MAZE), maze.position(maze.DYNA_MAZE, maze.GOAL)
    steps = np.zeros(len(following))
    for _ in range(300):
        onward = steps[following]
        steps = 1 + (1 - epsilon) * onward.min(axis=1) + epsilon * onward.mean(axis=1)
        steps[goal] = 0.0
    return steps[maze.position(maze.DYNA_MAZE, maze.START)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planning_steps", "num_steps", "earliest", "latest"),
    [
        (0, 12000, 25, 32),
        (5, 8000, 5, 7),
        pytest.param(50, 8000, 3, 3, marks=pytest.mark.exhaustive),
    ],
)
def test_planning_makes_do_with_fewer_episodes(key, planning_steps, num_steps, earliest, latest):
    """About 28, 6 and 3 episodes pass until the mean over runs is at most 20 steps.

    Over a hundred runs a mean of about 20 steps has a standard error of 0.4 to 2 steps. The ranges
    hold the episodes whose expected lengths may be 20 within three of them.
    """
    reached = play(
        key, "maze", "dyna_q", num_steps=num_steps, num_runs=100, planning_steps=planning_steps
    )
    mean = episode_lengths(reached).mean(axis=0)
    assert earliest <= 1 + np.argmax(mean <= 20) <= latest
    # In the end with planning it is 16.6 to 17, without it one more, as values off the way are
    # still poor; over sixty episodes the standard error is below 0.05. The least possible is 15.8.
    worst = 17.3 if planning_steps else 18.5
    assert best_greedy_arrival(0.1) < np.mean(mean[-60:]) < worst


def reaches_goal(q, limit):
    """Return whether greedy moves lead from the start of the maze to the goal within a limit."""
    following = jnp.asarray(maze.successors(maze.DYNA_MAZE))
    start, goal = (maze.position(maze.DYNA_MAZE, mark) for mark in (maze.START, maze.GOAL))

    def move(_, cell):
        return jnp.where(cell == goal, cell, following[cell, jnp.argmax(q[cell])])

    return jax.lax.fori_loop(0, limit, move, jnp.int32(start)) == goal


def updates_until_good(method, num_runs=40):
    """Return how many values runs update until the greedy way is within 1.2 times the shortest."""
    env, agent = make_parts("maze", method, planning_steps=5, step_size=0.5, threshold=1e-4)
    limit = int(1.2 * SHORTEST)

    def run(key):
        init_key, reset_key, steps_key = jax.random.split(key, 3)

        def step(carry):
            key, state, env_state, updates = carry
            key, step_key = jax.random.split(key)
            *parts, _, metrics = act_and_learn(env, agent, step_key, state, env_state)
            return key, *parts, updates + metrics["tabular/updates"]

        start = steps_key, agent.init(init_key), env.reset(reset_key), 0.0
        return jax.lax.while_loop(lambda carry: ~reaches_goal(carry[1].q, limit), step, start)[-1]

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), num_runs)))


@pytest.mark.slow
def test_prioritized_sweeping_needs_far_fewer_updates_than_dyna_q():
    """It wastes none before the first reward, and then follows the changes back."""
    swept, drawn = (np.median(updates_until_good(m)) for m in ("prioritized_sweeping", "dyna_q"))
    assert drawn > 4 * swept


# The mazes that change: examples 8.2 and 8.3.


def late_rewards(key, name, method, num_steps, **settings):
    """Return the rewards that 20 runs get in their last thousand steps."""
    reached = play(key, name, method, num_steps=num_steps, num_runs=20, step_size=1.0, **settings)
    return reached[:, -1000:].sum(axis=1)


@pytest.mark.slow
def test_only_dyna_q_plus_finds_the_shortcut(key):
    """The long way takes 16 steps, so that who keeps to it gets 1000 / 16 rewards at the most.

    The shortcut takes 10. For Dyna-Q to find it, random moves, one in ten, would have to lead it
    along the wall, against the values.
    """
    settings = {"num_steps": 6000, "planning_steps": 50}
    curious = late_rewards(
        jax.random.clone(key), "shortcut_maze", "dyna_q_plus", bonus=1e-3, **settings
    )
    plain = late_rewards(key, "shortcut_maze", "dyna_q", **settings)
    assert np.max(plain) <= 1000 / 16 < np.min(curious)


@pytest.mark.slow
def test_dyna_q_plus_finds_another_way_sooner_when_its_own_is_blocked(key):
    """All runs get along the new way of 16 steps; many of Dyna-Q still stand before the wall."""
    settings = {"num_steps": 3000, "planning_steps": 10}
    curious = late_rewards(
        jax.random.clone(key), "blocking_maze", "dyna_q_plus", bonus=1e-4, **settings
    )
    plain = late_rewards(key, "blocking_maze", "dyna_q", **settings)
    error = np.hypot(np.std(curious), np.std(plain)) / np.sqrt(20)
    assert np.mean(curious) > np.mean(plain) + 3 * error
    assert np.min(curious) > 0.5 * 1000 / 16


@pytest.mark.parametrize("algorithm", ["svg", "policy_search", "ilqr"])
def test_numbered_moves_have_no_gradient_to_follow(algorithm):
    env = make_analytic_env("maze", WITHOUT_LIMIT)
    with pytest.raises(ConfigError, match="use another algorithm or environment"):
        make_algorithm(env, Config(algorithm=algorithm))

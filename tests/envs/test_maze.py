"""Mazes, judged on the tables of transitions that are read off them."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.envs.analytic import SYSTEMS, make_analytic_env
from mbpo_jax.envs.base import step_or_reset

ROWS, COLUMNS = 6, 9
CELLS = ROWS * COLUMNS
UP, DOWN, LEFT, RIGHT = range(4)
GOAL = 8
STARTS = {"maze": 2 * 9, "blocking_maze": 5 * 9 + 3, "shortcut_maze": 5 * 9 + 3}
LIMITS = {"maze": 5000, "blocking_maze": 3000, "shortcut_maze": 6000}


def maze(name):
    return make_analytic_env(name, LIMITS[name])


def at(env, cell, steps=0):
    state = env.reset(jax.random.key(0))
    return state._replace(
        simulator=jnp.array([cell, steps], jnp.float32),
        observation=jax.nn.one_hot(cell, CELLS),
        steps=jnp.int32(steps),
    )


@functools.cache
def tables(name, steps=0):
    """Read off successors, rewards and discounts, each `[CELLS, 4]`."""
    env = maze(name)

    def outcome(cell, move):
        action = 2.0 * jax.nn.one_hot(move, 4) - 1.0
        _, transition = env.step(jax.random.key(0), at(env, cell, steps), action)
        return transition.next_observation, transition.reward, transition.discount

    by_move = jax.vmap(jax.vmap(outcome, (None, 0)), (0, None))
    successor, reward, discount = jax.jit(by_move)(jnp.arange(CELLS), jnp.arange(4))
    np.testing.assert_array_equal(np.sort(successor)[..., :-1], 0.0)
    np.testing.assert_array_equal(successor.max(-1), 1.0)
    return tuple(np.asarray(x) for x in (jnp.argmax(successor, -1), reward, discount))


def distances(name, steps=0):
    """Return how many moves each cell is away from the start, by breadth-first search."""
    successor, _, _ = tables(name, steps)
    found, queue = {STARTS[name]: 0}, collections.deque([STARTS[name]])
    while queue:
        cell = queue.popleft()
        for following in successor[cell].tolist():
            if cell != GOAL and following not in found:
                found[following] = found[cell] + 1
                queue.append(following)
    return found


def test_the_shortest_way_through_the_maze_takes_14_moves():
    reached = distances("maze")
    assert reached[GOAL] == 14
    assert len(reached) == 47  # the book's number of states, the goal included


def test_the_value_of_the_start_is_known():
    """Value iteration gives gamma^13: the 14th move is paid."""
    successor, reward, discount = (table.astype(float) for table in tables("maze"))
    successor, values = successor.astype(int), np.zeros(CELLS)
    for _ in range(60):
        values = np.max(reward + 0.95 * discount * values[successor], axis=1)
    assert values[STARTS["maze"]] == pytest.approx(0.95**13, rel=1e-9)
    assert values[STARTS["maze"]] == pytest.approx(0.513342, abs=1e-6)


def test_the_first_episode_of_the_maze_is_a_random_walk_of_known_length():
    """Mean and standard deviation of the time to the goal, by linear equations."""
    successor, _, discount = tables("maze")
    cells = sorted(set(distances("maze")) - {GOAL})
    matrix = np.zeros((CELLS, CELLS))
    for cell in cells:
        for move in range(4):
            matrix[cell, successor[cell, move]] += 0.25 * discount[cell, move]
    walk = np.eye(len(cells)) - matrix[np.ix_(cells, cells)]
    mean = np.linalg.solve(walk, np.ones(len(cells)))
    # E[T^2] = 1 + 2 E[T'] + E[T'^2], where T' is the time that is left after a step.
    square = np.linalg.solve(walk, 2 * mean - 1)
    start = cells.index(STARTS["maze"])
    assert mean[start] == pytest.approx(868.7254, abs=1e-4)
    assert np.sqrt(square[start] - mean[start] ** 2) == pytest.approx(789.24, abs=0.01)


def test_only_the_step_to_the_goal_pays_and_terminates():
    for name in STARTS:
        successor, reward, discount = tables(name)
        to_goal = successor == GOAL
        np.testing.assert_array_equal(reward, to_goal)
        np.testing.assert_array_equal(discount, ~to_goal)
        rule = SYSTEMS[name].terminated
        np.testing.assert_array_equal(rule(jnp.eye(CELLS)), np.arange(CELLS) == GOAL)


@pytest.mark.parametrize(
    ("cell", "move", "expected"),
    [
        ((2, 0), RIGHT, (2, 1)),
        ((2, 1), RIGHT, (2, 1)),  # a wall
        ((2, 1), UP, (1, 1)),
        ((2, 1), DOWN, (3, 1)),
        ((2, 0), LEFT, (2, 0)),  # the edge
        ((0, 5), UP, (0, 5)),
        ((5, 5), UP, (5, 5)),  # the single wall at (4, 5)
        ((5, 8), DOWN, (5, 8)),
        ((1, 8), UP, (0, 8)),
    ],
)
def test_moves_by_hand(cell, move, expected):
    successor, _, _ = tables("maze")
    assert successor[np.ravel_multi_index(cell, (ROWS, COLUMNS)), move] == np.ravel_multi_index(
        expected, (ROWS, COLUMNS)
    )


def test_the_largest_number_names_the_move():
    env = maze("maze")
    for action, expected in (
        ([0.1, 0.3, 0.2, -1.0], 3 * 9),
        ([-0.9, -1.0, -1.0, -0.8], 2 * 9 + 1),
        ([0.0, 0.0, 0.0, 0.0], 1 * 9),
    ):
        state, _ = env.step(jax.random.key(0), at(env, 2 * 9), jnp.array(action))
        assert int(state.simulator[0]) == expected


def wall(name, steps):
    """Return which cells of the fourth row cannot be entered from above or below."""
    successor, _, _ = tables(name, steps)
    row = 3 * COLUMNS + np.arange(COLUMNS)
    entered = (successor[row - COLUMNS, DOWN] == row) | (successor[row + COLUMNS, UP] == row)
    return np.flatnonzero(~entered).tolist()


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("blocking_maze", 999, range(8)),
        ("blocking_maze", 1000, range(1, 9)),
        ("shortcut_maze", 2999, range(1, 9)),
        ("shortcut_maze", 3000, range(1, 8)),
    ],
)
def test_walls_change_with_the_total_time(name, steps, expected):
    assert wall(name, 0 if steps in (999, 2999) else 9999) == list(expected)
    assert wall(name, steps) == list(expected)


@pytest.mark.parametrize(
    ("name", "before", "after"), [("blocking_maze", 10, 16), ("shortcut_maze", 16, 10)]
)
def test_shortest_ways_before_and_after_the_change(name, before, after):
    """Around the wall at the right: 5 columns and 5 rows; at the left: 3, then 8 columns."""
    assert distances(name, 0)[GOAL] == before == (5 + 5 if name == "blocking_maze" else 3 + 8 + 5)
    assert distances(name, 5999)[GOAL] == after


def test_who_stands_in_a_new_wall_may_leave_it():
    successor, _, _ = tables("blocking_maze", 1000)
    assert successor[3 * 9 + 8].tolist() == [2 * 9 + 8, 4 * 9 + 8, 3 * 9 + 8, 3 * 9 + 8]


def test_a_changing_maze_goes_on_at_the_start_and_keeps_the_time():
    env = maze("blocking_maze")
    state, transition = env.step(jax.random.key(0), at(env, 17, 500), jnp.array([1.0, 0, 0, 0]))
    assert (float(transition.reward), float(transition.discount)) == (1.0, 0.0)
    assert int(jnp.argmax(transition.next_observation)) == GOAL
    np.testing.assert_array_equal(state.simulator, [STARTS["blocking_maze"], 501])
    assert int(jnp.argmax(state.observation)) == STARTS["blocking_maze"]
    assert not state.done


def test_the_fixed_maze_ends_at_its_goal():
    env = maze("maze")
    state, transition = env.step(jax.random.key(0), at(env, 17, 500), jnp.array([1.0, 0, 0, 0]))
    assert (float(transition.reward), float(transition.discount)) == (1.0, 0.0)
    assert int(state.simulator[0]) == GOAL
    assert state.done


def test_a_changing_maze_ends_with_its_time_alone(key):
    """Its walker knows the way, so that goals come every 10 steps before the change."""
    env = maze("blocking_maze")

    def step(state, key):
        cell = state.simulator[0]
        row, column = cell // COLUMNS, cell % COLUMNS
        go_right = (row > 3) & (column < 8) | (row == 0)
        action = jnp.where(go_right, jax.nn.one_hot(RIGHT, 4), jax.nn.one_hot(UP, 4))
        state, transition = step_or_reset(env, key, state, action)
        return state, (transition.reward, transition.discount, state.done)

    start, keys = env.reset(jax.random.key(1)), jax.random.split(key, 3000)
    _, (reward, discount, done) = jax.jit(lambda s, keys: jax.lax.scan(step, s, keys))(start, keys)
    assert np.flatnonzero(done).tolist() == [2999]
    np.testing.assert_array_equal(np.flatnonzero(reward), 10 * np.arange(1, 101) - 1)
    np.testing.assert_array_equal(discount, 1.0 - reward)

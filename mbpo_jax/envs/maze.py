"""Mazes of Sutton and Barto 2018, chapter 8, as environments with numbered states and moves."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.envs.system import System

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Up, down, left, right: changes of row and column."""
START, GOAL, WALL = "SG#"

Layout = Sequence[str]
"""Rows of a maze: a start, a goal, walls, and dots."""

DYNA_MAZE = (
    ".......#G",
    "..#....#.",
    "S.#....#.",
    "..#......",
    ".....#...",
    ".........",
)

_OPEN_RIGHT = (
    "........G",
    ".........",
    ".........",
    "########.",
    ".........",
    "...S.....",
)
_OPEN_LEFT = (*_OPEN_RIGHT[:3], ".########", *_OPEN_RIGHT[4:])
_OPEN_BOTH = (*_OPEN_RIGHT[:3], ".#######.", *_OPEN_RIGHT[4:])


def position(layout: Layout, mark: str) -> int:
    """Return the number of the cell with a mark, counted along the rows."""
    return "".join(layout).index(mark)


def successors(layout: Layout) -> np.ndarray:
    """Return where each move leads from each cell, `[cells, moves]` int32: into no wall."""
    rows, columns = len(layout), len(layout[0])
    table = np.empty((rows, columns, len(MOVES)), np.int32)
    for row, column, move in np.ndindex(table.shape):
        down, right = MOVES[move]
        to = row + down, column + right
        inside = 0 <= to[0] < rows and 0 <= to[1] < columns
        free = inside and layout[to[0]][to[1]] != WALL
        table[row, column, move] = np.ravel_multi_index(
            to if free else (row, column), (rows, columns)
        )
    return table.reshape(rows * columns, len(MOVES))


def make_maze(layout: Layout, later: Layout | None = None, change: int = 0) -> System:
    """Build a maze: reward 1 for the step to the goal, which terminates.

    The largest of an action's four numbers names the move, the first of them if several are; a
    move into a wall or over the edge leaves the agent where it is. Observations are one-hot over
    all cells, walls and goal included. The state is `(cell, steps made)`.

    A maze whose walls change is a continuing task, as the change comes with the total time: the
    transition to the goal terminates, but the episode goes on at the start. Whoever stands where a
    wall comes may leave it.

    Args:
      layout: the maze.
      later: the maze from step `change` on; it has the same start and goal. None if nothing
        changes.
      change: steps made before `later`.
    """
    start, goal = position(layout, START), position(layout, GOAL)
    table = np.stack([successors(layout), successors(later or layout)])
    num_cells = table.shape[1]

    def dynamics(key: jax.Array, state: jax.Array, action: jax.Array) -> jax.Array:
        del key
        cell, steps = state
        phase = (steps >= change).astype(int)
        following = jnp.asarray(table)[phase, cell.astype(int), jnp.argmax(action)]
        return jnp.stack([following.astype(state.dtype), steps + 1.0])

    def observe(state: jax.Array) -> jax.Array:
        return jax.nn.one_hot(state[0].astype(int), num_cells)

    return System(
        observation_size=num_cells,
        action_size=len(MOVES),
        dt=1.0,
        initial=lambda key: jnp.array([start, 0.0]),
        dynamics=dynamics,
        reward=lambda state, action, next_state: (next_state[0] == goal).astype(state.dtype),
        observe=observe,
        terminated=lambda observation: observation[..., goal] > 0.5,
        resume=None if later is None else lambda state: state.at[0].set(start),
        tabular=True,
    )


def make_dyna_maze() -> System:
    """Build the maze of example 8.1, whose shortest way takes 14 steps."""
    return make_maze(DYNA_MAZE)


def make_blocking_maze() -> System:
    """Build the maze of example 8.2: after 1,000 steps its short way is blocked, another opened."""
    return make_maze(_OPEN_RIGHT, _OPEN_LEFT, change=1000)


def make_shortcut_maze() -> System:
    """Build the maze of example 8.3: after 3,000 steps a shorter way is opened besides the long."""
    return make_maze(_OPEN_LEFT, _OPEN_BOTH, change=3000)

"""A ring buffer of transitions on the device: init, add, ways to draw from it, and to mend it.

Rows are written at `position + arange(n)` modulo the capacity, so the valid rows are always the
newest `size` ones. Adding and sampling cost O(rows touched), never O(capacity), also under `vmap`,
except `sample_initial` and `without_nonfinite`, which look at all rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.loops import greatest_of_runs
from mbpo_jax.trees import all_finite
from mbpo_jax.types import PyTree, Transition


class ReplayState(NamedTuple):
    """A ring buffer.

    Attributes:
      data: transitions with leading axis `[capacity]`.
      position: int32, the row that is written next.
      size: int32, number of valid rows: those written last.
    """

    data: Transition
    position: jax.Array
    size: jax.Array


class Sequence(NamedTuple):
    """Transitions that were made one after the other.

    Attributes:
      transitions: `[..., T]`.
      connected: `[..., T]` bool, whether a transition goes on where the one before it led, as far
        back as the first. A time limit and the newest row break a sequence; what follows the
        break belongs to another episode, or to nothing at all.
    """

    transitions: Transition
    connected: jax.Array


def init(
    capacity: int,
    observation_size: int,
    action_size: int,
    *,
    log_prob: bool = False,
    simulator: PyTree = (),
) -> ReplayState:
    """Allocate an empty buffer, filled with zeros.

    Args:
      capacity: rows.
      observation_size: `O`.
      action_size: `A`.
      log_prob: whether rows hold log-densities of their actions.
      simulator: one simulator state, or its shapes, if rows hold them.
    """
    data = Transition(
        observation=jnp.zeros((capacity, observation_size)),
        action=jnp.zeros((capacity, action_size)),
        reward=jnp.zeros(capacity),
        discount=jnp.zeros(capacity),
        next_observation=jnp.zeros((capacity, observation_size)),
        log_prob=jnp.zeros(capacity) if log_prob else (),
        simulator=jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), simulator),
    )
    return ReplayState(data, jnp.int32(0), jnp.int32(0))


def capacity(state: ReplayState) -> int:
    """Return the number of rows the buffer can hold."""
    return state.data.reward.shape[0]


def is_valid(state: ReplayState) -> jax.Array:
    """Return which rows are valid, `[capacity]` bool."""
    rows = capacity(state)
    return (state.position - 1 - jnp.arange(rows)) % rows < state.size


def add(
    state: ReplayState,
    batch: Transition,
    valid: jax.Array | None = None,
    max_size: jax.Array | int | None = None,
) -> ReplayState:
    """Append rows, overwriting the oldest ones.

    Args:
      state: the buffer.
      batch: transitions `[n]`, oldest first.
      valid: `[n]` bool; rows where it is False are left out. All rows if None.
      max_size: keep no more than this many of the newest rows valid, at most the capacity, which
        is also what None means. Rows that fell out of a smaller window do not come back when it
        grows.

    Raises:
      ValueError: if `n` exceeds the capacity.
    """
    num_rows, rows = batch.reward.shape[0], capacity(state)
    if num_rows > rows:
        raise ValueError(f"cannot add {num_rows} transitions to a buffer of {rows} rows")
    if valid is None:
        valid = jnp.ones(num_rows, bool)
    offset = jnp.cumsum(valid) - 1
    # Rows that are left out get indices outside of the buffer, which `drop` ignores; distinct ones,
    # as `unique_indices` promises.
    index = jnp.where(valid, (state.position + offset) % rows, rows + jnp.arange(num_rows))
    data = jax.tree.map(
        lambda old, new: old.at[index].set(new, mode="drop", unique_indices=True), state.data, batch
    )
    added = jnp.sum(valid, dtype=jnp.int32)
    limit = rows if max_size is None else jnp.minimum(max_size, rows)
    size = jnp.minimum(state.size + added, limit).astype(jnp.int32)
    return ReplayState(data, (state.position + added) % rows, size)


def filled_up(state: ReplayState, rows: int) -> ReplayState:
    """Mend a buffer whose arrays were of fewer rows and had empty ones put behind these.

    Where it goes on at its beginning, its rows are moved, so that the oldest comes first.

    Args:
      state: the buffer.
      rows: it had; it was not written to beyond them.
    """
    wraps = state.position < state.size
    order = (jnp.arange(rows) + jnp.where(wraps, state.position, 0)) % rows
    data = jax.tree.map(lambda x: x.at[:rows].set(x[order]), state.data)
    return state._replace(data=data, position=jnp.where(wraps, rows, state.position))


def without_nonfinite(state: ReplayState) -> ReplayState:
    """Take rows that are not finite out of a buffer; O(capacity), and again for each of them.

    Training adds none, but a buffer may come from elsewhere. One after the other gives its place to
    the oldest row, which breaks sequences there, and the window shrinks by it. Where there is none,
    numbers are read and nothing is written. Simulator states are not looked at.
    """
    rows, valid = capacity(state), is_valid(state)

    def find(data: Transition) -> jax.Array:
        return valid & ~all_finite(data._replace(simulator=()), axes=1)

    def take_out(i, data: Transition) -> Transition:
        bad = find(data)
        places = jnp.stack([jnp.argmax(bad), (state.position - state.size + i) % rows])
        # Another run may have more of them; `drop` ignores places outside of the buffer.
        hole, oldest = jnp.where(jnp.any(bad), places, rows)

        def move(x: jax.Array) -> jax.Array:
            x = x.at[hole].set(x[oldest], mode="drop")
            return x.at[oldest].set(x.dtype.type(0), mode="drop")

        return jax.tree.map(move, data)

    number = jnp.sum(find(state.data), dtype=jnp.int32)
    data = jax.lax.fori_loop(0, greatest_of_runs(number), take_out, state.data)
    return state._replace(data=data, size=state.size - number)


def sample_rows(key: jax.Array, state: ReplayState, shape: tuple[int, ...]) -> jax.Array:
    """Draw row numbers of valid rows, uniformly and with replacement; int32 of this shape."""
    age = jax.random.randint(key, shape, 0, jnp.maximum(state.size, 1))
    return (state.position - 1 - age) % capacity(state)


def take(state: ReplayState, rows: jax.Array) -> Transition:
    """Return the transitions at these row numbers, with the row numbers' shape in front."""
    return jax.tree.map(lambda x: x[rows], state.data)


def sample(key: jax.Array, state: ReplayState, shape: tuple[int, ...]) -> Transition:
    """Draw valid transitions, uniformly and with replacement."""
    return take(state, sample_rows(key, state, shape))


def sample_sequences(
    key: jax.Array, state: ReplayState, shape: tuple[int, ...], length: int
) -> Sequence:
    """Draw sequences `[*shape, length]` that begin at any valid row, uniformly."""
    age = jax.random.randint(key, (*shape, 1), 0, jnp.maximum(state.size, 1))
    ages = age - jnp.expand_dims(jnp.arange(length), tuple(range(len(shape))))
    transitions = take(state, (state.position - 1 - jnp.maximum(ages, 0)) % capacity(state))
    led = transitions.next_observation[..., :-1, :]
    follows = jnp.all(led == transitions.observation[..., 1:, :], axis=-1) & (ages[..., 1:] >= 0)
    first = jnp.ones((*shape, 1), bool)
    broken = jnp.cumsum(~jnp.concatenate([first, follows], axis=-1), axis=-1)
    return Sequence(transitions, broken == 0)


def sample_initial(key: jax.Array, state: ReplayState, shape: tuple[int, ...]) -> Transition:
    """Draw transitions with which an episode began, uniformly; O(capacity).

    They are told by an observation to which the row before did not lead. The oldest row counts too,
    though it may lie within an episode whose beginning was overwritten.
    """
    rows = capacity(state)
    age = (state.position - 1 - jnp.arange(rows)) % rows
    before = jnp.roll(state.data.next_observation, 1, axis=0)
    led = jnp.all(before == state.data.observation, axis=-1) & (age < state.size - 1)
    count = jnp.cumsum((age < state.size) & ~led)
    rank = jax.random.randint(key, shape, 0, jnp.maximum(count[-1], 1))
    return take(state, jnp.searchsorted(count, rank, side="right"))


def newest(state: ReplayState, num_rows: int) -> tuple[Transition, jax.Array]:
    """Return the newest rows, oldest first, and which of them are valid `[num_rows]` bool."""
    age = jnp.arange(num_rows)[::-1]
    return take(state, (state.position - 1 - age) % capacity(state)), age < state.size

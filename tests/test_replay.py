"""The ring buffer against a plain list of everything that was ever added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbpo_jax import replay
from mbpo_jax.types import Transition

CAPACITY = 5
NUM_ROWS = 3


def payload(numbers) -> Transition:
    """Make transitions that tell their number in every field."""
    number = np.asarray(numbers, np.float32)
    return Transition(
        observation=np.stack([number, 2.0 * number], axis=-1),
        action=-number[..., None],
        reward=number,
        discount=3.0 * number,
        next_observation=np.stack([4.0 * number, 5.0 * number], axis=-1),
    )


def numbers_in(transitions: Transition) -> np.ndarray:
    """Return the numbers of transitions, after a check that no field belongs to another one."""
    jax.tree.map(np.testing.assert_array_equal, transitions, payload(transitions.reward))
    return np.asarray(transitions.reward).astype(int)


def filled(capacity: int, num_added: int) -> replay.ReplayState:
    """Return a buffer to which the transitions 1 to `num_added` were added one by one."""
    state = replay.init(capacity, 2, 1)
    for number in range(1, num_added + 1):
        state = add(state, payload([number]))
    return state


add = jax.jit(replay.add)
newest = jax.jit(replay.newest, static_argnums=1)
sample_rows = jax.jit(replay.sample_rows, static_argnums=2)
addition = st.tuples(
    st.lists(st.booleans(), min_size=NUM_ROWS, max_size=NUM_ROWS), st.integers(0, CAPACITY + 2)
)


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(st.lists(addition, max_size=8))
def test_the_buffer_holds_the_newest_transitions_of_the_window(additions):
    state, added, size, number = replay.init(CAPACITY, 2, 1), [], 0, 0
    for valid, max_size in additions:
        batch = np.arange(number, number + NUM_ROWS) + 1
        number += NUM_ROWS
        state = add(state, payload(batch), jnp.asarray(valid), jnp.int32(max_size))
        added += list(batch[valid])
        size = min(size + sum(valid), max_size, CAPACITY)
        transitions, counts = newest(state, CAPACITY + 1)
        assert int(state.size) == size
        assert int(state.position) == len(added) % CAPACITY
        assert list(counts) == [False] * (CAPACITY + 1 - size) + [True] * size
        kept = jax.tree.map(lambda x, counts=counts: x[counts], transitions)
        assert list(numbers_in(kept)) == added[len(added) - size :]


@pytest.mark.parametrize("num_added", [0, 1, 4, 5, 6, 13])
def test_without_limits_the_capacity_decides(num_added):
    state = filled(CAPACITY, num_added)
    transitions, counts = newest(state, CAPACITY)
    expected = np.arange(1, num_added + 1)[-CAPACITY:]
    assert int(state.size) == len(expected)
    assert list(numbers_in(transitions)[np.asarray(counts)]) == list(expected)


def test_fewer_of_the_newest_can_be_asked_for():
    transitions, counts = newest(filled(CAPACITY, 7), 2)
    assert list(numbers_in(transitions)) == [6, 7]
    assert list(counts) == [True, True]


def test_a_full_batch_replaces_everything():
    state = add(filled(CAPACITY, 3), payload(np.arange(10, 10 + CAPACITY)))
    assert list(numbers_in(newest(state, CAPACITY)[0])) == [10, 11, 12, 13, 14]


def test_a_window_that_grows_again_does_not_revive_rows():
    state = add(filled(CAPACITY, 5), payload([6]), None, 2)
    state = add(state, payload([7]), None, CAPACITY)
    transitions, counts = newest(state, CAPACITY)
    assert list(numbers_in(transitions)[np.asarray(counts)]) == [5, 6, 7]


def test_too_many_rows_are_refused():
    with pytest.raises(ValueError, match="cannot add 6 transitions to a buffer of 5 rows"):
        replay.add(replay.init(CAPACITY, 2, 1), payload(np.arange(CAPACITY + 1)))


@pytest.mark.parametrize(("num_added", "max_size"), [(3, 8), (8, 8), (21, 8), (21, 4)], ids=str)
def test_sampling_is_uniform_over_the_valid_rows(key, num_added, max_size):
    state = add(filled(8, num_added - 1), payload([num_added]), None, max_size)
    expected = np.arange(1, num_added + 1)[-max_size:]
    num_draws = 1000 * len(expected)
    drawn = numbers_in(replay.sample(key, state, (4, num_draws // 4)))
    assert drawn.shape == (4, num_draws // 4)
    numbers, counts = np.unique(drawn, return_counts=True)
    assert list(numbers) == list(expected)
    # At most 7 degrees of freedom: chi-square exceeds 40 once in a million.
    assert np.sum((counts - 1000.0) ** 2 / 1000.0) < 40.0


def test_sampled_rows_are_drawn_with_replacement_and_by_key(key):
    state = filled(8, 8)
    first, second = (sample_rows(k, state, (64,)) for k in jax.random.split(key))
    assert not np.array_equal(first, second)
    assert not np.array_equal(np.sort(first), np.sort(second))


def test_vmap_equals_a_loop(key):
    keys = jax.random.split(key, 3)
    states = jax.tree.map(lambda *x: jnp.stack(x), *[filled(CAPACITY, n) for n in (0, 4, 9)])
    batches = payload(100 + np.arange(3 * NUM_ROWS).reshape(3, NUM_ROWS))
    valid = jnp.asarray([[True, False, True], [True, True, True], [False, False, True]])
    limits = jnp.asarray([5, 3, 4])

    def add_and_sample(key, *arguments):
        state = replay.add(*arguments)
        return state, replay.sample(key, state, (7,)), replay.newest(state, 4)

    together = jax.jit(jax.vmap(add_and_sample))(
        jax.random.clone(keys), states, batches, valid, limits
    )
    alone = jax.jit(add_and_sample)
    for i in range(3):
        arguments = jax.tree.map(lambda x, i=i: x[i], (states, batches, valid, limits))
        one = jax.tree.map(lambda x, i=i: x[i], together)
        jax.tree.map(np.testing.assert_array_equal, one, alone(keys[i], *arguments))


def test_a_donated_buffer_is_updated_in_place():
    state = jax.tree.map(jnp.array, filled(CAPACITY, 4))
    before = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state.data)]
    after = jax.jit(replay.add, donate_argnums=0)(state, payload([5, 6]))
    assert all(x.is_deleted() for x in jax.tree.leaves(state.data))
    assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(after.data)] == before
    assert list(numbers_in(newest(after, CAPACITY)[0])) == [2, 3, 4, 5, 6]

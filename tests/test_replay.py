"""The ring buffer against a plain list of everything that was ever added."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbpo_jax import replay
from mbpo_jax.types import RUNS_AXIS, Transition

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
sample = jax.jit(replay.sample, static_argnums=2)
newest = jax.jit(replay.newest, static_argnums=1)
sample_rows = jax.jit(replay.sample_rows, static_argnums=2)
without_nonfinite = jax.jit(replay.without_nonfinite)
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
@pytest.mark.parametrize("left_out", [0, 2])
def test_a_buffer_that_got_more_rows_goes_on_behind_those_it_has(num_added, left_out):
    state = filled(CAPACITY, num_added)
    state = state._replace(size=jnp.maximum(state.size - left_out, 0))
    kept = numbers_in(jax.tree.map(lambda x: x[CAPACITY - int(state.size) :], newest(state, 5)[0]))
    grown = jax.tree.map(
        lambda x: jnp.concatenate([x, jnp.full((3, *x.shape[1:]), jnp.nan)]), state.data
    )
    state = replay.filled_up(state._replace(data=grown), CAPACITY)
    for number in (101, 102):
        state = add(state, payload([number]))
    transitions, valid = newest(state, 8)
    found = numbers_in(jax.tree.map(lambda x: x[valid], transitions))
    assert list(found) == [*kept, 101, 102]


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
    drawn = numbers_in(sample(key, state, (4, num_draws // 4)))
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
        keys = jax.random.split(key, 3)
        drawn = sample(keys[0], state, (7,)), replay.sample_initial(keys[1], state, (7,))
        return (
            state,
            drawn,
            replay.sample_sequences(keys[2], state, (7,), 3),
            replay.newest(state, 4),
        )

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


# Rows that are not finite


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 12), st.sets(st.integers(1, 12)), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_rows_that_are_not_finite_are_taken_out_and_the_others_stay(num_added, bad, value):
    state = filled(CAPACITY, num_added)
    kept = [n for n in range(1, num_added + 1)[-CAPACITY:] if n not in bad]
    glitch = jnp.isin(state.data.reward, jnp.asarray(sorted(bad), jnp.float32))
    # In one component of one field, a different one for each row.
    reward = jnp.where(glitch & (state.data.reward % 2 == 0), value, state.data.reward)
    led = state.data.next_observation
    led = led.at[:, 1].set(jnp.where(glitch & (state.data.reward % 2 == 1), value, led[:, 1]))
    state = state._replace(data=state.data._replace(reward=reward, next_observation=led))
    found = without_nonfinite(state)
    assert int(found.size) == len(kept)
    assert int(found.position) == int(state.position)
    transitions, counts = newest(found, CAPACITY)
    rows = jax.tree.map(lambda x: x[counts], transitions)
    assert sorted(numbers_in(rows)) == kept
    # Nothing that is not finite is left behind, and a buffer of nothing else is an empty one.
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found.data))
    if len(kept) == int(state.size):
        jax.tree.map(np.testing.assert_array_equal, found, state)


def test_runs_side_by_side_take_out_their_own_rows():
    states = [filled(CAPACITY, n) for n in (0, 3, 7, 9)]
    states = [
        state._replace(data=state.data._replace(reward=jnp.where(bad, jnp.nan, state.data.reward)))
        for state, bad in zip(
            states,
            jnp.array([[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 0, 1, 1], [0, 0, 0, 0, 0]]) > 0,
            strict=True,
        )
    ]
    together = jax.tree.map(lambda *x: jnp.stack(x), *states)
    found = jax.jit(jax.vmap(replay.without_nonfinite, axis_name=RUNS_AXIS))(together)
    alone = jax.tree.map(lambda *x: jnp.stack(x), *map(without_nonfinite, states))
    jax.tree.map(np.testing.assert_array_equal, found, alone)
    assert list(found.size) == [0, 2, 1, 5]


# Rows that hold more


def test_log_densities_and_simulator_states_stay_with_their_rows(key):
    def rich(numbers) -> Transition:
        number = np.asarray(numbers, np.float32)
        simulator = {"x": np.stack([number, -number], axis=-1), "n": number.astype(np.int32)}
        return payload(numbers)._replace(log_prob=-2.0 * number, simulator=simulator)

    shapes = {"x": jax.ShapeDtypeStruct((2,), jnp.float32), "n": jnp.int32(3)}
    state = replay.init(CAPACITY, 2, 1, log_prob=True, simulator=shapes)
    assert state.data.simulator["n"].dtype == jnp.int32
    for first in (1, 4, 7):
        state = add(state, rich([first, first + 1, first + 2]), jnp.array([True, False, True]))
    # Of 1, 3, 4, 6, 7 and 9, the oldest was overwritten.
    rows = newest(state, CAPACITY)[0]
    jax.tree.map(np.testing.assert_array_equal, rows, rich([3, 4, 6, 7, 9]))
    initial_key, sequence_key, sample_key = jax.random.split(key, 3)
    for drawn in (
        replay.sample(sample_key, state, (20,)),
        replay.sample_initial(initial_key, state, (20,)),
        replay.sample_sequences(sequence_key, state, (20,), 2).transitions,
    ):
        jax.tree.map(np.testing.assert_array_equal, drawn, rich(drawn.reward))


# Episodes. Their lengths, and whether they end by a termination; the last one still goes on.

EPISODES = [(3, False), (2, True), (4, False), (1, True), (1, False), (2, False)]
EPISODE_OF = np.repeat(np.arange(len(EPISODES)), [length for length, _ in EPISODES])
STEP_OF = np.concatenate([np.arange(length) for length, _ in EPISODES])
DISCOUNT = np.concatenate([[1.0] * (n - 1) + [1.0 - ends] for n, ends in EPISODES])
NUM_PLAYED = len(EPISODE_OF)


def played(numbers) -> Transition:
    """Return the transitions with these numbers, from 0 on; the reward tells the number."""
    number = np.asarray(numbers).astype(int)
    episode, step = np.float32(EPISODE_OF[number]), np.float32(STEP_OF[number])
    return Transition(
        observation=np.stack([episode, step], axis=-1),
        action=np.float32(number)[..., None],
        reward=np.float32(number),
        discount=np.float32(DISCOUNT[number]),
        next_observation=np.stack([episode, step + 1], axis=-1),
    )


def after_playing(capacity: int, num_rows: int, max_size: int | None = None) -> replay.ReplayState:
    """Return a buffer to which the first transitions were added one by one."""
    state = replay.init(capacity, 2, 1)
    for number in range(num_rows):
        state = add(state, played([number]), None, capacity if max_size is None else max_size)
    return state


@pytest.mark.parametrize("length", [1, 2, 6])
@pytest.mark.parametrize(
    ("capacity", "num_rows", "max_size"),
    [(20, 13, None), (13, 13, None), (8, 13, None), (8, 12, None), (8, 6, None), (8, 13, 5)],
    ids=str,
)
def test_sequences_follow_an_episode_up_to_its_end(key, capacity, num_rows, max_size, length):
    """Time limits, terminations and the newest row break them; the ring's end does not."""
    state = after_playing(capacity, num_rows, max_size)
    size = min(num_rows, capacity, max_size or capacity)
    sequences = jax.jit(replay.sample_sequences, static_argnums=(2, 3))(
        key, state, (3, 100 * size), length
    )
    assert sequences.connected.shape == (3, 100 * size, length)
    transitions, connected = jax.tree.map(
        lambda x: np.asarray(x).reshape(300 * size, *x.shape[2:]), sequences
    )
    jax.tree.map(np.testing.assert_array_equal, transitions, played(transitions.reward))
    starts = transitions.reward[:, 0].astype(int)
    number = starts[:, None] + np.arange(length)
    within = np.minimum(number, num_rows - 1)
    expected = (number < num_rows) & (EPISODE_OF[within] == EPISODE_OF[starts][:, None])
    np.testing.assert_array_equal(connected, expected)
    np.testing.assert_array_equal(transitions.reward[connected], number[connected])
    # What follows a transition with discount 0 is never connected to it.
    ended = (transitions.discount == 0.0) & connected
    assert not np.any(ended[:, :-1] & connected[:, 1:])
    valid, counts = np.unique(starts, return_counts=True)
    np.testing.assert_array_equal(valid, np.arange(num_rows - size, num_rows))
    # At most 12 degrees of freedom: chi-square exceeds 50 once in a million.
    assert np.sum((counts - 300.0) ** 2 / 300.0) < 50.0


def test_a_broken_sequence_stays_broken():
    """The second transition does not follow the first one, but the third follows the second."""
    states = [0.0, 7.0, 1.0, 2.0]
    rows = played([0, 0, 0, 0])._replace(
        observation=np.float32([[x, 0.0] for x in states]),
        next_observation=np.float32([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]),
    )
    state = add(replay.init(4, 2, 1), rows)
    sequences = replay.sample_sequences(jax.random.key(0), state, (50,), 4)
    from_oldest = np.asarray(sequences.transitions.observation[:, 0, 0]) == 0.0
    assert np.any(from_oldest)
    connected = np.asarray(sequences.connected)[from_oldest]
    np.testing.assert_array_equal(connected, [[True, False, False, False]] * from_oldest.sum())


def test_the_newest_row_breaks_a_sequence_of_a_system_that_stands_still(key):
    still = played([0, 0, 0])._replace(next_observation=played([0, 0, 0]).observation)
    sequences = replay.sample_sequences(key, add(replay.init(5, 2, 1), still), (50,), 4)
    connected = np.asarray(sequences.connected)
    lengths = np.sum(connected, axis=1)
    assert list(np.unique(lengths)) == [1, 2, 3]
    np.testing.assert_array_equal(connected, np.arange(4) < lengths[:, None])


def test_a_sequence_of_one_is_a_sampled_transition(key):
    state = after_playing(8, 13)
    one = replay.sample_sequences(key, state, (4, 5), 1)
    same = replay.sample(jax.random.clone(key), state, (4, 5))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:, :, 0], b), one.transitions, same)
    np.testing.assert_array_equal(one.connected, True)


@pytest.mark.parametrize("capacity", [20, 13, 8, 5])
def test_initial_transitions_are_those_that_begin_an_episode(key, capacity):
    """The oldest one in the buffer counts, too, even if its episode began earlier."""
    sample = jax.jit(replay.sample_initial, static_argnums=2)
    for num_rows, one_key in enumerate(jax.random.split(key, NUM_PLAYED), start=1):
        drawn = sample(one_key, after_playing(capacity, num_rows), (2, 600))
        jax.tree.map(np.testing.assert_array_equal, drawn, played(drawn.reward))
        oldest = max(num_rows - capacity, 0)
        expected = [n for n in range(oldest, num_rows) if n == oldest or STEP_OF[n] == 0]
        met, counts = np.unique(drawn.reward, return_counts=True)
        np.testing.assert_array_equal(met, expected)
        # At most 5 degrees of freedom: chi-square exceeds 35 once in a million.
        mean = 1200 / len(expected)
        assert np.sum((counts - mean) ** 2 / mean) < 35.0


def test_initial_transitions_lie_within_the_window(key):
    drawn = replay.sample_initial(key, after_playing(20, NUM_PLAYED, max_size=6), (600,))
    # Of 7 to 12: the oldest, then where the last three episodes begin.
    np.testing.assert_array_equal(np.unique(drawn.reward), [7, 9, 10, 11])


def test_an_empty_buffer_gives_zeros(key):
    state = replay.init(CAPACITY, 2, 1)
    initial_key, sequence_key = jax.random.split(key)
    sequences = replay.sample_sequences(sequence_key, state, (3,), 2)
    for drawn in (replay.sample_initial(initial_key, state, (3,)), sequences.transitions):
        assert all(np.all(x == 0.0) for x in jax.tree.leaves(drawn))
    np.testing.assert_array_equal(sequences.connected, [[True, False]] * 3)

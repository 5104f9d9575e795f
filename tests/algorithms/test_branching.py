"""Branched model rollouts: where they start, what they do first, how many are kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.algorithms import branching, make_algorithm
from mbpo_jax.algorithms.parts import make_model
from mbpo_jax.config import Config, RolloutConfig
from mbpo_jax.envs.termination import never
from mbpo_jax.models import rows as layout
from mbpo_jax.training.layout import stack
from mbpo_jax.training.loop import make_program
from mbpo_jax.types import Transition
from tests.algorithms.clocked_system import (
    CAPACITY,
    ENV,
    assert_true_transitions,
    make_config,
    played,
    rows_of,
)
from tests.algorithms.test_parts import hopper_like


@functools.partial(jax.jit, static_argnums=0)
def refresh(options, config, key, buffer, real, policy_action, env_steps):
    """Branch rollouts of a policy that always does the same; `buffer` None is an empty one."""

    def policy(key, observation):
        return jnp.broadcast_to(policy_action, (*observation.shape[:-1], 1))

    model = make_model(ENV, config)
    experience = branching.branched_experience(ENV.spec, model, config, **dict(options))
    buffer = experience.init() if buffer is None else buffer
    return experience.refresh(key, buffer, (), real, policy, env_steps)


def numbered(capacity: int, num_rows: int) -> replay.ReplayState:
    """Return a buffer to which rows with rewards 0, 1, 2, ... were added, one after the other."""
    rows = jnp.arange(float(num_rows))
    column = rows[:, None]
    data, state = Transition(column, column, rows, rows, column), replay.init(capacity, 1, 1)
    for i in range(num_rows):
        state = replay.add(state, jax.tree.map(lambda x, i=i: x[i : i + 1], data))
    return state


def test_the_model_buffer_has_room_for_the_longest_rollouts():
    rollout = RolloutConfig(
        rollouts_per_step=10,
        retain_epochs=3,
        min_length=1,
        max_length=4,
        start_epoch=0,
        end_epoch=9,
    )
    config = Config(rollout=rollout, epoch_length=50, steps_per_fit=25, eval_every=25)
    assert branching.model_buffer_capacity(config) == 3 * 10 * 50 * 4
    state = jax.eval_shape(make_algorithm(hopper_like(never), config).experience.init)
    assert state.data.observation.shape == (6000, 11)
    assert state.data.action.shape == (6000, 3)


def test_where_lengths_are_traced_there_is_room_for_the_longest_of_all_runs(key):
    def of_length(steps):
        return make_config("mbpo", rollout={"max_length": steps})

    program, config = make_program(ENV), of_length(3)
    kept = config.rollout.retain_epochs * config.rollout.rollouts_per_step * config.epoch_length
    one = jax.eval_shape(program.init, config, key)
    assert one.experience.data.reward.shape == (3 * kept,)
    both = stack([of_length(2), of_length(5)])
    assert list(both.rollout.max_length) == [2, 5]
    keys = jax.random.split(jax.random.key(1), 2)
    state = jax.eval_shape(jax.vmap(program.init), both, keys)
    assert state.experience.data.reward.shape == (2, 5 * kept)
    assert jax.tree.structure(both) == jax.tree.structure(jax.tree.map(jnp.sin, both))


@pytest.mark.parametrize(
    ("num_recent", "capacity", "num_rows", "expected"),
    [
        (None, 7, 5, range(5)),
        (None, 7, 10, range(3, 10)),
        (3, 7, 5, range(2, 5)),
        (3, 7, 10, range(7, 10)),
        (3, 7, 8, range(5, 8)),
        (3, 7, 2, range(2)),
        (100, 7, 10, range(3, 10)),
    ],
)
def test_rollouts_start_from_all_transitions_or_from_the_newest_alone(
    key, num_recent, capacity, num_rows, expected
):
    """Also where the newest rows of the ring lie on both sides of its end."""
    starts = branching.recent_starts(num_recent) if num_recent else branching.uniform_starts
    rows = starts(key, numbered(capacity, num_rows), 200)
    np.testing.assert_array_equal(np.unique(rows.reward), expected)
    np.testing.assert_array_equal(rows.observation[:, 0], rows.reward)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_rollouts_of_every_length_go_on_where_they_led(key, length):
    real_key, key = jax.random.split(key)
    config, real = make_config("mbpo"), played(real_key, 20)
    env_steps = jnp.int32(config.random_steps + (length - 1) * config.epoch_length)
    buffer, metrics = refresh((), config, key, None, real, jnp.float32(0.1), env_steps)
    made = rows_of(buffer)
    assert_true_transitions(rows_of(real), made)
    assert metrics["rollout/length"] == length
    # What does not terminate goes on to the full length.
    ended = np.sum(made.discount == 0.0)
    assert 40 <= len(made.reward) <= 40 * length
    assert len(made.reward) >= 40 * length - ended * (length - 1)


@pytest.mark.parametrize(
    "first_action", [branching.policy_action, branching.stored_action, branching.random_action]
)
def test_rollouts_begin_as_they_are_told_and_go_on_with_the_policy(key, first_action):
    real_key, key = jax.random.split(key)
    config, real = make_config("mbpo", rollout={"rollouts_per_step": 50}), played(real_key, 20)
    env_steps = jnp.int32(config.random_steps + 2 * config.epoch_length)
    options = (("first_action", first_action),)
    buffer, _ = refresh(options, config, key, None, real, jnp.float32(0.01), env_steps)
    made, stored = rows_of(buffer), rows_of(real)
    action, first = made.action[:, 0], np.arange(len(made.reward)) < 400
    np.testing.assert_array_equal(action[~first], np.float32(0.01))
    if first_action is branching.policy_action:
        np.testing.assert_array_equal(action[first], np.float32(0.01))
    elif first_action is branching.stored_action:
        pairs = zip(stored.observation, stored.action[:, 0], strict=True)
        taken = {observation.tobytes(): action for observation, action in pairs}
        expected = [taken[observation.tobytes()] for observation in made.observation[first]]
        np.testing.assert_array_equal(action[first], expected)
        assert len(np.unique(expected)) == 20
    else:
        # Uniform in [-1, 1]: mean 0 and mean square 1/3, each within four standard errors.
        assert len(np.unique(action[first])) == 400
        assert np.all(np.abs(action) <= 1.0)
        assert abs(np.mean(action[first])) < 4 * np.sqrt(1 / 3 / 400)
        assert abs(np.mean(action[first] ** 2) - 1 / 3) < 4 * np.sqrt(4 / 45 / 400)


def test_a_policy_acts_for_one_block_of_rows_after_the_other(monkeypatch, key):
    """Each row gets its own action and each block its own noise, whatever the blocks' size."""
    monkeypatch.setattr(layout, "BLOCK_ROWS", 8)
    observation, blocks = jnp.arange(40.0).reshape(20, 2), []

    def policy(key, rows):
        blocks.append(rows.shape)
        noise = jax.random.uniform(key, (*rows.shape[:-1], 1))
        return jnp.concatenate([2.0 * rows, noise], axis=-1)

    action = branching.in_blocks(policy)(key, observation)
    assert set(blocks) == {(1, 7, 2)}
    np.testing.assert_array_equal(action[:, :2], 2.0 * observation)
    assert len(np.unique(action[:, 2])) == 20


@pytest.mark.parametrize("keep", [True, False])
def test_model_transitions_are_kept_at_the_next_fit_or_dropped(key, keep):
    """Each refresh acts by another number, which tells its transitions apart."""
    real_key, *keys = jax.random.split(key, 4)
    config = make_config("mbpo", rollout={"max_length": 1})
    options, real, buffer = (("keep_model_data", keep),), played(real_key, CAPACITY), None
    for i, key in enumerate(keys):
        env_steps = jnp.int32(config.random_steps + i * config.epoch_length)
        buffer, _ = refresh(options, config, key, buffer, real, jnp.float32(i), env_steps)
        # Two epochs of 40 rollouts are retained, if any are.
        kept = [i - 1, i] if keep and i > 0 else [i]
        values, counts = np.unique(rows_of(buffer).action, return_counts=True)
        np.testing.assert_array_equal(values, kept)
        np.testing.assert_array_equal(counts, 40)


def test_before_the_first_real_transition_there_is_nothing_to_branch_from(key):
    """Without random steps the first refresh meets an empty replay buffer."""
    real_key, first_key, second_key = jax.random.split(key, 3)
    config, real = make_config("mbpo", random_steps=0, total_env_steps=40), played(real_key, 8)
    empty, action = real._replace(size=jnp.int32(0)), jnp.float32(0.0)
    buffer, metrics = refresh((), config, first_key, None, empty, action, jnp.int32(0))
    assert int(buffer.size) == metrics["rollout/length"] == 0
    buffer, metrics = refresh((), config, second_key, buffer, real, action, jnp.int32(8))
    assert_true_transitions(rows_of(real), rows_of(buffer))
    assert int(buffer.size) >= 40
    assert metrics["rollout/length"] == 2

"""The contract of an environment, on Brax: successors, limits, resets, repeats.

The pole of `inverted_pendulum` falls within a few steps when it is pushed one way and stands for
many when it is left alone, and its reward is 1 per simulator step, so what must happen is known.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import EnvConfig
from mbpo_jax.envs import make_env
from mbpo_jax.envs.base import play_episodes, random_action, step_or_reset
from mbpo_jax.envs.brax import ENVIRONMENTS, load
from mbpo_jax.envs.termination import brax_rule
from mbpo_jax.types import EnvState, Transition
from tests.choice import mostly_exhaustive

pytestmark = [
    pytest.mark.brax,
]

NUM_STEPS = 60
INITIAL_NOISE = 0.04  # the pendulum starts with a uniform draw of 0.01; the others are wider
PUSH, REST = 1.0, 0.0

fallen = brax_rule("inverted_pendulum", "generalized")


@functools.cache
def pendulum(**settings):
    return make_env(EnvConfig(name="inverted_pendulum", backend="spring", **settings))


class Trajectory(NamedTuple):
    start: EnvState
    states: EnvState
    transitions: Transition


def play(env, key, actions):
    """Take `actions` `[T, A]` with automatic resets."""
    reset_key, steps_key = jax.random.split(key)

    def step(carry, action):
        state, key = carry
        key, step_key = jax.random.split(key)
        state, transition = step_or_reset(env, step_key, state, action)
        return (state, key), (state, transition)

    start = env.reset(reset_key)
    return Trajectory(start, *jax.lax.scan(step, (start, steps_key), actions)[1])


def constant(action, num_steps=NUM_STEPS):
    return jnp.full((num_steps, 1), action)


@pytest.fixture(scope="module")
def falls():
    """Push the pole over, again and again."""
    return jax.jit(functools.partial(play, pendulum()))(jax.random.key(1), constant(PUSH))


@pytest.fixture(scope="module")
def time_outs():
    """Leave the pole alone in episodes of 5 steps, in which it cannot fall."""
    env = pendulum(episode_length=5)
    return jax.jit(functools.partial(play, env))(jax.random.key(2), constant(REST, 20))


@pytest.mark.slow
def test_termination_agrees_with_the_known_rule_at_every_step(falls):
    terminated = falls.transitions.discount == 0
    assert terminated.sum() >= 3
    np.testing.assert_array_equal(fallen(falls.transitions.next_observation), terminated)
    np.testing.assert_array_equal(falls.states.done, terminated)
    np.testing.assert_array_equal(falls.transitions.discount, 1.0 - terminated)


def test_true_successor_is_kept_when_the_state_is_reset(falls):
    terminated = falls.transitions.discount == 0
    successors, following = falls.transitions.next_observation, falls.states.observation
    assert jnp.all(jnp.abs(following[terminated]) < INITIAL_NOISE)
    assert jnp.all(jnp.abs(successors[terminated, 1]) > 0.2)
    np.testing.assert_array_equal(following[~terminated], successors[~terminated])
    np.testing.assert_array_equal(falls.states.steps[terminated], 0)


def test_transitions_start_where_the_state_was(falls):
    before = jnp.concatenate([falls.start.observation[None], falls.states.observation[:-1]])
    np.testing.assert_array_equal(falls.transitions.observation, before)
    np.testing.assert_array_equal(falls.transitions.action, constant(PUSH))


def test_time_limit_ends_an_episode_without_terminating_it(time_outs):
    ended = np.arange(1, 21) % 5 == 0
    np.testing.assert_array_equal(time_outs.states.done, ended)
    np.testing.assert_array_equal(time_outs.transitions.discount, 1.0)
    np.testing.assert_array_equal(time_outs.states.steps, np.arange(1, 21) % 5)
    successors, following = time_outs.transitions.next_observation, time_outs.states.observation
    assert jnp.all(jnp.any(successors != following, axis=-1) == ended)


def test_every_reset_draws_a_new_initial_state(time_outs, falls):
    for trajectory in (time_outs, falls):
        initial = trajectory.states.observation[trajectory.states.done]
        initial = np.concatenate([trajectory.start.observation[None], initial])
        assert len(initial) >= 4
        assert len(np.unique(initial, axis=0)) == len(initial)


def test_discount_is_zero_when_a_fall_meets_the_time_limit(falls, key):
    length = int(jnp.argmax(falls.states.done)) + 1
    before = jax.tree.map(lambda leaf: leaf[length - 2], falls.states)
    env = pendulum(episode_length=length)
    state, transition = jax.jit(env.step)(key, before, jnp.array([PUSH]))
    assert state.done
    assert state.steps == length
    assert transition.discount == 0


@pytest.mark.slow
def test_vmap_over_keys_equals_a_loop(falls):
    def run(seed):
        return play(pendulum(), jax.random.key(seed), constant(PUSH))

    batch = jax.jit(jax.vmap(run))(jnp.array([1, 7]))
    alone = jax.tree.map(lambda leaf: leaf[0], batch.transitions)
    for vmapped, looped in zip(alone, falls.transitions, strict=True):
        np.testing.assert_allclose(vmapped, looped, atol=1e-3)
    assert jnp.all(jnp.any(batch.start.observation[0] != batch.start.observation[1]))


def test_action_repeat_equals_single_steps(falls):
    """Stops inside the repeat at a termination: of three steps two count."""
    fall = int(jnp.argmax(falls.states.done))
    assert fall >= 4
    step = jax.jit(pendulum(action_repeat=3).step)

    def repeated_from(index):
        state = jax.tree.map(lambda leaf: leaf[index], falls.states)
        return step(jax.random.key(0), state, jnp.array([PUSH]))

    for first, last, simulated in ((fall - 3, fall - 1, 3), (fall - 1, fall, 2)):
        state, transition = repeated_from(first - 1)
        single = jax.tree.map(lambda leaf: leaf[first : last + 1], falls.transitions)  # noqa: B023
        assert transition.reward == single.reward.sum() == simulated
        assert transition.discount == single.discount[-1]
        successor = single.next_observation[-1]
        np.testing.assert_allclose(transition.next_observation, successor, atol=1e-4)
        np.testing.assert_allclose(transition.observation, single.observation[0])
        assert state.done == (last == fall)
        assert state.steps == first + 3


def test_episodes_count_until_the_fall(falls, key):
    length = int(jnp.argmax(falls.states.done)) + 1
    env = pendulum(episode_length=NUM_STEPS)._replace(reset=lambda key: falls.start)

    def push(key, memory, state):
        return jnp.array([PUSH]), memory

    returns, lengths, _ = jax.jit(lambda key: play_episodes(env, tuple, push, key, 3))(key)
    np.testing.assert_array_equal(returns, length)
    np.testing.assert_array_equal(lengths, length)


def test_random_actions_fill_the_action_space(key):
    actions = jax.vmap(lambda k: random_action(k, 2))(jax.random.split(key, 4000))
    assert actions.shape == (4000, 2)
    assert jnp.all(jnp.abs(actions) <= 1)
    # The standard error of the mean is 0.009, that of the standard deviation 0.004.
    np.testing.assert_allclose(actions.mean(0), 0.0, atol=0.05)
    np.testing.assert_allclose(actions.std(0), 3**-0.5, atol=0.02)


@pytest.mark.slow
def test_humanoid_observes_positions_without_x_and_y_then_velocities(key):
    env = make_env(EnvConfig(name="humanoid", backend="spring"))
    state = jax.jit(env.reset)(key)
    pose = state.simulator.pipeline_state
    assert state.observation.shape == (45,)
    np.testing.assert_array_equal(state.observation, np.concatenate([pose.q[2:], pose.qd]))


@pytest.mark.slow
def test_fluid_slows_a_gliding_swimmer():
    """In a vacuum a straight swimmer that drives no joint would keep its speed of 1 m/s."""
    swimmer = load("swimmer", "generalized")

    def glide(pose, _):
        return swimmer.pipeline_step(pose, jnp.zeros(2)), None

    forward = jnp.zeros(5).at[0].set(1.0)
    start = swimmer.pipeline_init(jnp.zeros(5), forward)
    pose = jax.jit(lambda start: jax.lax.scan(glide, start, None, 10)[0])(start)
    assert 0.1 < pose.qd[0] < 0.99


COMBINATIONS = [(name, backend) for name in ENVIRONMENTS for backend in ENVIRONMENTS[name].backends]
ONE_OF_EACH_BACKEND = (
    ("hopper", "generalized"),
    ("ant", "spring"),
    ("ant", "positional"),
    ("inverted_pendulum", "mjx"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    mostly_exhaustive(COMBINATIONS, ONE_OF_EACH_BACKEND.__contains__),
)
def test_a_step_returns_the_types_of_a_reset(name, backend, key):
    """Or neither `cond` nor `scan` could carry the state."""
    env = make_env(EnvConfig(name=name, backend=backend))
    fresh = jax.eval_shape(env.reset, key)
    action = jax.ShapeDtypeStruct((env.spec.action_size,), jnp.float32)
    stepped, transition = jax.eval_shape(env.step, key, fresh, action)
    assert jax.tree.structure(fresh) == jax.tree.structure(stepped)
    for old, new in zip(jax.tree.leaves(fresh), jax.tree.leaves(stepped), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    assert all(
        leaf.dtype == jnp.float32 and not leaf.weak_type for leaf in jax.tree.leaves(transition)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    mostly_exhaustive(
        [("hopper", "generalized"), ("inverted_double_pendulum", "generalized"), ("ant", "spring")],
        lambda combination: combination[0] != "hopper",
    ),
)
def test_known_rule_agrees_with_the_simulator(name, backend):
    env = make_env(EnvConfig(name=name, backend=backend))
    actions = jax.random.rademacher(jax.random.key(3), (300, env.spec.action_size), jnp.float32)
    run = jax.jit(functools.partial(play, env))(jax.random.key(4), actions)
    terminated = run.transitions.discount == 0
    assert terminated.sum() >= 3
    predicted = env.terminated(run.transitions.next_observation)
    np.testing.assert_array_equal(predicted, terminated)

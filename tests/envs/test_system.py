"""The contract of an environment, on systems given by equations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.envs.analytic import SYSTEMS, make_analytic_env
from mbpo_jax.envs.base import play_episodes, random_action, step_or_reset
from mbpo_jax.envs.system import System, make_system_env, never

SMOOTH = ("pendulum", "cartpole", "double_pendulum", "lq", "chaotic_rnn")
# The endless probe never reaches its limit, and the clock of the network is slower than the limit.
TERMINATING = {name for name, system in SYSTEMS.items() if system.terminated is not never} - {
    "probe_endless",
    "chaotic_rnn",
}
ROW = System(
    observation_size=1,
    action_size=1,
    dt=0.5,
    initial=lambda key: jnp.zeros(1),
    dynamics=lambda key, state, action: state + action,
    reward=lambda state, action, next_state: 10.0 * state[0] + action[0],
    observe=lambda state: -state,
    terminated=lambda observation: observation[..., 0] <= -2.0,
)
"""A row of numbers to walk along from 0, which ends at 2."""


def walk(env, actions, key):
    """Step without resets; return the states and transitions."""
    state, states, transitions = env.reset(key), [], []
    for action in actions:
        state, transition = env.step(jax.random.key(0), state, jnp.array([action]))
        states.append(state)
        transitions.append(transition)
    return (jax.tree.map(lambda *leaves: np.stack(leaves), *x) for x in (states, transitions))


@functools.partial(jax.jit, static_argnums=(1, 2))
def play(key, env, num_steps):
    """Take random actions with automatic resets; return the transitions."""

    def step(state, key):
        action_key, step_key = jax.random.split(key)
        action = random_action(action_key, env.spec.action_size)
        state, transition = step_or_reset(env, step_key, state, action)
        return state, (transition, state.done)

    reset_key, steps_key = jax.random.split(key)
    return jax.lax.scan(step, env.reset(reset_key), jax.random.split(steps_key, num_steps))[1]


def test_a_walk_by_hand(key):
    states, transitions = walk(make_system_env("row", ROW, 10), [0.5, 1.0, 0.75], key)
    np.testing.assert_array_equal(transitions.observation[:, 0], [0.0, -0.5, -1.5])
    np.testing.assert_array_equal(transitions.next_observation[:, 0], [-0.5, -1.5, -2.25])
    np.testing.assert_array_equal(transitions.reward, [0.5, 6.0, 15.75])
    np.testing.assert_array_equal(transitions.discount, [1.0, 1.0, 0.0])
    np.testing.assert_array_equal(states.simulator[:, 0], [0.5, 1.5, 2.25])
    np.testing.assert_array_equal(states.steps, [1, 2, 3])
    np.testing.assert_array_equal(states.done, [False, False, True])


def test_a_time_limit_ends_an_episode_without_terminating_it(key):
    states, transitions = walk(make_system_env("row", ROW, 2), [0.5, 0.5], key)
    np.testing.assert_array_equal(states.done, [False, True])
    np.testing.assert_array_equal(transitions.discount, [1.0, 1.0])


def test_a_termination_at_the_time_limit_terminates(key):
    states, transitions = walk(make_system_env("row", ROW, 2), [1.0, 1.0], key)
    np.testing.assert_array_equal(states.done, [False, True])
    np.testing.assert_array_equal(transitions.discount, [1.0, 0.0])


def test_actions_are_clipped_and_recorded_as_they_were_carried_out(key):
    states, transitions = walk(make_system_env("row", ROW, 9), [-3.0, 0.5, 7.0], key)
    np.testing.assert_array_equal(transitions.action[:, 0], [-1.0, 0.5, 1.0])
    np.testing.assert_array_equal(states.simulator[:, 0], [-1.0, -0.5, 0.5])


def test_a_repeat_sums_rewards_and_ends_at_a_termination(key):
    """Each step of the simulator pays ten times where it starts, and the action."""
    env = make_system_env("row", ROW, 12, action_repeat=3)
    states, transitions = walk(env, [0.5, 1.0], key)
    np.testing.assert_array_equal(states.simulator[:, 0], [1.5, 2.5])
    np.testing.assert_array_equal(transitions.reward, [(0 + 5 + 10) + 1.5, 15 + 1.0])
    np.testing.assert_array_equal(transitions.discount, [1.0, 0.0])
    np.testing.assert_array_equal(states.steps, [3, 6])
    assert env.spec.dt == 1.5


def test_a_continuing_task_terminates_in_its_transition_alone(key):
    """It goes on by itself, and only the time limit ends an episode."""
    task = ROW._replace(resume=lambda state: state - 2.0)
    states, transitions = walk(make_system_env("row", task, 4), [1.0] * 4, key)
    np.testing.assert_array_equal(transitions.next_observation[:, 0], [-1.0, -2.0, -1.0, -2.0])
    np.testing.assert_array_equal(transitions.discount, [1.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(states.observation[:, 0], [-1.0, 0.0, -1.0, 0.0])
    np.testing.assert_array_equal(states.simulator[:, 0], [1.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(states.done, [False, False, False, True])


def test_a_repeat_of_a_swing_equals_single_steps(key):
    action = jnp.array([0.7])
    single, repeated = (make_analytic_env("pendulum", 50, repeat) for repeat in (1, 3))
    state = single.reset(key)
    rewards = []
    for _ in range(3):
        state, transition = single.step(jax.random.key(1), state, action)
        rewards.append(transition.reward)
    after, transition = repeated.step(jax.random.key(1), single.reset(jax.random.key(0)), action)
    np.testing.assert_allclose(after.simulator, state.simulator, rtol=1e-6)
    np.testing.assert_allclose(transition.reward, sum(rewards), rtol=1e-6)


def test_played_episodes_remember_what_they_began_with(key):
    """An act that halves its memory walks 1, 1/2, 1/4, ... and never gets to 2."""

    def halve(key, memory, state):
        return memory, 0.5 * memory

    env = make_system_env("row", ROW, 6)
    returns, lengths, _ = play_episodes(env, lambda: jnp.ones(1), halve, key, 2)
    steps = 0.5 ** np.arange(6)
    starts = np.cumsum(np.append(0.0, steps))[:-1]
    np.testing.assert_allclose(returns, np.sum(10 * starts + steps), rtol=1e-6)
    np.testing.assert_array_equal(lengths, 6.0)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_step_returns_the_types_of_a_reset(name, key):
    """Or neither `cond` nor `scan` could carry the state."""
    env = make_analytic_env(name, 5)
    fresh = jax.eval_shape(env.reset, key)
    action = jax.ShapeDtypeStruct((env.spec.action_size,), jnp.float32)
    stepped, transition = jax.eval_shape(env.step, key, fresh, action)
    assert fresh.simulator.ndim == 1
    for old, new in zip(fresh, stepped, strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    for leaf in jax.tree.leaves(transition):
        assert leaf.dtype == jnp.float32
        assert not leaf.weak_type


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_known_rule_and_the_time_limit_explain_every_end(name, key):
    """Long enough for a random walk to find the goal of a maze now and then."""
    limit = 500 if "maze" in name else 30
    env = make_analytic_env(name, limit)
    transitions, done = jax.device_get(play(key, env, 4000))
    terminated = np.asarray(env.terminated(transitions.next_observation))
    np.testing.assert_array_equal(transitions.discount, 1.0 - terminated)
    assert np.isfinite(transitions.next_observation).all()
    assert np.any(terminated) == (name in TERMINATING)
    final = terminated & (SYSTEMS[name].resume is None)
    run = 0
    for ended, last in zip(done, final, strict=True):
        run += 1
        assert ended == (last or run == limit)
        run = 0 if ended else run


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_of_a_step_are_those_of_finite_differences(name, key):
    """Of reward and successor with respect to state and action, through a repeat, too."""
    env = make_analytic_env(name, 100, action_repeat=2)
    start_key, weights_key = jax.random.split(key)
    start = env.reset(start_key)
    size = start.simulator.size
    weights = jax.random.normal(weights_key, (env.spec.observation_size,))

    @jax.jit
    def outcome(point):
        state = start._replace(simulator=point[:size])
        _, transition = env.step(jax.random.key(2), state, point[size:])
        return transition.reward + weights @ transition.next_observation

    point = jnp.append(start.simulator, 0.3 * jnp.ones(env.spec.action_size))
    step = 1e-2
    expected = [
        (outcome(point + step * axis) - outcome(point - step * axis)) / (2 * step)
        for axis in jnp.eye(point.size)
    ]
    np.testing.assert_allclose(jax.grad(outcome)(point), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["double_pendulum", "lq", "maths_test", "blocking_maze"])
def test_vmap_equals_a_loop(name, key):
    env = make_analytic_env(name, 100)

    def outcome(seed):
        reset_key, step_key, action_key = jax.random.split(jax.random.key(seed), 3)
        action = random_action(action_key, env.spec.action_size)
        return env.step(step_key, env.reset(reset_key), action)

    together = jax.jit(jax.vmap(outcome))(jnp.arange(3))
    for i in range(3):
        alone = jax.jit(outcome)(i)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-5, atol=1e-6)

"""The linear-quadratic problem against its closed forms, and the chaotic network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.envs.analytic import make_analytic_env
from mbpo_jax.envs.finite_horizon import chaotic_map, make_lq
from mbpo_jax.envs.system import make_system_env

HORIZON = 20
DRIFT, CONTROL, WEIGHT, PRICE, NOISE = 1.1, 0.5, 1.0, 0.1, 0.04
SCALE = 4.0

GENERATOR = np.random.default_rng(0)
A, B = GENERATOR.normal(size=(3, 3)), GENERATOR.normal(size=(3, 2))
Q, R, TERMINAL, COVARIANCE = (
    root @ root.T + 0.1 * np.eye(len(root))
    for root in (GENERATOR.normal(size=(n, n)) for n in (3, 2, 3, 3))
)
START = np.array([0.3, -0.2, 0.5])


def lq(**changes):
    problem = {
        "A": A,
        "B": B,
        "Q": Q,
        "R": R,
        "noise_covariance": COVARIANCE,
        "x0": START,
        "horizon": 3,
        "terminal": TERMINAL,
        "action_scale": 2.0,
    }
    return make_system_env("lq", make_lq(**problem | changes), 100)


def riccati():
    """Return the feedback gains of the scalar problem, first to last, and the value's weight."""
    value, gains = WEIGHT, []
    for _ in range(HORIZON):
        gain = -DRIFT * CONTROL * value / (PRICE + CONTROL**2 * value)
        value = WEIGHT + PRICE * gain**2 + value * (DRIFT + CONTROL * gain) ** 2
        gains.insert(0, gain)
    return np.array(gains), value


def costs(env, key, controls, episodes):
    """Play the scalar problem by `controls(x, t)` and return the costs of some episodes."""

    def episode(key):
        def step(carry, t):
            state, key = carry
            key, step_key = jax.random.split(key)
            action = controls(state.simulator[0], t) / SCALE
            state, transition = env.step(step_key, state, action[None])
            return (state, key), -transition.reward

        return jnp.sum(jax.lax.scan(step, (env.reset(key), key), jnp.arange(HORIZON))[1])

    with jax.debug_key_reuse(False):  # the start is fixed, so `reset` uses no randomness
        return np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(key, episodes)))


def closed_loop(x, t):
    return jnp.asarray(riccati()[0], jnp.float32)[t] * x


def open_loop(x, t):
    gains, _ = riccati()
    states = np.cumprod(np.append(1.0, DRIFT + CONTROL * gains))[:-1]
    return jnp.asarray(gains * states, jnp.float32)[t]


def test_a_step_has_the_given_matrices_as_derivatives():
    env = lq()
    state = env.reset(jax.random.key(0))

    def following(simulator, action):
        before = state._replace(simulator=simulator)
        return env.step(jax.random.key(1), before, action)[0].simulator

    by_state, by_action = jax.jacobian(following, (0, 1))(state.simulator, jnp.zeros(2))
    clock = np.eye(4)[3:]
    np.testing.assert_allclose(by_state[:3, :3], A, rtol=1e-6)
    np.testing.assert_array_equal(by_state[3:], clock)
    np.testing.assert_array_equal(by_state[:3, 3], 0.0)
    np.testing.assert_allclose(by_action[:3], 2.0 * B, rtol=1e-6)
    np.testing.assert_array_equal(by_action[3], 0.0)


def test_the_reward_is_minus_the_quadratic_cost():
    env = lq(noise_covariance=np.zeros((3, 3)))
    state = env.reset(jax.random.key(0))
    x, actions = START, np.array([[0.5, -0.2], [0.1, 0.9], [-0.3, 0.4], [1.0, 1.0]])
    for t, action in enumerate(actions):
        u = 2.0 * action
        following = A @ x + B @ u
        cost = x @ Q @ x + u @ R @ u + (t == 2) * following @ TERMINAL @ following
        state, transition = env.step(jax.random.key(1), state, jnp.asarray(action, jnp.float32))
        # Three steps are the whole of it: then the clock has run down, and nothing is paid.
        assert float(transition.reward) == pytest.approx(-cost * (t < 3), rel=1e-5)
        assert float(transition.discount) == (t < 2)
        expected = np.append(following, (t + 1) / 3)
        np.testing.assert_allclose(transition.next_observation, expected, rtol=1e-5)
        x = following


def test_without_a_terminal_weight_the_last_state_is_free():
    rewards = []
    for terminal in (None, np.zeros((3, 3))):
        env = lq(terminal=terminal, horizon=1)
        _, transition = env.step(jax.random.key(1), env.reset(jax.random.key(0)), jnp.zeros(2))
        rewards.append(float(transition.reward))
    assert rewards == [pytest.approx(-START @ Q @ START, rel=1e-5)] * 2


def test_the_noise_has_the_given_covariance(key):
    env = lq()
    keys = jax.random.split(key, 20_000)
    state = env.reset(jax.random.key(0))
    after = jax.jit(jax.vmap(lambda key: env.step(key, state, jnp.zeros(2))[0].simulator[:3]))(keys)
    # The standard error of a covariance is at most about the product of the spreads over 141.
    spreads = np.sqrt(np.diag(COVARIANCE))
    error = np.abs(np.cov(after.T) - COVARIANCE) / np.outer(spreads, spreads)
    assert error.max() < 0.05
    np.testing.assert_array_less(np.abs(after.mean(0) - A @ START) / spreads, 5 / np.sqrt(20_000))


def test_a_singular_covariance_leaves_its_direction_exact(key):
    env = lq(noise_covariance=np.diag([1.0, 0.0, 1.0]))
    _, transition = env.step(key, env.reset(jax.random.key(1)), jnp.zeros(2))
    expected = A @ START
    assert float(transition.next_observation[1]) == pytest.approx(expected[1], rel=1e-5)
    assert abs(float(transition.next_observation[0]) - expected[0]) > 1e-3


def test_without_noise_the_optimal_cost_is_the_riccati_value(key):
    problem = make_lq(DRIFT, CONTROL, WEIGHT, PRICE, 0.0, 1.0, HORIZON, terminal=1.0)
    env = make_system_env("lq", problem, HORIZON)
    _, value = riccati()
    assert value == pytest.approx(1.374925, abs=1e-6)
    for controls in (closed_loop, open_loop):
        assert costs(env, key, controls, 1)[0] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    ("controls", "expected"), [(closed_loop, 2.458622), (open_loop, 46.140185)]
)
def test_the_default_costs_what_theory_says(controls, expected, key):
    """Feedback sees the noise; a plan made in advance lets the unstable system carry it away."""
    cost = costs(make_analytic_env("lq", HORIZON), key, controls, 20_000)
    assert abs(cost.mean() - expected) < 4 * cost.std() / np.sqrt(len(cost))
    assert cost.std() / np.sqrt(len(cost)) < 0.02 * expected


def test_the_clock_ends_an_episode_and_a_time_limit_only_cuts_it():
    action = jnp.zeros(1)
    for limit, discount in ((HORIZON + 5, 0.0), (HORIZON - 5, 1.0)):
        env = make_analytic_env("lq", limit)
        state, length = env.reset(jax.random.key(0)), 0
        step = jax.jit(env.step)
        while not state.done:
            state, transition = step(jax.random.key(length), state, action)
            length += 1
        assert length == min(limit, HORIZON)
        assert float(transition.discount) == discount
        assert bool(env.terminated(transition.next_observation)) == (discount == 0.0)


def chaotic(t, s=(0.35, 0.55)):
    env = make_analytic_env("chaotic_rnn", 100)
    return env, env.reset(jax.random.key(0))._replace(simulator=jnp.array([*s, t]))


def test_the_action_shifts_the_gain(key):
    """By hand: (0.35, 0.55) W = (1, 5)."""
    env, state = chaotic(0.0)
    for action, gain in ((0.0, 2.4), (1.0, 2.9), (-1.0, 1.9)):
        after, transition = env.step(jax.random.clone(key), state, jnp.array([action]))
        expected = 1 / (1 + np.exp(-gain * np.array([1.0, 5.0])))
        np.testing.assert_allclose(after.simulator[:2], expected, atol=5 * 0.001)
        assert after.simulator[2] == 1.0
        assert float(transition.reward) == 0.0
        assert float(transition.next_observation[2]) == pytest.approx(0.01)


def test_the_noise_of_the_network_is_small_and_normal(key):
    env, state = chaotic(3.0)
    step = jax.jit(jax.vmap(lambda key: env.step(key, state, jnp.zeros(1))[0].simulator[:2]))
    noise = (step(jax.random.split(key, 5000)) - chaotic_map(state.simulator[:2], 2.4)[None]) / 1e-3
    np.testing.assert_allclose(noise.mean(0), 0.0, atol=5 / np.sqrt(5000))
    np.testing.assert_allclose(noise.std(0), 1.0, atol=5 / np.sqrt(10_000))
    np.testing.assert_allclose((noise**4).mean(0), 3.0, atol=5 * np.sqrt(96 / 5000))


def test_the_loss_is_paid_at_the_last_step():
    for t, pays in ((98.0, False), (99.0, True), (100.0, False)):
        env, state = chaotic(t)
        after, transition = env.step(jax.random.key(1), state, jnp.zeros(1))
        loss = 0.5 * np.sum((1 - np.asarray(after.simulator[:2])) ** 2)
        assert float(transition.reward) == pytest.approx(-loss * pays, rel=1e-6)
        assert float(transition.discount) == (t < 99)


def test_the_pathwise_gradient_is_the_published_one(key):
    """After 10 steps, the loss has the derivative 0.04555 with respect to the gain."""
    env, start = chaotic(0.0)

    def loss(action, key):
        def step(state, key):
            return env.step(key, state, action[None])[0], None

        state = jax.lax.scan(step, start, jax.random.split(key, 10))[0]
        return 0.5 * jnp.sum(jnp.square(1 - state.simulator[:2]))

    gradient = functools.partial(jax.grad(loss), jnp.float32(0))
    # Under `vmap`, the check takes the keys that a scan reads row by row for used ones.
    with jax.debug_key_reuse(False):
        gradients = 2.0 * np.asarray(jax.jit(jax.vmap(gradient))(jax.random.split(key, 8000)))
    error = gradients.std() / np.sqrt(len(gradients))
    assert error < 1e-3
    assert abs(gradients.mean() - 0.04555) < 4 * np.hypot(error, 0.00017)
    assert gradients.var() == pytest.approx(0.0026, rel=0.15)

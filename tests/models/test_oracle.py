"""The true system as a model, on a point mass whose velocity is not observed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.envs.base import step_or_reset
from mbpo_jax.envs.system import System, make_system_env
from mbpo_jax.models import rollout
from mbpo_jax.models.imagination import imagine
from mbpo_jax.models.oracle import make_oracle, where_rows
from mbpo_jax.types import Env, EnvState, Point, Transition

LIMIT = 3.0
EPISODE = 3


def point_mass(noise: float = 0.0, broken_beyond: float = np.inf) -> Env:
    """Build `x' = x + v, v' = 0.9 v + a + noise`, observe x alone, pay `x' - 2 a`.

    The episode terminates where x exceeds LIMIT, and positions beyond `broken_beyond` are NaN.
    """

    def dynamics(key, state, action):
        x = state[0] + state[1]
        velocity = 0.9 * state[1] + action[0] + noise * jax.random.normal(key, ())
        return jnp.stack([jnp.where(x > broken_beyond, jnp.nan, x), velocity])

    system = System(
        observation_size=1,
        action_size=1,
        dt=1.0,
        initial=lambda key: jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0),
        dynamics=dynamics,
        reward=lambda state, action, next_state: next_state[0] - 2.0 * action[0],
        observe=lambda state: state[:1],
        terminated=lambda observation: observation[..., 0] > LIMIT,
    )
    return make_system_env("point_mass", system, EPISODE)


def recorded(key: jax.Array, env: Env, num_steps: int) -> Transition:
    """Play random actions and keep with each transition the simulator state that it began in."""

    def step(state: EnvState, keys: jax.Array):
        action = jax.random.uniform(keys[0], (1,), minval=-1.0, maxval=1.0)
        following, transition = step_or_reset(env, keys[1], state, action)
        return following, transition._replace(simulator=state.simulator)

    reset_key, steps_key = jax.random.split(key)
    keys = jax.random.split(steps_key, (num_steps, 2))
    return jax.jit(lambda start, keys: jax.lax.scan(step, start, keys)[1])(
        env.reset(reset_key), keys
    )


def points(simulator) -> Point:
    simulator = jnp.asarray(simulator, jnp.float32)
    return Point(simulator[:, :1], simulator)


def test_a_step_is_the_environments_own_row_by_row(key):
    env = point_mass()
    oracle = make_oracle(env)
    simulator = np.array([[0.5, -0.2], [2.9, 0.2], [-1.0, 0.3], [2.9, 0.0]])
    action = jnp.array([[0.5], [-1.0], [0.25], [1.0]])
    one_key, *keys = jax.random.split(key, 5)
    step = jax.jit(lambda key, point, action: oracle.step(key, (), point, action, "step"))
    start = points(simulator)
    point, prediction = step(one_key, start, action)
    np.testing.assert_array_equal(prediction.discount, [1.0, 0.0, 1.0, 1.0])
    np.testing.assert_array_equal(prediction.finite, True)
    for i, row_key in enumerate(keys):
        before = EnvState(start.simulator[i], start.observation[i], jnp.int32(0), jnp.bool_(False))
        after, transition = jax.jit(env.step)(row_key, before, action[i])
        np.testing.assert_array_equal(point.observation[i], transition.next_observation)
        np.testing.assert_array_equal(point.simulator[i], after.simulator)
        assert prediction.reward[i] == transition.reward
        assert prediction.discount[i] == transition.discount


def test_there_is_no_time_limit(key):
    """The environment ends an episode after three steps; a rollout of ten is not cut."""
    oracle = make_oracle(point_mass())
    start = points([[-2.0, 0.1], [0.0, 0.1]])

    def act(key, observation):
        return jnp.full_like(observation, 0.01), ()

    steps, end = jax.jit(
        lambda key: imagine(key, oracle, (), start, act, horizon=10, propagation="trajectory")
    )(key)
    np.testing.assert_array_equal(steps.discount, 1.0)
    # With a constant push of 0.01, the velocity stays at 0.1.
    np.testing.assert_allclose(end.observation[:, 0], [-1.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(end.simulator[:, 1], 0.1, atol=1e-6)


def test_rollouts_branch_from_stored_simulator_states(key):
    """Recorded episodes are played again, through the replay buffer, along their own actions."""
    env = point_mass()
    oracle = make_oracle(env)
    play_key, branch_key = jax.random.split(key)
    # Two episodes are cut by the time limit; none terminates from so near to the origin.
    data = recorded(play_key, env, 2 * EPISODE)
    np.testing.assert_array_equal(data.discount, 1.0)
    real = replay.add(replay.init(8, 1, 1, simulator=jnp.zeros(2)), data)
    starts = replay.take(real, jnp.array([0, 3]))

    def policy(key, observation):
        """Take the action that was recorded at this observation."""
        nearest = jnp.argmin(jnp.abs(observation - data.observation[:, 0][None]), axis=1)
        return data.action[nearest]

    buffer, _, metrics = jax.jit(
        lambda key: rollout.branch(
            key,
            oracle,
            (),
            policy,
            starts,
            starts.action,
            replay.init(6, 1, 1),
            length=3,
            max_size=6,
        )
    )(branch_key)
    made, _ = replay.newest(buffer, 6)
    assert (made.log_prob, made.simulator) == ((), ())
    # Step by step, the two rollouts side by side.
    order = np.array([0, 3, 1, 4, 2, 5])
    expected = jax.tree.map(lambda x: x[order], data)._replace(simulator=())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), made, expected)
    assert metrics["rollout/length_mean"] == 3.0


def test_following_makes_real_transitions_again_and_tells_where_they_led(key):
    """Also across a time limit, where the buffer's next row is of another episode."""
    env = point_mass()
    oracle = make_oracle(env)
    play_key, follow_key = jax.random.split(key)
    data = recorded(play_key, env, 4 * EPISODE)._replace(log_prob=jnp.arange(12.0))
    forgotten = data._replace(
        reward=jnp.full(12, 77.0),
        discount=jnp.zeros(12),
        next_observation=jnp.full((12, 1), 77.0),
    )
    point, again = jax.jit(lambda key: oracle.follow(key, (), forgotten))(follow_key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), again, data)
    np.testing.assert_array_equal(point.observation, again.next_observation)
    x, velocity = np.asarray(data.simulator).T
    np.testing.assert_allclose(point.simulator[:, 0], x + velocity, rtol=1e-6)
    expected = 0.9 * velocity + np.asarray(data.action)[:, 0]
    np.testing.assert_allclose(point.simulator[:, 1], expected, rtol=1e-5, atol=1e-6)


def test_every_row_and_key_has_noise_of_its_own(key):
    oracle = make_oracle(point_mass(noise=0.5))
    start = points(np.zeros((3000, 2)))
    step = jax.jit(lambda key: oracle.step(key, (), start, jnp.zeros((3000, 1)), "step")[0])
    first, second = (np.asarray(step(k).simulator[:, 1]) for k in jax.random.split(key))
    for velocity in (first, second):
        np.testing.assert_allclose(velocity.mean(), 0.0, atol=5 * 0.5 / np.sqrt(3000))
        np.testing.assert_allclose(velocity.std(), 0.5, rtol=0.07)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(3000)
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 5 / np.sqrt(3000)


def test_a_non_finite_outcome_ends_a_rollout_where_it_is(key):
    oracle = make_oracle(point_mass(broken_beyond=1.0))
    simulator = [[0.5, 0.2], [0.9, 0.3], [-1.0, 0.1]]
    step = jax.jit(lambda key: oracle.step(key, (), points(simulator), jnp.ones((3, 1)), "step"))
    point, prediction = step(key)
    np.testing.assert_array_equal(prediction.finite, [True, False, True])
    np.testing.assert_array_equal(prediction.discount, [1.0, 0.0, 1.0])
    np.testing.assert_allclose(prediction.reward, [-1.3, 0.0, -2.9], rtol=1e-6)
    expected = [[0.7, 1.18], [0.9, 0.3], [-0.9, 1.09]]
    np.testing.assert_allclose(point.simulator, expected, rtol=1e-6)
    np.testing.assert_array_equal(point.observation, point.simulator[:, :1])


def test_a_real_transition_that_cannot_be_made_again_ends_where_it_began(key):
    oracle = make_oracle(point_mass(broken_beyond=1.0))
    simulator = jnp.array([[0.9, 0.3], [0.5, 0.2]])
    far = jnp.full((2, 1), 77.0)
    batch = Transition(simulator[:, :1], jnp.ones((2, 1)), far[:, 0], far[:, 0], far, (), simulator)
    point, again = jax.jit(lambda key: oracle.follow(key, (), batch))(key)
    np.testing.assert_array_equal(again.discount, [0.0, 1.0])
    np.testing.assert_allclose(again.reward, [0.0, -1.3], rtol=1e-6)
    np.testing.assert_allclose(again.next_observation, [[0.9], [0.7]], rtol=1e-6)
    np.testing.assert_array_equal(point.observation, again.next_observation)
    np.testing.assert_array_equal(point.simulator[0], simulator[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_reward_ends_a_rollout_too(key, bad):
    env = point_mass()

    def step(key, state, action):
        after, transition = env.step(key, state, action)
        reward = jnp.where(state.observation[0] > 0.0, bad, transition.reward)
        return after, transition._replace(reward=reward)

    oracle = make_oracle(env._replace(step=step))
    start = points([[-0.5, 0.1], [0.5, 0.1]])
    point, prediction = jax.jit(lambda key: oracle.step(key, (), start, jnp.zeros((2, 1)), "step"))(
        key
    )
    np.testing.assert_array_equal(prediction.finite, [True, False])
    np.testing.assert_array_equal(prediction.discount, [1.0, 0.0])
    np.testing.assert_allclose(prediction.reward, [-0.4, 0.0], rtol=1e-6)
    np.testing.assert_allclose(point.observation[:, 0], [-0.4, 0.5], rtol=1e-6)


def test_slopes_go_through_the_simulator(key):
    """With actions a_t = g, the last of three positions is `x + v + (v' = 0.9 v + g) + ...`."""
    oracle = make_oracle(point_mass())
    start = points([[0.1, 0.2]])

    def last_position(push):
        def act(key, observation):
            return jnp.full((1, 1), push), ()

        return imagine(key, oracle, (), start, act, horizon=3, propagation="step")[1].observation[
            0, 0
        ]

    # x_3 = x + v + (0.9 v + g) + (0.81 v + 0.9 g + g): the last action has not moved it yet.
    value, slope = jax.jit(jax.value_and_grad(last_position))(0.3)
    np.testing.assert_allclose(value, 0.1 + 0.2 * 2.71 + 2.9 * 0.3, rtol=1e-5)
    np.testing.assert_allclose(slope, 2.9, rtol=1e-5)


def test_there_is_nothing_to_fit(key):
    oracle = make_oracle(point_mass())
    assert (oracle.num_members, oracle.needs_simulator) == (1, True)
    assert oracle.init(key) == ()
    assert oracle.fit(None, (), None, 10) == ((), {})
    assert oracle.ready(()) == ()
    assert oracle.diagnose((), None) == {}
    assert oracle.start("observation", "simulator") == Point("observation", "simulator")


def test_rows_are_chosen_in_every_leaf_of_a_simulator_state():
    chosen = {"x": jnp.ones((3, 2, 2)), "n": jnp.array([1, 1, 1]), "b": jnp.array([True] * 3)}
    other = jax.tree.map(jnp.zeros_like, chosen)
    condition = jnp.array([True, False, True])
    picked = where_rows(condition, chosen, other)
    for name, leaf in picked.items():
        assert leaf.dtype == chosen[name].dtype
        expected = np.broadcast_to(
            np.expand_dims(condition, tuple(range(1, leaf.ndim))), leaf.shape
        )
        np.testing.assert_array_equal(leaf, expected)

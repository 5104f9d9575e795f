"""Soft actor-critic against re-derivations, limits, and environments with known values."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mbpo_jax.algorithms  # noqa: F401 - makes configurations arguments of compiled functions
from mbpo_jax import replay
from mbpo_jax.agents import sac
from mbpo_jax.agents.actor_critic import (
    ValueRange,
    followed_range,
    make_actor_critic,
    make_networks,
    target_q,
)
from mbpo_jax.agents.sac import Regression, make_sac
from mbpo_jax.config import SACConfig
from mbpo_jax.types import EnvSpec, EnvState, Transition
from tests.choice import mostly_exhaustive
from tests.probe_environments import PROBES, RIGHT_ACTION, probe_data

pytestmark = pytest.mark.smoke

SPEC = EnvSpec("any", 3, 2, episode_length=10, action_repeat=1, dt=0.1)
SMALL = SACConfig(hidden_sizes=(8,), learning_rate=1e-2, tau=0.1, gamma=0.9, batch_size=16)


def random_batch(seed=0, rows=16):
    normal = np.random.default_rng(seed).normal(size=(rows, 10)).astype(np.float32)
    return Transition(
        observation=jnp.asarray(normal[:, :3]),
        action=jnp.tanh(jnp.asarray(normal[:, 3:5])),
        reward=jnp.asarray(normal[:, 5]),
        discount=jnp.asarray(normal[:, 6] > 0, jnp.float32),
        next_observation=jnp.asarray(normal[:, 7:]),
    )


@jax.jit
def one_update(config, key, batch):
    """Return the agent's state before and after one update, and its metrics."""
    agent = make_sac(SPEC, config)
    init_key, update_key = jax.random.split(key)
    state = agent.init(init_key)
    return state, *agent.update(update_key, state, (), batch)


def env_at(observation) -> EnvState:
    return EnvState((), observation, jnp.int32(0), jnp.bool_(False))


# The losses, one by one.


@pytest.fixture
def q():
    return np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


@pytest.fixture
def log_prob():
    return np.random.default_rng(2).normal(size=5).astype(np.float32)


def test_soft_value_is_value_plus_entropy(q, log_prob):
    value = sac.soft_value(jnp.asarray(q[0]), jnp.asarray(log_prob), jnp.float32(0.3))
    np.testing.assert_allclose(value, q[0] - 0.3 * log_prob, rtol=1e-5)


def test_critic_loss_is_half_the_mean_square_summed_over_critics(q):
    target = np.arange(5, dtype=np.float32)
    expected = sum(0.5 * np.mean((one - target) ** 2) for one in q)
    np.testing.assert_allclose(
        sac.critic_loss(jnp.asarray(q), jnp.asarray(target)), expected, rtol=1e-6
    )


def test_policy_loss_is_entropy_cost_minus_value(q, log_prob):
    expected = np.mean(0.3 * log_prob - q[0])
    loss = sac.policy_loss(jnp.asarray(q[0]), jnp.asarray(log_prob), jnp.float32(0.3))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("gap", [-0.7, 0.0, 0.7])
def test_temperature_gradient_is_the_gap_between_entropy_and_its_target(log_prob, gap):
    """With entropy `-mean(log pi)` a gap above the target, alpha has to fall in proportion."""
    entropy = -np.mean(log_prob)
    gradient = jax.grad(sac.temperature_loss)(
        jnp.float32(0.4), jnp.asarray(log_prob), float(entropy - gap)
    )
    np.testing.assert_allclose(gradient, gap, atol=1e-6)


# One update, re-derived.


def dense(layers, name, x):
    bias = jnp.expand_dims(layers[name]["bias"], tuple(range(x.ndim - 1)))
    return x @ layers[name]["kernel"] + bias


def mlp(params, x):
    layers = params["params"]
    return dense(layers, "layer_1", jnp.maximum(dense(layers, "layer_0", x), 0.0))


def sampled_action(policy, observation, noise):
    """Squash a Gaussian; the density is divided by the slope of tanh (arXiv:1801.01290, app. C)."""
    mean, log_std = jnp.split(mlp(policy, observation), 2, axis=-1)
    std = jnp.exp(jnp.clip(log_std, -20.0, 2.0))
    x = mean + std * noise
    log_normal = -0.5 * noise**2 - jnp.log(std * jnp.sqrt(2 * jnp.pi))
    # The slope of tanh is 1 / cosh^2.
    log_cosh = jnp.logaddexp(x, -x) - jnp.log(2.0)
    return jnp.tanh(x), jnp.sum(log_normal + 2 * log_cosh, axis=-1)


def smallest_q(critics, observation, action):
    values = all_q(critics, observation, action)
    return functools.reduce(jnp.minimum, values)


def all_q(critics, observation, action):
    number = len(jax.tree.leaves(critics)[0])
    x = jnp.concatenate([observation, action], axis=-1)
    return [mlp(jax.tree.map(lambda leaf, i=i: leaf[i], critics), x)[:, 0] for i in range(number)]


def adam_step(loss, params):
    """Return the value of a loss and the parameters after a first step of Adam on it alone.

    The first step divides each gradient by its own magnitude.
    """
    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    step = jax.tree.map(lambda g: SMALL.learning_rate * g / (jnp.abs(g) + 1e-8), gradient)
    return value, jax.tree.map(jnp.subtract, params, step)


def optimised_update(config, key, batch):
    """Make an update by optimised code: of other code jaxlib 0.12 makes infinite gradients here."""
    optimised = {"xla_backend_optimization_level": 2}
    return one_update.lower(config, key, batch).compile(optimised)(config, key, batch)


@pytest.mark.parametrize("num_critics", mostly_exhaustive([1, 2, 5], (2).__eq__))
def test_an_update_is_three_separate_gradient_steps(key, num_critics):
    """Each loss moves its own parameters only, and sees the other ones as they are."""
    config = dataclasses.replace(SMALL, num_critics=num_critics, target_entropy=-1.5)
    batch = random_batch()
    update_key = jax.random.split(jax.random.clone(key))[1]
    critic_key, policy_key = jax.random.split(update_key)
    value_key, _ = jax.random.split(critic_key)
    noise = [jax.random.normal(k, batch.action.shape) for k in (value_key, policy_key)]
    before, after, metrics = optimised_update(config, key, batch)
    alpha = jnp.exp(before.log_alpha)

    def critic_loss(critics):
        action, log_prob = sampled_action(before.policy, batch.next_observation, noise[0])
        value = smallest_q(before.target_critics, batch.next_observation, action) - alpha * log_prob
        target = jnp.where(batch.discount == 0, batch.reward, batch.reward + 0.9 * value)
        values = all_q(critics, batch.observation, batch.action)
        return sum(0.5 * jnp.mean((q - target) ** 2) for q in values)

    def policy_loss(policy):
        action, log_prob = sampled_action(policy, batch.observation, noise[1])
        return jnp.mean(alpha * log_prob - smallest_q(critics, batch.observation, action))

    critic_value, critics = adam_step(critic_loss, before.critics)
    policy_value, policy = adam_step(policy_loss, before.policy)
    entropy = -jnp.mean(sampled_action(before.policy, batch.observation, noise[1])[1])
    log_alpha = before.log_alpha - 1e-2 * jnp.sign(entropy + 1.5)

    for actual, expected in ((after.critics, critics), (after.policy, policy)):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), actual, expected)
    np.testing.assert_allclose(metrics["sac/critic_loss"], critic_value, rtol=1e-4)
    np.testing.assert_allclose(metrics["sac/policy_loss"], policy_value, rtol=1e-4)
    np.testing.assert_allclose(metrics["sac/entropy"], entropy, rtol=1e-4)
    np.testing.assert_allclose(after.log_alpha, log_alpha, rtol=1e-4)
    np.testing.assert_allclose(metrics["sac/alpha"], np.exp(log_alpha), rtol=1e-4)
    assert len(jax.tree.leaves(after.critics)[0]) == num_critics


def test_with_exploration_noise_it_learns_a_deterministic_policy_and_has_no_temperature(key):
    """An update is that of DDPG with the minimum over critics; its noise is in acting alone."""
    config = dataclasses.replace(SMALL, exploration_noise=0.3, initial_alpha=5.0)
    batch = random_batch()
    before, after, metrics = optimised_update(config, key, batch)

    def action_of(policy, observation):
        return jnp.tanh(jnp.split(mlp(policy, observation), 2, axis=-1)[0])

    def critic_loss(critics):
        action = action_of(before.policy, batch.next_observation)
        value = smallest_q(before.target_critics, batch.next_observation, action)
        target = jnp.where(batch.discount == 0, batch.reward, batch.reward + 0.9 * value)
        values = all_q(critics, batch.observation, batch.action)
        return sum(0.5 * jnp.mean((q - target) ** 2) for q in values)

    def policy_loss(policy):
        return -jnp.mean(
            smallest_q(critics, batch.observation, action_of(policy, batch.observation))
        )

    critic_value, critics = adam_step(critic_loss, before.critics)
    policy_value, policy = adam_step(policy_loss, before.policy)
    for actual, expected in ((after.critics, critics), (after.policy, policy)):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), actual, expected)
    np.testing.assert_allclose(metrics["sac/critic_loss"], critic_value, rtol=1e-4)
    np.testing.assert_allclose(metrics["sac/policy_loss"], policy_value, rtol=1e-4)
    assert metrics["sac/alpha"] == 0.0

    agent = make_sac(SPEC, config)
    observation = jnp.tile(batch.observation[:1], (20_000, 1))
    drawn = jnp.arctanh(agent.policy(before)(jax.random.key(1), observation))
    center = jnp.arctanh(agent.deterministic(before, observation))
    np.testing.assert_allclose(jnp.mean(drawn - center, axis=0), 0.0, atol=5 * 0.3 / 20_000**0.5)
    np.testing.assert_allclose(jnp.std(drawn - center, axis=0), 0.3, rtol=0.03)


@pytest.mark.parametrize(("target_entropy", "direction"), [(5.0, 1), (-50.0, -1)])
def test_temperature_steers_entropy_to_its_target(key, target_entropy, direction):
    config = dataclasses.replace(SMALL, target_entropy=target_entropy)
    before, after, _ = one_update(config, key, random_batch())
    assert np.sign(after.log_alpha - before.log_alpha) == direction


@pytest.mark.parametrize("tau", [0.0, 1e-3, 1.0])
def test_target_critics_move_by_tau(key, tau):
    before, after, _ = one_update(dataclasses.replace(SMALL, tau=tau), key, random_batch())

    def check(target, old, new):
        assert not np.array_equal(old, new)
        np.testing.assert_allclose(target, (1 - tau) * old + tau * new, atol=1e-7)

    jax.tree.map(check, after.target_critics, before.target_critics, after.critics)


def test_target_critics_start_equal_but_in_memory_of_their_own(key):
    state = make_sac(SPEC, SMALL).init(key)
    pairs = map(jax.tree.leaves, (state.critics, state.target_critics))
    for critic, target in zip(*pairs, strict=True):
        np.testing.assert_array_equal(critic, target)
        assert critic.unsafe_buffer_pointer() != target.unsafe_buffer_pointer()


@pytest.mark.parametrize("layer_norm", [False, True])
def test_layer_norm_in_the_critics_undoes_the_scale_of_their_input(key, layer_norm):
    """Biases start at zero, so a ReLU critic is homogeneous of degree one, and 0 if normalised."""
    config = dataclasses.replace(SMALL, critic_layer_norm=layer_norm)
    batch, factor = random_batch(), 4.0
    scaled = batch._replace(observation=factor * batch.observation, action=factor * batch.action)
    state, _, metrics = one_update(config, jax.random.clone(key), batch)
    _, _, scaled_metrics = one_update(config, key, scaled)
    expected = metrics["sac/q_mean"] * (1.0 if layer_norm else factor)
    np.testing.assert_allclose(scaled_metrics["sac/q_mean"], expected, rtol=1e-3)
    assert ("norm_0" in state.critics["params"]) == layer_norm
    assert "norm_0" not in state.policy["params"]


def test_stochastic_actions_scatter_around_the_deterministic_one(key):
    """Tanh is monotone, so the median of the action is tanh of the Gaussian's mean."""
    agent = make_sac(SPEC, SMALL)
    init_key, observation_key, noise_key, key = jax.random.split(key, 4)
    state = agent.init(init_key)
    observation = jax.random.normal(observation_key, (3,))
    rows = jnp.broadcast_to(observation, (4000, 3))
    actions = agent.policy(state)(noise_key, rows)
    mode, _ = agent.act(key, state, (), agent.begin(), env_at(observation), False)
    assert actions.shape == (4000, 2)
    assert jnp.all(jnp.abs(actions) <= 1.0)
    expected = jnp.tanh(jnp.split(mlp(state.policy, observation), 2)[0])
    np.testing.assert_allclose(mode, expected, rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(actions < mode[None], axis=0), 0.5, atol=0.04)


def test_to_explore_is_to_act_as_the_policy_of_model_rollouts(key):
    agent = make_sac(SPEC, SMALL)
    init_key, act_key = jax.random.split(key)
    state, observation = agent.init(init_key), jnp.array([0.3, -1.0, 2.0])
    expected = agent.policy(state)(jax.random.clone(act_key), observation)
    action, _ = agent.act(act_key, state, (), agent.begin(), env_at(observation), True)
    np.testing.assert_array_equal(action, expected)


def test_log_prob_is_the_density_with_which_actions_are_drawn(key):
    agent = make_sac(SPEC, SMALL)
    init_key, noise_key = jax.random.split(key)
    state, observation = agent.init(init_key), random_batch(rows=50).observation
    noise = jax.random.normal(noise_key, (50, 2))
    action, expected = sampled_action(state.policy, observation, noise)
    # Nearer to the edge, float32 does not tell an action from the next one.
    inside = jnp.all(jnp.abs(action) < 0.99, axis=-1)
    assert jnp.sum(inside) > 20
    log_prob = agent.log_prob(state, observation, action)
    np.testing.assert_allclose(log_prob[inside], expected[inside], atol=1e-3)


# The slots.


@functools.partial(jax.jit, static_argnums=0)
def slotted_update(slots, state, key, view, batch):
    return make_sac(SPEC, SMALL, **dict(slots)).update(key, state, view, batch)


def weighted(key, nets, state, view, batch) -> Regression:
    """Regress the stored actions to the rewards, weighted by what stands in the view."""
    return Regression(batch.observation, batch.action, batch.reward, view)


def unweighted(key, nets, state, view, batch) -> Regression:
    return Regression(batch.observation, batch.action, batch.reward)


def test_a_weighted_critic_loss_is_the_mean_of_weighted_squares(q):
    target, weight = np.arange(5, dtype=np.float32), np.array([0, 1, 2, 0.5, 3], np.float32)
    expected = sum(0.5 * np.mean(weight * (one - target) ** 2) for one in q)
    loss = sac.critic_loss(*map(jnp.asarray, (q, target, weight)))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_rows_of_weight_zero_teach_the_critics_nothing(key):
    """Weights of 2 and 0 in equal shares make the mean over half of the rows."""
    batch = random_batch()
    state = make_sac(SPEC, SMALL).init(jax.random.clone(key))
    odd = jnp.arange(16) % 2
    half = jax.tree.map(lambda x: x[1::2], batch)
    after, metrics = slotted_update(
        (("critic_target", weighted),), state, jax.random.clone(key), 2.0 * odd, batch
    )
    expected, expected_metrics = slotted_update(
        (("critic_target", unweighted),), state, key, (), half
    )
    np.testing.assert_allclose(
        metrics["sac/critic_loss"], expected_metrics["sac/critic_loss"], rtol=1e-5
    )
    check = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(check, after.critics, expected.critics)
    jax.tree.map(check, after.target_critics, expected.target_critics)


def test_the_critics_regress_to_what_their_slot_says(key):
    """Also at observations and actions, and in numbers of rows, that are not the batch's."""
    state = make_sac(SPEC, SMALL).init(jax.random.clone(key))
    observation, action, goal = 0.5 * jnp.ones((40, 3)), -0.2 * jnp.ones((40, 2)), 3.0

    def constant(key, nets, state, view, batch) -> Regression:
        return Regression(observation, action, jnp.full(40, goal))

    slots = (("critic_target", constant),)
    after, metrics = slotted_update(slots, state, key, (), random_batch())
    values = [float(q[0]) for q in all_q(state.critics, observation, action)]
    new_values = [float(q[0]) for q in all_q(after.critics, observation, action)]
    expected = sum(0.5 * (value - goal) ** 2 for value in values)
    np.testing.assert_allclose(metrics["sac/critic_loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["sac/q_mean"], np.mean(values), rtol=1e-4)
    for value, new_value in zip(values, new_values, strict=True):
        assert value < new_value < goal


@pytest.mark.parametrize("log_prob", [-3.0, 7.0])
def test_the_actors_slot_moves_the_policy_and_its_log_density_the_temperature(key, log_prob):
    """A bowl around the view's number: each weight goes one step of Adam towards it."""

    def bowl(key, nets, policy, state, view, batch):
        distance = jax.tree.map(lambda x: 0.5 * jnp.sum((x - view) ** 2), policy)
        return sum(jax.tree.leaves(distance)), jnp.full(16, log_prob)

    state = make_sac(SPEC, SMALL).init(jax.random.clone(key))
    slots = (("actor_objective", bowl),)
    after, metrics = slotted_update(slots, state, key, jnp.float32(50.0), random_batch())
    jax.tree.map(
        lambda new, old: np.testing.assert_allclose(new, old + 1e-2, atol=1e-6),
        after.policy,
        state.policy,
    )
    # The target entropy is -1 and the entropy minus the log-density.
    rise = 1e-2 * np.sign(log_prob - 1.0)
    np.testing.assert_allclose(after.log_alpha - state.log_alpha, rise, rtol=1e-4)
    np.testing.assert_allclose(metrics["sac/entropy"], -log_prob, rtol=1e-6)


def test_the_defaults_of_the_slots_are_td0_and_the_critics_gradient(key):
    state = make_sac(SPEC, SMALL).init(jax.random.clone(key))
    batch = random_batch()
    slots = ("critic_target", sac.td0_target(SMALL.gamma)), ("actor_objective", sac.q_objective)
    named = slotted_update(slots, state, jax.random.clone(key), (), batch)
    jax.tree.map(np.testing.assert_array_equal, named, slotted_update((), state, key, (), batch))


# Environments with known values.

PROBE_SPEC = PROBES["constant"].spec
PROBE_GAMMA = 0.5
PROBE_CONFIG = SACConfig(
    hidden_sizes=(16,),
    learning_rate=1e-2,
    tau=0.2,
    gamma=PROBE_GAMMA,
    # Next to no entropy, and steered towards none: values are those of the plain return.
    initial_alpha=1e-3,
    target_entropy=-20.0,
)
NUM_UPDATES = 400


@pytest.fixture(scope="module")
def train():
    """Return a function `(key, data) -> SACState`, compiled once for all probes."""
    agent = make_sac(PROBE_SPEC, PROBE_CONFIG)

    @jax.jit
    def train(key, data):
        init_key, rows_key, updates_key = jax.random.split(key, 3)
        rows = jax.random.randint(rows_key, (NUM_UPDATES, 64), 0, data.reward.shape[0])

        def update(state, inputs):
            key, rows = inputs
            batch = jax.tree.map(lambda x: x[rows], data)
            return agent.update(key, state, (), batch)[0], None

        keys = jax.random.split(updates_key, NUM_UPDATES)
        return jax.lax.scan(update, agent.init(init_key), (keys, rows))[0]

    def learn(key, name):
        data_key, train_key = jax.random.split(key)
        return train(train_key, probe_data(data_key, PROBES[name], 256))

    return learn


def value(state, observation, action=0.0):
    """Return the mean over critics of Q at one observation and action."""
    row = jnp.full((1, 1), observation), jnp.full((1, 1), action)
    return float(jnp.mean(jnp.stack(all_q(state.critics, *row))))


def test_a_constant_reward_that_ends_the_episode_is_worth_one(key, train):
    assert value(train(key, "constant"), 0.0) == pytest.approx(1.0, abs=0.03)


def test_a_reward_of_the_observation_is_worth_the_observation(key, train):
    state = train(key, "observation")
    assert value(state, 1.0) == pytest.approx(1.0, abs=0.05)
    assert value(state, -1.0) == pytest.approx(-1.0, abs=0.05)


def test_a_reward_one_step_away_is_worth_gamma(key, train):
    state = train(key, "delayed")
    assert value(state, 0.0) == pytest.approx(PROBE_GAMMA, abs=0.05)
    assert value(state, 1.0) == pytest.approx(1.0, abs=0.05)


def test_the_policy_finds_the_action_that_is_rewarded(key, train):
    state = train(key, "action")
    act = make_sac(PROBE_SPEC, PROBE_CONFIG).act
    action, _ = act(key, state, (), (), env_at(jnp.zeros(1)), False)
    assert float(action[0]) == pytest.approx(RIGHT_ACTION, abs=0.1)
    assert value(state, 0.0, RIGHT_ACTION) == pytest.approx(0.0, abs=0.05)


def test_a_time_limit_does_not_stop_the_bootstrap(key, train):
    """A constant reward for ever is worth 1 / (1 - gamma), however its episodes are cut."""
    state = train(key, "endless")
    assert value(state, 0.0) == pytest.approx(1.0 / (1.0 - PROBE_GAMMA), abs=0.05)


# What may be chosen about critics and observations.


def test_the_target_is_the_smallest_of_some_critics_which_change(key):
    config = dataclasses.replace(SMALL, num_critics=3, num_target_critics=2)
    state = make_sac(SPEC, config).init(jax.random.clone(key))
    nets = make_actor_critic(make_networks(SPEC, config), config, state)
    observation, action = random_batch().observation, random_batch().action
    all_values = np.stack(all_q(state.target_critics, observation, action))
    pairs = [all_values[list(pair)].min(axis=0) for pair in ((0, 1), (0, 2), (1, 2))]
    met = set()
    for draw in jax.random.split(key, 30):
        got = target_q(nets.chosen(draw, state.target_critics), nets, observation, action)
        near = [np.allclose(got, pair, rtol=1e-5, atol=1e-6) for pair in pairs]
        assert sum(near) == 1
        met.add(near.index(True))
    assert met == {0, 1, 2}


@pytest.mark.parametrize(("policy_value", "expected"), [("min", np.min), ("mean", np.mean)])
def test_the_policy_climbs_the_minimum_or_the_mean(key, policy_value, expected):
    config = dataclasses.replace(SMALL, num_critics=3, policy_value=policy_value)
    state = make_sac(SPEC, config).init(jax.random.clone(key))
    nets = make_actor_critic(make_networks(SPEC, config), config, state)
    batch = random_batch()
    loss, log_prob = sac.q_objective(jax.random.clone(key), nets, state.policy, state, (), batch)
    action, _ = nets.sample(key, state.policy, batch.observation)
    q = expected(np.stack(all_q(state.critics, batch.observation, action)), axis=0)
    alpha = np.exp(state.log_alpha)
    np.testing.assert_allclose(loss, np.mean(alpha * log_prob - q), rtol=1e-5, atol=1e-6)


def test_scaled_observations_are_those_that_the_buffer_has_seen(key):
    """With a scaler the policy does what it does without one on observations that are scaled."""
    rng = np.random.default_rng(0)
    observation = (5.0 + 3.0 * rng.normal(size=(6, SPEC.observation_size))).astype(np.float32)
    batch = jax.tree.map(lambda x: jnp.zeros((6, *x.shape[1:])), random_batch())
    batch = batch._replace(observation=jnp.asarray(observation))
    real = replay.add(replay.init(10, SPEC.observation_size, SPEC.action_size), batch)
    config = dataclasses.replace(SMALL, scale_observations=True)
    agent, plain = make_sac(SPEC, config), make_sac(SPEC, SMALL)
    state = agent.init(key)
    before = agent.deterministic(state, batch.observation)
    np.testing.assert_array_equal(before, plain.deterministic(state, batch.observation))
    state = agent.observe(state, real)
    np.testing.assert_allclose(state.scaler.mean, observation.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state.scaler.std, observation.std(axis=0), rtol=1e-5)
    scaled = (observation - observation.mean(axis=0)) / observation.std(axis=0)
    got = agent.deterministic(state, batch.observation)
    expected = plain.deterministic(state._replace(scaler=()), jnp.asarray(scaled))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert plain.observe(state, real) is state


def test_the_range_of_values_follows_the_rewards(key):
    config = dataclasses.replace(SMALL, value_range="rewards", gamma=0.9)
    first, second = (jnp.linspace(*ends, 101) for ends in ((-1.0, 3.0), (0.0, 10.0)))
    nothing = make_sac(SPEC, config).init(key).value_range
    once = followed_range(nothing, first, config)
    np.testing.assert_allclose(once, (-9.6, 29.6), rtol=1e-5)
    twice = followed_range(once, second, config)
    expected = 0.9997 * np.asarray(once) + 3e-4 * np.asarray([1.0, 99.0])
    np.testing.assert_allclose(twice, expected, rtol=1e-5)
    alike = followed_range(nothing, jnp.full(7, -2.0), config)
    assert alike.low < alike.high


def test_critics_say_what_they_say_within_the_range(key):
    config = dataclasses.replace(SMALL, value_range="rewards")
    state = make_sac(SPEC, config).init(jax.random.clone(key))
    state = state._replace(value_range=ValueRange(jnp.float32(-1.0), jnp.float32(0.01)))
    nets = make_actor_critic(make_networks(SPEC, config), config, state)
    batch = random_batch()
    critics = make_sac(SPEC, SMALL).init(jax.random.clone(key)).critics  # not zero at the end
    raw = np.stack(all_q(critics, batch.observation, batch.action))
    q = nets.q_values(critics, batch.observation, batch.action)
    np.testing.assert_allclose(q, -0.495 + 0.505 * raw, rtol=1e-4, atol=1e-5)
    state = state._replace(target_critics=jax.tree.map(lambda x: 100.0 * x, critics))
    critics = nets.chosen(key, state.target_critics)
    target = target_q(critics, nets, batch.observation, batch.action)
    assert np.min(target) == -1.0
    assert np.max(target) <= np.float32(0.01)


def test_an_update_of_the_critics_alone_leaves_the_policy(key):
    agent = make_sac(SPEC, SMALL)
    before = agent.init(jax.random.clone(key))
    after = jax.jit(agent.update_critics)(key, before, (), random_batch())
    for name in ("policy", "log_alpha", "policy_optimizer", "alpha_optimizer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    changed = jax.tree.map(lambda a, b: np.any(a != b), after.critics, before.critics)
    assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(("target_entropy", "expected"), [(None, -2.0), (-0.5, -0.5)])
def test_a_target_entropy_of_none_is_minus_the_number_of_actions(key, target_entropy, expected):
    """The temperature's first moment in Adam is a tenth of its gradient."""
    config = dataclasses.replace(SMALL, target_entropy=target_entropy)
    agent = make_sac(SPEC, config)
    state, metrics = jax.jit(agent.update)(key, agent.init(jax.random.key(1)), (), random_batch())
    (moment,) = jax.tree.leaves(optax.tree_utils.tree_get(state.alpha_optimizer, "mu"))
    np.testing.assert_allclose(10.0 * moment, metrics["sac/entropy"] - expected, rtol=1e-4)


def test_without_real_transitions_observations_stay_as_they_are(key):
    agent = make_sac(SPEC, dataclasses.replace(SMALL, scale_observations=True))
    state = agent.init(key)
    empty = replay.init(10, SPEC.observation_size, SPEC.action_size)
    jax.tree.map(np.testing.assert_array_equal, agent.observe(state, empty), state)


def test_values_begin_in_the_middle_of_their_range(key):
    config = dataclasses.replace(SMALL, value_range="rewards")
    state = make_sac(SPEC, config).init(key)
    state = state._replace(value_range=ValueRange(jnp.float32(-200.0), jnp.float32(600.0)))
    nets = make_actor_critic(make_networks(SPEC, config), config, state)
    batch = random_batch()
    q = nets.q_values(state.critics, batch.observation, batch.action)
    np.testing.assert_array_equal(q, np.full(q.shape, 200.0))

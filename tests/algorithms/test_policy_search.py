"""Policy gradients on model rollouts (pg, bptt): exact values, limits, baselines, terminations."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm, pg
from mbpo_jax.algorithms import policy_search as shared
from mbpo_jax.algorithms.bptt import pathwise_gradient
from mbpo_jax.config import Config, PolicySearchConfig
from mbpo_jax.nets.distributions import tanh_normal, tanh_normal_log_prob
from mbpo_jax.types import DynamicsModel, EnvSpec, Point, Prediction, Transition
from tests import scalar_control
from tests.probe_environments import PROBES, RIGHT_ACTION, make_env

A, B = 1.1, 0.5
STARTS = np.array([1.0, -0.4, 0.7, 0.1])
SPEC = EnvSpec("scalar", 1, 1, episode_length=10, action_repeat=3, dt=0.1)
EXACT = (-0.6, 0.2, -30.0, 0.0)
"""Gain and offset of the mean before the tanh, which acts without noise."""


def settings(**changes) -> PolicySearchConfig:
    defaults = {"hidden_sizes": (), "gamma": 0.9, "entropy_weight": 0.0, "gae_decay": 1.0}
    return PolicySearchConfig(**defaults | changes)


def scalar_model(dynamics=lambda x, a: A * x + B * a, limit=jnp.inf) -> DynamicsModel:
    """Make `x' = A x + B a` with reward `-x^2 - 0.1 a^2`, terminating where `x' > limit`."""

    def step(key, view, point, action, propagation):
        x, a = point.observation, action
        following = dynamics(x, a)
        reward = -(jnp.square(x) + 0.1 * jnp.square(a))[:, 0]
        discount = 1.0 - (following[:, 0] > limit)
        return Point(following), Prediction(reward, discount, jnp.ones_like(reward, bool))

    return scalar_control.make_model()._replace(step=step)


def linear_policy(gain, offset, log_std, log_std_gain=0.0):
    kernel = jnp.asarray([[gain, log_std_gain]], jnp.float32)
    return {"params": {"layer_0": {"kernel": kernel, "bias": jnp.asarray([offset, log_std])}}}


def flat(gradient):
    """Return the derivatives in gain, offset, log_std and log_std_gain."""
    layer = gradient["params"]["layer_0"]
    (gain, log_std_gain), (offset, log_std) = layer["kernel"][0], layer["bias"]
    return jnp.stack([gain, offset, log_std, log_std_gain])


def batch_at(starts) -> Transition:
    x = jnp.asarray(starts, jnp.float32)[:, None]
    return Transition(x, x, x[:, 0], x[:, 0], x)


@functools.partial(jax.jit, static_argnames="model")
def gradient_of_bptt(key, config, policy, starts=STARTS, model=None):
    search = shared.make_search(SPEC, config)
    model = model or scalar_model()
    return flat(pathwise_gradient(key, search, model, (), policy, batch_at(starts))[0])


def gradient_of_pg(key, config, policy, starts=STARTS, model=None):
    """Return the estimate with a baseline that is wrong, which must not matter."""
    search, net = shared.make_search(SPEC, config), pg.make_baseline(SPEC, config)
    kernel = jnp.asarray([[0.3], [0.8]])
    baseline = {"params": {"layer_0": {"kernel": kernel, "bias": jnp.asarray([-1.5])}}}
    made = shared.roll_out(key, search, model or scalar_model(), (), policy, batch_at(starts))
    value = pg.baseline_values(net, baseline, made.observation)
    advantage = pg.returns(made, value, config) - value
    return flat(jax.grad(pg.likelihood_ratio_loss)(policy, search, made, advantage))


def exact_objective(theta, config):
    """Integrate J over the policy's noise by Gauss-Hermite quadrature, in float64."""
    gain, offset, log_std, log_std_gain = theta
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    grid = np.meshgrid(*[nodes] * config.horizon, indexing="ij")
    weight = functools.reduce(np.multiply.outer, [weights / weights.sum()] * config.horizon)
    total = 0.0
    for x in STARTS:
        for t, noise in enumerate(grid):
            log_scale = log_std_gain * x + log_std
            action = np.tanh(gain * x + offset + np.exp(log_scale) * noise)
            log_prob = -0.5 * noise**2 - log_scale - 0.5 * np.log(2 * np.pi)
            log_prob -= np.log1p(-(action**2))
            reward = -(x**2) - 0.1 * action**2 - config.entropy_weight * log_prob
            total += config.gamma**t * np.sum(weight * reward)
            x = A * x + B * action
    return total / len(STARTS)


def differences(function, theta, step=1e-5):
    moves = step * np.eye(len(theta))
    return np.array([(function(theta + d) - function(theta - d)) / (2 * step) for d in moves])


@pytest.mark.parametrize("estimate", [gradient_of_bptt, gradient_of_pg])
def test_both_gradients_have_the_exact_mean(key, estimate):
    config = settings(horizon=3, entropy_weight=0.3)
    theta = np.array([-0.6, 0.2, -0.7, 0.1])
    exact = -differences(lambda theta: exact_objective(theta, config), theta)
    starts = np.tile(STARTS, 250)
    policy = linear_policy(*theta)
    gradients = jax.jit(
        lambda keys: jax.lax.map(lambda key: estimate(key, config, policy, starts), keys)
    )(jax.random.split(key, 400))
    gradients = np.asarray(gradients, np.float64)
    error = (gradients.mean(axis=0) - exact) / (gradients.std(axis=0, ddof=1) / np.sqrt(400))
    assert np.all(np.abs(error) < 4.5)
    # What is tested is not lost in the noise; the last derivative is next to zero.
    assert np.all(np.abs(exact)[:3] > 10.0 * gradients.std(axis=0)[:3] / np.sqrt(400))


def chain_rule(gain, offset, config, start):
    """Return the derivatives of -J from one start without noise, by the adjoint recursion."""
    states, actions = [start], []
    for _ in range(config.horizon):
        actions.append(np.tanh(gain * states[-1] + offset))
        states.append(A * states[-1] + B * actions[-1])
    adjoint, gradient = 0.0, np.zeros(2)
    for t in reversed(range(config.horizon)):
        x, a = states[t], actions[t]
        slope = 1.0 - a**2
        to_action = config.gamma**t * 0.2 * a + B * adjoint
        gradient += to_action * slope * np.array([x, 1.0])
        adjoint = config.gamma**t * 2.0 * x + A * adjoint + to_action * slope * gain
        if config.truncation and t % config.truncation == 0:
            adjoint = 0.0
        if config.max_cotangent_norm:
            adjoint = np.clip(adjoint, -config.max_cotangent_norm, config.max_cotangent_norm)
    return gradient


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"truncation": 1},
        {"truncation": 2},
        {"truncation": 100},
        {"max_cotangent_norm": 0.8},
        {"max_cotangent_norm": 100.0},
        {"max_cotangent_norm": 0.8, "truncation": 3},
    ],
    ids=str,
)
def test_backpropagation_follows_the_chain_rule_up_to_its_limits(key, limits):
    config = settings(horizon=6, **limits)
    got = gradient_of_bptt(key, config, linear_policy(*EXACT))
    expected = np.mean([chain_rule(*EXACT[:2], config, start) for start in STARTS], axis=0)
    np.testing.assert_allclose(got[:2], expected, rtol=1e-5)


def test_the_limit_of_a_rows_gradient_does_not_depend_on_how_many_rows_there_are(key):
    config = settings(horizon=6, max_cotangent_norm=0.8)
    few, many = (
        gradient_of_bptt(jax.random.clone(key), config, linear_policy(*EXACT), np.ones(num_rows))
        for num_rows in (1, 50)
    )
    np.testing.assert_allclose(few[:2], many[:2], rtol=1e-5)


def exploding(x, a):
    return 10.0 * jnp.square(x) + a


@pytest.mark.parametrize("max_cotangent_norm", [None, 1.0])
def test_what_a_model_does_after_a_termination_leaves_the_gradient_alone(key, max_cotangent_norm):
    """From 1 the first step leads beyond the limit, and in eight, if they counted, to infinity."""
    model = scalar_model(exploding, limit=5.0)
    config = settings(horizon=30, max_cotangent_norm=max_cotangent_norm)
    got = gradient_of_bptt(key, config, linear_policy(*EXACT), np.ones(1), model)
    action = np.tanh(EXACT[0] + EXACT[1])
    np.testing.assert_allclose(got[:2], 0.2 * action * (1 - action**2), rtol=1e-5)


def test_rollouts_that_terminated_are_held_where_they_were(key):
    config = settings(horizon=4)
    search, model = shared.make_search(SPEC, config), scalar_model(limit=1.5)
    policy = linear_policy(0.0, 0.0, -30.0)
    made = shared.roll_out(key, search, model, (), policy, batch_at([1.3, 2.0, 0.1]))
    np.testing.assert_array_equal(made.discount, [[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_array_equal(shared.alive(made), [[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_allclose(made.observation[:, 0, 0], [1.3, 1.43, 1.43, 1.43], rtol=1e-6)
    np.testing.assert_allclose(made.observation[:, 1, 0], 2.0)
    metrics = shared.rollout_metrics("x", made, config)
    np.testing.assert_allclose(metrics["x/length"], (2 + 1 + 4) / 3)
    paid = np.sum([1.3**2 + 0.9 * 1.43**2, 2.0**2, *[(0.9 * 1.21) ** t * 0.01 for t in range(4)]])
    np.testing.assert_allclose(metrics["x/model_return"], -paid / 3, rtol=1e-5)


def made_by_hand(rng, discount) -> shared.Rollouts:
    num_steps, num_rows = discount.shape
    draws = {"observation": (2,), "noise": (1,), "log_prob": (), "reward": ()}
    arrays = {
        name: jnp.asarray(rng.normal(size=(num_steps, num_rows, *shape)), jnp.float32)
        for name, shape in draws.items()
    }
    return shared.Rollouts(**arrays, discount=jnp.asarray(discount, jnp.float32))


def test_advantages_are_decayed_sums_of_temporal_differences():
    rng = np.random.default_rng(0)
    discount = np.ones((5, 3))
    discount[2:, 1] = 0.0
    config = settings(gae_decay=0.7, entropy_weight=0.4)
    made = made_by_hand(rng, discount)
    value = rng.normal(size=(5, 3))
    got = pg.returns(made, jnp.asarray(value, jnp.float32), config) - jnp.asarray(value)
    # Nothing is left to be paid after the last step.
    following = np.concatenate([value[1:], np.zeros((1, 3))])
    soft = np.asarray(made.reward - 0.4 * made.log_prob, np.float64)
    difference = soft + 0.9 * discount * following - value
    for t in range(5):
        expected, weight = np.zeros(3), np.ones(3)
        for k in range(t, 5):
            expected += weight * difference[k]
            weight = weight * 0.9 * 0.7 * discount[k]
        np.testing.assert_allclose(got[t], expected, rtol=1e-4, atol=1e-5)


def test_steps_after_a_termination_weigh_nothing_in_either_loss_of_pg():
    rng = np.random.default_rng(1)
    discount = np.ones((4, 2))
    discount[1:, 0] = 0.0
    config = settings(hidden_sizes=(4,))
    spec = SPEC._replace(observation_size=2)
    search, net = shared.make_search(spec, config), pg.make_baseline(spec, config)
    policy, baseline = (
        jax.jit(network.init)(jax.random.key(seed))
        for seed, network in enumerate((search.policy_net, net))
    )
    made = made_by_hand(rng, discount)
    other = jax.tree.map(lambda x: x.at[2:, 0].multiply(3.0), made)
    advantage = jnp.asarray(rng.normal(size=(4, 2)), jnp.float32)
    for loss in (
        jax.jit(lambda made, x: pg.likelihood_ratio_loss(policy, search, made, x)),
        jax.jit(lambda made, x: pg.baseline_loss(baseline, net, made, x)),
    ):
        value = loss(made, advantage)
        np.testing.assert_allclose(loss(other, advantage.at[2:, 0].set(9.0)), value, rtol=1e-6)
        assert not np.isclose(loss(made, advantage.at[1, 0].set(9.0)), value)


def test_the_score_is_the_derivative_of_the_log_density_at_fixed_actions(key):
    noise = jax.random.normal(key, (20, 2))
    mean, log_std = jnp.linspace(-0.5, 0.5, 40).reshape(20, 2), jnp.full((20, 2), -0.8)
    action, _ = tanh_normal(mean, log_std, noise)
    expected = jax.grad(lambda *x: jnp.sum(tanh_normal_log_prob(*x, action)), (0, 1))(mean, log_std)
    got = jax.grad(lambda *x: jnp.sum(pg.score_function(*x, noise)), (0, 1))(mean, log_std)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_the_score_of_a_saturated_action_is_exact():
    """At mean 30 the action is 1 in float32, from which no pre-image can be told."""
    slope = jax.grad(pg.score_function)(jnp.full(1, 30.0), jnp.full(1, -1.0), jnp.full(1, 0.5))
    np.testing.assert_allclose(slope, 0.5 * np.e, rtol=1e-6)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted():
    search = shared.make_search(SPEC, settings())
    params = linear_policy(*EXACT)
    before = shared.Trained(params, search.optimizer.init(params))
    for wrong in (jnp.nan, jnp.inf, 1e30):
        gradient = jax.tree.map(lambda x, y=wrong: jnp.ones_like(x).at[0].set(y), params)
        after, norm, skipped = shared.descend(search, before, gradient)
        jax.tree.map(np.testing.assert_array_equal, after, before)
        assert not np.isfinite(norm)
        assert skipped == 1.0


def test_a_finite_gradient_moves_parameters_by_adam_and_reports_its_norm():
    search = shared.make_search(SPEC, settings(learning_rate=0.01))
    params = linear_policy(*EXACT)
    before = shared.Trained(params, search.optimizer.init(params))
    gradient = linear_policy(3.0, -4.0, 12.0, 0.0)
    after, norm, skipped = shared.descend(search, before, gradient)
    # The first step of Adam has the size of the rate in each component.
    moved = flat(after.params) - flat(params)
    np.testing.assert_allclose(moved, [-0.01, 0.01, -0.01, 0.0], rtol=1e-3)
    np.testing.assert_allclose(norm, 13.0, rtol=1e-6)
    assert skipped == 0.0


@pytest.mark.parametrize(("max_norm", "scale"), [(1.3, 0.1), (26.0, 1.0)])
def test_a_gradient_longer_than_its_limit_is_scaled_down(max_norm, scale):
    @jax.jit
    def first_moment(max_norm):
        search = shared.make_search(SPEC, settings(max_gradient_norm=max_norm))
        params = linear_policy(*EXACT)
        before = shared.Trained(params, search.optimizer.init(params))
        gradient = linear_policy(3.0, -4.0, 12.0, 0.0)
        return flat(shared.descend(search, before, gradient)[0].optimizer[1][0].mu)

    # Adam's first moment is a tenth of the first gradient; the limit is a traced number.
    expected = 0.1 * scale * np.array([3.0, -4.0, 12.0, 0.0])
    np.testing.assert_allclose(first_moment(max_norm), expected, rtol=1e-5)


def test_a_rollout_is_as_long_as_an_episode_unless_told_otherwise():
    assert shared.make_search(SPEC, settings()).horizon == 4
    assert shared.make_search(SPEC, settings(horizon=7)).horizon == 7


def trained(env, algorithm, num_updates, batch, **changes):
    """Return agent and state after some updates with the true system, and the last metrics."""
    config = Config(algorithm=algorithm, model="oracle", search=settings(**changes))
    agent = make_algorithm(env, config).agent

    @jax.jit
    def train(key):
        init_key, updates_key = jax.random.split(key)
        keys = jax.random.split(updates_key, num_updates)
        return jax.lax.scan(
            lambda state, key: agent.update(key, state, (), batch), agent.init(init_key), keys
        )

    state, metrics = train(jax.random.key(0))
    return agent, state, jax.tree.map(lambda x: x[-1], metrics)


def at_zero(num_rows) -> Transition:
    zeros = jnp.zeros((num_rows, 1))
    return Transition(zeros, zeros, zeros[:, 0], zeros[:, 0], zeros, simulator=zeros)


@pytest.mark.parametrize("algorithm", ["pg", "bptt"])
def test_the_policy_finds_the_action_that_is_rewarded_most(algorithm):
    env = PROBES["action"]
    agent, state, metrics = trained(
        env, algorithm, 400, at_zero(32), learning_rate=0.02, hidden_sizes=(4,)
    )
    start = env.reset(jax.random.key(1))
    action, memory = agent.act(jax.random.key(2), state, (), (), start, False)
    np.testing.assert_allclose(action, RIGHT_ACTION, atol=0.05)
    assert memory == ()
    assert metrics[f"{algorithm}/skipped"] == 0.0
    np.testing.assert_allclose(metrics[f"{algorithm}/length"], 1.0)


@pytest.mark.parametrize(
    ("probe", "values"),
    [
        # A reward of 1 in each of four steps.
        ("endless", [1 + 0.9 + 0.81 + 0.729, 1 + 0.9 + 0.81, 1 + 0.9, 1.0]),
        # The second step is paid 1 and the last.
        ("delayed", [0.9, 1.0]),
    ],
)
def test_the_baseline_learns_the_value_of_what_is_left_of_a_rollout(probe, values):
    env = PROBES[probe]
    num_steps = len(values)
    _, state, metrics = trained(
        env, "pg", 600, at_zero(4), learning_rate=0.02, hidden_sizes=(8,), gae_decay=0.5
    )
    config = settings(hidden_sizes=(8,))
    observation = jnp.zeros((4, 1, 1)) if probe == "endless" else jnp.arange(4.0)[:, None, None]
    value = pg.baseline_values(
        pg.make_baseline(env.spec, config), state.baseline.params, observation
    )
    np.testing.assert_allclose(value[:num_steps, 0], values, atol=0.03)
    assert metrics["pg/baseline_loss"] < 1e-3
    np.testing.assert_allclose(metrics["pg/model_return"], values[0], rtol=1e-5)


def test_a_model_without_a_finite_derivative_skips_updates_and_spoils_nothing(key):
    def move(key, observation, action):
        return observation, jnp.sqrt(0.0 * action[0]), jnp.bool_(False)

    env = make_env("edge", (1, 1), 3, lambda key: jnp.zeros(1), move)
    agent, state, metrics = trained(env, "bptt", 2, at_zero(4)._replace(simulator=()))
    fresh = jax.jit(agent.init)(jax.random.split(jax.random.key(0))[0])
    jax.tree.map(np.testing.assert_array_equal, state, fresh)
    assert metrics["bptt/skipped"] == 1.0
    assert np.isnan(metrics["bptt/gradient_norm"])


def test_exploration_draws_from_the_policy_and_evaluation_takes_its_mode(key):
    config = Config(algorithm="bptt", model="oracle", search=settings())
    env = PROBES["action"]
    agent = make_algorithm(env, config).agent
    policy = linear_policy(0.0, 0.4, -0.5)
    state = shared.SearchState(shared.Trained(policy, ()), ())
    start = env.reset(jax.random.key(1))
    assert agent.batch_size == config.search.num_rollouts
    mode, _ = agent.act(jax.random.clone(key), state, (), (), start, False)
    np.testing.assert_allclose(mode, np.tanh(0.4), rtol=1e-6)
    keys = jax.random.split(key, 4000)
    drawn, _ = jax.vmap(lambda key: agent.act(key, state, (), (), start, True))(keys)
    raw = np.arctanh(np.asarray(drawn, np.float64))
    assert abs(raw.mean() - 0.4) < 4.5 * np.exp(-0.5) / np.sqrt(4000)
    assert abs(raw.std() / np.exp(-0.5) - 1) < 4.5 / np.sqrt(8000)


def test_runs_side_by_side_have_their_own_settings(key):
    """A limit, a discount and a rate are numbers of a run, not of the program."""

    def updated(key, gamma, limit):
        config = dataclasses.replace(settings(horizon=3), gamma=gamma, max_cotangent_norm=limit)
        return gradient_of_bptt(key, config, linear_policy(*EXACT))

    gammas, limits = jnp.array([0.5, 0.99]), jnp.array([0.3, 10.0])
    keys = jax.random.split(key)
    # Under `vmap` JAX takes the first half of a split key for the whole of it.
    with jax.debug_key_reuse(False):
        together = jax.jit(jax.vmap(updated))(keys, gammas, limits)
    for i in range(2):
        single = updated(keys[i], gammas[i], limits[i])
        np.testing.assert_allclose(together[i], single, rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[0], together[1])

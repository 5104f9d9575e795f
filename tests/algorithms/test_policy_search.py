"""Policy search on model rollouts: exact values, limits, baselines, terminations, refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.algorithms import policy_search as algorithm
from mbpo_jax.config import Config, EstimatorConfig, PolicySearchConfig
from mbpo_jax.envs import make_env as make_environment
from mbpo_jax.envs.termination import never
from mbpo_jax.errors import ConfigError
from mbpo_jax.presets import environment_preset
from mbpo_jax.types import Env, Transition
from tests.choice import mostly_exhaustive
from tests.probe_environments import PROBES, RIGHT_ACTION, make_env

A, B = 1.1, 0.5
STARTS = np.array([1.0, -0.4, 0.7, 0.1])
EXACT = (-0.6, 0.2, -30.0, 0.0)
"""Gain and offset of the mean before the tanh, which acts without noise."""
WRONG_BASELINE = {
    "params": {"layer_0": {"kernel": jnp.asarray([[0.3], [0.8]]), "bias": jnp.asarray([-1.5])}}
}


def settings(gradient="rp", estimator=None, **changes) -> Config:
    defaults = {"hidden_sizes": (), "gamma": 0.9, "entropy_weight": 0.0}
    search = PolicySearchConfig(gradient=gradient, **defaults | changes)
    return Config(
        algorithm="policy_search",
        model="oracle",
        policy_search=search,
        estimator=EstimatorConfig(**{"gae_decay": 1.0} | (estimator or {})),
    )


@functools.cache
def scalar_env(dynamics=lambda x, a: A * x + B * a, limit=np.inf) -> Env:
    """Make `x' = A x + B a` with reward `-x^2 - 0.1 a^2`, terminating where `x' > limit`."""

    def move(key, x, a):
        following = dynamics(x, a)
        reward = -(jnp.square(x) + 0.1 * jnp.square(a))[0]
        return following, reward, following[0] > limit

    env = make_env("scalar", (1, 1), 4, lambda key: jnp.zeros(1), move)
    return env._replace(terminated=never if limit == np.inf else lambda x: x[..., 0] > limit)


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


@functools.partial(jax.jit, static_argnames="env")
def climbed(key, config, policy, starts=STARTS, env=None):
    """Return what an update finds, with a baseline that is wrong, which must not matter."""
    search = algorithm.make_search(env or scalar_env(), config)
    search = search._replace(rows=len(starts))
    baseline = algorithm.Trained(WRONG_BASELINE, ()) if search.baseline_net else ()
    state = algorithm.SearchState(algorithm.Trained(policy, ()), baseline)
    return algorithm.climb(key, search, state, (), batch_at(starts))


def gradient(*arguments, **options):
    """Return the derivatives of -J."""
    return -flat(climbed(*arguments, **options).gradient)


def exact_objective(theta, config):
    """Integrate J over the policy's noise by Gauss-Hermite quadrature, in float64."""
    gain, offset, log_std, log_std_gain = theta
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    grid = np.meshgrid(*[nodes] * config.policy_search.horizon, indexing="ij")
    weight = functools.reduce(
        np.multiply.outer, [weights / weights.sum()] * config.policy_search.horizon
    )
    total = 0.0
    for x in STARTS:
        for t, noise in enumerate(grid):
            log_scale = log_std_gain * x + log_std
            action = np.tanh(gain * x + offset + np.exp(log_scale) * noise)
            log_prob = -0.5 * noise**2 - log_scale - 0.5 * np.log(2 * np.pi)
            log_prob -= np.log1p(-(action**2))
            reward = -(x**2) - 0.1 * action**2 - config.policy_search.entropy_weight * log_prob
            total += config.policy_search.gamma**t * np.sum(weight * reward)
            x = A * x + B * action
    return total / len(STARTS)


def differences(function, theta, step=1e-5):
    moves = step * np.eye(len(theta))
    return np.array([(function(theta + d) - function(theta - d)) / (2 * step) for d in moves])


@pytest.mark.parametrize("name", ["rp", "lr_gae", "lr", "tp"])
def test_gradients_have_the_exact_mean(key, name):
    """What is weighed by the batch itself is so in the limit of a large one."""
    config = settings(name, horizon=3, entropy_weight=0.3)
    theta = np.array([-0.6, 0.2, -0.7, 0.1])
    exact = -differences(lambda theta: exact_objective(theta, config), theta)
    starts = np.tile(STARTS, 250)
    policy = linear_policy(*theta)
    gradients = jax.jit(
        lambda keys: jax.lax.map(lambda key: gradient(key, config, policy, starts), keys)
    )(jax.random.split(key, 400))
    gradients = np.asarray(gradients, np.float64)
    error = (gradients.mean(axis=0) - exact) / (gradients.std(axis=0, ddof=1) / np.sqrt(400))
    assert np.all(np.abs(error) < 4.5)
    # What is tested is not lost in the noise; the last derivative is next to zero.
    assert np.all(np.abs(exact)[:3] > 10.0 * gradients.std(axis=0)[:3] / np.sqrt(400))


def chain_rule(gain, offset, config, start, **limits):
    """Return the derivatives of -J from one start without noise, by the adjoint recursion."""
    states, actions = [start], []
    for _ in range(config.policy_search.horizon):
        actions.append(np.tanh(gain * states[-1] + offset))
        states.append(A * states[-1] + B * actions[-1])
    adjoint, gradient = 0.0, np.zeros(2)
    for t in reversed(range(config.policy_search.horizon)):
        x, a = states[t], actions[t]
        slope = 1.0 - a**2
        to_action = config.policy_search.gamma**t * 0.2 * a + B * adjoint
        gradient += to_action * slope * np.array([x, 1.0])
        adjoint = config.policy_search.gamma**t * 2.0 * x + A * adjoint + to_action * slope * gain
        if limits.get("truncation") and t % limits.get("truncation") == 0:
            adjoint = 0.0
        if limits.get("max_cotangent_norm"):
            adjoint = np.clip(
                adjoint, -limits.get("max_cotangent_norm"), limits.get("max_cotangent_norm")
            )
    return gradient


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("rp", {}),
        ("rp_truncated", {"truncation": 1}),
        ("rp_truncated", {"truncation": 2}),
        ("rp_truncated", {"truncation": 100}),
        ("rp_clipped", {"max_cotangent_norm": 0.8}),
        ("rp_clipped", {"max_cotangent_norm": 100.0}),
    ],
    ids=str,
)
def test_backpropagation_follows_the_chain_rule_up_to_its_limits(key, name, limits):
    config = settings(name, limits, horizon=6)
    got = gradient(key, config, linear_policy(*EXACT))
    expected = np.mean([chain_rule(*EXACT[:2], config, x, **limits) for x in STARTS], axis=0)
    np.testing.assert_allclose(got[:2], expected, rtol=1e-5)


def test_the_limit_of_a_rows_gradient_does_not_depend_on_how_many_rows_there_are(key):
    config = settings("rp_clipped", {"max_cotangent_norm": 0.8}, horizon=6)
    few, many = (
        gradient(jax.random.clone(key), config, linear_policy(*EXACT), np.ones(num_rows))
        for num_rows in (1, 50)
    )
    np.testing.assert_allclose(few[:2], many[:2], rtol=1e-5)


def exploding(x, a):
    return 10.0 * jnp.square(x) + a


@pytest.mark.parametrize(
    ("name", "share"), [("rp", 1), ("rp_clipped", 1), ("tp", 0.5), ("ivw_h", 0.5)]
)
def test_what_a_model_does_after_a_termination_leaves_the_gradient_alone(key, name, share):
    """From 1 the first step leads beyond the limit, and in eight, if they counted, to infinity.

    Where rows are alike, no weight can be told, and the path has the half that is its own.
    """
    config = settings(name, horizon=30)
    got = gradient(key, config, linear_policy(*EXACT), np.ones(2), scalar_env(exploding, 5.0))
    action = np.tanh(EXACT[0] + EXACT[1])
    np.testing.assert_allclose(got[:2], share * 0.2 * action * (1 - action**2), rtol=1e-5)


def test_rollouts_that_terminated_are_held_where_they_were(key):
    config = settings(horizon=4)
    env = scalar_env(limit=1.5)
    made = climbed(key, config, linear_policy(0.0, 0.0, -30.0), np.array([1.3, 2.0, 0.1]), env).made
    alive = [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    np.testing.assert_array_equal(algorithm.alive(made)[0], alive)
    np.testing.assert_allclose(made.state.observation[0, 0, :4, 0], [1.3, 1.43, 1.43, 1.43])
    np.testing.assert_allclose(made.state.observation[0, 1, :, 0], 2.0)
    metrics = algorithm.rollout_metrics(algorithm.make_search(env, config), made)
    np.testing.assert_allclose(metrics["policy_search/length"], (2 + 1 + 4) / 3)
    paid = np.sum([1.3**2 + 0.9 * 1.43**2, 2.0**2, *[(0.9 * 1.21) ** t * 0.01 for t in range(4)]])
    np.testing.assert_allclose(metrics["policy_search/model_return"], -paid / 3, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_the_baseline_regresses_to_lambda_returns_up_to_a_termination(key, decay):
    """By their recursion in NumPy, in which nothing is left after the last step."""
    config = settings("lr_gae", {"gae_decay": decay}, horizon=4, entropy_weight=0.2)
    policy = linear_policy(0.2, 0.1, -0.5)
    found = climbed(key, config, policy, np.array([1.3, 0.1]), scalar_env(limit=1.5))
    made = jax.tree.map(lambda x: np.asarray(x[0], np.float64), found.made)
    for row in range(2):
        alive = np.append(made.state.alive[row, :-1], 0.0)
        times = np.arange(5) / 4
        value = (0.3 * made.state.observation[row, :, 0] + 0.8 * times - 1.5) * alive
        following = 0.0
        for t in reversed(range(4)):
            ahead = (1.0 - decay) * value[t + 1] + decay * following
            following = made.reward[row, t] + 0.9 * ahead * alive[t + 1]
            if alive[t]:
                np.testing.assert_allclose(found.target[0, row, t], following, rtol=1e-4)
    assert made.state.alive[0].sum() < 5


def test_steps_after_a_termination_weigh_nothing_in_the_loss_of_the_baseline(key):
    config = settings("lr_gae", horizon=4)
    env = scalar_env(limit=1.5)
    found = climbed(key, config, linear_policy(0.0, 0.0, -30.0), np.array([1.3, 0.1]), env)
    search = algorithm.make_search(env, config)
    loss = functools.partial(algorithm.baseline_loss, WRONG_BASELINE, search, found.made)
    value = loss(found.target)
    np.testing.assert_allclose(loss(found.target.at[0, 0, 2:].set(9.0)), value, rtol=1e-6)
    assert not np.isclose(loss(found.target.at[0, 0, 1].set(9.0)), value)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted():
    search = algorithm.make_search(scalar_env(), settings())
    params = linear_policy(*EXACT)
    before = algorithm.Trained(params, search.optimizer.init(params))
    for wrong in (jnp.nan, jnp.inf, 1e30):
        gradient = jax.tree.map(lambda x, y=wrong: jnp.ones_like(x).at[0].set(y), params)
        after, norm, skipped = algorithm.descend(search, before, gradient)
        jax.tree.map(np.testing.assert_array_equal, after, before)
        assert not np.isfinite(norm)
        assert skipped == 1.0


def test_a_finite_gradient_moves_parameters_by_adam_and_reports_its_norm():
    search = algorithm.make_search(scalar_env(), settings(learning_rate=0.01))
    params = linear_policy(*EXACT)
    before = algorithm.Trained(params, search.optimizer.init(params))
    gradient = linear_policy(3.0, -4.0, 12.0, 0.0)
    after, norm, skipped = algorithm.descend(search, before, gradient)
    # The first step of Adam has the size of the rate in each component.
    moved = flat(after.params) - flat(params)
    np.testing.assert_allclose(moved, [-0.01, 0.01, -0.01, 0.0], rtol=1e-3)
    np.testing.assert_allclose(norm, 13.0, rtol=1e-6)
    assert skipped == 0.0


@pytest.mark.parametrize(("max_norm", "scale"), [(1.3, 0.1), (26.0, 1.0)])
def test_a_gradient_longer_than_its_limit_is_scaled_down(max_norm, scale):
    @jax.jit
    def first_moment(max_norm):
        search = algorithm.make_search(scalar_env(), settings(max_gradient_norm=max_norm))
        params = linear_policy(*EXACT)
        before = algorithm.Trained(params, search.optimizer.init(params))
        gradient = linear_policy(3.0, -4.0, 12.0, 0.0)
        return flat(algorithm.descend(search, before, gradient)[0].optimizer[1][0].mu)

    # Adam's first moment is a tenth of the first gradient; the limit is a traced number.
    expected = 0.1 * scale * np.array([3.0, -4.0, 12.0, 0.0])
    np.testing.assert_allclose(first_moment(max_norm), expected, rtol=1e-5)


def test_a_rollout_is_as_long_as_an_episode_unless_told_otherwise():
    assert algorithm.make_search(scalar_env(), settings()).horizon == 4
    assert algorithm.make_search(scalar_env(), settings(horizon=7)).horizon == 7


def trained(env, name, num_updates, batch, **changes):
    """Return agent and state after some updates with the true system, and the last metrics."""
    config = settings(name, num_rollouts=len(batch.reward), **changes)
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


@pytest.mark.parametrize(
    "name",
    mostly_exhaustive(
        ["lr_gae", "rp", "q", "es", "mvd", "lr_advantage", "svg_tiled"],
        ("lr_gae", "rp").__contains__,
    ),
)
def test_the_policy_finds_the_action_that_is_rewarded_most(name):
    env = PROBES["action"]
    agent, state, metrics = trained(
        env, name, 400, at_zero(32), learning_rate=0.02, hidden_sizes=(4,)
    )
    start = env.reset(jax.random.key(1))
    action, memory = agent.act(jax.random.key(2), state, (), (), start, False)
    np.testing.assert_allclose(action, RIGHT_ACTION, atol=0.05)
    assert memory == ()
    assert metrics["policy_search/skipped"] == 0.0
    np.testing.assert_allclose(metrics["policy_search/length"], 1.0)


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
        env, "lr_gae", 600, at_zero(4), learning_rate=0.02, hidden_sizes=(8,)
    )
    net = algorithm.make_search(env, settings("lr_gae", hidden_sizes=(8,))).baseline_net
    observation = jnp.zeros((4, 1)) if probe == "endless" else jnp.arange(4.0)[:, None]
    elapsed = jnp.arange(4.0)[:, None] / 4.0
    value = net.apply(state.baseline.params, jnp.concatenate([observation, elapsed], axis=1))
    np.testing.assert_allclose(value[:num_steps, 0], values, atol=0.03)
    assert metrics["policy_search/baseline_loss"] < 1e-3
    np.testing.assert_allclose(metrics["policy_search/model_return"], values[0], rtol=1e-5)


def test_a_model_without_a_finite_derivative_skips_updates_and_spoils_nothing(key):
    def move(key, observation, action):
        return observation, jnp.sqrt(0.0 * action[0]), jnp.bool_(False)

    env = make_env("edge", (1, 1), 3, lambda key: jnp.zeros(1), move)
    agent, state, metrics = trained(env, "rp", 2, at_zero(4)._replace(simulator=()))
    fresh = jax.jit(agent.init)(jax.random.split(jax.random.key(0))[0])
    jax.tree.map(np.testing.assert_array_equal, state, fresh)
    assert metrics["policy_search/skipped"] == 1.0
    assert np.isnan(metrics["policy_search/gradient_norm"])


def test_exploration_draws_from_the_policy_and_evaluation_takes_its_mode(key):
    config = settings()
    env = PROBES["action"]
    agent = make_algorithm(env, config).agent
    policy = linear_policy(0.0, 0.4, -0.5)
    state = algorithm.SearchState(algorithm.Trained(policy, ()), ())
    start = env.reset(jax.random.key(1))
    assert agent.batch_size == config.policy_search.num_rollouts
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
        config = settings("rp_clipped", {"max_cotangent_norm": limit}, horizon=3, gamma=gamma)
        return gradient(key, config, linear_policy(*EXACT))

    gammas, limits = jnp.array([0.5, 0.99]), jnp.array([0.3, 10.0])
    keys = jax.random.split(key)
    # Under `vmap` JAX takes the first half of a split key for the whole of it.
    with jax.debug_key_reuse(False):
        together = jax.jit(jax.vmap(updated))(keys, gammas, limits)
    for i in range(2):
        single = updated(keys[i], gammas[i], limits[i])
        np.testing.assert_allclose(together[i], single, rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[0], together[1])


def test_elites_have_equal_shares_of_the_rollouts_and_no_row_meets_another():
    """A gradient of all is the mean of those that each elite's rows make by themselves."""
    config = dataclasses.replace(environment_preset("pendulum", "debug"), algorithm="policy_search")
    search_settings = dataclasses.replace(config.policy_search, horizon=3, num_rollouts=5)
    config = dataclasses.replace(config, policy_search=search_settings)
    env = make_environment(config.env)
    model = make_algorithm(env, config).model
    search = algorithm.make_search(env, config)
    num_elites = config.ensemble.num_elites
    assert search.shares == num_elites
    assert search.rows == -(-5 // num_elites)
    assert model is not None

    @jax.jit
    def both(key):
        model_key, policy_key, climb_key = jax.random.split(key, 3)
        view = model.ready(model.init(model_key))
        state = make_algorithm(env, config).agent.init(policy_key)
        rows = search.shares * search.rows
        x = jnp.linspace(-1.0, 1.0, rows * 3).reshape(rows, 3)
        batch = Transition(x, x[:, :1], x[:, 0], x[:, 0], x)
        found = algorithm.climb(climb_key, search, state, view, batch)
        return found.made.state

    states = both(jax.random.key(0))
    # Each share's observations after a step are its own elite's.
    assert states.observation.shape == (search.shares, search.rows, 4, 3)
    assert np.all(np.asarray(states.member) == 0)
    spread = np.asarray(states.observation[:, :, 1]).std(axis=0)
    assert np.all(spread > 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient": "rpp"}, "gradient: 'rpp' is not known .*; did you mean rp"),
        ({"gradient": "ivw_average"}, "gradient: ivw_average takes many batches at once"),
    ],
)
def test_estimators_that_cannot_train_are_refused_by_the_configuration(changes, message):
    with pytest.raises(ConfigError, match=message):
        PolicySearchConfig(**changes)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("fd", {"hidden_sizes": (64, 64)}, "at most 1,000 parameters, not"),
        ("lr_state", {}, "a system with noise"),
        ("mvd", {"horizon": 200}, "at most 64 steps times action components, not 200"),
        ("lr", {"num_rollouts": 1}, "a batch size of 2 or more, not 1"),
    ],
)
def test_estimators_that_need_what_there_is_not_are_refused_with_those_that_do(
    name, changes, reason
):
    with pytest.raises(ConfigError, match=reason) as error:
        make_algorithm(scalar_env(), settings(name, **changes))
    assert str(error.value).startswith(f"policy_search.gradient: {name} needs ")
    assert "use one of: " in str(error.value)
    assert f" {name}," not in str(error.value).partition("use one of:")[2]


@pytest.mark.parametrize("name", ["q", "rp"])
def test_derivatives_that_the_true_system_has_not_are_not_asked_for(name):
    env = scalar_env()._replace(differentiable=False)
    with pytest.raises(ConfigError, match="use"):
        make_algorithm(env, settings(name))
    assert make_algorithm(env, settings("lr_advantage")).model is not None

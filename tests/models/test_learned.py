"""The ensemble as a dynamics model: which elite meets which row, noise, terminations, wiring."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax.config import Config, EnsembleConfig, FitConfig, RolloutConfig
from mbpo_jax.envs.termination import never
from mbpo_jax.models import diagnostics, fit, learned
from mbpo_jax.models import rows as layout
from mbpo_jax.models.ensemble import Outcome, make_ensemble
from mbpo_jax.trees import all_finite
from mbpo_jax.types import RUNS_AXIS, Point
from tests.linear_system import SPEC, filled
from tests.probe_environments import linear_dynamics, linear_model

PROPAGATIONS = ["step", "trajectory", "mean"]


def run(key, state, observation, propagation, *, action=None, known=never):
    """Make one step of a linear model from rows `[B, O]`."""
    model, view = linear_dynamics(state, known)
    observation = jnp.asarray(observation, jnp.float32)
    action = jnp.zeros((len(observation), 1)) if action is None else jnp.asarray(action)

    @jax.jit
    def step(key, observation, action):
        return model.step(key, view, Point(observation), action, propagation)

    return step(key, observation, action)


def telling_members(num_members: int, elites, std: float = 0.0):
    """Make a model whose reward is the member's number, and that keeps its observation."""
    bias = [[member, 0.0] for member in range(num_members)]
    return linear_model([[0.0, 0.0], [1.0, 0.0]], bias, std, elites)[1]


# Who meets whom


def shares(num_rows: int, num_shares: int) -> np.ndarray:
    """Return the share of each row; all are of one size, but the last may lack some."""
    return np.arange(num_rows) // -(-num_rows // num_shares)


@pytest.mark.parametrize("num_rows", [1, 6, 7])
def test_a_row_meets_each_elite_with_the_same_probability(key, num_rows):
    """Also where the elites do not divide the rows. Rows of one share meet the same elite."""
    elites, num_keys = [4, 1, 6], 3000
    state = telling_members(7, elites)
    step = jax.vmap(lambda key: run(key, state, np.zeros((num_rows, 1)), "step")[1].reward)
    members = np.asarray(jax.jit(step)(jax.random.split(key, num_keys)))
    share = shares(num_rows, 3)
    for row in range(num_rows):
        met, counts = np.unique(members[:, row], return_counts=True)
        np.testing.assert_array_equal(met, sorted(elites))
        # Chi-square with 2 degrees of freedom: 13.8 is exceeded once in a thousand draws.
        assert np.sum((counts - 1000.0) ** 2 / 1000.0) < 13.8
    distinct = np.asarray([len(set(row)) for row in members])
    np.testing.assert_array_equal(distinct, len(set(share)))
    same = share[:, None] == share[None]
    np.testing.assert_array_equal((members[:, :, None] == members[:, None])[:, same], True)


@pytest.mark.parametrize("num_rows", [1, 6, 7])
def test_in_trajectories_the_ith_share_meets_the_ith_elite_throughout(key, num_rows):
    elites = np.array([4, 1, 6])
    state = telling_members(7, elites)
    step = jax.vmap(lambda key: run(key, state, np.zeros((num_rows, 1)), "trajectory")[1].reward)
    members = jax.jit(step)(jax.random.split(key, 20))
    expected = elites[shares(num_rows, 3)]
    np.testing.assert_array_equal(members, np.broadcast_to(expected, members.shape))


@pytest.mark.parametrize("propagation", ["step", "trajectory"])
@pytest.mark.parametrize(("num_rows", "block_rows"), [(1, 10_000), (7, 10_000), (12, 10), (7, 3)])
def test_every_row_is_predicted_from_itself(monkeypatch, key, propagation, num_rows, block_rows):
    """Shares and blocks are filled up and turned round, but rows keep their places."""
    monkeypatch.setattr(layout, "BLOCK_ROWS", block_rows)
    _, state = linear_model([[2.0, 3.0], [10.0, -1.0]], [[0.0, 0.0]] * 3, 0.0)
    observation, action = np.random.default_rng(0).normal(size=(2, num_rows, 1))
    point, prediction = run(
        key,
        state,
        observation,
        propagation,
        action=np.float32(action),
        known=lambda x: x[..., 0] > 1,
    )
    following = 10.0 * observation - action
    np.testing.assert_allclose(point.observation, following, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(prediction.reward, (2 * observation + 3 * action)[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(prediction.discount, following[:, 0] <= 1)
    assert point.simulator == ()


@pytest.mark.parametrize("first", [0, 1, 2])
def test_shares_go_to_members_counted_from_the_first(first):
    def fn(rows):
        assert rows["x"].shape == (3, 3, 2)
        return rows["x"], jnp.broadcast_to(jnp.arange(3)[:, None], rows["y"].shape)

    rows = {"x": jnp.arange(14.0).reshape(7, 2), "y": jnp.zeros(7, int)}
    same, member = layout.in_shares(fn, rows, 3, jnp.int32(first))
    np.testing.assert_array_equal(same, rows["x"])
    np.testing.assert_array_equal(member, (np.array([0, 0, 0, 1, 1, 1, 2]) + first) % 3)


@pytest.mark.parametrize("num_rows", [1, 4, 5, 7, 12])
def test_blocks_hold_every_row_once_in_order_and_have_keys_of_their_own(monkeypatch, key, num_rows):
    monkeypatch.setattr(layout, "BLOCK_ROWS", 12)

    def fn(key, rows):
        assert rows.shape[0] == 3
        assert rows.shape[1] <= 4
        return rows, jax.random.uniform(key, rows.shape[:2])

    rows = jnp.arange(3.0 * num_rows * 2).reshape(3, num_rows, 2)
    same, noise = layout.map_blocks(fn, key, rows)
    np.testing.assert_array_equal(same, rows)
    assert noise.shape == (3, num_rows)
    assert len(np.unique(noise)) == 3 * num_rows


def test_elites_share_the_rows_of_many_blocks_equally(monkeypatch, key):
    monkeypatch.setattr(layout, "BLOCK_ROWS", 50)
    _, prediction = run(key, telling_members(4, [0, 1, 3]), np.zeros((300, 1)), "step")
    met, counts = np.unique(prediction.reward, return_counts=True)
    np.testing.assert_array_equal(met, [0, 1, 3])
    np.testing.assert_array_equal(counts, 100)


# What they predict


@pytest.mark.parametrize("propagation", ["step", "trajectory"])
def test_outcomes_are_independent_gaussian_samples(key, propagation):
    _, state = linear_model([[1.0, 0.0], [1.0, 0.0]], [[3.0, -1.0]] * 2, [0.5, 2.0])
    point, prediction = run(key, state, np.full((8000, 1), 4.0), propagation)
    standard = np.stack([(prediction.reward - 7.0) / 0.5, (point.observation[:, 0] - 3.0) / 2.0])
    np.testing.assert_allclose(standard.mean(axis=1), 0.0, atol=5 / np.sqrt(8000))
    np.testing.assert_allclose(standard.std(axis=1), 1.0, rtol=0.05)
    assert abs(np.corrcoef(standard)[0, 1]) < 5 / np.sqrt(8000)


def step_together(key, state, num_rows, known=never):
    model, view = linear_dynamics(state, known)
    fused, zeros = model.fused, jnp.zeros((num_rows, 1))
    assert fused is not None
    return jax.jit(lambda key: fused(key, view, Point(zeros), zeros))(key)


def test_members_that_step_together_shrink_a_sample_of_one_of_them_to_the_middle(key):
    """Means 0, 3 and 6 of the elites, noise of 2: doubt 6, gain 0.4, and 2.4 of 4 are left."""
    bias = [[0.0, 0.0], [9.0, 9.0], [3.0, 30.0], [6.0, 60.0]]
    _, state = linear_model([[0.0, 0.0], [0.0, 0.0]], bias, [2.0, 20.0], elites=[0, 2, 3])
    rows = 100_000
    point, prediction, left = step_together(key, state, rows)
    np.testing.assert_allclose(left, np.tile([2.4, 240.0], (rows, 1)), rtol=1e-5)
    reward, moved = np.asarray(prediction.reward), np.asarray(point.observation[:, 0])
    variance = 0.4**2 * (6.0 + 4.0) + 2.4
    for sample, unit in ((reward, 1.0), (moved, 10.0)):
        assert sample.mean() == pytest.approx(3.0 * unit, abs=5 * unit * (variance / rows) ** 0.5)
        assert sample.var() == pytest.approx(variance * unit**2, rel=0.03)
    # Both components meet the same member, and have noise of their own.
    shared = 0.4**2 * 6.0 / variance
    assert np.corrcoef(reward, moved)[0, 1] == pytest.approx(shared, abs=0.02)


def test_members_that_step_together_terminate_as_the_one_that_was_met(key):
    bias = [[0.0, 0.0], [100.0, 0.0]]
    _, state = linear_model([[0.0, 0.0], [0.0, 0.0]], bias, 30.0, logit=[-50.0, 50.0])
    _, prediction, _ = step_together(key, state, 4000, known=None)
    ended = np.asarray(prediction.discount) == 0.0
    assert ended.mean() == pytest.approx(0.5, abs=0.05)
    assert prediction.reward[ended].mean() > prediction.reward[~ended].mean() + 10.0


@pytest.mark.parametrize("block_rows", [10, 10_000])
def test_no_two_rows_share_their_noise(monkeypatch, key, block_rows):
    monkeypatch.setattr(layout, "BLOCK_ROWS", block_rows)
    _, state = linear_model([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0]] * 2, 1.0)
    point, prediction = run(key, state, np.zeros((50, 1)), "step")
    assert np.unique(np.concatenate([prediction.reward, point.observation[:, 0]])).size == 100


def test_the_mean_is_that_of_all_elites_without_noise(key):
    bias = [[1.0, 10.0], [777.0, 777.0], [2.0, 40.0], [6.0, 10.0]]
    _, state = linear_model([[1.0, 0.0], [0.5, 0.0]], bias, 3.0, elites=[0, 2, 3])
    observation = np.linspace(-4.0, 4.0, 5)[:, None]
    for one_key in jax.random.split(key):
        point, prediction = run(
            one_key, state, observation, "mean", known=lambda x: x[..., 0] > 20.5
        )
        np.testing.assert_allclose(prediction.reward, observation[:, 0] + 3.0, rtol=1e-5)
        np.testing.assert_allclose(point.observation, 0.5 * observation + 20.0, rtol=1e-6)
        np.testing.assert_array_equal(prediction.discount, [1.0, 1.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize("propagation", PROPAGATIONS)
@pytest.mark.parametrize("block_rows", [4, 10_000])
def test_the_slope_of_a_step_is_that_of_each_rows_own_prediction(
    monkeypatch, key, propagation, block_rows
):
    """Noise is an input like another: it does not change the slopes of a linear model."""
    monkeypatch.setattr(layout, "BLOCK_ROWS", block_rows)
    weight = np.array([[2.0, -1.0, 3.0], [0.5, 0.1, 0.2], [-0.3, 0.9, 0.7]])
    _, state = linear_model(weight, np.arange(9.0).reshape(3, 3), 0.4)
    rows = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    cotangent = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)

    def total(observation, action):
        point, prediction = run(key, state, observation, propagation, action=action)
        outcome = jnp.concatenate([prediction.reward[:, None], point.observation], axis=1)
        return jnp.sum(cotangent * outcome)

    slopes = jax.jit(jax.grad(total, (0, 1)))(jnp.asarray(rows[:, :2]), jnp.asarray(rows[:, 2:]))
    np.testing.assert_allclose(
        np.concatenate(slopes, axis=1), cotangent @ weight, rtol=1e-4, atol=1e-5
    )


# How rollouts end


@pytest.mark.parametrize("logit", [-1.0, 0.0, 2.0])
def test_a_learned_head_terminates_with_its_probability(key, logit):
    outcome = Outcome(jnp.zeros((2, 4000, 2)), jnp.ones((2, 4000, 2)), jnp.full((2, 4000), logit))
    stops = learned.predict_termination(outcome, outcome.mean[..., 1:], None, key)
    assert stops.shape == (2, 4000)
    np.testing.assert_allclose(np.mean(stops), 1 / (1 + np.exp(-logit)), atol=0.03)


def test_each_row_is_ended_by_the_head_of_the_member_that_it_meets(key):
    logit = np.array([-1.0, 0.0, 2.0])
    _, state = linear_model([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0]] * 3, 1.0, logit=logit)
    _, prediction = run(key, state, np.zeros((9000, 1)), "trajectory", known=None)
    ended = 1.0 - np.asarray(prediction.discount).reshape(3, 3000).mean(axis=1)
    np.testing.assert_allclose(ended, 1 / (1 + np.exp(-logit)), atol=0.04)


@pytest.mark.parametrize(("logit", "discount"), [([9.0, -1.5, -1.5], 1.0), ([-9.0, 1.5, 1.5], 0.0)])
def test_the_mean_ends_where_termination_is_more_likely_than_not(key, logit, discount):
    """Probabilities are averaged, not logits: 1.0, 0.18 and 0.18, or 0.0, 0.82 and 0.82."""
    bias = [[0.0, 0.0]] * 3
    _, state = linear_model([[0.0, 0.0], [1.0, 0.0]], bias, 1.0, logit=logit)
    _, prediction = run(key, state, np.zeros((4, 1)), "mean", known=None)
    np.testing.assert_array_equal(prediction.discount, discount)


def test_a_known_rule_is_asked_about_the_sampled_outcome(key):
    """From 0 with noise of std 1, the outcome is beyond 1 with probability 0.1587."""
    _, state = linear_model([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0]] * 2, 1.0)
    point, prediction = run(key, state, np.zeros((8000, 1)), "step", known=lambda x: x[..., 0] > 1)
    np.testing.assert_array_equal(prediction.discount, point.observation[:, 0] <= 1.0)
    np.testing.assert_allclose(1.0 - np.mean(prediction.discount), 0.1587, atol=0.02)


def test_a_non_finite_prediction_ends_a_rollout_where_it_is_unpaid():
    sample = jnp.array(
        [
            [1.0, 2.0, 3.0],
            [jnp.nan, 2.0, 3.0],
            [1.0, jnp.inf, 3.0],
            [1.0, 2.0, -jnp.inf],
            [4.0, 5.0, 6.0],
        ]
    )
    observation = jnp.arange(10.0).reshape(5, 2)
    terminated = jnp.array([False, False, True, False, True])
    point, prediction = learned.sanitized(sample, terminated, observation)
    np.testing.assert_array_equal(prediction.finite, [True, False, False, False, True])
    np.testing.assert_array_equal(prediction.reward, [1.0, 0.0, 0.0, 0.0, 4.0])
    np.testing.assert_array_equal(prediction.discount, [1.0, 0.0, 0.0, 0.0, 0.0])
    expected = [[2.0, 3.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [5.0, 6.0]]
    np.testing.assert_array_equal(point.observation, expected)


@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_a_broken_member_ends_the_rows_that_ask_it(key, propagation):
    bias = np.zeros((3, 2))
    bias[1, 1] = np.inf
    _, state = linear_model([[0.0, 0.0], [1.0, 0.0]], bias, 0.5)
    observation = np.arange(6.0)[:, None]
    point, prediction = run(key, state, observation, propagation)
    broken = ~np.asarray(prediction.finite)
    assert np.sum(broken) == (6 if propagation == "mean" else 2)
    np.testing.assert_array_equal(prediction.discount, ~broken)
    np.testing.assert_array_equal(prediction.reward[broken], 0.0)
    np.testing.assert_array_equal(point.observation[broken], observation[broken])
    assert np.all(np.isfinite(point.observation))


# The model as a whole


def small_config() -> Config:
    return Config(
        steps_per_fit=25,
        ensemble=EnsembleConfig(num_members=3, num_elites=2, hidden_sizes=()),
        fit=FitConfig(
            weight_decays=(1e-4,), batch_size=16, stopping="budget", num_steps=4, cold_factor=3
        ),
        rollout=RolloutConfig(diagnostic_length=2),
    )


def test_it_is_fitted_and_diagnosed_as_the_ensemble_is(key):
    config, buffer = small_config(), filled(50, 60)
    model = learned.make_learned_model(SPEC, config, None)
    assert (model.num_members, model.needs_simulator) == (2, False)
    optimizer = optax.adam(config.fit.learning_rate)
    ensemble = make_ensemble(SPEC, config.ensemble, optimizer, learned_termination=True)
    init_key, fit_key = jax.random.split(key)
    state = jax.jit(model.init)(init_key)
    expected = jax.jit(
        lambda key, state, buffer: fit.fit(
            key,
            state,
            buffer,
            ensemble,
            optimizer,
            config.fit,
            bound_penalty_weight=config.ensemble.bound_penalty,
            normalize_targets=False,
            is_cold=True,
        )
    )(jax.random.clone(fit_key), state, buffer)
    fitted = jax.jit(model.fit)(fit_key, state, buffer, jnp.int32(50))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), fitted, expected)
    diagnosed = jax.jit(model.diagnose)(fitted[0], buffer)
    expected = jax.jit(
        lambda state: diagnostics.diagnose(ensemble, state, None, buffer, num_rows=25, length=2)
    )(fitted[0])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), diagnosed, expected)


def test_a_fit_reads_no_more_rows_than_the_buffer_holds(key):
    model, buffer = learned.make_learned_model(SPEC, small_config(), never), filled(75, 60)
    init_key, fit_key = jax.random.split(key)
    state = jax.jit(model.init)(init_key)

    @jax.jit
    def fitted(key, env_steps):
        return model.fit(key, state, buffer, env_steps)

    full, more = (fitted(jax.random.clone(fit_key), jnp.int32(n)) for n in (60, 75))
    jax.tree.map(np.testing.assert_array_equal, full, more)


@pytest.mark.parametrize("num_rows", [0, 1, 2, 30])
def test_a_fit_takes_as_many_steps_whatever_was_left_out(key, num_rows):
    """Its length is the same for all runs; from no transition at all it learns nothing true."""
    model, buffer = learned.make_learned_model(SPEC, small_config(), never), filled(num_rows, 60)
    init_key, *fit_keys = jax.random.split(key, 3)
    state, refit = jax.jit(model.init)(init_key), jax.jit(model.fit)
    # The first fit takes three times as many.
    for fit_key, steps in zip(fit_keys, (12, 4), strict=True):
        state, metrics = refit(fit_key, state, buffer, jnp.int32(50))
        assert metrics["model/gradient_steps"] == steps
        assert bool(all_finite((state, metrics)))


def test_rollouts_go_on_where_real_transitions_led(key):
    model, view = linear_dynamics(telling_members(2, None))
    batch = filled(5, 5).data
    point, same = model.follow(key, view, batch)
    np.testing.assert_array_equal(point.observation, batch.next_observation)
    np.testing.assert_array_equal(model.start(batch.observation, ()).observation, batch.observation)
    assert same is batch
    assert point.simulator == ()


def test_members_predict_their_means_for_their_own_rows(key):
    weight = np.array([[0.3, -0.2, 1.0], [0.9, 0.1, 0.5], [-0.2, 0.8, 0.4]])
    bias = np.array([[0.1, 0.2, -0.3], [0.5, -0.2, 0.1]])
    model, view = linear_dynamics(linear_model(weight, bias, std=0.7)[1])
    x = np.array([[0.4, -0.6], [1.0, 0.5]])
    action = np.array([[0.3], [-0.2]])
    twice = [jnp.asarray(np.tile(rows, (2, 1)), jnp.float32) for rows in (x, action)]
    point, prediction = jax.jit(
        lambda key, x, u: model.step(key, view, Point(x), u, "members"),
    )(key, *twice)
    outcome = np.hstack([x, action]) @ weight.T
    expected = np.vstack([outcome + bias[0], outcome + bias[1]])
    np.testing.assert_allclose(prediction.reward, expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(point.observation, expected[:, 1:], rtol=1e-5)


def test_a_run_that_was_never_fitted_does_not_hold_up_the_others(key):
    """It diverged in its first step; side by side, a cold budget of one would be that of all."""
    config, buffer = small_config(), filled(50, 60)
    config = dataclasses.replace(config, random_steps=25)
    model = learned.make_learned_model(SPEC, config, None)
    init_key, *fit_keys, last_key = jax.random.split(key, 4)
    never = jax.jit(model.init)(init_key)
    steps = {}
    for fit_key, env_steps in zip(fit_keys, (25, 50), strict=True):
        fitted, metrics = jax.jit(model.fit)(fit_key, never, buffer, jnp.int32(env_steps))
        steps[env_steps] = int(metrics["model/gradient_steps"])
    assert steps == {25: 12, 50: 4}
    both = jax.tree.map(lambda *rows: jnp.stack(rows), never, fitted)
    buffers = jax.tree.map(lambda x: jnp.stack([x, x]), buffer)
    side_by_side = jax.vmap(model.fit, (None, 0, 0, None), axis_name=RUNS_AXIS)
    _, metrics = jax.jit(side_by_side)(last_key, both, buffers, jnp.int32(50))
    np.testing.assert_array_equal(metrics["model/gradient_steps"], 4)

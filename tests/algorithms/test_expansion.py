"""Value expansion in the critic's target (MVE, STEVE), on a system whose values are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents.sac import td0_target
from mbpo_jax.algorithms.mve import mve_target
from mbpo_jax.algorithms.steve import steve_target
from mbpo_jax.config import Config, ExpansionConfig, SACConfig
from mbpo_jax.types import Point, Prediction
from tests import scalar_control as system

HORIZONS = (0, 1, 2, 5)


def settings(**changes) -> Config:
    return Config(sac=SACConfig(gamma=system.GAMMA), expansion=ExpansionConfig(**changes))


def regress(make_target, config, state, batch, model, noise=0.0):
    target, nets = make_target(model, config), system.make_nets(noise)
    regressed = jax.jit(lambda key, state, batch: target(key, nets, state, (), batch))
    return regressed(jax.random.key(0), state, batch)


def imagined(state, horizon):
    """Return states and rewards `[T + 1]`, `[T]` of the policy from a state, in NumPy."""
    states, rewards = [state], []
    for _ in range(horizon):
        action = system.GAIN * states[-1]
        rewards.append(system.C * states[-1] + system.D * action)
        states.append(system.A * states[-1] + system.B * action)
    return np.stack(states), np.asarray(rewards).reshape(horizon, *np.shape(state))


@pytest.mark.parametrize("error", [0.0, 0.4])
def test_without_expansion_the_target_is_td0(error):
    batch, state = system.real_batch(), system.make_state((error, error + 0.1))
    config = settings(horizon=0, td_k=False)
    got = regress(mve_target, config, state, batch, system.make_model())
    nets = system.make_nets()
    expected = td0_target(system.GAMMA)(jax.random.key(1), nets, state, (), batch)
    np.testing.assert_allclose(got.target, expected.target, rtol=1e-6)
    np.testing.assert_array_equal(got.observation, batch.observation)
    np.testing.assert_array_equal(got.action, batch.action)


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize("td_k", [False, True])
def test_with_exact_critics_the_target_does_not_depend_on_the_horizon(horizon, td_k):
    batch = system.real_batch()
    config = settings(horizon=horizon, td_k=td_k)
    got = regress(mve_target, config, system.make_state(), batch, system.make_model())
    num_rows = batch.reward.shape[0]
    np.testing.assert_allclose(got.target[:num_rows], system.exact_target(batch), rtol=1e-5)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_error_of_the_critics_fades_with_the_horizon(horizon):
    error = 0.7
    batch = system.real_batch(discount=(1.0, 1.0, 1.0, 1.0))
    config = settings(horizon=horizon, td_k=False)
    got = regress(mve_target, config, system.make_state((error,)), batch, system.make_model())
    bias = np.asarray(got.target - system.exact_target(batch))
    np.testing.assert_allclose(bias, error * system.GAMMA ** (horizon + 1), rtol=1e-4)


def test_td_k_trains_on_every_depth_of_the_rollout():
    horizon, error = 3, 0.5
    batch = system.real_batch(discount=(1.0, 1.0, 1.0, 1.0))
    config = settings(horizon=horizon, td_k=True)
    got = regress(mve_target, config, system.make_state((error,)), batch, system.make_model())
    num_rows = batch.reward.shape[0]
    target = np.asarray(got.target).reshape(horizon + 1, num_rows)
    states, _ = imagined(np.asarray(batch.next_observation[:, 0]), horizon)
    for depth in range(1, horizon + 1):
        rows = slice(depth * num_rows, (depth + 1) * num_rows)
        state = states[depth - 1]
        np.testing.assert_allclose(got.observation[rows, 0], state, rtol=1e-5)
        np.testing.assert_allclose(got.action[rows, 0], system.GAIN * state, rtol=1e-5)
        exact = np.asarray(system.exact_q(state, system.GAIN * state))
        left = horizon - depth + 1
        np.testing.assert_allclose(target[depth], exact + error * system.GAMMA**left, rtol=1e-5)
    np.testing.assert_array_equal(got.weight, 1.0)


def test_a_predicted_termination_cuts_rewards_bootstrap_and_deeper_rows():
    # From 0.5 the policy's states are 0.25, 0.125, ...; from 4 they are 2, 1, 0.5, ...
    horizon, limit = 3, 0.9
    model = system.make_model(limit=limit)
    batch = system.real_batch(observation=(0.5, 4.0), discount=(1.0, 1.0))
    batch = batch._replace(next_observation=jnp.asarray([[0.5], [4.0]]))
    state = system.make_state((0.3,))
    got = regress(mve_target, settings(horizon=horizon), state, batch, model)
    weight = np.asarray(got.weight).reshape(horizon + 1, 2)
    np.testing.assert_array_equal(weight[:, 0], 1.0)
    # The first imagined step leads to 2, beyond the limit: nothing is learned from there on.
    np.testing.assert_array_equal(weight[:, 1], [1.0, 1.0, 0.0, 0.0])
    reward = system.C * 4.0 + system.D * system.GAIN * 4.0
    expected = batch.reward[1] + system.GAMMA * (system.ENTROPY_BONUS + reward)
    np.testing.assert_allclose(got.target[1], expected, rtol=1e-5)


def test_after_a_real_termination_there_is_the_reward_alone():
    batch = system.real_batch(discount=(0.0, 0.0, 0.0, 0.0))
    for make_target in (mve_target, steve_target):
        state, model = system.make_state((0.3,)), system.make_model()
        got = regress(make_target, settings(horizon=3), state, batch, model)
        np.testing.assert_allclose(got.target[:4], batch.reward, rtol=1e-6)
        if got.weight is not None:
            np.testing.assert_array_equal(got.weight[4:], 0.0)


def steve_by_hand(batch, horizon, errors, offsets):
    """Return the depths' candidates `[H + 1, N, B]` of STEVE in NumPy."""
    candidates = np.empty((horizon + 1, len(offsets), len(errors), batch.reward.shape[0]))
    for m, offset in enumerate(offsets):
        state = np.asarray(batch.next_observation[:, 0], np.float64)
        total = np.asarray(batch.reward, np.float64)
        weight = system.GAMMA * np.asarray(batch.discount, np.float64)
        for depth in range(horizon + 1):
            action = system.GAIN * state
            for c, error in enumerate(errors):
                q = np.asarray(system.exact_q(state, action)) + error
                candidates[depth, m, c] = total + weight * (q + system.ENTROPY_BONUS)
            reward = system.C * state + system.D * action
            total = total + weight * (reward + system.ENTROPY_BONUS)
            weight = weight * system.GAMMA
            state = system.A * state + system.B * action + offset
    return candidates.reshape(horizon + 1, -1, batch.reward.shape[0])


@pytest.mark.parametrize("horizon", HORIZONS)
def test_steve_weights_depths_by_their_inverse_variance(horizon):
    errors, offsets = (0.4, -0.2), (0.3, -0.1, 0.2)
    batch = system.real_batch(discount=(1.0, 1.0, 1.0, 1.0))
    got = regress(
        steve_target,
        settings(horizon=horizon),
        system.make_state(errors),
        batch,
        system.make_model(offsets),
    )
    candidates = steve_by_hand(batch, horizon, errors, offsets)
    precision = 1.0 / candidates.var(axis=1)
    weights = precision / precision.sum(axis=0)
    np.testing.assert_allclose(
        got.target, np.sum(weights * candidates.mean(axis=1), axis=0), rtol=1e-4
    )


def test_steve_with_covariances_solves_for_the_weights():
    errors, offsets, horizon = (0.4, -0.2), (0.3, -0.1, 0.2), 2
    batch = system.real_batch(discount=(1.0, 1.0, 1.0, 1.0))
    config = settings(horizon=horizon, covariance=True)
    state, model = system.make_state(errors), system.make_model(offsets)
    got = regress(steve_target, config, state, batch, model)
    candidates = steve_by_hand(batch, horizon, errors, offsets)
    for row in range(batch.reward.shape[0]):
        sigma = np.cov(candidates[:, :, row], bias=True) + 1e-3 * np.eye(horizon + 1)
        weights = np.linalg.solve(sigma, np.ones(horizon + 1))
        weights /= weights.sum()
        expected = weights @ candidates[:, :, row].mean(axis=1)
        np.testing.assert_allclose(got.target[row], expected, rtol=1e-3)


def test_the_policys_noise_is_no_disagreement_of_members():
    batch, config = system.real_batch(), settings(horizon=3)
    state = system.make_state((0.5,))
    one, three = (
        regress(steve_target, config, state, batch, system.make_model(offsets), noise=0.7).target
        for offsets in ((0.0,), (0.0, 0.0, 0.0))
    )
    np.testing.assert_allclose(three, one, rtol=1e-6)


@pytest.mark.parametrize("make_target", [mve_target, steve_target])
def test_what_has_terminated_cannot_become_infinite(make_target):
    def step(key, view, point, action, propagation):
        ones = jnp.ones(point.observation.shape[0])
        return Point(1e4 * point.observation**2), Prediction(ones, 0.0 * ones, ones > 0.0)

    model = system.make_model()._replace(step=step)
    batch = system.real_batch(discount=(1.0, 1.0, 1.0, 1.0))
    got = regress(make_target, settings(horizon=8), system.make_state((0.3,)), batch, model)
    assert np.isfinite(got.target).all()


def test_where_all_candidates_agree_steve_averages_the_depths():
    batch = system.real_batch()
    config = dataclasses.replace(settings(horizon=3))
    got = regress(steve_target, config, system.make_state(), batch, system.make_model((0.0, 0.0)))
    # With exact critics every depth has the same target, whatever the weights.
    np.testing.assert_allclose(got.target, system.exact_target(batch), rtol=1e-5)
    biased = regress(
        steve_target, config, system.make_state((0.5, 0.5)), batch, system.make_model((0.0, 0.0))
    )
    mean_bias = 0.5 * np.mean([system.GAMMA ** (depth + 1) for depth in range(4)])
    bias = biased.target - system.exact_target(batch)
    np.testing.assert_allclose(bias, mean_bias * batch.discount, atol=1e-5)

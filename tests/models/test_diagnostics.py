"""Diagnostics of models whose calibration, spread and error are known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.envs.termination import never
from mbpo_jax.models import diagnostics
from mbpo_jax.models.ensemble import Outcome
from mbpo_jax.nets.normalizer import Scaler
from mbpo_jax.types import Transition
from tests.probe_environments import linear_model


def outcome_of(mean, std=1.0, logit=None):
    mean = jnp.asarray(mean, jnp.float32)
    logit = None if logit is None else jnp.asarray(logit, jnp.float32)
    return Outcome(mean, jnp.full(mean.shape, std), logit)


def gaussian_quantile(coverage):
    return {0.5: 0.6744898, 0.9: 1.6448536}[coverage]


@pytest.mark.parametrize("claimed_std", [0.5, 1.0, 2.0])
def test_coverage_is_what_the_gaussian_has_within_the_claimed_interval(key, claimed_std):
    """With a unit normal, an interval of z claimed stds covers erf(z claimed / sqrt 2)."""
    actual = 3.0 + jax.random.normal(key, (6000, 2))
    outcome = outcome_of(jnp.full((2, 6000, 2), 3.0), claimed_std)
    metrics = diagnostics.calibration(outcome, actual, jnp.ones(6000, bool))
    for coverage in (0.5, 0.9):
        expected = math.erf(gaussian_quantile(coverage) * claimed_std / math.sqrt(2.0))
        if claimed_std == 1.0:
            assert expected == pytest.approx(coverage, abs=1e-6)
        name = f"model/coverage_{round(100 * coverage)}"
        assert float(metrics[name]) == pytest.approx(expected, abs=0.02)


def test_rows_that_are_not_valid_do_not_count():
    actual = jnp.array([[0.0], [100.0], [0.1]])
    valid = jnp.array([True, False, True])
    metrics = diagnostics.calibration(outcome_of(np.zeros((3, 3, 1))), actual, valid)
    assert float(metrics["model/coverage_50"]) == 1.0
    mean = np.stack([np.zeros((3, 1)), [[0.0], [50.0], [0.0]]])
    assert float(diagnostics.disagreement(mean, jnp.ones(1), valid)) == 0.0


def test_disagreement_is_zero_for_identical_members_and_scales_with_their_distance():
    same = np.broadcast_to(np.arange(12.0).reshape(1, 4, 3), (5, 4, 3))
    valid, scale = jnp.ones(4, bool), jnp.array([1.0, 2.0, 4.0])
    assert float(diagnostics.disagreement(same, scale, valid)) == 0.0
    # Two members at a distance d have a standard deviation of d / 2.
    apart = np.stack([same[0], same[0] + 6.0])
    expected = np.mean(3.0 / np.asarray(scale))
    value = diagnostics.disagreement(apart, scale, valid)
    assert float(value) == pytest.approx(expected)


def batch_of(observation, next_observation, discount, reward=None):
    observation = jnp.asarray(observation, jnp.float32)
    reward = jnp.zeros(observation.shape[0]) if reward is None else jnp.asarray(reward)
    return Transition(
        observation,
        jnp.zeros((observation.shape[0], 1)),
        reward,
        jnp.asarray(discount, jnp.float32),
        jnp.asarray(next_observation, jnp.float32),
    )


def test_termination_agreement_of_a_known_rule():
    """The rule says 0, 1, 1, 0; the discounts say 0, 1, 0, 1; the last row is not valid."""
    batch = batch_of(np.zeros((4, 1)), [[0.0], [2.0], [2.0], [0.0]], [1.0, 0.0, 1.0, 0.0])
    valid = jnp.array([True, True, True, False])

    def rule(observation):
        return observation[..., 0] > 1.0

    outcome = outcome_of(np.zeros((2, 4, 2)))
    value = diagnostics.termination_agreement(rule, outcome, batch, valid)
    assert float(value) == pytest.approx(2 / 3)


def test_termination_agreement_of_a_learned_head():
    batch = batch_of(np.zeros((2, 1)), np.zeros((2, 1)), [1.0, 0.0])
    outcome = outcome_of(np.zeros((2, 2, 2)), logit=[[-3.0, 3.0], [-3.0, -3.0]])
    value = diagnostics.termination_agreement(None, outcome, batch, jnp.ones(2, bool))
    assert float(value) == pytest.approx(3 / 4)


def two_episodes():
    """Make transitions `x' = x / 2` of two episodes: 3 and 2 steps, from 8 and 100."""
    observation = np.array([8.0, 4.0, 2.0, 100.0, 50.0])[:, None]
    return batch_of(observation, observation / 2, [1.0, 1.0, 0.0, 1.0, 1.0])


def expected_errors(factors, length, starts=range(5)):
    """Return the root mean square of `x f^k - x / 2^k` over members and unbroken stretches."""
    x, ends = [8.0, 4.0, 2.0, 100.0, 50.0], [3, 3, 3, 5, 5]
    errors = []
    for k in range(1, length + 1):
        squares = [
            (x[i] * (f**k - 0.5**k)) ** 2 for f in factors for i in starts if i + k <= ends[i]
        ]
        errors.append(np.sqrt(np.mean(squares)) if squares else np.nan)
    return np.array(errors)


@pytest.mark.parametrize("factor", [0.5, 0.7, -0.3])
def test_k_step_error_compounds_and_stays_within_an_episode(factor):
    ensemble, elites = linear_model([[0.0, 0.0], [factor, 0.0]], [[0.0, 0.0]] * 2, 1.0)
    scale = 4.0
    errors = diagnostics.k_step_errors(
        ensemble, elites, two_episodes(), jnp.ones(5, bool), jnp.full(1, scale), 4
    )
    np.testing.assert_allclose(errors, expected_errors([factor], 4) / scale, rtol=1e-5, atol=1e-6)
    # No episode is four steps long.
    assert np.isnan(errors[3])


def test_k_step_predictions_start_at_valid_rows_only():
    ensemble, elites = linear_model([[0.0, 0.0], [0.7, 0.0]], [[0.0, 0.0]] * 2, 1.0)
    valid = jnp.array([False, True, True, True, True])
    errors = diagnostics.k_step_errors(ensemble, elites, two_episodes(), valid, jnp.ones(1), 2)
    np.testing.assert_allclose(errors, expected_errors([0.7], 2, range(1, 5)), rtol=1e-5)


def test_each_elite_predicts_along_the_recorded_actions_on_its_own():
    """With x' = x + a in truth, and x + a + b_e in the model, the error after k steps is k b_e."""
    action = np.array([[1.0], [-2.0], [0.5], [3.0]])
    observation = np.cumsum(np.concatenate([[[0.0]], action[:-1]]), axis=0)
    batch = batch_of(observation, observation + action, np.ones(4))._replace(
        action=jnp.asarray(action, jnp.float32)
    )
    ensemble, elites = linear_model([[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.3], [0.0, -0.4]], 1.0)
    errors = diagnostics.k_step_errors(ensemble, elites, batch, jnp.ones(4, bool), jnp.ones(1), 4)
    np.testing.assert_allclose(errors, np.arange(1, 5) * np.sqrt((0.09 + 0.16) / 2), rtol=1e-5)


def test_diagnose_reports_on_the_newest_rows_with_the_elites_alone():
    """Elites 0 and 2 are exact but for the reward, missed by 3 and 4; member 1 is useless."""
    bias = [[3.0, 0.0], [1e6, 1e6], [-4.0, 0.0]]
    ensemble, model = linear_model([[0.0, 0.0], [0.5, 0.0]], bias, 1.0, elites=[2, 0])
    buffer = replay.init(8, 1, 1)
    old = batch_of(np.full((3, 1), 777.0), np.full((3, 1), -777.0), np.ones(3))
    buffer = replay.add(replay.add(buffer, old), two_episodes())

    def known(observation):
        return observation[..., 0] == 1.0

    @jax.jit
    def diagnose(buffer):
        return diagnostics.diagnose(ensemble, model, known, buffer, num_rows=5, length=2)

    metrics = {name: float(value) for name, value in diagnose(buffer).items()}
    assert metrics["model/reward_rmse"] == pytest.approx(np.sqrt((9 + 16) / 2), rel=1e-5)
    assert metrics["model/disagreement"] == 0.0, "the elites differ in the reward alone"
    assert metrics["model/termination_agreement"] == 1.0
    # Observations are exact and rewards outside of any interval.
    assert metrics["model/coverage_50"] == pytest.approx(0.5)
    assert metrics["model/coverage_90"] == pytest.approx(0.5)
    assert metrics["model/k_step_error_1"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["model/k_step_error_2"] == pytest.approx(0.0, abs=1e-6)


def test_observations_are_judged_in_units_of_the_training_datas_spread():
    # The networks see a quarter of the observation and predict what they would from all of it.
    ensemble, model = linear_model([[0.0, 0.0], [4.0 * 0.7, 0.0]], [[0.0, 0.0]] * 2, 1.0)
    model = model._replace(input_scaler=Scaler(jnp.zeros(2), jnp.array([4.0, 1.0])))
    buffer = replay.add(replay.init(5, 1, 1), two_episodes())

    @jax.jit
    def diagnose(buffer):
        return diagnostics.diagnose(ensemble, model, never, buffer, num_rows=5, length=1)

    expected = expected_errors([0.7], 1)[0] / 4.0
    assert float(diagnose(buffer)["model/k_step_error_1"]) == pytest.approx(expected, rel=1e-5)

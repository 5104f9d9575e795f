"""Gradients measured during training."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import mbpo_jax
from mbpo_jax.config import TrackingConfig
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import read_rows
from mbpo_jax.laboratory.measures import metrics
from mbpo_jax.laboratory.measures.study import doubt
from mbpo_jax.presets import environment_preset
from mbpo_jax.training.tracking import inner_products, measured


@pytest.fixture
def runs(undrawn):
    """Train the same run with and without a look at its gradients."""
    config = environment_preset("pendulum", "debug")
    small = dataclasses.replace(
        config.tracking,
        estimators=("rp", "q"),
        horizon=2,
        batch_size=4,
        batches=32,
        reference_batches=8,
        start_states=16,
    )
    tracked = dataclasses.replace(config, track_gradients=1, tracking=small)
    assert mbpo_jax.train(config, Path("plain")).state == "finished"
    assert mbpo_jax.train(tracked, Path("tracked")).state == "finished"
    return Path("plain"), Path("tracked")


@pytest.mark.slow
@pytest.mark.figures
def test_a_look_at_the_gradients_changes_no_number_of_the_training(runs):
    plain, tracked = runs
    assert (plain / "metrics.jsonl").read_bytes() == (tracked / "metrics.jsonl").read_bytes()
    returns = [[row["return_mean"] for row in read_rows(run / "evals.jsonl")] for run in runs]
    assert returns[0] == returns[1]
    assert not (plain / "gradients.jsonl").exists()
    rows = read_rows(tracked / "gradients.jsonl")
    evaluations = {row["env_steps"] for row in read_rows(tracked / "evals.jsonl")}
    # Before training there is nothing to compare.
    assert {0, *(row["env_steps"] for row in rows)} == evaluations
    assert {row["estimator"] for row in rows} == {"rp", "q"}
    assert all(row["reference_norm"] > 0.0 for row in rows)
    assert all(row["reference"] in ("rp", "lr_value") for row in rows)
    assert (tracked / "gradients.png").stat().st_size > 0


def test_an_algorithm_without_an_actor_and_a_critic_cannot_be_tracked():
    with pytest.raises(ConfigError, match="track_gradients: mpc has no actor and critic"):
        dataclasses.replace(
            environment_preset("pendulum", "debug"), algorithm="mpc", track_gradients=1
        )


def test_settings_that_cannot_be_tracked_are_refused_before_training():
    with pytest.raises(ConfigError, match="start_states: 12 is no multiple of 8"):
        TrackingConfig(start_states=12)
    config = environment_preset("pendulum", "debug")
    tracking = TrackingConfig(estimators=("lr_state",))
    config = dataclasses.replace(config, algorithm="sac", track_gradients=1, tracking=tracking)
    with pytest.raises(ConfigError, match="lr_state needs a system with noise"):
        mbpo_jax.train(config, Path("refused"))


def test_scaled_products_give_the_metrics_of_the_gradients():
    rng = np.random.default_rng(0)
    estimates, truth = 1e25 * rng.normal(1.0, 1.0, (2, 40, 3))
    found = measured(jnp.asarray(np.concatenate([estimates, truth]), jnp.float32))
    inner, _ = inner_products(*found, 40)
    error = truth.var(axis=0, ddof=1).sum() / len(truth)
    expected = metrics.inner_products(estimates, truth.mean(axis=0), error)
    np.testing.assert_allclose(metrics.variance(inner), metrics.variance(expected), rtol=1e-5)
    np.testing.assert_allclose(
        metrics.squared_bias(inner), metrics.squared_bias(expected), rtol=1e-4
    )


def test_a_draw_of_the_truth_that_is_not_finite_leaves_the_estimates_as_they_are():
    rng = np.random.default_rng(0)
    rows = rng.normal(1.0, 1.0, (12, 3))
    expected = metrics.variance(metrics.inner_products(rows[:8], rows[8]))
    rows[10, 1] = np.inf
    inner, draws = inner_products(*measured(jnp.asarray(rows, jnp.float32)), 8)
    assert not metrics.overflowed(inner)
    np.testing.assert_allclose(metrics.variance(inner), expected, rtol=1e-5)
    assert metrics.overflowed(draws)
    assert doubt(draws) == np.inf

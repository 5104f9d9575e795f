"""The scaler against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.nets.normalizer import Scaler, fit_scaler, identity_scaler, scale

NUM_ROWS = 500


def columns(*mean_and_std: tuple[float, float]) -> np.ndarray:
    """Draw float32 columns; statistics are compared with those of the rounded values."""
    mean, std = np.transpose(mean_and_std)
    noise = np.random.default_rng(0).normal(size=(NUM_ROWS, len(mean)))
    return (mean + std * noise).astype(np.float32)


def fit(data: np.ndarray, weight: np.ndarray) -> Scaler:
    return jax.jit(fit_scaler)(jnp.asarray(data), jnp.asarray(weight, jnp.float32))


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.0, 1.0), (-3.0, 1e-3), (1e4, 5e-3), (-1e4, 1e3), (0.0, 1e-6), (5e5, 1.0), (0.0, 1e6)],
)
def test_mean_and_std_equal_numpy(mean, std):
    data = columns((mean, std))
    scaler = fit(data, np.ones(NUM_ROWS))
    exact = data.astype(np.float64)
    # The mean is rounded to float32, and the deviation is taken from the rounded mean.
    rounding = 0.51 * np.spacing(np.abs(scaler.mean)) + 1e-6 * std
    assert np.abs(scaler.mean - exact.mean(axis=0)) <= rounding
    around_rounded_mean = np.sqrt(np.mean((exact - np.asarray(scaler.mean)) ** 2, axis=0))
    np.testing.assert_allclose(scaler.std, around_rounded_mean, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -123.456, 1e4, 1e-8, 3e7])
def test_a_constant_column_is_only_shifted(value):
    data = np.full((NUM_ROWS, 1), value, np.float32)
    scaler = fit(data, np.ones(NUM_ROWS))
    np.testing.assert_array_equal(scaler.std, [1.0])
    np.testing.assert_allclose(scaler.mean, data[0], rtol=2e-7)


@pytest.mark.parametrize("value", [1.0, -123.456, 1e4])
def test_a_column_that_varies_by_rounding_counts_as_constant(value):
    data = np.full((NUM_ROWS, 1), value, np.float32)
    data[::2] = np.nextafter(data[::2], np.float32(np.inf))
    np.testing.assert_array_equal(fit(data, np.ones(NUM_ROWS)).std, [1.0])


def test_rows_without_weight_do_not_count():
    data = columns((2.0, 0.5), (-100.0, 3.0))
    kept = np.random.default_rng(1).random(NUM_ROWS) < 0.3
    data[~kept] *= 1e3
    scaler = fit(data, kept)
    exact = data[kept].astype(np.float64)
    np.testing.assert_allclose(scaler.mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scaler.std, exact.std(0), rtol=1e-5)


def test_a_weight_counts_as_many_rows():
    data = columns((2.0, 0.5), (0.0, 3.0))
    weight = np.random.default_rng(2).integers(0, 4, NUM_ROWS)
    repeated = np.repeat(data, weight, axis=0)
    scaler, expected = fit(data, weight), fit(repeated, np.ones(len(repeated)))
    np.testing.assert_allclose(scaler.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(scaler.std, expected.std, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2,), (NUM_ROWS, 2), (5, 100, 2)])
def test_scaling_maps_features_to_standard_units(shape):
    scaler = Scaler(jnp.asarray([2.0, -100.0]), jnp.asarray([0.5, 4.0]))
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    expected = (x - np.asarray([2.0, -100.0])) / np.asarray([0.5, 4.0])
    np.testing.assert_allclose(scale(scaler, jnp.asarray(x)), expected, rtol=1e-5)


def test_scaled_data_is_standardised():
    data = columns((1e4, 1e-1), (-3.0, 100.0), (7.0, 0.0))
    scaled = scale(fit(data, np.ones(NUM_ROWS)), jnp.asarray(data))
    np.testing.assert_allclose(np.mean(scaled, axis=0), 0.0, atol=1e-2)
    np.testing.assert_allclose(np.std(scaled, axis=0), [1.0, 1.0, 0.0], atol=1e-3)


def test_the_identity_changes_nothing():
    x = jnp.asarray([[1.0, -2.0, 3.0]])
    np.testing.assert_array_equal(scale(identity_scaler(3), x), x)

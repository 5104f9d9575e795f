"""The split of an error into what the model, the estimator and chance have done."""

import numpy as np
import pytest

from mbpo_jax.laboratory.measures.model_error import grams, split, standard_errors

MODEL = np.array([1.0, 2.0, -1.0])
TRUE = np.array([0.5, 2.5, 0.0])
BIAS = np.array([0.3, 0.0, 0.2])


def draws(rng: np.random.Generator, rows: int = 12):
    """Return estimates and paired draws, whose laws are known."""
    estimates = MODEL + BIAS + 0.7 * rng.normal(size=(8, 3))
    shared = rng.normal(size=(rows, 3))
    model = MODEL + shared + 0.1 * rng.normal(size=(rows, 3))
    true = TRUE + shared
    return grams(estimates, model, true)


def test_every_part_is_unbiased():
    rng = np.random.default_rng(0)
    found = np.array([split(draws(rng)) for _ in range(1500)])
    difference = MODEL - TRUE
    expected = [difference @ difference, BIAS @ BIAS, 2.0 * difference @ BIAS, 3 * 0.49]
    error = found.std(axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - expected) < 4.0 * error)


def test_the_parts_sum_to_the_mean_squared_error():
    """What is left of the gradient in the model cancels in the sum."""
    rng = np.random.default_rng(1)
    total = np.array([split(draws(rng)).total for _ in range(1500)])
    offset = MODEL + BIAS - TRUE
    error = total.std() / np.sqrt(len(total))
    assert abs(total.mean() - (offset @ offset + 3 * 0.49)) < 4.0 * error


def test_common_noise_makes_the_model_bias_precise():
    rng = np.random.default_rng(2)

    def biases(shares_noise: bool) -> list[float]:
        found = []
        for _ in range(100):
            noise = rng.normal(size=(12, 3))
            other = noise if shares_noise else rng.normal(size=(12, 3))
            found.append(split(grams(noise[:8], MODEL + noise, TRUE + other)).model_bias)
        return found

    assert 3.0 * np.std(biases(True)) < np.std(biases(False))


def test_standard_errors_are_those_of_many_repetitions():
    rng = np.random.default_rng(3)
    many = [draws(rng, rows=60) for _ in range(60)]
    told = np.mean([[*parts, total] for parts, total in map(standard_errors, many)], axis=0)
    true = np.std([[*found, found.total] for found in map(split, many)], axis=0)
    assert np.all((told / true > 0.5) & (told / true < 2.0))


def test_exact_gradients_have_no_error_of_their_own():
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(40, 3))
    found = split(grams(MODEL + noise, MODEL[None], TRUE[None]))
    assert found.model_bias == pytest.approx(np.sum((MODEL - TRUE) ** 2))
    bias = noise.mean(axis=0)
    variance = noise.var(axis=0, ddof=1).sum()
    assert found.estimator_bias == pytest.approx(bias @ bias - variance / 40)
    errors, _ = standard_errors(grams(MODEL + noise, MODEL[None], TRUE[None]))
    assert errors.model_bias == pytest.approx(0.0, abs=1e-12)
    assert errors.variance > 0.0


def test_two_estimates_have_no_standard_error():
    rng = np.random.default_rng(6)
    errors, total = standard_errors(draws(rng, rows=2))
    assert np.isnan([*errors, total]).all()


def test_without_a_model_error_there_is_none():
    rng = np.random.default_rng(4)
    same = rng.normal(size=(20, 3))
    found = split(grams(rng.normal(size=(8, 3)), same, same))
    assert found.model_bias == 0.0
    assert found.cross == 0.0

"""Metrics of normal, heavy-tailed and broken estimates, whose truth is known."""

import json

import numpy as np
import pytest

from mbpo_jax.laboratory.measures import metrics
from mbpo_jax.laboratory.measures.metrics import Inner, inner_products
from mbpo_jax.laboratory.measures.summary import intervals, log_variance_ratio, summarise
from mbpo_jax.laboratory.measures.tails import Tails, share_limit, tails

MEAN = np.array([1.0, -0.5, 0.0])
STD = np.array([1.0, 0.5, 2.0])
VARIANCE = 5.25
REFERENCE = np.array([0.5, 0.5, 1.0])


def normal(seed: int, number: int, mean=MEAN, std=STD) -> np.ndarray:
    """Return estimates `[M, P]`."""
    return mean + std * np.random.default_rng(seed).normal(size=(number, len(mean)))


def inner(seed: int, number: int, reference=REFERENCE) -> Inner:
    return inner_products(normal(seed, number), reference)


def off(values, expected: float) -> float:
    """Return how many standard errors the mean of values is off."""
    return (np.mean(values) - expected) / (np.std(values, ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (metrics.variance, VARIANCE),
        (metrics.signal, 1.25),
        (metrics.squared_bias, 2.25),
        (metrics.mean_squared_error, 2.25 + VARIANCE),
        (lambda x: metrics.squared_covariance(metrics.centred(x))[0], VARIANCE**2),
        (lambda x: metrics.squared_covariance(metrics.centred(x))[1], 17.0625),
    ],
)
def test_moments_are_unbiased(metric, expected):
    assert abs(off([metric(inner(seed, 6)) for seed in range(2000)], expected)) < 4.0


def test_moments_are_those_of_the_definitions():
    g = normal(0, 12)
    found, mean = inner_products(g, REFERENCE, 0.25), g.mean(axis=0)
    spread = g.var(axis=0, ddof=1).sum()
    np.testing.assert_allclose(metrics.variance(found), spread)
    np.testing.assert_allclose(metrics.signal(found), mean @ mean - spread / 12)
    bias = np.sum((mean - REFERENCE) ** 2) - spread / 12 - 0.25
    np.testing.assert_allclose(metrics.squared_bias(found), bias)
    np.testing.assert_allclose(metrics.mean_squared_error(found), bias + spread)
    np.testing.assert_allclose(metrics.relative_variance(found), spread / (1.5 - 0.25))
    np.testing.assert_allclose(
        metrics.required_batch(found, 5), 5 * spread / (mean @ mean - spread / 12)
    )


def test_bias_to_a_noisy_reference_is_unbiased():
    def found(seed: int) -> float:
        draws = normal(seed + 100_000, 5)
        error = draws.var(axis=0, ddof=1).sum() / 5
        return metrics.squared_bias(inner_products(normal(seed, 6), draws.mean(axis=0), error))

    assert abs(off([found(seed) for seed in range(2000)], 0.0)) < 4.0


def test_pure_noise_has_no_signal():
    samples = [normal(seed, 20, np.zeros(10), np.ones(10)) for seed in range(2000)]
    found = [metrics.snr(inner_products(g, np.zeros(10))) for g in samples]
    assert abs(off(found, 0.0)) < 4.0
    plain = [np.sum(g.mean(axis=0) ** 2) / g.var(axis=0, ddof=1).sum() for g in samples]
    np.testing.assert_allclose(np.mean(plain), 1 / 20, rtol=0.05)


@pytest.mark.parametrize(
    ("snr", "expected"), [(0.1, 0.3015), (1.0, 0.7071), (10.0, 0.9535), (100.0, 0.9950)]
)
def test_cosines_of_isotropic_noise(snr, expected):
    size = 2000
    mean = np.full(size, np.sqrt(snr / size))
    found = inner_products(normal(0, 200, mean, np.full(size, 1 / np.sqrt(size))), mean)
    angles = metrics.cosines(found)
    assert angles is not None
    np.testing.assert_allclose(angles.mean(), expected, atol=5e-3)
    np.testing.assert_allclose(metrics.isotropic_cosine(found), expected, atol=5e-3)
    halves = 1 / np.sqrt(1 + 0.01 / snr) ** 2
    np.testing.assert_allclose(metrics.split_half_cosine(found), halves, atol=0.05)


def test_effective_rank_counts_directions():
    line = np.outer(np.random.default_rng(0).normal(size=20), STD)
    np.testing.assert_allclose(metrics.effective_rank(inner_products(line, MEAN)), 1.0)
    ball = normal(0, 400, np.zeros(30), np.ones(30))
    np.testing.assert_allclose(
        metrics.effective_rank(inner_products(ball, np.ones(30))), 30.0, rtol=0.05
    )


def test_a_reference_that_is_no_direction_is_refused():
    g = normal(0, 16)
    assert metrics.cosines(inner_products(g, REFERENCE, 0.15)) is None
    assert metrics.cosines(inner_products(g, REFERENCE, 0.14)) is not None
    assert metrics.cosines(inner_products(g, np.zeros(3))) is None
    unknown = summarise(inner_products(g, np.full(3, np.nan)), 1)
    refused = {"cosine", "cosine_5", "squared_bias", "squared_bias_interval", "relative_variance"}
    assert {unknown[name] for name in refused} == {None}
    assert unknown["variance_interval"] is not None


def test_without_a_signal_no_batch_is_large_enough():
    g = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    found = inner_products(g, np.ones(1))
    assert metrics.signal(found) < 0.0
    assert metrics.required_batch(found, 8) == np.inf
    assert metrics.isotropic_cosine(found) == 0.0
    values = summarise(found, 8)
    assert [values[name] for name in ("required_batch", "snr_db", "variance_interval")] == [
        None
    ] * 3


def test_gradients_of_zero():
    found = inner_products(np.concatenate([np.zeros((9, 2)), np.ones((9, 2))]), np.ones(2))
    np.testing.assert_allclose(metrics.cosines(found), np.repeat([0.0, 1.0], 9))
    nothing = summarise(inner_products(np.zeros((9, 2)), np.ones(2)), 1)
    assert nothing["variance"] == 0.0
    assert nothing["snr"] is None
    np.testing.assert_allclose(nothing["squared_bias"], 2.0)


def test_estimates_without_variance():
    values = summarise(inner_products(np.full((16, 3), 0.3), np.full(3, 0.3)), 4)
    assert (values["variance"], values["required_batch"], values["cosine"]) == (0.0, 0.0, 1.0)
    assert (values["snr"], values["effective_rank"], values["largest_share"]) == (None, None, None)


def tails_of(draw, number: int, repeats: int) -> list[Tails]:
    """Describe many samples `draw(rng, [M, 1])`."""
    rng = np.random.default_rng(0)
    samples = [draw(rng, (number, 1)) for _ in range(repeats)]
    return [tails(inner_products(g, np.ones(1))) for g in samples]


@pytest.mark.parametrize("number", [8, 32, 64, 256])
def test_tails_of_normal_estimates_are_not_heavy(number):
    found = tails_of(lambda rng, shape: rng.normal(size=shape), number, 200)
    assert np.mean([x.heavy_tailed for x in found]) < 0.04
    kurtosis = 3 * (number - 1) / (number + 1)
    assert abs(off([x.kurtosis for x in found], kurtosis)) < 4.0


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, shape: rng.standard_cauchy(shape),
        lambda rng, shape: rng.lognormal(sigma=3.0, size=shape),
    ],
)
@pytest.mark.parametrize(("number", "power"), [(32, 0.75), (256, 0.98)])
def test_heavy_tails_are_found(draw, number, power):
    found = tails_of(draw, number, 100)
    assert np.mean([x.heavy_tailed for x in found]) > power
    # In a normal law this is 3.29 / 0.67.
    assert np.median([x.tail_ratio for x in found]) > 10.0


def test_the_limit_of_shares_is_one_tenth_if_there_are_enough():
    limits = [share_limit(number) for number in (32, 64, 151, 153, 10_000)]
    np.testing.assert_allclose(limits[:2], [0.345, 0.204], atol=1e-3)
    assert limits[2] > 0.1
    assert limits[3:] == [0.1, 0.1]


def test_the_hill_index_is_the_exponent_of_the_tail():
    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        return rng.choice([-1.0, 1.0], shape) * (1 - rng.uniform(size=shape)) ** (-1 / 1.5)

    found = [x.hill_index for x in tails_of(draw, 400, 50)]
    # The largest 20 of 400: 1 / index has a relative error of 1 / sqrt(20) in each sample.
    np.testing.assert_allclose(np.mean(np.reciprocal(found)), 1 / 1.5, atol=4 / 1.5 / np.sqrt(1000))


def test_a_variance_that_is_not_estimable_is_not_given():
    g = np.random.default_rng(0).standard_cauchy((256, 2))
    values = summarise(inner_products(g, np.ones(2)), 1)
    assert values["heavy_tailed"] is True
    refused = ("variance", "snr", "snr_db", "required_batch", "mean_squared_error", "squared_bias")
    assert [values[name] for name in refused] == [None] * len(refused)
    first, second = np.triu_indices(256, 1)
    halves = 0.5 * np.sum((g[first] - g[second]) ** 2, axis=1)
    np.testing.assert_allclose(
        values["log10_half_squared_distances"][3], np.log10(np.median(halves))
    )
    groups = np.split(g, 8)
    np.testing.assert_allclose(
        values["median_of_means_variance"],
        np.median([x.var(axis=0, ddof=1).sum() for x in groups]),
    )
    other = inner_products(normal(0, 256), REFERENCE)
    assert log_variance_ratio(inner_products(g, np.ones(2)), other) is None


def test_one_estimate_that_is_far_off_does_not_move_what_is_told_of_the_others():
    g = normal(0, 64)
    far = np.vstack([g[:-1], [[1e12, 0.0, 0.0]]])
    plain, moved = (summarise(inner_products(x, REFERENCE), 1, 200) for x in (g, far))
    assert (plain["heavy_tailed"], moved["heavy_tailed"]) == (False, True)
    middle = slice(1, 5)  # the largest distances are those to the one that is far off
    np.testing.assert_allclose(
        *(x["log10_half_squared_distances"][middle] for x in (moved, plain)), atol=0.1
    )
    np.testing.assert_allclose(*(x["median_of_means_variance"] for x in (moved, plain)), rtol=0.3)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e200])
def test_overflow_is_told_and_nothing_else(value):
    g = normal(0, 16)
    g[3, 1] = value
    values = summarise(inner_products(g, REFERENCE), 4)
    assert values.pop("overflowed") is True
    assert (values.pop("estimates"), values.pop("batch_size")) == (16, 4)
    assert set(values.values()) == {None}


def test_float32_at_its_limit_does_not_overflow():
    g = (1e37 * normal(0, 16)).astype(np.float32)
    values = summarise(inner_products(g, np.float32(1e37) * REFERENCE.astype(np.float32)), 4)
    np.testing.assert_allclose(values["variance"], 1e74 * metrics.variance(inner(0, 16)), rtol=1e-5)
    assert values["mean_squared_error_interval"] is not None


def test_metrics_follow_the_scale():
    plain, large = (
        summarise(inner_products(c * normal(1, 32), c * REFERENCE), 4, 200) for c in (1.0, 1024.0)
    )
    squared = {"variance", "signal", "squared_bias", "mean_squared_error"}
    squared |= {f"{name}_interval" for name in squared} | {"median_of_means_variance"}
    for name, value in plain.items():
        if name == "log10_half_squared_distances":
            np.testing.assert_allclose(large[name], np.add(value, 2 * np.log10(1024.0)))
        else:
            factor = 1024.0**2 if name in squared else 1
            expected = factor * np.asarray(value, float)
            np.testing.assert_allclose(large[name], expected, rtol=1e-6, err_msg=name)


def test_a_second_call_gives_the_same_and_all_of_it_is_json():
    found = inner(0, 32)
    first = json.dumps(summarise(found, 4, 200), allow_nan=False)
    assert first == json.dumps(summarise(found, 4, 200), allow_nan=False)


@pytest.mark.parametrize("name", ["variance", "snr", "squared_bias", "mean_squared_error"])
def test_intervals_cover_the_truth(name):
    truth = {"variance": VARIANCE, "snr": 1.25 / VARIANCE, "squared_bias": 2.25}
    truth["mean_squared_error"] = 2.25 + VARIANCE

    def covers(seed: int) -> bool:
        found = inner(seed, 40)
        metric = getattr(metrics, name)
        ((low, high),) = intervals(lambda n: metric(found, n)[None], 40, 400, seed)
        return low < truth[name] < high

    assert 0.87 < np.mean([covers(seed) for seed in range(200)]) < 0.99


def test_intervals_of_bias_where_there_is_none_are_not_too_short():
    size = 100

    def covers(seed: int) -> bool:
        found = inner_products(normal(seed, 30, np.zeros(size), np.ones(size)), np.zeros(size))
        statistic = lambda n: metrics.squared_bias(found, n)[None]  # noqa: E731
        ((low, high),) = intervals(statistic, 30, 400, seed)
        return low < 0.0 < high

    assert np.mean([covers(seed) for seed in range(100)]) > 0.9


def test_pairs_that_share_noise_are_compared_more_sharply():
    a = normal(0, 64)
    b = 2.0 * a + 0.1 * normal(1, 64)
    found = log_variance_ratio(inner_products(b, MEAN), inner_products(a, MEAN))
    apart = log_variance_ratio(inner_products(2.0 * normal(2, 64), MEAN), inner_products(a, MEAN))
    assert found is not None
    assert apart is not None
    value, low, high = found
    assert low < value < high
    np.testing.assert_allclose(value, np.log10(4.0), atol=0.02)
    assert high - low < 0.2 * (apart[2] - apart[1])
    assert apart[1] < np.log10(4.0) < apart[2]

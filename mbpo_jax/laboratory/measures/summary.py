"""All metrics of an estimator as one row of numbers, with bootstrapped intervals."""

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats

from mbpo_jax.laboratory.measures.metrics import (
    Inner,
    cosines,
    effective_rank,
    isotropic_cosine,
    mean_squared_error,
    overflowed,
    relative_variance,
    required_batch,
    signal,
    snr,
    split_half_cosine,
    squared_bias,
    variance,
)
from mbpo_jax.laboratory.measures.tails import (
    half_squared_distances,
    median_of_means_variance,
    tails,
)

FEWEST = 8
"""Estimates without which there are no intervals."""

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Of half the squared distances of two estimates, which are told whatever the tails."""


def intervals(
    statistic: Callable[[np.ndarray], np.ndarray], number: int, resamples: int, seed: int
) -> np.ndarray:
    """Return bootstrapped 95 % intervals `[K, 2]` of a function of counts that returns `[K, ...]`.

    They are BCa intervals (Efron 1987), or percentiles where those are not defined. Equal seeds
    resample the same of the M (`number`) estimates.
    """

    def of_indices(index: np.ndarray, axis: int) -> np.ndarray:
        del axis
        rows = index.reshape(-1, index.shape[-1])
        flat = rows + number * np.arange(len(rows))[:, None]
        counts = np.bincount(flat.ravel(), minlength=number * len(rows))
        return statistic(counts.reshape(*index.shape[:-1], number).astype(float))

    indices = (np.arange(number),)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            indices, of_indices, n_resamples=resamples, rng=np.random.default_rng(seed)
        )
        plain = stats.bootstrap(
            indices, of_indices, n_resamples=0, bootstrap_result=found, method="percentile"
        )
    low, high = (
        np.where(np.isfinite(a), a, b)
        for a, b in zip(found.confidence_interval, plain.confidence_interval, strict=True)
    )
    return np.stack([low, high], axis=-1)


def log_variance_ratio(
    a: Inner, b: Inner, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float] | None:
    """Compare two estimators: `log10(V_a / V_b)`, and the ends of its 95 % interval.

    The i-th estimates of both come from the same noise, which is why they are resampled together.
    None if there are too few, or if a variance is zero or not estimable.
    """
    pair, number = (a, b), len(a.estimates)
    if number < FEWEST or any(tails(x).heavy_tailed or not variance(x) > 0.0 for x in pair):
        return None

    def statistic(counts: np.ndarray) -> np.ndarray:
        return np.log10(variance(a, counts) / variance(b, counts))[None]

    ((low, high),) = intervals(statistic, number, resamples, seed)
    return float(statistic(np.ones(number))[0]), float(low), float(high)


_WITH_INTERVALS = {
    "variance": variance,
    "snr": snr,
    "squared_bias": squared_bias,
    "mean_squared_error": mean_squared_error,
}


def summarise(
    inner: Inner, batch_size: int, resamples: int = 2000, seed: int = 0
) -> dict[str, float | bool | list | None]:
    """Return all metrics as JSON takes them.

    None stands for what is not known: all if an estimate is not finite, and if tails are heavy,
    whatever rests on the variance; `QUANTILES` of squared distances remain. Intervals are those
    of the estimates; an error of the reference itself does not widen them.
    """
    number, tail, angles = len(inner.estimates), tails(inner), cosines(inner)
    is_finite = not overflowed(inner)

    def with_intervals(counts: np.ndarray) -> np.ndarray:
        return np.stack([metric(inner, counts) for metric in _WITH_INTERVALS.values()])

    ranges = np.full((len(_WITH_INTERVALS), 2), np.nan)
    if is_finite and not tail.heavy_tailed and number >= FEWEST:
        ranges = intervals(with_intervals, number, resamples, seed)
    values = with_intervals(np.ones(number))
    moments = {
        "signal": signal(inner),
        **dict(zip(_WITH_INTERVALS, values, strict=True)),
        **{f"{name}_interval": ends for name, ends in zip(_WITH_INTERVALS, ranges, strict=True)},
        "snr_db": 10.0 * np.log10(snr(inner)) if snr(inner) > 0.0 else np.nan,
        "relative_variance": relative_variance(inner),
        "required_batch": required_batch(inner, batch_size),
        "isotropic_cosine": isotropic_cosine(inner),
        "effective_rank": effective_rank(inner),
    }
    low, median, high = (np.nan,) * 3 if angles is None else np.quantile(angles, (0.05, 0.5, 0.95))
    with np.errstate(divide="ignore"):
        logs = np.log10(np.quantile(half_squared_distances(inner), QUANTILES))
    found = {
        "estimates": number,
        "batch_size": batch_size,
        "overflowed": not is_finite,
        **(dict.fromkeys(moments) if tail.heavy_tailed else moments),
        "cosine": np.nan if angles is None else np.mean(angles),
        "cosine_5": low,
        "cosine_50": median,
        "cosine_95": high,
        "split_half_cosine": split_half_cosine(inner),
        **tail._asdict(),
        "log10_half_squared_distances": logs,
        "median_of_means_variance": median_of_means_variance(inner),
    }
    if not is_finite:
        found["heavy_tailed"] = None
    return {name: as_json(x) for name, x in found.items()}


def as_json(x) -> float | bool | list | None:
    """Return numbers as Python's own, None for one that is not finite, and arrays as lists."""
    if isinstance(x, np.ndarray) and x.ndim:
        return [as_json(element) for element in x] if np.isfinite(x).any() else None
    if x is None or isinstance(x, bool | int):
        return x
    return float(x) if np.isfinite(x) else None

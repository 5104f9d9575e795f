"""How good a gradient estimator is, told from independent estimates of the same gradient.

An estimate is what one batch gives, so that estimators whose variance does not fall as 1 / B are
measured as they are used. All metrics come from inner products: of gradients of any length, a
matrix `[M, M]` is enough. A variance is the trace of a covariance matrix, and squares are in the
squared units of the gradient. Numbers that cannot be known are NaN here, and None in a `summary`.

Means of products run over pairs of different estimates (U-statistics), which makes them unbiased:
the plain |mean|^2 of pure noise is V / M, and the SNR made of it 1 / M.

Letters: `M` estimates, `P` parameters, `V` variance. Counts `[..., M]` tell how often each estimate
occurs in a resample; None stands for once.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

REFERENCE_SNR = 10.0
"""A reference with less is no direction to measure an angle to."""

HEAVY_SHARE = 0.1
"""Share of one estimate in the sum of squared deviations from which tails are heavy."""

FALSE_ALARM = 0.01
"""How often at most normal estimates are called heavy-tailed, however few they are."""

FEWEST = 8
"""Estimates without which there are no intervals."""


class Inner(NamedTuple):
    """Inner products of estimates g_i and of a reference r, float64.

    An estimate that is not finite has NaN for all of its products, and so has a reference that is
    not finite or unknown.

    Attributes:
      estimates: `[M, M]`, `g_i . g_j`.
      to_reference: `[M]`, `g_i . r`.
      reference: `r . r`.
      reference_error: variance of r itself: 0 if it is exact, `V / M` if it is a mean of M draws
        whose variance is V.
    """

    estimates: np.ndarray
    to_reference: np.ndarray
    reference: float
    reference_error: float


def inner_products(
    estimates: np.ndarray, reference: np.ndarray, reference_error: float = 0.0
) -> Inner:
    """Return what the metrics need of M >= 2 estimates `[M, P]` and of a reference `[P]`.

    They need not be finite; what is has to have a square in float64.
    """
    rows = np.vstack([estimates, np.asarray(reference)[None]]).astype(np.float64)
    finite = np.all(np.isfinite(rows), axis=1)
    # Zeros in their place, as BLAS may warn of a NaN.
    rows = np.where(finite[:, None], rows, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        gram = rows @ rows.T
    finite &= np.isfinite(np.diagonal(gram))
    gram = np.where(np.outer(finite, finite), gram, np.nan)
    return Inner(gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1]), float(reference_error))


def overflowed(inner: Inner) -> bool:
    """Return whether any estimate is not finite."""
    return not np.isfinite(np.diagonal(inner.estimates)).all()


def between(gram: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the mean `[...]` of a matrix `[M, M]` over pairs of different estimates.

    Copies of one estimate in a resample are no pair, or else resamples would not be unbiased.
    """
    counts = np.ones(len(gram)) if counts is None else counts
    squares = np.square(counts)
    pairs = np.square(counts.sum(-1)) - squares.sum(-1)
    return ((counts @ gram * counts).sum(-1) - squares @ np.diagonal(gram)) / pairs


def centred(inner: Inner) -> np.ndarray:
    """Return the inner products `[M, M]` of the estimates' deviations from their mean.

    They are 0 if the estimates differ by less than float32 can tell.
    """
    gram = inner.estimates
    mean = gram.mean(axis=0)
    gram = gram - mean[:, None] - mean[None, :] + mean.mean()
    lost_in_rounding = np.trace(gram) <= 64 * np.finfo(np.float64).eps * np.trace(inner.estimates)
    return np.zeros_like(gram) if lost_in_rounding else gram


def errors(inner: Inner) -> np.ndarray:
    """Return the inner products `[M, M]` of the estimates' differences to the reference."""
    to_reference = inner.to_reference
    return inner.estimates - to_reference[:, None] - to_reference[None, :] + inner.reference


def variance(inner: Inner, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the unbiased variance V `[...]`: half the mean squared distance of two estimates."""
    gram = centred(inner)
    counts = np.ones(len(gram)) if counts is None else counts
    number, squares = counts.sum(-1), np.square(counts).sum(-1)
    distances = number * (counts @ np.diagonal(gram)) - (counts @ gram * counts).sum(-1)
    return distances / (np.square(number) - squares)


def signal(inner: Inner, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the unbiased squared norm `[...]` of the estimates' mean; noise may make it negative.

    It is `|mean|^2 - V / M`.
    """
    return between(inner.estimates, counts)


def snr(inner: Inner, counts: np.ndarray | None = None) -> np.ndarray:
    """Return signal / variance `[...]`, of the batch size that the estimates have."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return signal(inner, counts) / variance(inner, counts)


def squared_bias(inner: Inner, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the unbiased squared bias `[...]`; noise may make it negative.

    It is `|mean - r|^2 - V / M - reference_error`.
    """
    return between(errors(inner), counts) - inner.reference_error


def mean_squared_error(inner: Inner, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the unbiased `E |g - r|^2` `[...]`, which is squared bias plus variance."""
    counts = np.ones(len(inner.estimates)) if counts is None else counts
    return counts @ np.diagonal(errors(inner)) / counts.sum(-1) - inner.reference_error


def relative_variance(inner: Inner) -> float:
    """Return V over the unbiased squared norm of the reference; NaN unless that is positive."""
    norm = inner.reference - inner.reference_error
    return float(variance(inner)) / norm if norm > 0.0 else np.nan


def required_batch(inner: Inner, batch_size: int) -> float:
    """Return the batch size whose SNR is 1, if V falls as 1 / B; infinite without a signal."""
    strength = float(signal(inner))
    return batch_size * float(variance(inner)) / strength if strength > 0.0 else np.inf


def cosines(inner: Inner) -> np.ndarray | None:
    """Return the cosines `[M]` to the reference; that of a gradient of zero is 0.

    None if the reference is zero, unknown, or too noisy: an SNR of 10 shortens cosines by 5 %.
    """
    if not inner.reference > REFERENCE_SNR * inner.reference_error:
        return None
    norms = np.sqrt(np.diagonal(inner.estimates)) * np.sqrt(inner.reference)
    found = np.where(norms == 0.0, 0.0, inner.to_reference / np.where(norms == 0.0, 1.0, norms))
    return np.clip(found, -1.0, 1.0)


def isotropic_cosine(inner: Inner) -> float:
    """Return `1 / sqrt(1 + V / signal)`, about the mean cosine if noise has no direction.

    0 without a signal.
    """
    strength, noise = np.maximum(signal(inner), 0.0), variance(inner)
    return 0.0 if strength == 0.0 else float(np.sqrt(strength / (strength + noise)))


def split_half_cosine(inner: Inner) -> float:
    """Return the cosine between the means of either half of the estimates; NaN if one is zero."""
    first = np.arange(len(inner.estimates)) < len(inner.estimates) // 2
    gram = inner.estimates
    norms = gram[np.ix_(first, first)].sum(), gram[np.ix_(~first, ~first)].sum()
    if not min(norms) > 0.0:
        return np.nan
    return float(gram[np.ix_(first, ~first)].sum() / np.sqrt(norms[0]) / np.sqrt(norms[1]))


def squared_covariance(gram: np.ndarray) -> tuple[float, float]:
    """Return unbiased `(tr S)^2` and `tr S^2` of the covariance matrix S; NaN if M < 4.

    The U-statistics of Himeno and Yamada 2014, of the inner products `[M, M]` of deviations.
    """
    m = len(gram)
    if m < 4:
        return np.nan, np.nan
    trace, square = np.trace(gram) / (m - 1), np.square(gram).sum() / (m - 1) ** 2
    fourth = m * np.square(np.diagonal(gram)).sum() / (m - 1)
    scale = (m - 1) / (m * (m - 2) * (m - 3))
    squared_trace = scale * (2 * square + (m**2 - 3 * m + 1) * trace**2 - fourth)
    trace_of_square = scale * ((m - 1) * (m - 2) * square + trace**2 - fourth)
    return float(squared_trace), float(trace_of_square)


def effective_rank(inner: Inner) -> float:
    """Return `(tr S)^2 / tr S^2` of the covariance matrix S: 1 of a line, P of white noise.

    NaN if nothing varies, or if the denominator is lost in noise.
    """
    gram = centred(inner)
    trace = np.trace(gram)
    above, below = squared_covariance(gram / trace) if trace > 0.0 else (np.nan, np.nan)
    return above / below if below > 0.0 else np.nan


class Tails(NamedTuple):
    """Whether the estimates' variance can be estimated at all.

    Attributes:
      largest_share: of one estimate in the sum of squared deviations.
      kurtosis: `E |d|^4 / (E |d|^2)^2` of deviations d; 3 for one normal parameter, 1 for many.
      hill_index: of the power law of the sqrt(M) largest |d|; below 2 there is no variance.
      tail_ratio: 99.9 % quantile over median of |d|.
      heavy_tailed: whether the largest share is more than `share_limit`.
    """

    largest_share: float
    kurtosis: float
    hill_index: float
    tail_ratio: float
    heavy_tailed: bool


def share_limit(number: int) -> float:
    """Return the share of one estimate in the sum of squares beyond which tails are heavy.

    It is 10 %, but among few estimates the largest share of normal ones is more than that: in one
    dimension each is `(M - 1) / M` times a Beta(1/2, (M - 2) / 2) variable. So the limit is what
    any of M exceeds with a chance of 1 %, if that is more, as it is below M = 152 (0.21 at M = 64,
    0.35 at M = 32). In more dimensions shares are more even, and alarms rarer.
    """
    if number < 3:
        return 1.0
    one = stats.beta.ppf(1.0 - FALSE_ALARM / number, 0.5, 0.5 * (number - 2))
    return max(HEAVY_SHARE, (number - 1) / number * float(one))


def squared_deviations(inner: Inner) -> np.ndarray:
    """Return the estimates' squared distances `[M]` to their mean."""
    return np.maximum(np.diagonal(centred(inner)), 0.0)


def tails(inner: Inner) -> Tails:
    """Describe the tails; nothing is known of estimates that do not vary."""
    squares = squared_deviations(inner)
    total = squares.sum()
    if not total > 0.0:
        return Tails(np.nan, np.nan, np.nan, np.nan, False)
    share = squares / total
    norms = np.sort(np.sqrt(share))
    largest, middle = norms[-int(np.sqrt(len(norms))) - 1 :], np.median(norms)
    exponent = np.mean(np.log(largest[1:] / largest[0])) if largest[0] > 0.0 else 0.0
    return Tails(
        largest_share=float(share.max()),
        kurtosis=float(len(share) * np.square(share).sum()),
        hill_index=float(1.0 / exponent) if exponent > 0.0 else np.nan,
        tail_ratio=float(np.quantile(norms, 0.999) / middle) if middle > 0.0 else np.nan,
        heavy_tailed=bool(share.max() > share_limit(len(share))),
    )


def median_of_means_variance(inner: Inner) -> float:
    """Return the median of the variances of eight groups of estimates (of fewer if M < 32).

    It exists without a fourth moment, but it is too low if tails are heavy.
    """
    number = len(inner.estimates)
    groups = np.array_split(np.arange(number), min(8, max(1, number // 4)))
    counts = np.stack([np.isin(np.arange(number), group) for group in groups]).astype(float)
    return float(np.median(variance(inner, counts)))


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


def summary(
    inner: Inner, batch_size: int, resamples: int = 2000, seed: int = 0
) -> dict[str, float | bool | list | None]:
    """Return all metrics as JSON takes them.

    None stands for what is not known: all if an estimate is not finite, and if tails are heavy,
    whatever rests on the variance; the quantiles of squared deviations remain. Intervals are those
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
        logs = np.log10(np.quantile(squared_deviations(inner), (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)))
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
        "log10_squared_deviations": logs,
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

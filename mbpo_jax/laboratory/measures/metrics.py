"""How good a gradient estimator is, told from independent estimates of the same gradient.

An estimate is what one batch gives, so that estimators whose variance does not fall as 1 / B are
measured as they are used. All metrics come from inner products: of gradients of any length, a
matrix `[M, M]` is enough. A variance is the trace of a covariance matrix, and squares are in the
squared units of the gradient. Numbers that cannot be known are NaN.

Means of products run over pairs of different estimates (U-statistics), which makes them unbiased:
the plain |mean|^2 of pure noise is V / M, and the SNR made of it 1 / M.

Letters: `M` estimates, `P` parameters, `V` variance. Counts `[..., M]` tell how often each estimate
occurs in a resample; None stands for once.
"""

from typing import NamedTuple

import numpy as np

REFERENCE_SNR = 10.0
"""A reference with less is no direction to measure an angle to."""


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


def squared_distances(inner: Inner) -> np.ndarray:
    """Return the squared distances `[M, M]` between estimates."""
    square = np.diagonal(inner.estimates)
    return np.maximum(square[:, None] + square[None, :] - 2.0 * inner.estimates, 0.0)


def from_medoid(inner: Inner) -> np.ndarray:
    """Return the inner products `[M, M]` of the estimates' differences to one in their middle.

    That is the one with the least median distance to the others; a few that are far off, which
    would carry a mean away with them, do not move it. All are 0 if the estimates differ by less
    than float32 can tell.
    """
    gram = inner.estimates
    middle = int(np.argmin(np.median(squared_distances(inner), axis=1)))
    moved = gram - gram[middle][:, None] - gram[middle][None, :] + gram[middle, middle]
    lost_in_rounding = np.trace(moved) <= 64 * np.finfo(np.float64).eps * np.trace(gram)
    return np.zeros_like(gram) if lost_in_rounding else moved


def centred(inner: Inner) -> np.ndarray:
    """Return the inner products `[M, M]` of the estimates' deviations from their mean."""
    gram = from_medoid(inner)
    mean = gram.mean(axis=0)
    return gram - mean[:, None] - mean[None, :] + mean.mean()


def errors(inner: Inner) -> np.ndarray:
    """Return the inner products `[M, M]` of the estimates' differences to the reference."""
    to_reference = inner.to_reference
    return inner.estimates - to_reference[:, None] - to_reference[None, :] + inner.reference


def variance(inner: Inner, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the unbiased variance V `[...]`: half the mean squared distance of two estimates."""
    gram = from_medoid(inner)  # distances are the same from any point
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

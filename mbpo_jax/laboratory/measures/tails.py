"""Whether the variance of estimates can be told from a sample, and what can be told otherwise."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from mbpo_jax.laboratory.measures.metrics import Inner, centred, from_medoid, variance

HEAVY_SHARE = 0.1
"""Share of one estimate in the sum of squared deviations from which tails are heavy."""

FALSE_ALARM = 0.01
"""How often at most normal estimates are called heavy-tailed, however few they are."""


class Tails(NamedTuple):
    """Whether the estimates' variance can be estimated at all.

    Attributes:
      largest_share: of one estimate in the sum of squared deviations from the mean.
      kurtosis: `E |d|^4 / (E |d|^2)^2` of deviations d; 3 for one normal parameter, 1 for many.
      hill_index: of the power law of the sqrt(M) largest distances from the middle of the
        estimates; below 2 there is no variance.
      tail_ratio: 99.9 % quantile over median of these distances.
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


def tails(inner: Inner) -> Tails:
    """Describe the tails; nothing is known of estimates that do not vary."""
    squares = np.maximum(np.diagonal(centred(inner)), 0.0)
    total = squares.sum()
    if not total > 0.0:
        return Tails(np.nan, np.nan, np.nan, np.nan, False)
    share = squares / total
    norms = np.sort(np.sqrt(np.maximum(np.diagonal(from_medoid(inner)), 0.0)))
    largest, middle = norms[-int(np.sqrt(len(norms))) - 1 :], np.median(norms)
    exponent = np.mean(np.log(largest[1:] / largest[0])) if largest[0] > 0.0 else 0.0
    return Tails(
        largest_share=float(share.max()),
        kurtosis=float(len(share) * np.square(share).sum()),
        hill_index=float(1.0 / exponent) if exponent > 0.0 else np.nan,
        tail_ratio=float(np.quantile(norms, 0.999) / middle) if middle > 0.0 else np.nan,
        heavy_tailed=bool(share.max() > share_limit(len(share))),
    )


def half_squared_distances(inner: Inner) -> np.ndarray:
    """Return `|g_i - g_j|^2 / 2` of all pairs, whose mean is V."""
    gram = from_medoid(inner)
    square = np.diagonal(gram)
    first, second = np.triu_indices(len(gram), 1)
    return np.maximum(0.5 * (square[first] + square[second]) - gram[first, second], 0.0)


def median_of_means_variance(inner: Inner) -> float:
    """Return the median of the variances of eight groups of estimates (of fewer if M < 32).

    It exists without a fourth moment, but it is too low if tails are heavy.
    """
    number = len(inner.estimates)
    groups = np.array_split(np.arange(number), min(8, max(1, number // 4)))
    counts = np.stack([np.isin(np.arange(number), group) for group in groups]).astype(float)
    return float(np.median(variance(inner, counts)))

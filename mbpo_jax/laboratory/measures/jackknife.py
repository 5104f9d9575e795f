"""Standard errors by leaving out one group of rows after the other.

A bootstrap would draw rows twice, and products of a row with itself would pass for products of
independent ones.
"""

from collections.abc import Callable

import numpy as np

PARTS = 10
"""Groups of rows, each of which is left out once; fewer if there are fewer rows."""


def standard_errors(statistic: Callable[..., np.ndarray], *sizes: int) -> np.ndarray | None:
    """Return the standard errors `[K]` of a statistic; None of fewer than three rows.

    Args:
      statistic: from the indices of the rows that are kept, an array for each size, to `[K]`.
      *sizes: numbers of rows; one row alone is exact and always kept.
    """
    parts = min(PARTS, *(size for size in sizes if size > 1))
    if parts < 3:
        return None

    def kept(size: int, part: int) -> np.ndarray:
        return np.flatnonzero((np.arange(size) % parts != part) | (size == 1))

    without = np.array([statistic(*(kept(size, part) for size in sizes)) for part in range(parts)])
    deviations = without - np.mean(without, axis=0, keepdims=True)
    return np.sqrt((parts - 1) / parts * np.sum(np.square(deviations), axis=0))

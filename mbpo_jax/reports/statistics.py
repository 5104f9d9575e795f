"""Aggregates over runs and tasks with stratified-bootstrap intervals.

The quantities of Agarwal et al. 2021 (arXiv:2108.13264). Scores are one array `[..., n]` a task,
whose last axis is runs; tasks may have different numbers of runs. Leading axes, such as time, stay.
Resampling draws runs within each task, never tasks, from a seed that is given. Without at least
`FEWEST` runs in every task there is no interval.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

FEWEST = 3
"""Runs of a task without which there is no interval."""
RESAMPLES = 2000
CONFIDENCE = 0.95

Scores = Sequence[np.ndarray]
"""Scores of one algorithm, `[..., n]` a task."""


class Estimate(NamedTuple):
    """A number, or an array of them, with the ends of its interval; NaN where there is none."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interquartile_mean(scores: Scores) -> np.ndarray:
    """Return the mean `[...]` of the middle half of all runs of all tasks."""
    return stats.trim_mean(np.concatenate(scores, axis=-1), 0.25, axis=-1)


def mean(scores: Scores) -> np.ndarray:
    """Return the mean `[...]` over tasks of their means."""
    return np.mean([np.mean(x, axis=-1) for x in scores], axis=0)


def median(scores: Scores) -> np.ndarray:
    """Return the median `[...]` over tasks of their means."""
    return np.median([np.mean(x, axis=-1) for x in scores], axis=0)


def optimality_gap(scores: Scores, target: float = 1.0) -> np.ndarray:
    """Return by how much `[...]` runs miss a target on average; more than it counts as it."""
    return target - np.mean([np.mean(np.minimum(x, target), axis=-1) for x in scores], axis=0)


def performance_profile(scores: Scores, thresholds: np.ndarray) -> np.ndarray:
    """Return the share `[..., thresholds]` of runs above each threshold, averaged over tasks."""
    return np.mean(
        [np.mean(x[..., None, :] > thresholds[:, None], axis=-1) for x in scores], axis=0
    )


def probability_of_improvement(first: Scores, second: Scores) -> np.ndarray:
    """Return how likely `[...]` a run of the first beats one of the second, averaged over tasks.

    A tie counts half: it is the Mann-Whitney U over the number of pairs.
    """

    def one(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        a, b = x[..., :, None], y[..., None, :]
        return np.mean((a > b) + 0.5 * (a == b), axis=(-2, -1))

    return np.mean([one(x, y) for x, y in zip(first, second, strict=True)], axis=0)


def area_under_curve(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the mean height `[...]` of curves `[..., S]` over their range of steps `[S]`."""
    if len(steps) == 1:
        return values[..., 0]
    return np.trapezoid(values, steps, axis=-1) / (steps[-1] - steps[0])


def estimate(
    statistic: Callable[..., np.ndarray], *groups: Scores, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Return a statistic of one or more algorithms' scores with its 95 % interval.

    A percentile interval of a stratified bootstrap: every task's runs are redrawn by themselves.

    Args:
      statistic: takes the groups.
      *groups: scores, in each group for the same tasks.
      seed: of the resampling.
      resamples: how often.
    """
    value = np.asarray(statistic(*groups))
    if min(x.shape[-1] for scores in groups for x in scores) < FEWEST:
        return Estimate(value, *(np.full(value.shape, np.nan) for _ in range(2)))
    rng = np.random.default_rng(seed)

    def redrawn(x: np.ndarray) -> np.ndarray:
        chosen = rng.integers(x.shape[-1], size=(resamples, x.shape[-1]))
        return np.moveaxis(x[..., chosen], -2, 0)

    found = statistic(*([redrawn(x) for x in scores] for scores in groups))
    tail = 0.5 * (1.0 - CONFIDENCE)
    return Estimate(value, *np.quantile(found, (tail, 1.0 - tail), axis=0))

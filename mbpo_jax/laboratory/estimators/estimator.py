"""What an estimator is."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from mbpo_jax.config import EstimatorConfig, EstimatorRecord
from mbpo_jax.laboratory.problems.problem import Noise, Problem, Trajectory
from mbpo_jax.types import PyTree

UNDESCRIBED = EstimatorRecord("of one's own", "not said")
"""Of an estimator of one's own whose maker says no more."""


class Estimate(NamedTuple):
    """What an estimator makes of a batch.

    Attributes:
      gradient: `[P]`.
      made: the policy's trajectories under the noise `[B]`, if they were made on the way, so that
        whoever wants to see them need not make them again; None if not, or not to their end.
    """

    gradient: jax.Array
    made: Trajectory | None = None


class Estimator(NamedTuple):
    """A gradient estimator: a pure function of parameters, problem and noise, and what it needs.

    Attributes:
      estimate: `(config, params [P], problem, noise [B]) -> Estimate`; that of an estimator over
        batches takes noise `[M, B]`, and its gradients are `[M, P]`.
      draw: `(key, problem, horizon) -> own noise` of one trajectory; None if it has none.
      step_weights: `(params [P], problem, noise [B]) -> [H]`, the weights of the likelihood ratio
        at each step; None for one that weighs no steps.
      record: what else is known of it; that of the name takes its place where there is one.
    """

    estimate: Callable[[EstimatorConfig, jax.Array, Problem, Noise], Estimate]
    draw: Callable[[jax.Array, Problem, int], PyTree] | None = None
    step_weights: Callable[[jax.Array, Problem, Noise], jax.Array] | None = None
    record: EstimatorRecord = UNDESCRIBED

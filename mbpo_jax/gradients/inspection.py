"""A closer look at one horizon: by step of the action, by source of noise, by growth of changes."""

from collections.abc import Sequence

import jax
import numpy as np

from mbpo_jax.config import EstimatorConfig, StudyConfig
from mbpo_jax.files import Row
from mbpo_jax.gradients.decomposition import by_action_time, variance_by_source
from mbpo_jax.gradients.estimators import (
    OVER_BATCHES,
    draw_batches,
    estimate_batches,
)
from mbpo_jax.gradients.metrics import between
from mbpo_jax.gradients.problem import Problem, draw
from mbpo_jax.gradients.stability import stability
from mbpo_jax.gradients.study import compiled, lacking
from mbpo_jax.trees import coordinates

MOST_NUMBERS = 200_000
"""Steps times parameters that are told apart."""
MOST_COORDINATES = 64
"""Of a state whose Jacobians are made."""
TRAJECTORIES = 256
"""Over which Jacobians are averaged."""


def step_rows(
    names: Sequence[str],
    settings: EstimatorConfig,
    problem: Problem,
    horizon: int,
    batch_size: int,
    config: StudyConfig,
) -> list[Row]:
    """Return squared mean and variance of what each step's action adds to the gradient.

    An estimator that weighs two gradients weighs those of all steps here, and so a little otherwise
    than where they are summed first.
    """
    if horizon * problem.params.size > MOST_NUMBERS:
        return []
    timed = by_action_time(problem, horizon)
    rows = []
    for name in names:
        # What moves parameters moves those of all steps, so it costs H times as much.
        if name in ("es", "fd") or lacking(name, problem, horizon, batch_size):
            continue
        estimate = compiled(name, settings, timed, horizon, config.batches, batch_size)
        gradients = np.asarray(estimate(jax.random.key(config.seed)), np.float64)
        parts = gradients.reshape(config.batches, horizon, -1)
        for step in range(horizon):
            own = parts[:, step]
            rows.append(
                {
                    "problem": problem.name,
                    "estimator": name,
                    "horizon": horizon,
                    "batch_size": batch_size,
                    "step": step,
                    "squared_mean": float(between(own @ own.T)),
                    "variance": float(np.sum(np.var(own, axis=0, ddof=1))),
                }
            )
    return rows


def source_rows(
    names: Sequence[str],
    settings: EstimatorConfig,
    problem: Problem,
    horizon: int,
    batch_size: int,
    config: StudyConfig,
) -> list[Row]:
    """Return how much of each estimator's variance every source of noise makes by itself."""
    rows = []
    for name in names:
        # A running average has no independent estimates.
        if name in OVER_BATCHES or lacking(name, problem, horizon, batch_size):
            continue
        pair = [
            draw_batches(key, name, problem, horizon, config.batches, batch_size)
            for key in jax.random.split(jax.random.key(config.seed))
        ]

        @jax.jit
        def estimate(noise, name=name) -> jax.Array:
            return estimate_batches(name, settings, problem.params, problem, noise)

        shares = variance_by_source(estimate, *pair)
        total = shares.pop("total")
        rows += [
            {
                "problem": problem.name,
                "estimator": name,
                "horizon": horizon,
                "batch_size": batch_size,
                "source": source,
                "variance": share,
                "total": total,
            }
            for source, share in shares.items()
        ]
    return rows


def stability_rows(problem: Problem, horizon: int, config: StudyConfig) -> list[Row]:
    """Return how small changes grow along trajectories, for every horizon up to the longest."""
    keys = jax.random.split(jax.random.key(config.seed), TRAJECTORIES)
    noise = jax.vmap(lambda key: draw(key, problem, horizon))(keys)
    state = jax.eval_shape(lambda key: coordinates(problem.start(key))[0], jax.random.key(0))
    if state.size == 0 or state.size > MOST_COORDINATES:
        return []
    found = jax.jit(lambda noise: stability(problem.params, problem, noise))(noise)
    found = jax.tree.map(lambda x: np.asarray(x, np.float64), found)
    return [
        {
            "problem": problem.name,
            "horizon": h + 1,
            "largest": float(np.median(found.largest[:, h])),
            "smallest": float(np.median(found.smallest[:, h])),
            "mean_exponent": float(found.mean_exponent[h]),
            "moment_exponent": float(found.moment_exponent[h]),
            "log10_second_moment": float(2.0 * (h + 1) * found.moment_exponent[h] / np.log(10.0)),
        }
        for h in range(horizon)
    ]

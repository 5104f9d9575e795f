"""A closer look at one horizon: by step of the action, by source of noise, by growth of changes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from mbpo_jax.config import StudyConfig
from mbpo_jax.files import Row
from mbpo_jax.laboratory.estimators.catalogue import lacking, load_estimator
from mbpo_jax.laboratory.measures.decomposition import by_action_time, variance_by_source
from mbpo_jax.laboratory.measures.metrics import between
from mbpo_jax.laboratory.measures.programs import Programs, make_programs, trajectories
from mbpo_jax.laboratory.measures.stability import moving_coordinates, stability
from mbpo_jax.laboratory.measures.study import keys_of
from mbpo_jax.laboratory.problems.problem import Problem, roll_out, total

MOST_NUMBERS = 200_000
"""Steps times parameters that are told apart."""
MOST_COORDINATES = 64
"""Of a state whose Jacobians are made."""
TRAJECTORIES = 256
"""Over which Jacobians and returns are averaged."""
SLICE_POINTS = 21
"""Along the gradient."""


def step_rows(
    names: Sequence[str],
    programs: Programs,
    horizon: int,
    batch_size: int,
    config: StudyConfig,
) -> list[Row]:
    """Return squared mean and variance of what each step's action adds to the gradient.

    An estimator that weighs two gradients weighs those of all steps here, and so a little otherwise
    than where they are summed first.
    """
    problem = programs.problem
    if horizon * problem.params.size > MOST_NUMBERS:
        return []
    timed = make_programs(by_action_time(problem, horizon), programs.settings)
    rows = []
    for name in names:
        # What moves parameters moves those of all steps, so it costs H times as much.
        moves = load_estimator(name).record.moves_parameters
        if moves or lacking(name, problem, horizon, batch_size):
            continue
        sizes = horizon, config.batches, batch_size
        found = timed.estimates(keys_of(config.seed).estimates, name, *sizes)
        gradients = np.asarray(found, np.float64)
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
    programs: Programs,
    horizon: int,
    batch_size: int,
    config: StudyConfig,
) -> list[Row]:
    """Return how much of each estimator's variance every source of noise makes by itself."""
    problem, rows = programs.problem, []
    for name in names:
        dependent = load_estimator(name).record.over_batches
        if dependent or lacking(name, problem, horizon, batch_size):
            continue
        keys = keys_of(config.seed)
        pair = [
            programs.draw(key, name, horizon, config.batches, batch_size)
            for key in (keys.estimates, keys.others)
        ]
        shares = variance_by_source(programs.compiled(name, pair[0]), *pair)
        total = shares.pop("total").variance
        rows += [
            {
                "problem": problem.name,
                "estimator": name,
                "horizon": horizon,
                "batch_size": batch_size,
                "source": source,
                "variance": share.variance,
                "variance_error": share.error,
                "total": total,
            }
            for source, share in shares.items()
        ]
    return rows


def weight_rows(
    names: Sequence[str], programs: Programs, horizon: int, batch_size: int, config: StudyConfig
) -> list[Row]:
    """Return the weight of the likelihood ratio at every step, for those that weigh steps.

    The mean over batches, and its 5 % and 95 % quantiles.
    """
    problem, rows = programs.problem, []
    for name in names:
        step_weights = load_estimator(name).step_weights
        if step_weights is None or lacking(name, problem, horizon, batch_size):
            continue
        sizes = horizon, config.batches, batch_size
        noise = programs.draw(keys_of(config.seed).estimates, name, *sizes)

        def weigh(noise, step_weights=step_weights) -> jax.Array:
            return step_weights(problem.params, problem, noise)

        weights = np.asarray(jax.jit(lambda noise, weigh=weigh: jax.lax.map(weigh, noise))(noise))
        for step in range(horizon):
            low, high = np.quantile(weights[:, step], (0.05, 0.95))
            rows.append(
                {
                    "problem": problem.name,
                    "estimator": name,
                    "horizon": horizon,
                    "batch_size": batch_size,
                    "step": step,
                    "weight": float(np.mean(weights[:, step])),
                    "weight_5": float(low),
                    "weight_95": float(high),
                }
            )
    return rows


def slice_rows(
    problem: Problem,
    true: Problem | None,
    direction: np.ndarray,
    horizon: int,
    config: StudyConfig,
) -> list[Row]:
    """Return the return along the gradient, in the model and in the true system.

    The parameters go along a direction `[P]`, up to a tenth of their own length to either side. All
    points have the same noise; the errors are those of the mean return.
    """
    size = np.linalg.norm(direction)
    if not np.isfinite(size) or size == 0.0:
        return []
    params = np.asarray(problem.params, np.float64)
    reach = 0.1 * max(float(np.linalg.norm(params)), 1.0)
    distances = np.linspace(-reach, reach, SLICE_POINTS)
    points = jnp.asarray(params + distances[:, None] * direction / size, problem.params.dtype)
    rows = []
    for system in filter(None, (problem, true)):
        noise = trajectories(keys_of(config.seed).averages, system, horizon, TRAJECTORIES)

        @jax.jit
        def returns(points, noise, system=system) -> jax.Array:
            def at(params: jax.Array) -> jax.Array:
                return jax.vmap(lambda n: total(system, roll_out(params, system, n)))(noise)

            return jax.lax.map(at, points)

        found = np.asarray(returns(points, noise), np.float64)
        rows += [
            {
                "problem": system.name,
                "horizon": horizon,
                "distance": float(distance),
                "return": float(np.mean(row)),
                "return_error": float(np.std(row, ddof=1) / np.sqrt(len(row))),
            }
            for distance, row in zip(distances, found, strict=True)
        ]
    return rows


def stability_rows(problem: Problem, horizon: int, config: StudyConfig) -> list[Row]:
    """Return how small changes grow along trajectories, for every horizon up to the longest.

    Quantiles are those of trajectories, intervals those of a bootstrap over them.
    """
    if problem.moving == ():
        return []
    state = jax.eval_shape(
        lambda key: moving_coordinates(problem, problem.start(key))[0], jax.random.key(0)
    )
    if state.size == 0 or state.size > MOST_COORDINATES:
        return []
    noise = trajectories(keys_of(config.seed).averages, problem, horizon, TRAJECTORIES)
    found = jax.jit(lambda noise: stability(problem.params, problem, noise))(noise)
    found = jax.tree.map(lambda x: np.asarray(x, np.float64), found)
    steps = np.arange(1, horizon + 1)
    rng = np.random.default_rng(config.seed)
    index = rng.integers(TRAJECTORIES, size=(config.resamples, TRAJECTORIES))
    # Of resampled trajectories, [R, H]; step by step, to hold no array [R, trajectories, H].
    chosen = (found.log_norm[:, h][index] for h in range(horizon))
    moments = [(x.mean(axis=1), logsumexp(2.0 * x, axis=1) - np.log(TRAJECTORIES)) for x in chosen]
    mean, moment = np.moveaxis(np.array(moments), 0, -1) / np.array([steps, 2.0 * steps])[:, None]

    def quantiles(x: np.ndarray, h: int, ends: tuple[float, float]) -> list[float]:
        # A loop that forgets where it was has an exponent of -inf, which cannot be interpolated.
        method = "linear" if np.isfinite(x[:, h]).all() else "inverted_cdf"
        return [float(q) for q in np.quantile(x[:, h], ends, method=method)]

    return [
        {
            "problem": problem.name,
            "horizon": h + 1,
            "largest": float(np.median(found.largest[:, h])),
            "largest_quantiles": quantiles(found.largest, h, (0.05, 0.95)),
            "smallest": float(np.median(found.smallest[:, h])),
            "smallest_quantiles": quantiles(found.smallest, h, (0.05, 0.95)),
            "mean_exponent": float(found.mean_exponent[h]),
            "mean_exponent_interval": quantiles(mean, h, (0.025, 0.975)),
            "moment_exponent": float(found.moment_exponent[h]),
            "moment_exponent_interval": quantiles(moment, h, (0.025, 0.975)),
            "log10_second_moment": float(2.0 * (h + 1) * found.moment_exponent[h] / np.log(10.0)),
        }
        for h in range(horizon)
    ]

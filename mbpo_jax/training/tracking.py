"""Gradient estimators measured while a run trains, at the parameters of the moment.

Estimates are made in the run's own model, if it has one, and compared with the gradient in the true
system; both start where the policy goes now. Keys are those of evaluations, so nothing that is
trained changes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.agents.actor_critic import SACState
from mbpo_jax.config import Config, named
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import Row
from mbpo_jax.laboratory.estimators.catalogue import draw_batches, estimate_batches, lacking
from mbpo_jax.laboratory.measures import metrics
from mbpo_jax.laboratory.measures.study import doubt, reference_estimators
from mbpo_jax.laboratory.measures.summary import as_json, summarise
from mbpo_jax.laboratory.problems import trained
from mbpo_jax.laboratory.problems.problem import Problem
from mbpo_jax.models.ensemble import EnsembleState
from mbpo_jax.types import Env, PyTree

RESAMPLES = 200
"""Of the bootstrap; each measurement has little time."""


class Measured(NamedTuple):
    """Inner products of gradients, each scaled so that float32 holds them.

    Attributes:
      gram: `[M + N, M + N]`, of M estimates and N draws of the true gradient.
      log_scale: `[M + N]`, logarithms of what the gradients were divided by.
    """

    gram: jax.Array
    log_scale: jax.Array


Found = dict[str, dict[str, Measured]]
"""By estimator, and by the unbiased one that drew the true gradient."""


def measure(env: Env, config: Config, key: jax.Array, agent: SACState, model: PyTree) -> Found:
    """Measure every estimator that suits the run, on the device.

    Args:
      env: the true system.
      config: of the run.
      key: a key, used up.
      agent: state of one run's agent.
      model: state of its model.
    """
    tracking = config.tracking
    start_key, truth_key, noise_key = jax.random.split(key, 3)
    points = trained.visited(start_key, env, config, agent, tracking.start_states)
    true = problem = trained.make_true_problem(env, config, agent, points)
    if isinstance(model, EnsembleState):
        problem = trained.make_learned_problem(env, config, agent, model, points)
    kinds = reference_estimators(true)
    truths = {
        kind: gradients(jax.random.clone(truth_key), kind, true, config, tracking.reference_batches)
        for kind in kinds
    }

    def one(name: str) -> dict[str, Measured]:
        # All estimators get the same trajectories.
        found = gradients(jax.random.clone(noise_key), name, problem, config, tracking.batches)
        return {kind: measured(jnp.concatenate([found, truth])) for kind, truth in truths.items()}

    return {name: one(name) for name in chosen(config, problem)}


def measured(rows: jax.Array) -> Measured:
    """Return the inner products of gradients `[M + N, P]`; one beyond range spoils no other."""
    scale = jnp.max(jnp.abs(rows), axis=1)
    scale = jnp.where(scale == 0.0, 1.0, scale)
    rows = rows / scale[:, None]
    return Measured(jnp.matmul(rows, rows.T, precision="highest"), jnp.log(scale))


def chosen(config: Config, problem: Problem) -> list[str]:
    """Return the chosen estimators, or those of all to which the run gives what they need.

    Raises:
      ConfigError: one that is named lacks something.
    """
    tracking = config.tracking
    reasons = {
        name: lacking(name, problem, tracking.horizon, tracking.batch_size)
        for name in named(tracking.estimators)
    }
    if "all" not in tracking.estimators and any(reasons.values()):
        raise ConfigError(
            *(f"tracking.estimators: {n} needs {why}" for n, why in reasons.items() if why)
        )
    return [name for name, why in reasons.items() if not why]


def gradients(
    key: jax.Array, name: str, problem: Problem, config: Config, batches: int
) -> jax.Array:
    """Return estimates `[M, P]`."""
    tracking = config.tracking
    noise = draw_batches(key, name, problem, tracking.horizon, batches, tracking.batch_size)
    return estimate_batches(name, config.estimator, problem.params, problem, noise)


def rows_of(config: Config, env_steps: int, seeds: Sequence[int], found: Found) -> list[Row]:
    """Return a row for each run and estimator, with the numbers of `laboratory.measures.summary`.

    The true gradient is that of the unbiased estimator of least doubt, as in a study.
    """
    rows = []
    for name, by_kind in found.items():
        for run, seed in enumerate(seeds):
            known = {
                kind: inner_products(m.gram[run], m.log_scale[run], config.tracking.batches)
                for kind, m in by_kind.items()
            }
            kind = min(known, key=lambda kind: doubt(known[kind][1]))
            inner, _ = known[kind]
            row: Row = {"env_steps": env_steps, "run": run, "seed": seed, "estimator": name}
            row["horizon"] = config.tracking.horizon
            row["reference"] = kind
            row["reference_norm"] = as_json(
                np.sqrt(np.maximum(inner.reference - inner.reference_error, 0.0))
            )
            row["reference_error"] = as_json(np.sqrt(inner.reference_error))
            row |= summarise(inner, config.tracking.batch_size, RESAMPLES)
            rows.append(row)
    return rows


def inner_products(
    gram: jax.Array, log_scale: jax.Array, batches: int
) -> tuple[metrics.Inner, metrics.Inner]:
    """Turn scaled inner products into those of the estimates, and those of the truth's draws."""
    logs = np.asarray(log_scale, np.float64)
    products = np.asarray(gram, np.float64) * np.exp(logs[:, None] + logs[None, :])
    estimates, across = products[:batches, :batches], products[:batches, batches:]
    truth = products[batches:, batches:]
    draws = metrics.Inner(truth, truth.mean(axis=1), float(truth.mean()), 0.0)
    error = float(metrics.variance(draws)) / len(truth)
    return metrics.Inner(estimates, across.mean(axis=1), draws.reference, error), draws

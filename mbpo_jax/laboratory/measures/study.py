"""Measure estimators against each other: tidy rows, one for each combination.

All estimators get the same trajectories. Every number is that of one estimate, which is made of one
batch, and None where it could not be told.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mbpo_jax.config import EstimatorConfig, StudyConfig, named
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import Row
from mbpo_jax.laboratory.estimators.catalogue import (
    draw_batches,
    estimate_batches,
    lacking,
    load_estimator,
)
from mbpo_jax.laboratory.measures import metrics, model_error
from mbpo_jax.laboratory.measures.costs import Cost, cost, counted
from mbpo_jax.laboratory.measures.programs import Programs, make_programs
from mbpo_jax.laboratory.measures.summary import as_json, log_variance_ratio, summarise
from mbpo_jax.laboratory.measures.tails import tails
from mbpo_jax.laboratory.problems.problem import Noise, Problem

MOST_SECONDS = 1.0
"""Calls that take less are repeated for a better clock."""
REPEATS = 3

Announce = Callable[[str], None]


class Reference(NamedTuple):
    """What estimates are compared with.

    Attributes:
      kind: "exact", or the estimator that made it.
      draws: `[N, P]`, whose mean it is; one row if it is exact.
    """

    kind: str
    draws: np.ndarray

    @property
    def error(self) -> float:
        """The variance of the mean."""
        rows = len(self.draws)
        return float(np.sum(np.var(self.draws, axis=0, ddof=1)) / rows) if rows > 1 else 0.0


class Keys(NamedTuple):
    """Keys of a study's noise: what has a key of its own is independent of the rest.

    Attributes:
      starts: of the states that a run visits.
      estimates: of the estimators, all of which get the same trajectories.
      others: of as many trajectories more, for the parts of a variance.
      reference: of what estimates are compared with.
      averages: of returns and Jacobians.
    """

    starts: jax.Array
    estimates: jax.Array
    others: jax.Array
    reference: jax.Array
    averages: jax.Array


def keys_of(seed: int) -> Keys:
    """Return the keys of a study."""
    return Keys(*jax.random.split(jax.random.key(seed), len(Keys._fields)))


def suitable(config: StudyConfig, problem: Problem) -> list[str]:
    """Return the estimators to measure: those that are named, or all that the problem allows.

    Raises:
      ConfigError: one that is named lacks something everywhere.
    """
    names = named(config.estimators)
    refused = {}
    for name in names:
        reasons = [
            lacking(name, problem, h, b) for h in config.horizons for b in config.batch_sizes
        ]
        if all(reasons):
            refused[name] = reasons[0]
    if refused and "all" not in config.estimators:
        raise ConfigError(*(f"estimators: {name} needs {why}" for name, why in refused.items()))
    return [name for name in names if name not in refused]


def timed(function: Callable[[Noise], jax.Array], noise: Noise) -> tuple[np.ndarray, float]:
    """Return what a compiled function returns, and the seconds it takes."""
    found, seconds = np.zeros(0), []
    while len(seconds) < REPEATS and sum(seconds) < MOST_SECONDS:
        began = time.perf_counter()
        found = np.asarray(function(noise))
        seconds.append(time.perf_counter() - began)
    return found, float(np.median(seconds))


def cost_of(
    name: str, settings: EstimatorConfig, problem: Problem, horizon: int, batch_size: int
) -> Cost:
    """Return what one estimate costs."""
    marked = counted(problem)

    def run(key: jax.Array) -> jax.Array:
        noise = draw_batches(key, name, marked, horizon, 1, batch_size)
        return estimate_batches(name, settings, marked.params, marked, noise)

    return cost(run, jax.random.key(0))


def reference_estimators(problem: Problem) -> list[str]:
    """Return the names of unbiased estimators that suit a problem, the usual one first."""
    ratio = "lr" if problem.critic is None else "lr_value"
    return ["rp", ratio] if problem.smooth and problem.differentiable else [ratio]


def make_reference(problem: Problem, horizon: int, config: StudyConfig) -> Reference:
    """Return the gradient of the return, exactly or by the unbiased estimator of least doubt.

    Args:
      problem: whose gradient it is.
      horizon: H.
      config: how many draws it is made of.
    """
    if problem.exact is not None:
        return Reference("exact", np.asarray(problem.exact(problem.params, horizon))[None])
    programs = make_programs(problem, EstimatorConfig())
    found = [draws_of(kind, programs, horizon, config) for kind in reference_estimators(problem)]

    def doubt_of(reference: Reference) -> float:
        return doubt(metrics.inner_products(reference.draws, np.mean(reference.draws, axis=0)))

    return min(found, key=doubt_of)


def doubt(draws: metrics.Inner) -> float:
    """Return how little the mean of draws of a reference is to be trusted.

    It is their variance; what a sample shows of that is too little if tails are heavy, and ten
    times as much is taken.
    """
    if metrics.overflowed(draws):
        return np.inf
    return float(metrics.variance(draws)) * (10.0 if tails(draws).heavy_tailed else 1.0)


def draws_of(kind: str, programs: Programs, horizon: int, config: StudyConfig) -> Reference:
    """Return the mean of independent estimates by one estimator as a reference."""
    sizes = horizon, config.reference_batches, config.reference_batch_size
    draws = programs.estimates(keys_of(config.seed).reference, kind, *sizes)
    return Reference(kind, np.asarray(draws, np.float64))


def study(
    problem: Problem,
    config: StudyConfig,
    settings: EstimatorConfig | None = None,
    *,
    true: Problem | None = None,
    announce: Announce = lambda line: None,
) -> list[Row]:
    """Measure estimators at every horizon and batch size.

    Args:
      problem: what gradients are estimated of.
      config: what is measured.
      settings: of the estimators.
      true: the same policy, starts and critic in the true system, if `problem` is in a model; the
        error is then split into the model's and the estimator's.
      announce: told what is about to be measured.

    Raises:
      ConfigError: an estimator needs what the problem lacks.
    """
    programs = make_programs(problem, settings or EstimatorConfig())
    return measure(programs, config, lambda h: make_reference(problem, h, config), true, announce)


def measure(
    programs: Programs,
    config: StudyConfig,
    reference_of: Callable[[int], Reference],
    true: Problem | None,
    announce: Announce,
) -> list[Row]:
    """Do what `study` does with programs that others may use, too.

    Args:
      programs: of the problem and the settings.
      config: see `study`.
      reference_of: from a horizon to what estimates are compared with.
      true: see `study`.
      announce: told each of as many stages as `stages_of` says.

    Raises:
      ConfigError: as `study`.
    """
    names = suitable(config, programs.problem)
    rows = []
    for horizon in dict.fromkeys(config.horizons):
        announce(f"horizon {horizon}: reference")
        reference = reference_of(horizon)
        rows += at_horizon(programs, true, reference, names, horizon, config, announce)
    return rows


def stages_of(problem: Problem, config: StudyConfig) -> int:
    """Return how many stages `measure` announces."""
    names = suitable(config, problem)
    horizons, sizes = (dict.fromkeys(x) for x in (config.horizons, config.batch_sizes))
    each = [not lacking(n, problem, h, b) for h in horizons for b in sizes for n in names]
    return len(horizons) + sum(each)


def at_horizon(
    programs: Programs,
    true: Problem | None,
    reference: Reference,
    names: Sequence[str],
    horizon: int,
    config: StudyConfig,
    announce: Announce,
) -> Iterator[Row]:
    """Yield the rows of a horizon; see `measure`."""
    problem, settings = programs.problem, programs.settings
    # Both gradients by the same estimator, so that what they share cancels: one to trust in both.
    paired = None
    if true is not None:
        known = (problem, reference), (true, make_reference(true, horizon, config))
        kind = next((found.kind for _, found in known if found.kind != "rp"), "rp")
        paired = [
            found.draws
            if found.kind == kind
            else draws_of(kind, make_programs(p, EstimatorConfig()), horizon, config).draws
            for p, found in known
        ]
    for batch_size in dict.fromkeys(config.batch_sizes):
        able = [name for name in names if not lacking(name, problem, horizon, batch_size)]
        rows, first = [], None
        for name in able:
            announce(f"horizon {horizon}, batches of {batch_size}: {name}")
            sizes = horizon, config.batches, batch_size
            noise = programs.draw(keys_of(config.seed).estimates, name, *sizes)
            found, seconds = timed(programs.compiled(name, noise), noise)
            estimates = np.asarray(found, np.float64)
            first = estimates if first is None else first
            row = described(name, problem, horizon, batch_size, config)
            row |= compared(estimates, reference, batch_size, config)
            row |= against_first(estimates, first, config)
            if paired:
                row |= split_error(estimates, *paired, known=row["variance"] is not None)
            price = cost_of(name, settings, problem, horizon, batch_size)
            row |= priced(row["variance"], price, seconds / config.batches)
            rows.append(row)
        yield from equal_budget(rows) if rows else ()


def described(
    name: str, problem: Problem, horizon: int, batch_size: int, config: StudyConfig
) -> Row:
    """Return what was measured."""
    record = load_estimator(name).record
    return {
        "problem": problem.name,
        "estimator": name,
        "estimand": record.estimand,
        "biased_by_design": bool(record.biased),
        "horizon": horizon,
        "batch_size": batch_size,
        "batches": config.batches,
        "parameters": problem.params.size,
        "dtype": str(problem.params.dtype),
        "seed": config.seed,
    }


def compared(
    estimates: np.ndarray, reference: Reference, batch_size: int, config: StudyConfig
) -> Row:
    """Return the metrics of estimates `[M, P]`."""
    inner = metrics.inner_products(estimates, np.mean(reference.draws, axis=0), reference.error)
    row: Row = dict(summarise(inner, batch_size, config.resamples, config.seed))
    for name in ("squared_bias", "mean_squared_error"):
        row[f"{name}_interval"] = widened(row[f"{name}_interval"], row["squared_bias"], reference)
    return {
        "reference": reference.kind,
        "reference_norm": float(np.sqrt(max(inner.reference - reference.error, 0.0))),
        "reference_error": float(np.sqrt(reference.error)),
        **row,
    }


def widened(ends: list | None, squared_bias: float | None, reference: Reference) -> list | None:
    """Add the reference's own error to an interval of the squared bias, whichever way it points.

    The bootstrap resamples estimates alone. An error e of the reference moves the square of a bias
    b by no more than `2 |b| |e| + |e|^2`.
    """
    if ends is None or squared_bias is None:
        return ends
    error = 2.0 * np.sqrt(reference.error)
    reach = 2.0 * np.sqrt(max(squared_bias, 0.0)) * error + error**2
    return [ends[0] - reach, ends[1] + reach]


def against_first(estimates: np.ndarray, first: np.ndarray, config: StudyConfig) -> Row:
    """Return how much more the estimates vary than those of the first estimator of the list."""
    nothing = np.zeros(estimates.shape[1])
    own, other = (metrics.inner_products(x, nothing) for x in (estimates, first))
    ratio = log_variance_ratio(own, other, config.resamples, config.seed)
    return {
        "log10_variance_ratio": ratio and ratio[0],
        "log10_variance_ratio_interval": ratio and list(ratio[1:]),
    }


def split_error(estimates: np.ndarray, model: np.ndarray, true: np.ndarray, known: bool) -> Row:
    """Return the parts of the error against the true system, and their standard errors.

    Of an estimator whose variance is not `known`, only the model's part is.
    """
    inner = model_error.grams(estimates, model, true)
    parts, (errors, total_error) = model_error.split(inner), model_error.standard_errors(inner)
    row: Row = {"true_squared_norm": model_error.product(inner.tt)}
    told = zip(
        (*parts._fields, "total"), (*parts, parts.total), (*errors, total_error), strict=True
    )
    for name, part, error in told:
        is_told = known or name == "model_bias"
        row |= {f"split_{name}": as_json(part) if is_told else None}
        row |= {f"split_{name}_error": as_json(error) if is_told else None}
    return row


def priced(variance: float | None, cost: Cost, seconds: float) -> Row:
    """Return what an estimate costs, and its variance times that: the less, the more efficient."""
    prices = {**cost._asdict(), "seconds": seconds}
    products = {
        f"variance_times_{name}": None if variance is None else variance * price
        for name, price in prices.items()
    }
    return {**prices, **products}


def equal_budget(rows: Sequence[Row]) -> list[Row]:
    """Add the mean squared error at equal cost to rows of one horizon and batch size.

    The budget, in FLOPs, is that of the dearest estimator; cheaper ones are averaged over as many
    batches as it pays for, which lowers their variance but not their bias.
    """
    budget = max(row["flops"] for row in rows)

    def error(row: Row) -> float | None:
        if row["variance"] is None:
            return None
        return max(row["squared_bias"], 0.0) + row["variance"] * row["flops"] / budget

    return [{**row, "error_at_equal_flops": error(row)} for row in rows]

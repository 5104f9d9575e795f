"""What the rows of a sweep say: runs that differ in seeds alone, put together and compared.

Rows are those of `sweeps.results`. A variant is an algorithm at one point of the swept settings;
its runs are the seeds. A run that diverged counts with the results of its last finite parameters.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mbpo_jax.config.algorithms import algorithm_record
from mbpo_jax.files import Row
from mbpo_jax.reports import statistics
from mbpo_jax.reports.statistics import Estimate, estimate, interquartile_mean

MODEL_COLUMNS = (
    *("model/holdout_r2", "model/holdout_mse", "model/k_step_error_1", "model/k_step_error_5"),
    *("model/coverage_90", "model/disagreement"),
)
"""What is told of a run's model, at its end; None where it has none."""
RETURNS = {"final_return": "final return", "mean_return": "mean return"}
"""What runs are judged by: the last tenth of a run's evaluations, and the area under its curve."""
FIXED = (
    *("id", "environment", "algorithm", "seed", "env_steps", "diverged"),
    *("final_return", "mean_return", "wall_seconds", "run_seconds", "state", "trained"),
    *("group", "run", "directory"),
    *MODEL_COLUMNS,
)
"""Columns of run rows that are no swept setting."""


class Variant(NamedTuple):
    """Runs that differ in their seeds alone.

    Attributes:
      environment: what they act in.
      algorithm: what is trained, by its title.
      settings: values of the swept settings that the algorithm's runs differ in.
      rows: of the runs that have results.
      waiting: how many have none.
    """

    environment: str
    algorithm: str
    settings: dict[str, Any]
    rows: list[Row]
    waiting: int

    @property
    def trained(self) -> int:
        """Return how many runs are trained to their end."""
        return sum(row["trained"] for row in self.rows)

    @property
    def size(self) -> int:
        """Return the number of runs, those without results included."""
        return len(self.rows) + self.waiting

    @property
    def told_settings(self) -> list[str]:
        """Return names and values of the settings; names are as short as can be told apart."""
        last = Counter(path.rpartition(".")[2] for path in self.settings)
        names = {path: path.rpartition(".")[2] for path in self.settings}
        return [
            f"{name.replace('_', ' ') if last[name] == 1 else path} {shown(self.settings[path])}"
            for path, name in names.items()
        ]

    @property
    def label(self) -> str:
        """Return algorithm and settings."""
        return ", ".join([self.algorithm, *self.told_settings])

    def scores(self, column: str = "final_return") -> np.ndarray:
        """Return a column of the runs `[n]`."""
        return np.array([row[column] for row in self.rows], float)

    def height(self, column: str = "final_return") -> list[float]:
        """Return what ranks variants: the middle of a column, then of the other return."""
        columns = (column, *(name for name in RETURNS if name != column))
        return [float(interquartile_mean([self.scores(name)])) for name in columns]

    def middle(self, column: str = "final_return") -> Estimate:
        """Return the interquartile mean of a column over seeds."""
        return estimate(interquartile_mean, [self.scores(column)])


def shown(value: Any) -> str:
    """Return a setting as text: 3e-4, 0.01, 64."""
    if not isinstance(value, float):
        return str(value)
    if value == 0.0 or 0.01 <= abs(value) < 1e6 or not np.isfinite(value):
        return f"{value:g}"
    digits, _, power = f"{value:.5e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as a table shows it; a dash where it is not known."""
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if round(abs(value)) >= 10 ** (digits - 1) else f"{value:,.{digits}g}"


def with_interval(found: Estimate, decimals: int | None = None) -> str:
    """Return a number and its interval, with as many decimals as four digits of the largest need.

    Args:
      found: what to show.
      decimals: how many, if it is known.
    """
    largest = np.nanmax(np.abs(found))
    if decimals is None:
        decimals = max(3 - math.floor(math.log10(largest)), 0) if largest > 0.0 else 0
    value, low, high = (f"{float(x):,.{decimals}f}" for x in found)
    return f"{value} ({low} to {high})" if np.isfinite(found.low) else value


def in_order(value: Any) -> tuple[int, float, str]:
    """Return a key that puts numbers in order, and before text."""
    is_number = isinstance(value, int | float)
    return (0, value, "") if is_number else (1, 0.0, str(value))


def swept_fields(rows: Sequence[Row]) -> list[str]:
    """Return the columns that hold swept settings."""
    return [
        name for name in rows[0] if name not in FIXED and len({str(row[name]) for row in rows}) > 1
    ]


def titles_of(algorithms: Iterable[str]) -> dict[str, str]:
    """Return the titles of algorithms; what shares a title with another keeps its name."""
    titles = {name: algorithm_record(name).title for name in dict.fromkeys(algorithms)}
    known = Counter(titles.values())
    return {name: title if known[title] == 1 else name for name, title in titles.items()}


def variants_of(rows: Sequence[Row]) -> list[Variant]:
    """Put runs together that differ in seeds alone, by environment, algorithm and settings."""
    fields, titles = swept_fields(rows), titles_of(row["algorithm"] for row in rows)
    told: dict[tuple[str, str], list[str]] = {}
    for environment, algorithm in dict.fromkeys((r["environment"], r["algorithm"]) for r in rows):
        own = [r for r in rows if (r["environment"], r["algorithm"]) == (environment, algorithm)]
        told[environment, algorithm] = [f for f in fields if len({str(r[f]) for r in own}) > 1]
    found: dict[tuple, Variant] = {}
    for row in rows:
        where = row["environment"], row["algorithm"]
        settings = {field: row[field] for field in told[where]}
        key = (*where, *map(str, settings.values()))
        named = Variant(row["environment"], titles[row["algorithm"]], settings, [], 0)
        known = found.setdefault(key, named)
        if row["final_return"] is None:
            found[key] = known._replace(waiting=known.waiting + 1)
        else:
            known.rows.append(row)
    kinds = [(environment, titles[algorithm]) for environment, algorithm in told]

    def place(variant: Variant) -> tuple:
        kind = kinds.index((variant.environment, variant.algorithm))
        return kind, [in_order(value) for value in variant.settings.values()]

    return sorted(found.values(), key=place)


def environments_of(variants: Sequence[Variant]) -> list[str]:
    """Return the environments, in order."""
    return list(dict.fromkeys(variant.environment for variant in variants))


def comparable(variants: Sequence[Variant], environment: str) -> list[Variant]:
    """Return the variants of an environment that can be compared.

    These are the ones that are trained to their end; those with any results, until there are some.
    """
    own = [v for v in variants if v.environment == environment and v.rows]
    return [v for v in own if v.trained == v.size] or own


def ranked(
    variants: Sequence[Variant], environment: str, column: str = "final_return"
) -> list[Variant]:
    """Return the variants of an environment that can be compared, the best first."""
    own = comparable(variants, environment)
    return sorted(own, key=lambda v: v.height(column), reverse=True)


def best_variants(
    variants: Sequence[Variant], environment: str, column: str = "final_return"
) -> list[Variant]:
    """Return each algorithm's variant of the highest interquartile mean in an environment.

    The best of many is better than it would be on other seeds, the more the more there are.
    """
    best: dict[str, Variant] = {}
    for variant in ranked(variants, environment, column):
        best.setdefault(variant.algorithm, variant)
    order = dict.fromkeys(variant.algorithm for variant in variants)
    return [best[algorithm] for algorithm in order if algorithm in best]


class Curve(NamedTuple):
    """Interquartile mean over seeds against environment steps, each `[S]`."""

    env_steps: np.ndarray
    middle: Estimate


def curve_of(variant: Variant, evaluations: Sequence[Row]) -> Curve:
    """Return the learning curve of a variant, at the steps at which every begun run was evaluated.

    Args:
      variant: whose runs.
      evaluations: of all runs, with their `id`.
    """
    by_run: dict[str, dict[int, float]] = {row["id"]: {} for row in variant.rows}
    for row in evaluations:
        if row["id"] in by_run:
            by_run[row["id"]][row["env_steps"]] = row["return_mean"]
    shared = sorted(set.intersection(*(set(points) for points in by_run.values())))
    values = np.array([[points[step] for points in by_run.values()] for step in shared])
    values = values.reshape(len(shared), len(by_run))
    return Curve(np.array(shared), estimate(interquartile_mean, [values]))


class Sensitivity(NamedTuple):
    """How an algorithm does at each value of one setting, all others at their best for it.

    Attributes:
      algorithm: what is trained.
      values: of the setting, ascending if they are numbers.
      best: the highest variant at each.
    """

    algorithm: str
    values: list[Any]
    best: list[Variant]


def sensitivities(
    variants: Sequence[Variant], environment: str, field: str, column: str = "final_return"
) -> list[Sensitivity]:
    """Return how every algorithm that has a setting swept answers to it in an environment."""
    found = []
    for algorithm in dict.fromkeys(v.algorithm for v in variants):
        own = [
            v
            for v in comparable(variants, environment)
            if v.algorithm == algorithm and field in v.settings
        ]
        values = {str(v.settings[field]): v.settings[field] for v in own}.values()
        if len(values) < 2:
            continue
        values = sorted(values, key=in_order)
        best = [
            max((v for v in own if v.settings[field] == value), key=lambda v: v.height(column))
            for value in values
        ]
        found.append(Sensitivity(algorithm, values, best))
    return found


def normalised(
    variants: Sequence[Variant], environment: str, column: str = "final_return"
) -> dict[str, np.ndarray]:
    """Return each algorithm's scores at its best settings, on a scale of this sweep alone.

    0 is the lowest return of any run in that environment, 1 the middle of the best variant.
    """
    scores = [v.scores(column) for v in comparable(variants, environment)]
    if not scores:
        return {}
    low, high = min(map(np.min, scores)), max(interquartile_mean([x]) for x in scores)
    scale = high - low if high > low else 1.0
    best = best_variants(variants, environment, column)
    return {v.algorithm: (v.scores(column) - low) / scale for v in best}


AGGREGATES = {
    "interquartile mean": interquartile_mean,
    "median": statistics.median,
    "mean": statistics.mean,
    "optimality gap": statistics.optimality_gap,
}


def scores_by_algorithm(
    variants: Sequence[Variant], column: str = "final_return"
) -> dict[str, list[np.ndarray]]:
    """Return normalised scores, an array an environment, of algorithms with runs in all of them."""
    tasks = [normalised(variants, name, column) for name in environments_of(variants)]
    tasks = [task for task in tasks if task]
    shared = [a for a in dict.fromkeys(v.algorithm for v in variants) if all(a in t for t in tasks)]
    return {algorithm: [task[algorithm] for task in tasks] for algorithm in shared if tasks}

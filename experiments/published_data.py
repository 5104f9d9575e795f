"""Both sides of `experiments.published`: returns that others published, and rows of our runs.

`data/published_returns.csv` was computed from the result files of the public repository
4kubo/erl_lib (commit 024b0b5, `results/main/gym`; MIT; Kubo, Parmas and Ishii, TMLR 2025): mean and
population standard deviation, over seeds, of each seed's test returns within 2,500 steps of the
named one. `esvg` is DHMBPO. `sac` is there twice, with 8 seeds and, at fewer steps, with 5. What is
known of the files, and what is odd in them, stands in `experiments/README.md`.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mbpo_jax import yaml_files
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import Row, read_rows, replace_rows
from mbpo_jax.reports.plots import Curves
from mbpo_jax.reports.plots import collect as arrange
from mbpo_jax.training import logs, run_directory

POINTS = Path(__file__).parent / "data" / "published_returns.csv"


class Learner(NamedTuple):
    """What is compared.

    Attributes:
      published_as: what the published points are of; experiments/README.md says how that was found.
      in_file: what the published rows call it.
      ours: our name for ours.
    """

    published_as: str
    in_file: str
    ours: str


LEARNERS = {
    "mbpo": Learner("MBPO", "mbpo", "MBPO"),
    "macura": Learner("MACURA", "macura", "MBPO, truncated"),
    "dhmbpo": Learner("DHMBPO", "esvg", "DHMBPO"),
    "dhmbpo_large_fits": Learner("DHMBPO", "esvg", "DHMBPO, fits of 1,024 rows"),
    "sac_5_critics": Learner("SAC, 5 critics", "sac", "SAC, 5 critics"),
    "sac": Learner("SAC, 5 critics", "sac", "SAC"),
}
"""Those that are compared, in order."""
VARIANTS = ("dhmbpo_large_fits", "sac")
"""Ours that are beside the published points of another one, which are shown there."""
WINDOW = 2500
"""Steps to either side over which a published point averages a seed's returns."""
FIRST = 5000
"""The steps before which actions are random. Points up to here are no results: those of `sac` are
of untrained policies, those of `mbpo` are means over the evaluations at 6,000 and 7,000."""
LARGE_FITS = 1024
"""Transitions per member and gradient step of `dhmbpo_large_fits`; the preset has 256."""
SUITE = "gym/"
VERSIONS = ("jax", "gymnasium", "mujoco")


class Point(NamedTuple):
    """A published return, over seeds."""

    env_steps: int
    seeds: int
    mean: float
    std: float


class Comparison(NamedTuple):
    """Our runs at the step of a published point.

    Attributes:
      task: such as Hopper-v5.
      algorithm: by its name here.
      utd: our updates per environment step.
      point: what was published.
      returns: `[R]`, of those of our runs that got to this step.
    """

    task: str
    algorithm: str
    utd: int
    point: Point
    returns: np.ndarray

    @property
    def difference(self) -> float:
        """Ours less the published, in published standard deviations."""
        return (self.returns.mean() - self.point.mean) / self.point.std


def published_points(task: str, algorithm: str, path: Path = POINTS) -> list[Point]:
    """Return the published returns of an algorithm on a task of any version, behind `FIRST`.

    Of two recordings of the same step, the one with more seeds counts.
    """
    points: dict[int, Point] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            asked = LEARNERS[algorithm].in_file, task.partition("-v")[0]
            if (row["algorithm"], row["env"]) != asked:
                continue
            step, seeds = int(row["env_steps"]), int(row["seeds"])
            known = points.get(step)
            if step > FIRST and (known is None or known.seeds < seeds):
                mean, std = float(row["return_mean"]), float(row["return_std"])
                points[step] = Point(step, seeds, mean, std)
    return [points[step] for step in sorted(points)]


def collect(run_dirs: Iterable[Path], load: str, results: Path) -> list[Row]:
    """Put the evaluations of run directories, finished or not, in the place of their old rows.

    Args:
      run_dirs: what `mbpo-jax train gym/...` made.
      load: what else ran on the machine.
      results: row file, made if need be.

    Returns:
      All rows, those of other runs included.

    Raises:
      ConfigError: a directory holds no run, or one of which there is no published curve.
    """
    rows = read_rows(results) if results.exists() else []
    for run_dir in run_dirs:
        new = run_rows(run_dir, load)
        replaced = {identity(row) for row in new}
        rows = [row for row in rows if identity(row) not in replaced] + new
    rows.sort(key=lambda row: (*identity(row), row["env_steps"]))
    replace_rows(results, rows)
    return rows


def identity(row: Row) -> tuple[str, str, int, int]:
    """Return what tells runs apart: task, algorithm, updates per step, seed."""
    return row["task"], row["algorithm"], row["utd"], row["seed"]


def run_rows(run_dir: Path, load: str) -> list[Row]:
    """Return the evaluations of a run directory, each with what is needed to understand it later.

    Versions and machine are those of the last process that trained; commits are of all processes.
    """
    settings = yaml_files.read_yaml(run_dir / run_directory.CONFIG)
    name, algorithm = settings["env"]["name"], learner(settings)
    task = name.removeprefix(SUITE)
    if task == name or algorithm not in LEARNERS or not published_points(task, algorithm):
        raise ConfigError(f"{run_dir}: nothing is published of {algorithm} on {name}; leave it out")
    environment = run_directory.read_environment(run_dir)
    versions = environment.get("versions", {})
    head = {
        "task": task,
        "algorithm": algorithm,
        "utd": settings["sac"]["utd_ratio"],
    }
    facts = {
        "commits": list(dict.fromkeys(_commits(environment))),
        "versions": {name: versions.get(name) for name in VERSIONS},
        "cores": environment.get("host_cores"),
        "devices": environment.get("devices"),
        "load": load,
    }
    evals = run_dir / logs.EVALS
    return [head | row | facts for row in read_rows(evals)] if evals.exists() else []


def learner(settings: dict[str, Any]) -> str:
    """Return what a run's settings make of it: its algorithm, or a variant of it."""
    algorithm, truncation = settings["algorithm"], settings.get("rollout", {}).get("truncation")
    if algorithm == "dhmbpo" and settings.get("fit", {}).get("batch_size") == LARGE_FITS:
        return "dhmbpo_large_fits"
    if algorithm == "mbpo" and truncation == "threshold":
        return "macura"
    return (
        "sac_5_critics"
        if (algorithm, settings["sac"].get("num_critics")) == ("sac", 5)
        else algorithm
    )


def _commits(environment: dict[str, Any]) -> Iterator[str | None]:
    for process in [*environment.get("earlier", []), environment]:
        revision = process.get("git_revision")
        yield f"{revision}-dirty" if process.get("git_dirty") else revision


def by_learner(rows: Iterable[Row]) -> dict[str, dict[tuple[str, int], list[Row]]]:
    """Group rows by task, and in each task by algorithm and updates per step."""
    grouped: dict[str, dict[tuple[str, int], list[Row]]] = {}
    for row in rows:
        key = row["algorithm"], row["utd"]
        grouped.setdefault(row["task"], {}).setdefault(key, []).append(row)
    return grouped


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Return every published point that at least one of our runs got to, with these runs."""
    found = []
    for task, learners in by_learner(rows).items():
        for (algorithm, utd), own in learners.items():
            curves = arrange(own, "return_mean")
            for point in published_points(task, algorithm):
                returns = returns_at(curves, point.env_steps)
                if returns.size:
                    found.append(Comparison(task, algorithm, utd, point, returns))
    return found


def returns_at(curves: Curves, step: int) -> np.ndarray:
    """Return the mean return of each run around a step, of those that got there.

    Averaged as published points are, over `WINDOW` steps to either side; over fewer where the run
    begins or ends, so that the step stays in the middle.
    """
    found = []
    for line in curves.values:
        known = np.isfinite(line)
        steps, values = curves.env_steps[known], line[known]
        if steps.size and steps[0] <= step <= steps[-1]:
            distances = np.abs(steps - step)
            reach = min(WINDOW, step - steps[0], steps[-1] - step)
            found.append(values[distances <= max(reach, distances.min())].mean())
    return np.array(found)
